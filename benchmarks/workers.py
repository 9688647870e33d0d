"""How much faster are two workers of one core each than one worker of one core?

    python benchmarks/workers.py [--quick]

Each worker is a process that is bound to a core of its own; two of them talk over loopback. Both
sides train the same convolutions on the same batches, of which two workers share each. Starting
and tracing are not counted.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from _measuring import Benchmark, cores

from tfcourse import workers
from tfcourse.cluster import read_cluster

BATCH_SIZE = 64


def build():
    """Build and compile layers with few weights and much to compute, whose gradients are short."""
    import keras
    from keras import layers

    model = keras.Sequential([keras.Input((32, 32, 3))])
    for _ in range(4):
        model.add(layers.Conv2D(64, 3, padding="same", activation="relu"))
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(10))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss)
    return model


def train(steps: int, file: str) -> None:
    """Be a worker: train, and write the seconds of an epoch into a file."""
    index = read_cluster().index
    if hasattr(os, "sched_setaffinity"):  # before TensorFlow counts the cores
        os.sched_setaffinity(0, {cores()[index]})
    import functools

    import numpy as np
    from _shared import epoch_seconds

    from tfcourse import training
    from tfcourse.data.in_memory import InMemory

    alone = len(read_cluster().addresses) == 1
    with training.strategy("cpu" if alone else "multi-worker").scope():
        model = build()
    random = np.random.default_rng(0)
    pictures = random.random((steps * BATCH_SIZE, 32, 32, 3), np.float32)
    data = InMemory(pictures, random.integers(0, 10, len(pictures)), BATCH_SIZE)
    seconds = epoch_seconds(functools.partial(training.fit, model, data))
    if index == 0:
        Path(file).write_text(json.dumps(seconds), "utf-8")


def seconds_with(count: int, steps: int) -> float:
    """Start so many workers and return the seconds of their epoch."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "seconds.json"
        command = [sys.executable, __file__, "worker", str(steps), str(file)]
        if status := workers.launch(command, count, restarts=0):
            sys.exit(f"workers: a worker ended with status {status}")
        return json.loads(file.read_text("utf-8"))


def main() -> int:
    if sys.argv[1:2] == ["worker"]:
        train(int(sys.argv[2]), sys.argv[3])
        return 0
    benchmark = Benchmark(__doc__)
    name = "workers, two as fast as one"
    if len(cores()) < 2:
        benchmark.skip(name, "this machine has one core")
        return 0
    for variable in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
        os.environ[variable] = "1"
    steps = 2 if benchmark.quick else 10
    one, two = benchmark.alternate(
        {"one": lambda: seconds_with(1, steps), "two": lambda: seconds_with(2, steps)}
    ).values()
    benchmark.ratio(name, one, two, at_least=1.6)
    return benchmark.status()


if __name__ == "__main__":
    sys.exit(main())
