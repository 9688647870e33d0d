"""How many steps run in one call of the graph, and what callbacks are told in between."""

import time
from collections.abc import Sequence

import keras
import tensorflow as tf

SECONDS_OF_A_CALL = 0.25
MOST_STEPS = 4096
STEPS_OF_MANY_WORKERS = 16  # their clocks differ, and they must stop at the same step
EVENTS = {
    "train": ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end"),
    "test": ("on_test_batch_begin", "on_test_batch_end"),
}


class Rhythm:
    """Chooses the steps of a call: few enough to be heard of every quarter of a second.

    Args:
        callbacks: Those that may want to see batches.
        kind: `train` or `test`.
        model: The model.
        steps_per_call: A fixed number, or `None` to choose.
    """

    def __init__(
        self,
        callbacks: Sequence[keras.callbacks.Callback],
        kind: str,
        model: keras.Model,
        steps_per_call: int | None = None,
    ):
        strategy = model.distribute_strategy
        self.model = model
        self.many_workers = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        listeners = [c for c in callbacks if _listens(c, kind)]
        self.is_heard = bool(listeners)
        if steps_per_call is None and any(_wants_every_batch(c) for c in listeners):
            steps_per_call = 1
        elif steps_per_call is None and self.many_workers:
            steps_per_call = STEPS_OF_MANY_WORKERS
        self.is_fixed, self.size = steps_per_call is not None, steps_per_call or 1

    def run(self, loop, most: int | None):
        """Run some steps of a loop, `most` at most; return how many, and their logs."""
        count = self.size if most is None else min(self.size, most)
        start = time.perf_counter()
        done, logs = loop.run(count)
        if not self.is_fixed and count == self.size:
            self._adapt(time.perf_counter() - start)
        return done, logs

    def _adapt(self, seconds: float) -> None:
        if seconds < SECONDS_OF_A_CALL / 2:
            self.size = min(2 * self.size, MOST_STEPS)
        elif seconds > 2 * SECONDS_OF_A_CALL:
            self.size = max(self.size // 2, 1)

    def read(self, logs: dict[str, tf.Tensor]) -> dict[str, float] | None:
        """Return the logs as numbers if anybody listens: reading makes the device wait."""
        return read(self.model, logs) if self.is_heard else None


def read(model: keras.Model, logs: dict[str, tf.Tensor]) -> dict[str, float]:
    """Return the last step's logs, overridden by the model's metrics of the whole epoch."""
    results = logs | model.get_metrics_result()
    for metric in model.metrics:  # Keras has a mean of the loss, also when a step keeps none
        if metric.name == "loss" and not results["loss"] and not metric.count.numpy():
            results.pop("loss")
            results |= {n: value for n, value in logs.items() if n == "loss"}
    return {name: _number(value) for name, value in results.items()}


def _number(value):
    value = tf.convert_to_tensor(value).numpy()
    return float(value) if value.ndim == 0 else value.tolist()


def _wants_every_batch(callback: keras.callbacks.Callback) -> bool:
    """Tell whether a callback that listens does more than count."""
    if isinstance(callback, keras.callbacks.ModelCheckpoint):
        return callback.save_freq != "epoch"
    if isinstance(callback, keras.callbacks.TensorBoard):
        return callback.update_freq != "epoch" or getattr(callback, "_start_batch", 0) > 0
    return getattr(callback, "reads_batches", True)


def _listens(callback: keras.callbacks.Callback, kind: str) -> bool:
    """Tell whether a callback has a batch event of its own."""
    own = [getattr(callback, name) for name in EVENTS[kind]]
    default = [getattr(keras.callbacks.Callback, name) for name in EVENTS[kind]]
    return [getattr(method, "__func__", method) for method in own] != default
