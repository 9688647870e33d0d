"""Activations, each beside its derivative: what makes a stack of layers more than one linear map.

Each function works number by number on an array of any shape and returns one of the same shape;
only softmax ties the numbers of a row together. A derivative takes the same `x` as its function:
the weighted sum that goes in, not the activation that comes out. Goodfellow, Bengio & Courville
(2016), chapters 6.2 and 6.3, https://www.deeplearningbook.org/contents/mlp.html.
"""

import math

import numpy as np

# NumPy has no error function; the one of the standard library takes a single number.
_erf = np.vectorize(math.erf, otypes=[float])


def identity(x: np.ndarray) -> np.ndarray:
    """f(x) = x: no activation. However many such layers are stacked, they are one linear map."""
    return np.asarray(x)


def identity_derivative(x: np.ndarray) -> np.ndarray:
    """f'(x) = 1."""
    return np.ones_like(x, dtype=float)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """f(x) = 1 / (1 + exp(-x)), between 0 and 1: a probability.

    It is 0.5 at x = 0 and tends to 0 on the left and to 1 on the right. Only exp(-|x|) is taken,
    which cannot overflow; for x < 0 it stands for the equal exp(x) / (1 + exp(x)).
    """
    small = np.exp(-np.abs(x))
    return np.where(np.greater_equal(x, 0), 1.0, small) / (1 + small)


def sigmoid_derivative(x: np.ndarray) -> np.ndarray:
    """f'(x) = f(x) (1 - f(x)): 1/4 at x = 0, its largest.

    Each layer thus divides a gradient by four or more before the weights have their say, which is
    why deep stacks of sigmoids learn slowly: the gradient vanishes.
    """
    y = sigmoid(x)
    return y * (1 - y)


def tanh(x: np.ndarray) -> np.ndarray:
    """f(x) = (exp(x) - exp(-x)) / (exp(x) + exp(-x)) = 2 sigmoid(2 x) - 1, between -1 and 1."""
    return np.tanh(x)


def tanh_derivative(x: np.ndarray) -> np.ndarray:
    """f'(x) = 1 - f(x)^2: 1 at x = 0, so that small signals pass as they are."""
    return 1 - np.tanh(x) ** 2


def relu(x: np.ndarray) -> np.ndarray:
    """f(x) = max(x, 0), the usual activation of hidden layers.

    A neuron that is on passes the gradient whole through any depth. One that is off for every
    example no longer learns, yet in practice few are (Glorot, Bordes & Bengio, 2011,
    https://proceedings.mlr.press/v15/glorot11a.html).
    """
    return np.maximum(x, 0.0)


def relu_derivative(x: np.ndarray) -> np.ndarray:
    """f'(x) = 1 where x > 0, else 0. At the corner, x = 0, there is none; 0 is TensorFlow's."""
    return np.greater(x, 0).astype(float)


def leaky_relu(x: np.ndarray, slope: float = 0.01) -> np.ndarray:
    """f(x) = x where x > 0, else slope x: no neuron is ever quite off.

    Maas, Hannun & Ng (2013), https://ai.stanford.edu/~amaas/papers/relu_hybrid_icml2013_final.pdf.
    The slope is theirs; that of `keras.activations.leaky_relu` is 0.2.
    """
    return np.where(np.greater(x, 0), x, np.multiply(slope, x))


def leaky_relu_derivative(x: np.ndarray, slope: float = 0.01) -> np.ndarray:
    """f'(x) = 1 where x > 0, else slope."""
    return np.where(np.greater(x, 0), 1.0, slope)


def gelu(x: np.ndarray) -> np.ndarray:
    """f(x) = x P(x), where P(x) = (1 + erf(x / sqrt(2))) / 2 is how much of N(0, 1) lies below x.

    A ReLU with a soft corner (Hendrycks & Gimpel, 2016, https://arxiv.org/abs/1606.08415).
    """
    return np.multiply(x, _normal_below(x))


def gelu_derivative(x: np.ndarray) -> np.ndarray:
    """f'(x) = P(x) + x p(x), where p(x) = exp(-x^2 / 2) / sqrt(2 pi) is the density of N(0, 1)."""
    density = np.exp(-np.square(x) / 2) / math.sqrt(2 * math.pi)
    return _normal_below(x) + x * density


def softmax(x: np.ndarray) -> np.ndarray:
    """f(x)_i = exp(x_i) / sum_j exp(x_j): each row becomes probabilities that sum to 1.

    Taking the largest number off a row changes nothing, since it cancels, and keeps exp from
    overflowing.

    Args:
        x: Logits, `(..., classes)`.
    """
    powers = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def softmax_jacobian(x: np.ndarray) -> np.ndarray:
    """df_i / dx_j = f_i ([i = j] - f_j): every output depends on every input of its row.

    Args:
        x: Logits, `(..., classes)`.

    Returns:
        `(..., classes, classes)`: outputs i, then inputs j.
    """
    y = softmax(x)
    return y[..., :, None] * (np.eye(y.shape[-1]) - y[..., None, :])


def _normal_below(x: np.ndarray) -> np.ndarray:
    return (1 + _erf(np.divide(x, math.sqrt(2)))) / 2


ACTIVATIONS = {
    "identity": (identity, identity_derivative),
    "sigmoid": (sigmoid, sigmoid_derivative),
    "tanh": (tanh, tanh_derivative),
    "relu": (relu, relu_derivative),
    "leaky_relu": (leaky_relu, leaky_relu_derivative),
    "gelu": (gelu, gelu_derivative),
}
