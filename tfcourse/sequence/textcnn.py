"""TextCNN (Kim, 2014), https://arxiv.org/abs/1408.5882.

With x_i the vector of word i of n, a filter w of h words has one feature of a text, the most that
it finds in any window; all features z go through dropout to the logits:

    c_i = relu(w . [x_i, ..., x_(i+h-1)] + b)       z = max_i c_i       logits = dropout(z) W + b
"""

import keras
import numpy as np
from keras import layers, ops

from tfcourse.sequence.tokens import check_counts, check_dropout, check_vocabulary

# Section 3.3: which tables of words a variant has, and whether they are trained.
TABLES = {
    "rand": {"embedding": True},
    "static": {"static_embedding": False},
    "non-static": {"embedding": True},
    "multichannel": {"static_embedding": False, "embedding": True},
}
# Section 3.3 of the paper has words that it knows no vector of from this range.
START = 0.25
# What a window that does not count is lowered by: more than any finds, and no infinity in float16.
LOWERED_BY = 6e4


def build_textcnn(
    variant: str,
    vocabulary_size: int,
    num_classes: int | None,
    *,
    embedding_dim: int = 300,
    kernel_sizes: tuple[int, ...] = (3, 4, 5),
    filters: int = 100,
    dropout: float = 0.5,
    vectors: np.ndarray | None = None,
    max_norm: float | None = 3.0,
) -> keras.Model:
    """Build a convolutional classifier of texts.

    One layer of filters as wide as a word's vector looks for phrases of a few words wherever they
    are, and only how well the best window fits counts: no order beyond a window, and so nothing
    that has to wait for the word before.

    A window counts if its first token is none of padding; what reaches beyond the end sees zeros.
    So padding changes nothing, and a text may be shorter than a window. (The paper pads both ends,
    where its published code does, so that words at the start are seen by more windows.)

    Args:
        variant: "rand" learns all vectors; "static" has given ones and leaves them as they are;
            "non-static" begins with given ones; "multichannel" has the last two side by side: each
            filter reads both and adds what it finds, as the paper says (many ports have two sets
            of filters instead).
        vocabulary_size: Number of tokens, with the padding.
        num_classes: Number of classes, or `None` to end at the features.
        embedding_dim: Length of a token's vector.
        kernel_sizes: h of the filters, in words.
        filters: How many there are of each h.
        dropout: Rate before the logits.
        vectors: What to begin with, `(vocabulary_size, embedding_dim)`; for all but "rand".
        max_norm: The most that the weights of a class may measure, by their L2 norm; they are
            scaled down to it after each step. `None` for no limit.

    Returns:
        A model from ids `(batch, length)`, of any length with 0 for padding, to logits
        `(batch, num_classes)` or to features `(batch, filters * len(kernel_sizes))`, which are 0
        for a text without a token.

    Raises:
        ValueError: If there is no such variant, a number makes no sense, or vectors are missing,
            don't fit, or are not wanted.
    """
    if variant not in list(TABLES):
        raise ValueError(f"variant must be one of {list(TABLES)}, got {variant!r}")
    check_vocabulary(vocabulary_size, num_classes)
    check_counts({"embedding_dim": embedding_dim, "filters": filters})
    _check_kernel_sizes(kernel_sizes)
    check_dropout(dropout)
    _check_vectors(variant, vectors, (vocabulary_size, embedding_dim))
    if max_norm is not None and not max_norm > 0:
        raise ValueError(f"max_norm must be above 0, or None, got {max_norm!r}")

    ids = keras.Input((None,), dtype="int32", name="ids")
    channels = [
        layers.Embedding(vocabulary_size, embedding_dim, _start(), trainable=trained, name=name)
        for name, trained in TABLES[variant].items()
    ]
    words = [channel(ids) for channel in channels]
    # The sum of what a filter finds in each is what it finds in the sum.
    x = layers.Add(name="channels")(words) if len(words) > 1 else words[0]
    mask = ops.cast(ops.not_equal(ids, 0), x.dtype)[..., None]
    x = x * mask
    x = [_features(x, mask, size, filters) for size in kernel_sizes]
    x = layers.Concatenate(name="features")(x) if len(x) > 1 else x[0]
    if num_classes is not None:
        x = layers.Dropout(dropout, name="dropout")(x)
        limit = None if max_norm is None else keras.constraints.MaxNorm(max_norm)
        x = layers.Dense(num_classes, kernel_constraint=limit, name="logits")(x)
    model = keras.Model(ids, x, name=f"textcnn_{variant}")
    if vectors is not None:
        for channel in channels:
            channel.set_weights([vectors])
    return model


def _features(
    x: keras.KerasTensor, mask: keras.KerasTensor, size: int, filters: int
) -> keras.KerasTensor:
    """Return the most that each filter of one size finds: `(batch, length, n) -> (batch, m)`."""
    x = layers.ZeroPadding1D((0, size - 1), name=f"padded{size}")(x)
    x = layers.Conv1D(filters, size, name=f"windows{size}")(x)
    # The relu of the greatest is the greatest of the relus, for less work.
    return ops.relu(ops.max(x + (mask - 1) * LOWERED_BY, axis=1))


def _start() -> keras.initializers.Initializer:
    return keras.initializers.RandomUniform(-START, START)


def _check_kernel_sizes(kernel_sizes: tuple[int, ...]) -> None:
    if not kernel_sizes or len(set(kernel_sizes)) < len(kernel_sizes):
        raise ValueError(f"kernel_sizes must be one or more different, got {kernel_sizes!r}")
    for size in kernel_sizes:
        check_counts({"kernel_sizes": size})


def _check_vectors(variant: str, vectors: np.ndarray | None, shape: tuple[int, int]) -> None:
    if variant == "rand":
        if vectors is not None:
            raise ValueError("vectors must be None for 'rand', which learns its own")
    elif np.shape(vectors) != shape:
        found = None if vectors is None else np.shape(vectors)
        raise ValueError(f"vectors must be of shape {shape} for {variant!r}, got {found}")
