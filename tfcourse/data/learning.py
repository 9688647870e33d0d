"""What a pipeline learns from a column, chunk by chunk, in memory that does not grow with rows.

Each has `add(column)`, and `learned()`: a list of texts or numbers, or `None` where there was none.
"""

from collections import Counter
from collections.abc import Callable

import numpy as np

from tfcourse.data.raw_columns import Column, numbers, texts

SAMPLE = 100_000  # values that quantiles are taken of


class Counts:
    """How often each text occurs; it grows with the different ones."""

    def __init__(self, min_count: int):
        self.min_count, self.counts = min_count, Counter()

    def add(self, column: Column) -> None:
        self.counts.update(texts(column))

    def learned(self) -> list[str] | None:
        """Return the texts that are frequent enough, the most frequent first."""
        del self.counts[""]
        found = [text for text, count in self.counts.items() if count >= self.min_count]
        return sorted(found, key=lambda text: (-self.counts[text], text)) or None


class Presence:
    """Whether there is anything at all."""

    def __init__(self, read: Callable[[Column], list[str]] = texts):
        self.read, self.found = read, False

    def add(self, column: Column) -> None:
        # Read every chunk even so: what can't be read is an error.
        self.found |= any(self.read(column))

    def learned(self) -> list | None:
        return [] if self.found else None


class Moments:
    """Mean and deviation, in 64 bits and without large sums of squares (Chan et al., 1983)."""

    def __init__(self, read: Callable[[Column], np.ndarray] = numbers):
        self.read = read
        self.rows, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, column: Column) -> None:
        x = self.read(column).astype(np.float64)
        x = x[~np.isnan(x)]
        if not len(x):
            return
        rows, apart = self.rows + len(x), x.mean() - self.mean
        self.squares += np.sum((x - x.mean()) ** 2) + apart**2 * self.rows * len(x) / rows
        self.mean += apart * len(x) / rows
        self.rows = rows

    def learned(self) -> list[float] | None:
        """Return mean and deviation; that of a constant is 1, so that it becomes 0."""
        if not self.rows:
            return None
        return [float(self.mean), float(np.sqrt(self.squares / self.rows)) or 1.0]


class Quantiles:
    """The limits of equally full ranges, of a sample in which every value is equally likely."""

    def __init__(self, buckets: int):
        self.buckets, self.rows, self.rng = buckets, 0, np.random.default_rng(0)
        self.sample = np.empty(0, np.float32)

    def add(self, column: Column) -> None:
        x = numbers(column)
        x = x[~np.isnan(x)]
        room = SAMPLE - len(self.sample)
        self.sample = np.concatenate([self.sample, x[:room]])
        # Vitter's algorithm R (1985): number n takes a random place of n, if that is in the sample.
        later = x[room:]
        seen = self.rows + room + 1 + np.arange(len(later))
        places = self.rng.integers(0, np.maximum(seen, 1))
        self.sample[places[places < SAMPLE]] = later[places < SAMPLE]
        self.rows += len(x)

    def learned(self) -> list[float] | None:
        if not self.rows:
            return None
        inner = np.linspace(0, 1, self.buckets + 1)[1:-1]
        # Limits that occur, and each is in the range above it: so no range is empty.
        limits = np.unique(np.quantile(self.sample, inner, method="higher"))
        return limits[limits > self.sample.min()].tolist()
