"""How good predictions are: of clicks, of ratings, and (`ranking`) of lists.

    AUC         = P(score of a 1 > score of a 0) + P(equal) / 2     over pairs of a 1 and a 0
    GAUC        = sum_u n_u AUC_u / sum_u n_u                       over users u with both labels
    log loss    = -mean(y log p + (1 - y) log(1 - p))
    calibration = mean p and mean y of the rows whose p lies in the same bin

GAUC: Zhu et al., 2017, https://arxiv.org/abs/1703.02091, and the paper of DIN (Zhou et al., 2018).
"""

from dataclasses import dataclass

import numpy as np

from tfcourse.recommendation.ranking import (
    coverage,
    list_metrics,
    popularity_bias,
    rank_metrics,
    sampled_rank_metrics,
    top_lists,
)

__all__ = [
    "Calibration",
    "auc",
    "calibration",
    "coverage",
    "grouped_auc",
    "list_metrics",
    "log_loss",
    "mae",
    "popularity_bias",
    "probabilities",
    "rank_metrics",
    "rmse",
    "sampled_rank_metrics",
    "top_lists",
]


@dataclass(frozen=True, eq=False)
class Calibration:
    """How often it happened, beside how probable it was said to be, for each bin that has rows.

    Attributes:
        predicted: Mean probability, `(bins,)`.
        observed: Share of labels 1, `(bins,)`.
        counts: Rows, `(bins,)`.
    """

    predicted: np.ndarray
    observed: np.ndarray
    counts: np.ndarray

    @property
    def error(self) -> float:
        """Mean distance of the two over the rows (the expected calibration error)."""
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.counts))

    @property
    def ratio(self) -> float:
        """Events predicted for each event that happened: above 1, too many."""
        happened = float(self.observed @ self.counts)
        return float(self.predicted @ self.counts) / happened if happened else np.inf


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Turn logits of any shape into probabilities: 1 / (1 + exp(-z))."""
    return 0.5 + 0.5 * np.tanh(0.5 * np.asarray(logits))


def auc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the area under the ROC curve; equal scores count one half.

    Args:
        labels: 0 or 1, `(rows,)` or `(rows, 1)`, as all arrays here.
        scores: Logits, probabilities, or anything that grows with them.
        weights: Of the rows, 1 each by default.

    Returns:
        0 to 1; 0.5 is chance.

    Raises:
        ValueError: If the labels are all equal, or an array has another length or a NaN.
    """
    labels, scores, weights = _checked(labels, scores, weights)
    if (labels == labels[0]).all():
        raise ValueError(
            f"labels must have both 0 and 1, got only {labels[0]} in {len(labels)} rows"
        )
    areas, pairs, _ = _areas(labels, scores, weights, np.zeros(len(labels), np.int64))
    if not pairs[0] > 0:
        raise ValueError("weights must be above 0 for some row of each label")
    return float(areas[0] / pairs[0])


def grouped_auc(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> float:
    """Return the mean AUC within each user's rows, weighted by how many rows the user has.

    Telling users who like much from users who like little earns nothing here. Users whose labels
    are all equal are left out.

    Args:
        labels: 0 or 1, `(rows,)`.
        scores: Logits or probabilities.
        groups: Whose row it is: ids of users, integers or texts.

    Returns:
        0 to 1; 0.5 is chance.

    Raises:
        ValueError: If no user has both labels, or an array has another length or a NaN.
    """
    labels, scores, weights = _checked(labels, scores, None)
    groups = np.ravel(groups)
    if len(groups) != len(labels):
        raise ValueError(f"groups must be as many as the labels, {len(labels)}, got {len(groups)}")
    _, codes = np.unique(groups, return_inverse=True)
    areas, pairs, sizes = _areas(labels, scores, weights, codes)
    mixed = pairs > 0
    if not mixed.any():
        raise ValueError(f"some group must have both labels, got none among {len(sizes)}")
    return float(np.average(areas[mixed] / pairs[mixed], weights=sizes[mixed]))


def log_loss(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Return the mean of -log of the probability that was given to what happened.

    Args:
        labels: 0 or 1, `(rows,)`.
        probabilities: Of a 1; 0 and 1 count as the next numbers inside, `(rows,)`.
        weights: Of the rows, 1 each by default.

    Raises:
        ValueError: If a probability is not from 0 to 1 (a logit?), or an array has another length.
    """
    labels, p, weights = _checked_probabilities(labels, probabilities, weights)
    tiny = np.finfo(p.dtype).eps
    p = np.clip(p, tiny, 1 - tiny).astype(np.float64)
    return float(np.average(-np.log(np.where(labels == 1, p, 1 - p)), weights=weights))


def calibration(labels: np.ndarray, probabilities: np.ndarray, bins: int = 10) -> Calibration:
    """Hold probabilities against how often it happened.

    Args:
        labels: 0 or 1, `(rows,)`.
        probabilities: Of a 1, `(rows,)`.
        bins: How many, of equal width; those without rows are left out.

    Raises:
        ValueError: If a probability is not from 0 to 1, or there is no bin.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    labels, p, _ = _checked_probabilities(labels, probabilities, None)
    place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], p)
    counts = np.bincount(place, minlength=bins)
    full = counts > 0
    predicted = np.bincount(place, p, bins)[full] / counts[full]
    observed = np.bincount(place, labels, bins)[full] / counts[full]
    return Calibration(predicted, observed, counts[full])


def rmse(ratings: np.ndarray, predictions: np.ndarray) -> float:
    """Return the root of the mean squared error: `(rows,)`, `(rows,)` -> a number."""
    return float(np.sqrt(np.mean(np.square(_errors(ratings, predictions)))))


def mae(ratings: np.ndarray, predictions: np.ndarray) -> float:
    """Return the mean absolute error: `(rows,)`, `(rows,)` -> a number."""
    return float(np.mean(np.abs(_errors(ratings, predictions))))


def _areas(
    labels: np.ndarray, scores: np.ndarray, weights: np.ndarray, codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each group the pairs won, all pairs of a 1 and a 0, and the rows."""
    order = np.lexsort((scores, codes))
    labels, scores, weights, codes = (a[order] for a in (labels, scores, weights, codes))
    other = np.flatnonzero(codes[1:] != codes[:-1]) + 1
    tied = np.union1d(other, np.flatnonzero(scores[1:] != scores[:-1]) + 1)
    edges = np.concatenate([[0], tied, [len(codes)]])
    # Sums over runs of equal scores, then what lies below each run within its group.
    ones = np.add.reduceat(weights * labels, edges[:-1])
    zeros = np.add.reduceat(weights * (1 - labels), edges[:-1])
    group = codes[edges[:-1]]
    all_ones, all_zeros = np.bincount(group, ones), np.bincount(group, zeros)
    earlier = np.cumsum(all_zeros) - all_zeros
    below = np.cumsum(zeros) - zeros - earlier[group]
    won = np.bincount(group, ones * (below + zeros / 2))
    return won, all_ones * all_zeros, np.bincount(codes)


def _checked(
    labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels, scores = np.ravel(labels).astype(np.float64), np.ravel(scores)
    weights = np.ones(len(labels)) if weights is None else np.ravel(weights).astype(np.float64)
    if not len(labels):
        raise ValueError("labels must have at least one row, got none")
    for name, array in (("scores", scores), ("weights", weights)):
        if len(array) != len(labels):
            raise ValueError(
                f"{name} must be as many as the labels, {len(labels)}, got {len(array)}"
            )
        if np.isnan(array).any():
            raise ValueError(f"{name} must not be NaN, got one in row {np.isnan(array).argmax()}")
    if (wrong := ~np.isin(labels, (0, 1))).any():
        raise ValueError(
            f"labels must be 0 or 1, got {labels[wrong.argmax()]} in row {wrong.argmax()}"
        )
    if weights.min() < 0:
        row = weights.argmin()
        raise ValueError(f"weights must be 0 or more, got {weights[row]} in row {row}")
    if not weights.any():
        raise ValueError(f"weights must be above 0 for some row, got only 0 in {len(labels)} rows")
    return labels, scores, weights


def _checked_probabilities(
    labels: np.ndarray, values: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels, values, weights = _checked(labels, values, weights)
    if values.dtype.kind != "f":
        values = values.astype(np.float64)
    if (wrong := (values < 0) | (values > 1)).any():
        row = wrong.argmax()
        raise ValueError(f"probabilities must be from 0 to 1, got {values[row]} in row {row}")
    return labels, values, weights


def _errors(ratings: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    ratings, predictions = np.ravel(ratings), np.ravel(predictions)
    if ratings.shape != predictions.shape or not len(ratings):
        raise ValueError(
            f"predictions must be as many as the ratings, and at least one, got "
            f"{len(predictions)} for {len(ratings)}"
        )
    errors = predictions.astype(np.float64) - ratings
    if not np.isfinite(errors).all():
        row = int(np.argmin(np.isfinite(errors)))
        raise ValueError(
            f"ratings and predictions must be finite, got {ratings[row]} and {predictions[row]} "
            f"in row {row}"
        )
    return errors
