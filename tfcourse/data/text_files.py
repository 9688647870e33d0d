"""Texts from files, their labels, and batches of texts of similar length."""

from collections.abc import Sequence, Sized
from numbers import Integral
from pathlib import Path

import numpy as np

from tfcourse.data.tokenizers import short


def read_texts(path: str | Path, encoding: str = "utf-8") -> list[str]:
    """Read a file, a text a line; an empty line is an empty text, as labels may count on it.

    Args:
        path: Of the file; a byte order mark is passed over.
        encoding: "utf-8", "gb18030", "latin-1" ...

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is empty or not in this encoding, or there is no such encoding.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    data = Path(path).read_bytes()
    try:
        text = data.decode(encoding)
    except LookupError:
        raise ValueError(f"encoding must be one that Python knows, got {encoding!r}") from None
    except UnicodeDecodeError as error:
        place = f"{data[error.start]:#04x} at position {error.start}"
        raise ValueError(f"{path} must be {encoding} text, got the byte {place}") from None
    if "\0" in text:  # UTF-16 read as UTF-8 is full of them, and decodes without an error
        place = len(text[: text.index("\0")].encode(encoding))
        raise ValueError(f"{path} must be {encoding} text, got the byte 0x00 at position {place}")
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if not text.strip():
        raise ValueError(f"{path} must have a text, got an empty file")
    # Not splitlines: it also cuts at form feeds and the like, which would shift rows and labels.
    return text.removesuffix("\n").split("\n")


def check_labels_match(texts: Sized, labels: Sized) -> None:
    """Refuse labels that are not one a text.

    Raises:
        ValueError: If there are more or fewer labels than texts.
    """
    if len(labels) != len(texts):
        raise ValueError(f"labels must be as many as the {len(texts)} texts, got {len(labels)}")


def buckets(
    lengths: Sequence[int],
    batch_size: int,
    boundaries: int | Sequence[int] = 8,
    seed: int = 0,
) -> list[np.ndarray]:
    """Put rows of similar length into batches, so that little of a batch is padding.

    Args:
        lengths: Tokens of each row.
        batch_size: Rows in a batch; the last one of each bucket has what is left.
        boundaries: The greatest length of each bucket, rising, what is longer being one bucket
            more; or how many buckets of about as many rows each.
        seed: Of the order of rows in a bucket and of the batches; another one for every epoch.

    Returns:
        Row numbers; every row is in one batch, once.

    Raises:
        ValueError: If an argument is not as it should be.
    """
    lengths = np.asarray(lengths)
    if lengths.ndim != 1 or not lengths.size or lengths.dtype.kind not in "iu" or lengths.min() < 0:
        raise ValueError(f"lengths must be whole numbers from 0, got {short(lengths.tolist())}")
    at_least(1, batch_size=batch_size)
    if isinstance(boundaries, Integral):
        at_least(1, boundaries=boundaries)
        shares = np.arange(1, boundaries) / boundaries
        limits = np.quantile(lengths, shares, method="inverted_cdf")
    else:
        limits = np.asarray(boundaries)
        if limits.ndim != 1 or (np.diff(limits) <= 0).any():
            raise ValueError(f"boundaries must rise, got {short(limits.tolist())}")
    place, random = np.searchsorted(limits, lengths), np.random.default_rng(seed)
    batches = []
    for bucket in np.unique(place):
        rows = random.permutation(np.flatnonzero(place == bucket))
        batches += np.split(rows, range(batch_size, len(rows), batch_size))
    return [batches[i] for i in random.permutation(len(batches))]


def at_least(least: int, **field: object) -> None:
    """Raise ValueError if a value, given by its name, is no whole number of at least this."""
    ((name, value),) = field.items()
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
