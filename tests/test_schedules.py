"""Warm-up and cosine against the formula, in optimizers and files; stopping on a running mean."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcourse import training
from tfcourse.training.schedules import warmup_cosine
from tfcourse.training.stopping import MovingAverageStopping

X = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
DATA = tf.data.Dataset.from_tensor_slices((X, X[:, :1])).batch(4)


def formula(step, peak, total, warmup, final):
    if step < warmup:
        return peak * step / warmup
    part = min((step - warmup) / (total - warmup), 1.0)
    return final + (peak - final) * (1 + math.cos(math.pi * part)) / 2


@pytest.mark.parametrize(
    ("peak", "total", "warmup", "final"),
    [(0.1, 100, 10, 0.0), (3e-4, 57, 0, 1e-5), (2, 20, 19, 0.5), (1.0, 5, 1, 1.0)],
)
def test_warmup_cosine_is_the_formula(peak, total, warmup, final):
    schedule = warmup_cosine(peak, total, warmup, final=final)
    steps = range(total + 10)
    rates = [float(schedule(step)) for step in steps]
    expected = [formula(step, peak, total, warmup, final) for step in steps]
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-7 * peak)
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert [float(again(step)) for step in steps] == rates


def test_warmup_cosine_drives_an_optimizer(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(warmup_cosine(0.1, 9, 3)), loss="mse")
    rates = []

    class Rates(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            rates.append(float(self.model.optimizer.learning_rate))

    training.fit(model, DATA, 2, callbacks=[Rates()])
    np.testing.assert_allclose(rates, [formula(s, 0.1, 9, 3, 0) for s in range(1, 7)], rtol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert float(loaded.optimizer.learning_rate) == rates[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"peak": 0, "total_steps": 5}, "peak must be above 0, got 0"),
        ({"peak": 1, "total_steps": 5, "final": 2}, "final must be from 0 to peak, 1, got 2"),
        (
            {"peak": 1, "total_steps": 5, "warmup_steps": 5},
            "warmup_steps must be from 0 to below total_steps, 5, got 5",
        ),
    ],
)
def test_warmup_cosine_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        warmup_cosine(**arguments)


class Values(keras.callbacks.Callback):
    """Replaces the loss by given values."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs["val_loss"] = self.values[epoch]


def epochs_of(values, stopping):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", loss="mse")
    callbacks = [Values(values), stopping]
    return len(training.fit(model, DATA, len(values), callbacks=callbacks).epoch)


def stop_of(values, decay, patience):
    """Return after how many epochs the mean, by its sum, has not improved for `patience`."""
    best, wait = math.inf, 0
    for epoch in range(len(values)):
        weights = decay ** np.arange(epoch, -1, -1.0)
        mean = np.dot(weights, values[: epoch + 1]) / weights.sum()
        wait = 0 if mean < best else wait + 1
        best = min(mean, best)
        if wait >= patience:
            return epoch + 1
    return len(values)


NOISY = np.geomspace(2.0, 1.0, 16) + np.tile([0.3, 0.0, 0.4, -0.5], 4)
RISING = [3.0, 2.0, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9]


@pytest.mark.parametrize("decay", [0.0, 0.6, 0.9])
@pytest.mark.parametrize("values", [NOISY, RISING, [1.0] * 6])
def test_stopping_is_that_of_the_mean(values, decay):
    stopping = MovingAverageStopping("val_loss", decay=decay, patience=3)
    assert epochs_of(values, stopping) == stop_of(list(values), decay, 3)


def test_noise_stops_the_plain_one_only():
    assert epochs_of(NOISY, keras.callbacks.EarlyStopping("val_loss", patience=3)) < len(NOISY)
    assert epochs_of(NOISY, MovingAverageStopping("val_loss", decay=0.8, patience=3)) == len(NOISY)


def test_stopping_goes_on_where_it_was():
    whole = MovingAverageStopping("val_loss", patience=2, restore_best_weights=True)
    epochs = epochs_of(RISING, whole)
    first = MovingAverageStopping("val_loss", patience=2, restore_best_weights=True)
    epochs_of(RISING[:3], first)
    second = MovingAverageStopping("val_loss", patience=2, restore_best_weights=True)
    second.on_train_begin = lambda logs=None: second.set_state(first.get_state())
    assert 3 + epochs_of(RISING[3:], second) == epochs
    assert (second.best, second.wait) == (whole.best, whole.wait)


def test_stopping_errors():
    with pytest.raises(ValueError, match="decay must be from 0 to below 1, got 1"):
        MovingAverageStopping(decay=1)
