"""Two stages (Covington, Adams & Sargin, 2016), https://doi.org/10.1145/2959100.2959190.

Towers and an index find a hundred candidates among all items, quickly; a network that may look at
user and item together ranks the hundred, and is told how near the towers see them. What a user has
watched is an input of both: a list changes with the history, and nothing is trained anew.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from tfcourse.data.cache import atomic_file
from tfcourse.data.pipeline import Pipeline
from tfcourse.recommendation.index import TopK
from tfcourse.recommendation.interest import attention_of
from tfcourse.recommendation.metrics import probabilities

HISTORY, NEARNESS = "seen", "nearness"
ROWS = 4096  # that the ranker gets at a time


class Recommended(NamedTuple):
    """One line of a list.

    Attributes:
        item: Raw id.
        probability: What the ranker says; it orders the list.
        because: The raw id of that item of the history whose vector is nearest to the item's, or
            `None` where the history is empty.
    """

    item: str
    probability: float
    because: str | None


class TwoStage:
    """Lists for anybody of whom something is known.

    Attributes:
        user_tower: From the user's columns to vectors.
        ranker: A DIN from the item's columns, the history, and the product of both vectors, the
            column "nearness", to logits.
        pipeline: Of all these columns; it leaves "nearness" as it is.
        vectors: Of the items, of length 1, `(items, dim)`.
        index: Of these vectors; its ids are places in `catalogue`.
        catalogue: Raw columns of the items, `"item"` among them, `(items,)` each.
    """

    def __init__(
        self,
        user_tower: keras.Model,
        ranker: keras.Model,
        pipeline: Pipeline,
        vectors: np.ndarray,
        catalogue: Mapping[str, np.ndarray],
    ):
        """Put the parts together."""
        self.user_tower, self.ranker, self.pipeline = user_tower, ranker, pipeline
        self.vectors, self.index, self.catalogue = vectors, TopK(vectors), dict(catalogue)
        self.items = np.array([str(item) for item in catalogue["item"]])
        self._places = {item: place for place, item in enumerate(self.items)}
        self._attention = attention_of(ranker, HISTORY)
        self._columns = pipeline.transform(self._with_nothing(self.catalogue, len(self.items)))

    def recommend(
        self,
        history: Sequence[str],
        facts: Mapping[str, object] | None = None,
        *,
        k: int = 10,
        candidates: int = 100,
        exclude: Sequence[str] = (),
    ) -> list[Recommended]:
        """Return what a user may like.

        Args:
            history: Raw ids of what he liked, the newest first. Unknown ones are passed over.
            facts: Raw columns of the user, one value each; what is left out is unknown.
            k: How many.
            candidates: How many of the catalogue are ranked.
            exclude: Raw ids that he must not get, besides the history.

        Returns:
            At most `k`, the best first.

        Raises:
            ValueError: If fewer than `k` items are left, `candidates` is below `k`, or a fact is no
                column of the user tower.
        """
        known = [name for name in self.user_tower.input if name != HISTORY]
        for name in facts or {}:
            if name not in known:
                raise ValueError(f"facts must be among {', '.join(known)}, got {name!r}")
        without = np.flatnonzero(np.isin(self.items, [str(i) for i in (*history, *exclude)]))
        candidates = min(candidates, len(self.items) - len(without))
        if not 1 <= k <= candidates:
            raise ValueError(f"k must be from 1 to the {candidates} candidates, got {k}")
        row = {name: np.array([value]) for name, value in (facts or {}).items()}
        row[HISTORY] = [[str(item) for item in history]]
        user = self.pipeline.transform(self._with_nothing(row, 1))
        query = self.user_tower({name: user[name] for name in self.user_tower.input})
        near, found = self.index.search(np.asarray(query), candidates, exclude=[without])
        logits = self.rank(user[HISTORY], found, near)[0]
        order = np.argsort(-logits, kind="stable")[:k]
        because = self._nearest(user[HISTORY][0], found[0][order])
        odds = probabilities(logits[order])
        lines = zip(self.items[found[0][order]], odds, because, strict=True)
        return [Recommended(str(item), float(p), reason) for item, p, reason in lines]

    def rank(self, histories: np.ndarray, found: np.ndarray, near: np.ndarray) -> np.ndarray:
        """Return the ranker's logits for candidates of many users.

        Args:
            histories: Ids as the pipeline gives them, `(users, length)`.
            found: Places of the candidates in the catalogue, `(users, candidates)`.
            near: How near the towers see them, `(users, candidates)`.

        Returns:
            `(users, candidates)`.
        """
        histories = np.repeat(histories, found.shape[1], axis=0)
        columns = self.pairs(histories, found.ravel(), near.ravel())
        logits = [
            np.asarray(self.ranker({n: c[first : first + ROWS] for n, c in columns.items()}))
            for first in range(0, found.size, ROWS)
        ]
        return np.concatenate(logits).reshape(found.shape)

    def pairs(
        self, histories: np.ndarray, places: np.ndarray, near: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return the ranker's columns for pairs of a history and an item's place, `(rows,)`."""
        given = {HISTORY: histories, NEARNESS: near.astype(np.float32)}
        return {n: given[n] if n in given else self._columns[n][places] for n in self.ranker.input}

    def attention(self, history: Sequence[str], items: Sequence[str]) -> np.ndarray:
        """Return how much the ranker looks at a history: `(items, history)`, both by raw ids.

        What is unknown, or older than the ranker remembers, has no column.

        Raises:
            ValueError: If an item is not in the catalogue.
        """
        if unknown := [item for item in items if item not in self._places]:
            raise ValueError(f"items must be in the catalogue, got {unknown[0]!r}")
        row = self.pipeline.transform(self._with_nothing({HISTORY: [list(history)]}, 1))[HISTORY]
        places = [self._places[item] for item in items]
        histories, near = np.repeat(row, len(places), axis=0), np.zeros(len(places))
        columns = self.pairs(histories, np.array(places), near)
        return np.asarray(self._attention(columns))[:, row[0] > 0]

    def _nearest(self, history: np.ndarray, places: np.ndarray) -> list[str | None]:
        """Return for each item the one of the history, given by ids, that is nearest to it."""
        names = self.pipeline.vocabulary("item")[history[history > 0]]
        known = [self._places[name] for name in names if name in self._places]
        if not known:
            return [None] * len(places)
        nearest = (self.vectors[places] @ self.vectors[known].T).argmax(axis=1)
        return self.items[known][nearest].tolist()

    def _with_nothing(self, table: Mapping[str, object], rows: int) -> dict[str, object]:
        """Add the columns of the pipeline that a table lacks, without a value."""
        empty = {name: [None] * rows for name in self.pipeline.columns}
        return empty | {HISTORY: [[]] * rows} | {n: table[n] for n in table if n in empty}

    def save(self, folder: str | Path) -> None:
        """Write the parts into a folder."""
        folder = Path(folder)
        for name in ("user_tower", "ranker"):
            with atomic_file(folder / f"{name}.keras") as file:
                getattr(self, name).save(file)
        self.pipeline.save(folder / "pipeline.json")
        columns = {name: _plain(np.asarray(column)) for name, column in self.catalogue.items()}
        for name, arrays in (("vectors", {"vectors": self.vectors}), ("catalogue", columns)):
            with atomic_file(folder / f"{name}.npz") as file, open(file, "wb") as stream:
                np.savez(stream, **arrays)

    @classmethod
    def load(cls, folder: str | Path) -> "TwoStage":
        """Read what `save` wrote."""
        folder = Path(folder)
        models = [keras.saving.load_model(folder / f"{n}.keras") for n in ("user_tower", "ranker")]
        pipeline = Pipeline.load(folder / "pipeline.json")
        vectors = np.load(folder / "vectors.npz")["vectors"]
        return cls(*models, pipeline, vectors, dict(np.load(folder / "catalogue.npz")))


def _plain(column: np.ndarray) -> np.ndarray:
    """Return a column without objects, which a file of NumPy would have to pickle."""
    if column.dtype != object:
        return column
    return np.array(["" if value is None else str(value) for value in column])
