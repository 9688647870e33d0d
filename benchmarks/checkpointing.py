"""What a checkpoint every 30 s costs a run, in percent of its time.

    python benchmarks/checkpointing.py [--quick]

A model of five million weights, Adam's slots beside them. So that the cost shows above the noise,
a short run writes checkpoints far more often: its cost for one, divided by 30 s, is the figure. It
is measured in two ways: what the run lasts longer than the same run without any, and how long
training stands still while one is written.
"""

import statistics
import sys
import tempfile
import time

import keras
import numpy as np
from _measuring import Benchmark
from keras import layers

from tfcourse import training
from tfcourse.data.in_memory import InMemory

SECONDS_BETWEEN = 30.0
BATCH_SIZE = 32


class Pauses(keras.callbacks.Callback):
    """Times what lies between two calls of the graph, and between the first and the last."""

    reads_batches = False

    def on_epoch_begin(self, epoch, logs=None):
        self.seconds, self.ends = [], []

    def on_train_batch_begin(self, batch, logs=None):
        if self.ends:
            self.seconds.append(time.perf_counter() - self.ends[-1])

    def on_train_batch_end(self, batch, logs=None):
        # The graph may still be running: reading a weight waits for it.
        self.model.trainable_variables[-1].numpy()
        self.ends.append(time.perf_counter())


def build(units: int) -> keras.Model:
    model = keras.Sequential([keras.Input((256,))])
    for _ in range(3):
        model.add(layers.Dense(units, activation="relu"))
    model.add(layers.Dense(10))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    return model


def main() -> int:
    benchmark = Benchmark(__doc__)
    writes, steps, units = (2, 4, 64) if benchmark.quick else (10, 20, 1_500)
    random = np.random.default_rng(0)
    inputs = random.standard_normal((writes * steps * BATCH_SIZE, 256), np.float32)
    data = InMemory(inputs, random.integers(0, 10, len(inputs)), BATCH_SIZE)
    model = build(units)
    print(f"  {model.count_params():,} weights, {writes - 1} checkpoints in {writes * steps} steps")
    pauses = []

    def seconds(with_checkpoints: bool) -> float:
        clock = Pauses()
        settings = {"steps_per_call": steps, "callbacks": [clock]}
        with tempfile.TemporaryDirectory() as folder:
            if with_checkpoints:
                settings["workdir"] = folder
                settings["callbacks"].append(training.Checkpointing(steps, every_seconds=None))
            training.fit(model, data, 2, **settings)  # of two epochs, the second is measured
        if with_checkpoints:
            pauses.append(statistics.median(clock.seconds))
        return clock.ends[-1] - clock.ends[0]

    sides = benchmark.alternate({"with": lambda: seconds(True), "without": lambda: seconds(False)})
    pairs = zip(sides["with"], sides["without"], strict=True)
    longer = [(a - b) / (writes - 1) / SECONDS_BETWEEN * 100 for a, b in pairs]
    still = [pause / SECONDS_BETWEEN * 100 for pause in pauses]
    name = "checkpointing every 30 s"
    benchmark.value(f"{name}, how much longer the run is", longer, "%", at_most=2)
    benchmark.value(f"{name}, how long training stands still", still, "%", at_most=2)
    return benchmark.status()


if __name__ == "__main__":
    sys.exit(main())
