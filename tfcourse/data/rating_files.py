"""Delimited text of ratings, and of facts about users and items, in bounded memory."""

import csv
import itertools
from collections.abc import Callable, Iterator
from typing import TextIO

import numpy as np

CHUNK = 2**16  # rows that are Python objects at a time
Converter = Callable[[list[str]], np.ndarray]


def rows_of(file: TextIO, separator: str) -> Iterator[list[str]]:
    """Yield the cells of each line; quotes mean something between commas and semicolons only."""
    if len(separator) > 1:
        return (line.rstrip("\r\n").split(separator) if line.strip() else [] for line in file)
    quoting = csv.QUOTE_MINIMAL if separator in ",;" else csv.QUOTE_NONE
    return csv.reader(file, delimiter=separator, quoting=quoting, skipinitialspace=True)


def read_columns(
    file: TextIO,
    name: str,
    separator: str,
    wanted: dict[str, str | int],
    converters: dict[str, Converter],
) -> dict[str, np.ndarray]:
    """Read some columns of a file.

    Args:
        file: Opened for text.
        name: Of the file, for messages.
        separator: Between the cells, of any length.
        wanted: The header's words for the columns, or their places, from 0, in a file without one.
        converters: From the cells of a column to an array, by the names in `wanted`.

    Returns:
        Arrays by the names in `wanted`.

    Raises:
        ValueError: If there is no row, a column is missing or twice in the header, or a cell can't
            be converted; the message names file, line, column and value.
    """
    rows = rows_of(file, separator)
    places, line = _places(rows, name, wanted)
    parts = {column: [] for column in wanted}
    try:
        while chunk := list(itertools.islice(rows, CHUNK)):
            filled = [row for row in chunk if row]
            try:
                for column, place in places.items() if filled else ():
                    parts[column].append(converters[column]([row[place] for row in filled]))
            except (ValueError, IndexError):
                _refuse(chunk, line, name, places, converters)
            line += len(chunk)
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} must be text in {error.encoding}, got other bytes") from error
    except csv.Error as error:  # such as a quote that nothing closes
        raise ValueError(f"{name}, line {rows.line_num}: {error}") from None
    if not any(len(part) for part in next(iter(parts.values()))):
        raise ValueError(f"{name} must have at least one row, got none")
    return {column: _joined(part) for column, part in parts.items()}


def ids(cells: list[str]) -> np.ndarray:
    """Turn cells into integers where each is one as Python writes it, else leave them texts."""
    if "" in cells:
        raise ValueError("an id must not be empty")
    try:
        integers = list(map(int, cells))
        # "007" is another id than "7".
        if list(map(str, integers)) == cells:
            return np.array(integers, np.int64)
    except (ValueError, OverflowError):
        pass
    return np.array(cells)


def finite(cells: list[str]) -> np.ndarray:
    """Turn cells into float64, none of them missing."""
    numbers = np.array(list(map(float, cells)))
    if not np.isfinite(numbers).all():
        raise ValueError("a number must be finite")
    return numbers


def texts(cells: list[str]) -> np.ndarray:
    """Keep cells as they are."""
    return np.array(cells, object)


def _places(
    rows: Iterator[list[str]], name: str, wanted: dict[str, str | int]
) -> tuple[dict[str, int], int]:
    """Return where the columns are and the number of the first line with data."""
    if all(isinstance(word, int) for word in wanted.values()):
        return dict(wanted), 1
    try:
        header = [cell.strip() for cell in next(rows, [])]
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} must be text in {error.encoding}, got other bytes") from error
    if missing := [word for word in wanted.values() if word not in header]:
        have = ", ".join(header) or "nothing"
        raise ValueError(f"{name} must have the column {missing[0]}, its header has {have}")
    if twice := [word for word in wanted.values() if header.count(word) > 1]:
        raise ValueError(f"{name} must have the column {twice[0]} once, its header has it twice")
    return {column: header.index(word) for column, word in wanted.items()}, 2


def _refuse(
    chunk: list[list[str]],
    line: int,
    name: str,
    places: dict[str, int],
    converters: dict[str, Converter],
) -> None:
    """Find the first bad cell and name it."""
    for number, row in enumerate(chunk, start=line):
        for column, place in places.items() if row else ():
            if place >= len(row):
                raise ValueError(
                    f"{name}, line {number}: there must be at least {place + 1} cells, "
                    f"got {len(row)}"
                )
            try:
                converters[column]([row[place]])
            except ValueError:
                rule = "must not be empty" if converters[column] is ids else "must be a number"
                raise ValueError(
                    f"{name}, line {number}: {column} {rule}, got {row[place]!r}"
                ) from None


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    if any(part.dtype.kind == "U" for part in parts):
        parts = [part.astype(str) for part in parts]
    return np.concatenate(parts)
