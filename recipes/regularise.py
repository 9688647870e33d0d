"""Compare what keeps a small network from learning its few pictures by heart.

    tfcourse run regularise
    tfcourse run regularise --methods dropout,mix-up --seeds 5 --workdir runs/two
    tfcourse run regularise --choose --workdir runs/choose

LeNet-5 learns 1,000 pictures of Fashion-MNIST until it knows nearly all, and then again with each
of: penalties (L1, L2), dropout, label smoothing, noise (in the input, in hidden units, in the
weights), pictures changed at random (mirror, shift, turn, brightness, cut-out), mixtures of two
(mix-up). All else stays the same. The table says what each brings on 1,000 test pictures,
and how many standard errors of the paired difference that is; `augmentation.png` shows what the
network sees.

Expected: 0.826 with mix-up, which validation prefers (standard deviation 0.010 over three seeds,
0.006 of their mean; a full run fails below 0.809), beside 0.810 of no method at all, whose
training accuracy is 0.984. In percentage points of test accuracy, and standard errors:

    mix-up +1.7 (7.6)    shift +1.3 (3.2)    label smoothing +0.9 (1.6)    turn +0.8 (3.0)
    noise in the weights +0.7 (1.8)    dropout +0.6 (1.5)    L1 +0.5 (2.6)    brightness +0.4 (0.8)
    L2 and mirror +0.2, noise in the input and cut-out -0.1, noise in hidden units -0.2: nothing
    mirror + shift + dropout -0.2 (0.5): too much at once, it learns only 0.883 of the pictures

Of three seeds 4.3 standard errors would be significant at 5 %, if there were one method; with
fourteen none is, and all seeds share the same test pictures: this is a first look. On the 4,000
training pictures that are not learned mix-up has +1.1, dropout +1.1 and label smoothing +1.0; there
`--choose` chose the strengths with one seed, often the mildest that was tried. Every method has the
same 1,280 steps; noise and augmentation would gain more from longer trainings. DIR of `--data-dir`
holds one folder of pictures per class; colour pictures are changed in colour, too.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from typing import NamedTuple

import keras
import matplotlib.cbook
import numpy as np
from keras import layers
from PIL import Image

from tfcourse import cli, plots, runs, training
from tfcourse.data.fashion_mnist import load_fashion_mnist
from tfcourse.data.image_folders import load_folder
from tfcourse.data.images import Images, hold_out
from tfcourse.training import InMemory
from tfcourse.vision import (
    PrincipalColors,
    RandomWindow,
    augment,
    build_lenet,
    principal_colors,
)
from tfcourse.vision.lenet import UNITS

EXPECTED, TOLERANCE = 0.826, 0.017
SIZE = (28, 28)
DRAWN = 5  # pictures in a row of augmentation.png, for each of two


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a method changes: layers in front, layers among the hidden ones, loss, step."""

    front: tuple[keras.Layer, ...] = ()
    hidden: Callable[[], keras.Layer] = layers.Identity
    l1: float = 0.0
    l2: float = 0.0
    smoothing: float = 0.0
    step: Callable = training.supervised_step


class Method(NamedTuple):
    """A method, the strength that `--choose` found to be best, and those that it tries."""

    setup: Callable[[float, int], Setup]
    strength: float = 0.0
    tried: tuple[float, ...] = ()


def in_front(build: Callable[[float, int], keras.Layer]) -> Callable[[float, int], Setup]:
    return lambda strength, seed: Setup(front=(build(strength, seed),))


def together(_: float, seed: int) -> Setup:
    """Mirror, shift and dropout at once."""
    moved = [
        METHODS[name].setup(METHODS[name].strength, seed).front for name in ("mirror", "shift")
    ]
    dropout = METHODS["dropout"]
    return dataclasses.replace(dropout.setup(dropout.strength, seed), front=sum(moved, ()))


METHODS = {
    "none": Method(lambda s, seed: Setup()),
    "L1": Method(lambda s, seed: Setup(l1=s), 1e-4, (3e-5, 1e-4, 3e-4, 1e-3)),
    "L2": Method(lambda s, seed: Setup(l2=s), 1e-3, (3e-4, 1e-3, 3e-3, 1e-2)),
    "dropout": Method(
        lambda s, seed: Setup(hidden=lambda: layers.Dropout(s, seed=seed)), 0.15, (0.15, 0.3, 0.5)
    ),
    "label smoothing": Method(lambda s, seed: Setup(smoothing=s), 0.2, (0.05, 0.1, 0.2)),
    "noise in the input": Method(
        in_front(lambda s, seed: layers.GaussianNoise(s, seed=seed)), 0.05, (0.05, 0.1, 0.2)
    ),
    "noise in hidden units": Method(
        lambda s, seed: Setup(hidden=lambda: layers.GaussianNoise(s, seed=seed)),
        0.5,
        (0.25, 0.5, 1),
    ),
    "noise in the weights": Method(
        lambda s, seed: Setup(step=training.weight_noise(s, seed=seed)), 0.03, (0.01, 0.03, 0.06)
    ),
    "mirror": Method(in_front(lambda s, seed: layers.RandomFlip("horizontal", seed=seed))),
    "shift": Method(
        in_front(lambda s, seed: RandomWindow(SIZE, padding=int(s), seed=seed)), 1, (1, 2, 3)
    ),
    "turn": Method(
        in_front(lambda s, seed: layers.RandomRotation(s, "constant", seed=seed)),
        0.02,
        (0.01, 0.02, 0.05),
    ),
    "brightness": Method(
        in_front(lambda s, seed: layers.RandomBrightness(s, (0, 1), seed=seed)),
        0.4,
        (0.1, 0.2, 0.4),
    ),
    "colour": Method(
        in_front(lambda s, seed: layers.RandomSaturation((0.5 - s, 0.5 + s), (0, 1), seed=seed)),
        0.2,
        (0.1, 0.2, 0.3),
    ),
    "cut-out": Method(
        in_front(lambda s, seed: layers.RandomErasing((1, 1), (s, s), 0.0, (0, 1), seed=seed)),
        0.05,
        (0.05, 0.1, 0.25),
    ),
    "mix-up": Method(
        lambda s, seed: Setup(step=training.mix_up(s, seed=seed)), 0.4, (0.2, 0.4, 1.0)
    ),
    "mirror + shift + dropout": Method(together),
}


def parse() -> runs.Run:
    parser = cli.flags(__doc__, epochs=40, batch_size=32, learning_rate=2e-3)
    add = parser.add_argument
    add("--methods", help="some of the methods, with commas between; default: all")
    add("--pictures", type=cli.at_least(20), default=1000, help="to learn from; default 1000")
    add("--seeds", type=cli.at_least(2), default=3, help="how many trainings of each; default 3")
    add("--choose", action="store_true", help="choose the strengths first, by validation")
    run = runs.start(parser, "regularise")
    if run.flags.seed + run.flags.seeds > 2**32:
        raise ValueError(f"--seed must leave room for --seeds below 2**32, got {run.flags.seed}")
    return run


def chosen_methods(flags, channels: int) -> list[str]:
    names = flags.methods.split(",") if flags.methods else list(METHODS)
    if unknown := [name for name in names if name not in METHODS]:
        raise ValueError(f"--methods must be of {', '.join(METHODS)}; got {unknown[0]!r}")
    if flags.methods and "colour" in names and channels == 1:
        raise ValueError("--methods must not be colour for grey pictures")
    if flags.smoke and not flags.methods:
        names = ["L2", "mix-up"]
    names = [name for name in names if name != "colour" or channels > 1]
    return list(dict.fromkeys(["none", *names]))


def load_data(flags) -> tuple[Images, Images]:
    train, test = load_folder(flags.data_dir, SIZE) if flags.data_dir else load_fashion_mnist()
    if flags.pictures >= len(train):
        raise ValueError(
            f"--pictures must be less than {len(train)}, what there is to learn from and to "
            f"choose by, got {flags.pictures}"
        )
    return train, test


def build(setup: Setup, shape: tuple[int, int, int], num_classes: int) -> keras.Model:
    """Build LeNet-5 with something among its dense layers."""
    features = build_lenet(shape, num_classes=None)
    x = layers.Flatten()(features.output)
    for units in UNITS:
        x = setup.hidden()(layers.Dense(units, activation="relu")(x))
    return keras.Model(features.input, layers.Dense(num_classes, name="logits")(x), name="lenet5")


def train_one(flags, make: Callable, parts: list[Images], seed: int, strategy) -> list[float]:
    """Train once; return the accuracies on the training, the validation and the test part."""
    pixels = [part.images.astype("float32") / 255 for part in parts]
    num_classes = len(parts[0].class_names)
    targets = np.eye(num_classes, dtype="float32")[parts[0].labels]
    data = InMemory(pixels[0], targets, flags.batch_size, seed=seed)
    epochs = 2 if flags.smoke else flags.epochs
    with strategy.scope():
        keras.utils.set_random_seed(seed)
        setup = make(seed)
        model = build(setup, pixels[0].shape[1:], num_classes)
        training.penalise(model, l1=setup.l1, l2=setup.l2)
        network = augment(model, setup.front)
        decay = keras.optimizers.schedules.CosineDecay(flags.learning_rate, epochs * data.steps)
        loss = keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=setup.smoothing
        )
        network.compile(keras.optimizers.Adam(decay), loss)
    training.fit(network, data, epochs, step=setup.step)
    logits = [
        training.predict(model, InMemory(x, part.labels, 250, shuffle=False))
        for x, part in zip(pixels, parts, strict=True)
    ]
    return [
        float((y.argmax(-1) == part.labels).mean()) for y, part in zip(logits, parts, strict=True)
    ]


def train(run, name: str, strength: float, data, strategy, *, seed: int) -> list[float]:
    """Train once, or read what was kept; return the three accuracies."""
    file = f"trained/{name.replace(' ', '_')}_{strength:g}_{seed}.json"
    if (run.folder / file).exists():
        return json.loads((run.folder / file).read_text("utf-8"))["accuracy"]
    # Which pictures are learned depends on the seed, too: the same for every method.
    parts = [*hold_out(data[0], 1 - run.flags.pictures / len(data[0]), seed), data[1]]
    make = functools.partial(METHODS[name].setup, strength)
    accuracy = train_one(run.flags, make, parts, seed, strategy)
    print(f"{name} {strength:g}, seed {seed}: test accuracy {accuracy[2]:.3f}", flush=True)
    runs.write_json(run.results / file, {"accuracy": accuracy})
    return accuracy


def choose(run, name: str, data, strategy) -> float:
    """Return the strength that is best on the validation part, with the first seed."""
    method = METHODS[name]
    if not (run.flags.choose and method.tried):
        return method.strength
    first = run.flags.seed
    scores = {s: train(run, name, s, data, strategy, seed=first)[1] for s in method.tried}
    tried = "  ".join(f"{strength:g}: {score:.4f}" for strength, score in scores.items())
    print(f"{name}: validation accuracy by strength  {tried}", flush=True)
    return max(scores, key=scores.get)


def table(results: dict[str, np.ndarray], strengths: dict[str, float]) -> list[str]:
    """Write the results as lines, the best on the validation part first."""
    lines = [f"{'':24} strength  training  test (sd)      beside none, in standard errors"]
    for name in sorted(results, key=lambda n: -results[n][:, 1].mean()):
        accuracy = results[name]
        line = f"{name:24} {strengths[name]:8g}  {accuracy[:, 0].mean():.3f}     "
        line += f"{accuracy[:, 2].mean():.3f} ({accuracy[:, 2].std(ddof=1):.3f})"
        if name != "none":
            gains = accuracy[:, 2] - results["none"][:, 2]
            error = gains.std(ddof=1) / np.sqrt(len(gains))
            line += f"  {gains.mean():+.3f}  {gains.mean() / max(error, 1e-6):+.1f}"
        lines.append(line)
    return lines


def show_augmentation(names: list[str], train: Images, path) -> None:
    """Draw what the changes make of a picture of the data, at the left, and of a photo."""
    with Image.open(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as file:
        photo = np.asarray(file.convert("RGB").resize((112, 131)), "float32")[:112] / 255
    clothes, other = (train.images[i] / np.float32(255) for i in (0, -1))
    front = {name: METHODS[name].setup(METHODS[name].strength, 0).front for name in names}
    changes = {name: found[0] for name, found in front.items() if len(found) == 1}
    if "colour" in changes:
        changes["hue"] = layers.RandomHue(0.1, (0, 1), seed=0)
        colors = PrincipalColors(*principal_colors(photo[None]), stddev=0.3, seed=0)
        changes["AlexNet's colours"] = colors
    rows = {}
    for name, layer in changes.items():
        is_grey = clothes.shape[-1] == 1 and name not in ("colour", "hue", "AlexNet's colours")
        left = draw(layer, clothes if is_grey else in_colour(clothes))
        # As far as the small picture, which is drawn at four times its size.
        far = RandomWindow(photo.shape[:2], padding=4 * int(METHODS["shift"].strength), seed=0)
        right = draw(far if name == "shift" else layer, photo)
        rows[name] = np.concatenate([in_colour(enlarge(left)), right])
    if "mix-up" in names:
        shares = np.linspace(1, 0.5, DRAWN, dtype="float32")[:, None, None, None]
        small, large = (
            shares * a + (1 - shares) * b for a, b in ((clothes, other), (photo, photo[:, ::-1]))
        )
        rows["mix-up"] = np.concatenate([in_colour(enlarge(small)), large])
    if rows:
        plots.image_rows(rows, path)


def draw(layer: keras.Layer, image: np.ndarray) -> np.ndarray:
    """Return an image and changes of it, `(DRAWN, height, width, channels)`."""
    changed = layer(np.stack([image] * (DRAWN - 1)), training=True)
    return np.concatenate([image[None], changed])


def enlarge(images: np.ndarray) -> np.ndarray:
    """Make each pixel of small pictures sixteen: as large as the photo."""
    return images.repeat(4, axis=1).repeat(4, axis=2)


def in_colour(images: np.ndarray) -> np.ndarray:
    return images if images.shape[-1] == 3 else np.repeat(images, 3, axis=-1)


def main() -> int:
    run = parse()
    data = load_data(run.flags)
    names = chosen_methods(run.flags, data[0].images.shape[-1])
    strategy = training.strategy(run.flags.strategy)
    digest = hashlib.sha256(b"".join(part.images.tobytes() for part in data)).hexdigest()
    run.open({"pictures": digest})
    shown = names if run.flags.methods or run.flags.smoke else list(METHODS)
    show_augmentation(shown, data[0], run.results / "augmentation.png")
    strengths = {name: choose(run, name, data, strategy) for name in names}
    seeds = range(run.flags.seed, run.flags.seed + run.flags.seeds)
    results = {
        name: np.array([train(run, name, strengths[name], data, strategy, seed=k) for k in seeds])
        for name in names
    }
    print(*table(results, strengths), sep="\n")
    pairs = {name: (accuracy[:, 0], accuracy[:, 2]) for name, accuracy in results.items()}
    plots.accuracy_gaps(pairs, "none", run.results / "accuracy.png")
    best = max(results, key=lambda name: results[name][:, 1].mean())
    return run.report(
        f"test accuracy with {best!r}, the best on validation,",
        float(results[best][:, 2].mean()),
        expected=EXPECTED,
        tolerance=TOLERANCE,
        more={"accuracy": {name: accuracy.tolist() for name, accuracy in results.items()}},
    )


if __name__ == "__main__":
    cli.execute(main)
