"""DIEN's auxiliary loss (Zhou et al., 2019), https://arxiv.org/abs/1809.03672.

Each state h_j of a history has to tell what came next, e_(j+1), from something else, n_(j+1), drawn
at random. To the log loss is added, with a weight, the mean over rows of the mean over j of

    -log sigmoid(h_j . e_(j+1)) - log(1 - sigmoid(h_j . n_(j+1)))

In the authors' code a small network is in the place of the inner product.
"""

import keras
from keras import layers, ops

from tfcourse.recommendation.randomness import random_bits


@keras.saving.register_keras_serializable("tfcourse")
class Negatives(layers.Layer):
    """Draw for each id another one, all from 1 to size - 1 but itself being equally likely.

    Input and output: ids `(batch, length)`. When not training, nothing is drawn: zeros.
    """

    def __init__(self, size: int, seed: int | None = None, **kwargs):
        """Say from how many.

        Args:
            size: Rows of the category's table, at least 3.
            seed: Of the draws; by default one drawn from Keras' own.
            **kwargs: What every layer takes.
        """
        super().__init__(**kwargs)
        self.size, self.seed = size, seed
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, ids, training=False):
        if not training:
            return ops.zeros_like(ids)
        # One less than there are, and those from the id itself on move up by one.
        bits = random_bits(ops.shape(ids), self.generator)
        drawn = 1 + ops.cast(bits % (self.size - 2), "int32")
        return drawn + ops.cast((drawn >= ids) & (ids > 0), "int32")

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"size": self.size, "seed": self.seed}


@keras.saving.register_keras_serializable("tfcourse")
class AuxiliaryLoss(layers.Layer):
    """Add the loss of telling what came next, in training; return the states as they are.

    Input: states and vectors of a history and of the negatives, `(batch, length, n)`, and its ids
    `(batch, length)`, the newest first. Output: the states.
    """

    def __init__(self, weight: float, **kwargs):
        """Say how much it counts.

        Args:
            weight: Of this loss beside the model's own.
            **kwargs: What every layer takes.
        """
        super().__init__(**kwargs)
        self.weight = weight

    def call(self, states, vectors, negatives, ids, training=False):
        if training:
            self.add_loss(self.weight * auxiliary_loss(states, vectors, negatives, ids))
        return states

    def compute_output_shape(self, states_shape, vectors_shape, negatives_shape, ids_shape):
        return states_shape

    def get_config(self):
        return super().get_config() | {"weight": self.weight}


def auxiliary_loss(states, vectors, negatives, ids):
    """Return how badly the states of a history tell what came next from negatives.

    Args:
        states: `(batch, length, n)`, the newest first, as all four.
        vectors: Of the history, `(batch, length, n)`.
        negatives: Vectors of the negatives, `(batch, length, n)`.
        ids: `(batch, length)`, 0 is padding.

    Returns:
        The mean over all rows; one with less than two things adds 0.
    """
    states, vectors, negatives = (ops.cast(x, "float32") for x in (states, vectors, negatives))
    real = ops.sum(states[:, 1:] * vectors[:, :-1], axis=-1)
    drawn = ops.sum(states[:, 1:] * negatives[:, :-1], axis=-1)
    return mean_of_pairs(real, drawn, ids)


def mean_of_pairs(real, drawn, ids):
    """Return the log loss of pairs of a state and a thing, of which those that came are `real`.

    The paper adds a row's losses up, its authors' code averages over all places, padding too; the
    mean over a row's own places, as here, depends on neither length.

    Args:
        real: Logits `(batch, length - 1)`.
        drawn: Those of the negatives, `(batch, length - 1)`.
        ids: `(batch, length)`, 0 is padding.

    Returns:
        The mean over all rows; one with less than two things adds 0.
    """
    pairs = ops.cast((ids[:, 1:] > 0) & (ids[:, :-1] > 0), "float32")
    losses = pairs * (ops.softplus(-real) + ops.softplus(drawn))
    return ops.mean(ops.sum(losses, axis=1) / ops.maximum(ops.sum(pairs, axis=1), 1))
