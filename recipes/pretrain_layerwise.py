"""Pretrain a deep network layer by layer, without labels, and see what that is still good for.

    tfcourse run pretrain_layerwise
    tfcourse run pretrain_layerwise --layers 2 --workdir runs/shallow

Networks of one size (784 pixels, four layers of 200 neurons, ten classes) learn from 3 to 300
labelled digits of each class, in 400 steps of SGD with momentum. Three have sigmoids. They begin
with: Xavier's weights; four times these; and what four restricted Boltzmann machines have learned,
one on top of the other, from all 4,000 training digits without their labels (`basics.rbm`; Hinton,
Osindero & Teh, 2006). The fourth has ReLUs and He's weights, the answer of today. Each start gets
the best of the rates 0.01, 0.03 and 0.1 for each number of labels, by 500 other digits in the first
repeat: more labels than some of the networks learn from, but the same for all. The 1,000 test
digits are asked once.

Expected: with 10 labels of each class pretraining is 0.075 better than ReLU and He's weights (0.071
to 0.078 in three repeats; a full run, which is the mean of three, fails below 0.055). Mean and
standard deviation of the test accuracy over the three:

    labels of each class              3             10             50            300
    sigmoids, pretrained  0.682 (0.003)  0.853 (0.025)  0.911 (0.004)  0.951 (0.002)
    sigmoids, Xavier      0.461 (0.065)  0.601 (0.032)  0.101 (0.002)  0.100 (0.000)
    sigmoids, 4 x Xavier  0.569 (0.040)  0.766 (0.020)  0.872 (0.001)  0.920 (0.010)
    ReLU, He              0.584 (0.015)  0.778 (0.028)  0.881 (0.004)  0.938 (0.004)

So pretraining gave two things in 2006. One was a start from which deep sigmoids learn at all: from
Xavier's weights they learn late, and with 50 and 300 labels nothing in these 400 steps. But four
times those weights do that, too, and need no digits; ReLUs are little better than they. The other
is what can be learned without labels, and it still counts: beside ReLUs 10 percentage points with
3 labels, 7.5 with 10, 3 with 50, and 1.3 with 300.
`labels.png` draws the table; `filters.png` shows the strokes that the first machine found.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
from keras import layers
from keras.initializers import GlorotNormal, HeNormal, VarianceScaling

from tfcourse import cli, plots, runs, training
from tfcourse.basics.rbm import classifier_weights, pretrain
from tfcourse.data.cache import atomic_file
from tfcourse.data.images import Images, few_per_class, hold_out, subset_per_class
from tfcourse.data.mnist import load_mnist
from tfcourse.training import InMemory

EXPECTED, TOLERANCE = 0.075, 0.02
CHECKED = 10  # labels of each class at which the gain is checked
LABELS = (3, 10, 50, 300)  # of each class
HIDDEN = 200
RATES = (0.01, 0.03, 0.1)
MOMENTUM = 0.9
VALIDATION = 1 / 8  # of the training digits, to choose the rate by
SHOWN = 48  # hidden units in filters.png


class Start(NamedTuple):
    """How a network begins: the hidden neurons' activation, and what draws their weights."""

    activation: str
    initializer: Callable[[], keras.Initializer] = GlorotNormal


class Lesson(NamedTuple):
    """What the starts have in common: the digits, what the machines learned, and the seed."""

    few: Images
    validation: Images
    test: Images
    weights: list[np.ndarray]
    seed: int


PRETRAINED, RIVAL = "sigmoids, pretrained", "ReLU, He"
STARTS = {
    PRETRAINED: Start("sigmoid"),
    "sigmoids, Xavier": Start("sigmoid"),
    # A sigmoid has at most a quarter of the slope that Xavier's variance was reckoned for.
    "sigmoids, 4 x Xavier": Start("sigmoid", functools.partial(VarianceScaling, 16, "fan_avg")),
    "ReLU, He": Start("relu", HeNormal),
}


def parse() -> runs.Run:
    parser = cli.flags(__doc__)
    add = parser.add_argument
    add("--layers", type=cli.at_least(1), default=4, help="hidden layers; default 4")
    add("--epochs", type=cli.at_least(1), default=10, help="of each machine; default 10")
    add("--steps", type=cli.at_least(1), default=400, help="with labels; default 400")
    add("--batch-size", type=cli.at_least(1), default=50, help="of the steps; default 50")
    add("--seeds", type=cli.at_least(1), default=3, help="how often all is done; default 3")
    run = runs.start(parser, "pretrain_layerwise")
    if run.flags.seeds * (run.flags.seed + 1) > 2**32:
        raise ValueError(f"--seed must leave room for --seeds below 2**32, got {run.flags.seed}")
    return run


def rows_of(part: Images) -> np.ndarray:
    return part.images.reshape(len(part), -1) / 255.0


def first_weights(run, digits: Images, seed: int) -> list[np.ndarray]:
    """Return what the machines begin a network with, or read what was kept."""
    file = f"machines/{seed}.npz"
    if (run.folder / file).exists():
        with np.load(run.folder / file) as kept:
            return [kept[name] for name in kept.files]
    units = (digits.images[0].size, *[HIDDEN] * run.flags.layers)
    epochs = 1 if run.flags.smoke else run.flags.epochs
    print(f"machines of {units} units learn {len(digits):,} digits without labels", flush=True)
    machines = pretrain(units, rows_of(digits), epochs=epochs, batch_size=20, seed=seed)
    weights = classifier_weights(machines, len(digits.class_names), seed)
    with atomic_file(run.results / file) as staging, open(staging, "wb") as opened:
        np.savez(opened, *weights)
    return weights


def build(start: Start, pixels: int, hidden_layers: int, num_classes: int) -> keras.Model:
    """Build a network of dense layers; its weights come in the order of `classifier_weights`."""
    inputs = x = keras.Input((pixels,))
    for number in range(1, hidden_layers + 1):
        x = layers.Dense(
            HIDDEN, start.activation, kernel_initializer=start.initializer(), name=f"hidden{number}"
        )(x)
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(x))


def train_one(flags, strategy, name: str, rate: float, lesson: Lesson) -> keras.Model:
    """Train a network with few labels; return it."""
    few = lesson.few
    keras.utils.set_random_seed(lesson.seed)
    with strategy.scope():
        model = build(STARTS[name], few.images[0].size, flags.layers, len(few.class_names))
        if name == PRETRAINED:
            model.set_weights(lesson.weights)
        model.compile(
            keras.optimizers.SGD(rate, MOMENTUM),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
    size = min(flags.batch_size, len(few))
    data = InMemory(rows_of(few), few.labels, size, seed=lesson.seed)
    training.fit(model, data, 1, steps_per_epoch=20 if flags.smoke else flags.steps)
    return model


def accuracy_of(model: keras.Model, part: Images) -> float:
    logits = keras.ops.convert_to_numpy(model(rows_of(part)))
    return float((logits.argmax(-1) == part.labels).mean())


def measure(run, strategy, name: str, lesson: Lesson, rates: Sequence[float]) -> dict[str, float]:
    """Train with each rate; return the one that validation prefers, and its test accuracy."""
    labels = len(lesson.few) // len(lesson.few.class_names)
    file = f"trained/{name.replace(' ', '_')}_{labels}_{lesson.seed}.json"
    if (run.folder / file).exists():
        return json.loads((run.folder / file).read_text("utf-8"))
    models = {rate: train_one(run.flags, strategy, name, rate, lesson) for rate in rates}
    scores = {rate: accuracy_of(model, lesson.validation) for rate, model in models.items()}
    rate = max(scores, key=scores.get)
    found = {"rate": rate, "test accuracy": accuracy_of(models[rate], lesson.test)}
    print(
        f"seed {lesson.seed}, {labels:3} labels, {name:20} rate {rate:4g}: "
        f"test accuracy {found['test accuracy']:.3f}",
        flush=True,
    )
    runs.write_json(run.results / file, found)
    return found


def measure_all(run, strategy, train: Images, test: Images) -> tuple[dict, dict]:
    """Return test accuracies by start and labels, and the rates."""
    flags = run.flags
    counts = (CHECKED,) if flags.smoke else LABELS
    curves = {name: {count: [] for count in counts} for name in STARTS}
    chosen = {name: dict.fromkeys(counts, RATES[-1:] if flags.smoke else RATES) for name in STARTS}
    for seed in range(flags.seeds * flags.seed, flags.seeds * (flags.seed + 1)):
        weights = first_weights(run, train, seed)
        labelled, validation = hold_out(train, VALIDATION, seed)
        for count in counts:
            few = subset_per_class(labelled, count, seed)
            lesson = Lesson(few, validation, test, weights, seed)
            for name, points in curves.items():
                found = measure(run, strategy, name, lesson, chosen[name][count])
                chosen[name][count] = [found["rate"]]  # the first seed chooses for all
                points[count].append(found["test accuracy"])
    return curves, chosen


def table(curves: dict[str, dict[int, list[float]]]) -> list[str]:
    """Write mean and standard deviation as lines."""
    counts = list(next(iter(curves.values())))
    lines = [f"{'labels of each class':20}" + "".join(f"{count:15}" for count in counts)]
    for name, points in curves.items():
        cells = [f"{np.mean(v):.3f} ({np.std(v, ddof=len(v) > 1):.3f})" for v in points.values()]
        lines.append(f"{name:20}" + "".join(f"{cell:>15}" for cell in cells))
    return lines


def main() -> int:
    run = parse()
    flags = run.flags
    train, test = load_mnist()
    if flags.smoke:
        train = few_per_class(train, 30)
    strategy = training.strategy(flags.strategy)
    run.open({"digits": hashlib.sha256(train.images.tobytes() + test.images.tobytes()).hexdigest()})
    curves, chosen = measure_all(run, strategy, train, test)
    print(*table(curves), sep="\n")
    plots.accuracy_against_size(
        {"What a deep network learns from few labels": curves},
        "labels of each class",
        run.results / "labels.png",
    )
    filters = first_weights(run, train, flags.seeds * flags.seed)[0]
    height, width, _ = train.images[0].shape
    plots.filter_grid(
        filters[:, :SHOWN].reshape(height, width, 1, -1),
        run.results / "filters.png",
        title=f"What {SHOWN} hidden units of the first machine look for, without labels",
    )
    gains = np.subtract(curves[PRETRAINED][CHECKED], curves[RIVAL][CHECKED])
    return run.report(
        f"gain of pretraining over {RIVAL!r} with {CHECKED} labels of each class",
        gains.mean(),
        expected=EXPECTED,
        tolerance=TOLERANCE,
        more={"accuracy": curves, "rates": chosen},
    )


if __name__ == "__main__":
    cli.execute(main)
