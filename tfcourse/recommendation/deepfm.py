"""DeepFM (Guo, Tang, Ye, Li & He, 2017), https://arxiv.org/abs/1703.04247.

A factorisation machine and a network of dense layers read the same vectors:

    logit = b + sum_i w_i + sum_(i<j) <v_i, v_j>  +  w . h_L        h_0 = [v_1, ..., v_n, x]

The course's two networks of this name are others; `deepfm_course` has their equations.
"""

import functools
from collections.abc import Sequence

import keras
from keras import layers, ops

from tfcourse.data.features import Feature
from tfcourse.recommendation import course
from tfcourse.recommendation.blocks import Score, check_fields, check_sizes, mlp, numbers
from tfcourse.recommendation.deepfm_course import Pairs, hand_picked, projected
from tfcourse.recommendation.embedding import make_inputs
from tfcourse.recommendation.factorization_machine import sum_over_pairs, weights_and_vectors

# Length of a vector, units of the hidden layers. The paper's best are 10 and (400, 400, 400).
SIZES = {"paper": (16, (128, 64)), "course": (10, (64, 64)), "course_v2": (10, (32, 16))}


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
        variant: "paper"; "course" or "course_v2", the course's first and second network.
        embedding_dim: Length of a vector; by default 16, in the course 10.
        hidden_units: Of each hidden layer; by default (128, 64), in the course (64, 64) and
            (32, 16).
        dropout: Rate after each hidden layer.
        pairs: For the variant "course" alone: the names of the columns that are multiplied. The
            linear part has these columns, the deep part those of the first pair, all numbers, and
            what is in no pair.

    Returns:
        A model from a dict of columns to logits `(batch, 1)`.

    Raises:
        ValueError: If no model can be built of these columns or sizes.
    """
    check_fields(features)
    dim, hidden = check_sizes(SIZES, variant, embedding_dim, hidden_units, dropout)
    deep = functools.partial(mlp, hidden_units=hidden, dropout=dropout)
    inputs = make_inputs(features)
    if variant == "course":
        logits = hand_picked(features, inputs, dim, deep, pairs)
    elif variant == "course_v2":
        logits = projected(features, inputs, dim, deep)
    else:
        weights, vectors = weights_and_vectors(features, inputs, dim)
        linear = ops.sum(weights, axis=1, keepdims=True)
        products = sum_over_pairs(vectors)
        x = numbers(features, inputs)
        of_ids = layers.Flatten(name="vectors")(vectors[:, : vectors.shape[1] - len(x)])
        x = deep(layers.Concatenate(name="fields")([of_ids, *x]))
        x = layers.Dense(1, use_bias=False, name="deep")(x)
        logits = Score(name="logits")([linear, products, x])
    return keras.Model(inputs, logits, name="deepfm")
