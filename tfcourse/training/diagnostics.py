"""Checks before a long training: a dry run, one batch learnt by heart, gradients by differences."""

import math
import time

import keras
import numpy as np
import tensorflow as tf

from tfcourse.training.loop import evaluate, fit
from tfcourse.training.lr_finder import BatchLosses, shortened
from tfcourse.training.snapshots import unchanged


def overfit_one_batch(
    model: keras.Model, data, steps: int = 200, *, target: float = 0.1
) -> tuple[list[float], bool]:
    """Train on the first batch alone; the model and its optimizer are as before afterwards.

    When to use it: first of all, when a training learns nothing. A model that can learn must
    learn a few rows by heart; if it does not, the fault is in the model, the loss, the targets
    or the learning rate, and more data or epochs will not help. Strong dropout can keep a sound
    model above the target.

    Args:
        model: A compiled model.
        data: What `fit` takes.
        steps: How often to train on the batch.
        target: The loss has fallen if it ends below this part of the first one, without
            penalties on weights. For a loss that can be negative look at the losses.

    Returns:
        The loss before each step, and whether it fell.

    Raises:
        ValueError: If `steps` is below 2 or the model cannot be trained.
    """
    if steps < 2:
        raise ValueError(f"steps must be at least 2, got {steps}")
    recorder = BatchLosses(steps)
    batch = _first_batch(data)
    with unchanged(model):
        fit(model, _repeated(batch, steps), 1, callbacks=[recorder])
    losses = recorder.losses
    fell = math.isfinite(losses[-1]) and losses[-1] < target * losses[0]
    answer = "the model can learn" if fell else f"it should fall below {target:.0%}"
    print(f"one batch, {len(losses)} steps: loss {losses[0]:.4g} -> {losses[-1]:.4g}; {answer}")
    return losses, fell


def dry_run(model: keras.Model, data, validation_data=None) -> dict[str, str]:
    """Train on two batches, validate on one, print a table, and put everything back.

    When to use it: before every long training. What would fail after an hour, such as the
    validation or a metric, fails now.

    Args:
        model: A compiled model.
        data: What `fit` takes.
        validation_data: What `fit` takes as `validation_data`.

    Returns:
        The table: shapes, numbers of weights, losses, and the times of the first step, which
        traces the graph, and of the second.
    """
    x, y, _ = keras.utils.unpack_x_y_sample_weight(_first_batch(data))
    recorder = _Timer(2)
    with unchanged(model):
        start = time.perf_counter()
        fit(model, shortened(data, 2), 2, callbacks=[recorder])
        table = {"inputs": _shapes(x), "targets": _shapes(y)}
        if validation_data is not None:
            logs = evaluate(model, _repeated(_first_batch(validation_data), 1))
            table["validation"] = "  ".join(f"{k} {v:.4g}" for k, v in logs.items())
    count = sum(math.prod(v.shape) for v in model.trainable_variables)
    table["weights"] = f"{count:,} trainable, {model.count_params() - count:,} frozen"
    table["losses"] = "  ".join(f"{loss:.4g}" for loss in recorder.losses)
    first, second = np.diff([start, *recorder.times])
    table |= {"first step": f"{first:.2f} s, with tracing", "second step": f"{second * 1e3:.1f} ms"}
    print(f"dry run of {model.name}")
    for name, value in table.items():
        print(f"  {name:<12} {value}")
    return table


class _Timer(BatchLosses):
    def __init__(self, steps: int):
        super().__init__(steps)
        self.times = []

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        self.times.append(time.perf_counter())


def _first_batch(data) -> tuple:
    return next(iter(data)) if isinstance(data, tf.data.Dataset) else data.batch(0, 0)


def _repeated(batch: tuple, times: int) -> tf.data.Dataset:
    """Return a data set that gives one batch so often; of any number of rows, as `fit` wants."""
    rows = tf.data.Dataset.from_tensor_slices(batch)
    return rows.batch(len(keras.tree.flatten(batch)[0])).repeat(times)


def _shapes(structure) -> str:
    leaves = [leaf for leaf in keras.tree.flatten(structure) if leaf is not None]
    return ", ".join(f"{tuple(leaf.shape)} {leaf.dtype.name}" for leaf in leaves)
