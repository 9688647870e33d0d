"""DeepFM (Guo, Tang, Ye, Li & He, 2017), https://arxiv.org/abs/1703.04247.

A factorisation machine and a network of dense layers read the same vectors:

    logit = b + sum_i w_i + sum_(i<j) <v_i, v_j>  +  w . h_L        h_0 = [v_1, ..., v_n, x]

The course's network differs, and is kept for comparison: of all pairs p it has four, chosen by
hand, with a weight u_p each, and its linear, product and deep parts have tables of their own:

    logit = b + sum_i w_i + sum_p u_p <v_p, v'_p> + w . h_L
"""

from collections.abc import Sequence

import keras
from keras import layers, ops

from tfcourse.data.features import Feature, Number
from tfcourse.recommendation import course
from tfcourse.recommendation.blocks import Score, check_fields, check_sizes, fields, mlp, numbers
from tfcourse.recommendation.embedding import embed, make_inputs
from tfcourse.recommendation.factorization_machine import sum_over_pairs, weights_and_vectors

# Length of a vector, units of the hidden layers. The paper's best are 10 and (400, 400, 400).
SIZES = {"paper": (16, (128, 64)), "course": (10, (64, 64))}
Pairs = Sequence[tuple[str, str]]


def build_deepfm(
    features: Sequence[Feature],
    *,
    variant: str = "paper",
    embedding_dim: int | None = None,
    hidden_units: tuple[int, ...] | None = None,
    dropout: float = 0.0,
    pairs: Pairs = course.PAIRS,
) -> keras.Model:
    """Build a factorisation machine and a deep network that share their vectors.

    The one has the pairs, without which dense layers learn products slowly, the other all that is
    not a pair; since vectors are shared, neither has to be trained first, and no cross be made by
    hand. Difference from the paper: the deep part reads a number x itself and not x v, from
    which a dense layer can make nothing else, with more weights.

    Args:
        features: The columns. The course's are `course.DEEPFM`.
        variant: "paper" or "course".
        embedding_dim: Length of a vector; by default 16, in the course 10.
        hidden_units: Of each hidden layer; by default (128, 64), in the course (64, 64).
        dropout: Rate after each hidden layer.
        pairs: For the course's variant alone: the names of the columns that are multiplied. The
            linear part has these columns, the deep part those of the first pair, all numbers, and
            what is in no pair.

    Returns:
        A model from a dict of columns to logits `(batch, 1)`.

    Raises:
        ValueError: If no model can be built of these columns or sizes.
    """
    check_fields(features)
    dim, hidden = check_sizes(SIZES, variant, embedding_dim, hidden_units, dropout)
    inputs = make_inputs(features)
    if variant == "course":
        parts, deep = _by_hand(features, inputs, dim, pairs)
    else:
        weights, vectors = weights_and_vectors(features, inputs, dim)
        parts = [ops.sum(weights, axis=1, keepdims=True), sum_over_pairs(vectors)]
        x = numbers(features, inputs)
        of_ids = vectors[:, : vectors.shape[1] - len(x)]
        deep = [layers.Flatten(name="vectors")(of_ids), *x]
    x = mlp(layers.Concatenate(name="fields")(deep), hidden, dropout=dropout)
    parts.append(layers.Dense(1, use_bias=False, name="deep")(x))
    return keras.Model(inputs, Score(name="logits")(parts), name="deepfm")


def _by_hand(
    features: Sequence[Feature], inputs: dict[str, keras.KerasTensor], embedding_dim: int, pairs
) -> tuple[list[keras.KerasTensor], list[keras.KerasTensor]]:
    """Return the parts of the score of the course's network, and what its deep part reads."""
    with_ids = {f.name: f for f in features if not isinstance(f, Number)}
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    if not names or any(len(p) != 2 for p in pairs) or not with_ids.keys() >= set(names):
        raise ValueError(f"pairs must be of the columns {', '.join(with_ids)}, got {list(pairs)}")
    chosen = [with_ids[name] for name in names]
    weights = fields(chosen, inputs, embed(chosen, inputs, 1, name="weights"))
    vectors = embed(chosen, inputs, embedding_dim, name="pair_embedding")
    vectors = dict(zip(names, fields(chosen, inputs, vectors), strict=True))
    products = [ops.sum(vectors[a] * vectors[b], axis=1, keepdims=True) for a, b in pairs]
    products = ops.concatenate(products, axis=1)
    in_deep = dict.fromkeys([*pairs[0], *(name for name in with_ids if name not in names)])
    in_deep = [with_ids[name] for name in in_deep]
    deep = fields(in_deep, inputs, embed(in_deep, inputs, embedding_dim, name="deep_embedding"))
    product_score = layers.Dense(1, use_bias=False, name="products")(products)
    return [*weights, product_score], [*deep, *numbers(features, inputs)]
