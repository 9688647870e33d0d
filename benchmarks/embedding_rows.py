"""What a training step costs with a table of a million rows, against one of a thousand.

    python benchmarks/embedding_rows.py [--quick]

One `keras.layers.Embedding` of 16 columns and a dense layer, batches of 1,024 ids, `LazyAdam` in
`training.fit`. Keras' Adam in `Model.fit`, which updates all rows in every step, stands beside it.
"""

import functools
import sys

import keras
import numpy as np
from _measuring import Benchmark
from _shared import epoch_seconds
from keras import layers

from tfcourse import training
from tfcourse.data.in_memory import InMemory

BATCH_SIZE = 1_024


def build(rows: int, optimizer: keras.optimizers.Optimizer) -> keras.Model:
    model = keras.Sequential(
        [keras.Input((), dtype="int32"), layers.Embedding(rows, 16), layers.Dense(1)]
    )
    model.compile(optimizer, keras.losses.BinaryCrossentropy(from_logits=True))
    return model


def make_data(rows: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    size = steps * BATCH_SIZE
    ids = random.integers(0, rows, size, dtype=np.int32)
    return ids, random.integers(0, 2, (size, 1)).astype(np.float32)


def ours(rows: int, steps: int):
    model = build(rows, training.LazyAdam(1e-3))
    fit = functools.partial(training.fit, model, InMemory(*make_data(rows, steps), BATCH_SIZE))
    return lambda: epoch_seconds(fit) / steps


def keras_adam(rows: int, steps: int):
    model = build(rows, keras.optimizers.Adam(1e-3))
    fit = functools.partial(model.fit, *make_data(rows, steps), batch_size=BATCH_SIZE, verbose=0)
    return lambda: epoch_seconds(fit) / steps


def main() -> int:
    benchmark = Benchmark(__doc__)
    few, many, steps = (100, 10_000, 10) if benchmark.quick else (1_000, 1_000_000, 1_000)
    seconds = benchmark.alternate(
        {
            "few rows": ours(few, steps),
            "many rows": ours(many, steps),
            "Adam in Model.fit, few rows": keras_adam(few, max(1, steps // 10)),
            "Adam in Model.fit, many rows": keras_adam(many, max(1, steps // 40)),
        }
    )
    little, much, dense_little, dense_much = seconds.values()
    name = "embedding_rows, a step with a million rows against a thousand"
    benchmark.ratio(name, much, little, at_most=2)
    benchmark.ratio(f"{name}, Adam in Model.fit", dense_much, dense_little)
    name = "embedding_rows, as fast as Adam in Model.fit with a million rows"
    benchmark.ratio(name, dense_much, much)
    return benchmark.status()


if __name__ == "__main__":
    sys.exit(main())
