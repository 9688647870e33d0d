"""Hiding parts of an image (Zeiler & Fergus, 2014), https://arxiv.org/abs/1311.2901, section 4.2.

What a network can't do without shows where it really looked.
"""

import numpy as np


def hottest(heat: np.ndarray, fraction: float) -> np.ndarray:
    """Mark the places with the largest values, such as a fifth of them.

    Args:
        heat: `(height, width)`.
        fraction: How many of the places, above 0 and at most 1; at least one is marked.

    Returns:
        `(height, width)` of bool.

    Raises:
        ValueError: If `fraction` is outside of its range.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be above 0 and at most 1, got {fraction}")
    marked = np.zeros(heat.size, bool)
    marked[np.argsort(-heat, axis=None, kind="stable")[: max(1, round(fraction * heat.size))]] = 1
    return marked.reshape(heat.shape)


def hide(image: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """Paint the marked places of an image in its mean colour.

    Args:
        image: `(height, width, channels)`.
        marked: `(rows, columns)` of bool: a grid over the whole image.

    Returns:
        A copy of the image.
    """
    rows, columns = (np.arange(n) * m // n for n, m in zip(image.shape, marked.shape, strict=False))
    return np.where(marked[rows][:, columns, None], image.mean((0, 1)), image).astype(image.dtype)
