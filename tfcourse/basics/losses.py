"""Losses, each beside its gradient with respect to the outputs: where backpropagation begins.

Every loss is a mean, over the rows (examples) and, but for `cross_entropy`, over the numbers in a
row too, as in Keras. So the gradient of one example is divided by how many there are, and a larger
batch does not ask for a smaller learning rate. Every gradient has the shape of the outputs.
Goodfellow, Bengio & Courville (2016), chapter 6.2,
https://www.deeplearningbook.org/contents/mlp.html.
"""

import numpy as np

from tfcourse.basics.activations import sigmoid, softmax


def absolute_error(outputs: np.ndarray, targets: np.ndarray) -> float:
    """L = mean |y - t|: how far off, in the units of the target; one wild target matters little.

    Args:
        outputs: y, any shape.
        targets: t, the same shape.

    Raises:
        ValueError: If the shapes differ or are empty.
    """
    _check_shapes(outputs, targets)
    return float(np.mean(np.abs(outputs - targets)))


def absolute_error_gradient(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """dL/dy = sign(y - t) / n, for n numbers in `outputs`: near or far, the same push."""
    _check_shapes(outputs, targets)
    return np.sign(outputs - targets) / np.size(outputs)


def squared_error(outputs: np.ndarray, targets: np.ndarray) -> float:
    """L = mean (y - t)^2: minus the log-likelihood of targets with normal noise,
    but for a factor and a constant.

    Args:
        outputs: y, any shape.
        targets: t, the same shape.

    Raises:
        ValueError: If the shapes differ or are empty.
    """
    _check_shapes(outputs, targets)
    return float(np.mean(np.square(outputs - targets)))


def squared_error_gradient(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """dL/dy = 2 (y - t) / n, for n numbers in `outputs`: the further off, the harder the push."""
    _check_shapes(outputs, targets)
    return 2 * (outputs - targets) / np.size(outputs)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """L = mean over rows of -sum_i t_i log softmax(z)_i: minus the log-likelihood of the classes.

    Softmax is inside, since the logarithm of a softmax is safe where a softmax and then a logarithm
    would be log(0): log softmax(z)_i = z_i - max z - log sum_j exp(z_j - max z).

    Args:
        logits: z, `(rows, classes)`.
        labels: The classes as integers, `(rows,)`, or t, the probabilities of each class,
            `(rows, classes)`.

    Raises:
        ValueError: If the labels are no classes of these logits.
    """
    targets = _probabilities(logits, labels)
    shifted = logits - np.max(logits, axis=1, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-np.sum(targets * logarithms) / len(targets))


def cross_entropy_gradient(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """dL/dz = (softmax(z) - t) / rows: what is said minus what is true.

    It is -t / softmax(z), times the Jacobian of softmax; all but this difference cancels.
    """
    targets = _probabilities(logits, labels)
    return (softmax(logits) - targets) / len(targets)


def binary_cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    """L = mean -(t log s(z) + (1 - t) log(1 - s(z))), where s is the sigmoid.

    The sigmoid is inside: the same is max(z, 0) - z t + log(1 + exp(-|z|)), safe for every z.

    Args:
        logits: z, any shape.
        targets: t, the same shape, from 0 to 1.

    Raises:
        ValueError: If the shapes differ or are empty, or a target lies outside 0 to 1.
    """
    _check_fractions(logits, targets)
    return float(
        np.mean(np.maximum(logits, 0) - logits * targets + np.log1p(np.exp(-np.abs(logits))))
    )


def binary_cross_entropy_gradient(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """dL/dz = (s(z) - t) / n, for n numbers in `logits`; the sigmoid's flat ends cancel too."""
    _check_fractions(logits, targets)
    return (sigmoid(logits) - targets) / np.size(logits)


def _check_shapes(outputs: np.ndarray, targets: np.ndarray) -> None:
    # (rows, 1) minus (rows,) would be (rows, rows), without a word.
    if np.shape(outputs) != np.shape(targets):
        raise ValueError(
            f"targets must have the shape of the outputs, {np.shape(outputs)}, "
            f"got {np.shape(targets)}"
        )
    if not np.size(outputs):
        raise ValueError(f"outputs must not be empty, got shape {np.shape(outputs)}")


def _check_fractions(logits: np.ndarray, targets: np.ndarray) -> None:
    _check_shapes(logits, targets)
    low, high = np.min(targets), np.max(targets)
    if not (low >= 0 and high <= 1):
        raise ValueError(f"targets must lie from 0 to 1, got {low} to {high}")


def _probabilities(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the labels as `(rows, classes)`: integers become a 1 among zeros."""
    if np.ndim(logits) != 2 or not np.size(logits):
        raise ValueError(f"logits must have the shape (rows, classes), got {np.shape(logits)}")
    rows, classes = np.shape(logits)
    labels = np.asarray(labels)
    if labels.shape == (rows, classes):
        sums = labels.sum(axis=1)
        if not (labels.min() >= 0 and np.allclose(sums, 1)):
            raise ValueError(
                "labels of shape (rows, classes) must be probabilities that sum to 1 in each row"
            )
        return labels
    if labels.shape != (rows,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels must be integers of shape ({rows},) or probabilities of shape "
            f"({rows}, {classes}), got {labels.dtype} of shape {labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels must lie from 0 to {classes - 1}, got {labels.min()} to {labels.max()}"
        )
    return np.eye(classes)[labels]


LOSSES = {
    "absolute_error": (absolute_error, absolute_error_gradient),
    "squared_error": (squared_error, squared_error_gradient),
    "cross_entropy": (cross_entropy, cross_entropy_gradient),
    "binary_cross_entropy": (binary_cross_entropy, binary_cross_entropy_gradient),
}
