"""Deep Interest Evolution Network (Zhou et al., 2019), https://arxiv.org/abs/1809.03672.

DIN looks at a history as a set, DIEN at its order. A GRU makes states h_1 ... h_T of the vectors
e_1 ... e_T of a history, the interest at each time. A second one, whose update gate is scaled by
attention (`augru`), goes over the states that have to do with the target t; its last state is
what the user is:

    a_j = softmax_j(h_j W t)      h'_j = AUGRU(h'_(j-1), h_j, a_j)

So that h_j is an interest and not just what the label at the end makes of it, a loss of its own
has each state foretell what came next (`auxiliary`).

These are the paper's equations. Its authors' code has DIN's activation unit in the place of h W t,
and feeds the last layers the sum of the history, too. The course's network is not here: the label
is one of its inputs, and its second GRU begins at random numbers.
"""

from collections.abc import Sequence

import keras
from keras import layers, ops

from tfcourse.data.features import Feature, History, Number
from tfcourse.recommendation.augru import AUGRU
from tfcourse.recommendation.auxiliary import AuxiliaryLoss, Negatives
from tfcourse.recommendation.blocks import check_counts, numbers
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


def build_dien(
    features: Sequence[Feature],
    *,
    embedding_dim: int = 16,
    hidden_units: tuple[int, ...] = (200, 80),
    activation: str = "dice",
    dropout: float = 0.0,
    auxiliary_weight: float = 1.0,
) -> keras.Model:
    """Build a Deep Interest Evolution Network.

    Interests come, change and go: a GRU reads the history in order of time, a loss of its own
    makes each of its states foretell the next thing, and a second GRU follows those states that
    have to do with the target.

    Args:
        features: The columns, at least one of them a history; what it is a history of, the
            target, must be there, too.
        embedding_dim: Length of a vector, and of a state.
        hidden_units: Of each hidden layer.
        activation: "dice" or "prelu", of the hidden layers.
        dropout: Rate after each hidden layer.
        auxiliary_weight: Of the auxiliary loss, which is added in training only; 0 for none.

    Returns:
        A model from a dict of columns to logits `(batch, 1)`; an empty history counts as a vector
        of zeros. The layer `{history}_attention` has the weights.

    Raises:
        ValueError: If no model can be built of these columns or sizes, a history is without its
            target, or there is nothing to draw for the auxiliary loss.
    """
    check_histories(features)
    check_counts(embedding_dim, hidden_units, dropout)
    if not 0 <= auxiliary_weight < float("inf"):
        raise ValueError(f"auxiliary_weight must be finite, 0 or more, got {auxiliary_weight}")
    inputs = make_inputs(features)
    histories = [f for f in features if isinstance(f, History) and auxiliary_weight]
    drawn = {_drawn(f): _draw(f)(known(inputs[f.name], f.item.size)) for f in histories}
    negatives = [History(_drawn(f), f.item, f.length) for f in histories]
    vectors = embed([*features, *negatives], inputs | drawn, embedding_dim, name="embedding")

    def evolved(history: History) -> keras.KerasTensor:
        name = history.name
        ids = known(inputs[name], history.item.size)
        mask = ops.cast(ids > 0, vectors[name].dtype)
        states = AUGRU(embedding_dim, name=f"{name}_interest")(vectors[name], mask)
        if auxiliary_weight:
            loss = AuxiliaryLoss(auxiliary_weight, name=f"{name}_auxiliary")
            states = loss(states, vectors[name], vectors[_drawn(history)], ids)
        attention = interest_attention(states, vectors[history.item.name], ids, name=name)
        return AUGRU(embedding_dim, name=f"{name}_evolution")(states, attention)[:, 0]

    found = [
        evolved(f) if isinstance(f, History) else vectors[f.name]
        for f in features
        if not isinstance(f, Number)
    ]
    x = layers.Concatenate(name="fields")([*found, *numbers(features, inputs)])
    x = hidden(x, hidden_units, activation, dropout)
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
