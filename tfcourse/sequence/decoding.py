"""To write with a translating model: greedily, or with a beam (Graves, 2012; Wu et al., 2016).

https://arxiv.org/abs/1211.3711 and https://arxiv.org/abs/1609.08144. A model says how likely each
token y_t is after those before it; of all sequences that end in the end's token is wanted the one
with the largest

    log p(y) = sum_t log p(y_t | y_1 ... y_(t-1))

Greedy search takes the likeliest token at each place and never looks back. Beam search keeps the
best few beginnings of each length; as wide as there are beginnings, it is exhaustive. As each token
more makes log p(y) smaller, long sequences lose; a length penalty a ranks them by

    log p(y) / ((5 + length) / 6)^a

A model has a layer "encoder" and a layer "decoder". The encoder gives a memory and where it has
tokens; the decoder's `start` makes of these a state, a dict of tensors with the rows first, and its
`step` reads a token and gives logits and the next state. What a state has under names that begin
with "memory" never changes. Each of the two has its table of vectors as `embedding`.
"""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfcourse.sequence.search import Ways, beam, greedy
from tfcourse.sequence.tokens import check_counts

SPECIAL_IDS = (0, 2, 3)  # those of data.text
MOST_PENALTY = 10  # with more, 32 bits are too few for what divides


def greedy_search(
    model: keras.Model,
    source: np.ndarray,
    *,
    length: int,
    special_ids: Sequence[int] = SPECIAL_IDS,
    never: Sequence[int] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Write for each source the likeliest token at each place.

    It is compiled once for each shape of sources: fill the last batch up with any rows.

    Args:
        model: A translating model.
        source: Ids, `(rows, source length)`.
        length: The most tokens that are written, the end included.
        special_ids: Of padding, start and end. Neither padding nor the start is ever written.
        never: What else is not, as the id of unknown words.

    Returns:
        Ids `(rows, length)`, without the start, with the end unless it did not come, and then
        padding; and their log p, `(rows,)`. In a graph they are tensors.

    Raises:
        ValueError: If an argument makes no sense.
    """
    ways = _ways(model, length, special_ids, never)
    return _arrays(greedy(model, _ids(model, "source", source), ways))


def beam_search(
    model: keras.Model,
    source: np.ndarray,
    *,
    length: int,
    beam_width: int = 4,
    length_penalty: float = 0.0,
    special_ids: Sequence[int] = SPECIAL_IDS,
    never: Sequence[int] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Write for each source some sequences that are as likely as can be found.

    It is compiled once for each shape of sources: fill the last batch up with any rows.

    Args:
        model: A translating model.
        source: Ids, `(rows, source length)`.
        length: The most tokens that are written, the end included.
        beam_width: How many beginnings are kept.
        length_penalty: a; 0 ranks by log p.
        special_ids: Of padding, start and end. Neither padding nor the start is ever written.
        never: What else is not, as the id of unknown words.

    Returns:
        Ids `(rows, beam_width, length)`, the best first, each without the start, with the end
        unless it did not come, and then padding; and their log p, `(rows, beam_width)`, without
        the penalty. Where there are fewer sequences, padding with minus infinity. In a graph they
        are tensors.

    Raises:
        ValueError: If an argument makes no sense.
    """
    ways = _ways(model, length, special_ids, never)
    check_counts({"beam_width": beam_width})
    if not 0 <= length_penalty <= MOST_PENALTY:
        raise ValueError(f"length_penalty must be from 0 to {MOST_PENALTY}, got {length_penalty!r}")
    ways = ways._replace(width=int(beam_width), penalty=float(length_penalty))
    return _arrays(beam(model, _ids(model, "source", source), ways))


def attention_maps(model: keras.Model, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return how much each place of a target attends to each of its source.

    Args:
        model: A translating model with attention.
        source: Ids, `(rows, source length)`.
        target: Ids, `(rows, target length)`, beginning with the start: row t of a map is of the
            token that is written after place t.

    Returns:
        Weights `(rows, target length, source length)`, 0 at padding of the source.

    Raises:
        ValueError: If the model does not attend, or the ids make no sense.
    """
    ids = [_ids(model, name, x) for name, x in (("source", source), ("target", target))]
    if ids[0].shape[0] != ids[1].shape[0]:
        raise ValueError(
            f"target must have a row for each of source's {ids[0].shape[0]}, got {ids[1].shape[0]}"
        )
    return _maps(model, *ids).numpy()


@tf.function(autograph=False)
def _maps(model, source, target):
    return model.get_layer("decoder").attention(target, *model.get_layer("encoder")(source))


def _arrays(found):
    return tuple(x.numpy() for x in found) if tf.executing_eagerly() else found


def _size(model, name):
    """Return the number of tokens that a half of a model knows."""
    return model.get_layer("encoder" if name == "source" else "decoder").embedding.input_dim


def _ids(model, name, ids):
    """Return ids as a tensor, once they are found to be such."""
    ids = ids if tf.is_tensor(ids) else np.asarray(ids)
    shape, kind, size = tuple(ids.shape), tf.as_dtype(ids.dtype), _size(model, name)
    if len(shape) != 2 or 0 in shape or not kind.is_integer:
        raise ValueError(
            f"{name} must be integers (rows, length), both at least 1, got {kind.name} {shape}"
        )
    # Else XLA reads another token's vector, and without it a negative id does.
    if tf.executing_eagerly():
        for wrong in (int(np.min(ids)), int(np.max(ids))):
            if not 0 <= wrong < size:
                raise ValueError(f"{name} must have ids from 0 to {size - 1}, got {wrong}")
    return tf.cast(ids, tf.int32)


def _ways(model, length, special_ids, never):
    check_counts({"length": length})
    size, special_ids = _size(model, "target"), tuple(map(int, special_ids))
    never = tuple(map(int, never))
    known = all(0 <= token < size for token in special_ids)
    if not known or len(special_ids) != 3 or len(set(special_ids)) != 3:
        raise ValueError(
            f"special_ids must be three from 0 to {size - 1}, of padding, start and end, "
            f"got {special_ids}"
        )
    if special_ids[2] in never:
        raise ValueError(f"never must not have the end, {special_ids[2]}, got {never}")
    return Ways(int(length), special_ids, never)
