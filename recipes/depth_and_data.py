"""Whether larger networks gain more from more data, and from more layers.

    tfcourse run depth_and_data
    tfcourse run depth_and_data --data mnist --workdir runs/digits

Four networks learn 50 to 4,500 pictures of Fashion-MNIST: softmax regression (8 thousand weights),
512 hidden neurons (407), LeNet-5 (62), six convolutions with normalization (73). Each training has
the same 800 steps of 32 pictures, and keeps the best of ten moments by the accuracy on 500 other
pictures. All is repeated with other pictures and other weights; the 1,000 test pictures stay.
Then narrow networks of 2, 10 and 30 dense layers learn the 4,500 pictures, plain, and with
residual connections.

Expected: from ten times the pictures, 4,500 instead of 450, the convolutions gain 0.062 more
accuracy than softmax regression (standard deviation 0.013 over three repeats, 0.008 of their mean,
which is the figure; a full run fails below 0.039). Test accuracy, the gain from 50 to 4,500, and by
what a doubling of the pictures multiplies the error, means and standard deviations:

    pictures               50    150    450  1,500  4,500  gain           error a doubling
    softmax regression  0.631  0.709  0.767  0.817  0.836  0.205 (0.032)  x 0.880 (0.012)
    one hidden layer    0.640  0.717  0.778  0.831  0.847  0.208 (0.030)  x 0.872 (0.011)
    LeNet-5             0.647  0.720  0.775  0.825  0.858  0.210 (0.040)  x 0.870 (0.013)
    six convolutions    0.545  0.689  0.733  0.824  0.865  0.320 (0.029)  x 0.832 (0.009)

So the deepest gains most, but first because it begins as the worst: below 1,500 pictures it is not
worth having, and at 4,500 it leads LeNet-5 by less than a point. The number of weights is not what
counts: one hidden layer has five times as many, and gains what softmax regression gains. Layers:

    layers                     2             10             30
    plain, training  0.852 (0.005)  0.860 (0.002)  0.767 (0.008)
    plain, test      0.824 (0.003)  0.815 (0.002)  0.740 (0.013)
    residual, train  0.852 (0.005)  0.876 (0.007)  0.896 (0.001)
    residual, test   0.824 (0.003)  0.845 (0.008)  0.841 (0.003)

Thirty plain layers are worse even on the pictures that they learn, so this is not overfitting.
Residual connections cure it, but beyond ten layers more of them bring nothing on the test part.
`data.png` and `depth.png` draw both.
"""

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from tfcourse import cli, plots, runs, training
from tfcourse.data.fashion_mnist import load_fashion_mnist
from tfcourse.data.images import Images, hold_out, smallest_class, subset_per_class
from tfcourse.data.mnist import load_mnist
from tfcourse.training import InMemory
from tfcourse.vision import build_lenet

EXPECTED, TOLERANCE = 0.062, 0.023
DATA = {"fashion-mnist": load_fashion_mnist, "mnist": load_mnist}
VALIDATION = 0.1  # of the training pictures, to choose the moment to stop at
MOMENTS = 10  # of a training, of which the best on validation counts
SHARES = (1 / 90, 1 / 30, 1 / 10, 1 / 3, 1)  # of the other training pictures
FILTERS = (16, 32, 64)
DEPTHS, WIDTH = (2, 10, 30), 64
KINDS = ("plain", "residual")


class Entry(NamedTuple):
    """A network from an input shape and a number of classes, and its rate."""

    build: Callable[[tuple[int, int, int], int], keras.Model]
    learning_rate: float = 1e-3


class Lesson(NamedTuple):
    """What all networks have in common: the pictures, and the seed."""

    few: Images
    validation: Images
    test: Images
    seed: int


def dense(hidden_units: Sequence[int], input_shape, num_classes: int) -> keras.Model:
    """Build a network of dense layers; without hidden ones it is softmax regression."""
    inputs = keras.Input(input_shape)
    x = layers.Flatten()(inputs)
    for n, units in enumerate(hidden_units, 1):
        x = layers.Dense(units, "relu", kernel_initializer="he_normal", name=f"hidden{n}")(x)
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(x))


def convolutional(input_shape, num_classes: int) -> keras.Model:
    """Build six convolutions with normalization, in pairs; the first of a pair halves the image."""
    x = inputs = keras.Input(input_shape)
    for n in range(2 * len(FILTERS)):
        strides, name = 2 - n % 2, f"convolution{n + 1}"
        x = layers.Conv2D(
            FILTERS[n // 2], 3, strides, padding="same", use_bias=False,
            kernel_initializer="he_normal", name=name,
        )(x)  # fmt: skip
        x = layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
        x = layers.ReLU(name=f"{name}_relu")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(x))


def stack(depth: int, residual: bool, input_shape, num_classes: int) -> keras.Model:
    """Build a narrow network of many dense layers, by twos; each two may add to their input."""
    relu = functools.partial(layers.Dense, activation="relu", kernel_initializer="he_normal")
    inputs = keras.Input(input_shape)
    x = relu(WIDTH, name="hidden1")(layers.Flatten()(inputs))
    for n in range(2, depth, 2):
        y = relu(WIDTH, name=f"hidden{n}")(x)
        if residual:
            # From zeros every block begins as doing nothing.
            y = layers.Dense(WIDTH, kernel_initializer="zeros", name=f"hidden{n + 1}")(y)
            x = layers.Add(name=f"add{n + 1}")([x, y])
        else:
            x = relu(WIDTH, name=f"hidden{n + 1}")(y)
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(x))


# The rates are the best of two or three, by validation with all pictures and the first seed.
NETWORKS = {
    "softmax regression": Entry(functools.partial(dense, ()), 8e-3),
    "one hidden layer": Entry(functools.partial(dense, (512,)), 2e-3),
    "LeNet-5": Entry(build_lenet, 4e-3),
    "six convolutions": Entry(convolutional, 8e-3),
}
SMALL, LARGE = "softmax regression", "six convolutions"


def parse() -> runs.Run:
    parser = cli.flags(__doc__)
    add = parser.add_argument
    add("--data", choices=DATA, default="fashion-mnist", help="default fashion-mnist")
    add("--steps", type=cli.at_least(MOMENTS), default=800, help="of each training; default 800")
    add("--batch-size", type=cli.at_least(1), default=32, help="of the steps; default 32")
    add("--seeds", type=cli.at_least(1), default=3, help="how often all is done; default 3")
    run = runs.start(parser, "depth_and_data")
    if run.flags.seeds * (run.flags.seed + 1) > 2**32:
        raise ValueError(f"--seed must leave room for --seeds below 2**32, got {run.flags.seed}")
    return run


def train_one(flags, strategy, entry: Entry, lesson: Lesson) -> keras.Model:
    """Train one network; return it as it was when validation liked it best."""
    few, watched = lesson.few, lesson.validation
    steps = MOMENTS if flags.smoke else flags.steps
    keras.utils.set_random_seed(lesson.seed)
    with strategy.scope():
        model = entry.build(few.images.shape[1:], len(few.class_names))
        training.compile_classifier(model, entry.learning_rate, decay_steps=steps)
    best = keras.callbacks.EarlyStopping(
        "val_accuracy", patience=MOMENTS, restore_best_weights=True
    )
    training.fit(
        model,
        InMemory(pixels_of(few), few.labels, min(flags.batch_size, len(few)), seed=lesson.seed),
        MOMENTS,
        validation_data=InMemory(pixels_of(watched), watched.labels, 500, shuffle=False),
        callbacks=[best],
        steps_per_epoch=steps // MOMENTS,
    )
    return model


def pixels_of(part: Images) -> np.ndarray:
    return part.images.astype("float32") / 255


def measure(run, strategy, name: str, entry: Entry, lesson: Lesson) -> dict[str, float]:
    """Train one network, or read what was kept; return its accuracies."""
    size = len(lesson.few)
    file = f"trained/{name.replace(' ', '_')}_{size}_{lesson.seed}.json"
    if (run.folder / file).exists():
        return json.loads((run.folder / file).read_text("utf-8"))
    model = train_one(run.flags, strategy, entry, lesson)
    pixels = np.concatenate([pixels_of(lesson.few), pixels_of(lesson.test)])
    labels = np.concatenate([lesson.few.labels, lesson.test.labels])
    logits = training.predict(model, InMemory(pixels, labels, 500, shuffle=False))
    right = logits.argmax(-1) == labels
    accuracy = {"training": float(right[:size].mean()), "test": float(right[size:].mean())}
    print(f"seed {lesson.seed}, {size:5,} pictures, {name:18} {accuracy['test']:.3f}", flush=True)
    runs.write_json(run.results / file, accuracy)
    return accuracy


def measure_all(run, strategy, train: Images, test: Images) -> tuple[dict, dict]:
    """Return test accuracies by network and pictures, and accuracies by part, kind and depth."""
    flags = run.flags
    shares, depths = (SHARES[:2], DEPTHS[1:2]) if flags.smoke else (SHARES, DEPTHS)
    accuracy = {name: {} for name in ((SMALL, LARGE) if flags.smoke else NETWORKS)}
    deep = {part: {kind: {} for kind in KINDS} for part in ("training", "test")}
    for seed in range(flags.seeds * flags.seed, flags.seeds * (flags.seed + 1)):
        pool, validation = hold_out(train, VALIDATION, seed)
        for share in shares:
            few = subset_per_class(pool, round(share * smallest_class(pool)), seed)
            lesson = Lesson(few, validation, test, seed)
            for name, points in accuracy.items():
                found = measure(run, strategy, name, NETWORKS[name], lesson)
                points.setdefault(len(few), []).append(found["test"])
        for depth, kind in itertools.product(depths, KINDS):
            entry = Entry(functools.partial(stack, depth, kind == "residual"))
            found = measure(run, strategy, f"{kind}, {depth} layers", entry, lesson)
            for part, value in found.items():
                deep[part][kind].setdefault(depth, []).append(value)
    return accuracy, deep


def table(accuracy: dict[str, dict[int, list[float]]]) -> list[str]:
    """Write means and standard deviations as lines, with what all the data brings."""
    sizes = list(next(iter(accuracy.values())))
    heads = [*[f"{size:,}" for size in sizes], "gain", "a doubling: x"]
    lines = [f"{'test accuracy with':18}" + "".join(f"{head:>15}" for head in heads)]
    for name, points in accuracy.items():
        values = np.array([points[size] for size in sizes])
        # A straight line through the logarithms: each doubling takes the error down by a factor.
        slopes = np.polyfit(np.log2(sizes), np.log2(np.maximum(1 - values, 1e-3)), 1)[0]
        cells = [mean_of(v) for v in (*values, values[-1] - values[0], 2**slopes)]
        lines.append(f"{name:18}" + "".join(f"{cell:>15}" for cell in cells))
    return lines


def mean_of(values: np.ndarray) -> str:
    return f"{np.mean(values):.3f} ({np.std(values, ddof=len(values) > 1):.3f})"


def main() -> int:
    run = parse()
    train, test = DATA[run.flags.data]()
    strategy = training.strategy(run.flags.strategy)
    run.open(
        {"pictures": hashlib.sha256(train.images.tobytes() + test.images.tobytes()).hexdigest()}
    )
    accuracy, deep = measure_all(run, strategy, train, test)
    print(*table(accuracy), sep="\n")
    for part, kind in itertools.product(deep, KINDS):
        texts = [f"{depth} {mean_of(values)}" for depth, values in deep[part][kind].items()]
        print(f"{part} accuracy by layers, {kind}: {', '.join(texts)}")
    folder = run.results
    plots.accuracy_against_size(
        {"What more data brings": accuracy}, "training pictures", folder / "data.png"
    )
    panels = {f"{part} accuracy": lines for part, lines in deep.items()}
    plots.accuracy_against_size(panels, "layers", folder / "depth.png", ylabel="accuracy")
    large, small = (np.array([*accuracy[name].values()]) for name in (LARGE, SMALL))
    return run.report(
        f"what {LARGE} gain from ten times the pictures, beyond what {SMALL} gains,",
        np.mean((large[-1] - large[-3:][0]) - (small[-1] - small[-3:][0])),
        expected=EXPECTED,
        tolerance=TOLERANCE,
        more={"accuracy": accuracy, "depth": deep},
    )


if __name__ == "__main__":
    cli.execute(main)
