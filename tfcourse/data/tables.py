"""Tables as a stream of chunks: arrays, DataFrames, and CSV or TSV files of any size."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from tfcourse.data.csv_files import ROWS, read_file
from tfcourse.data.raw_columns import Chunk, Column, check_names, select


def read_chunks(
    table: object, names: Sequence[str] | None = None, *, encoding: str = "utf-8"
) -> Iterator[Chunk]:
    """Cut a table into chunks of rows.

    Args:
        table: Arrays or lists by name; a DataFrame; the path of a CSV or TSV file with a header;
            or any iterable of these or of chunks, which have the same columns.
        names: Which columns are wanted; all by default.
        encoding: Of files.

    Yields:
        Columns by name, of at most 16,384 rows.

    Raises:
        ValueError: If a column is missing, is there twice or is shorter than others, a line has
            more or fewer fields than the header, or a file is empty or has another encoding.
    """
    first = 0
    for part in _parts(table):
        if isinstance(part, (str, Path)):
            yield from read_file(str(part), names, encoding)
            continue
        if isinstance(part, Mapping) and any(isinstance(c, Column) for c in part.values()):
            yield select(part, names)  # a chunk already
            continue
        columns = select(_named_arrays(part), names)
        rows = _check_lengths(columns)
        for start in range(0, rows, ROWS):
            lines = range(first + start, first + min(start + ROWS, rows))
            yield {n: Column(n, v[start : start + ROWS], lines) for n, v in columns.items()}
        first += rows


def _parts(table: object) -> Iterable:
    """Return the tables that a table consists of."""
    if isinstance(table, (str, Path, Mapping)) or hasattr(table, "columns"):
        return [table]
    if isinstance(table, Iterable) and not isinstance(table, (bytes, np.ndarray)):
        return table
    raise ValueError(
        "table must be arrays by name, a DataFrame, a path or several of these, "
        f"got {type(table).__name__}"
    )


def _named_arrays(table: object) -> dict[str, Sequence | np.ndarray]:
    if isinstance(table, Mapping):
        return {name: _array(name, values) for name, values in table.items()}
    if not hasattr(table, "columns"):
        raise ValueError(f"table must be made of tables, got {type(table).__name__}")
    check_names(list(table.columns), "the table")
    return {name: _array(name, table[name]) for name in table.columns}


def _array(name: str, values: object) -> Sequence | np.ndarray:
    if hasattr(values, "to_numpy"):
        return values.to_numpy()
    if isinstance(values, (list, tuple)):
        return values
    array = np.asarray(values)
    if array.ndim == 0:
        raise ValueError(f"column {name} must be an array or a list, got {values!r}")
    return array


def _check_lengths(columns: Mapping[str, Sequence]) -> int:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"columns must be equally long, got {found}")
    return next(iter(lengths.values()), 0)
