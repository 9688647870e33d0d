"""ResNet-50 at 64 pixels, batch 32: `training.fit` against `Model.fit`, bfloat16 against float32.

    python benchmarks/resnet50.py [--quick]

All three sides train `keras.applications.ResNet50` with the same pictures; tracing is not counted.
"""

import functools
import sys

import keras
import numpy as np
from _measuring import Benchmark
from _shared import epoch_seconds

from tfcourse import training
from tfcourse.data.in_memory import InMemory

BATCH_SIZE = 32


def build(size: int, dtype: str = "float32") -> keras.Model:
    keras.config.set_dtype_policy(dtype)
    model = keras.applications.ResNet50(
        weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None
    )
    keras.config.set_dtype_policy("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss, metrics=["accuracy"])
    return model


def main() -> int:
    benchmark = Benchmark(__doc__)
    steps, size = (1, 32) if benchmark.quick else (10, 64)
    random = np.random.default_rng(0)
    pictures = random.random((steps * BATCH_SIZE, size, size, 3), np.float32)
    labels = random.integers(0, 10, len(pictures))
    data = InMemory(pictures, labels, BATCH_SIZE)
    ours = functools.partial(training.fit, build(size), data)
    halves = functools.partial(training.fit, build(size, "mixed_bfloat16"), data)
    fit = functools.partial(build(size).fit, pictures, labels, batch_size=BATCH_SIZE, verbose=0)
    seconds = benchmark.alternate(
        {
            "training.fit": lambda: epoch_seconds(ours),
            "Model.fit": lambda: epoch_seconds(fit),
            "bfloat16": lambda: epoch_seconds(halves),
        }
    )
    mine = seconds["training.fit"]
    benchmark.ratio("resnet50, as fast as Model.fit", seconds["Model.fit"], mine, at_least=1)
    name = "resnet50, bfloat16 as fast as float32"
    benchmark.ratio(name, mine, seconds["bfloat16"], at_least=1.15)
    return benchmark.status()


if __name__ == "__main__":
    sys.exit(main())
