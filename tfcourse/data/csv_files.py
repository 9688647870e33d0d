"""CSV and TSV files, by chunks: however large a file is, some rows of it are in memory."""

import csv
import itertools
from collections.abc import Iterable, Iterator, Sequence

from tfcourse.data.raw_columns import Chunk, Column, check_names, select

ROWS = 16_384  # of a chunk


def read_file(
    path: str, names: Sequence[str] | None = None, encoding: str = "utf-8"
) -> Iterator[Chunk]:
    """Read a file: a header with tabs is separated by tabs, any other by commas.

    Args:
        path: Of the file; quotes are as in RFC 4180, empty lines are passed over.
        names: Which columns are wanted; all by default.
        encoding: One that has a line end of one byte, unlike UTF-16.

    Yields:
        Columns of texts by name.

    Raises:
        ValueError: If the file is empty or not in this encoding, a column is missing or there
            twice, or a line has more or fewer fields than the header.
    """
    with open(path, "rb") as file:
        lines = _decode(itertools.islice(file, 1), path, 1, encoding)
        if not lines:
            raise ValueError(f"{path} must have a header and rows, got an empty file")
        separator = "\t" if "\t" in lines[0] else ","
        header = next(csv.reader([lines[0].removeprefix("\ufeff")], delimiter=separator), [])
        check_names(header, path)
        places = select({n: i for i, n in enumerate(header)}, names, f" in {path}")
        for first in itertools.count(2, ROWS):
            if not (lines := _decode(itertools.islice(file, ROWS), path, first, encoding)):
                return
            split = _split(lines, separator, len(header))
            if split is None:  # quotes may go over lines: the reader of the standard library
                rest = _decode_all(file, path, first + len(lines), encoding)
                whole = (line + "\n" for line in itertools.chain(lines, rest))
                records = csv.reader(whole, delimiter=separator, strict=True)
                yield from _read_records(records, places, len(header), path, first - 1)
                return
            numbered = range(first, first + len(lines))
            yield {n: Column(n, split[i :: len(header)], numbered, path) for n, i in places.items()}


def _split(lines: list[str], separator: str, width: int) -> list[str] | None:
    """Return the fields of plain lines, or `None` if there is a quote, or a line is odd."""
    whole = "\n".join(lines)
    if '"' in whole or "" in lines or any(line.count(separator) != width - 1 for line in lines):
        return None
    return whole.replace("\n", separator).split(separator)


def _decode(lines: Iterable[bytes], path: str, first: int, encoding: str) -> list[str]:
    whole = b"".join(lines)
    try:
        text = whole.decode(encoding)
    except UnicodeDecodeError as error:
        line = first + whole.count(b"\n", 0, error.start)
        raise ValueError(
            f"{path} must be {encoding} text, got the byte {whole[error.start]:#04x} in line {line}"
        ) from None
    return text.removesuffix("\n").replace("\r\n", "\n").removesuffix("\r").split("\n") * bool(text)


def _decode_all(file, path: str, first: int, encoding: str) -> Iterator[str]:
    while lines := _decode(itertools.islice(file, ROWS), path, first, encoding):
        yield from lines
        first += len(lines)


def _read_records(records, places: dict[str, int], width: int, path: str, before: int):
    rows, numbered = [], []
    try:
        for record in records:
            if record and len(record) != width:
                raise ValueError(
                    f"{path} must have {width} fields in a line as its header has, "
                    f"got {len(record)} in line {before + records.line_num}"
                )
            if record:
                rows.append(record)
                numbered.append(before + records.line_num)
            if len(rows) == ROWS:
                yield _columns_of(rows, numbered, places, path)
                rows, numbered = [], []
    except csv.Error as error:
        line = before + records.line_num
        raise ValueError(f"{path} can't be read as CSV in line {line}: {error}") from None
    if rows:
        yield _columns_of(rows, numbered, places, path)


def _columns_of(rows: list, numbered: list[int], places: dict[str, int], path: str) -> Chunk:
    return {n: Column(n, [row[i] for row in rows], numbered, path) for n, i in places.items()}
