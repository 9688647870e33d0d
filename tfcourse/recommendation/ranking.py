"""How good lists are: every item of the catalogue is ranked, without what the user has seen.

The formulas, and what ties are worth, are in `places`. Metrics over a sample of items order models
differently (Krichene & Rendle, 2020, https://doi.org/10.1145/3394486.3403226): here they are
called sampled.
"""

from collections.abc import Callable, Iterator

import numpy as np

from tfcourse.recommendation.places import expected_places, figures_at
from tfcourse.recommendation.sampling import NegativeSampler

SCORES = 2**24  # at a time: 64 MB
Pairs = tuple[np.ndarray, np.ndarray]
Scores = np.ndarray | Callable[[np.ndarray], np.ndarray]


def rank_metrics(
    scores: Scores,
    held_out: Pairs,
    seen: Pairs | None = None,
    k: int | tuple[int, ...] = (10, 100),
) -> dict[str, float]:
    """Rank the whole catalogue for every user who has something held out.

    Args:
        scores: `(users, num_items)`, or a function from rows of users `(n,)` to `(n, num_items)`.
        held_out: Rows of users and of items, `(pairs,)` each: the relevant ones. What the user
            has seen too is not among them, since it can't be in a list.
        seen: Pairs that no list has: those of the training part.
        k: Length of the lists, or several.

    Returns:
        Means over the users who have a relevant item: `hit_rate@k`, `recall@k`, `ndcg@k`,
        `reciprocal_rank@k` and `average_precision@k` for each k, and the number of `users`.

    Raises:
        ValueError: If the catalogue is smaller than k, an item or a user is out of range, a score
            is not finite, or no user has a relevant item.
    """
    users, relevant, seen = _prepared(held_out, seen)
    k, sums = _lengths(k), {}
    for block, matrix in _blocks(scores, users, k, (relevant, seen)):
        matrix[_cells(block, seen)] = -np.inf
        rows, items = _cells(block, relevant)
        found = expected_places(matrix, rows, items, max(k))
        for name, values in figures_at(found, np.bincount(rows, minlength=len(block)), k).items():
            sums[name] = sums.get(name, 0.0) + float(values.sum())
    return {name: total / len(users) for name, total in sums.items()} | {"users": len(users)}


def list_metrics(
    lists: np.ndarray, users: np.ndarray, held_out: Pairs, k: int | tuple[int, ...] = (10, 100)
) -> dict[str, float]:
    """Return what `rank_metrics` returns, from lists that were made elsewhere.

    Args:
        lists: Items, the best first, filled up with -1, `(rows, at least max(k))`.
        users: Whose lists they are, `(rows,)`; users without a relevant item are left out.
        held_out: Rows of users and of items, the relevant ones.
        k: Length of the lists, or several.

    Raises:
        ValueError: If the lists are shorter than k, have an item twice, or a user with a relevant
            item has no list.
    """
    lists, users, k = np.asarray(lists), np.asarray(users), _lengths(k)
    if lists.ndim != 2 or len(lists) != len(users) or not len(users):
        raise ValueError(
            f"lists must have a row for each of {len(users)} users, at least one, got {lists.shape}"
        )
    if max(k) > lists.shape[1] or min(k) < 1:
        raise ValueError(f"k must be from 1 to the lists' {lists.shape[1]} items, got {k}")
    wanted, relevant, _ = _prepared(held_out, None)
    order = np.argsort(users, kind="stable")
    place = np.minimum(np.searchsorted(users[order], wanted), len(users) - 1)
    if (missing := users[order][place] != wanted).any():
        raise ValueError(f"user {wanted[missing.argmax()]} must have a list, got none")
    lists = lists[order[place]]
    ordered = np.sort(lists, axis=1)
    if (twice := (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        row, column = np.argwhere(twice)[0]
        raise ValueError(f"a list must have an item once, got {ordered[row, column]} twice")
    rows, items = _cells(wanted, relevant)
    hits = np.zeros(lists.shape)
    number, width = np.arange(len(wanted))[:, None], 1 + max(items.max(), lists.max())
    hits[lists >= 0] = np.isin(number * width + lists, rows * width + items)[lists >= 0]
    precision = np.cumsum(hits, axis=1) / np.arange(1, lists.shape[1] + 1)
    found = hits, precision, np.cumprod(1 - hits, axis=1)
    values = figures_at(found, np.bincount(rows), k)
    return {name: float(value.mean()) for name, value in values.items()} | {"users": len(wanted)}


def top_lists(
    scores: Scores, users: np.ndarray, k: int = 10, seen: Pairs | None = None
) -> np.ndarray:
    """Return the best unseen items of users.

    Args:
        scores: As for `rank_metrics`.
        users: Rows of users, `(rows,)`.
        k: Length of a list.
        seen: Pairs that no list has.

    Returns:
        Items `(rows, k)`, the best first, -1 where the user has seen all others.

    Raises:
        ValueError: If the catalogue is smaller than k, an item or a user is out of range, or a
            score is not finite.
    """
    users = np.asarray(users)
    seen = _sorted(seen, "seen")
    lists = []
    for block, matrix in _blocks(scores, users, (k,), (seen,)):
        matrix[_cells(block, seen)] = -np.inf
        best = np.argpartition(matrix, -k, axis=1)[:, -k:]
        values = np.take_along_axis(matrix, best, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        best = np.where(np.isfinite(values), best, -1)
        lists.append(np.take_along_axis(best, order, axis=1))
    return np.concatenate(lists)


def coverage(lists: np.ndarray, num_items: int) -> float:
    """Return the share of the catalogue that is in some list: `(rows, k)` -> 0 to 1."""
    lists = np.asarray(lists)
    return len(np.unique(lists[lists >= 0])) / num_items


def popularity_bias(lists: np.ndarray, counts: np.ndarray) -> float:
    """Return how much more popular the recommended items are than those that people chose.

    The popularity lift of Abdollahpouri et al. (2020), https://arxiv.org/abs/1910.05755, over all
    users at once: the mean count of an item in the lists / of an item in the training part - 1.

    Args:
        lists: Items, -1 where there is none, `(rows, k)`.
        counts: How often each item was chosen in the training part, `(num_items,)`.

    Returns:
        0: as popular as what they chose; 1: twice; below 0: less.

    Raises:
        ValueError: If no list has an item, or none was chosen.
    """
    lists, counts = np.asarray(lists), np.asarray(counts, np.float64)
    if not (lists >= 0).any() or not counts.any():
        raise ValueError("lists and counts must have an item, got none")
    chosen = np.square(counts).sum() / counts.sum()
    return float(counts[lists[lists >= 0]].mean() / chosen - 1)


def sampled_rank_metrics(
    scores: np.ndarray | Callable[[np.ndarray, np.ndarray], np.ndarray],
    held_out: Pairs,
    sampler: NegativeSampler,
    *,
    negatives: int = 100,
    k: int = 10,
) -> dict[str, float]:
    """Rank each held-out item among a few negatives: the protocol of the NCF paper, to compare.

    He et al., 2017, https://arxiv.org/abs/1708.05031. The figures are much higher than those over
    the catalogue, and can order models differently.

    Args:
        scores: `(users, num_items)`, or a function from rows of users and of items, `(n,)` each,
            to their scores `(n,)`.
        held_out: Rows of users and of items, `(pairs,)` each.
        sampler: Draws the negatives; what it knows as seen should have the held-out pairs too.
        negatives: How many.
        k: Length of the list.

    Returns:
        Means over the pairs: `sampled_hit_rate@k`, `sampled_ndcg@k`, `sampled_reciprocal_rank@k`.

    Raises:
        ValueError: If there is no pair, k is more than the negatives and one, or a score is not
            finite.
    """
    users, items = (np.asarray(column) for column in held_out)
    if not len(users):
        raise ValueError("held_out must have at least one pair, got none")
    if not 1 <= k <= negatives + 1:
        raise ValueError(f"k must be from 1 to negatives + 1, {negatives + 1}, got {k}")
    score = scores if callable(scores) else lambda users, items: scores[users, items]
    candidates = np.column_stack([items, sampler.draw_unseen(users, negatives)])
    matrix = score(np.repeat(users, negatives + 1), candidates.ravel()).reshape(candidates.shape)
    _check_finite(matrix, users)
    own = np.arange(len(users)), np.zeros(len(users), int)
    values = figures_at(expected_places(matrix, *own, k), np.ones(len(users), int), (k,))
    names = (f"hit_rate@{k}", f"ndcg@{k}", f"reciprocal_rank@{k}")
    return {f"sampled_{name}": float(values[name].mean()) for name in names}


def _blocks(
    scores: Scores, users: np.ndarray, k: tuple[int, ...], pairs: tuple[Pairs, ...]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield users and a copy of their scores, as many at a time as fit."""
    if not len(users):
        raise ValueError("users must have at least one row, got none")
    score = scores if callable(scores) else lambda rows: np.asarray(scores)[rows]
    if not callable(scores) and (users.min() < 0 or users.max() >= len(scores)):
        wrong = users.min() if users.min() < 0 else users.max()
        raise ValueError(f"users must be from 0 to {len(scores) - 1}, got {wrong}")
    first, count = 0, 1  # one user tells how large the catalogue is
    while first < len(users):
        block = users[first : first + count]
        matrix = np.array(score(block))
        matrix = matrix if matrix.dtype.kind == "f" else matrix.astype(np.float64)
        if matrix.ndim != 2 or len(matrix) != len(block):
            raise ValueError(
                f"scores must have the shape ({len(block)}, num_items) for {len(block)} users, "
                f"got {matrix.shape}"
            )
        if first == 0:
            _check_catalogue(matrix.shape[1], k, pairs)
        _check_finite(matrix, block)
        yield block, matrix
        first, count = first + count, max(1, SCORES // matrix.shape[1])


def _lengths(k: int | tuple[int, ...]) -> tuple[int, ...]:
    lengths = tuple(np.ravel(k).tolist())
    if not lengths:
        raise ValueError("k must have at least one length, got none")
    return lengths


def _check_catalogue(num_items: int, k: tuple[int, ...], pairs: tuple[Pairs, ...]) -> None:
    if wrong := [length for length in k if not 1 <= length <= num_items]:
        raise ValueError(f"k must be from 1 to the catalogue's {num_items} items, got {wrong[0]}")
    for _, items in pairs:
        if len(items) and (items.min() < 0 or items.max() >= num_items):
            wrong = items.min() if items.min() < 0 else items.max()
            raise ValueError(f"items must be from 0 to {num_items - 1}, got {wrong}")


def _check_finite(matrix: np.ndarray, users: np.ndarray) -> None:
    if not np.isfinite(matrix).all():
        row, item = np.argwhere(~np.isfinite(matrix))[0]
        raise ValueError(
            f"scores must be finite, got {matrix[row, item]} in column {item} of user {users[row]}"
        )


def _prepared(held_out: Pairs, seen: Pairs | None) -> tuple[np.ndarray, Pairs, Pairs]:
    """Return the users with something relevant, the relevant pairs, and the seen ones, sorted."""
    users, items = _sorted(held_out, "held_out")
    seen = _sorted(seen, "seen")
    width = 1 + max((int(column.max()) for column in (items, seen[1]) if len(column)), default=0)
    keys = np.setdiff1d(users * width + items, seen[0] * width + seen[1])
    if not len(keys):
        raise ValueError("held_out must have an item that its user has not seen, got none")
    users, items = np.divmod(keys, width)
    return np.unique(users), (users, items), seen


def _sorted(pairs: Pairs | None, name: str) -> Pairs:
    if pairs is None:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    users, items = (np.asarray(column) for column in pairs)
    if users.size and items.size and {users.dtype.kind, items.dtype.kind} - {"i", "u"}:
        raise ValueError(f"{name} must be integers, got {users.dtype} and {items.dtype}")
    users, items = users.astype(np.int64), items.astype(np.int64)
    if users.shape != items.shape or users.ndim != 1:
        raise ValueError(
            f"{name} must be rows of users and as many of items, got {users.shape} and "
            f"{items.shape}"
        )
    for column in (users, items):
        if len(column) and column.min() < 0:
            raise ValueError(f"{name} must have rows from 0, got {column.min()}")
    order = np.argsort(users, kind="stable")
    return users[order], items[order]


def _cells(block: np.ndarray, pairs: Pairs) -> Pairs:
    """Return the pairs of a block's users as cells of its matrix."""
    first, last = (np.searchsorted(pairs[0], block, side=side) for side in ("left", "right"))
    rows = np.repeat(np.arange(len(block)), last - first)
    skipped = np.cumsum(last - first) - (last - first)
    where = np.arange(len(rows)) + np.repeat(first - skipped, last - first)
    return rows, pairs[1][where]
