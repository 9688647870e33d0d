"""Regularizers: what keeps a network from learning its examples by heart.

Goodfellow, Bengio & Courville (2016), chapter 7,
https://www.deeplearningbook.org/contents/regularization.html.
"""

import numpy as np


def l1(weights: np.ndarray, rate: float) -> float:
    """P = rate sum |w|, added to the loss: pushes each weight the same way until it is 0.

    Args:
        weights: An array of any shape; usually weights, not biases.
        rate: How much it counts, 0 or more.

    Raises:
        ValueError: If the rate is below 0.
    """
    _check_size("rate", rate)
    return float(rate * np.sum(np.abs(weights)))


def l1_gradient(weights: np.ndarray, rate: float) -> np.ndarray:
    """dP/dw = rate sign(w), to be added to the gradient of the loss; 0 at w = 0."""
    _check_size("rate", rate)
    return rate * np.sign(weights)


def l2(weights: np.ndarray, rate: float) -> float:
    """P = rate sum w^2, added to the loss: large weights cost more than many small ones.

    Args:
        weights: An array of any shape; usually weights, not biases.
        rate: How much it counts, 0 or more.

    Raises:
        ValueError: If the rate is below 0.
    """
    _check_size("rate", rate)
    return float(rate * np.sum(np.square(weights)))


def l2_gradient(weights: np.ndarray, rate: float) -> np.ndarray:
    """dP/dw = 2 rate w, to be added to the gradient of the loss.

    Under plain gradient descent with the learning rate r, this shrinks the weights by the factor
    1 - 2 r rate before each step; under Adam and its like, whose steps are rescaled, it does not
    (Loshchilov & Hutter, 2019, https://arxiv.org/abs/1711.05101).
    """
    _check_size("rate", rate)
    return 2 * rate * np.asarray(weights)


def dropout(rng: np.random.Generator, x: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Switch numbers off at random: y = m x, where m is 0 with probability `rate`.

    Otherwise m = 1 / (1 - rate), so that the mean of y is x and prediction needs no correction. No
    neuron can lean on another one being there. The gradient of x is m times that of y. Srivastava
    et al. (2014), https://jmlr.org/papers/v15/srivastava14a.html; for training only.

    Args:
        rng: What is drawn from.
        x: Activations of any shape.
        rate: From 0 to below 1.

    Returns:
        y and m, both of the shape of `x`.

    Raises:
        ValueError: If the rate is not from 0 to below 1.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate must be from 0 to below 1, got {rate}")
    mask = (rng.random(np.shape(x)) >= rate) / (1 - rate)
    return x * mask, mask


def label_smoothing(targets: np.ndarray, rate: float) -> np.ndarray:
    """t <- (1 - rate) t + rate / classes: the right class is never quite certain.

    A softmax reaches 1 and 0 only with endless logits; smoothed targets it can reach. Szegedy et
    al. (2016), https://arxiv.org/abs/1512.00567, section 7.

    Args:
        targets: Probabilities of the classes, `(rows, classes)`.
        rate: From 0 to 1.

    Returns:
        Probabilities of the same shape.

    Raises:
        ValueError: If the targets are not `(rows, classes)`, or the rate is not from 0 to 1.
    """
    if np.ndim(targets) != 2:
        raise ValueError(f"targets must have the shape (rows, classes), got {np.shape(targets)}")
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be from 0 to 1, got {rate}")
    return (1 - rate) * np.asarray(targets) + rate / np.shape(targets)[1]


def noise(rng: np.random.Generator, x: np.ndarray, stddev: float) -> np.ndarray:
    """y = x + e, e from N(0, stddev): on the input, on a hidden layer, or on the weights.

    On the input it acts as more data, and for small noise as a penalty on steep functions (Bishop,
    1995, https://doi.org/10.1162/neco.1995.7.1.108); on the weights it favours flat minima, where
    a small change costs little. For training only.

    Args:
        rng: What is drawn from.
        x: An array of any shape.
        stddev: The standard deviation, 0 or more.

    Raises:
        ValueError: If `stddev` is below 0.
    """
    _check_size("stddev", stddev)
    return x + rng.normal(0.0, stddev, np.shape(x))


def _check_size(name: str, value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{name} must be 0 or more, got {value}")


REGULARIZERS = {"l1": (l1, l1_gradient), "l2": (l2, l2_gradient)}
