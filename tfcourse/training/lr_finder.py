"""The learning-rate range test (Smith, 2017), https://arxiv.org/abs/1506.01186."""

import math
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfcourse import plots
from tfcourse.training.loop import fit
from tfcourse.training.snapshots import unchanged

EXPLODED = 4.0
# Of the smoothing, as a part of all steps.
WIDTH = 0.04
MIN_STEPS = 10


def find_learning_rate(
    model: keras.Model,
    data,
    *,
    lowest: float = 1e-7,
    highest: float = 10.0,
    steps: int = 100,
    path: str | Path | None = None,
) -> tuple[dict[str, np.ndarray], float]:
    """Train while the rate rises from batch to batch, and say where the loss falls fastest.

    When to use it: once, before the first long training of a new model or batch size. The
    suggestion is a start, for a constant rate or for the peak of a schedule, good to a factor
    of about three where the curve falls clearly; where it does not, draw it and take more steps,
    or larger batches. The model, its optimizer and its seeds are as before afterwards, also when
    interrupted. (A `tf.data` pipeline that reshuffles goes on to its next order.)

    Args:
        model: A compiled model, whose optimizer's rate is a number.
        data: What `fit` takes; begun again when it has fewer batches than `steps`.
        lowest: Rate of the first step.
        highest: Rate of the last step, unless the loss exceeds four times its best before.
        steps: How many steps; the rate rises by the same factor from each to the next.
        path: PNG file for the curve.

    Returns:
        The curve, `{"rate": (n,), "loss": (n,), "smoothed": (n,)}`, and the suggested rate: where
        the smoothed loss falls most steeply over the logarithm of the rate.

    Raises:
        ValueError: If the rate cannot be set, or the loss never falls.
    """
    if not 0 < lowest < highest:
        raise ValueError(f"lowest must be above 0 and below highest, got {lowest} and {highest}")
    if steps < MIN_STEPS:
        raise ValueError(f"steps must be at least {MIN_STEPS}, got {steps}")
    if not model.compiled:
        raise ValueError(f"model must be compiled before training, {model.name} is not")
    if not isinstance(rate := _rate(model.optimizer), keras.Variable):
        raise ValueError(f"learning_rate must be a number to be set, got {type(rate).__name__}")
    sweep = _Sweep(np.geomspace(lowest, highest, steps))
    with unchanged(model):
        # At least one batch an epoch: as many epochs are enough, and the sweep stops by itself.
        fit(model, shortened(data, steps), steps, callbacks=[sweep])
    curve = _curve(sweep)
    suggestion = _steepest(curve)
    if path:
        plots.learning_rate_curve(curve, suggestion, path)
    return curve, suggestion


def shortened(data, steps: int):
    """Return data of at most so many batches, so that an endless `tf.data.Dataset` ends."""
    return data.take(steps) if isinstance(data, tf.data.Dataset) else data


class BatchLosses(keras.callbacks.Callback):
    """Collects the loss of each batch by itself, not Keras' mean since the epoch began."""

    def __init__(self, steps: int):
        super().__init__()
        self.steps, self.losses = steps, []

    def on_train_batch_begin(self, batch, logs=None):
        self.model.reset_metrics()

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["loss"]))
        if len(self.losses) >= self.steps:
            self.model.stop_training = True


class _Sweep(BatchLosses):
    def __init__(self, rates: np.ndarray):
        super().__init__(len(rates))
        self.rates, self.best = rates, math.inf

    def on_train_batch_begin(self, batch, logs=None):
        super().on_train_batch_begin(batch, logs)
        self.model.optimizer.learning_rate = self.rates[min(len(self.losses), self.steps - 1)]

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        loss = self.losses[-1]
        self.best = min(self.best, loss)
        if not math.isfinite(loss) or loss > EXPLODED * abs(self.best):
            self.model.stop_training = True


def _rate(optimizer):
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return optimizer._learning_rate


def _curve(sweep: _Sweep) -> dict[str, np.ndarray]:
    losses = np.array(sweep.losses[: len(sweep.rates)])
    losses = losses[: int(np.argmin(np.isfinite([*losses, np.nan])))]
    index = np.arange(len(losses))
    # A running mean lags behind and would suggest too high a rate; a Gaussian looks both ways.
    distance = (index[:, None] - index) / (WIDTH * len(sweep.rates))
    weights = np.exp(-0.5 * distance**2)
    # The explosion at the end would reach back over the width.
    clipped = np.minimum(losses, 1.5 * np.median(losses[:MIN_STEPS])) if len(losses) else losses
    smoothed = weights @ clipped / weights.sum(axis=1)
    return {"rate": sweep.rates[: len(losses)], "loss": losses, "smoothed": smoothed}


def _steepest(curve: dict[str, np.ndarray]) -> float:
    """Return the rate of the steepest fall before the lowest point of the smoothed curve."""
    smoothed = curve["smoothed"]
    lowest = int(np.argmin(smoothed)) if len(smoothed) else 0
    if lowest < 2:
        raise ValueError("the loss never falls: lowest must be a lower rate, or the model is wrong")
    slope = np.gradient(smoothed[: lowest + 1], np.log(curve["rate"][: lowest + 1]))
    return float(curve["rate"][np.argmin(slope)])
