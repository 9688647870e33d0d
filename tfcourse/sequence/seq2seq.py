"""From a sequence to another: encoder and decoder (Cho et al., 2014), with attention (2015).

https://arxiv.org/abs/1406.1078 and Sutskever, Vinyals & Le (2014), https://arxiv.org/abs/1409.3215;
Bahdanau, Cho & Bengio, https://arxiv.org/abs/1409.0473; Luong, Pham & Manning,
https://arxiv.org/abs/1508.04025.

The encoder reads the source both ways, h_j = [GRU(x_j, ..), GRU'(x_j, ..)]. The decoder begins at
what both have read, s_0 = tanh([h_T; h'_1] W), and reads the target's tokens y one place late:

    none        s_t = GRU(y_t, s_(t-1))                               logits_t = s_t V + b
    bahdanau    c_t = sum_j a_j h_j,  a = softmax_j(v . tanh(s_(t-1) W + h_j U))
                s_t = GRU([y_t; c_t], s_(t-1))                        logits_t = r_t V + b
    luong       s_t = GRU(y_t, s_(t-1))
                c_t = sum_j a_j h_j,  a = softmax_j(s_t . h_j W)      logits_t = r_t V + b

with r_t = tanh([c_t; s_t] C + d). Differences from the papers, so that only attention differs: the
encoder of all three is Bahdanau's, of one layer (the others have several of LSTMs, one way;
Sutskever's reads backwards); s_0 is of both ways, Bahdanau's of h'_1 alone; r_t is Luong's also
where Bahdanau has a maxout; Luong's r_t is not read at the next step, so that its attention is a
few products for all places together.
"""

import keras
import tensorflow as tf
from keras import layers, ops

from tfcourse.sequence.recurrence import cast_weights, gru_update, product, scan
from tfcourse.sequence.seq2seq_decoder import Decoder
from tfcourse.sequence.tokens import check_counts, check_dropout

ATTENTION = ("none", "bahdanau", "luong")


@keras.saving.register_keras_serializable("tfcourse")
class Encoder(layers.Layer):
    """Read a sequence from both its ends.

    Input: ids `(batch, length)`, 0 for padding at the end.
    Output: states `(batch, length, 2 units)`, those of the way forward first; and where a token is,
    `(batch, length)`. Padding leaves the state as it is: the last state is at the last place.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_dim: int,
        units: int,
        dropout: float = 0.0,
        **kwargs,
    ):
        """Say how large everything is.

        Args:
            vocabulary_size: Number of tokens, with the padding.
            embedding_dim: Length of a token's vector.
            units: Length of a state, of one way.
            dropout: Rate of what is left out of the vectors.
            **kwargs: What every layer takes.
        """
        super().__init__(**kwargs)
        self.sizes = {"vocabulary_size": vocabulary_size, "embedding_dim": embedding_dim}
        self.sizes |= {"units": units, "dropout": dropout}
        kind = {"dtype": self.dtype_policy}
        self.embedding = layers.Embedding(vocabulary_size, embedding_dim, name="embedding", **kind)
        self.dropout = layers.Dropout(dropout, name="dropout", **kind)
        self.ways = [layers.GRUCell(units, name=way, **kind) for way in ("forward", "backward")]

    def build(self, source_shape):
        self.embedding.build(source_shape)
        for way in self.ways:
            way.build((None, self.sizes["embedding_dim"]))

    def call(self, source, training=None):
        there = ops.not_equal(source, 0)
        x = self.dropout(self.embedding(source), training=training)
        elements, kernels, biases = [], [], []
        for way, turn in zip(self.ways, (lambda x: x, lambda x: x[:, ::-1]), strict=True):
            kernel, recurrent_kernel, bias = cast_weights(self, way)
            elements += [product(turn(x), kernel) + bias[0], turn(there)[..., None]]
            kernels.append(recurrent_kernel)
            biases.append(bias[1])
        start = tf.zeros_like(elements[0][:, 0, : self.sizes["units"]])
        forward, backward = scan(_both_ways, (start, start), kernels, elements, biases)
        return ops.concatenate([forward, backward[:, ::-1]], axis=-1), there

    def get_config(self):
        return super().get_config() | self.sizes


def build_seq2seq(
    attention: str,
    source_vocabulary_size: int,
    target_vocabulary_size: int,
    *,
    embedding_dim: int = 256,
    units: int = 256,
    dropout: float = 0.0,
) -> keras.Model:
    """Build an encoder and a decoder, which translate.

    A network reads a sentence into states, and a second one writes another sentence from there,
    each word from those before it. Without attention, all of the source has to fit into one state;
    with it, the decoder looks back at every place, at those that matter for the next word.

    Args:
        attention: "none", "bahdanau" (before the step, into it), or "luong" (after the step).
        source_vocabulary_size: Number of tokens that are read, with the padding.
        target_vocabulary_size: Number of tokens that are written, with padding, start and end.
        embedding_dim: Length of a token's vector.
        units: Length of the decoder's state, and of the encoder's one way.
        dropout: Rate at the vectors of both and before the logits.

    Returns:
        A model from a dict of ids, "source" `(batch, source length)` and "target" `(batch, target
        length)`, to logits `(batch, target length, target_vocabulary_size)`. The target is one
        place late: it begins with the start, and its logits foretell the token at the next place.
        0 is padding at the end of either, which changes nothing before it.

    Raises:
        ValueError: If there is no such attention, or a number makes no sense.
    """
    if attention not in ATTENTION:
        raise ValueError(f"attention must be one of {list(ATTENTION)}, got {attention!r}")
    check_counts({"source_vocabulary_size": source_vocabulary_size}, least=2)
    check_counts({"target_vocabulary_size": target_vocabulary_size}, least=4)
    check_counts({"embedding_dim": embedding_dim, "units": units})
    check_dropout(dropout)
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in ("source", "target")}
    sizes = {"embedding_dim": embedding_dim, "units": units, "dropout": dropout}
    memory, source_mask = Encoder(source_vocabulary_size, name="encoder", **sizes)(inputs["source"])
    decoder = Decoder(attention, target_vocabulary_size, name="decoder", **sizes)
    x = decoder(inputs["target"], memory, source_mask)
    x = layers.Identity(name="logits")(x)
    return keras.Model(inputs, x, name=f"seq2seq_{attention}")


def _both_ways(states, products, elements, biases):
    found = []
    for way in (0, 1):
        sums, there = elements[2 * way : 2 * way + 2]
        new = gru_update(sums, products[way] + biases[way], states[way])
        found.append(tf.where(there, new, states[way]))
    return found
