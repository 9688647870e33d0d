"""The values of a raw column: texts, numbers and lists, each in one form wherever it comes from.

A raw id is a text: a text is left as it is, a whole number has no point (7, 7.0 and "7" are the
same id), and what is missing (None, NaN, pandas' NA) is "".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Column:
    """Some rows of one column.

    Attributes:
        name: Of the column.
        values: An array or a list.
        lines: The number of each row: in its file, or in the table.
        file: Where it comes from, "" for what was in memory.
    """

    name: str
    values: Sequence | np.ndarray
    lines: Sequence[int]
    file: str = ""

    def error(self, rule: str, value: object, row: int) -> ValueError:
        """Return what to raise for a value that breaks a rule."""
        place = f"line {self.lines[row]} of {self.file}" if self.file else f"row {self.lines[row]}"
        return ValueError(f"column {self.name} {rule}, got {value!r} in {place}")


Chunk = dict[str, Column]


def texts(column: Column) -> list[str]:
    """Return the raw ids of a column in their one form, a text; what is missing is ""."""
    values = column.values
    if column.file:
        return values
    _check_flat(column)
    if isinstance(values, np.ndarray) and values.dtype.kind in "Uiu":
        return list(map(str, values.tolist()))
    return [_text(value, column, row) for row, value in enumerate(_listed(values))]


def numbers(column: Column) -> np.ndarray:
    """Return a column of numbers as float32; what is missing is NaN."""
    values = column.values
    _check_flat(column)
    if not (isinstance(values, np.ndarray) and values.dtype.kind in "biuf"):
        try:
            values = np.fromiter(map(float, values), np.float64, len(values))
        except (TypeError, ValueError, OverflowError):  # something is missing, or no number
            found = [_number(value, column, row) for row, value in enumerate(_listed(values))]
            values = np.array(found)
    with np.errstate(over="ignore"):
        found = values.astype(np.float32)
    if (bad := np.isinf(found)).any():
        row = int(bad.argmax())
        raise column.error("must be finite in 32 bits", values[row].item(), row)
    return found


def lists(column: Column, separator: str) -> tuple[list[str], np.ndarray]:
    """Return the raw ids of a column of lists.

    Args:
        column: Each row an array, a list, or a text with separators. In an array of whole numbers
            0 is an empty place, since it can have no other.
        separator: Between the ids of a text.

    Returns:
        All ids one after the other, "" among them, and how many of these each row has.
    """
    values = column.values
    if isinstance(values, np.ndarray) and values.ndim == 2:
        flat = values.ravel().tolist()
        if values.dtype.kind in "iu":
            found = [str(value) if value else "" for value in flat]
        else:
            width = max(values.shape[1], 1)
            found = [_text(value, column, i // width) for i, value in enumerate(flat)]
        return found, np.full(len(values), values.shape[1])
    if column.file and values:
        return separator.join(values).split(separator), np.array(
            [text.count(separator) + 1 for text in values]
        )
    found, counts = [], []
    for row, value in enumerate(_listed(values)):
        if isinstance(value, (list, tuple, np.ndarray)):
            ids = [_text(one, column, row) for one in _listed(value)]
        else:
            ids = [one for one in _text(value, column, row).split(separator) if one]
        found += ids
        counts.append(len(ids))
    return found, np.array(counts, int)


def _check_flat(column: Column) -> None:
    shape = getattr(column.values, "shape", ("rows",))
    if len(shape) != 1:
        raise ValueError(f"column {column.name} must have the shape ('rows',), got {shape}")


def _listed(values: Sequence | np.ndarray) -> Sequence:
    return values.tolist() if isinstance(values, np.ndarray) else values


def _missing(value: object) -> bool:
    if value is None or (isinstance(value, (float, np.floating)) and math.isnan(value)):
        return True
    return type(value).__name__ in ("NAType", "NaTType")  # pandas need not be there


def _text(value: object, column: Column, row: int) -> str:
    if isinstance(value, str):
        return str(value)
    if _missing(value):
        return ""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise column.error("must be UTF-8", value, row) from None
    if isinstance(value, (float, np.floating)):
        return str(int(value)) if float(value).is_integer() else repr(float(value))
    if isinstance(value, (bool, int, np.bool_, np.integer)):
        return str(value)
    raise column.error("must be a text or a number", value, row)


def _number(value: object, column: Column, row: int) -> float:
    if _missing(value) or (isinstance(value, (str, bytes)) and not value.strip()):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise column.error("must be a number", value, row) from None


def select(columns: dict, names: Sequence[str] | None, of: str = "") -> dict:
    """Return the columns that are wanted; a missing one is an error."""
    for name in names or ():
        if name not in columns:
            there = ", ".join(map(str, columns)) or "none"
            raise ValueError(f"column {name} is missing{of}; there are {there}")
    return {name: columns[name] for name in (columns if names is None else names)}


def check_names(names: Sequence[str], of: str) -> None:
    """Refuse a header that has a name twice."""
    if twice := sorted({str(name) for name in names if names.count(name) > 1}):
        raise ValueError(f"{of} must have each column once, got {', '.join(twice)} twice")
