"""A recurrent language model (Mikolov, Karafiat, Burget, Cernocky & Khudanpur, 2010).

https://www.isca-archive.org/interspeech_2010/mikolov10_interspeech.html. A text is as probable as
each of its tokens after those before it, which a recurrent network has read into its state h:

    p(w_1 ... w_T) = prod_t p(w_(t+1) | w_1 ... w_t)        p(. | w_1 ... w_t) = softmax(h_t W + b)
"""

import keras
from keras import layers

from tfcourse.sequence.rnn import check_cell, recurrent_layer
from tfcourse.sequence.tokens import check_counts, check_dropout, check_vocabulary


def build_language_model(
    cell: str,
    vocabulary_size: int,
    *,
    embedding_dim: int = 128,
    units: int = 256,
    num_layers: int = 1,
    dropout: float = 0.0,
) -> keras.Model:
    """Build a network that says at each place of a text what may come next.

    Every place of every text is an example, and none needs a label. The state stands for the whole
    text so far, where counts of n-grams know the last few words alone.

    Train it on `ids[:, :-1]` with the labels `ids[:, 1:]` and
    `keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)`, which is the
    mean over what is no padding; e to the power of it is the perplexity.

    Args:
        cell: "rnn", "lstm", "gru" (as in cuDNN), or "gru-2014" (as in the paper).
        vocabulary_size: Number of tokens, with the padding.
        embedding_dim: Length of a token's vector.
        units: Length of a layer's state.
        num_layers: How many layers read one another's states.
        dropout: Rate before each layer and before the logits; never from state to state, as in
            Zaremba, Sutskever & Vinyals (2014), https://arxiv.org/abs/1409.2329.

    Returns:
        A model from ids `(batch, length)`, of any length with 0 for padding at the end, to logits
        `(batch, length, vocabulary_size)` of the token after each; those at padding mean nothing.

    Raises:
        ValueError: If there is no such cell, or a number makes no sense.
    """
    check_cell(cell)
    check_vocabulary(vocabulary_size)
    check_counts({"embedding_dim": embedding_dim, "units": units, "num_layers": num_layers})
    check_dropout(dropout)
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(vocabulary_size, embedding_dim, name="embedding")(ids)
    for number in range(1, num_layers + 1):
        if dropout:
            x = layers.Dropout(dropout, name=f"dropout{number}")(x)
        # No mask: nothing here looks ahead, so that padding at the end reaches no token.
        x = recurrent_layer(x, None, cell, units, name=f"recurrent{number}")
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    x = layers.Dense(vocabulary_size, name="logits")(x)
    return keras.Model(ids, x, name=f"{cell}_language_model")
