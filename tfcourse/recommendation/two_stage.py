"""Two stages (Covington, Adams & Sargin, 2016), https://doi.org/10.1145/2959100.2959190.

Towers and an index find a hundred candidates among all items, quickly; a network that may look at
user and item together ranks the hundred. What a user has watched is an input of both: a list
changes with the history, and nothing is trained anew.
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

HISTORY = "seen"
ROWS = 4096  # that the ranker gets at a time


class Recommended(NamedTuple):
    """One line of a list.

    Attributes:
        item: Raw id.
        probability: What the ranker says; it orders the list.
        because: The raw id of that item of the history which the ranker looks at most, or `None`
            where the history is empty.
    """

    item: str
    probability: float
    because: str | None


class TwoStage:
    """Lists for anybody of whom something is known.

    Attributes:
        user_tower: From the user's columns to vectors.
        ranker: A DIN from the item's columns and the history to logits.
        pipeline: Of all these columns.
        index: Of the items' vectors; its ids are places in `catalogue`.
        catalogue: Raw columns of the items, `"item"` among them, `(items,)` each.
    """

    def __init__(
        self,
        user_tower: keras.Model,
        ranker: keras.Model,
        pipeline: Pipeline,
        index: TopK,
        catalogue: Mapping[str, np.ndarray],
    ):
        """Put the parts together."""
        self.user_tower, self.ranker, self.pipeline = user_tower, ranker, pipeline
        self.index, self.catalogue = index, dict(catalogue)
        self.items = np.array([str(item) for item in catalogue["item"]])
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
            ValueError: If fewer than `k` items are left, or `candidates` is below `k`.
        """
        without = np.flatnonzero(np.isin(self.items, [str(i) for i in (*history, *exclude)]))
        candidates = min(candidates, len(self.items) - len(without))
        if not 1 <= k <= candidates:
            raise ValueError(f"k must be from 1 to the {candidates} candidates, got {k}")
        row = {name: np.array([value]) for name, value in (facts or {}).items()}
        row[HISTORY] = [[str(item) for item in history]]
        user = self.pipeline.transform(self._with_nothing(row, 1))
        query = self.user_tower({name: user[name] for name in self.user_tower.input})
        _, found = self.index.search(np.asarray(query), candidates, exclude=[without])
        return self._rank(user[HISTORY][0], found[0])[:k]

    def rank(self, histories: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Return the ranker's logits for candidates of many users.

        Args:
            histories: Ids as the pipeline gives them, `(users, length)`.
            found: Places of the candidates in the catalogue, `(users, candidates)`.

        Returns:
            `(users, candidates)`.
        """
        columns = self.pairs(np.repeat(histories, found.shape[1], axis=0), found.ravel())
        logits = [
            np.asarray(self.ranker({n: c[first : first + ROWS] for n, c in columns.items()}))
            for first in range(0, found.size, ROWS)
        ]
        return np.concatenate(logits).reshape(found.shape)

    def pairs(self, histories: np.ndarray, places: np.ndarray) -> dict[str, np.ndarray]:
        """Return the ranker's columns for pairs of a history and an item's place, `(rows,)`."""
        columns = {n: self._columns[n][places] for n in self.ranker.input if n != HISTORY}
        return columns | {HISTORY: histories}

    def attention(self, history: Sequence[str], items: Sequence[str]) -> np.ndarray:
        """Return how much the ranker looks at a history: `(items, history)`, both by raw ids.

        What is unknown, or older than the ranker remembers, has no column.
        """
        row = self.pipeline.transform(self._with_nothing({HISTORY: [list(history)]}, 1))[HISTORY]
        places = [int(np.flatnonzero(self.items == item)[0]) for item in items]
        columns = self.pairs(np.repeat(row, len(places), axis=0), np.array(places))
        return np.asarray(self._attention(columns))[:, row[0] > 0]

    def _rank(self, history: np.ndarray, found: np.ndarray) -> list[Recommended]:
        columns = self.pairs(np.tile(history, (len(found), 1)), found)
        logits = np.asarray(self.ranker(columns)).ravel()
        weights = np.where(columns[HISTORY] > 0, np.asarray(self._attention(columns)), -np.inf)
        names = self.pipeline.vocabulary("item")
        because = [names[i] if i else None for i in history[weights.argmax(axis=1)]]
        order = np.argsort(-logits, kind="stable")
        odds = probabilities(logits)
        return [Recommended(self.items[found[i]], float(odds[i]), because[i]) for i in order]

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
        self.index.save(folder / "index.npz")

    @classmethod
    def load(cls, folder: str | Path, catalogue: Mapping[str, np.ndarray]) -> "TwoStage":
        """Read what `save` wrote.

        Args:
            folder: The folder.
            catalogue: As it was when it was saved.
        """
        folder = Path(folder)
        models = [keras.saving.load_model(folder / f"{n}.keras") for n in ("user_tower", "ranker")]
        pipeline = Pipeline.load(folder / "pipeline.json")
        return cls(*models, pipeline, TopK.load(folder / "index.npz"), catalogue)
