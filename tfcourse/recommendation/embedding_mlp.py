"""Embedding + MLP (Covington, Adams & Sargin, 2016), https://doi.org/10.1145/2959100.2959190.

Each category c becomes a vector, a history the mean of the vectors of its items, and a network of
dense layers reads them one behind the other, with the numbers x:

    h_0 = [v_c1, ..., v_cn, mean_k v_history, x]        h_l = relu(W_l h_(l-1) + b_l)
    logit = w . h_L + b
"""

from collections.abc import Sequence

import keras
from keras import layers

from tfcourse.data.features import Feature
from tfcourse.recommendation.blocks import check_fields, check_sizes, fields, mlp, numbers
from tfcourse.recommendation.embedding import embed, make_inputs

# Length of a vector, units of the hidden layers. The paper's are 256 and up to (1024, 512, 256).
SIZES = {"paper": (16, (128, 64)), "course": (10, (128, 128))}


def build_embedding_mlp(
    features: Sequence[Feature],
    *,
    variant: str = "paper",
    embedding_dim: int | None = None,
    hidden_units: tuple[int, ...] | None = None,
    dropout: float = 0.0,
) -> keras.Model:
    """Build the first of the deep recommenders: vectors of all columns into one dense network.

    A category with a million values costs one row of a table each, and values that act alike get
    vectors alike; how columns act together is left to the dense layers.

    Args:
        features: The columns. The course's are `course.EMBEDDING_MLP`.
        variant: "paper" or "course", which differ in their sizes alone.
        embedding_dim: Length of a vector; by default 16, in the course 10.
        hidden_units: Of each hidden layer; by default (128, 64), in the course (128, 128).
        dropout: Rate after each hidden layer.

    Returns:
        A model from a dict of columns to logits `(batch, 1)`.

    Raises:
        ValueError: If no model can be built of these columns or sizes.
    """
    check_fields(features)
    dim, hidden = check_sizes(SIZES, variant, embedding_dim, hidden_units, dropout)
    inputs = make_inputs(features)
    vectors = embed(features, inputs, dim, name="embedding")
    parts = [*fields(features, inputs, vectors), *numbers(features, inputs)]
    x = mlp(layers.Concatenate(name="fields")(parts), hidden, dropout=dropout)
    return keras.Model(inputs, layers.Dense(1, name="logits")(x), name="embedding_mlp")
