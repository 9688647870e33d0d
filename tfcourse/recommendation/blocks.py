"""What several recommenders share: fields, histories as one vector, and stacks of dense layers."""

import keras
from keras import layers, ops

from tfcourse.data.features import Feature, History, Number


def mean_of_history(vectors: keras.KerasTensor, ids: keras.KerasTensor) -> keras.KerasTensor:
    """Average the vectors of a history, padding left out; an empty history gives zeros.

    Args:
        vectors: `(batch, length, embedding_dim)`.
        ids: `(batch, length)`, 0 is padding.

    Returns:
        `(batch, embedding_dim)`.
    """
    mask = ops.cast(ids > 0, vectors.dtype)[..., None]
    return ops.sum(vectors * mask, axis=1) / ops.maximum(ops.sum(mask, axis=1), 1)


def fields(
    features: list[Feature],
    inputs: dict[str, keras.KerasTensor],
    vectors: dict[str, keras.KerasTensor],
) -> list[keras.KerasTensor]:
    """Return one vector `(batch, embedding_dim)` for each column that is not a number, in order."""
    return [
        mean_of_history(vectors[f.name], inputs[f.name])
        if isinstance(f, History)
        else vectors[f.name]
        for f in features
        if not isinstance(f, Number)
    ]


def numbers(
    features: list[Feature], inputs: dict[str, keras.KerasTensor]
) -> list[keras.KerasTensor]:
    """Return the columns that are numbers, each `(batch, 1)`, in order."""
    return [inputs[f.name][:, None] for f in features if isinstance(f, Number)]


def mlp(
    x: keras.KerasTensor,
    hidden_units: tuple[int, ...],
    *,
    activation: str = "relu",
    dropout: float = 0.0,
    name: str = "hidden",
) -> keras.KerasTensor:
    """Stack dense layers: `(batch, n)` -> `(batch, hidden_units[-1])`."""
    for number, units in enumerate(hidden_units, start=1):
        x = layers.Dense(units, activation, name=f"{name}{number}")(x)
        if dropout:
            x = layers.Dropout(dropout, name=f"{name}{number}_dropout")(x)
    return x
