"""Surfaces in two dimensions on which optimizers have trouble, each beside its gradient.

A surface takes a point `(..., 2)` and returns heights `(...)`, a gradient takes one point `(2,)`
and returns `(2,)`: the two weights of a network small enough to be drawn. Goodfellow, Bengio &
Courville (2016), chapter 8.2, https://www.deeplearningbook.org/contents/optimization.html.
"""

import numpy as np

from tfcourse.basics.activations import sigmoid

STEEPNESS = 50.0  # of the ravine's walls, over that of its floor
TURN = np.array([[1.0, -1.0], [1.0, 1.0]]) / np.sqrt(2)
STEPS = 50  # of the recurrent neuron behind the cliff
TARGET = 0.7  # what it is to say after them


def ravine(point: np.ndarray) -> np.ndarray:
    """f(x, y) = (x^2 + 50 y^2) / 2: steep walls, and a floor that hardly falls.

    A rate above 2/50 climbs the walls; below it each step leaves at least 1 - 2/50 of x. The
    ratio 50, the condition number, says how much worse than a bowl that is.
    """
    x, y = point[..., 0], point[..., 1]
    return (x**2 + STEEPNESS * y**2) / 2


def ravine_gradient(point: np.ndarray) -> np.ndarray:
    """df = (x, 50 y)."""
    return point * np.array([1.0, STEEPNESS])


def turned_ravine(point: np.ndarray) -> np.ndarray:
    """The ravine, turned by 45 degrees: f((x + y) / sqrt(2), (y - x) / sqrt(2)).

    Optimizers that scale each weight by itself straighten a ravine along the axes, and not this
    one.
    """
    return ravine(point @ TURN)


def turned_ravine_gradient(point: np.ndarray) -> np.ndarray:
    """The gradient of the ravine at the turned point, turned back."""
    return ravine_gradient(point @ TURN) @ TURN.T


def saddle(point: np.ndarray) -> np.ndarray:
    """f(x, y) = x^2 / 2 - y^2 / 2 + y^4 / 4: down to the saddle (0, 0), and there sidewards.

    The gradient is 0 at the saddle, but its only minima are (0, 1) and (0, -1), of height -1/4.
    """
    x, y = point[..., 0], point[..., 1]
    return x**2 / 2 - y**2 / 2 + y**4 / 4


def saddle_gradient(point: np.ndarray) -> np.ndarray:
    """df = (x, y^3 - y)."""
    x, y = point
    return np.array([x, y**3 - y])


def cliff(point: np.ndarray) -> np.ndarray:
    """f(w, b) = (s(h_50) - 0.7)^2, where h_(t+1) = w s(h_t) + b, h_0 = 0 and s is the sigmoid.

    The error of a recurrent neuron that is to say 0.7 after 50 steps. Where its memory tips from
    one state into the other stands a wall, and the gradient on it is huge: 50 factors w s'(h_t)
    are multiplied. Pascanu, Mikolov & Bengio (2013), section 2.3, https://arxiv.org/abs/1211.5063.
    """
    h = np.zeros(point.shape[:-1])
    for _ in range(STEPS):
        h = point[..., 0] * sigmoid(h) + point[..., 1]
    return (sigmoid(h) - TARGET) ** 2


def cliff_gradient(point: np.ndarray) -> np.ndarray:
    """df/dw = 2 (s(h_50) - 0.7) s'(h_50) dh_50/dw, and so for b; the chain rule step by step.

    dh_(t+1)/dw = s(h_t) + w s'(h_t) dh_t/dw
    dh_(t+1)/db = 1      + w s'(h_t) dh_t/db
    """
    weight, bias = point
    h, slope = 0.0, np.zeros(2)
    for _ in range(STEPS):
        s = float(sigmoid(h))
        slope = np.array([s, 1.0]) + weight * s * (1 - s) * slope
        h = weight * s + bias
    s = float(sigmoid(h))
    return 2 * (s - TARGET) * s * (1 - s) * slope


SURFACES = {
    "ravine": (ravine, ravine_gradient),
    "turned ravine": (turned_ravine, turned_ravine_gradient),
    "saddle": (saddle, saddle_gradient),
    "cliff": (cliff, cliff_gradient),
}
