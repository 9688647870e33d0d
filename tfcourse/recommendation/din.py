"""Deep Interest Network (Zhou et al., 2018), https://arxiv.org/abs/1706.06978.

A film is judged by those films of the history that it has to do with. With e_1 ... e_T the vectors
of the history and t that of the target, the vector of the user depends on the target:

    v(t) = sum_j a(e_j, t) e_j      a(e, t) = MLP([e, t, e - t, e * t]), a number

The weights a do not add up to one: many films like the target count more than a single one.
Padding has the weight 0. Dice, the activation between the layers, is a PReLU whose bend follows
the data, by the mean m and the variance s^2 that a unit has over a batch:

    f(x) = p x + (1 - p) alpha x    p = sigmoid((x - m) / sqrt(s^2 + 1e-8))
"""

from collections.abc import Sequence

import keras
from keras import layers, ops

from tfcourse.data.features import Feature, History, Number
from tfcourse.recommendation.blocks import check_sizes, check_units, numbers
from tfcourse.recommendation.embedding import embed, known, make_inputs
from tfcourse.recommendation.interest import check_histories, hidden

# Length of a vector, units of the hidden layers; the length is ours.
SIZES = {"paper": (16, (200, 80)), "course": (10, (128, 64))}
# Units of the activation unit, which are those of the authors' code; activation of hidden layers.
ATTENTION = {"paper": ((80, 40), "dice"), "course": ((32,), "prelu")}


@keras.saving.register_keras_serializable("tfcourse")
class Comparison(layers.Layer):
    """A dense layer over [e, t, e - t, e * t], which is never written down.

    As the layer is linear, e - t folds into the kernels of e and t, and what t adds is computed
    once for a whole history: half of the products remain.

    Input: histories e `(batch, length, n)` and targets t `(batch, n)`.
    Output: `(batch, length, units)`.
    """

    def __init__(self, units: int, **kwargs):
        """Say how wide it is.

        Args:
            units: Width of the output.
            **kwargs: What every layer takes.
        """
        super().__init__(**kwargs)
        self.units = units

    def build(self, history_shape, target_shape):
        self.kernel = self.add_weight(name="kernel", shape=(4 * target_shape[-1], self.units))
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros")

    def call(self, history, target):
        of_history, of_target, of_difference, of_product = ops.split(self.kernel, 4)
        pairs = ops.concatenate([history, history * target[:, None]], axis=-1)
        moving = ops.concatenate([of_history + of_difference, of_product], axis=0)
        # As the weight of a 1 beside the target, the bias has its gradient from a small product;
        # XLA on a CPU is slow at the sum over all rows of all histories.
        of_target = ops.concatenate([of_target - of_difference, self.bias[None]], axis=0)
        target = ops.concatenate([target, ops.ones_like(target[:, :1])], axis=-1)
        return ops.matmul(pairs, moving) + ops.matmul(target, of_target)[:, None]

    def compute_output_shape(self, history_shape, target_shape):
        return (*history_shape[:-1], self.units)

    def get_config(self):
        return super().get_config() | {"units": self.units}


@keras.saving.register_keras_serializable("tfcourse")
class BiasOfKnown(layers.Dense):
    """A dense layer over histories that adds its bias where something is known.

    Padding has no say in the end, with a bias or without. As a product the bias has a gradient that
    XLA computes faster on a CPU than the sum over all rows of all histories.

    Input: `(batch, length, n)` and, 1 or 0, what is known `(batch, length)`.
    Output: `(batch, length, units)`.
    """

    def build(self, inputs_shape, present_shape):
        super().build(inputs_shape)

    def call(self, inputs, present):
        bias = ops.matmul(present[..., None], self.bias[None])
        return ops.matmul(inputs, self.kernel) + bias

    def compute_output_shape(self, inputs_shape, present_shape):
        return (*inputs_shape[:-1], self.units)


def activation_unit(
    history: keras.KerasTensor,
    target: keras.KerasTensor,
    ids: keras.KerasTensor,
    *,
    units: tuple[int, ...],
    variant: str,
    name: str,
) -> keras.KerasTensor:
    """Say how much each thing of a history has to do with the target; padding gets 0.

    The paper's figure has an outer product between the two; its authors' code has, as here, the
    difference and the elementwise product, and sigmoids between the layers. That code also takes
    a softmax over the history, which the paper gives up, and we with it.

    Args:
        history: `(batch, length, n)`.
        target: `(batch, n)`.
        ids: `(batch, length)`, 0 is padding.
        units: Widths of the hidden layers.
        variant: "paper", or "course": PReLU with slopes of each place, and a sigmoid at the end.
        name: Of the history; the layers' names begin with it.

    Returns:
        Weights `(batch, length)`, from the layer `{name}_attention`.
    """
    x, present = history, ops.cast(ids > 0, history.dtype)
    for number, width in enumerate(units, start=1):
        layer = f"{name}_unit{number}"
        x = (
            Comparison(width, name=layer)(x, target)
            if number == 1
            else BiasOfKnown(width, name=layer)(x, present)
        )
        if variant == "course":
            x = layers.PReLU(name=f"{layer}_prelu")(x)
        else:
            x = layers.Activation("sigmoid", name=f"{layer}_sigmoid")(x)
    last = "sigmoid" if variant == "course" else None
    scores = layers.Dense(1, last, name=f"{name}_score")(x)[..., 0]
    return layers.Multiply(name=f"{name}_attention")([scores, present])


def build_din(
    features: Sequence[Feature],
    *,
    variant: str = "paper",
    embedding_dim: int | None = None,
    hidden_units: tuple[int, ...] | None = None,
    attention_units: tuple[int, ...] | None = None,
    activation: str | None = None,
    dropout: float = 0.0,
) -> keras.Model:
    """Build a Deep Interest Network.

    What a user is depends on what is offered: the history is summed with weights that compare
    each thing of it with the target, instead of with the same weights for all targets.

    Args:
        features: The columns, at least one of them a history; what it is a history of, the
            target, must be there, too. The course's are `course.DIN`.
        variant: "paper", or "course", with PReLU in an activation unit that ends in a sigmoid.
        embedding_dim: Length of a vector; by default 16, in the course 10.
        hidden_units: Of each hidden layer; by default (200, 80), in the course (128, 64).
        attention_units: Of each hidden layer of the activation unit; by default (80, 40), in the
            course (32,).
        activation: "dice" or "prelu", of the hidden layers; by default "dice", in the course
            "prelu".
        dropout: Rate after each hidden layer.

    Returns:
        A model from a dict of columns to logits `(batch, 1)`; an empty history counts as a vector
        of zeros. The layer `{history}_attention` has the weights.

    Raises:
        ValueError: If no model can be built of these columns or sizes, or a history is without
            its target.
    """
    check_histories(features)
    dim, units = check_sizes(SIZES, variant, embedding_dim, hidden_units, dropout)
    attention, bend = ATTENTION[variant]
    attention = attention if attention_units is None else attention_units
    check_units("attention_units", attention)
    inputs = make_inputs(features)
    vectors = embed(features, inputs, dim, name="embedding")

    def attended(history: History) -> keras.KerasTensor:
        weights = activation_unit(
            vectors[history.name],
            vectors[history.item.name],
            known(inputs[history.name], history.item.size),
            units=attention,
            variant=variant,
            name=history.name,
        )
        return ops.sum(vectors[history.name] * weights[..., None], axis=1)

    found = [
        attended(f) if isinstance(f, History) else vectors[f.name]
        for f in features
        if not isinstance(f, Number)
    ]
    x = layers.Concatenate(name="fields")([*found, *numbers(features, inputs)])
    x = hidden(x, units, bend if activation is None else activation, dropout)
    return keras.Model(inputs, layers.Dense(1, name="logits")(x), name="din")
