"""What DIN and DIEN share: their activations, checks of their columns, a look at their attention.

Dice is of DIN (Zhou et al., 2018), https://arxiv.org/abs/1706.06978.
"""

from collections.abc import Sequence

import keras
from keras import layers, ops

from tfcourse.data.features import Feature, History, check_features
from tfcourse.recommendation.randomness import Dropout


@keras.saving.register_keras_serializable("tfcourse")
class Dice(layers.Layer):
    """f(x) = p x + (1 - p) alpha x, p = sigmoid of x normalised over the batch (section 5.3).

    Input and output: `(batch, units)`. Alpha is trained, one for each unit, and begins at 0.
    When not training, moving averages stand for the batch: they follow within tens of steps
    (momentum 0.9), since a recommender is often trained for a few hundred only.
    """

    def build(self, input_shape):
        self.alpha = self.add_weight(name="alpha", shape=input_shape[-1:], initializer="zeros")
        self.normalize = layers.BatchNormalization(
            momentum=0.9,
            epsilon=1e-8,
            center=False,
            scale=False,
            name=f"{self.name}_normalize",
            dtype=self.dtype_policy,  # not that of the day on which the model is loaded
        )
        self.normalize.build(input_shape)

    def call(self, inputs, training=False):
        p = ops.sigmoid(self.normalize(inputs, training=training))
        return inputs * (self.alpha + p * (1 - self.alpha))

    def compute_output_shape(self, input_shape):
        return input_shape


def check_histories(features: Sequence[Feature]) -> None:
    """Refuse columns without a history, or with one whose target is missing.

    Raises:
        ValueError: If there is no history, or one of a category that is not among the columns.
    """
    check_features(features)
    names = ", ".join(feature.name for feature in features)
    histories = [feature for feature in features if isinstance(feature, History)]
    if not histories:
        raise ValueError(f"features must have at least one history, got {names}")
    for history in histories:
        if history.item not in features:
            raise ValueError(
                f"features must have {history.item.name}, what {history.name} is a history of, "
                f"got {names}"
            )


def hidden(
    x: keras.KerasTensor, hidden_units: tuple[int, ...], activation: str, dropout: float
) -> keras.KerasTensor:
    """Stack dense layers with Dice or PReLU: `(batch, n)` -> `(batch, hidden_units[-1])`.

    Args:
        x: `(batch, n)`.
        hidden_units: Of each layer.
        activation: "dice" or "prelu".
        dropout: Rate after each layer.

    Raises:
        ValueError: If there is no such activation.
    """
    bent = {"dice": Dice, "prelu": layers.PReLU}
    if activation not in list(bent):
        raise ValueError(f"activation must be one of {list(bent)}, got {activation!r}")
    for number, units in enumerate(hidden_units, start=1):
        x = layers.Dense(units, name=f"hidden{number}")(x)
        x = bent[activation](name=f"hidden{number}_{activation}")(x)
        if dropout:
            x = Dropout(dropout, name=f"hidden{number}_dropout")(x)
    return x


def attention_of(model: keras.Model, history: str) -> keras.Model:
    """Return what a DIN or DIEN looks at in a history.

    Args:
        model: What `build_din` or `build_dien` returned, trained or loaded.
        history: Name of the column.

    Returns:
        A model from the same inputs to weights `(batch, length)`, the newest first.

    Raises:
        ValueError: If the model has no attention over such a history.
    """
    found = {layer.name: layer for layer in model.layers}
    if f"{history}_attention" not in found:
        names = [name.removesuffix("_attention") for name in found if name.endswith("_attention")]
        raise ValueError(f"history must be one of {names}, got {history!r}")
    return keras.Model(model.input, found[f"{history}_attention"].output, name="attention")
