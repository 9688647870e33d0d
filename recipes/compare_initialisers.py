"""Compare four ways to draw the first weights of a deep network.

    tfcourse run compare_initialisers
    tfcourse run compare_initialisers --layers 20 --workdir runs/deeper

A network of ten layers of weights (nine of 100 hidden neurons, and the ten classes) learns 4,000
digits of MNIST by gradient descent, with tanh and with ReLU, from zeros, N(0, 0.01), Xavier's and
He's weights. Two pictures show the variance of what each layer puts out and of the gradient that
comes back to it, dLoss/dZ_l, on 500 digits, before and after. All is that of `tfcourse.basics`, in
NumPy.

Expected: 0.923 of the test digits right with ReLU and He's weights, the mean of three trainings
(its standard deviation is 0.007, by nine; a full run fails below 0.902). By nine trainings:

                                          zeros  N(0, 0.01)  Xavier   He
    test accuracy, tanh                   0.100       0.100   0.921  0.928
    test accuracy, ReLU                   0.100       0.100   0.914  0.923
    variance of the ninth outputs, ReLU       0       9e-21   1e-03  6e-01   before, first seed
    variance of the first gradients, ReLU     0       8e-29   1e-10  5e-08

From zeros only the last biases get a gradient. With N(0, 0.01) and layers of 100 every layer takes
the variance down to a hundredth (ReLU: half of that), so nothing arrives, and nothing comes back.
Xavier's weights lose half the variance in each layer with ReLU, which He's make up for; ten layers
can be learned with either.
"""

import hashlib

import numpy as np

from tfcourse import cli, plots, runs
from tfcourse.basics.activations import ACTIVATIONS
from tfcourse.basics.initializers import INITIALIZERS
from tfcourse.basics.losses import LOSSES
from tfcourse.basics.mlp import MLP, train
from tfcourse.basics.optimizers import GradientDescent
from tfcourse.data.mnist import load_mnist

EXPECTED, TOLERANCE = 0.923, 0.021
SHOWN = ("tanh", "relu")
CHECKED = "relu, he"
LOOKED_AT = 500  # training digits, of all classes, whose variances are measured


def parse() -> runs.Run:
    parser = cli.flags(__doc__)
    add = parser.add_argument
    add("--epochs", type=cli.at_least(1), default=5, help="default 5")
    add("--batch-size", type=cli.at_least(1), default=32, help="default 32")
    add("--learning-rate", type=cli.positive, default=0.03, help="default 0.03")
    add("--layers", type=cli.at_least(2), default=10, help="layers of weights; default 10")
    add("--seeds", type=cli.at_least(1), default=3, help="trainings of each; default 3")
    return runs.start(parser, "compare_initialisers")


def variances(model: MLP, x: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the variance of each layer's outputs, and that of its gradients dLoss/dZ_l."""
    pre_activations, activations = model.forward(x)
    outputs = [*activations[1:], pre_activations[-1]]
    _, derivative = ACTIVATIONS[model.activation]
    _, loss_gradient = LOSSES["cross_entropy"]
    gradients = [loss_gradient(outputs[-1], labels)]
    for z, weight in zip(pre_activations[-2::-1], model.weights[-2:1:-2], strict=True):
        gradients.insert(0, gradients[0] @ weight.T * derivative(z))
    return np.array([o.var() for o in outputs]), np.array([g.var() for g in gradients])


def check(epoch: int, values: float | np.ndarray) -> None:
    """Stop where a loss or a variance is not a finite number."""
    if not np.isfinite(values).all():
        raise ValueError(
            f"the training left the range of numbers in epoch {epoch}: lower --learning-rate"
        )


@np.errstate(over="ignore", invalid="ignore")  # `check` says it
def learn(flags, parts, activation: str, initializer: str) -> tuple[dict, list[float]]:
    """Train with every seed; return the first seed's variances, and all test accuracies."""
    (x, y), (x_test, y_test) = parts
    units = (x.shape[1], *[100] * (flags.layers - 1), 10)
    # The digits come sorted by class.
    looked_at = slice(None, None, max(1, len(x) // LOOKED_AT))
    measured, accuracies = {}, []
    for seed in range(flags.seeds * flags.seed, flags.seeds * (flags.seed + 1)):
        model = MLP(units, activation, initializer, seed)
        before = variances(model, x[looked_at], y[looked_at])
        epochs = 1 if flags.smoke else flags.epochs
        optimizer = GradientDescent(flags.learning_rate)
        batch_size = flags.batch_size
        train(model, x, y, optimizer, epochs, batch_size=batch_size, seed=seed, on_epoch=check)
        after = variances(model, x[looked_at], y[looked_at])
        check(epochs, np.concatenate(after))
        measured = measured or {"before": before, "after": after}
        accuracies.append(float((model.predict(x_test).argmax(1) == y_test).mean()))
    for time, (outputs, gradients) in measured.items():
        print(
            f"{activation} {initializer:7} {time:6} variances: outputs of the last hidden layer "
            f"{outputs[-2]:.1e}, gradients of the first {gradients[0]:.1e}"
        )
    mean = np.mean(accuracies)
    print(f"{activation} {initializer:7} test accuracy {mean:.3f} ({np.std(accuracies):.3f})")
    return measured, accuracies


def load_data(smoke: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return rows of pixels with the mean 0 and the variance 1, and labels: training and test."""
    parts = [(part.images.reshape(len(part), -1) / 255, part.labels) for part in load_mnist()]
    mean, deviation = parts[0][0].mean(), parts[0][0].std()
    step = 20 if smoke else 1
    return [((x[::step] - mean) / deviation, y[::step]) for x, y in parts]


def main() -> int:
    run = parse()
    parts = load_data(run.flags.smoke)
    run.open({"digits": hashlib.sha256(b"".join(x.tobytes() for x, _ in parts)).hexdigest()})
    accuracy, outputs, gradients = {}, {}, {}
    for activation in SHOWN:
        for initializer in INITIALIZERS:
            measured, found = learn(run.flags, parts, activation, initializer)
            accuracy[f"{activation}, {initializer}"] = found
            for time, pair in measured.items():
                for panels, values in zip((outputs, gradients), pair, strict=True):
                    label = f"{initializer} (accuracy {np.mean(found):.2f})"
                    panels.setdefault(f"{activation}, {time} training", {})[label] = values
    plots.layer_variances(outputs, "a layer's outputs", run.results / "outputs.png")
    plots.layer_variances(gradients, "a layer's gradients", run.results / "gradients.png")
    return run.report(
        f"test accuracy with {CHECKED}",
        float(np.mean(accuracy[CHECKED])),
        expected=EXPECTED,
        tolerance=TOLERANCE,
        more={"accuracy": accuracy},
    )


if __name__ == "__main__":
    cli.execute(main)
