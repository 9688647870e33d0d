"""A network of dense layers, with backpropagation written out (Rumelhart, Hinton & Williams, 1986).

https://doi.org/10.1038/323533a0. Layer l = 1 ... L takes the activations of the one before it:

    Z_l = A_(l-1) W_l + b_l        (rows, n_(l-1)) (n_(l-1), n_l) + (n_l,) -> (rows, n_l)
    A_l = f(Z_l)                   A_0 = X; the last layer has no f: Z_L are the logits

Backpropagation is the chain rule, from the loss back to the first layer. With D_l = dLoss/dZ_l:

    D_L     = dLoss/dZ_L           what the loss says, (rows, n_L)
    dW_l    = A_(l-1)^T D_l        as Z_l is linear in W_l
    db_l    = sum of D_l over the rows
    D_(l-1) = (D_l W_l^T) * f'(Z_(l-1))

Each step needs what the forward pass computed on its way, so that is kept; and D_l serves all
weights of layers up to l, so the gradient costs about two forward passes, however many weights
there are. `numeric_gradients`, the check, costs two of them for each weight.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from tfcourse.basics._checks import check_columns, check_name, check_rows
from tfcourse.basics.activations import ACTIVATIONS
from tfcourse.basics.initializers import INITIALIZERS
from tfcourse.basics.losses import LOSSES
from tfcourse.basics.optimizers import minibatches


class MLP:
    """A multilayer perceptron.

    Without `f` between them, layers would collapse: (X W_1) W_2 = X (W_1 W_2) is one linear map.

    Attributes:
        weights: `[W_1, b_1, W_2, b_2, ...]`, `W_l` of shape `(n_(l-1), n_l)` and `b_l` of `(n_l,)`:
            the order of a Keras stack of `Dense` layers. Optimizers change them in place.
        activation: Name of `f`.
    """

    def __init__(
        self,
        units: Sequence[int] = (784, 256, 10),
        activation: str = "relu",
        initializer: str = "he",
        seed: int = 0,
    ):
        """Draw the weights; biases begin at zero.

        Args:
            units: Inputs, the neurons of each hidden layer, and outputs.
            activation: Of the hidden layers, a name in `ACTIVATIONS`.
            initializer: Of the matrices, a name in `INITIALIZERS`.
            seed: Of the matrices.

        Raises:
            ValueError: If a name is unknown, or there are no two sizes of at least 1.
        """
        if len(units) < 2 or min(units) < 1:
            raise ValueError(f"units must be at least two numbers from 1 up, got {units}")
        self.activation = check_name("activation", activation, ACTIVATIONS)
        initialize = INITIALIZERS[check_name("initializer", initializer, INITIALIZERS)]
        rng = np.random.default_rng(seed)
        self.weights = []
        for inputs, outputs in pairwise(units):
            self.weights += [initialize(rng, inputs, outputs), np.zeros(outputs)]

    def forward(self, x: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Compute the layers one after the other, and keep them all.

        Args:
            x: `(rows, inputs)`.

        Returns:
            The pre-activations `[Z_1, ..., Z_L]` and the activations `[X, A_1, ..., A_(L-1)]`:
            what goes into each layer. The logits are the last pre-activations.

        Raises:
            ValueError: If the columns of `x` are not as many as the inputs.
        """
        x = check_columns(x, len(self.weights[0]))
        function, _ = ACTIVATIONS[self.activation]
        pre_activations, activations = [], [x]
        for weight, bias in zip(self.weights[::2], self.weights[1::2], strict=True):
            if pre_activations:
                activations.append(function(pre_activations[-1]))
            pre_activations.append(activations[-1] @ weight + bias)
        return pre_activations, activations

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the logits, `(rows, inputs) -> (rows, outputs)`."""
        return self.forward(x)[0][-1]

    def gradients(
        self, x: np.ndarray, targets: np.ndarray, loss: str = "cross_entropy"
    ) -> list[np.ndarray]:
        """Return the gradients of the loss, in the order of `weights`."""
        return self.loss_and_gradients(x, targets, loss)[1]

    def loss_and_gradients(
        self, x: np.ndarray, targets: np.ndarray, loss: str = "cross_entropy"
    ) -> tuple[float, list[np.ndarray]]:
        """Return the loss and, by backpropagation, its gradients in the order of `weights`.

        Args:
            x: `(rows, inputs)`.
            targets: What the loss compares the logits with.
            loss: A name in `LOSSES`.
        """
        value, gradient = LOSSES[check_name("loss", loss, LOSSES)]
        pre_activations, activations = self.forward(x)
        logits = pre_activations[-1]
        gradients = self.backward(pre_activations, activations, gradient(logits, targets))
        return value(logits, targets), gradients

    def backward(
        self,
        pre_activations: list[np.ndarray],
        activations: list[np.ndarray],
        delta: np.ndarray,
    ) -> list[np.ndarray]:
        """Carry a gradient back through the layers.

        Args:
            pre_activations: Of `forward`.
            activations: Of `forward`.
            delta: D_L, the gradient with respect to the logits, `(rows, outputs)`.

        Returns:
            The gradients, in the order of `weights`.
        """
        _, derivative = ACTIVATIONS[self.activation]
        gradients: list[np.ndarray] = []
        for layer in reversed(range(len(activations))):
            gradients[:0] = [activations[layer].T @ delta, delta.sum(axis=0)]
            if layer:
                delta = delta @ self.weights[2 * layer].T
                delta *= derivative(pre_activations[layer - 1])
        return gradients


def train(
    model,
    x: np.ndarray,
    y: np.ndarray,
    optimizer,
    epochs: int,
    *,
    batch_size: int = 32,
    loss: str = "cross_entropy",
    seed: int = 0,
    on_epoch: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train a model on minibatches, in a new order every epoch.

    Args:
        model: An `MLP`, or what else has `weights` and `loss_and_gradients`.
        x: `(rows, inputs)`.
        y: The targets, as the loss wants them, with as many rows.
        optimizer: With a method `update(weights, gradients)`; it keeps its state between calls.
        epochs: How often every row is seen.
        batch_size: Rows in a step; the last step of an epoch has what is left.
        loss: A name in `LOSSES`.
        seed: Of the order.
        on_epoch: Called with the epoch, from 1, and its loss: to show progress, or to test.

    Returns:
        The loss of each epoch: the mean over its rows, while the weights were changing.

    Raises:
        ValueError: If there is no row, `y` has not as many, or `epochs` is below 1.
    """
    x, y = np.asarray(x, float), np.asarray(y)
    check_rows(x, y)
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    rng = np.random.default_rng(seed)
    losses = []
    for epoch in range(1, epochs + 1):
        total = 0.0
        for rows in minibatches(rng, len(x), batch_size):
            value, gradients = model.loss_and_gradients(x[rows], y[rows], loss)
            optimizer.update(model.weights, gradients)
            total += value * len(rows)
        losses.append(total / len(x))
        if on_epoch:
            on_epoch(epoch, losses[-1])
    return losses


def numeric_gradients(
    function: Callable[[], float], weights: list[np.ndarray], step: float = 1e-5
) -> list[np.ndarray]:
    """Return gradients by central differences, to check others: (f(w + h) - f(w - h)) / 2 h.

    Args:
        function: The loss of the present weights; called twice for each number in them.
        weights: Arrays that `function` reads; each number is moved and put back.
        step: h. The error of the formula grows with h^2, that of rounding with 1 / h.
    """
    gradients = [np.zeros_like(weight) for weight in weights]
    for weight, gradient in zip(weights, gradients, strict=True):
        for index in np.ndindex(weight.shape):
            kept = weight[index]
            weight[index] = kept + step
            above = function()
            weight[index] = kept - step
            below = function()
            weight[index] = kept
            gradient[index] = (above - below) / (2 * step)
    return gradients
