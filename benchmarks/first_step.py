"""The first step, tracing included: `training.fit` against `Model.fit`, both without XLA.

    python benchmarks/first_step.py [--quick]

Each turn builds and compiles fresh models, and times a call that trains one batch. Three sizes: the
recommender of `neural_cf.py`, MobileNet and ResNet-50.
"""

import sys
import time
from collections.abc import Callable

import keras
import numpy as np
from _measuring import Benchmark
from _shared import build_neural_cf, make_ratings

from tfcourse import training
from tfcourse.data.in_memory import InMemory

BATCH_SIZE = 32


def build_classifier(application: Callable[..., keras.Model]) -> keras.Model:
    model = application(
        weights=None, input_shape=(64, 64, 3), classes=10, classifier_activation=None
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    return model


def ours(build: Callable[[], keras.Model], inputs, targets) -> float:
    keras.utils.clear_session()
    model = build()
    start = time.perf_counter()
    training.fit(model, InMemory(inputs, targets, BATCH_SIZE), 1)
    return time.perf_counter() - start


def model_fit(build: Callable[[], keras.Model], inputs, targets) -> float:
    keras.utils.clear_session()
    model = build()
    start = time.perf_counter()
    model.fit(inputs, targets, batch_size=BATCH_SIZE, epochs=1, verbose=0)
    return time.perf_counter() - start


def main() -> int:
    benchmark = Benchmark(__doc__)
    random = np.random.default_rng(0)
    pictures = random.random((BATCH_SIZE, 64, 64, 3), np.float32), random.integers(0, 10, 32)
    applications = keras.applications
    sizes = {
        "NeuralCF": (build_neural_cf, make_ratings(BATCH_SIZE)),
        "MobileNet": (lambda: build_classifier(applications.MobileNet), pictures),
        "ResNet-50": (lambda: build_classifier(applications.ResNet50), pictures),
    }
    if benchmark.quick:
        del sizes["ResNet-50"], sizes["MobileNet"]
    for measure in (ours, model_fit):  # what a process does once is nobody's first step
        measure(build_neural_cf, *make_ratings(BATCH_SIZE))
    for name, (build, data) in sizes.items():
        print(f"{name}:")
        seconds = benchmark.alternate(
            {
                "training.fit": lambda build=build, data=data: ours(build, *data),
                "Model.fit": lambda build=build, data=data: model_fit(build, *data),
            }
        )
        figure = f"first_step, {name}, as long as that of Model.fit"
        benchmark.ratio(figure, seconds["training.fit"], seconds["Model.fit"], at_most=1.2)
    return benchmark.status()


if __name__ == "__main__":
    sys.exit(main())
