"""Encoder and decoder of a Transformer (Vaswani et al., 2017), https://arxiv.org/abs/1706.03762.

Both are a table of vectors, the codes of places, and blocks. The decoder reads a whole sequence at
once, to learn from it, or one token after the other, to write.
"""

import keras
from keras import layers, ops

from tfcourse.sequence.transformer_blocks import TransformerBlock, sinusoids


class _Stack(layers.Layer):
    """What encoder and decoder share: a table of vectors and blocks."""

    has_memory = False

    def __init__(
        self,
        embedding: layers.Embedding,
        num_layers: int,
        num_heads: int,
        hidden_units: int,
        dropout: float,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.embedding = embedding
        self.arguments = {"num_heads": num_heads, "hidden_units": hidden_units, "dropout": dropout}
        self.blocks = [
            TransformerBlock(
                model_dim=embedding.output_dim,
                has_memory=self.has_memory,
                dtype=self.dtype_policy,
                name=f"block{number}",
                **self.arguments,
            )
            for number in range(1, num_layers + 1)
        ]
        self.dropout = layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, input_shape):
        if not self.embedding.built:  # it may be another stack's, too
            self.embedding.build()
        for block in self.blocks:
            block.build((None, None, self.embedding.output_dim))

    def vectors(self, ids, places):
        """Return what the first block reads, `(batch, length, model_dim)`."""
        model_dim = self.embedding.output_dim
        x = self.embedding(ids) * model_dim**0.5
        return self.dropout(x + ops.cast(sinusoids(places, model_dim), x.dtype))

    def get_config(self):
        embedding = keras.saving.serialize_keras_object(self.embedding)
        # By this Keras knows a table of both stacks when it loads them. It would set it by itself,
        # but only in the second of two layers when, as here, they hold it inside.
        embedding["shared_object_id"] = id(self.embedding)
        own = {"embedding": embedding, "num_layers": len(self.blocks)}
        return super().get_config() | own | self.arguments

    @classmethod
    def from_config(cls, config):
        embedding = keras.saving.deserialize_keras_object(config["embedding"])
        return cls(**config | {"embedding": embedding})


@keras.saving.register_keras_serializable("tfcourse")
class TransformerEncoder(_Stack):
    """The half that reads: ids `(batch, length)` to a memory and a mask of its tokens."""

    def call(self, ids):
        """Return vectors `(batch, length, model_dim)`, and `(batch, length)`, True at tokens."""
        mask = ops.not_equal(ids, 0)
        x = self.vectors(ids, ops.arange(ops.shape(ids)[1]))
        for block in self.blocks:
            x = block(x, mask[:, None, None])
        return x, mask


@keras.saving.register_keras_serializable("tfcourse")
class TransformerDecoder(_Stack):
    """The half that writes: which token comes next, after those so far, given a memory."""

    has_memory = True

    def call(self, ids, memory, source_mask):
        """Return logits at every place at once, `(batch, length, vocabulary_size)`.

        Args:
            ids: Tokens, the first of them the start, `(batch, length)`.
            memory: Of the encoder.
            source_mask: Of the encoder.
        """
        return self._read(ids, memory, source_mask)[0]

    def attention(self, ids, memory, source_mask):
        """Return how much the last block looks at each token of the source, mean of its heads.

        Args:
            ids: Tokens, the first of them the start, `(batch, length)`.
            memory: Of the encoder.
            source_mask: Of the encoder.

        Returns:
            Weights `(batch, length, source length)`, which sum to 1.
        """
        return ops.mean(self._read(ids, memory, source_mask)[1], axis=1)

    def start(self, memory, source_mask, length: int) -> dict[str, keras.KerasTensor]:
        """Return the state before the first token; the first axis of all in it are the rows.

        Args:
            memory: Of the encoder.
            source_mask: Of the encoder.
            length: The most tokens that there will be.
        """
        state = {"memory_mask": source_mask}
        for number, block in enumerate(self.blocks):
            keys, values = block.memory_attention.read(memory)
            state |= {f"memory_keys{number}": keys, f"memory_values{number}": values}
            none = ops.zeros((*ops.shape(keys)[:2], length, keys.shape[-1]), keys.dtype)
            state |= {f"keys{number}": none, f"values{number}": none}
        return state

    def step(self, tokens, place, state):
        """Read one token of each row.

        Args:
            tokens: `(rows,)`.
            place: Where they are, counted from 0: below the length that `start` was told.
            state: As of `start` or of the step before.

        Returns:
            Logits of the next token, `(rows, vocabulary_size)`, and the state after.
        """
        state = dict(state)
        x = self.vectors(tokens[:, None], ops.reshape(place, (1,)))
        places = ops.arange(state["keys0"].shape[2])
        here, mask = ops.equal(places, place)[:, None], ops.less_equal(places, place)
        for number, block in enumerate(self.blocks):
            for name, new in zip(("keys", "values"), block.attention.read(x), strict=True):
                # Not a slice that is written to: the same for one place and, in a loop, for any.
                state[f"{name}{number}"] = ops.where(here, new, state[f"{name}{number}"])
            own = [state[f"{name}{number}"] for name in ("keys", "values")]
            memory = [state[f"memory_{name}{number}"] for name in ("keys", "values")]
            x, _ = block.look(x, (*own, mask), (*memory, state["memory_mask"][:, None, None]))
        return self._logits(x)[:, 0], state

    def _read(self, ids, memory, source_mask):
        places = ops.arange(ops.shape(ids)[1])
        x, weights = self.vectors(ids, places), None
        before = places <= places[:, None]
        for block in self.blocks:
            own = (*block.attention.read(x), before)
            x, weights = block.look(
                x, own, (*block.memory_attention.read(memory), source_mask[:, None, None])
            )
        return self._logits(x), weights

    def _logits(self, x):
        return ops.matmul(x, ops.transpose(ops.cast(self.embedding.embeddings, x.dtype)))
