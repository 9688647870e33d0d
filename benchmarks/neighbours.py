"""Collaborative filtering by neighbours: seconds and memory.

    python benchmarks/neighbours.py [--quick]

MovieLens-100k; and generated ratings, 10 million of 100,000 users and 20,000 items with the tail
that popularity has, each fit in a process of its own whose greatest memory counts everything: the
ratings and their making, TensorFlow, the model. All settings are the defaults.
"""

import multiprocessing
import resource
import sys
import time

import numpy as np
from _measuring import Benchmark

SHAPE = (100_000, 20_000, 10_000_000)


def make_ratings(num_users: int, num_items: int, count: int) -> tuple[np.ndarray, ...]:
    """Draw ratings: an item's chance falls with its rank, users are some more active than others.

    Returns:
        Users, items and ratings, `(count,)` each, every pair once.
    """
    rng = np.random.default_rng(0)
    popularity = 1 / (np.arange(num_items) + 50) ** 0.8
    activity = rng.lognormal(0, 1, num_users)
    pairs = np.empty(0, "int64")
    while len(pairs) < count:
        users = rng.choice(num_users, 2 * count, p=activity / activity.sum())
        items = rng.choice(num_items, 2 * count, p=popularity / popularity.sum())
        pairs = np.union1d(pairs, users.astype("int64") * num_items + items)
    pairs = rng.choice(pairs, count, replace=False, shuffle=False)
    ratings = rng.integers(1, 6, count).astype("float32")
    return pairs // num_items, pairs % num_items, ratings


def fit_generated(side: str, shape: tuple[int, int, int]) -> tuple[float, float]:
    """Return the seconds of a fit, and the GiB that this process has had at most."""
    from tfcourse.recommendation import fit_item_cf, fit_user_cf

    data = make_ratings(*shape)
    seconds = fit_seconds(fit_item_cf if side == "item" else fit_user_cf, data, shape)
    # Linux gives kilobytes, macOS bytes.
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def fit_seconds(fit, data: tuple[np.ndarray, ...], shape: tuple[int, ...]) -> float:
    from tfcourse.recommendation import rating_matrix

    start = time.perf_counter()
    fit(rating_matrix(*data, *shape[:2]))
    return time.perf_counter() - start


def main() -> int:
    benchmark = Benchmark(__doc__, repeats=3)
    from tfcourse.data.ratings import load_movielens
    from tfcourse.recommendation import fit_item_cf, fit_user_cf

    ratings = load_movielens()
    users, items, *_ = ratings.numbered()
    data, shape = (users, items, ratings.ratings), (users.max() + 1, items.max() + 1)
    seconds = benchmark.alternate(
        {
            "item-CF": lambda: fit_seconds(fit_item_cf, data, shape),
            "user-CF": lambda: fit_seconds(fit_user_cf, data, shape),
        }
    )
    benchmark.value("neighbours, item-CF on ML-100k", seconds["item-CF"], "s", at_most=2)
    benchmark.value("neighbours, user-CF on ML-100k", seconds["user-CF"], "s")

    shape = (1_000, 500, 20_000) if benchmark.quick else SHAPE
    for side in ("item", "user"):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, memory = pool.apply(fit_generated, (side, shape))
        name = f"neighbours, {side}-CF on {shape[2]:,} ratings"
        benchmark.value(name, [seconds], "s")
        benchmark.value(f"{name}, memory", [memory], "GiB", at_most=6)
    return benchmark.status()


if __name__ == "__main__":
    sys.exit(main())
