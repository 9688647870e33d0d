"""Attention: additive (Bahdanau et al., 2015), Luong's (2015), scaled (Vaswani et al., 2017).

https://arxiv.org/abs/1409.0473, https://arxiv.org/abs/1508.04025, https://arxiv.org/abs/1706.03762.

A query q is scored against every key k_j; the scores become weights that add up to 1, and what
comes back is the mean of the values x_j with these weights:

    additive   e_j = v . tanh(q W + k_j U)      dot      e_j = q . k_j
    scaled     e_j = q . k_j / sqrt(n)          general  e_j = q . k_j W

    a = softmax(e)      c = sum_j a_j x_j

Luong's `concat`, v . tanh([q; k_j] W), is the additive one: W and U are the two halves of its W. Of
`general` and `additive` the products with W and U are the caller's, since those of keys are the
same for all queries.
"""

import keras
import tensorflow as tf
from keras import KerasTensor, ops


def additive_scores(queries: KerasTensor, keys: KerasTensor, v: KerasTensor) -> KerasTensor:
    """Return v . tanh(q + k) of each query and each key.

    Args:
        queries: q W, `(..., queries, n)`.
        keys: k U, `(..., keys, n)`.
        v: `(n,)`.

    Returns:
        `(..., queries, keys)`.
    """
    sums = ops.expand_dims(queries, -2) + ops.expand_dims(keys, -3)
    return tf.tensordot(ops.tanh(sums), v, 1)


def dot_scores(queries: KerasTensor, keys: KerasTensor) -> KerasTensor:
    """Return q . k of each query `(..., queries, n)` and each key `(..., keys, n)`.

    Returns:
        `(..., queries, keys)`.
    """
    return ops.matmul(queries, ops.swapaxes(keys, -1, -2))


def masked_softmax(scores: KerasTensor, mask: KerasTensor) -> KerasTensor:
    """Return the softmax over the last axis of what is not masked.

    Args:
        scores: `(..., keys)`.
        mask: True where there is a key, of a shape that broadcasts to that of the scores.

    Returns:
        Weights of the scores' shape and type: exactly 0 where the mask is False, and else as though
        there were only the others. A row without any key is zeros.
    """
    # 8 bits, or numbers up to 65,504, are too little for a sum of exponentials.
    kind = keras.backend.result_type(scores.dtype, "float32")
    wide = ops.where(mask, ops.cast(scores, kind), -1e9)
    # Not Keras' softmax, which warns of a single key.
    weights = tf.nn.softmax(wide) * ops.cast(mask, kind)
    return ops.cast(weights, scores.dtype)


def scaled_dot_product(
    queries: KerasTensor, keys: KerasTensor, values: KerasTensor, mask: KerasTensor
) -> tuple[KerasTensor, KerasTensor]:
    """Attend by dot products over sqrt(n), which keeps their variance at 1 for any n.

    Without it, at large n the softmax picks one key, and hardly any gradient comes through.

    Args:
        queries: `(..., queries, n)`.
        keys: `(..., keys, n)`.
        values: `(..., keys, m)`.
        mask: True where a query may see a key, broadcast to `(..., queries, keys)`.

    Returns:
        Weighted means of the values `(..., queries, m)`, and the weights `(..., queries, keys)`.
    """
    weights = masked_softmax(dot_scores(queries, keys) / queries.shape[-1] ** 0.5, mask)
    return ops.matmul(weights, values), weights
