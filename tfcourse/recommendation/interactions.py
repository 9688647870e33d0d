"""Ratings as a sparse matrix, and what is checked of ids: what fitted recommenders share.

Users and items are rows and columns from 0, since no id has to stand for padding here.
"""

import numpy as np
from scipy import sparse


def with_data(matrix: sparse.csr_array, data: np.ndarray | float) -> sparse.csr_array:
    """Return a matrix with other numbers, float32, at the same places."""
    data = np.broadcast_to(np.asarray(data, "float32"), matrix.data.shape)
    return sparse.csr_array((data.copy(), matrix.indices, matrix.indptr), shape=matrix.shape)


def rows_of(matrix: sparse.csr_array) -> np.ndarray:
    """Return the row of every number of a matrix, in the order of its data."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """Pick the largest of each row.

    Args:
        scores: `(rows, columns)`; -inf is never picked.
        k: How many, at most as many as there are columns.

    Returns:
        Columns `(rows, k)`, the best first and of equal ones the first; -1 where there are no more.
    """
    columns = np.argpartition(scores, scores.shape[1] - k, axis=1)[:, -k:]
    least = np.take_along_axis(scores, columns[:, :1], axis=1)
    # Where more are equal to the last one picked than there is room for, it was luck which.
    for row in np.flatnonzero(((scores >= least).sum(axis=1) > k) & ~np.isneginf(least[:, 0])):
        above, equal = (np.flatnonzero(f(scores[row], least[row])) for f in (np.greater, np.equal))
        columns[row] = np.concatenate([above, equal[: k - len(above)]])
    columns = np.sort(columns, axis=1)
    found = np.take_along_axis(scores, columns, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    columns, found = (np.take_along_axis(part, order, axis=1) for part in (columns, found))
    return np.where(np.isneginf(found), -1, columns)


def rating_matrix(
    users: np.ndarray,
    items: np.ndarray,
    ratings: np.ndarray,
    num_users: int,
    num_items: int,
    *,
    add_repeats: bool = False,
) -> sparse.csr_array:
    """Make a sparse matrix of ratings; what is not rated takes no memory.

    Args:
        users: Ids `(n,)`, 0 to `num_users` - 1.
        items: Ids `(n,)`, 0 to `num_items` - 1.
        ratings: Numbers `(n,)`.
        num_users: Rows; some may have no rating.
        num_items: Columns; some may have no rating.
        add_repeats: Whether ratings of the same item by the same user add up, as counts do.

    Returns:
        A matrix `(num_users, num_items)` of float64 with sorted columns.

    Raises:
        ValueError: If the arrays are empty or not equally long, an id is out of range, a rating
            is not finite, or a pair is there twice and is not to be added.
    """
    users, items = check_ids("users", users, num_users), check_ids("items", items, num_items)
    ratings = np.asarray(ratings, "float64")
    lengths = (len(users), len(items), ratings.size)
    if len(set(lengths)) > 1 or not len(users):
        raise ValueError(
            f"users, items and ratings must be equally long, at least 1, got {lengths}"
        )
    if not np.isfinite(ratings).all():
        row = int(np.argmin(np.isfinite(ratings)))
        raise ValueError(f"ratings must be finite numbers, got {ratings[row]} in row {row}")
    matrix = sparse.csr_array((ratings.ravel(), (users, items)), shape=(num_users, num_items))
    matrix.sort_indices()
    if matrix.nnz < len(users) and not add_repeats:
        pairs = users.astype("int64") * num_items + items
        order = np.argsort(pairs, kind="stable")
        again = order[1:][pairs[order][1:] == pairs[order][:-1]].min()
        raise ValueError(
            f"users and items must have each pair once, got user {users[again]} and item "
            f"{items[again]} again in row {again}"
        )
    return matrix


def check_ratings(ratings: sparse.csr_array) -> sparse.csr_array:
    """Return ratings as a matrix of float64 of its own, in which repeats are added up.

    Raises:
        ValueError: If it is no sparse matrix, nothing is in it, or a rating is not finite.
    """
    if not sparse.issparse(ratings):
        raise ValueError(
            f"ratings must be a sparse matrix, as rating_matrix makes, got {type(ratings).__name__}"
        )
    matrix = sparse.csr_array(ratings, dtype="float64", copy=True)
    matrix.sum_duplicates()
    if not matrix.nnz:
        raise ValueError(f"ratings must have at least one, got none in {matrix.shape}")
    if not (finite := np.isfinite(matrix.data)).all():
        place = int(np.argmin(finite))
        raise ValueError(
            f"ratings must be finite numbers, got {matrix.data[place]} of user "
            f"{rows_of(matrix)[place]} for item {matrix.indices[place]}"
        )
    return matrix


def check_ids(name: str, ids: np.ndarray, size: int) -> np.ndarray:
    """Return ids as an array `(n,)` of whole numbers from 0 to `size` - 1.

    Raises:
        ValueError: If they are not; the message names row and value.
    """
    ids = np.asarray(ids)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise ValueError(f"{name} must be whole numbers (n,), got {ids.dtype} {ids.shape}")
    bad = (ids < 0) | (ids >= size)
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"{name} must have ids from 0 to {size - 1}, got {ids[row]} in row {row}")
    return ids.astype("int64")


def check_pairs(
    users: np.ndarray, items: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of pairs as `check_ids` does, if there are as many users as items."""
    users, items = check_ids("users", users, shape[0]), check_ids("items", items, shape[1])
    if len(users) != len(items):
        raise ValueError(f"users and items must be equally long, got {len(users)} and {len(items)}")
    return users, items


def check_k(k: int, count: int) -> None:
    """Refuse to pick none, or more than there are."""
    if not 1 <= k <= count:
        raise ValueError(f"k must be from 1 to the {count} items there are, got {k}")
