"""ResNet-50, VGG-16 and DenseNet-121 at 64 pixels, batch 32: ours against keras.applications.

    python benchmarks/architectures.py [--quick]

Both sides are trained by `training.fit` and asked by `Model.predict`, with the same pictures. They
do nearly the same arithmetic, so their times differ by less than what a shared machine adds: of
each ratio 0.97 is required, which is 1 within the noise. Memory is by how much a process grows, at
its peak, that builds one model and trains it. ResNet-152 is built for 224 pixels.
"""

import functools
import multiprocessing
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from _measuring import Benchmark
from _shared import epoch_seconds

from tfcourse import training
from tfcourse.data.in_memory import InMemory
from tfcourse.vision import build_densenet, build_resnet, build_vgg

BATCH_SIZE = 32
STATUS = Path("/proc/self/status")
# Keras' VGG has no dropout.
OURS = {
    "ResNet-50": functools.partial(build_resnet, 50),
    "VGG-16": functools.partial(build_vgg, 16, dropout=0.0),
    "DenseNet-121": functools.partial(build_densenet, 121),
}
THEIRS = {
    "ResNet-50": keras.applications.ResNet50,
    "VGG-16": keras.applications.VGG16,
    "DenseNet-121": keras.applications.DenseNet121,
}


def build(side: str, name: str, size: int) -> keras.Model:
    shape = (size, size, 3)
    if side == "ours":
        model = OURS[name](input_shape=shape, num_classes=10)
    else:
        model = THEIRS[name](
            weights=None, input_shape=shape, classes=10, classifier_activation=None
        )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
    return model


def make_pictures(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.random((count, size, size, 3), np.float32), random.integers(0, 10, count)


def predict_seconds(model: keras.Model, pictures: np.ndarray) -> float:
    model.predict(pictures[:BATCH_SIZE], BATCH_SIZE, verbose=0)
    start = time.perf_counter()
    model.predict(pictures, BATCH_SIZE, verbose=0)
    return time.perf_counter() - start


def build_seconds(builder: Callable[[], keras.Model]) -> float:
    keras.utils.clear_session()
    start = time.perf_counter()
    builder()
    return time.perf_counter() - start


def growth(side: str, name: str, size: int) -> float:
    """Return the MB by which this process grows while it builds a model and trains two steps."""
    data = InMemory(*make_pictures(BATCH_SIZE, size), BATCH_SIZE)
    before = memory("VmRSS")
    training.fit(build(side, name, size), data, 2)
    return (memory("VmHWM") - before) / 1000


def memory(row: str) -> int:
    """Read a row of this process's status, in kB; `getrusage` would count its parent's too."""
    return int(re.search(rf"{row}:\s+(\d+) kB", STATUS.read_text())[1])


def compare_memory(benchmark: Benchmark, name: str, size: int) -> None:
    figure = f"architectures, {name}, memory of training against keras.applications"
    if not STATUS.exists():
        benchmark.skip(figure, f"there is no {STATUS}")
        return
    megabytes = {"ours": [], "Keras": []}
    for turn in range(min(3, benchmark.repeats)):
        for side, values in megabytes.items():
            with multiprocessing.get_context("spawn").Pool(1) as process:
                values.append(process.apply(growth, (side, name, size)))
        print(f"  {turn + 1}: {', '.join(f'{s} {v[-1]:.0f} MB' for s, v in megabytes.items())}")
    benchmark.ratio(figure, megabytes["ours"], megabytes["Keras"], at_most=1.02)


def compare_speed(benchmark: Benchmark, name: str, steps: int, size: int) -> None:
    pictures, labels = make_pictures(steps * BATCH_SIZE, size)
    data = InMemory(pictures, labels, BATCH_SIZE)
    models = {side: build(side, name, size) for side in ("ours", "Keras")}
    for job in ("training", "inference"):
        print(f"{name}, {job}:")
        sides = {}
        for side, model in models.items():
            if job == "training":
                fit = functools.partial(training.fit, model, data)
                sides[side] = functools.partial(epoch_seconds, fit)
            else:
                sides[side] = functools.partial(predict_seconds, model, pictures)
        seconds = benchmark.alternate(sides)
        figure = f"architectures, {name}, {job} as fast as keras.applications"
        benchmark.ratio(figure, seconds["Keras"], seconds["ours"], at_least=0.97)


def main() -> int:
    benchmark = Benchmark(__doc__)
    steps, size = (1, 32) if benchmark.quick else (5, 64)
    for name in ["DenseNet-121"] if benchmark.quick else OURS:
        compare_speed(benchmark, name, steps, size)
        compare_memory(benchmark, name, size)
    print("ResNet-152, building:")
    seconds = benchmark.alternate(
        {
            "ours": functools.partial(build_seconds, functools.partial(build_resnet, 152)),
            "Keras": functools.partial(
                build_seconds, functools.partial(keras.applications.ResNet152, weights=None)
            ),
        }
    )
    benchmark.value("architectures, building ResNet-152", seconds["ours"], "s", at_most=3)
    return benchmark.status()


if __name__ == "__main__":
    sys.exit(main())
