"""What models that read tokens share: the checks of their arguments, and a table of vectors."""

from collections.abc import Mapping
from numbers import Integral

import keras
import numpy as np
from keras import layers


def check_counts(counts: Mapping[str, object], least: int = 1) -> None:
    """Refuse what is no whole number, or too small.

    Args:
        counts: The arguments by name.
        least: The smallest number allowed.

    Raises:
        ValueError: If one is not as it should be.
    """
    for name, value in counts.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")


def check_vocabulary(vocabulary_size: int, num_classes: int | None = None) -> None:
    """Refuse a vocabulary without a token besides padding, and a number of classes below 1.

    Raises:
        ValueError: If one is not as it should be.
    """
    check_counts({"vocabulary_size": vocabulary_size}, least=2)
    if num_classes is not None:
        check_counts({"num_classes": num_classes})


def check_dropout(dropout: float) -> None:
    """Refuse what is no rate.

    Raises:
        ValueError: If it is below 0, or not below 1.
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be from 0 to below 1, got {dropout!r}")


def check_vectors(vectors: np.ndarray | None, shape: tuple[int, int]) -> None:
    """Refuse vectors that are no table of this shape; `None` is right.

    Raises:
        ValueError: If they have another shape.
    """
    if vectors is not None and np.shape(vectors) != shape:
        raise ValueError(f"vectors must be of shape {shape}, or None, got {np.shape(vectors)}")


def embedding(
    ids: keras.KerasTensor, shape: tuple[int, int], vectors: np.ndarray | None
) -> keras.KerasTensor:
    """Look up the vectors of tokens in a table that is trained, in the layer `embedding`.

    Args:
        ids: `(batch, length)`.
        shape: Of the table, `(vocabulary_size, embedding_dim)`.
        vectors: What the table begins with, or `None` for small random numbers.

    Returns:
        Vectors, `(batch, length, embedding_dim)`.
    """
    table = layers.Embedding(*shape, name="embedding")
    x = table(ids)
    if vectors is not None:
        table.set_weights([vectors])
    return x
