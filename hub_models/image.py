"""Image classifiers on a pretrained backbone: transfer learning as a functional model."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
from keras import layers

from hub_models.catalogue import ADDRESSES, CATALOGUE
from hub_models.layer import HubLayer
from tfcourse.data.image_folders import read_image

HUB_RANGE = (0.0, 1.0)  # TF Hub's common signature for images


def build_image_classifier(
    handle: str,
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    trainable: bool | str = False,
    dropout: float = 0.2,
    augment: bool = False,
) -> keras.Model:
    """Build a classifier of images on the features of a pretrained SavedModel.

    A network that learned a million photos has features that fit other pictures too: a linear
    layer on them learns a new task from few labels (Donahue et al., 2014,
    https://arxiv.org/abs/1310.1531), and training the top of the backbone adapts them. Batch
    normalisation stays in inference mode also then: the new pictures are too few for statistics.

    Args:
        handle: What `hub_models.load` takes, of a model from images to feature vectors.
        input_shape: Shape of an image, `(height, width, channels)`, with 1 or 3 channels. Images
            are resized only for a backbone that takes one size.
        num_classes: Number of classes.
        trainable: Which variables of the backbone train: none, all, or those in whose name the
            regular expression is found.
        dropout: Rate between features and logits.
        augment: Whether images are mirrored at random in training.

    Returns:
        A model from pixels in 0 ... 255, `(batch, *input_shape)`, to logits `(batch,
        num_classes)`. Its layers `backbone`, `dropout` and `logits` can be taken apart.

    Raises:
        ValueError: If the shape, the number of classes or the backbone's output does not fit.
    """
    _check(input_shape, num_classes)
    backbone = HubLayer(
        handle,
        trainable=trainable,
        arguments={"training": False},
        name="backbone",
    )
    inputs = keras.Input(input_shape, name="images")
    x = _augmentation()(inputs) if augment else inputs
    features = backbone(_fit_input(backbone, x))
    x = layers.Dropout(dropout, name="dropout")(_vector(features))
    return keras.Model(
        inputs, layers.Dense(num_classes, name="logits")(x), name="hub_image_classifier"
    )


def top_classes(
    folder: str | Path, images: Sequence[str | Path], size: tuple[int, int], top: int = 3
) -> Iterator[list[tuple[int, float]]]:
    """Classify picture files with an exported classifier.

    Args:
        folder: A SavedModel from pixels in 0 ... 255 to logits.
        images: Picture files.
        size: Height and width that the model takes.
        top: How many classes to give.

    Yields:
        For each picture the best classes, `(index, probability)`, best first.
    """
    pictures = [read_image(path, size) for path in images]
    model = HubLayer(str(folder))
    for picture in pictures:
        logits = model(keras.ops.cast(picture[None], "float32"))
        probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(logits))[0]
        best = probabilities.argsort()[::-1][:top]
        yield [(int(i), float(probabilities[i])) for i in best]


def _check(input_shape: tuple[int, int, int], num_classes: int) -> None:
    if len(input_shape) != 3 or input_shape[-1] not in (1, 3):
        raise ValueError(
            f"input_shape must be (height, width, channels) with 1 or 3 channels, got {input_shape}"
        )
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")


def _augmentation() -> keras.Layer:
    """Mirror images at random; only in training. Keras' shifts and turns do not compile for TPU."""
    return layers.RandomFlip("horizontal", name="augment")


def _fit_input(backbone: HubLayer, x: keras.KerasTensor) -> keras.KerasTensor:
    """Bring pixels in 0 ... 255 to the range, channels and size that the backbone takes."""
    entry = (CATALOGUE | ADDRESSES).get(backbone.handle)
    low, high = (entry and entry.input_range) or HUB_RANGE
    x = layers.Rescaling((high - low) / 255, offset=low, name="rescale")(x)
    *size, channels = _image_shape(backbone)
    if x.shape[-1] == 1 and channels != 1:
        x = layers.Concatenate(name="grey_to_colour")([x, x, x])
    if None not in size and tuple(size) != x.shape[1:3]:
        x = layers.Resizing(*size, name="resize")(x)
    return x


def _image_shape(backbone: HubLayer) -> tuple[int | None, ...]:
    """Return the height, width and channels that the backbone takes; `None` where it takes any."""
    spec = backbone.input_spec_of_one
    shape = tuple(spec.shape[1:]) if spec is not None and spec.shape.rank == 4 else ()
    if len(shape) != 3 or shape[2] not in (None, 1, 3) or not spec.dtype.is_floating:
        raise ValueError(
            f"{backbone.handle!r} must take images, floats (batch, height, width, 1 or 3), got "
            f"{spec if spec is None else (spec.dtype.name, tuple(spec.shape))}"
        )
    return shape


def _vector(features: keras.KerasTensor) -> keras.KerasTensor:
    """Return one vector an image: a feature map is averaged over its positions."""
    if isinstance(features, dict):
        raise ValueError(
            f"the backbone must give one tensor, got a dict with the keys {sorted(features)}"
        )
    if len(features.shape) == 4:
        return layers.GlobalAveragePooling2D(name="average")(features)
    if len(features.shape) != 2:
        raise ValueError(f"the backbone must give a vector an image, got shape {features.shape}")
    return features
