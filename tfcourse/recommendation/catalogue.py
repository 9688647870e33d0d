"""What both indices share: a catalogue of vectors with ids, queries, and files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfcourse.data.cache import DAMAGED, atomic_file

SIMILARITIES = ("dot", "cosine")


def check_catalogue(
    vectors: np.ndarray, ids: Sequence | None, similarity: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors and ids in ascending order of ids, checked."""
    if similarity not in SIMILARITIES:
        raise ValueError(f"similarity must be one of {SIMILARITIES}, got {similarity!r}")
    vectors = np.ascontiguousarray(vectors, np.float32)
    if vectors.ndim != 2 or not vectors.size:
        raise ValueError(f"vectors must be a matrix (items, dim), got shape {vectors.shape}")
    if not np.isfinite(vectors).all():
        row = int(np.nonzero(~np.isfinite(vectors).all(axis=1))[0][0])
        raise ValueError(f"vectors must be finite, got {vectors[row]} in row {row}")
    if ids is None:
        ids = np.arange(len(vectors))
    else:
        ids = _as_ids(ids)
        if ids.shape != (len(vectors),) or ids.dtype.kind not in "iU":
            raise ValueError(
                f"ids must be whole numbers or texts, one for each of {len(vectors)} vectors, "
                f"got {ids.dtype} of shape {ids.shape}"
            )
        order = np.argsort(ids, kind="stable")
        ids, vectors = ids[order], vectors[order]
        if (twice := ids[1:][ids[1:] == ids[:-1]]).size:
            raise ValueError(f"ids must differ, got {twice[0]} twice")
    return directions(vectors) if similarity == "cosine" else vectors, ids


def _as_ids(ids: Sequence) -> np.ndarray:
    """Return ids as an array with one type for texts, and with a sign for whole numbers."""
    ids = np.asarray(ids)
    if ids.dtype == object and all(isinstance(name, str) for name in ids):
        return ids.astype(str)
    if ids.dtype.kind == "u" and ids.size and ids.max() < 2**63:
        return ids.astype(np.int64)
    return ids


def check_queries(queries: np.ndarray, dim: int, similarity: str) -> np.ndarray:
    """Return queries as the index needs them, checked."""
    queries = np.ascontiguousarray(queries, np.float32)
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise ValueError(f"queries must have the shape (rows, {dim}), got {queries.shape}")
    if not np.isfinite(queries).all():
        raise ValueError("queries must be finite, got a number that is not")
    return directions(queries) if similarity == "cosine" else queries


def directions(vectors: np.ndarray) -> np.ndarray:
    """Return vectors of length 1; one without a direction stays 0."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def excluded_pairs(exclude: Sequence[Sequence] | None, queries: int, ids: np.ndarray) -> np.ndarray:
    """Return which items are excluded as pairs of a row and a position, in order of rows."""
    if exclude is None:
        return np.zeros((0, 2), np.int64)
    if len(exclude) != queries:
        raise ValueError(
            f"exclude must have a row for each of {queries} queries, got {len(exclude)}"
        )
    rows = [np.asarray(row) for row in exclude]
    kinds, what = ("iu", "whole numbers") if ids.dtype.kind == "i" else ("UO", "texts")
    for number, row in enumerate(rows):
        if row.ndim != 1 or (row.size and row.dtype.kind not in kinds):
            raise ValueError(
                f"exclude must have lists of ids, {what}, got {exclude[number]!r} in row {number}"
            )
    lengths = [len(row) for row in rows]
    if not sum(lengths):
        return np.zeros((0, 2), np.int64)
    # Neither is a text cut to the length of the longest id, nor a number to the bits of the ids.
    dtype = str if what == "texts" else np.int64
    named = np.concatenate([row.astype(dtype) for row in rows])
    position = np.searchsorted(ids, named).clip(max=len(ids) - 1)
    pairs = np.stack([np.repeat(np.arange(len(rows)), lengths), position], axis=1)
    return np.unique(pairs[ids[position] == named], axis=0)


def most_excluded(excluded: np.ndarray) -> int:
    """Return how many items the row that may have the fewest may not have."""
    return int(np.bincount(excluded[:, 0]).max()) if len(excluded) else 0


def check_k(k: int, items: int, excluded: np.ndarray) -> None:
    """Refuse a k for which a row has too few items."""
    left = items - most_excluded(excluded)
    if not 1 <= k <= left:
        raise ValueError(f"k must be from 1 to the {left} items that can be had, got {k}")


def write(path: str | Path, data: dict) -> None:
    """Write arrays and texts to a file, at once."""
    with atomic_file(path) as new, open(new, "wb") as file:
        np.savez(file, **data)


def read(path: str | Path, key: str) -> dict[str, np.ndarray]:
    """Read what `write` wrote, if `key` is in it."""
    try:
        with open(path, "rb") as file:
            data = dict(np.load(file, allow_pickle=False))
        data[key]
    except DAMAGED as error:
        raise ValueError(f"{path} must be an index that was saved, got {error!r}") from error
    return data
