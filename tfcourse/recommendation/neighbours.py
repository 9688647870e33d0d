"""Predictions from neighbours, of items and of users: the formulas of `collaborative_filtering`.

Matrices are sparse throughout: a pair of user and item is a row of similarities times a row of
deviations, and the lists of many users are one product of matrices.
"""

import numpy as np
from scipy import sparse

from tfcourse.recommendation.interactions import (
    check_pairs,
    rating_matrix,
    rows_of,
    with_data,
)
from tfcourse.recommendation.recommender import Recommender
from tfcourse.recommendation.similarity import (
    centre,
    keep_best,
    nearest,
    powers,
    row_means,
    similarities,
)

BASELINE_DAMPING = 5.0  # ratings at the mean that every user and every item begins with
DAMPING = 1.0  # so that a few faint neighbours do not decide alone
PAIRS = 20_000  # pairs of user and item predicted at once


class _Neighbours(Recommender):
    """Ratings, their baseline, and the neighbours of every row: of every user or every item.

    Attributes:
        mean: m, of all ratings.
        user_bias: b_u `(num_users,)`, 0 for a user without ratings.
        item_bias: b_i `(num_items,)`, 0 for an item without ratings.
        similar: Similarities to the neighbours, a sparse matrix `(rows, rows)`.
    """

    def __init__(self, ratings: sparse.csr_array, of_items: bool):
        """Compute the baseline; keep ratings, how far they are from it, and where they are.

        Args:
            ratings: `(num_users, num_items)`.
            of_items: Whether the rows are the items; the matrices have the rows as columns.
        """
        super().__init__(ratings)
        users, items = rows_of(ratings), ratings.indices
        self.mean = float(ratings.data.mean())
        rest = ratings.data - self.mean
        self.item_bias = _damped_means(items, rest, ratings.shape[1])
        rest -= self.item_bias[items]
        self.user_bias = _damped_means(users, rest, ratings.shape[0])
        parts = [with_data(ratings, d) for d in (ratings.data, rest - self.user_bias[users], 1.0)]
        self._parts = parts if of_items else [part.T.tocsr() for part in parts]

    def predict(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Predict the ratings of pairs.

        Args:
            users: Ids `(n,)`. A user without ratings gets b_u = 0: the item's damped mean.
            items: Ids `(n,)`. An item without ratings gets b_i = 0.

        Returns:
            Ratings `(n,)`, which may lie beyond the ends of the scale.

        Raises:
            ValueError: If an id is out of range, or there are not as many users as items.
        """
        users, items = check_pairs(users, items, self.seen.shape)
        predicted = self.mean + self.user_bias[users] + self.item_bias[items]
        for first in range(0, len(users), PAIRS):
            some = slice(first, first + PAIRS)
            rows, columns = self._sides(users[some], items[some])
            similar, (_, rest, ones) = self.similar[rows], self._parts
            below = similar.multiply(ones[columns]).sum(axis=1)
            predicted[some] += similar.multiply(rest[columns]).sum(axis=1) / (DAMPING + below)
        return predicted

    def _sides(self, users: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return first whose neighbours are asked, then about whom."""
        raise NotImplementedError

    def _bias_of(self, row: sparse.csr_array) -> float:
        """Return the bias of a new user."""
        rest = row.data - self.mean - self.item_bias[row.indices]
        return float(rest.sum() / (BASELINE_DAMPING + row.nnz))

    def _row(self, items: np.ndarray, ratings: np.ndarray) -> sparse.csr_array:
        """Return a new user's ratings as a matrix of one row."""
        nobody = np.zeros(len(np.atleast_1d(items)), int)
        return rating_matrix(nobody, items, ratings, 1, len(self.item_bias))


class ItemNeighbours(_Neighbours):
    """What `fit_item_cf` returns."""

    def __init__(self, ratings: sparse.csr_array, similarity: str, k: int, shrinkage: float):
        """Find the neighbours of every item."""
        super().__init__(ratings, of_items=True)
        turned = ratings.T.tocsr()
        centred = centre(turned, similarity, row_means(ratings))
        self.similar = nearest(centred, k, shrinkage, similarity != "cosine")

    def fold_in(self, items: np.ndarray, ratings: np.ndarray) -> np.ndarray:
        return (self.similar @ self._row(items, ratings).T).toarray()[:, 0]

    def predict_new(self, items: np.ndarray, ratings: np.ndarray) -> np.ndarray:
        """Predict all ratings `(num_items,)` of a new user from some, `(n,)` each, unfitted."""
        row = self._row(items, ratings)
        base = self.mean + self.item_bias + self._bias_of(row)
        rest = with_data(row, row.data - base[row.indices])
        below = (self.similar @ with_data(row, 1.0).T).toarray()
        return base + ((self.similar @ rest.T).toarray() / (DAMPING + below))[:, 0]

    def _scores(self, users):
        return (self.similar @ self._parts[0][users].T).toarray().T

    def _sides(self, users, items):
        return items, users


class UserNeighbours(_Neighbours):
    """What `fit_user_cf` returns."""

    def __init__(self, ratings: sparse.csr_array, similarity: str, k: int, shrinkage: float):
        """Find the neighbours of every user."""
        super().__init__(ratings, of_items=False)
        self._similarity, self._k, self._shrinkage = similarity, k, shrinkage
        self._item_means = row_means(ratings.T.tocsr())
        centred = centre(ratings, similarity, self._item_means)
        self.similar = nearest(centred, k, shrinkage, similarity != "cosine")
        self._centred = centred.T.tocsr()

    def fold_in(self, items: np.ndarray, ratings: np.ndarray) -> np.ndarray:
        return (self._parts[0] @ self._similar_to(self._row(items, ratings)).T).toarray()[:, 0]

    def predict_new(self, items: np.ndarray, ratings: np.ndarray) -> np.ndarray:
        """Predict all ratings `(num_items,)` of a new user from some, `(n,)` each, unfitted."""
        row = self._row(items, ratings)
        similar, (_, rest, ones) = self._similar_to(row), self._parts
        said = (rest @ similar.T).toarray() / (DAMPING + (ones @ similar.T).toarray())
        return self.mean + self.item_bias + self._bias_of(row) + said[:, 0]

    def _similar_to(self, row: sparse.csr_array) -> sparse.csr_array:
        centred = powers(centre(row, self._similarity, self._item_means))
        everybody, in_common = powers(self._centred), self._similarity != "cosine"
        return keep_best(similarities(centred, everybody, self._shrinkage, in_common), self._k)

    def _scores(self, users):
        return (self._parts[0] @ self.similar[users].T).toarray().T

    def _sides(self, users, items):
        return users, items


def _damped_means(ids: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(ids, values, size) / (BASELINE_DAMPING + np.bincount(ids, minlength=size))
