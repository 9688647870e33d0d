"""From raw tables to the arrays that a recommender takes; learned from the training part alone.

One pass over the training part teaches vocabularies, means and ranges; other rows are looked up:

    pipeline = Pipeline([Vocabulary("user"), Vocabulary("item"), Sequence("seen")]).fit("train.csv")
    model = build_din(pipeline.features)
    arrays = pipeline.transform("test.csv")

The result is saved as JSON, and goes out with the model through `recommendation.serving.export`.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tfcourse.data.features import Feature
from tfcourse.data.pipeline_json import read, write
from tfcourse.data.preparing import (
    Bucketed,
    Combined,
    Hashed,
    Normalised,
    Sequence,
    Spec,
    Vocabulary,
    check_specs,
)
from tfcourse.data.raw_columns import Chunk, Column, texts
from tfcourse.data.tables import read_chunks

__all__ = [
    "Bucketed",
    "Combined",
    "Hashed",
    "Normalised",
    "Pipeline",
    "Sequence",
    "Vocabulary",
]


class Pipeline:
    """Raw columns to the columns of a model.

    Attributes:
        specs: What becomes of each raw column.
        learned: What training taught, by column: texts or numbers; empty before `fit`.
    """

    def __init__(self, specs: Iterable[Spec]):
        """Say what becomes of each column.

        Args:
            specs: In the order that the model shall have them.

        Raises:
            ValueError: If there is none, a name is there twice, or a sequence or a combination
                needs a category that is not there.
        """
        self.specs = tuple(specs)
        check_specs(self.specs)
        self.learned: dict[str, list] = {}
        self._ids = {}

    def fit(self, table: object) -> "Pipeline":
        """Learn vocabularies, means and ranges in one pass; what was learned before is forgotten.

        Args:
            table: The training part alone: arrays or lists by name, a DataFrame, the path of a CSV
                or TSV file, or an iterable of these, which need not fit into memory.

        Returns:
            The pipeline.

        Raises:
            ValueError: If a column is missing or has no value at all, or a value is of another
                kind; the message names column, row (from 0; of a file, the line) and value.
        """
        learners = {s.name: s.learner() for s in self.specs if not isinstance(s, Combined)}
        rows = 0
        for chunk in read_chunks(table, self.columns):
            for name, learner in learners.items():
                learner.add(chunk[name])
            rows += len(next(iter(chunk.values())).values)
        if not rows:
            raise ValueError("table must have at least one row, got none")
        learned = {name: learner.learned() for name, learner in learners.items()}
        for spec in self.specs:
            if learned.setdefault(spec.name, []) is None:
                often = getattr(spec, "min_count", 1)
                what = "value" if often == 1 else f"value that occurs {often} times"
                raise ValueError(f"column {spec.name} must have a {what}, got none in {rows} rows")
        self._learn(learned)
        return self

    @property
    def columns(self) -> list[str]:
        """The raw columns that a table must have."""
        return [spec.name for spec in self.specs if not isinstance(spec, Combined)]

    @property
    def features(self) -> list[Feature]:
        """The columns of the model, in the order of `specs`."""
        self._check_fitted()
        found: dict[str, Feature] = {}
        # Histories and crosses are made of categories that may come later in the list.
        for spec in sorted(self.specs, key=lambda spec: isinstance(spec, (Sequence, Combined))):
            found[spec.name] = spec.feature(self.learned[spec.name], found)
        return [found[spec.name] for spec in self.specs]

    def feature(self, name: str) -> Feature:
        """Return the column of this name."""
        found = {feature.name: feature for feature in self.features}
        if name not in found:
            raise ValueError(f"name must be one of {', '.join(found)}, got {name}")
        return found[name]

    def vocabulary(self, name: str) -> np.ndarray:
        """Return the raw values of a `Vocabulary` by id; that of id 0 is ""."""
        self._check_fitted()
        names = [spec.name for spec in self.specs if isinstance(spec, Vocabulary)]
        if name not in names:
            raise ValueError(f"name must be a vocabulary: {', '.join(names) or 'none'}, got {name}")
        return np.array(["", *self.learned[name]], object)

    def transform(self, table: object) -> dict[str, np.ndarray]:
        """Turn a table into what a model takes.

        Args:
            table: As in `fit`; columns that no spec names are not looked at.

        Returns:
            Arrays by name: numbers `(rows,)` of float32, ids `(rows,)` and histories
            `(rows, length)` of int32.

        Raises:
            ValueError: If the pipeline is not fitted, or the table is not as in `fit`.
        """
        self._check_fitted()
        parts = [self.transform_chunk(chunk) for chunk in read_chunks(table, self.columns)]
        parts = parts or [self.transform_chunk({n: Column(n, [], []) for n in self.columns})]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def transform_chunk(self, chunk: Chunk) -> dict[str, np.ndarray]:
        """Turn a chunk of `read_chunks` into what a model takes."""
        return {
            spec.name: self._apply(spec, chunk[spec.name])
            for spec in self.specs
            if not isinstance(spec, Combined)
        }

    def dataset(
        self,
        paths: object,
        batch_size: int,
        *,
        label: str = "label",
        threshold: float | None = None,
        shuffle_buffer: int = 0,
        seed: int = 0,
    ):
        """Return a `tf.data.Dataset` that reads files while it trains, in flat memory.

        Args:
            paths: As in `fit`, but what can be read anew in every epoch: files, tables, lists.
            batch_size: Rows in a batch; the last one has what is left.
            label: The column of the label, which the model must not see.
            threshold: The label is 1 from here on, else 0; by default it is the number itself.
            shuffle_buffer: Rows among which the next are drawn; 0 keeps the order of the files.
            seed: Of the order, which is another one in every epoch.

        Returns:
            Batches `(arrays by name, labels (rows, 1))`.

        Raises:
            ValueError: If something is not as in `fit`, or a label is missing. Where that is not
                in the first rows, `fit` and `evaluate` of `tfcourse.training` raise it, and whoever
                reads the data set by himself gets TensorFlow's error with this message.
        """
        from tfcourse.data.streams import Stream

        self._check_fitted()
        return Stream(self, paths, label, threshold, shuffle_buffer, seed).dataset(batch_size)

    def save(self, path: str | Path) -> None:
        """Write a JSON file, whole or not at all."""
        self._check_fitted()
        write(path, self.specs, self.learned)

    @classmethod
    def load(cls, path: str | Path) -> "Pipeline":
        """Read what `save` wrote.

        Raises:
            ValueError: If the file is damaged, is of another version, or is something else.
        """
        specs, learned = read(path)
        pipeline = cls(specs)
        pipeline._learn(learned)
        return pipeline

    def _learn(self, learned: dict[str, list]) -> None:
        self.learned = learned
        self._ids = {s.name: s.ids(learned[s.name]) for s in self.specs if hasattr(s, "ids")}

    def _apply(self, spec: Spec, column: Column) -> np.ndarray:
        if isinstance(spec, Sequence):
            return spec.apply(self._ids[spec.item], column)
        if spec.name in self._ids:
            return self._ids[spec.name](texts(column))
        return spec.apply(self.learned[spec.name], column)

    def _check_fitted(self) -> None:
        if not self.learned:
            raise ValueError("the pipeline must be fitted first, got none: call fit or load")
