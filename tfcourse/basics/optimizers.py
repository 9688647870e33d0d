"""Optimizers: what to do with a gradient.

Written for a weight w, its gradient g and a learning rate r; everything happens number by number.
Starts, defaults and epsilons are those of Keras, so that the steps are too. Goodfellow, Bengio &
Courville (2016), chapter 8, https://www.deeplearningbook.org/contents/optimization.html.
"""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np


class GradientDescent:
    """w <- w - r g: a step downhill. On minibatches it is stochastic gradient descent (SGD)."""

    # How many numbers are remembered of each weight, and what they start from.
    _memories, _start = 0, 0.0

    def __init__(self, rate: float = 0.01):
        """Set the learning rate `rate`, above 0; ValueError otherwise."""
        self.rate = _positive("rate", rate)
        self._steps = 0
        self._states = None

    def update(self, weights: list[np.ndarray], gradients: list[np.ndarray]) -> None:
        """Make one step: change the weights in place.

        Args:
            weights: Arrays of floats, the same ones each time.
            gradients: The gradient of each, of its shape.

        Raises:
            ValueError: If weights and gradients do not belong together.
        """
        _check_shapes(weights, gradients)
        if self._states is None:
            self._states = [np.full((self._memories, *w.shape), self._start) for w in weights]
        if [s.shape[1:] for s in self._states] != [w.shape for w in weights]:
            raise ValueError("an optimizer belongs to the weights of its first update")
        self._steps += 1
        for weight, gradient, state in zip(weights, gradients, self._states, strict=True):
            weight[...] -= self._step(gradient, state)

    def _step(self, gradient: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Return what to take off the weight; change what is remembered of it in place."""
        return self.rate * gradient


class Momentum(GradientDescent):
    """v <- m v - r g; w <- w + v: a ball that rolls on, through noise and along ravines.

    Polyak (1964), https://doi.org/10.1016/0041-5553(64)90137-5. With `nesterov` the gradient
    counts as that of the place where v is about to lead: w <- w + m v - r g, with the new v
    (Sutskever et al., 2013, https://proceedings.mlr.press/v28/sutskever13.html).
    """

    _memories = 1

    def __init__(self, rate: float = 0.01, momentum: float = 0.9, nesterov: bool = False):
        """Set the learning rate and `momentum` (m), from 0 to below 1; ValueError otherwise."""
        super().__init__(rate)
        _check_decays(momentum=momentum)
        self.momentum = momentum
        self.nesterov = nesterov

    def _step(self, gradient: np.ndarray, state: np.ndarray) -> np.ndarray:
        velocity = state[0]
        velocity *= self.momentum
        velocity -= self.rate * gradient
        if self.nesterov:
            return self.rate * gradient - self.momentum * velocity
        return -velocity


class Adagrad(GradientDescent):
    """a <- a + g^2; w <- w - r g / sqrt(a + epsilon): small steps where gradients were large.

    Duchi, Hazan & Singer (2011), https://jmlr.org/papers/v12/duchi11a.html. The sum starts at 0.1.
    It only grows, so the steps only shrink.
    """

    _memories, _start = 1, 0.1

    def __init__(self, rate: float = 0.001, epsilon: float = 1e-7):
        """Set the learning rate, and `epsilon` against a division by 0; both above 0."""
        super().__init__(rate)
        self.epsilon = _positive("epsilon", epsilon)

    def _step(self, gradient: np.ndarray, state: np.ndarray) -> np.ndarray:
        squares = state[0]
        squares += np.square(gradient)
        return self.rate * gradient / np.sqrt(squares + self.epsilon)


class RMSProp(GradientDescent):
    """a <- d a + (1 - d) g^2; w <- w - r g / sqrt(a + epsilon): Adagrad that forgets.

    Tieleman & Hinton (2012), https://www.cs.toronto.edu/~hinton/coursera/lecture6/lec6.pdf.
    """

    _memories = 1

    def __init__(self, rate: float = 0.001, decay: float = 0.9, epsilon: float = 1e-7):
        """Set the learning rate, `decay` (d) from 0 to below 1, and `epsilon`; else ValueError."""
        super().__init__(rate)
        _check_decays(decay=decay)
        self.decay = decay
        self.epsilon = _positive("epsilon", epsilon)

    def _step(self, gradient: np.ndarray, state: np.ndarray) -> np.ndarray:
        squares = state[0]
        squares += (1 - self.decay) * (np.square(gradient) - squares)
        return self.rate * gradient / np.sqrt(squares + self.epsilon)


class Adam(GradientDescent):
    """Momentum and RMSProp in one, both corrected for their start at 0.

    m <- b1 m + (1 - b1) g; a <- b2 a + (1 - b2) g^2; in step t

        w <- w - r sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(a) + epsilon).

    Without the correction the means would be too small at first, as they begin with zeros.
    Kingma & Ba (2015), https://arxiv.org/abs/1412.6980, in the form before their section 2.1.
    """

    _memories = 2

    def __init__(
        self,
        rate: float = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
    ):
        """Set the learning rate, b1 and b2 from 0 to below 1, and `epsilon`; else ValueError."""
        super().__init__(rate)
        _check_decays(beta_1=beta_1, beta_2=beta_2)
        self.beta_1, self.beta_2 = beta_1, beta_2
        self.epsilon = _positive("epsilon", epsilon)

    def _step(self, gradient: np.ndarray, state: np.ndarray) -> np.ndarray:
        mean, squares = state
        mean += (1 - self.beta_1) * (gradient - mean)
        squares += (1 - self.beta_2) * (np.square(gradient) - squares)
        correction = math.sqrt(1 - self.beta_2**self._steps) / (1 - self.beta_1**self._steps)
        return self.rate * correction * mean / (np.sqrt(squares) + self.epsilon)


def clip(gradients: list[np.ndarray], norm: float) -> list[np.ndarray]:
    """g <- g min(1, norm / |g|), where |g| is the length of all gradients as one vector.

    One factor for all, so the direction stays; a step off a cliff becomes a short one.
    Pascanu, Mikolov & Bengio (2013), https://arxiv.org/abs/1211.5063.

    Args:
        gradients: Arrays of any shapes.
        norm: The greatest length, above 0.

    Returns:
        New arrays of the same shapes.

    Raises:
        ValueError: If `norm` is not a number above 0, or the length of the gradients is not finite.
    """
    _positive("norm", norm)
    length = np.linalg.norm([np.linalg.norm(gradient) for gradient in gradients])
    if not np.isfinite(length):
        raise ValueError(f"gradients must have a finite length, got {length}")
    # Not norm / length: the length may be 0.
    scale = norm / max(length, norm)
    return [gradient * scale for gradient in gradients]


def minibatches(rng: np.random.Generator, rows: int, batch_size: int) -> Iterator[np.ndarray]:
    """Shuffle the examples of one epoch and deal them out.

    The mean gradient of a few examples drawn at random is that of all, with noise: in the time of
    one exact step there are many good ones.

    Args:
        rng: What the order is drawn from; each call draws a new one.
        rows: How many examples there are.
        batch_size: How many go into a batch; the last one has what is left.

    Returns:
        An iterator of arrays of row numbers, `(batch_size,)`; each number comes once.

    Raises:
        ValueError: If `rows` or `batch_size` is below 1.
    """
    if rows < 1 or batch_size < 1:
        raise ValueError(f"rows and batch_size must be 1 or more, got {rows} and {batch_size}")
    order = rng.permutation(rows)
    return (order[start : start + batch_size] for start in range(0, rows, batch_size))


def _positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number above 0, got {value}")
    return value


def _check_decays(**decays: float) -> None:
    for name, decay in decays.items():
        if not 0 <= decay < 1:
            raise ValueError(f"{name} must be from 0 to below 1, got {decay}")


def _check_shapes(weights: list[np.ndarray], gradients: list[np.ndarray]) -> None:
    ours, theirs = [np.shape(w) for w in weights], [np.shape(g) for g in gradients]
    if ours != theirs:
        raise ValueError(f"gradients must have the shapes of the weights, {ours}, got {theirs}")
    if not all(isinstance(w, np.ndarray) and np.issubdtype(w.dtype, np.floating) for w in weights):
        raise ValueError("weights must be NumPy arrays of floats, since they change in place")


OPTIMIZERS = {
    "gradient_descent": GradientDescent,
    "momentum": Momentum,
    "nesterov": partial(Momentum, nesterov=True),
    "adagrad": Adagrad,
    "rmsprop": RMSProp,
    "adam": Adam,
}
