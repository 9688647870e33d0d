"""The parts of a Transformer (Vaswani et al., 2017), https://arxiv.org/abs/1706.03762.

What a block does to a sequence x of vectors, with LN for layer normalization (Ba, Kiros & Hinton,
2016, https://arxiv.org/abs/1607.06450):

    both       x <- LN(x + heads(x, x))         the decoder's looks no further than its own place
    decoder    x <- LN(x + heads(x, memory))
    both       x <- LN(x + relu(x W_1 + b_1) W_2 + b_2)

Read token by token, all that a block of the decoder needs of what came before are its keys and
values, which are kept.
"""

import keras
import numpy as np
from keras import layers, ops

from tfcourse.sequence.attention import scaled_dot_product

# The paper doesn't say; its published code has this.
EPSILON = 1e-6


def sinusoids(places: keras.KerasTensor, model_dim: int) -> keras.KerasTensor:
    """Return the codes of places in a sequence: waves from 2 pi to 10000 times 2 pi long.

        code[p, 2 i] = sin(p / 10000^(2 i / n))        code[p, 2 i + 1] = cos(p / 10000^(2 i / n))

    The code of p + k is that of p turned by angles of k alone, so that a distance is easy to see,
    and there is one for any place.

    Args:
        places: Counted from 0, `(length,)`.
        model_dim: n, even.

    Returns:
        Codes `(length, model_dim)`.
    """
    rates = 10_000.0 ** (-np.arange(0, model_dim, 2) / model_dim)
    angles = ops.cast(places, "float32")[:, None] * rates.astype("float32")
    waves = ops.stack([ops.sin(angles), ops.cos(angles)], axis=-1)
    return ops.reshape(waves, (-1, model_dim))


@keras.saving.register_keras_serializable("tfcourse")
class AttentionHeads(layers.Layer):
    """Attention in several subspaces at once, where each head looks for something else.

        head_i = softmax(q_i K_i^T / sqrt(d)) V_i,   q_i = x W_i,  K_i = y U_i,  V_i = y Z_i
        [head_1, ..., head_h] W

    with d = `model_dim / num_heads`; no biases, as in the paper.
    """

    def __init__(self, num_heads: int, model_dim: int, **kwargs):
        """Take the number of heads, which divides `model_dim`."""
        super().__init__(**kwargs)
        self.num_heads, self.model_dim = num_heads, model_dim
        self.query, self.key, self.value, self.join = (
            layers.Dense(model_dim, use_bias=False, dtype=self.dtype_policy, name=name)
            for name in ("query", "key", "value", "output")
        )

    def build(self, input_shape):
        """Make the weights."""
        for part in (self.query, self.key, self.value, self.join):
            part.build((None, self.model_dim))

    def read(self, y: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Return the keys and the values of vectors, each `(batch, heads, length of y, d)`."""
        return self._split(self.key(y)), self._split(self.value(y))

    def look(
        self,
        x: keras.KerasTensor,
        keys: keras.KerasTensor,
        values: keras.KerasTensor,
        mask: keras.KerasTensor,
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Look for something.

        Args:
            x: The vectors that ask, `(batch, length, model_dim)`.
            keys: As of `read`.
            values: As of `read`.
            mask: True where x may look; of the shape of the weights, or 1 along an axis.

        Returns:
            What they find, `(batch, length, model_dim)`, and the weights of the heads,
            `(batch, heads, length, length of y)`.
        """
        found, weights = scaled_dot_product(self._split(self.query(x)), keys, values, mask)
        found = ops.transpose(found, (0, 2, 1, 3))
        found = ops.reshape(found, (*ops.shape(x)[:2], self.model_dim))
        return self.join(found), weights

    def call(self, x, y, mask):
        """Return what x finds in y, `(batch, length of x, model_dim)`."""
        return self.look(x, *self.read(y), mask)[0]

    def get_config(self):
        """Return the arguments."""
        return super().get_config() | {"num_heads": self.num_heads, "model_dim": self.model_dim}

    def _split(self, x):
        shape = (*ops.shape(x)[:2], self.num_heads, self.model_dim // self.num_heads)
        return ops.transpose(ops.reshape(x, shape), (0, 2, 1, 3))


@keras.saving.register_keras_serializable("tfcourse")
class TransformerBlock(layers.Layer):
    """A block of the encoder, or of the decoder if it has a memory to look into."""

    def __init__(
        self,
        num_heads: int,
        model_dim: int,
        hidden_units: int,
        dropout: float,
        has_memory: bool = False,
        **kwargs,
    ):
        """Take the sizes, and the rate of dropout of all that is added to x."""
        super().__init__(**kwargs)
        self.arguments = {"num_heads": num_heads, "model_dim": model_dim, "dropout": dropout}
        self.arguments |= {"hidden_units": hidden_units, "has_memory": has_memory}
        policy = self.dtype_policy
        names = ["attention", *["memory_attention"] * has_memory]
        heads = [AttentionHeads(num_heads, model_dim, dtype=policy, name=name) for name in names]
        self.attention, self.memory_attention = heads[0], heads[1] if has_memory else None
        self.hidden = layers.Dense(hidden_units, "relu", dtype=policy, name="hidden")
        self.narrow = layers.Dense(model_dim, dtype=policy, name="narrow")
        self.norms = [
            layers.LayerNormalization(epsilon=EPSILON, dtype=policy, name=f"{name}_norm")
            for name in (*names, "narrow")
        ]
        self.dropout = layers.Dropout(dropout, dtype=policy, name="dropout")

    def build(self, input_shape):
        """Make the weights."""
        vectors = (None, None, self.arguments["model_dim"])
        for part in (self.attention, self.memory_attention, self.hidden, *self.norms):
            if part is not None:
                part.build(vectors)
        self.narrow.build((None, None, self.arguments["hidden_units"]))

    def call(self, x, mask, memory=None, memory_mask=None):
        """Return x after the block, `(batch, length, model_dim)`."""
        own = self.attention.read(x)
        read = self.memory_attention.read(memory) if self.memory_attention else None
        return self.look(x, (*own, mask), read and (*read, memory_mask))[0]

    def look(self, x, own: tuple, memory: tuple | None):
        """Return x after the block, and the weights with which its heads looked at the memory.

        Args:
            x: Vectors `(batch, length, model_dim)`.
            own: Keys, values and mask of the sequence itself, as `AttentionHeads.look` wants them.
            memory: Those of the memory.
        """
        x = self.norms[0](x + self.dropout(self.attention.look(x, *own)[0]))
        weights = None
        if memory is not None:
            found, weights = self.memory_attention.look(x, *memory)
            x = self.norms[1](x + self.dropout(found))
        return self.norms[-1](x + self.dropout(self.narrow(self.hidden(x)))), weights

    def get_config(self):
        """Return the arguments."""
        return super().get_config() | self.arguments
