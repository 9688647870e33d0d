"""Restricted Boltzmann machines (Smolensky, 1986), by contrastive divergence (Hinton, 2002).

https://doi.org/10.1162/089976602760128018. Visible units v and hidden units h are 0 or 1, each pair
of one v and one h has a weight, and the probability of a state falls with its energy:

    E(v, h) = -a . v - c . h - v W h            p(v, h) = exp(-E(v, h)) / Z

As no two units of a layer are tied, each layer is independent once the other is known:

    p(h_j = 1 | v) = sigmoid(c + v W)_j         p(v_i = 1 | h) = sigmoid(a + W h)_i

and the hidden units can be summed out, which leaves the free energy F, with p(v) = exp(-F(v)) / Z:

    F(v) = -a . v - sum_j log(1 + exp(c + v W)_j)

What has to fall is the mean of -log p(v) over the data. Its gradient is dF/dw at the data minus the
mean of dF/dw over what the machine dreams, that is v drawn from p(v). For the weights, -dF/dW is
v^T p(h | v): what fires together in the data is strengthened, what does in dreams is weakened.
True dreams take endless sampling; CD-k starts at the data and takes k steps.

A stack of them, each trained on the hidden probabilities of the one below, was how deep networks
were first begun (Hinton, Osindero & Teh, 2006, https://doi.org/10.1162/neco.2006.18.7.1527).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from tfcourse.basics._checks import check_columns
from tfcourse.basics.activations import sigmoid
from tfcourse.basics.initializers import normal, xavier
from tfcourse.basics.mlp import MLP
from tfcourse.basics.optimizers import Momentum, minibatches


class RBM:
    """A restricted Boltzmann machine.

    Attributes:
        weights: `[W, a, c]` of shapes `(visible, hidden)`, `(visible,)` and `(hidden,)`. 784 units
            and 500 have 784 * 500 + 784 + 500 = 393,284 numbers. Optimizers change them in place.
        rng: What samples are drawn from.
    """

    def __init__(self, visible: int, hidden: int, seed: int = 0):
        """Draw W from N(0, 0.01); biases begin at zero.

        Raises:
            ValueError: If `visible` or `hidden` is below 1.
        """
        if visible < 1 or hidden < 1:
            raise ValueError(f"visible and hidden must be 1 or more, got {visible} and {hidden}")
        self.rng = np.random.default_rng(seed)
        self.weights = [normal(self.rng, visible, hidden), np.zeros(visible), np.zeros(hidden)]

    def probabilities_hidden(self, visible: np.ndarray) -> np.ndarray:
        """Return p(h = 1 | v), `(rows, visible) -> (rows, hidden)`."""
        matrix, _, bias = self.weights
        return sigmoid(check_columns(visible, len(matrix)) @ matrix + bias)

    def probabilities_visible(self, hidden: np.ndarray) -> np.ndarray:
        """Return p(v = 1 | h), `(rows, hidden) -> (rows, visible)`."""
        matrix, bias, _ = self.weights
        return sigmoid(check_columns(hidden, matrix.shape[1]) @ matrix.T + bias)

    def sample(self, visible: np.ndarray, steps: int = 1) -> np.ndarray:
        """Dream on (Gibbs sampling): draw h given v, then v given h, and so on.

        Args:
            visible: Where to start, `(rows, visible)`.
            steps: How often both layers are drawn. After very many the start is forgotten.

        Returns:
            The last visible units, 0 or 1, `(rows, visible)`.

        Raises:
            ValueError: If `steps` is below 1.
        """
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        for _ in range(steps):
            hidden = self._draw(self.probabilities_hidden(visible))
            visible = self._draw(self.probabilities_visible(hidden))
        return visible

    def free_energy(self, visible: np.ndarray) -> np.ndarray:
        """Return F(v), `(rows, visible) -> (rows,)`: -log p(v), but for log Z."""
        matrix, visible_bias, hidden_bias = self.weights
        visible = check_columns(visible, len(matrix))
        hidden = np.logaddexp(0, visible @ matrix + hidden_bias)
        return -visible @ visible_bias - hidden.sum(axis=1)

    def gradients(self, visible: np.ndarray, steps: int = 1) -> list[np.ndarray]:
        """Return what CD-k takes for the gradient of the mean -log p(v), in the order of `weights`.

        Args:
            visible: Data, from 0 to 1, `(rows, visible)`.
            steps: k. One does: what is left out matters less than the noise that many steps bring.
        """
        visible = np.asarray(visible, float)
        data = self._slopes(visible)
        dreams = self._slopes(self.sample(visible, steps))
        return [at_data - in_dreams for at_data, in_dreams in zip(data, dreams, strict=True)]

    def _slopes(self, visible: np.ndarray) -> list[np.ndarray]:
        """Return the mean of dF/dw over rows, in the order of `weights`."""
        hidden = self.probabilities_hidden(visible)
        return [-visible.T @ hidden / len(visible), -visible.mean(axis=0), -hidden.mean(axis=0)]

    def _draw(self, probabilities: np.ndarray) -> np.ndarray:
        return (self.rng.random(probabilities.shape) < probabilities).astype(float)


def train_rbm(
    machine: RBM,
    x: np.ndarray,
    optimizer,
    epochs: int,
    *,
    batch_size: int = 32,
    steps: int = 1,
    on_epoch: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train a machine by contrastive divergence.

    -log p(v) itself can't be had, since Z sums over every state. Instead it is looked at how far
    data comes back from one step to the hidden units and back; that falls while the machine learns,
    but need not fall at the end.

    Args:
        machine: Its weights are changed.
        x: Data from 0 to 1, `(rows, visible)`; grey is a probability of being on.
        optimizer: With a method `update(weights, gradients)`.
        epochs: How often every row is seen.
        batch_size: Rows in a step.
        steps: k of CD-k.
        on_epoch: Called with the epoch, from 1, and its error.

    Returns:
        For each epoch, the mean squared difference between data and what comes back.

    Raises:
        ValueError: If `epochs` is below 1, or `x` is not from 0 to 1.
    """
    x = check_columns(x, len(machine.weights[0]))
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    low, high = (x.min(), x.max()) if len(x) else (np.nan, np.nan)
    if not (low >= 0 and high <= 1):
        raise ValueError(f"x must be rows of numbers from 0 to 1, got {low} to {high}")
    errors = []
    for epoch in range(1, epochs + 1):
        for rows in minibatches(machine.rng, len(x), batch_size):
            optimizer.update(machine.weights, machine.gradients(x[rows], steps))
        back = machine.probabilities_visible(machine.probabilities_hidden(x))
        errors.append(float(np.mean(np.square(x - back))))
        if on_epoch:
            on_epoch(epoch, errors[-1])
    return errors


def pretrain(
    units: Sequence[int],
    x: np.ndarray,
    *,
    epochs: int = 10,
    batch_size: int = 32,
    rate: float = 0.05,
    seed: int = 0,
) -> list[RBM]:
    """Train a stack of machines, from the bottom up: each learns what the one below makes of `x`.

    No label is used, and no layer waits for a gradient from above.

    Args:
        units: Inputs, and the units of each hidden layer.
        x: Data from 0 to 1, `(rows, units[0])`.
        epochs: For each machine.
        batch_size: Rows in a step.
        rate: Of the steps, which have a momentum of 0.5.
        seed: Of weights and samples.

    Returns:
        The machines, the lowest first.

    Raises:
        ValueError: If there are no two sizes, or `x` does not fit the first.
    """
    if len(units) < 2:
        raise ValueError(f"units must be at least two numbers from 1 up, got {units}")
    machines = []
    for number, hidden in enumerate(units[1:]):
        machine = RBM(units[number], hidden, seed + number)
        train_rbm(machine, x, Momentum(rate, 0.5), epochs, batch_size=batch_size)
        machines.append(machine)
        x = machine.probabilities_hidden(x)
    return machines


def classifier_weights(
    machines: Sequence[RBM], num_classes: int, seed: int = 0
) -> list[np.ndarray]:
    """Return the weights of a network that begins where a stack of machines ended.

    A layer's W and c become those of a dense layer with a sigmoid; a, the way down, is left out.
    The last layer, which gives the logits, is new.

    Args:
        machines: A stack, the lowest first.
        num_classes: Outputs of the new layer.
        seed: Of the new layer, Xavier's.

    Returns:
        `[W_1, b_1, ..., W_L, b_L]`, copies: what `set_weights` of a Keras stack of `Dense` layers
        takes, and what an `MLP` with sigmoids has.

    Raises:
        ValueError: If there is no machine, or one does not fit on the one below.
    """
    if not machines:
        raise ValueError("machines must be at least one, got none")
    sizes = [machine.weights[0].shape for machine in machines]
    if any(below[1] != above[0] for below, above in pairwise(sizes)):
        raise ValueError(f"each machine must fit on the one below, got {sizes}")
    weights = []
    for machine in machines:
        matrix, _, bias = machine.weights
        weights += [matrix.copy(), bias.copy()]
    last = xavier(np.random.default_rng(seed), sizes[-1][1], num_classes)
    return [*weights, last, np.zeros(num_classes)]


def to_mlp(machines: Sequence[RBM], num_classes: int, seed: int = 0) -> MLP:
    """Return a network with sigmoids that begins with `classifier_weights`."""
    weights = classifier_weights(machines, num_classes, seed)
    model = MLP([*(len(w) for w in weights[::2]), num_classes], "sigmoid", "zeros")
    model.weights = weights
    return model
