"""What a pipeline makes of a raw column: each kind says what it learns and which column results.

What is missing or was never seen is id 0 of a category, the training mean (0) of a number, and
leaves no place in a history. Learning sees each chunk once and keeps what its result needs.
"""

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from tfcourse.data.features import Category, Cross, Feature, History, Number
from tfcourse.data.learning import Counts, Moments, Presence, Quantiles
from tfcourse.data.raw_columns import Column, check_names, lists, numbers

Ids = Callable[[list[str]], np.ndarray]  # from texts to ids


class _Known(dict):
    """Ids by text; 0 for what is not there."""

    def __missing__(self, _: str) -> int:
        return 0


class _Hashes(dict):
    """Hashed ids by text; those of the first 100,000 texts are remembered."""

    def __init__(self, size: int):
        super().__init__({"": 0})
        self.buckets = size - 1

    def __missing__(self, text: str) -> int:
        found = 1 + zlib.crc32(text.encode()) % self.buckets
        if len(self) < 100_000:
            self[text] = found
        return found


@dataclass(frozen=True)
class Vocabulary:
    """An id for each raw value, the most frequent first, equally frequent ones by their text.

    Attributes:
        name: Of the column.
        min_count: Values that training has less often are unknown, id 0.
    """

    name: str
    min_count: int = 1

    def __post_init__(self):
        _at_least(self.name, 1, min_count=self.min_count)

    def learner(self) -> Counts:
        return Counts(self.min_count)

    def feature(self, learned: list, _: dict[str, Category]) -> Feature:
        return Category(self.name, 1 + len(learned))

    def ids(self, learned: list[str]) -> Ids:
        known = _Known(zip(learned, range(1, 1 + len(learned)), strict=True))
        return lambda raw: np.fromiter(map(known.__getitem__, raw), np.int32, len(raw))


@dataclass(frozen=True)
class Hashed:
    """An id computed from the raw value: 1 + CRC-32 of its UTF-8 bytes modulo (size - 1).

    Nothing is learned and no value is unknown, but different ones may share an id.

    Attributes:
        name: Of the column.
        size: Ids are 1 to size - 1, and 0.
    """

    name: str
    size: int

    def __post_init__(self):
        _at_least(self.name, 2, size=self.size)

    def learner(self) -> Presence:
        return Presence()

    def feature(self, _: list, __: dict[str, Category]) -> Feature:
        return Category(self.name, self.size)

    def ids(self, _: list) -> Ids:
        hashes = _Hashes(self.size)
        return lambda raw: np.fromiter(map(hashes.__getitem__, raw), np.int32, len(raw))


@dataclass(frozen=True)
class Normalised:
    """A number minus the training mean, divided by the training deviation.

    Attributes:
        name: Of the column.
        logarithm: Whether sign(x) log(1 + |x|) takes the place of x, for counts and prices.
    """

    name: str
    logarithm: bool = False

    def learner(self) -> Moments:
        return Moments(self.numbers)

    def feature(self, _: list, __: dict[str, Category]) -> Feature:
        return Number(self.name)

    def numbers(self, column: Column) -> np.ndarray:
        """Return the raw numbers, or their logarithms."""
        x = numbers(column)
        return np.sign(x) * np.log1p(np.abs(x)) if self.logarithm else x

    def apply(self, learned: list[float], column: Column) -> np.ndarray:
        mean, deviation = np.array(learned, np.float32)
        x = self.numbers(column)
        return np.where(np.isnan(x), np.float32(0), (x - mean) / deviation)


@dataclass(frozen=True)
class Bucketed:
    """A number as a category: which of several equally full ranges it is in.

    The limits are quantiles of training, exact up to 100,000 values and of a sample of as many
    above; ranges that would be empty are left out.

    Attributes:
        name: Of the column.
        buckets: How many ranges.
    """

    name: str
    buckets: int = 10

    def __post_init__(self):
        _at_least(self.name, 2, buckets=self.buckets)

    def learner(self) -> Quantiles:
        return Quantiles(self.buckets)

    def feature(self, learned: list, _: dict[str, Category]) -> Feature:
        return Category(self.name, 2 + len(learned))

    def apply(self, learned: list[float], column: Column) -> np.ndarray:
        x = numbers(column)
        place = np.searchsorted(np.array(learned, np.float32), x, side="right")
        return np.where(np.isnan(x), 0, 1 + place).astype(np.int32)


@dataclass(frozen=True)
class Sequence:
    """What came before, the newest first: lists of raw ids, or texts with separators.

    Missing and unknown ones are dropped, then all but the first `length`. In a two-dimensional
    array of integers 0 is padding: there, ids from 0 must be texts.

    Attributes:
        name: Of the column.
        item: The name of the `Vocabulary` or `Hashed` that its ids are looked up in.
        length: How many; older ones are forgotten.
        separator: Between the ids of a text.
    """

    name: str
    item: str = "item"
    length: int = 20
    separator: str = " "

    def __post_init__(self):
        _at_least(self.name, 1, length=self.length)
        if not self.separator:
            raise ValueError(f"{self.name}: separator must have a character, got ''")

    def learner(self) -> Presence:
        return Presence(lambda column: lists(column, self.separator)[0])

    def feature(self, _: list, categories: dict[str, Category]) -> Feature:
        return History(self.name, categories[self.item], self.length)

    def apply(self, ids_of: Ids, column: Column) -> np.ndarray:
        raw, counts = lists(column, self.separator)
        ids, rows = ids_of(raw), np.repeat(np.arange(len(counts)), counts)
        ids, rows = ids[ids > 0], rows[ids > 0]
        places = np.arange(len(rows)) - np.searchsorted(rows, rows)
        found = np.zeros((len(counts), self.length), np.int32)
        kept = places < self.length
        found[rows[kept], places[kept]] = ids[kept]
        return found


@dataclass(frozen=True)
class Combined:
    """Several categories at once; no column has it, the model computes it from their ids.

    Attributes:
        name: Of the cross.
        parts: The names of two or more categories.
        size: Ids are 1 to size - 1, and 0.
    """

    name: str
    parts: tuple[str, ...] = ("user", "item")
    size: int = 10_000

    def __post_init__(self):
        object.__setattr__(self, "parts", tuple(self.parts))
        _at_least(self.name, 2, size=self.size)
        if len(set(self.parts)) < 2:
            raise ValueError(f"{self.name}: parts must be two or more names, got {self.parts}")

    def feature(self, _: list, categories: dict[str, Category]) -> Feature:
        return Cross(self.name, tuple(categories[part] for part in self.parts), self.size)


KINDS = (Vocabulary, Hashed, Normalised, Bucketed, Sequence, Combined)
Spec = Vocabulary | Hashed | Normalised | Bucketed | Sequence | Combined


def check_specs(specs: Iterable[Spec]) -> None:
    """Refuse specs that do not fit together.

    Raises:
        ValueError: If there is none, a name is there twice, or a sequence or a combination needs a
            category that is not there.
    """
    if not specs:
        raise ValueError("specs must have at least one column, got none")
    for spec in specs:
        if not isinstance(spec, KINDS):
            kinds = ", ".join(kind.__name__ for kind in KINDS)
            raise ValueError(f"specs must be of {kinds}, got {spec!r}")
    check_names([spec.name for spec in specs], "specs")
    looked_up = [spec.name for spec in specs if hasattr(spec, "ids")]
    categories = [*looked_up, *(spec.name for spec in specs if isinstance(spec, Bucketed))]
    for spec in specs:
        if isinstance(spec, Sequence):
            _check_among(f"{spec.name}: item", [spec.item], looked_up)
        if isinstance(spec, Combined):
            _check_among(f"{spec.name}: parts", spec.parts, categories)


def _check_among(field: str, names: Iterable[str], allowed: list[str]) -> None:
    for name in names:
        if name not in allowed:
            raise ValueError(f"{field} must be among {', '.join(allowed) or 'none'}, got {name}")


def _at_least(name: str, least: int, **field: int) -> None:
    ((what, value),) = field.items()
    if value < least:
        raise ValueError(f"{name}: {what} must be at least {least}, got {value}")
