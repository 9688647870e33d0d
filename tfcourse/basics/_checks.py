"""What several modules ask of their arguments."""

import numpy as np


def check_name(field: str, name: str, table: dict) -> str:
    """Return a name that a table has; another one is an error that says which there are."""
    if name not in table:
        raise ValueError(f"{field} must be one of {sorted(table)}, got {name!r}")
    return name


def check_columns(x: np.ndarray, columns: int) -> np.ndarray:
    """Return rows as an array of float64, if they have so many columns."""
    x = np.asarray(x, float)
    if x.ndim != 2 or x.shape[1] != columns:
        raise ValueError(f"x must have the shape (rows, {columns}), got {x.shape}")
    return x


def check_rows(x: np.ndarray, y: np.ndarray) -> None:
    """Raise an error unless there are rows, and as many targets."""
    if not len(x) or len(x) != len(y):
        raise ValueError(
            f"x and y must have equally many rows from 1 up, got {len(x)} and {len(y)}"
        )
