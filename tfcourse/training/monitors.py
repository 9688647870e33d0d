"""Watching a training from outside: how fast it is, and where its time goes."""

import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf


class Throughput(keras.callbacks.Callback):
    """Prints the speed of each epoch: rows a second, and how long steps take.

    When to use it: to see whether a change of batch size, pipeline or machine pays. A 99 %
    quantile far above the median points to the input pipeline, or to somebody else's work on the
    machine.

    `fit` runs many steps in one go, and a step's time is then the mean over these; in `Model.fit`
    it is its own. The first ones of a training trace the graph and don't count. Speeds do not go
    into the logs: a history of a resumed training is to be the same to the last bit.

    Args:
        batch_size: Rows of a batch, over all replicas; the last batch counts as full.
    """

    reads_batches = False

    def __init__(self, batch_size: int):
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.batch_size = batch_size
        self.results: list[dict[str, float]] = []

    def on_train_begin(self, logs=None):
        self.results, self.traced = [], False

    def on_epoch_begin(self, epoch, logs=None):
        self.last, self.last_batch = time.perf_counter(), -1
        self.seconds, self.steps = [], []

    def on_train_batch_end(self, batch, logs=None):
        now, steps = time.perf_counter(), batch - self.last_batch
        if self.traced and steps > 0:
            self.seconds.append((now - self.last) / steps)
            self.steps.append(steps)
        self.traced, self.last, self.last_batch = True, now, batch

    def on_epoch_end(self, epoch, logs=None):
        if not self.steps:
            return
        times = np.repeat(self.seconds, self.steps)
        p50, p90, p99 = (float(p) * 1e3 for p in np.percentile(times, [50, 90, 99]))
        rate = self.batch_size / float(np.mean(times))
        self.results.append({"samples_per_second": rate, "p50": p50, "p90": p90, "p99": p99})
        text = f"step {p50:.3g} ms (90 %: {p90:.3g}, 99 %: {p99:.3g})"
        print(f"epoch {epoch + 1}: {rate:,.0f} samples/s, {text}")


class Profile(keras.callbacks.Callback):
    """Records a few steps for the Profile page of TensorBoard: which operations take the time.

    When to use it: when `Throughput` is lower than hoped. TensorBoard shows it with
    `tensorboard-plugin-profile`. Keras' `TensorBoard(profile_batch=...)` has the same, but makes
    `fit` run its steps one by one; here the steps are recorded as they run, from the first event
    at or after the first step to the first one at or after the last.

    Args:
        log_dir: Folder of the recording.
        steps: First and last step to record, counted over the training; not the first ones, which
            trace the graph.
    """

    reads_batches = False

    def __init__(self, log_dir: str | Path, steps: tuple[int, int] = (10, 15)):
        super().__init__()
        if not 0 < steps[0] < steps[1]:
            raise ValueError(f"steps must be a first and a later last step above 0, got {steps}")
        self.log_dir, self.steps, self.running = str(log_dir), steps, False

    def on_train_begin(self, logs=None):
        self.before, self.done = 0, False

    def on_train_batch_end(self, batch, logs=None):
        step = self.before + batch + 1
        if self.running and step >= self.steps[1]:
            self.close()
        elif not self.running and not self.done and step >= self.steps[0]:
            tf.profiler.experimental.start(self.log_dir)
            self.running = self.done = True
        self.batch = batch

    def on_epoch_end(self, epoch, logs=None):
        self.before += self.batch + 1

    def on_train_end(self, logs=None):
        self.close()

    def close(self) -> None:
        """End the recording; `fit` calls this when training raises, too."""
        if self.running:
            self.running = False
            tf.profiler.experimental.stop()
