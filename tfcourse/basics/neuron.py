"""One neuron: inputs weighted, summed, activated (McCulloch & Pitts, 1943).

https://doi.org/10.1007/BF02478259; Widrow and Hoff (1960) trained it by its error. For a row x of n
inputs, with weights w and a bias b:

    z = w_1 x_1 + ... + w_n x_n + b        a = f(z)

With f = sigmoid the answer lies in (0, 1) and can be read as a probability: logistic regression.
With f = identity it is any number, such as a price: linear regression.

Two examples, with weights set by hand. A person of 71 kg and 178 cm: male? The truth is 1, so the
absolute loss of the answer is 1 - 0.87 = 0.13:

>>> person = Neuron(weights=[0.02, 0.1], bias=-17.32, activation="sigmoid")
>>> round(float(person([[71, 178]])[0]), 2)
0.87

A house of 90 square metres, at 3 (thousand) each and 40 for the land:

>>> house = Neuron(weights=[3.0], bias=40.0, activation="identity")
>>> float(house([[90]])[0])
310.0
"""

from collections.abc import Sequence

import numpy as np

from tfcourse.basics._checks import check_columns, check_name, check_rows
from tfcourse.basics.activations import ACTIVATIONS
from tfcourse.basics.losses import LOSSES
from tfcourse.basics.optimizers import GradientDescent

LOSSES_OF_A_NEURON = ("absolute_error", "binary_cross_entropy", "squared_error")


class Neuron:
    """A neuron.

    Attributes:
        weights: `[w, b]` of shapes `(n, 1)` and `(1,)`, as a layer of one neuron has them.
            Optimizers change them in place.
        activation: Name of `f`.
    """

    def __init__(self, weights: Sequence[float], bias: float = 0.0, activation: str = "sigmoid"):
        """Set the weights, the bias and the activation (a name in `ACTIVATIONS`).

        Raises:
            ValueError: If there is no weight, or the name is unknown.
        """
        column = np.array(weights, float).reshape(-1, 1)
        if not column.size:
            raise ValueError("weights must be at least one number, got none")
        self.weights = [column, np.array([bias], float)]
        self.activation = check_name("activation", activation, ACTIVATIONS)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the answers, `(rows, n) -> (rows,)`."""
        function, _ = ACTIVATIONS[self.activation]
        return function(self._weigh(x))[:, 0]

    def loss_and_gradients(
        self, x: np.ndarray, targets: np.ndarray, loss: str = "squared_error"
    ) -> tuple[float, list[np.ndarray]]:
        """Return the loss and its gradients, in the order of `weights`, by the chain rule.

            dLoss/dw = dLoss/da * da/dz * dz/dw = x^T (dLoss/da * f'(z))        dLoss/db: the sum

        Where the sigmoid is far from 0.5 its slope f' is nearly 0, and a neuron that is wrong but
        sure hardly learns. The cross-entropy contains the sigmoid, and the slope cancels: dLoss/dz
        is a - target, the larger the more wrong.

        Args:
            x: `(rows, n)`.
            targets: `(rows,)`.
            loss: "absolute_error", "squared_error", or "binary_cross_entropy" for a sigmoid.

        Raises:
            ValueError: If the loss is none of these.
        """
        check_name("loss", loss, dict.fromkeys(LOSSES_OF_A_NEURON))
        value, gradient = LOSSES[loss]
        function, derivative = ACTIVATIONS[self.activation]
        z = self._weigh(x)
        targets = np.asarray(targets, float).reshape(-1, 1)
        if loss == "binary_cross_entropy":
            if self.activation != "sigmoid":
                raise ValueError(
                    f"{loss} contains a sigmoid: activation must be 'sigmoid', "
                    f"got {self.activation!r}"
                )
            answer, delta = z, gradient(z, targets)
        else:
            answer = function(z)
            delta = gradient(answer, targets) * derivative(z)
        return value(answer, targets), [np.asarray(x, float).T @ delta, delta.sum(axis=0)]

    def _weigh(self, x: np.ndarray) -> np.ndarray:
        weights, bias = self.weights
        return check_columns(x, len(weights)) @ weights + bias


def train_neuron(
    neuron: Neuron,
    x: np.ndarray,
    y: np.ndarray,
    *,
    rate: float,
    steps: int,
    loss: str = "squared_error",
) -> list[float]:
    """Step against the gradient of the loss over all rows: w <- w - rate * dLoss/dw.

    Inputs should be of order 1 (subtract their mean, divide by their deviation): with kilograms
    beside centimetres no one rate suits both weights.

    Args:
        neuron: Its weights are changed.
        x: `(rows, n)`.
        y: Targets, `(rows,)`.
        rate: Length of a step, as a multiple of the gradient.
        steps: How many.
        loss: As in `Neuron.loss_and_gradients`.

    Returns:
        The loss before each step.

    Raises:
        ValueError: If `x` and `y` have not equally many rows, or none, or there are no steps.
    """
    check_rows(x, y)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    descent = GradientDescent(rate)
    losses = []
    for _ in range(steps):
        value, gradients = neuron.loss_and_gradients(x, y, loss)
        descent.update(neuron.weights, gradients)
        losses.append(value)
    return losses
