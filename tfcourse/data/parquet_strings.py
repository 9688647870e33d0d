"""The strings of a small Parquet file of one column, without pyarrow, https://parquet.apache.org.

Read is what pyarrow writes of distinct strings, such as the index of a table: pages of the first
version, compressed by Snappy. Strings are in a dictionary until it is full, and as they are from
there on.
"""

from collections.abc import Iterator
from pathlib import Path

MAGIC = b"PAR1"
DATA_PAGE, DICTIONARY_PAGE = 0, 2
PLAIN = 0
DICTIONARY_ENCODINGS = (2, 8)


def read_strings(path: str | Path) -> list[str]:
    """Return the strings of a file in their order.

    Raises:
        ValueError: If the file is damaged, or is of another layout.
    """
    data = Path(path).read_bytes()
    try:
        return _strings(data)
    except (LookupError, TypeError, UnicodeDecodeError, RecursionError, MemoryError) as error:
        why = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} must be a Parquet file of distinct strings ({why})") from None
    except ValueError as error:
        raise ValueError(f"{path} must be a Parquet file of distinct strings: {error}") from None


def _strings(data: bytes) -> list[str]:
    if data[:4] != MAGIC or data[-4:] != MAGIC or len(data) < 12:
        raise ValueError(f"it must begin and end with {MAGIC.decode()}")
    found, in_dictionary, referred = [], 0, 0
    for header, page in _pages(data):
        if header[1] == DICTIONARY_PAGE:
            found += _plain_strings(page)
            in_dictionary = len(found)
        elif header[1] == DATA_PAGE and header[5][2] in DICTIONARY_ENCODINGS:
            referred += header[5][1]
        elif header[1] == DATA_PAGE and header[5][2] == PLAIN:
            levels = int.from_bytes(page[:4], "little")  # they say what is null: nothing is
            strings = _plain_strings(page[4 + levels :])
            if len(strings) != header[5][1]:
                raise ValueError(f"a page must have {header[5][1]} strings, got {len(strings)}")
            found += strings
        else:
            raise ValueError(f"a page of the type {header[1]} is unknown")
    # A dictionary is in the order in which its strings came, so that of as many strings, each of
    # them another, it is the column itself.
    if referred != in_dictionary or len(set(found)) < len(found):
        raise ValueError("a string comes twice")
    return found


def _pages(data: bytes) -> Iterator[tuple[dict, bytes]]:
    """Yield each page's header, its fields by number, and what the page holds."""
    end = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    at = 4
    while at < end:
        header, at = _fields(data, at)
        if header[3] < 1:  # to go back would be to go round for ever
            raise ValueError(f"a page must have a byte or more, got {header[3]}")
        page = decompress(data[at : at + header[3]])
        if len(page) != header[2]:
            raise ValueError(f"a page must have {header[2]} bytes, got {len(page)}")
        yield header, page
        at += header[3]
    if at != end:
        raise ValueError("the pages do not end where the footer begins")


def _fields(data: bytes, at: int) -> tuple[dict, int]:
    """Read a struct of Thrift's compact protocol; return its fields by number, and its end."""
    fields, number = {}, 0
    while head := data[at]:
        at += 1
        if not head >> 4:
            raise ValueError("a field's number is unknown")
        number, kind = number + (head >> 4), head & 15
        if kind in (1, 2):
            fields[number] = kind == 1
        elif kind in (5, 6):
            value, at = _varint(data, at)
            fields[number] = value >> 1 ^ -(value & 1)
        elif kind == 8:
            size, at = _varint(data, at)
            fields[number], at = data[at : at + size], at + size
        elif kind == 12:
            fields[number], at = _fields(data, at)
        else:
            raise ValueError(f"a field of the type {kind} is unknown")
    return fields, at + 1


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] > 127:
        if shift > 56:
            raise ValueError("a number has more than 64 bits")
        value, shift, at = value | (data[at] & 127) << shift, shift + 7, at + 1
    return value | data[at] << shift, at + 1


def decompress(data: bytes) -> bytes:
    """Undo raw Snappy: literal bytes, and copies of what came before.

    Raises:
        ValueError: If a copy begins before the start, or the length is not the stated one.
    """
    length, at = _varint(data, 0)
    out = bytearray()
    while at < len(data):
        tag, at = data[at], at + 1
        kind, size = tag & 3, (tag >> 2) + 1
        if kind == 0:
            if size > 60:  # the size itself follows, in one to four bytes
                more = size - 60
                size, at = int.from_bytes(data[at : at + more], "little") + 1, at + more
            out += data[at : at + size]
            at += size
            continue
        if kind == 1:
            back, at, size = tag >> 5 << 8 | data[at], at + 1, (tag >> 2 & 7) + 4
        else:
            wide = 2 if kind == 2 else 4
            back, at = int.from_bytes(data[at : at + wide], "little"), at + wide
        if not 0 < back <= len(out):
            raise ValueError("a copy begins before the start")
        start = len(out) - back
        # A copy may reach into itself: then it repeats its first bytes.
        chunk = out[start : start + size]
        out += (chunk * (-(-size // len(chunk))))[:size]
    if len(out) != length:
        raise ValueError(f"{length} bytes were announced, got {len(out)}")
    return bytes(out)


def _plain_strings(page: bytes) -> list[str]:
    found, at = [], 0
    while at < len(page):
        size = int.from_bytes(page[at : at + 4], "little")
        at += 4
        if at + size > len(page):
            raise ValueError("a string goes beyond its page")
        found.append(page[at : at + size].decode("utf-8"))
        at += size
    return found
