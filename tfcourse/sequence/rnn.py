"""Recurrent networks that classify: simple (Elman, 1990), LSTM (1997), GRU (2014); both ways.

https://doi.org/10.1207/s15516709cog1402_1, Hochreiter & Schmidhuber,
https://doi.org/10.1162/neco.1997.9.8.1735, Cho et al., https://arxiv.org/abs/1406.1078; and two
of them that read in opposite directions: Schuster & Paliwal (1997),
https://doi.org/10.1109/78.650093.

What a cell does in one step is written out in `cells`; with x_t the vector of the token at place t
and h^0_t = x_t, layer l and the logits of a sequence of T tokens are

    h^l_t = cell(h^(l-1)_t, h^l_(t-1))          logits = h^L_T W + b

and, both ways, h^l_t = [cell(.., h^l_(t-1)), cell'(.., h'^l_(t+1))]: logits are of the state at the
last token of the one and at the first of the other. T is each sequence's own: where a token is
padding, a cell keeps its state.
"""

from functools import partial

import keras
import numpy as np
from keras import layers, ops

from tfcourse.sequence.tokens import (
    check_counts,
    check_dropout,
    check_vectors,
    check_vocabulary,
    embedding,
)

CELLS = {
    "rnn": layers.SimpleRNN,
    "lstm": layers.LSTM,
    "gru": layers.GRU,
    # As published. Keras' own and cuDNN's have more biases.
    "gru-2014": partial(layers.GRU, reset_after=False),
}


def recurrent_layer(
    x: keras.KerasTensor,
    mask: keras.KerasTensor | None,
    cell: str,
    units: int,
    *,
    bidirectional: bool = False,
    return_sequences: bool = True,
    name: str,
) -> keras.KerasTensor:
    """Read a sequence of vectors.

    Args:
        x: Vectors, `(batch, length, n)`.
        mask: True where there is a token, `(batch, length)`; elsewhere the state is kept.
        cell: "rnn", "lstm", "gru" or "gru-2014".
        units: Length of the state.
        bidirectional: Whether a second cell reads from the end; its states are put behind.
        return_sequences: Whether to return every state, or the last.
        name: Of the layer.

    Returns:
        States `(batch, length, units)` or the last `(batch, units)`; twice as long both ways.
    """
    layer = CELLS[cell](units, return_sequences=return_sequences, name=name)
    if bidirectional:
        layer = layers.Bidirectional(layer, name=name)
    return layer(x, mask=mask)


def build_rnn(
    cell: str,
    vocabulary_size: int,
    num_classes: int | None,
    *,
    embedding_dim: int = 128,
    units: int = 128,
    num_layers: int = 1,
    bidirectional: bool = False,
    dropout: float = 0.0,
    vectors: np.ndarray | None = None,
) -> keras.Model:
    """Build a recurrent classifier of texts.

    A state that every token changes carries what was read to the end, in the order in which it was
    read, whatever the length; gates let it carry far.

    Args:
        cell: "rnn", "lstm", "gru" (as in cuDNN), or "gru-2014" (as in the paper).
        vocabulary_size: Number of tokens, with the padding.
        num_classes: Number of classes, or `None` to end at the states.
        embedding_dim: Length of a token's vector.
        units: Length of a layer's state.
        num_layers: How many layers read one another's states.
        bidirectional: Whether each layer reads both ways.
        dropout: Rate before each layer and before the logits; never from state to state, as in
            Zaremba, Sutskever & Vinyals (2014), https://arxiv.org/abs/1409.2329.
        vectors: What the vectors of tokens begin with, `(vocabulary_size, embedding_dim)`; `None`
            for small random numbers.

    Returns:
        A model from ids `(batch, length)`, of any length with 0 for padding at the end, to logits
        `(batch, num_classes)` or to the states of the last layer, `(batch, length, units)`, which
        are 0 at padding. A text without a token has the state 0.

    Raises:
        ValueError: If there is no such cell, a number makes no sense, or the vectors don't fit.
    """
    check_cell(cell)
    check_vocabulary(vocabulary_size, num_classes)
    check_counts({"embedding_dim": embedding_dim, "units": units, "num_layers": num_layers})
    check_dropout(dropout)
    check_vectors(vectors, (vocabulary_size, embedding_dim))
    ids = keras.Input((None,), dtype="int32", name="ids")
    mask = ops.not_equal(ids, 0)
    x = embedding(ids, (vocabulary_size, embedding_dim), vectors)
    for number in range(1, num_layers + 1):
        if dropout:
            x = layers.Dropout(dropout, name=f"dropout{number}")(x)
        every = num_classes is None or number < num_layers
        x = recurrent_layer(
            x,
            mask,
            cell,
            units,
            bidirectional=bidirectional,
            return_sequences=every,
            name=f"recurrent{number}",
        )
    if num_classes is None:
        x = x * ops.cast(mask, x.dtype)[..., None]
    else:
        if dropout:
            x = layers.Dropout(dropout, name="dropout")(x)
        x = layers.Dense(num_classes, name="logits")(x)
    return keras.Model(ids, x, name=f"bidirectional_{cell}" if bidirectional else cell)


def check_cell(cell: str) -> None:
    """Refuse what is no cell.

    Raises:
        ValueError: If there is no such cell.
    """
    if cell not in list(CELLS):
        raise ValueError(f"cell must be one of {list(CELLS)}, got {cell!r}")
