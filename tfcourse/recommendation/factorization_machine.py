"""Factorisation machines (Rendle, 2010), https://doi.org/10.1109/ICDM.2010.127.

Every column i has a weight w_i and a vector v_i: those of its id, for a history the mean of those
of its items, for a number x its own, times x. Each pair of columns acts by how alike they are:

    logit = b + sum_i w_i + sum_(i<j) <v_i, v_j>

The sum over pairs needs no pairs, since (sum_i v_i)^2 has each of them twice, and the squares:

    sum_(i<j) <v_i, v_j> = 0.5 sum_d ((sum_i v_id)^2 - sum_i v_id^2)
"""

from collections.abc import Sequence

import keras
from keras import layers, ops

from tfcourse.data.features import Feature
from tfcourse.recommendation.blocks import Score, check_counts, check_fields, fields, numbers
from tfcourse.recommendation.embedding import SPREAD, embed, make_inputs


@keras.saving.register_keras_serializable("tfcourse")
class NumberVectors(layers.Layer):
    """Give every number a vector that it is multiplied by: `(batch, n)` -> `(batch, n, dim)`."""

    def __init__(self, embedding_dim: int, **kwargs):
        """Say how long vectors are.

        Args:
            embedding_dim: Length of a vector.
            **kwargs: What every layer takes.
        """
        super().__init__(**kwargs)
        self.embedding_dim = embedding_dim

    def build(self, input_shape):
        self.table = self.add_weight(
            name="table",
            shape=(input_shape[-1], self.embedding_dim),
            initializer=keras.initializers.RandomUniform(-SPREAD, SPREAD),
        )

    def call(self, inputs):
        return inputs[:, :, None] * self.table

    def compute_output_shape(self, input_shape):
        return (*input_shape, self.embedding_dim)

    def get_config(self):
        return super().get_config() | {"embedding_dim": self.embedding_dim}


def weights_and_vectors(
    features: Sequence[Feature], inputs: dict[str, keras.KerasTensor], embedding_dim: int
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Look up the weight and the vector of every column, in one table of both.

    Args:
        features: The columns, one with ids among them.
        inputs: What `make_inputs` returned for them.
        embedding_dim: Length of a vector.

    Returns:
        `(batch, columns)` and `(batch, columns, embedding_dim)`; numbers come last.
    """
    rows = embed(features, inputs, 1 + embedding_dim, name="embedding")
    found = ops.stack(fields(features, inputs, rows), axis=1)
    if values := numbers(features, inputs):
        values = ops.concatenate(values, axis=1)
        values = NumberVectors(1 + embedding_dim, name="number_vectors")(values)
        found = ops.concatenate([found, values], axis=1)
    return found[:, :, 0], found[:, :, 1:]


def sum_over_pairs(vectors: keras.KerasTensor) -> keras.KerasTensor:
    """Sum the dot products of all pairs: `(batch, columns, embedding_dim)` -> `(batch, 1)`."""
    of_sum, of_each = ops.square(ops.sum(vectors, axis=1)), ops.sum(ops.square(vectors), axis=1)
    return 0.5 * ops.sum(of_sum - of_each, axis=1, keepdims=True)


def build_factorization_machine(
    features: Sequence[Feature], *, embedding_dim: int = 16
) -> keras.Model:
    """Build a factorisation machine of second order.

    A polynomial has a weight for each pair of ids, most of which never meet; here a pair's weight
    is the dot product of two vectors, which learn from all the other pairs they are in.

    Args:
        features: The columns.
        embedding_dim: Length of a vector.

    Returns:
        A model from a dict of columns to logits `(batch, 1)`.

    Raises:
        ValueError: If no model can be built of these columns or this length.
    """
    check_fields(features)
    check_counts(embedding_dim)
    inputs = make_inputs(features)
    weights, vectors = weights_and_vectors(features, inputs, embedding_dim)
    linear = ops.sum(weights, axis=1, keepdims=True)
    logits = Score(name="logits")([linear, sum_over_pairs(vectors)])
    return keras.Model(inputs, logits, name="factorization_machine")
