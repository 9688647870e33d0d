"""Collaborative filtering by neighbours: of users (Resnick et al., 1994) and items (Sarwar, 2001).

https://doi.org/10.1145/192844.192905, https://doi.org/10.1145/371920.372071. With r_ui the rating
of item i by user u, x_ui the same less a mean, and n the users who rated both items,

    s_ij = n / (n + shrinkage) * sum_u x_ui x_uj / sqrt(sum_u x_ui^2 sum_u x_uj^2)

    cosine           x_ui = r_ui
    adjusted_cosine  x_ui = r_ui - mean of user u    (how high a user rates is left out)
    pearson          x_ui = r_ui - mean of item i    (how good an item is)

where each sum is over the n users; for users change the two roles. The prediction is a baseline,
in which few ratings count little (Koren, 2010, https://doi.org/10.1145/1644873.1644874), plus what
those of the k neighbours N(i) say that u has rated:

    r_ui ~ b_ui + sum_j s_ij (r_uj - b_uj) / (DAMPING + sum_j s_ij)      b_ui = m + b_u + b_i

A list of the highest predictions would be one of rarely rated items, about which little is known.
Lists are therefore ordered by a sum that is not divided (Deshpande & Karypis, 2004,
https://doi.org/10.1145/963770.963776), and best for "cosine": sum_j s_ij r_uj.
"""

import numpy as np
from scipy import sparse

from tfcourse.recommendation.interactions import check_k, rating_matrix
from tfcourse.recommendation.neighbours import ItemNeighbours, UserNeighbours
from tfcourse.recommendation.similarity import SIMILARITIES

NEIGHBOURS = 200


def fit_item_cf(
    users: np.ndarray,
    items: np.ndarray,
    ratings: np.ndarray,
    num_users: int,
    num_items: int,
    *,
    similarity: str = "adjusted_cosine",
    k: int | None = None,
    shrinkage: float = 50.0,
) -> ItemNeighbours:
    """Predict ratings from those that the user gave to similar items.

    Items have more ratings each than users, and change less: their neighbours are found once, and a
    new rating, or a new user, counts at once.

    Args:
        users: Ids `(n,)`, 0 to `num_users` - 1.
        items: Ids `(n,)`, 0 to `num_items` - 1.
        ratings: `(n,)`; each pair of user and item once.
        num_users: How many there are, with those who have no rating.
        num_items: How many there are, with those that have no rating.
        similarity: "adjusted_cosine", "cosine" or "pearson".
        k: How many neighbours of an item are kept; by default 200, or all if there are fewer.
        shrinkage: How many users in common make half of a similarity count.

    Returns:
        What predicts ratings, and recommends items. For a user without ratings these are the items'
        damped means, and the most popular items.

    Raises:
        ValueError: If an id is out of range, a rating is not finite or a pair there twice, or
            `similarity`, `k` or `shrinkage` is none that there is.
    """
    matrix = _check(users, items, ratings, (num_users, num_items), (similarity, shrinkage))
    k = min(NEIGHBOURS, num_items) if k is None else k
    check_k(k, num_items)
    return ItemNeighbours(matrix, similarity, k, shrinkage)


def fit_user_cf(
    users: np.ndarray,
    items: np.ndarray,
    ratings: np.ndarray,
    num_users: int,
    num_items: int,
    *,
    similarity: str = "pearson",
    k: int | None = None,
    shrinkage: float = 50.0,
) -> UserNeighbours:
    """Predict ratings from those that similar users gave to the item.

    The first of the recommenders that learn from others: nothing need be known of an item but what
    like-minded people thought of it.

    Args:
        users: Ids `(n,)`, 0 to `num_users` - 1.
        items: Ids `(n,)`, 0 to `num_items` - 1.
        ratings: `(n,)`; each pair of user and item once.
        num_users: How many there are, with those who have no rating.
        num_items: How many there are, with those that have no rating.
        similarity: "adjusted_cosine", "cosine" or "pearson".
        k: How many neighbours of a user are kept; by default 200, or all if there are fewer.
        shrinkage: How many items in common make half of a similarity count.

    Returns:
        What predicts ratings, and recommends items. For a user without ratings these are the items'
        damped means, and the most popular items.

    Raises:
        ValueError: If an id is out of range, a rating is not finite or a pair there twice, or
            `similarity`, `k` or `shrinkage` is none that there is.
    """
    matrix = _check(users, items, ratings, (num_users, num_items), (similarity, shrinkage))
    k = min(NEIGHBOURS, num_users) if k is None else k
    check_k(k, num_users, "users")
    return UserNeighbours(matrix, similarity, k, shrinkage)


def _check(users, items, ratings, shape: tuple[int, int], settings: tuple) -> sparse.csr_array:
    similarity, shrinkage = settings
    if similarity not in SIMILARITIES:
        raise ValueError(f"similarity must be one of {list(SIMILARITIES)}, got {similarity!r}")
    if not 0 <= shrinkage < float("inf"):
        raise ValueError(f"shrinkage must be a number from 0 up, got {shrinkage}")
    matrix = rating_matrix(users, items, ratings, *shape)
    if similarity != "cosine" and np.ptp(matrix.data) == 0:
        raise ValueError(
            f"ratings must differ for {similarity}, got {matrix.data[0]:g} in all {matrix.nnz} "
            'rows: "cosine" and fit_als can do with what was only seen'
        )
    return matrix
