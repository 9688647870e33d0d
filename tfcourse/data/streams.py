"""Rows of files as batches for training, without ever having the files in memory."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfcourse.data.features import History, Number, columns
from tfcourse.data.raw_columns import Column, numbers
from tfcourse.data.tables import read_chunks


@dataclass(frozen=True)
class Stream:
    """What `Pipeline.dataset` reads, once for each epoch.

    Attributes:
        pipeline: Fitted.
        table: Files, or what else can be read again and again.
        label: The column of the label.
        threshold: The label is 1 from here on, or `None`.
        shuffle_buffer: Rows among which the next are drawn.
        seed: Of the order.
    """

    pipeline: object
    table: object
    label: str
    threshold: float | None
    shuffle_buffer: int
    seed: int

    def __post_init__(self):
        if self.shuffle_buffer < 0:
            raise ValueError(f"shuffle_buffer must be at least 0, got {self.shuffle_buffer}")
        if self.label in self.pipeline.columns:
            raise ValueError(f"label must not be a column of the model, got {self.label}")
        if isinstance(self.table, Iterator):
            raise ValueError("paths must be readable in every epoch, got an iterator")

    def chunks(self) -> Iterator[tuple[np.ndarray, ...]]:
        """Give the arrays of some rows, in the order of the pipeline's columns, then labels."""
        for chunk in read_chunks(self.table, [*self.pipeline.columns, self.label]):
            arrays = self.pipeline.transform_chunk(chunk)
            yield *arrays.values(), labels_of(chunk[self.label], self.threshold)

    def dataset(self, batch_size: int) -> tf.data.Dataset:
        """Return the rows in batches."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if next(self.chunks(), None) is None:  # what is wrong in the first rows is raised here
            raise ValueError("table must have at least one row, got none")
        epochs = itertools.count()

        def blocks():
            rng = np.random.default_rng([self.seed, next(epochs)])
            for *arrays, labels in mixed(self.chunks(), self.shuffle_buffer, rng):
                yield dict(zip(self.pipeline.columns, arrays, strict=True)), labels

        specs = {}
        for name, feature in columns(self.pipeline.features).items():
            shape = (None, feature.length) if isinstance(feature, History) else (None,)
            specs[name] = tf.TensorSpec(
                shape, "float32" if isinstance(feature, Number) else "int32"
            )
        signature = (specs, tf.TensorSpec((None, 1), "float32"))
        data = tf.data.Dataset.from_generator(blocks, output_signature=signature)
        return data.rebatch(batch_size).prefetch(tf.data.AUTOTUNE)


def labels_of(column: Column, threshold: float | None) -> np.ndarray:
    """Return the labels `(rows, 1)` of a chunk."""
    found = numbers(column)
    if (missing := np.isnan(found)).any():
        raise column.error("must have every label", "", int(missing.argmax()))
    if threshold is not None:
        found = (found >= threshold).astype(np.float32)
    return found[:, None]


def mixed(chunks: Iterator[tuple], buffer: int, rng: np.random.Generator) -> Iterator[tuple]:
    """Draw rows at random from a pool of `buffer` rows, which is filled up as they leave.

    A row may stay in the pool for long, so that rows of far apart chunks meet.
    """
    if not buffer:
        yield from chunks
        return
    pool: list[tuple] = []
    for chunk in chunks:
        pool.append(chunk)
        if (rows := sum(len(part[0]) for part in pool)) > buffer:
            joined = tuple(map(np.concatenate, zip(*pool, strict=True)))
            order = rng.permutation(rows)
            yield tuple(array[order[buffer:]] for array in joined)
            pool = [tuple(array[order[:buffer]] for array in joined)]
    if pool:
        joined = tuple(map(np.concatenate, zip(*pool, strict=True)))
        order = rng.permutation(len(joined[0]))
        yield tuple(array[order] for array in joined)
