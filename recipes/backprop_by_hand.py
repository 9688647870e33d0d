"""Backpropagation by hand: a network in NumPy beside the same one in Keras.

    tfcourse run backprop_by_hand
    tfcourse run backprop_by_hand --activation tanh --workdir runs/tanh
    tfcourse run backprop_by_hand --data-dir PHOTOS --image-size 20 --workdir runs/photos

A network of 784, 256 and 10 neurons learns 4,000 digits of MNIST three times, from the same weights
and with the same batches: in NumPy, where `tfcourse.basics.mlp` spells the chain rule out, and in
Keras, where TensorFlow derives it, with 64-bit and with 32-bit numbers. If both are right, the
losses are the same in every step, but for rounding.

Expected: the losses of 800 steps agree to 15.4 decimal places with Keras in 64 bits (the same for
three seeds; a full run fails below 12, which leaves room for processors that add in another order),
and both get 0.955 of the test digits right. In 32 bits the losses agree to 6 places, until rounding
puts some hidden neuron on the other side of ReLU's corner: then they part by up to 0.005, and the
accuracy stays.

PHOTOS holds one folder of pictures per class.
"""

import hashlib
import math
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from rich.progress import track

from tfcourse import cli, plots, runs
from tfcourse.basics.activations import ACTIVATIONS
from tfcourse.basics.mlp import MLP
from tfcourse.basics.optimizers import Momentum, minibatches
from tfcourse.data.image_folders import load_folder
from tfcourse.data.images import few_per_class
from tfcourse.data.mnist import load_mnist

EXPECTED, TOLERANCE = 15.4, 3.4
HIDDEN = 256
# Keras keeps the rate and the momentum in 32 bits, in which 0.9 is 0.89999998: that alone would
# drive the curves apart. Sums of a few powers of two, such as 7 / 8 and 1 / 16, are exact.
MOMENTUM = 7 / 8
# Activations that Keras calls by the same name and computes by the same formula.
SHARED = sorted(set(ACTIVATIONS) & {"sigmoid", "tanh", "relu"})


def parse() -> runs.Run:
    parser = cli.flags(__doc__, epochs=10, batch_size=50, learning_rate=1 / 16)
    add = parser.add_argument
    add("--activation", choices=SHARED, default="relu", help="default relu")
    add("--image-size", type=cli.at_least(4), default=28, help="of your own pictures; default 28")
    return runs.start(parser, "backprop_by_hand")


def load_data(flags) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Return rows of pixels from 0 to 1 and labels, of the training and the test part."""
    size = (flags.image_size, flags.image_size)
    parts = load_folder(flags.data_dir, size) if flags.data_dir else load_mnist()
    if flags.smoke:
        parts = [few_per_class(part, 20) for part in parts]
    return tuple((part.images.reshape(len(part), -1) / 255.0, part.labels) for part in parts)


def keras_twin(model: MLP, units: tuple[int, int, int], activation: str, dtype: str) -> keras.Model:
    """Return the same network with the same weights."""
    pixels = keras.Input((units[0],), dtype=dtype)
    x = keras.layers.Dense(units[1], activation, dtype=dtype, name="hidden")(pixels)
    twin = keras.Model(pixels, keras.layers.Dense(units[2], dtype=dtype, name="logits")(x))
    twin.set_weights(model.weights)
    return twin


def keras_step(twin: keras.Model, rate: float) -> Callable:
    """Return what makes a step with a batch and returns its loss; TensorFlow finds the gradient."""
    dtype = twin.output.dtype
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype=dtype)
    optimizer = keras.optimizers.SGD(rate, MOMENTUM)
    optimizer.build(twin.trainable_variables)

    @tf.function(reduce_retracing=True)
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = cross_entropy(y, twin(x))
        gradients = tape.gradient(loss, twin.trainable_variables)
        optimizer.apply(gradients, twin.trainable_variables)
        return loss

    return lambda x, y: float(step(tf.constant(x, dtype), tf.constant(y)))


def learn(model: MLP, twins: dict[str, keras.Model], x, y, flags) -> dict[str, list[float]]:
    """Give every network the same batches; return the loss of each before each step."""
    optimizer = Momentum(flags.learning_rate, MOMENTUM)

    def by_hand(x, y):
        value, gradients = model.loss_and_gradients(x, y)
        optimizer.update(model.weights, gradients)
        return value

    steps = {"NumPy": by_hand}
    steps |= {name: keras_step(twin, flags.learning_rate) for name, twin in twins.items()}
    losses = {name: [] for name in steps}
    rng = np.random.default_rng(flags.seed)
    for _ in track(range(flags.epochs), "epochs"):
        for rows in minibatches(rng, len(x), flags.batch_size):
            for name, step in steps.items():
                losses[name].append(step(x[rows], y[rows]))
    return losses


def main() -> int:
    run = parse()
    flags = run.flags
    (x, y), (test, truth) = load_data(flags)
    units = (x.shape[1], HIDDEN, int(y.max()) + 1)
    run.open({"pictures": hashlib.sha256(x.tobytes() + test.tobytes()).hexdigest()})
    model = MLP(units, flags.activation, "xavier", flags.seed)
    twins = {
        f"Keras, {t}": keras_twin(model, units, flags.activation, t) for t in ("float64", "float32")
    }

    losses = learn(model, twins, x, y, flags)
    answers = {"NumPy": model.predict(test)}
    answers |= {name: twin.predict(test, verbose=0) for name, twin in twins.items()}
    accuracy = {k: float((logits.argmax(axis=1) == truth).mean()) for k, logits in answers.items()}
    ours = losses.pop("NumPy")
    apart = {k: float(np.abs(np.subtract(values, ours)).max()) for k, values in losses.items()}
    print(f"{'NumPy':16} test accuracy {accuracy['NumPy']:.3f}")
    for name, difference in apart.items():
        print(f"{name:16} test accuracy {accuracy[name]:.3f}, loss within {difference:.1e}")
    title = f"{len(ours)} steps of {flags.batch_size} digits: one chain rule"
    plots.same_curve(ours, losses, run.results / "curves.png", title=title)
    return run.report(
        "decimal places on which the losses of NumPy and of Keras agree",
        -math.log10(max(apart["Keras, float64"], 1e-17)),
        expected=EXPECTED,
        tolerance=TOLERANCE,
        more={"accuracy": accuracy, "largest difference": apart},
    )


if __name__ == "__main__":
    cli.execute(main)
