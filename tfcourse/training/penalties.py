"""Penalties on the kernels of a model that is already built: L2 (weight decay) and L1 (lasso)."""

import math

import keras

# Where layers keep the regularizer of a kernel; multi-head attention has it a second time.
ATTRIBUTES = {
    "kernel_regularizer",
    "_kernel_regularizer",
    "depthwise_regularizer",
    "pointwise_regularizer",
    "recurrent_regularizer",
}


def penalise(model: keras.Model, *, l1: float = 0.0, l2: float = 0.0) -> keras.Model:
    """Add `l1 * sum |w| + l2 * sum w^2` over the kernels to the loss of a model.

    Small weights make a smooth function: less variance between training sets, for a little bias.
    L2 shrinks every weight in proportion to itself; L1 takes the same step from all, and so ends
    with zeros. Under SGD, L2 is weight decay of `2 * l2 * learning_rate`; under Adam it is not,
    since Adam divides the penalty's gradient, too: there AdamW decays.

    Kernels are those of convolutions, dense and recurrent layers. Biases, normalization and
    embeddings are left alone. What a kernel was penalised with before is replaced, so zeros take a
    penalty away. The penalty is part of the model: a `.keras` file keeps it (for layers of
    Keras). Call it before training; a model that `Model.fit` has trained is compiled again.

    Args:
        model: A built model.
        l1: Factor of the absolute values.
        l2: Factor of the squares.

    Returns:
        The same model.

    Raises:
        ValueError: If a factor is negative or not finite, or the model has no kernel.
    """
    for name, value in (("l1", l1), ("l2", l2)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be at least 0 and finite, got {value}")
    regularizer = keras.regularizers.L1L2(l1, l2) if l1 or l2 else None
    for kernel in kernels(model):
        kernel.regularizer = regularizer
    for layer in model._flatten_layers():
        for name in ATTRIBUTES & vars(layer).keys():  # what a file is written from
            setattr(layer, name, regularizer)
    return model


def kernels(model: keras.Model) -> list[keras.Variable]:
    """Return the kernels of a model, by their name: also biases may have several axes.

    Raises:
        ValueError: If there is none, as in a model that is not built.
    """
    found = [w for w in model.weights if w.name == "kernel" or w.name.endswith("_kernel")]
    if not found:
        raise ValueError(f"model must be built and have a kernel, {model.name} has none")
    return found
