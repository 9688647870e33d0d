"""What a ranking is worth, place by place, over all orders of equal scores.

With rel(p) = 1 where the item at place p is relevant, n relevant items, and their shares of the
first p places P(p) = (rel(1) + ... + rel(p)) / p, up to place k:

    hit rate          = max rel(p)
    recall            = sum rel(p) / n
    reciprocal rank   = max rel(p) / p                             (its mean over users: MRR)
    average precision = sum rel(p) P(p) / min(n, k)                (its mean over users: MAP)
    NDCG              = sum rel(p) / log2(p + 1)  /  sum_{p <= min(n, k)} 1 / log2(p + 1)

Items of equal score stand in random order: each figure is its expected value, in closed form, so
that a model gains nothing by ties.
"""

import numpy as np


def expected_places(
    matrix: np.ndarray, rows: np.ndarray, items: np.ndarray, depth: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what is to be expected at the first places, over all orders of equal scores.

    A run of t equal scores that begins behind `before` relevant items, r of its own among them:
    each of its places has a relevant item with probability r / t.

    Args:
        matrix: Scores `(users, num_items)`, -inf for what no list has.
        rows: Users of the relevant items, `(pairs,)`.
        items: The relevant items, `(pairs,)`.
        depth: How many places.

    Returns:
        For each user and place the probability of a relevant item there, the expected precision
        up to there if there is one, and the probability that none has come up to there.
    """
    values = -np.sort(-np.partition(matrix, -depth, axis=1)[:, -depth:], axis=1)
    place = np.arange(depth)
    begins = np.ones(values.shape, bool)
    begins[:, 1:] = values[:, 1:] != values[:, :-1]
    start = np.maximum.accumulate(np.where(begins, place, 0), axis=1)
    following = np.where(begins, place, depth)[:, :0:-1]
    end = np.full(values.shape, depth)
    end[:, :-1] = np.minimum.accumulate(following, axis=1)[:, ::-1]
    # The last run goes on behind the last place.
    last = start[:, -1] + np.count_nonzero(matrix == values[:, -1:], axis=1)
    size = np.where(end == depth, last[:, None], end) - start

    first = np.count_nonzero(values[rows] > matrix[rows, items, None], axis=1)
    found = np.zeros(values.shape)
    np.add.at(found, (rows[first < depth], first[first < depth]), 1)
    own = np.take_along_axis(found, start, axis=1)
    before = np.take_along_axis(np.cumsum(found, axis=1), start, axis=1) - own
    behind = place - start
    others = behind * np.maximum(own - 1, 0) / np.maximum(size - 1, 1)
    precision = (before + 1 + others) / (place + 1)
    none = np.cumprod(np.maximum(1 - own / (size - behind), 0), axis=1)
    return own / size, precision, none


def figures_at(
    found: tuple[np.ndarray, np.ndarray, np.ndarray], relevant: np.ndarray, k: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """Return each user's figures for each length of a list."""
    chance, precision, none = found
    place = np.arange(1, chance.shape[1] + 1)
    discount = 1 / np.log2(place + 1)
    arrived = -np.diff(none, axis=1, prepend=1)
    values = {}
    for length in k:
        best = np.minimum(relevant, length)
        first = slice(None), slice(length)
        values |= {
            f"hit_rate@{length}": 1 - none[:, length - 1],
            f"recall@{length}": chance[first].sum(axis=1) / relevant,
            f"ndcg@{length}": chance[first] @ discount[:length] / np.cumsum(discount)[best - 1],
            f"reciprocal_rank@{length}": arrived[first] @ (1 / place[:length]),
            f"average_precision@{length}": (chance * precision)[first].sum(axis=1) / best,
        }
    return values
