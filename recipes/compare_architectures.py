"""Compare ten architectures, from a linear classifier to DenseNet, on the same pictures.

    tfcourse run compare_architectures
    tfcourse run compare_architectures --data mnist --workdir runs/digits
    tfcourse run compare_architectures --data-dir PHOTOS --workdir runs/photos

Each learns the same 4,500 pictures of Fashion-MNIST from nothing, for the same number of epochs;
500 others choose its epoch, and 1,000 test it once. The budget is epochs, not seconds: each
network sees every picture equally often, so that the accuracies are those of any machine, and what
that costs in time is a result. Small pictures have no room for the five halvings of ImageNet's
networks: of these the first three stages are taken, with an average and a linear layer behind.

Expected: the network that is best on the 500 has a test accuracy of 0.870 (standard deviation
0.006 over three seeds; a full run fails below 0.851). With 4,500 pictures and five epochs the ten
lie between 0.81 and 0.88. `table.txt` holds all; `comparison.png` draws accuracy against
parameters, multiply-adds and time.

After an interruption the same command continues; networks that are finished are not trained again.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from tfcourse import cli, plots, runs, training, vision
from tfcourse.data.cache import atomic_file
from tfcourse.data.fashion_mnist import load_fashion_mnist
from tfcourse.data.image_folders import load_folder
from tfcourse.data.images import Images, few_per_class, hold_out, resize
from tfcourse.data.mnist import load_mnist
from tfcourse.summary import multiply_adds
from tfcourse.training import InMemory

EXPECTED, TOLERANCE = 0.870, 0.019
DATA = {"fashion-mnist": load_fashion_mnist, "mnist": load_mnist}
LARGEST = 64  # pixels of a picture before it gets a network's size


class Entry(NamedTuple):
    """A network from an input shape and a number of classes, the pictures' size, and its rate."""

    build: Callable[[tuple[int, int, int], int], keras.Model]
    image_size: int = 32
    learning_rate: float = 4e-3


def dense(hidden_units: Sequence[int], input_shape, num_classes: int) -> keras.Model:
    """Build a network of dense layers; without hidden ones it is a linear classifier."""
    inputs = keras.Input(input_shape)
    x = layers.Flatten()(inputs)
    for units in hidden_units:
        x = layers.Dense(units, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(x))


def stages(
    build: Callable[..., keras.Model], kind: int | str, input_shape, num_classes: int
) -> keras.Model:
    """Build the first three stages of a network, with an average and a linear layer behind."""
    network = build(kind, input_shape, None)
    x = layers.GlobalAveragePooling2D(name="pool")(network.get_layer("stage3").output)
    outputs = layers.Dense(num_classes, name="logits")(x)
    return keras.Model(network.input, outputs, name=network.name)


ARCHITECTURES = {
    "linear": Entry(partial(dense, ()), 28, 8e-3),
    "MLP": Entry(partial(dense, (256,)), 28, 3e-3),
    "LeNet-5": Entry(vision.build_lenet, 28, 8e-3),
    "AlexNet": Entry(partial(stages, vision.build_alexnet, "one-weird-trick"), 64, 5e-4),
    "VGG-11": Entry(partial(stages, vision.build_vgg, 11), 32, 2e-3),
    "GoogLeNet": Entry(partial(stages, vision.build_googlenet, "batch-norm")),
    "ResNet-18": Entry(partial(stages, vision.build_resnet, 18)),
    "ResNet-20": Entry(partial(vision.build_cifar_resnet, 20), 28),
    "DenseNet-121": Entry(partial(stages, vision.build_densenet, 121)),
    "EfficientNet-Lite0": Entry(partial(stages, vision.build_efficientnet_lite, 0)),
}
SMOKE = ("linear", "LeNet-5", "AlexNet")


class Stopwatch(keras.callbacks.Callback):
    """Notes the seconds of each epoch, without validation, in a file that outlives the process."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_test_begin(self, logs=None):
        runs.write_json(self.path, [*self.seconds(), time.perf_counter() - self.start])

    def seconds(self) -> list[float]:
        return json.loads(self.path.read_text()) if self.path.exists() else []


def load_data(flags) -> list[Images]:
    """Return the pictures to learn from, to choose epochs by, and to be tested on."""
    size = (LARGEST, LARGEST)
    parts = load_folder(flags.data_dir, size) if flags.data_dir else DATA[flags.data]()
    if flags.smoke:
        parts = [few_per_class(part, n) for part, n in zip(parts, (20, 5), strict=True)]
    train, test = parts
    return [*hold_out(train, 0.1, flags.seed), test]


def forget_sooner(network: keras.Model) -> None:
    """Let BatchNorm average over ten steps: over a hundred, as for ImageNet, it comes too late."""
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = min(layer.momentum, 0.9)


def build(strategy, entry: Entry, parts: list[Images], steps: int) -> keras.Model:
    """Build and compile a network that takes pixels from 0 to 255."""
    shape = (entry.image_size, entry.image_size, parts[0].images.shape[-1])
    rate = training.warmup_cosine(entry.learning_rate, steps, steps // 10)
    with strategy.scope():
        network = entry.build(shape, len(parts[0].class_names))
        forget_sooner(network)
        scale = layers.Rescaling(1 / 127.5, offset=-1.0, name="rescale")
        model = keras.Sequential([keras.Input(shape), scale, network])
        model.compile(
            keras.optimizers.Adam(rate),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
    return model


def measure(run, strategy, name: str, parts: list[Images]) -> dict[str, float]:
    """Train one network; return what it costs and what it reaches."""
    flags, entry, folder = run.flags, ARCHITECTURES[name], folder_of(name)
    keras.utils.set_random_seed(flags.seed)
    images = [resize(part, (entry.image_size,) * 2).images for part in parts]
    train = InMemory(images[0], parts[0].labels, flags.batch_size, seed=flags.seed)
    validation, test = (
        InMemory(x, part.labels, 256, shuffle=False)
        for x, part in zip(images[1:], parts[1:], strict=True)
    )
    model = build(strategy, entry, parts, train.steps * flags.epochs)
    watch = Stopwatch(run.results / folder / "seconds.json")
    history = training.fit(
        model,
        train,
        flags.epochs,
        validation_data=validation,
        callbacks=[*training.standard_callbacks(run.folder, phase=folder), watch],
        workdir=run.folder / folder,
    ).history
    return {
        "parameters": model.count_params(),
        "multiply-adds": multiply_adds(model.layers[-1]),
        # The first epoch is not the median: it has the tracing in it.
        "seconds an epoch": float(np.median(watch.seconds())),
        "validation accuracy": max(history["val_accuracy"]),
        "test accuracy": training.evaluate(model, test)["accuracy"],
    }


def folder_of(name: str) -> str:
    return name.lower().replace("-", "_")


def measure_all(run, strategy, parts: list[Images]) -> dict[str, dict[str, float]]:
    """Measure each network that has no result in the run's folder yet."""
    results = {}
    files = {name: Path(folder_of(name)) / "result.json" for name in ARCHITECTURES}
    names = SMOKE if run.flags.smoke else ARCHITECTURES
    known = {name for name in names if (run.folder / files[name]).exists()}
    for name in names:
        if name in known:
            results[name] = json.loads((run.folder / files[name]).read_text("utf-8"))
        else:
            results[name] = measure(run, strategy, name, parts)
            runs.write_json(run.results / files[name], results[name])
        print(f"{name}: {results[name]['test accuracy']:.3f}", flush=True)
    return results


def table_of(results: dict[str, dict[str, float]]) -> str:
    """Return the results as lines of text, the most accurate network first."""
    costs = ("parameters", "multiply-adds", "seconds an epoch")
    shares = ("validation accuracy", "test accuracy")
    rows = [("network", *costs, *shares)]
    for name, row in sorted(results.items(), key=lambda pair: -pair[1]["test accuracy"]):
        counts = [f"{row[cost]:,.{'1' if 'seconds' in cost else '0'}f}" for cost in costs]
        rows.append((name, *counts, *[f"{row[share]:.3f}" for share in shares]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [zip(row[1:], widths[1:], strict=True) for row in rows]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *[cell.rjust(width) for cell, width in line]])
        for row, line in zip(rows, cells, strict=True)
    )


def main() -> int:
    parser = cli.flags(__doc__, epochs=5, batch_size=64)
    parser.add_argument("--data", choices=DATA, default="fashion-mnist", help="default %(default)s")
    run = runs.start(parser, "compare_architectures")
    if run.flags.data_dir and run.flags.data != parser.get_default("data"):
        raise ValueError(f"--data {run.flags.data} must be left out where --data-dir is given")
    strategy = training.strategy(run.flags.strategy)
    parts = load_data(run.flags)
    digest = hashlib.sha256(b"".join(part.images.tobytes() for part in parts))
    run.open({"pictures": digest.hexdigest()})
    results = measure_all(run, strategy, parts)
    table = table_of(results)
    print(table)
    with atomic_file(run.results / "table.txt") as file:
        file.write_text(table + "\n", encoding="utf-8")
    accuracy = {name: row["test accuracy"] for name, row in results.items()}
    costs = {
        cost: {name: row[cost] for name, row in results.items()}
        for cost in ("parameters", "multiply-adds", "seconds an epoch")
    }
    plots.accuracy_against_cost(accuracy, costs, run.results / "comparison.png")
    best = max(results, key=lambda name: results[name]["validation accuracy"])
    return run.report(
        "test accuracy of the best", accuracy[best], expected=EXPECTED, tolerance=TOLERANCE,
        more={"best": best, "table": results},
    )  # fmt: skip


if __name__ == "__main__":
    cli.execute(main)
