"""About the k best items for each query, through faiss (Douze et al., 2024).

https://arxiv.org/abs/2401.08281
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from tfcourse.recommendation.catalogue import (
    check_catalogue,
    check_k,
    check_queries,
    excluded_pairs,
    most_excluded,
    read,
    write,
)
from tfcourse.recommendation.index import TopK


class ApproximateIndex:
    """Approximate search by faiss: a graph of neighbours, or lists of what lies together.

    `"hnsw"` (Malkov & Yashunin, 2020, https://arxiv.org/abs/1603.09320) walks a graph from item to
    nearer item. `"ivf"` looks only into the lists whose centres are nearest to the query. Neither
    looks at all items: `recall` says what that loses.

    Attributes:
        ids: Of the items, in ascending order.
        similarity: `"dot"` or `"cosine"`.
        kind: `"hnsw"` or `"ivf"`.
    """

    def __init__(
        self,
        vectors: np.ndarray,
        ids: Sequence | None = None,
        similarity: str = "dot",
        *,
        kind: str = "hnsw",
        effort: int = 128,
    ):
        """Build an index.

        Args:
            vectors: One for each item, `(items, dim)`.
            ids: Of the items, whole numbers or texts; `None` is 0, 1, 2 and so on.
            similarity: `"dot"`, or `"cosine"`: the product of vectors of length 1.
            kind: `"hnsw"` or `"ivf"`.
            effort: How hard to search: items that the walk keeps in view, or lists per thousand.

        Raises:
            ImportError: If faiss is missing.
            ValueError: As `TopK`, or if there is no such kind, or no effort.
        """
        if kind not in ("hnsw", "ivf"):
            raise ValueError(f"kind must be 'hnsw' or 'ivf', got {kind!r}")
        if effort < 1:
            raise ValueError(f"effort must be 1 or more, got {effort}")
        faiss = _faiss()
        vectors, self.ids = check_catalogue(vectors, ids, similarity)
        self.similarity, self.kind, self.effort = similarity, kind, effort
        dim = vectors.shape[1]
        if kind == "hnsw":
            self._index = faiss.IndexHNSWFlat(dim, 32, faiss.METRIC_INNER_PRODUCT)
            self._index.hnsw.efConstruction = 128
        else:
            lists = max(1, round(len(vectors) ** 0.5))
            centres = faiss.IndexFlatIP(dim)
            self._index = faiss.IndexIVFFlat(centres, dim, lists, faiss.METRIC_INNER_PRODUCT)
            self._index.cp.min_points_per_centroid = 1
            self._index.train(vectors)
        self._index.add(vectors)

    def search(
        self, queries: np.ndarray, k: int, exclude: Sequence[Sequence] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return about the k best items of each query, the best first.

        Args:
            queries: `(rows, dim)`.
            k: How many.
            exclude: As in `TopK.search`.

        Returns:
            Scores and ids, both `(rows, k)`. Where too few are found, the rest has the score -inf
            and the id 0, or an empty text.

        Raises:
            ValueError: As `TopK.search`.
        """
        queries = check_queries(queries, self._index.d, self.similarity)
        excluded = excluded_pairs(exclude, len(queries), self.ids)
        check_k(k, len(self.ids), excluded)
        more = k + most_excluded(excluded)
        if self.kind == "hnsw":
            self._index.hnsw.efSearch = max(self.effort, more)
        else:
            self._index.nprobe = max(1, round(self._index.nlist * min(1, self.effort / 1000)))
        scores, items = self._index.search(queries, more)
        row = np.arange(len(queries))[:, None]
        banned = np.isin(row * len(self.ids) + items, excluded @ [len(self.ids), 1])
        scores[banned | (items < 0)] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, items = (np.take_along_axis(x, order, 1) for x in (scores, items))
        return scores, np.where(np.isinf(scores), np.zeros((), self.ids.dtype), self.ids[items])

    def recall(self, queries: np.ndarray, k: int, exact: TopK) -> float:
        """Return which part of the exact answers is found, the mean over queries.

        Args:
            queries: `(rows, dim)`.
            k: How many items are looked for.
            exact: An exact index of the same items.
        """
        pairs = zip(self.search(queries, k)[1], exact.search(queries, k)[1], strict=True)
        return float(np.mean([np.isin(true, found).mean() for found, true in pairs]))

    def save(self, path: str | Path) -> None:
        """Write the index to a file, at once."""
        data = {"ids": self.ids, "similarity": self.similarity, "kind": self.kind}
        write(path, data | {"effort": self.effort, "faiss": _faiss().serialize_index(self._index)})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ImportError: If faiss is missing.
            ValueError: If the file is none that `save` wrote, or is damaged.
        """
        faiss, data = _faiss(), read(path, "faiss")
        index = cls.__new__(cls)
        index._index = faiss.deserialize_index(data["faiss"])
        index.ids, index.effort = data["ids"], int(data["effort"])
        index.similarity, index.kind = str(data["similarity"]), str(data["kind"])
        return index


def _faiss():
    try:
        import faiss
    except ImportError as error:
        raise ImportError("ApproximateIndex needs faiss: pip install 'tfcourse[faiss]'") from error
    return faiss
