"""Matrix factorisation of implicit feedback by alternating least squares (Hu et al., 2008).

https://doi.org/10.1109/ICDM.2008.22. Who did not watch a film need not dislike it: every pair
counts, those that were seen with more confidence. With r_ui how often or how much user u took item
i, p_ui = 1 if r_ui > 0, else 0, and c_ui = 1 + alpha r_ui, this is least:

    sum_ui c_ui (p_ui - x_u . y_i)^2 + regularization (sum_u |x_u|^2 + sum_i |y_i|^2)

With the items' vectors Y held, each user's vector is a linear equation, and the other way round:

    x_u = (Y'Y + Y'(C_u - I)Y + regularization I)^-1 Y' C_u p_u

Y'Y is the same for all users, and C_u - I is 0 but for what u has seen: what was not seen costs
nothing.
"""

import numpy as np
from scipy import sparse

from tfcourse.recommendation.interactions import (
    check_pairs,
    check_ratings,
    rating_matrix,
    rows_of,
    with_data,
)
from tfcourse.recommendation.recommender import Recommender

BLOCK = 16_000_000  # numbers of the equations, or of their parts, that are there at once


class ALS(Recommender):
    """What `fit_als` returns.

    Attributes:
        user_vectors: x `(num_users, embedding_dim)`, 0 for who has seen nothing.
        item_vectors: y `(num_items, embedding_dim)`.
        objective: What is made least, after each iteration.
    """

    def __init__(self, seen: sparse.csr_array, vectors: tuple, settings: tuple, objective: list):
        """Keep what was fitted.

        Args:
            seen: How often each item was taken, `(num_users, num_items)`.
            vectors: Of the users, and of the items.
            settings: Alpha and the regularization.
            objective: After each iteration.
        """
        super().__init__(seen)
        self.user_vectors, self.item_vectors = vectors
        self._settings, self.objective = settings, objective

    def predict(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return the preferences x_u . y_i of pairs: about 1 for what suits, about 0 else.

        Args:
            users: Ids `(n,)`. For who has seen nothing, it is the share of users who took the item.
            items: Ids `(n,)`.

        Returns:
            Preferences `(n,)`.

        Raises:
            ValueError: If an id is out of range, or there are not as many users as items.
        """
        users, items = check_pairs(users, items, self.seen.shape)
        scores = np.einsum("nd,nd->n", self.user_vectors[users], self.item_vectors[items])
        return np.where(self.is_new(users), self.popularity[items], scores)

    def _scores(self, users):
        return self.user_vectors[users] @ self.item_vectors.T

    def fold_in(self, items: np.ndarray, ratings: np.ndarray) -> np.ndarray:
        alpha, regularization = self._settings
        row = rating_matrix(np.zeros(len(items), int), items, ratings, 1, self.seen.shape[1])
        row = _counts(row)
        return (solve(alpha * row, self.item_vectors, regularization) @ self.item_vectors.T)[0]


def fit_als(
    ratings: sparse.csr_array,
    *,
    embedding_dim: int = 32,
    alpha: float = 40.0,
    regularization: float = 100.0,
    iterations: int = 15,
    seed: int = 0,
) -> ALS:
    """Factorise what was seen and what was not, by turns for users and items.

    What was not seen is not missing: it is a weak no. That all pairs count costs no more than
    those seen, and no step has a rate that could be wrong: each is the least there is.

    Args:
        ratings: How often or how much, from 0 up, `(num_users, num_items)`: from `rating_matrix`,
            whose `add_repeats` counts.
        embedding_dim: Length of a vector.
        alpha: How much more a rating of 1 counts than what was not seen.
        regularization: How much short vectors count.
        iterations: How often both sides take their turn.
        seed: Of the first vectors.

    Returns:
        What gives preferences, and recommends the items with the highest; to who has seen nothing,
        those that most users took.

    Raises:
        ValueError: If a rating is below 0 or not finite, or none above 0, or a setting too low.
    """
    least = {"embedding_dim": 1, "iterations": 1, "alpha": 0, "regularization": 0}
    settings = (embedding_dim, iterations, alpha, regularization)
    for (name, low), value in zip(least.items(), settings, strict=True):
        if not (value >= low and 0 < value < float("inf")):
            raise ValueError(
                f"{name} must be {f'at least {low}' if low else 'above 0'}, got {value}"
            )
    seen = _counts(ratings)
    turned, objective = seen.T.tocsr(), []
    x = np.random.default_rng(seed).normal(0, 0.1, (seen.shape[0], embedding_dim))
    for _ in range(iterations):
        # Users come last: their vectors are then those that folding them in would give.
        y = solve(alpha * turned, x, regularization)
        x = solve(alpha * seen, y, regularization)
        objective.append(objective_of(alpha * seen, x, y, regularization))
    return ALS(seen, (x, y), (alpha, regularization), objective)


def solve(confidence: sparse.csr_array, vectors: np.ndarray, regularization: float) -> np.ndarray:
    """Return the best vectors of one side, the other side's held.

    The sum of c y y' over what a row has seen is, for all rows, one product of a sparse matrix with
    the products y y' of all the vectors.

    Args:
        confidence: alpha r `(rows, columns)`.
        vectors: `(columns, embedding_dim)`.
        regularization: As in `fit_als`.

    Returns:
        Vectors `(rows, embedding_dim)`, 0 where a row has seen nothing.
    """
    dim = vectors.shape[1]
    everybody = vectors.T @ vectors + regularization * np.eye(dim)
    i, j = np.triu_indices(dim)  # y y' is symmetric: half of it will do
    right = confidence @ vectors + with_data(confidence, 1.0) @ vectors
    size, solved = max(1, BLOCK // dim**2), np.empty((confidence.shape[0], dim))
    width = max(1, BLOCK // len(vectors))
    parts = [(i[at : at + width], j[at : at + width]) for at in range(0, len(i), width)]
    for first in range(0, len(solved), size):
        some = slice(first, first + size)
        rows = confidence[some]
        left = np.empty((rows.shape[0], dim, dim))
        for i, j in parts:
            left[:, i, j] = left[:, j, i] = rows @ (vectors[:, i] * vectors[:, j])
        solved[some] = np.linalg.solve(left + everybody, right[some, :, None])[..., 0]
    return solved


def objective_of(
    confidence: sparse.csr_array, x: np.ndarray, y: np.ndarray, regularization: float
) -> float:
    """Return what `fit_als` makes least: as if nothing was seen, and what was seen changes that."""
    everything = np.sum((x.T @ x) * (y.T @ y))
    scores = np.einsum("nd,nd->n", x[rows_of(confidence)], y[confidence.indices])
    seen = np.sum((1 + confidence.data) * (1 - scores) ** 2 - scores**2)
    return float(everything + seen + regularization * (np.sum(x**2) + np.sum(y**2)))


def _counts(ratings: sparse.csr_array) -> sparse.csr_array:
    """Return ratings, checked and without zeros."""
    matrix = check_ratings(ratings)
    if (matrix.data < 0).any():
        place = int(np.argmax(matrix.data < 0))
        raise ValueError(
            f"ratings must be from 0 up, got {matrix.data[place]} of user "
            f"{rows_of(matrix)[place]} for item {matrix.indices[place]}"
        )
    matrix.eliminate_zeros()
    if not matrix.nnz:
        raise ValueError(f"ratings must have one above 0, got none in {matrix.shape}")
    return matrix
