"""Collaborative filtering by neighbours: of users (Resnick et al., 1994) and items (Sarwar, 2001).

https://doi.org/10.1145/192844.192905, https://doi.org/10.1145/371920.372071. With r_ui the rating
of item i by user u, x_ui the same less a mean, and n the users who rated both items,

    s_ij = n / (n + shrinkage) * sum_u x_ui x_uj / sqrt(sum_u x_ui^2 sum_u x_uj^2)

    cosine           x_ui = r_ui
    adjusted_cosine  x_ui = r_ui - mean of user u    (how high a user rates is left out)
    pearson          x_ui = r_ui - mean of item i    (how good an item is)

where each sum is over the n users; in the squares of "cosine", over all who rated the one item, as
who did not is 0 there. For users change the two roles. The prediction is a baseline,
in which few ratings count little (Koren, 2010, https://doi.org/10.1145/1644873.1644874), plus what
those of the k neighbours N(i) say that u has rated:

    r_ui ~ b_ui + sum_j s_ij (r_uj - b_uj) / (DAMPING + sum_j s_ij)      b_ui = m + b_u + b_i

A list of the highest predictions would be one of rarely rated items, about which little is known.
Lists are therefore ordered by a sum that is not divided (Deshpande & Karypis, 2004,
https://doi.org/10.1145/963770.963776): sum_j s_ij r_uj. "cosine", few neighbours and no shrinkage
are best there.
"""

import numpy as np
from scipy import sparse

from tfcourse.recommendation.interactions import check_ratings
from tfcourse.recommendation.neighbours import ItemNeighbours, UserNeighbours
from tfcourse.recommendation.similarity import SIMILARITIES

NEIGHBOURS = 200


def fit_item_cf(
    ratings: sparse.csr_array,
    *,
    similarity: str = "adjusted_cosine",
    num_neighbours: int | None = None,
    shrinkage: float = 50.0,
) -> ItemNeighbours:
    """Predict ratings from those that the user gave to similar items.

    Items have more ratings each than users, and change less: their neighbours are found once, and a
    new rating, or a new user, counts at once.

    Args:
        ratings: From `rating_matrix`, `(num_users, num_items)`.
        similarity: "adjusted_cosine", "cosine" or "pearson".
        num_neighbours: How many an item has at most; by default 200, or all if there are fewer.
        shrinkage: How many users in common make half of a similarity count.

    Returns:
        What predicts ratings, and recommends items. For a user without ratings these are the items'
        damped means, and the most popular items.

    Raises:
        ValueError: If there is no rating, or one is not finite, or `similarity`, `num_neighbours`
            or `shrinkage` is none that there is.
    """
    matrix = check_ratings(ratings)
    return ItemNeighbours(
        matrix, *_check(matrix, matrix.shape[1], similarity, num_neighbours, shrinkage)
    )


def fit_user_cf(
    ratings: sparse.csr_array,
    *,
    similarity: str = "pearson",
    num_neighbours: int | None = None,
    shrinkage: float = 50.0,
) -> UserNeighbours:
    """Predict ratings from those that similar users gave to the item.

    The first of the recommenders that learn from others: nothing need be known of an item but what
    like-minded people thought of it.

    Args:
        ratings: From `rating_matrix`, `(num_users, num_items)`.
        similarity: "adjusted_cosine", "cosine" or "pearson".
        num_neighbours: How many a user has at most; by default 200, or all if there are fewer.
        shrinkage: How many items in common make half of a similarity count.

    Returns:
        What predicts ratings, and recommends items. For a user without ratings these are the items'
        damped means, and the most popular items.

    Raises:
        ValueError: If there is no rating, or one is not finite, or `similarity`, `num_neighbours`
            or `shrinkage` is none that there is.
    """
    matrix = check_ratings(ratings)
    return UserNeighbours(
        matrix, *_check(matrix, matrix.shape[0], similarity, num_neighbours, shrinkage)
    )


def _check(matrix, rows: int, similarity: str, num_neighbours: int | None, shrinkage: float):
    """Return the settings, checked."""
    if similarity not in SIMILARITIES:
        raise ValueError(f"similarity must be one of {list(SIMILARITIES)}, got {similarity!r}")
    if not 0 <= shrinkage < float("inf"):
        raise ValueError(f"shrinkage must be a number from 0 up, got {shrinkage}")
    if similarity != "cosine" and np.ptp(matrix.data) == 0:
        raise ValueError(
            f"ratings must differ for {similarity}, got {matrix.data[0]:g} in all {matrix.nnz} "
            'rows: "cosine" and fit_als can do with what was only seen'
        )
    num_neighbours = min(NEIGHBOURS, rows) if num_neighbours is None else num_neighbours
    if not 1 <= num_neighbours <= rows:
        raise ValueError(
            f"num_neighbours must be from 1 to the {rows} there are, got {num_neighbours}"
        )
    return similarity, num_neighbours, shrinkage
