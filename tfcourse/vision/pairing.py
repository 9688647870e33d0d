"""Which array of a publisher's file belongs to which weight of a model, and in which form.

Publishers differ in more than names: in the order of axes, in biases before a normalization, in
the epsilon of the normalization. All of it is made good here, exactly.
"""

import math
import re

import keras
import numpy as np
from keras import layers

from tfcourse.vision.published import Published

Pairs = list[tuple[keras.Variable, np.ndarray]]

# How torch calls what Keras calls.
TORCH = {
    "kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# What the classifier is called in Keras' files, which are older than today's names.
CLASSIFIERS = {"fc1000", "probs"}


Triples = list[tuple[np.ndarray, keras.Variable, layers.Layer]]


def pair_weights(model: keras.Model, found: dict, row: Published) -> Pairs:
    """Pair every weight of a model with what a publisher's file has for it.

    Args:
        model: A model as its builder made it.
        found: What `read_keras` or `read_torch` found in the file.
        row: The row of the table of published weights.

    Returns:
        Each variable and its value; nothing is assigned.

    Raises:
        ValueError: If an array finds no place, a weight finds no array, or their shapes differ.
    """
    pair = pair_keras if row.publisher == "Keras" else pair_torch
    pairs, shapes = [], flattened_shapes(model)
    for value, weight, layer in pair(model, found, row):
        if layer.name in shapes and value.ndim == 2:
            check_map(layer.name, shapes[layer.name], len(value))
        if tuple(weight.shape) != value.shape:
            raise ValueError(f"{weight.path} is {tuple(weight.shape)}, the file has {value.shape}")
        if weight.name == "moving_variance":
            value = value + np.float32(row.epsilon - layer.epsilon)  # noqa: PLW2901
        pairs.append((weight, value))
    return pairs


def pair_torch(model: keras.Model, tensors: dict[str, np.ndarray], row: Published) -> Triples:
    """Pair by name, and put the axes in Keras' order."""
    # The oldest files of DenseNets call `norm1` `norm.1`.
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
    kept = {name: x for name, x in tensors.items() if not name.endswith(".num_batches_tracked")}
    wanted = [
        (
            f"{their_name(model, row, layer.name)}.{TORCH.get(weight.name, weight.name)}",
            weight,
            layer,
        )
        for layer in model.layers
        for weight in layer.weights
    ]
    triples = match(
        wanted, {old.sub(r"\1\2", name): x for name, x in kept.items()}, spare(model, row, ".")
    )
    shapes = flattened_shapes(model)
    return [
        (to_keras(x, layer, shapes.get(layer.name)), weight, layer) for x, weight, layer in triples
    ]


def pair_keras(model: keras.Model, groups: dict[str, list[np.ndarray]], row: Published) -> Triples:
    """Pair layers by name or, as Keras itself does, by order; inside a layer by order."""
    groups = in_order(model, groups) if row.name is None else fold_biases(rename(groups))
    arrays = {f"{layer}/{i}": x for layer, found in groups.items() for i, x in enumerate(found)}
    wanted = [
        (f"{their_name(model, row, layer.name)}/{i}", weight, layer)
        for layer in model.layers
        for i, weight in enumerate(layer.weights)
    ]
    return match(wanted, arrays, spare(model, row, "/"))


def their_name(model: keras.Model, row: Published, layer: str) -> str:
    """Return the publisher's name of a layer, which must be one that the builder made."""
    try:
        return row.name(layer) if row.name else layer
    except (AttributeError, LookupError, ValueError) as error:  # it is like no name they know
        rule = f"layer {layer} is none of {model.name}'s as its builder makes it"
        raise ValueError(rule) from error


def match(
    wanted: list[tuple[str, keras.Variable, layers.Layer]],
    arrays: dict[str, np.ndarray],
    spared: tuple[str, ...],
) -> Triples:
    """Put an array to each wanted name; those left must be of layers that the model spares."""
    missing = [name for name, _, _ in wanted if name not in arrays]
    if missing:
        raise ValueError(f"{len(missing)} tensors are missing: {', '.join(missing[:3])}")
    names = {name for name, _, _ in wanted}
    left = [name for name in arrays if name not in names and not name.startswith(spared)]
    if left:
        raise ValueError(f"{len(left)} tensors find no place: {', '.join(left[:3])}")
    return [(arrays[name], weight, layer) for name, weight, layer in wanted]


def spare(model: keras.Model, row: Published, dot: str) -> tuple[str, ...]:
    """Return how the names begin of arrays whose layers this model was built without."""
    present = {layer.name for layer in model.layers if layer.weights}
    names = {their_name(model, row, layer) for layer in present}
    left = row.head if "logits" not in present else ()
    head = [f"{their_name(model, row, layer)}{dot}" for layer in left]
    absent = [part for part in row.auxiliary if not any(n.startswith(part) for n in names)]
    return (*head, *absent)


def rename(groups: dict[str, list[np.ndarray]]) -> dict[str, list[np.ndarray]]:
    """Give the layers of Keras' files their names of today."""
    return {
        "predictions" if name in CLASSIFIERS else name.replace("/", "_"): found
        for name, found in groups.items()
    }


def fold_biases(groups: dict[str, list[np.ndarray]]) -> dict[str, list[np.ndarray]]:
    """Leave out the biases of convolutions before a normalization: they shift its mean.

    (x + bias) - mean = x - (mean - bias)
    """
    folded = dict(groups)
    for name, found in groups.items():
        normalization = f"{name.removesuffix('_conv')}_bn"
        if name.endswith("_conv") and len(found) == 2 and normalization in groups:
            gamma, beta, mean, variance = groups[normalization]
            folded[name] = found[:1]
            folded[normalization] = [gamma, beta, mean - found[1], variance]
    return folded


def in_order(
    model: keras.Model, groups: dict[str, list[np.ndarray]]
) -> dict[str, list[np.ndarray]]:
    """Give the layers of a file the names of the model's, in their order."""
    ours = [layer.name for layer in model.layers if layer.weights]
    labels = ours if "logits" in ours else [*ours, "logits"]
    if not len(ours) <= len(groups) <= len(labels):
        raise ValueError(f"it has {len(groups)} layers with weights, the model {len(ours)}")
    return dict(zip(labels, groups.values(), strict=False))


def flattened_shapes(model: keras.Model) -> dict[str, tuple[int, int, int]]:
    """Return the shape of the map that each dense layer sees flattened."""
    makers = {id(layer.output): layer for layer in model.layers}
    shapes = {}
    for layer in model.layers:
        before = layer
        while isinstance(layer, layers.Dense) and before is not None:
            before = makers.get(id(before.input))
            if isinstance(before, layers.Flatten):
                shapes[layer.name] = before.input.shape[1:]
            if not isinstance(before, layers.Dropout):
                break
    return shapes


def check_map(layer: str, shape: tuple[int, int, int], inputs: int) -> None:
    """Refuse a head another map than the file's: 4x9 pixels are as many as 6x6."""
    height, width, channels = shape
    side = math.isqrt(inputs // channels)  # every publisher's map is square
    if (height, width) != (side, side):
        rule = f"{layer} sees a map of {height}x{width}, in the file one of {side}x{side}"
        raise ValueError(f"{rule}: the published weights need images of 224x224")


def to_keras(
    tensor: np.ndarray, layer: layers.Layer, flattened: tuple[int, int, int] | None
) -> np.ndarray:
    """Move torch's `(out, in, height, width)` to Keras' `(height, width, in, out)`."""
    if tensor.ndim == 2 and flattened and tensor.shape[1] == math.prod(flattened):
        height, width, channels = flattened
        maps = tensor.reshape(-1, channels, height, width)
        return maps.transpose(2, 3, 1, 0).reshape(-1, len(tensor))
    if tensor.ndim == 4 and isinstance(layer, layers.DepthwiseConv2D):
        return tensor.transpose(2, 3, 0, 1)
    return tensor.transpose(*range(2, tensor.ndim), 1, 0) if tensor.ndim > 1 else tensor
