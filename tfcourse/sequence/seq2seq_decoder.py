"""The half of a translating network that writes: `seq2seq` has the papers and the equations."""

import keras
import tensorflow as tf
from keras import layers, ops

from tfcourse.sequence.attention import additive_scores, dot_scores, masked_softmax
from tfcourse.sequence.recurrence import cast_weights, gru_update, product, scan, step_once


@keras.saving.register_keras_serializable("tfcourse")
class Decoder(layers.Layer):
    """Foretell each token of a target from those before it and from the source.

    Input: ids `(batch, target length)`, one place late, and what an encoder gave.
    Output: logits `(batch, target length, vocabulary_size)`. `start` and `step` give the same one
    place at a time, which is how `decoding` writes.
    """

    def __init__(
        self,
        attention: str,
        vocabulary_size: int,
        embedding_dim: int,
        units: int,
        dropout: float = 0.0,
        **kwargs,
    ):
        """Say how it attends, and how large everything is.

        Args:
            attention: "none", "bahdanau" or "luong".
            vocabulary_size: Number of tokens, with the padding.
            embedding_dim: Length of a token's vector.
            units: Length of a state.
            dropout: Rate of what is left out of the vectors, and before the logits.
            **kwargs: What every layer takes.
        """
        super().__init__(**kwargs)
        self.sizes = {"attention": attention, "vocabulary_size": vocabulary_size}
        self.sizes |= {"embedding_dim": embedding_dim, "units": units, "dropout": dropout}
        self.kind = attention
        kind = {"dtype": self.dtype_policy}
        self.embedding = layers.Embedding(vocabulary_size, embedding_dim, name="embedding", **kind)
        self.dropout = layers.Dropout(dropout, name="dropout", **kind)
        self.begin = layers.Dense(units, activation="tanh", name="begin", **kind)
        self.cell = layers.GRUCell(units, name="gru", **kind)
        if attention == "bahdanau":
            self.query = layers.Dense(units, use_bias=False, name="query", **kind)
            self.score = layers.Dense(1, use_bias=False, name="score", **kind)
        if attention != "none":
            self.key = layers.Dense(units, use_bias=False, name="key", **kind)
            self.combine = layers.Dense(units, activation="tanh", name="combine", **kind)
        self.logits = layers.Dense(vocabulary_size, name="logits", **kind)

    # Keras 3.13 tells no shape of an argument whose name ends in _mask.
    def build(self, target_shape, memory_shape, source_mask_shape=None):
        units, width = self.sizes["units"], memory_shape[-1]
        self.embedding.build(target_shape)
        self.begin.build((None, width))
        inputs = self.sizes["embedding_dim"] + (width if self.kind == "bahdanau" else 0)
        self.cell.build((None, inputs))
        if self.kind == "bahdanau":
            self.query.build((None, units))
            self.score.build((None, units))
        if self.kind != "none":
            self.key.build((None, width))
            self.combine.build((None, width + units))
        self.logits.build((None, units))

    def call(self, target, memory, source_mask, training=None):
        state = self.start(memory, source_mask)
        states, contexts = self._read(scan, target, state, training)
        return self._foretell(states, contexts, training)

    def start(self, memory, source_mask, length: int | None = None) -> dict:
        """Return the state before the first token.

        Args:
            memory: What the encoder gave, `(batch, source length, n)`.
            source_mask: Where its tokens are, `(batch, source length)`.
            length: The most steps there will be; does not matter here.

        Returns:
            Tensors by name, each with the rows first. Those whose names begin with "memory" stay
            as they are.
        """
        half = memory.shape[-1] // 2
        last = ops.concatenate([memory[:, -1, :half], memory[:, 0, half:]], axis=-1)
        state = {"state": self.begin(last)}
        if self.kind != "none":
            state |= {"memory": memory, "memory_mask": source_mask, "memory_keys": self.key(memory)}
        return state

    def step(self, tokens, place, state: dict) -> tuple:
        """Read a token.

        Args:
            tokens: Ids, `(batch,)`.
            place: How many tokens there were before; does not matter here.
            state: From `start`, or from the step before.

        Returns:
            Logits of the next token, `(batch, vocabulary_size)`, and the state after.
        """
        states, contexts = self._read(step_once, tokens[:, None], state, False)
        logits = self._foretell(states, contexts, False)
        return logits[:, 0], state | {"state": states[:, 0]}

    def attention(self, target, memory, source_mask):
        """Return how much each place of the target attends to each of the source.

        Returns:
            Weights `(batch, target length, source length)`: each row adds up to 1, and is 0 at
            padding.

        Raises:
            ValueError: If this one does not attend.
        """
        if self.kind == "none":
            raise ValueError("attention must be 'bahdanau' or 'luong' to be looked at, got 'none'")
        state = self.start(memory, source_mask)
        states, _ = self._read(scan, target, state, False)
        if self.kind == "bahdanau":
            states = ops.concatenate([state["state"][:, None], states[:, :-1]], axis=1)
        return self._weights(states, state)

    def get_config(self):
        return super().get_config() | self.sizes

    def _read(self, walk, tokens, state, training):
        """Return states and contexts, `(batch, places, n)`, of all tokens."""
        vectors = self.dropout(self.embedding(tokens), training=training)
        kernel, recurrent_kernel, bias = cast_weights(self, self.cell)
        size = vectors.shape[-1]
        elements = [product(vectors, kernel[:size]) + bias[0]]
        shared = [bias[1]]
        if self.kind == "bahdanau":
            both = tf.concat([recurrent_kernel, *cast_weights(self, self.query)], axis=1)
            shared += [kernel[size:], cast_weights(self, self.score)[0][:, 0]]
            shared += [state[name] for name in ("memory_keys", "memory", "memory_mask")]
            start = (state["state"], tf.zeros_like(state["memory"][:, 0]))
            return walk(_attend_and_step, start, [both], elements, shared)
        states = walk(_step, (state["state"],), [recurrent_kernel], elements, shared)[0]
        if self.kind == "none":
            return states, None
        return states, ops.matmul(self._weights(states, state), state["memory"])

    def _weights(self, states, state):
        keys = state["memory_keys"]
        if self.kind == "luong":
            scores = dot_scores(states, keys)
        else:
            scores = additive_scores(
                self.query(states), keys, cast_weights(self, self.score)[0][:, 0]
            )
        return masked_softmax(scores, state["memory_mask"][:, None])

    def _foretell(self, states, contexts, training):
        if contexts is not None:
            states = self.combine(ops.concatenate([contexts, states], axis=-1))
        return self.logits(self.dropout(states, training=training))


def _step(states, products, elements, shared):
    return [gru_update(elements[0], products[0] + shared[0], states[0])]


def _attend_and_step(states, products, elements, shared):
    bias, of_context, v, keys, memory, there = shared
    of_state, query = tf.split(products[0], [bias.shape[0], v.shape[0]], axis=-1)
    context = tf.matmul(masked_softmax(additive_scores(query, keys, v), there[:, None]), memory)
    sums = elements[0] + product(context, of_context)
    return [gru_update(sums, of_state + bias, states[0]), context]
