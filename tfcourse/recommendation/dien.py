"""Deep Interest Evolution Network (Zhou et al., 2019), https://arxiv.org/abs/1809.03672.

DIN looks at a history as a set, DIEN at its order. A GRU makes states h_1 ... h_T of the vectors
e_1 ... e_T of a history, the interest at each time. A second one, whose update gate is scaled by
attention (`augru`), goes over the states that have to do with the target t; its last state is
what the user is:

    a_j = softmax_j(h_j W t)      h'_j = AUGRU(h'_(j-1), h_j, a_j)

So that h_j is an interest and not just what the label at the end makes of it, a loss of its own
has each state foretell what came next (`auxiliary`).

These are the paper's equations. Its authors' code has DIN's activation unit in the place of h W t,
and feeds the last layers the sum of the history, too. The course's network of this name is another
one; `dien_course` has its equations.
"""

from collections.abc import Sequence

import keras
from keras import layers, ops

from tfcourse.data.features import Feature, History, Number
from tfcourse.recommendation.augru import AUGRU
from tfcourse.recommendation.auxiliary import AuxiliaryLoss, Negatives
from tfcourse.recommendation.blocks import check_sizes, numbers
from tfcourse.recommendation.dien_course import evolved_in_course
from tfcourse.recommendation.embedding import embed, known, make_inputs
from tfcourse.recommendation.interest import check_histories, hidden


def interest_attention(
    states: keras.KerasTensor, target: keras.KerasTensor, ids: keras.KerasTensor, *, name: str
) -> keras.KerasTensor:
    """Say how much each state has to do with the target: softmax of h W t, 0 for padding.

    Args:
        states: `(batch, length, n)`.
        target: `(batch, m)`.
        ids: `(batch, length)`, 0 is padding.
        name: Of the history; the layers' names begin with it.

    Returns:
        Weights `(batch, length)` that add up to 1, or to 0 for an empty history, from the layer
        `{name}_attention`.
    """
    wanted = layers.Dense(states.shape[-1], use_bias=False, name=f"{name}_bilinear")(target)
    scores = ops.sum(states * wanted[:, None], axis=-1)
    # In float16 the number that stands for padding would be minus infinity, and a row of it NaN.
    scores = ops.where(ids > 0, ops.cast(scores, "float32"), -1e9)
    weights = ops.softmax(scores, axis=-1)
    mask = ops.cast(ids > 0, weights.dtype)
    return layers.Multiply(name=f"{name}_attention")([weights, mask])


def evolved(
    vectors: keras.KerasTensor,
    negatives: keras.KerasTensor | None,
    target: keras.KerasTensor,
    ids: keras.KerasTensor,
    *,
    auxiliary_weight: float,
    name: str,
) -> keras.KerasTensor:
    """Return what a history says of the target: the last state of the second GRU.

    Args:
        vectors: Of the history, `(batch, length, n)`.
        negatives: Of what was drawn, `(batch, length, n)`; `None` for no auxiliary loss.
        target: `(batch, n)`.
        ids: `(batch, length)`, 0 is padding.
        auxiliary_weight: Of that loss.
        name: Of the history; the layers' names begin with it.

    Returns:
        `(batch, n)`, zeros for an empty history.
    """
    units, mask = vectors.shape[-1], ops.cast(ids > 0, vectors.dtype)
    states = AUGRU(units, name=f"{name}_interest")(vectors, mask)
    if negatives is not None:
        loss = AuxiliaryLoss(auxiliary_weight, name=f"{name}_auxiliary")
        states = loss(states, vectors, negatives, ids)
    attention = interest_attention(states, target, ids, name=name)
    return AUGRU(units, name=f"{name}_evolution")(states, attention)[:, 0]


# Length of a vector, and of a state, and units of the hidden layers; the length is ours.
SIZES = {"paper": (16, (200, 80)), "course": (10, (128, 64))}
# How histories evolve, activation of the hidden layers, weight of the auxiliary loss.
PARTS = {"paper": (evolved, "dice", 1.0), "course": (evolved_in_course, "prelu", 0.5)}


def build_dien(
    features: Sequence[Feature],
    *,
    variant: str = "paper",
    embedding_dim: int | None = None,
    hidden_units: tuple[int, ...] | None = None,
    activation: str | None = None,
    dropout: float = 0.0,
    auxiliary_weight: float | None = None,
) -> keras.Model:
    """Build a Deep Interest Evolution Network.

    Interests come, change and go: a GRU reads the history in order of time, a loss of its own
    makes each of its states foretell the next thing, and a second GRU follows those states that
    have to do with the target.

    Args:
        features: The columns, at least one of them a history; what it is a history of, the
            target, must be there, too. The course's are `course.DIN`.
        variant: "paper" or "course".
        embedding_dim: Length of a vector, and of a state; by default 16, in the course 10.
        hidden_units: Of each hidden layer; by default (200, 80), in the course (128, 64).
        activation: "dice" or "prelu", of the hidden layers; by default "dice", in the course
            "prelu".
        dropout: Rate after each hidden layer.
        auxiliary_weight: Of the auxiliary loss, which is added in training only; 0 for none. By
            default 1, in the course 0.5.

    Returns:
        A model from a dict of columns to logits `(batch, 1)`; an empty history counts as a vector
        of zeros. The layer `{history}_attention` has the weights.

    Raises:
        ValueError: If no model can be built of these columns or sizes, a history is without its
            target, or there is nothing to draw for the auxiliary loss.
    """
    check_histories(features)
    dim, units = check_sizes(SIZES, variant, embedding_dim, hidden_units, dropout)
    evolve, bend, weight = PARTS[variant]
    activation = bend if activation is None else activation
    auxiliary_weight = weight if auxiliary_weight is None else auxiliary_weight
    if not 0 <= auxiliary_weight < float("inf"):
        raise ValueError(f"auxiliary_weight must be finite, 0 or more, got {auxiliary_weight}")
    inputs = make_inputs(features)
    histories = [f for f in features if isinstance(f, History) and auxiliary_weight]
    drawn = {_drawn(f): _draw(f)(known(inputs[f.name], f.item.size)) for f in histories}
    negatives = [History(_drawn(f), f.item, f.length) for f in histories]
    vectors = embed([*features, *negatives], inputs | drawn, dim, name="embedding")

    def of_history(history: History) -> keras.KerasTensor:
        return evolve(
            vectors[history.name],
            vectors.get(_drawn(history)),
            vectors[history.item.name],
            known(inputs[history.name], history.item.size),
            auxiliary_weight=auxiliary_weight,
            name=history.name,
        )

    found = [
        of_history(f) if isinstance(f, History) else vectors[f.name]
        for f in features
        if not isinstance(f, Number)
    ]
    x = layers.Concatenate(name="fields")([*found, *numbers(features, inputs)])
    x = hidden(x, units, activation, dropout)
    return keras.Model(inputs, layers.Dense(1, name="logits")(x), name="dien")


def _drawn(history: History) -> str:
    return f"{history.name}_negatives"


def _draw(history: History) -> Negatives:
    size = history.item.size
    if size < 3:
        raise ValueError(
            f"{history.item.name}: size must be at least 3 for the auxiliary loss, got {size}"
        )
    return Negatives(size, name=_drawn(history))
