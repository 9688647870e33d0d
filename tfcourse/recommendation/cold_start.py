"""Users and items that training never saw: their vectors come from what is known of them.

A new user has no id yet, but facts, and soon a history; a new item has facts. A tower that was
trained with `forgetting` knows what to make of the unknown id, 0. Nothing is trained again: the
vector of a new user changes with each item that his history gains, that of a new item goes into the
index beside the others.
"""

from collections.abc import Mapping

import keras
import numpy as np


def vectors_of(
    tower: keras.Model, rows: Mapping[str, np.ndarray], *, batch_size: int = 1024
) -> np.ndarray:
    """Return the vectors of users or items, old ones and new ones.

    Args:
        tower: The `user_tower` or `item_tower` of `build_two_tower`.
        rows: Its columns by name; others are passed over. Ids and histories that are left out are
            unknown: `{"seen": history}` is a user of whom nothing else is known.
        batch_size: Rows in a step.

    Returns:
        Vectors of length one, `(rows, embedding_dim)`.

    Raises:
        ValueError: If there is none of the columns, one has not the shape or type that the tower
            takes, or a number is missing, which has no value that means unknown.
    """
    given = {name: np.asarray(rows[name]) for name in tower.input if name in rows}
    if not given:
        raise ValueError(f"rows must have a column of {sorted(tower.input)}, got {sorted(rows)}")
    count = len(next(iter(given.values())))
    for name, column in tower.input.items():
        if name not in given and column.dtype == "float32":
            raise ValueError(f"column {name} is missing: a number that is unknown has no id 0")
        shape = (count, *column.shape[1:])
        values = given.setdefault(name, np.zeros(shape, "int32"))
        kinds, what = ("iu", "whole") if column.dtype != "float32" else ("iuf", "finite")
        if values.shape != shape or (values.size and values.dtype.kind not in kinds):
            raise ValueError(
                f"column {name} must be {what} numbers {shape}, got {values.dtype} {values.shape}"
            )
        if not (finite := np.isfinite(values)).all():
            row = int(np.argmin(finite))
            raise ValueError(
                f"column {name} must be finite numbers, got {values[row]} in row {row}"
            )
    if not count:
        return np.zeros((0, tower.output.shape[-1]), "float32")
    return np.asarray(tower.predict(given, batch_size=batch_size, verbose=0), "float32")


def add_to_history(history: np.ndarray, item: int) -> np.ndarray:
    """Return a user's history after one more item: the newest comes first, the oldest goes.

    Args:
        history: Ids, newest first, 0 is padding, `(length,)`.
        item: The id of the new one; one that is there already moves to the front.

    Raises:
        ValueError: If `item` is 0 or below: what is unknown says nothing.
    """
    history = np.asarray(history)
    if item < 1:
        raise ValueError(f"item must be an id from 1 up, got {item}")
    others = history[(history != item) & (history > 0)]
    after = np.zeros_like(history)
    kept = np.concatenate([[item], others])[: len(history)]
    after[: len(kept)] = kept
    return after
