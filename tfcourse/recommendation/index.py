"""The k best items for each query, exactly, block by block."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import tensorflow as tf

from tfcourse.recommendation.catalogue import (
    check_catalogue,
    check_k,
    check_queries,
    excluded_pairs,
    most_excluded,
    read,
    write,
)

QUERIES = 1024  # in a block
SCORES = 2**22  # in a block of queries and items: 16 MB, which a processor's cache may hold
GROUP = 32  # items that are looked at together, by the greatest of their scores
FIRST = 1024  # items that are looked at one by one, before there is a k-th best to beat


class TopK:
    """Exact search: the k items whose vectors have the greatest product with a query's.

    A matrix product gives a block of scores. What takes time then is the choice, so each query
    remembers its k best so far, and a block is reduced to the greatest score of every 32 items.
    Only a group whose greatest beats the k-th best is looked into: after a few blocks, hardly
    any. Memory is that of the vectors, of the answer, and of a block.

    Of equal scores that with the lower id comes first.

    Attributes:
        ids: Of the items, in ascending order.
        similarity: `"dot"` or `"cosine"`.
    """

    def __init__(self, vectors: np.ndarray, ids: Sequence | None = None, similarity: str = "dot"):
        """Keep a catalogue.

        Args:
            vectors: One for each item, `(items, dim)`; kept as float32.
            ids: Of the items, whole numbers or texts; `None` is 0, 1, 2 and so on.
            similarity: `"dot"`, or `"cosine"`: the product of vectors of length 1.

        Raises:
            ValueError: If there is no item, a number is not finite, or two ids are equal.
        """
        vectors, self.ids = check_catalogue(vectors, ids, similarity)
        self.similarity = similarity
        self._vectors = tf.constant(vectors)

    def search(
        self, queries: np.ndarray, k: int, exclude: Sequence[Sequence] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the k best items of each query, the best first.

        Args:
            queries: `(rows, dim)`.
            k: How many.
            exclude: For each row the ids that it must not get, such as those of items already
                seen: a list of lists, or an array. Ids that the catalogue lacks are ignored.

        Returns:
            Scores and ids, both `(rows, k)`.

        Raises:
            ValueError: If the queries don't fit, or a row has fewer than k items to choose from.
        """
        queries = check_queries(queries, self._vectors.shape[1], self.similarity)
        excluded = excluded_pairs(exclude, len(queries), self.ids)
        check_k(k, len(self.ids), excluded)
        scores = np.empty((len(queries), k), np.float32)
        items = np.empty((len(queries), k), np.int32)
        for first in range(0, len(queries), QUERIES):
            rows = slice(first, first + QUERIES)
            its = excluded[np.searchsorted(excluded[:, 0], first) :]
            its = its[: np.searchsorted(its[:, 0], rows.stop)] - [first, 0]
            scores[rows], items[rows] = self._search(queries[rows], k, its)
        return scores, self.ids[items]

    def _search(self, queries: np.ndarray, k: int, excluded: np.ndarray):
        """Return scores and positions of the k best of a block of queries."""
        queries = tf.constant(queries)
        excluded = excluded[np.argsort(excluded[:, 1], kind="stable")]
        first, *others = _blocks(len(self.ids), len(queries), k + most_excluded(excluded))
        scores = _scores(queries, self._vectors[first], _places(excluded, first)).numpy()
        items = np.broadcast_to(np.arange(first.stop, dtype=np.int32), scores.shape)
        scores, items, threshold = _keep([scores], [items], k)
        found, where = [scores], [items]
        for block in others:
            places = _places(excluded, block)
            scores, items = _better(queries, self._vectors[block], places, threshold, block.start)
            found.append(scores.numpy())
            where.append(items.numpy())
            if sum(scores.shape[1] for scores in found[1:]) >= max(k, 128):
                scores, items, threshold = _keep(found, where, k)
                found, where = [scores], [items]
        scores, items, _ = _keep(found, where, k)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(items, order, 1)

    def save(self, path: str | Path) -> None:
        """Write the index to a file, at once."""
        data = {"vectors": self._vectors.numpy(), "ids": self.ids, "similarity": self.similarity}
        write(path, data)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ValueError: If the file is none that `save` wrote, or is damaged.
        """
        data = read(path, "vectors")
        index = cls(data["vectors"], data["ids"])
        index.similarity = str(data["similarity"])  # the vectors have their length of 1 already
        return index


MATRIX = tf.TensorSpec((None, None))
PLACES = tf.TensorSpec((None, 2), tf.int32)


@tf.function(input_signature=[MATRIX, MATRIX, PLACES])
def _scores(queries, vectors, places):
    """Return all scores `(rows, items)`; at `places`, pairs of a row and an item, -inf."""
    scores = tf.matmul(queries, vectors, transpose_b=True)
    return tf.tensor_scatter_nd_update(scores, places, tf.fill([tf.shape(places)[0]], -np.inf))


@tf.function(
    input_signature=[MATRIX, MATRIX, PLACES, tf.TensorSpec((None,)), tf.TensorSpec((), tf.int32)]
)
def _better(queries, vectors, places, threshold, start):
    """Return the scores above each row's threshold, and their items; rows are filled with -inf."""
    scores = _scores(queries, vectors, places)
    groups = tf.reshape(scores, (tf.shape(scores)[0], -1, GROUP))
    hopeful = tf.where(tf.reduce_max(groups, axis=2) > threshold[:, None])
    scores = tf.gather_nd(groups, hopeful)
    found = tf.where(scores > tf.gather(threshold, hopeful[:, 0])[:, None])
    group = tf.gather(hopeful, found[:, 0])
    items = start + tf.cast(group[:, 1] * GROUP + found[:, 1], tf.int32)
    # The places are in order of rows and items, and so is what is found there.
    ends = tf.searchsorted(group[:, 0], tf.range(1, tf.size(threshold, tf.int64) + 1))
    parts = [
        tf.RaggedTensor.from_row_splits(flat, tf.concat([[0], ends], 0), validate=False)
        for flat in (tf.gather_nd(scores, found), items)
    ]
    return parts[0].to_tensor(-np.inf), parts[1].to_tensor(0)


def _keep(
    scores: list[np.ndarray], items: list[np.ndarray], k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Leave of each row the k best and what equals the k-th, in order of items; return that too."""
    scores, items = np.concatenate(scores, axis=1), np.concatenate(items, axis=1)
    place = scores.shape[1] - k
    threshold = np.partition(scores, place, axis=1)[:, place]
    rows, columns = np.nonzero(scores >= threshold[:, None])
    counts = np.bincount(rows, minlength=len(scores))
    slots = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    best = np.full((len(scores), counts.max(initial=k)), -np.inf, np.float32)
    where = np.zeros(best.shape, np.int32)
    best[rows, slots], where[rows, slots] = scores[rows, columns], items[rows, columns]
    return best, where, threshold


def _blocks(items: int, queries: int, least: int) -> Iterator[slice]:
    """Split the items: the first block has what beginning takes, all others whole groups."""
    limit = max(SCORES // queries // GROUP, 1) * GROUP
    start = max(FIRST, least)
    start = min(items, start + (items - start) % GROUP)
    yield slice(0, start)
    while start < items:
        # No more than has been looked at: else most of a block could be better than that.
        stop = min(items, start + min(limit, start // GROUP * GROUP))
        yield slice(start, stop)
        start = stop


def _places(excluded: np.ndarray, block: slice) -> tf.Tensor:
    """Return the excluded pairs that lie in a block of items, relative to it."""
    first, last = np.searchsorted(excluded[:, 1], [block.start, block.stop])
    return tf.constant(excluded[first:last] - [0, block.start], tf.int32, (last - first, 2))
