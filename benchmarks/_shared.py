"""What several benchmarks share: a small recommender, its ratings, and a clock for epochs."""

import time
from collections.abc import Callable

import keras
import numpy as np
from keras import layers

USERS, ITEMS = 943, 1_682  # MovieLens 100K
BATCH_SIZE = 256


def build_neural_cf(metrics: list[str] | None = None) -> keras.Model:
    """Build and compile a small NeuralCF: two tables of 16 columns, and layers of 64, 32 and 1."""
    user, item = keras.Input((), dtype="int32"), keras.Input((), dtype="int32")
    x = layers.Concatenate()([layers.Embedding(USERS, 16)(user), layers.Embedding(ITEMS, 16)(item)])
    x = layers.Dense(64, activation="relu")(x)
    x = layers.Dense(32, activation="relu")(x)
    model = keras.Model([user, item], layers.Dense(1)(x), name="neural_cf")
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=metrics)
    return model


def make_ratings(rows: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Return ids `[user, item]` and labels of 0 or 1, at random: only their number matters."""
    random = np.random.default_rng(0)
    ids = [random.integers(0, size, rows, dtype=np.int32) for size in (USERS, ITEMS)]
    return ids, random.integers(0, 2, (rows, 1)).astype(np.float32)


class _Clock(keras.callbacks.Callback):
    """Notes when each epoch ends."""

    def __init__(self):
        super().__init__()
        self.ends = []

    def on_epoch_end(self, epoch, logs=None):
        self.ends.append(time.perf_counter())


def epoch_seconds(fit: Callable, epochs: int = 1) -> float:
    """Return the seconds of an epoch, the mean of `epochs` after one that is not counted.

    The first is left out because it traces the model; `first_step.py` measures that.

    Args:
        fit: Trains; called with `epochs` and `callbacks`.
        epochs: How many epochs are counted.
    """
    clock = _Clock()
    fit(epochs=1 + epochs, callbacks=[clock])
    return (clock.ends[-1] - clock.ends[0]) / epochs
