"""The Transformer (Vaswani et al., 2017), https://arxiv.org/abs/1706.03762.

With E the table of the tokens' vectors, n their length, and `sinusoids` the codes of places:

    x_t = sqrt(n) E[w_t] + code_t       memory = the source's x after its blocks
    logits_t = y_t E^T                  y = the target's x after its blocks, which see memory

`transformer_stacks` has the two halves, `transformer_blocks` their blocks. What a block adds to x
goes through dropout first, and so does x at the start.
"""

import keras
from keras import layers

from tfcourse.sequence.tokens import check_counts, check_dropout
from tfcourse.sequence.transformer_stacks import TransformerDecoder, TransformerEncoder


def build_transformer(
    source_vocabulary_size: int,
    target_vocabulary_size: int | None = None,
    *,
    model_dim: int = 512,
    num_heads: int = 8,
    hidden_units: int = 2048,
    num_layers: int = 6,
    dropout: float = 0.1,
) -> keras.Model:
    """Build a translating network without recurrence or convolution; as it is, the paper's base.

    Every token looks at all others at once, and takes from those that matter to it: any two places
    are one step apart, and in training no place waits for another.

    Args:
        source_vocabulary_size: Number of tokens of the source, with the padding.
        target_vocabulary_size: The same of the target, whose table of vectors is also the matrix of
            the logits. `None`, the paper's, for one vocabulary of both languages: then the table is
            the source's, too.
        model_dim: Length of the vectors: even, and a multiple of `num_heads`.
        num_heads: How many ways each block has of looking.
        hidden_units: Neurons in the hidden layer of each block.
        num_layers: Blocks of the encoder, and of the decoder.
        dropout: Rate of what the blocks add to the vectors, and of the first vectors.

    Returns:
        A model from `source`, ids `(batch, source length)`, and `target`, ids `(batch, length)`
        that begin with the start, both with 0 for padding at the end, to logits of the token after
        each, `(batch, length, target_vocabulary_size)`; those at padding mean nothing. Its layer
        `encoder` gives memory and mask; its layer `decoder` also reads token by token.

    Raises:
        ValueError: If a number makes no sense.
    """
    check_counts({"source_vocabulary_size": source_vocabulary_size}, least=2)
    if target_vocabulary_size is not None:
        check_counts({"target_vocabulary_size": target_vocabulary_size}, least=2)
    check_counts({"num_heads": num_heads, "hidden_units": hidden_units, "num_layers": num_layers})
    check_counts({"model_dim": model_dim})
    if model_dim % 2 or model_dim % num_heads:
        raise ValueError(
            f"model_dim must be even and a multiple of num_heads, {num_heads}, got {model_dim}"
        )
    check_dropout(dropout)

    of_source = _table(source_vocabulary_size, model_dim, "source_embedding")
    of_target = of_source
    if target_vocabulary_size is not None:
        of_target = _table(target_vocabulary_size, model_dim, "target_embedding")
    sizes = (num_layers, num_heads, hidden_units, dropout)
    source = keras.Input((None,), dtype="int32", name="source")
    target = keras.Input((None,), dtype="int32", name="target")
    memory, mask = TransformerEncoder(of_source, *sizes, name="encoder")(source)
    x = TransformerDecoder(of_target, *sizes, name="decoder")(target, memory, mask)
    x = layers.Identity(name="logits")(x)
    return keras.Model({"source": source, "target": target}, x, name="transformer")


def _table(vocabulary_size: int, model_dim: int, name: str) -> layers.Embedding:
    # Times sqrt(n) the vectors have entries of variance 1, and so have the logits.
    start = keras.initializers.RandomNormal(stddev=model_dim**-0.5)
    return layers.Embedding(vocabulary_size, model_dim, start, name=name)
