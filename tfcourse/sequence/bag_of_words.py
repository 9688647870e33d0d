"""Texts as bags of words, in any order: what a network that reads has to beat.

Naive Bayes (Maron, 1961), https://doi.org/10.1145/321075.321084, with n_wc how often word w of V
comes in texts of class c, and the mean of words' vectors with least squares, as a check of what
vectors alone are worth:

    score_c = log P(c) + sum_i log((n_(w_i)c + 1) / (sum_w n_wc + V))
    score = mean_i v_(w_i) W + b
"""

import numpy as np


def fit_naive_bayes(
    ids: np.ndarray, labels: np.ndarray, vocabulary_size: int, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Count words by class; no gradient is needed.

    Args:
        ids: Texts of the training part, `(rows, length)` with 0 for padding.
        labels: Their classes, `(rows,)`.
        vocabulary_size: Number of tokens, with the padding.
        num_classes: Number of classes.

    Returns:
        What each token adds to the score of each class, `(vocabulary_size, num_classes)`, nothing
        for padding; and what each class begins with, `(num_classes,)`.
    """
    counts = np.ones((vocabulary_size, num_classes))
    np.add.at(counts, (ids, labels[:, None]), 1)
    counts = counts[1:]
    weights = np.vstack([np.zeros(num_classes), np.log(counts / counts.sum(axis=0))])
    texts = np.bincount(labels, minlength=num_classes)
    return weights, np.log(np.maximum(texts, 1e-9) / texts.sum())


def fit_mean_vectors(
    ids: np.ndarray, labels: np.ndarray, vectors: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a line for each class to the mean of words' vectors, by least squares.

    Args:
        ids: Texts of the training part, `(rows, length)` with 0 for padding.
        labels: Their classes, `(rows,)`.
        vectors: Of each token, `(vocabulary_size, dim)`.
        num_classes: Number of classes.

    Returns:
        W, `(dim, num_classes)`, and b, `(num_classes,)`.
    """
    means = np.pad(mean_vectors(ids, vectors), ((0, 0), (0, 1)), constant_values=1.0)
    wanted = np.eye(num_classes)[labels]
    found = np.linalg.lstsq(means, wanted, rcond=None)[0]
    return found[:-1], found[-1]


def mean_vectors(ids: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return the mean of the vectors of each text's tokens, `(rows, dim)`; 0 for an empty text."""
    vectors = np.vstack([np.zeros((1, vectors.shape[1])), vectors[1:]])
    lengths = np.maximum((ids > 0).sum(axis=1, keepdims=True), 1)
    return np.stack([vectors[row].sum(axis=0) for row in ids]) / lengths


def accuracies(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    num_classes: int,
    vectors: np.ndarray | None = None,
) -> dict[str, float]:
    """Return the share of test texts of which each of these, fitted to training, is right.

    Args:
        train: Ids `(rows, length)` with 0 for padding, and classes `(rows,)`.
        test: The same.
        num_classes: Number of classes.
        vectors: Of each token, `(vocabulary_size, dim)`; without them there is no mean of them.

    Returns:
        By name: the most frequent class, naive Bayes, and the mean of vectors.
    """
    (ids, labels), (asked, truth) = train, test
    most = np.bincount(labels, minlength=num_classes)
    size = 1 + max(ids.max(), asked.max())
    weights, bias = fit_naive_bayes(ids, labels, size, num_classes)
    scores = {
        "the most frequent class": np.tile(most, (len(truth), 1)),
        "naive Bayes": weights[asked].sum(axis=1) + bias,
    }
    if vectors is not None:
        weights, bias = fit_mean_vectors(ids, labels, vectors, num_classes)
        scores["mean of vectors"] = mean_vectors(asked, vectors) @ weights + bias
    return {name: float((s.argmax(axis=1) == truth).mean()) for name, s in scores.items()}
