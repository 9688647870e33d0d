"""What several recommenders share: fields, histories as one vector, and stacks of dense layers."""

from collections.abc import Mapping, Sequence

import keras
from keras import layers, ops

from tfcourse.data.features import Feature, History, Number, check_features
from tfcourse.recommendation.embedding import known
from tfcourse.recommendation.randomness import Dropout

Sizes = tuple[int, tuple[int, ...]]


def check_sizes(
    variants: Mapping[str, Sizes],
    variant: str,
    embedding_dim: int | None,
    hidden_units: Sequence[int] | None,
    dropout: float,
    *,
    word: str = "variant",
) -> Sizes:
    """Return length of vectors and units of hidden layers: those given, else the variant's.

    Args:
        variants: Both by variant.
        variant: One of them.
        embedding_dim: Length of a vector, or `None`.
        hidden_units: Of each hidden layer, or `None`.
        dropout: Rate after each hidden layer.
        word: What the builder calls its variants.

    Raises:
        ValueError: If there is no such variant, or a number makes no sense.
    """
    if variant not in list(variants):
        raise ValueError(f"{word} must be one of {list(variants)}, got {variant!r}")
    dim, hidden = variants[variant]
    dim = dim if embedding_dim is None else embedding_dim
    hidden = hidden if hidden_units is None else hidden_units
    check_counts(dim, hidden, dropout)
    return dim, tuple(hidden)


def check_counts(
    embedding_dim: int, hidden_units: Sequence[int] = (1,), dropout: float = 0.0
) -> None:
    """Refuse sizes that make no sense.

    Raises:
        ValueError: If one of them does not.
    """
    if not _is_count(embedding_dim):
        rule = "embedding_dim must be a whole number of at least 1"
        raise ValueError(f"{rule}, got {embedding_dim!r}")
    check_units("hidden_units", hidden_units)
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be from 0 to below 1, got {dropout!r}")


def check_units(name: str, units: Sequence[int]) -> None:
    """Refuse what can't be the units of one layer after the other.

    Raises:
        ValueError: If it is none; the message calls it by its name.
    """
    if not isinstance(units, Sequence) or not units or not all(map(_is_count, units)):
        raise ValueError(f"{name} must be whole numbers of at least 1, got {units!r}")


def check_fields(features: Sequence[Feature]) -> None:
    """Refuse a list of columns that no model can be built from, such as one of numbers alone.

    Raises:
        ValueError: As `check_features`, or if no column has ids.
    """
    check_features(features)
    if all(isinstance(feature, Number) for feature in features):
        raise ValueError(
            f"features must have a category, got numbers alone: "
            f"{', '.join(feature.name for feature in features)}"
        )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


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
        mean_of_history(vectors[f.name], known(inputs[f.name], f.item.size))
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
            x = Dropout(dropout, name=f"{name}{number}_dropout")(x)
    return x


@keras.saving.register_keras_serializable("tfcourse")
class Score(layers.Layer):
    """Add up the parts of a score, and a bias: a list of `(batch, 1)` -> `(batch, 1)`."""

    def build(self, input_shape):
        self.bias = self.add_weight(name="bias", shape=(), initializer="zeros")

    def call(self, inputs):
        return sum(inputs, self.bias)

    def compute_output_shape(self, input_shape):
        return input_shape[0]
