"""What an epoch costs per sample with ten times the rows: 1,000,000 against 100,000.

    python benchmarks/rows.py [--quick]

The recommender of `neural_cf.py`, trained by `training.fit` from arrays in memory.
"""

import functools
import sys

from _measuring import Benchmark
from _shared import BATCH_SIZE, build_neural_cf, epoch_seconds, make_ratings

from tfcourse import training
from tfcourse.data.in_memory import InMemory


def seconds_per_million(rows: int, epochs: int):
    data = InMemory(*make_ratings(rows), BATCH_SIZE)
    fit = functools.partial(training.fit, build_neural_cf(), data)
    return lambda: epoch_seconds(fit, epochs) / rows * 1e6


def main() -> int:
    benchmark = Benchmark(__doc__)
    few = 2_560 if benchmark.quick else 100_000
    seconds = benchmark.alternate(
        {
            # Ten epochs of the small one: both sides are timed over the same number of samples.
            "a million samples of few rows": seconds_per_million(few, 10),
            "of ten times as many": seconds_per_million(10 * few, 1),
        }
    )
    little, much = seconds.values()
    name = "rows, cost of a sample with ten times the rows"
    benchmark.ratio(name, much, little, at_most=1.1)
    return benchmark.status()


if __name__ == "__main__":
    sys.exit(main())
