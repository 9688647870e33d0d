"""The course's two networks after DeepFM, kept for comparison (SparrowRecSys).

https://github.com/wzhe06/SparrowRecSys. The first has, of all pairs p, four chosen by hand, with a
weight u_p each; its linear, product and deep parts have tables of their own:

    logit = b + sum_i w_i + sum_p u_p <v_p, v'_p> + w . h_L

The second brings every column, and all numbers together as one more, to vectors z_i of the same
length by a dense layer each. It has all pairs, twice, and leaves it to the last layer to add them
up over the places of the vectors; the deep part reads the same vectors:

    z_i = P_i v_i + q_i     s = (sum_i z_i)^2 - sum_i z_i^2     h_0 = [z_1, ..., z_n]
    logit = b + w . [sum_i w_i, s, h_L]
"""

from collections.abc import Callable, Sequence

import keras
from keras import layers, ops

from tfcourse.data.features import Feature, Number
from tfcourse.recommendation.blocks import Score, fields, numbers
from tfcourse.recommendation.embedding import embed, with_crosses

Pairs = Sequence[tuple[str, str]]
Layers = Callable[[keras.KerasTensor], keras.KerasTensor]  # the hidden ones of the deep part

PROJECTED = 64  # length of z


def hand_picked(
    features: Sequence[Feature],
    inputs: dict[str, keras.KerasTensor],
    embedding_dim: int,
    deep: Layers,
    pairs: Pairs,
) -> keras.KerasTensor:
    """Return the logits `(batch, 1)` of the first network.

    Raises:
        ValueError: If a pair is none, or of a column without ids.
    """
    with_ids = {f.name: f for f in features if not isinstance(f, Number)}
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    if not names or any(len(p) != 2 for p in pairs) or not with_ids.keys() >= set(names):
        raise ValueError(f"pairs must be of the columns {', '.join(with_ids)}, got {list(pairs)}")
    inputs = with_crosses(features, inputs)
    chosen = [with_ids[name] for name in names]
    weights = fields(chosen, inputs, embed(chosen, inputs, 1, name="weights"))
    vectors = embed(chosen, inputs, embedding_dim, name="pair_embedding")
    vectors = dict(zip(names, fields(chosen, inputs, vectors), strict=True))
    products = [ops.sum(vectors[a] * vectors[b], axis=1, keepdims=True) for a, b in pairs]
    products = ops.concatenate(products, axis=1)
    in_deep = dict.fromkeys([*pairs[0], *(name for name in with_ids if name not in names)])
    in_deep = [with_ids[name] for name in in_deep]
    read = fields(in_deep, inputs, embed(in_deep, inputs, embedding_dim, name="deep_embedding"))
    products = layers.Dense(1, use_bias=False, name="products")(products)
    x = deep(layers.Concatenate(name="fields")([*read, *numbers(features, inputs)]))
    deep_score = layers.Dense(1, use_bias=False, name="deep")(x)
    return Score(name="logits")([*weights, products, deep_score])


def projected(
    features: Sequence[Feature],
    inputs: dict[str, keras.KerasTensor],
    embedding_dim: int,
    deep: Layers,
) -> keras.KerasTensor:
    """Return the logits `(batch, 1)` of the second network."""
    inputs = with_crosses(features, inputs)
    linear = fields(features, inputs, embed(features, inputs, 1, name="weights"))
    found = fields(features, inputs, embed(features, inputs, embedding_dim, name="embedding"))
    names = [f.name for f in features if not isinstance(f, Number)]
    if values := numbers(features, inputs):
        values = ops.concatenate(values, axis=1)
        linear = [*linear, layers.Dense(1, name="number_weights")(values)]
        found.append(values)
        names.append("all_numbers")
    named = zip(names, found, strict=True)
    z = [layers.Dense(PROJECTED, name=f"projected_{name}")(x) for name, x in named]
    z = ops.stack(z, axis=1)
    pairs = ops.square(ops.sum(z, axis=1)) - ops.sum(ops.square(z), axis=1)
    parts = [Score(name="linear")(linear), pairs, deep(layers.Flatten(name="fields")(z))]
    return layers.Dense(1, name="logits")(layers.Concatenate(name="parts")(parts))
