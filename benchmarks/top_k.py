"""The 100 best of a million items for each of 1,000 queries, against the matrix product alone.

    python benchmarks/top_k.py [--quick]

`TopK.search` on vectors of 64 numbers beside NumPy's `queries @ vectors.T`, which is 128 GFLOP and
chooses nothing. That product makes an array of 4 GB, whose memory has to be found anew each time;
the same product in blocks, into an array that is there already, stands beside it. The answers are
held against NumPy's sort for 20 of the queries. Last, the peak of memory of a search, and where
faiss is there, the time and the recall of its graph on a tenth of the items.
"""

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _measuring import Benchmark

from tfcourse.recommendation import ApproximateIndex, TopK

DIM, K, BLOCK = 64, 100, 4_000


def seconds(work: Callable) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def product_in_blocks(queries: np.ndarray, vectors: np.ndarray) -> Callable:
    scores = np.empty((len(queries), BLOCK), np.float32)

    def work():
        for first in range(0, len(vectors), BLOCK):
            np.matmul(queries, vectors[first : first + BLOCK].T, out=scores)

    return work


def check(queries: np.ndarray, vectors: np.ndarray, index: TopK) -> None:
    """Compare with a sort; where NumPy's and our rounding differ, scores may change places."""
    scores = queries @ vectors.T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    ours, ids = index.search(queries, K)
    assert np.abs(np.take_along_axis(scores, ids, 1) - ours).max() < 1e-4
    assert np.abs(np.take_along_axis(scores, order, 1) - ours).max() < 1e-4
    print(f"  the same ids as NumPy's sort in the same places: {(ids == order).mean():.4%}")


def peak() -> float:
    """Return the most memory since `clear_refs` was last written to, in MB."""
    status = Path("/proc/self/status").read_text("utf-8")
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def main() -> int:
    benchmark = Benchmark(__doc__)
    items, rows = (20_000, 50) if benchmark.quick else (1_000_000, 1_000)
    random = np.random.default_rng(0)
    vectors = random.standard_normal((items, DIM), np.float32)
    queries = random.standard_normal((rows, DIM), np.float32)
    index = TopK(vectors)
    check(queries[:20], vectors, index)
    in_blocks = product_in_blocks(queries, vectors)
    sides = {
        "TopK": lambda: seconds(lambda: index.search(queries, K)),
        "NumPy's product": lambda: seconds(lambda: queries @ vectors.T),
        "in blocks": lambda: seconds(in_blocks),
    }
    times = benchmark.alternate(sides)
    ours, product, blocks = times.values()
    benchmark.ratio("top_k, as long as NumPy's product alone", ours, product, at_most=1.8)
    benchmark.ratio("top_k, as long as that in blocks, in memory at hand", ours, blocks)
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")
        before = peak()
        index.search(queries, K)
        benchmark.value("top_k, memory of a search beside the vectors", [peak() - before], "MB")
    approximate(benchmark, queries, vectors[: items // 10])
    return benchmark.status()


def approximate(benchmark: Benchmark, queries: np.ndarray, vectors: np.ndarray) -> None:
    name = "top_k, faiss' graph"
    try:
        near = ApproximateIndex(vectors, effort=512)
    except ImportError as error:
        benchmark.skip(name, str(error))
        return
    exact = TopK(vectors)
    times = benchmark.alternate(
        {
            "TopK": lambda: seconds(lambda: exact.search(queries, K)),
            "faiss": lambda: seconds(lambda: near.search(queries, K)),
        }
    )
    benchmark.ratio(f"{name}, as fast as TopK", times["TopK"], times["faiss"])
    benchmark.value(f"{name}, recall at {K}", [near.recall(queries, K, exact)], "")


if __name__ == "__main__":
    sys.exit(main())
