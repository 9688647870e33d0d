"""Matrix factorisation with biases (Koren, Bell & Volinsky, 2009).

https://doi.org/10.1109/MC.2009.263. With m the mean of all ratings,

    r_ui ~ m + b_u + b_i + p_u . q_i

is fitted by least squares over the ratings that are known, each with a penalty on what it used:

    sum_ui (r_ui - m - b_u - b_i - p_u . q_i)^2
           + regularization (b_u^2 + b_i^2 + |p_u|^2 + |q_i|^2)
"""

import keras
from keras import layers, ops

from tfcourse.data.features import Category, check_features
from tfcourse.recommendation.embedding import embed, make_inputs


@keras.saving.register_keras_serializable("tfcourse")
class LookedUpPenalty(layers.Layer):
    """Pass vectors on, and penalise them: who has many ratings is penalised as often.

    A regularizer of the table would pull at every row in every step, those that no rating speaks
    for included, and would make the gradient dense.

    Input and output: a list of `(batch, n)`. Adds the mean over the rows of
    `regularization * sum of squares` to the loss.
    """

    def __init__(self, regularization: float, **kwargs):
        """Say how strong it is.

        Args:
            regularization: Times the squares.
            **kwargs: What every layer takes.
        """
        super().__init__(**kwargs)
        self.regularization = regularization

    def call(self, inputs):
        squares = [ops.square(ops.cast(vectors, "float32")) for vectors in inputs]
        total = sum(ops.sum(part, axis=1) for part in squares)
        self.add_loss(self.regularization * ops.mean(total))
        return inputs

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"regularization": self.regularization}


def build_matrix_factorization(
    user: Category,
    item: Category,
    *,
    embedding_dim: int = 32,
    mean: float = 0.0,
    regularization: float = 0.1,
) -> keras.Model:
    """Build the model of ratings as a product of two thin matrices, and biases.

    A user and an item meet in a few hidden properties, learnt from the ratings alone; how mild the
    user is, and how good the item, is said apart from it.

    Args:
        user: The column of users.
        item: The column of items.
        embedding_dim: How many properties: the length of p and q.
        mean: Of all ratings; 0 for models of clicks, or of pairs.
        regularization: The penalty; it comes with the model, as one of its losses.

    Returns:
        A model from a dict of the two columns to logits `(batch, 1)`; for ratings these are the
        ratings themselves, and the loss is the mean squared error.

    Raises:
        ValueError: If no model can be built of these columns or sizes.
    """
    check_features([user, item])
    if not isinstance(embedding_dim, int) or embedding_dim < 1:
        raise ValueError(
            f"embedding_dim must be a whole number of at least 1, got {embedding_dim!r}"
        )
    if not 0 <= regularization < float("inf"):
        raise ValueError(f"regularization must be a number from 0 up, got {regularization!r}")
    if not abs(mean) < float("inf"):
        raise ValueError(f"mean must be a finite number, got {mean!r}")
    columns = [user, item]
    inputs = make_inputs(columns)
    vectors = embed(columns, inputs, embedding_dim, name="vectors")
    biases = embed(columns, inputs, 1, name="biases")
    used = [table[column.name] for table in (vectors, biases) for column in columns]
    p, q, *used_biases = LookedUpPenalty(regularization, name="penalty")(used)
    x = layers.Add(name="sum")([layers.Dot(axes=1, name="product")([p, q]), *used_biases])
    logits = layers.Rescaling(1.0, offset=mean, name="logits")(x)
    return keras.Model(inputs, logits, name="matrix_factorization")
