"""A small recommender: `training.fit` against `Model.fit` and against a PyTorch loop by hand.

    python benchmarks/neural_cf.py [--quick]

943 x 1,682 ids, two tables of 16 columns, layers of 64, 32 and 1, batches of 256, 100,000 rows.
All sides do the same work, with the mean loss as the only figure; once more with an accuracy, and
once more from one `tf.data` pipeline. Tracing is not counted. What is required of arrays in memory
against `Model.fit` holds for `jit_compile=True`; the figure without is stated beside it.
"""

import functools
import sys
import time
from collections.abc import Callable

import tensorflow as tf
from _measuring import Benchmark
from _shared import BATCH_SIZE, ITEMS, USERS, build_neural_cf, epoch_seconds, make_ratings

from tfcourse import training
from tfcourse.data.in_memory import InMemory

try:
    import torch
except ImportError:
    torch = None


def keras_arrays(inputs, labels, epochs: int, metrics=None) -> Callable[[], float]:
    fit = functools.partial(
        build_neural_cf(metrics).fit, inputs, labels, batch_size=BATCH_SIZE, verbose=0
    )
    return lambda: epoch_seconds(fit, epochs)


def keras_dataset(data: tf.data.Dataset, epochs: int) -> Callable[[], float]:
    fit = functools.partial(build_neural_cf().fit, data, verbose=0)
    return lambda: epoch_seconds(fit, epochs)


def read_seconds(data: tf.data.Dataset, epochs: int) -> float:
    start = time.perf_counter()
    for _ in range(epochs):
        for _ in data:
            pass
    return (time.perf_counter() - start) / epochs


def ours(data, epochs: int, metrics=None, jit_compile=False) -> Callable[[], float]:
    model = build_neural_cf(metrics)
    fit = functools.partial(training.fit, model, data, jit_compile=jit_compile)
    return lambda: epoch_seconds(fit, epochs)


def pytorch(inputs, labels, epochs: int) -> Callable[[], float]:
    class NeuralCF(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.user = torch.nn.Embedding(USERS, 16)
            self.item = torch.nn.Embedding(ITEMS, 16)
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(32, 64),
                torch.nn.ReLU(),
                torch.nn.Linear(64, 32),
                torch.nn.ReLU(),
                torch.nn.Linear(32, 1),
            )

        def forward(self, users, items):
            return self.layers(torch.cat([self.user(users), self.item(items)], dim=1))

    model = NeuralCF()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss_function = torch.nn.BCEWithLogitsLoss()
    users, items = (torch.from_numpy(ids).long() for ids in inputs)
    labels = torch.from_numpy(labels)

    def epoch():
        total = 0.0
        order = torch.randperm(len(labels))
        for start in range(0, len(labels), BATCH_SIZE):
            rows = order[start : start + BATCH_SIZE]
            optimizer.zero_grad()
            loss = loss_function(model(users[rows], items[rows]), labels[rows])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        return total / len(labels)

    def seconds():
        epoch()  # the others, too, have one that is not counted
        start = time.perf_counter()
        for _ in range(epochs):
            epoch()
        return (time.perf_counter() - start) / epochs

    return seconds


def main() -> int:
    benchmark = Benchmark(__doc__)
    rows, epochs = (2_000, 1) if benchmark.quick else (100_000, 3)
    inputs, labels = make_ratings(rows)
    data = InMemory(inputs, labels, BATCH_SIZE)

    sides = {
        "training.fit": ours(data, epochs),
        "with XLA": ours(data, epochs, jit_compile=True),
        "Model.fit": keras_arrays(inputs, labels, epochs),
    }
    if torch is not None:
        sides["PyTorch"] = pytorch(inputs, labels, epochs)
    seconds = benchmark.alternate(sides)
    mine, with_xla, fit = seconds["training.fit"], seconds["with XLA"], seconds["Model.fit"]
    benchmark.ratio("neural_cf, as fast as Model.fit", fit, mine)
    benchmark.ratio("neural_cf, with XLA, as fast as Model.fit", fit, with_xla, at_least=4)
    if torch is None:
        benchmark.skip("neural_cf, as fast as PyTorch", "PyTorch is missing: the extra [bench]")
    else:
        loop = seconds["PyTorch"]
        benchmark.ratio("neural_cf, as fast as PyTorch", loop, mine, at_least=2)
        benchmark.ratio("neural_cf, with XLA, as fast as PyTorch", loop, with_xla)

    metrics = ["binary_accuracy"]
    seconds = benchmark.alternate(
        {
            "training.fit": ours(data, epochs, metrics),
            "Model.fit": keras_arrays(inputs, labels, epochs, metrics),
        }
    )
    name = "neural_cf, with accuracy, as fast as Model.fit"
    benchmark.ratio(name, seconds["Model.fit"], seconds["training.fit"])

    pipeline = tf.data.Dataset.from_tensor_slices((tuple(inputs), labels))
    pipeline = pipeline.shuffle(rows).batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)
    seconds = benchmark.alternate(
        {
            "training.fit": ours(pipeline, epochs),
            "Model.fit": keras_dataset(pipeline, epochs),
            "the pipeline alone": lambda: read_seconds(pipeline, epochs),
        }
    )
    mine, fit, alone = seconds.values()
    benchmark.ratio("neural_cf, from tf.data, as fast as Model.fit", fit, mine, at_least=2)
    benchmark.ratio("neural_cf, from tf.data, as long as the pipeline alone", mine, alone)
    return benchmark.status()


if __name__ == "__main__":
    sys.exit(main())
