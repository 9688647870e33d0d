"""Augmentation: pictures that are changed at random, but not in what they show.

Each change tells the network something that does not matter: where the thing is, how bright, how
much of it is seen. It is noise in the input, shaped by what is known of pictures: it lowers the
variance as more pictures would, and what it tells wrongly, a mirrored "b", is bias. Dropout and
noise in hidden layers do the same to learned features, of which nothing is known.

Keras has most of it as layers, which work within a model and only in training:

    mirror       RandomFlip("horizontal")
    turn         RandomRotation(0.05): parts of a full turn
    brightness   RandomBrightness(0.2, value_range=(0, 1)); RandomContrast likewise
    colour       RandomSaturation((0.4, 0.6)): 0.5 is the picture itself; RandomHue(0.1)
    cut-out      RandomErasing((1, 1), (0.25, 0.25), 0.0): a quarter of the picture, always;
                 a single factor p erases with a probability of p / 2
    noise        GaussianNoise(0.1)

All of these compile for XLA, but for those that turn, shift, zoom, shear or tilt: they use an
operation that TPUs lack. They work on CPU and GPU; for a TPU they belong into the input pipeline
(`Dataset.map`). RandomCrop takes one window for a whole batch and, out of training, none at all:
`RandomWindow` is here instead. Mix-up changes targets, too: `training.mix_up` is a step.
"""

from collections.abc import Sequence

import keras
import numpy as np

from tfcourse.vision.augmentation_layers import PrincipalColors, RandomWindow


def principal_colors(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the principal components of the colours of all pixels.

    Args:
        images: Training pictures `(n, height, width, channels)`.

    Returns:
        The standard deviations `(channels,)`, largest first, and the directions, one in each row,
        `(channels, channels)`: what `PrincipalColors` takes.

    Raises:
        ValueError: If `images` has another rank, or fewer than two pixels.
    """
    if np.ndim(images) != 4 or np.size(images) < 2 * np.shape(images)[-1]:
        raise ValueError(
            f"images must be (n, height, width, channels) of two pixels or more, got "
            f"{np.shape(images)}"
        )
    count, total, squares = 0, 0.0, 0.0
    for image in images:  # one at a time: all pixels as float64 would be eight times the memory
        pixels = np.asarray(image, "float64").reshape(-1, image.shape[-1])
        count, total, squares = (
            count + len(pixels),
            total + pixels.sum(0),
            squares + pixels.T @ pixels,
        )
    mean = total / count
    variances, vectors = np.linalg.eigh(squares / count - np.outer(mean, mean))
    return np.sqrt(np.maximum(variances[::-1], 0)), vectors.T[::-1]


def alexnet_augmentation(images: np.ndarray, window: Sequence[int]) -> list[keras.Layer]:
    """Return what AlexNet's pictures went through: windows, mirror, change of colour.

    Args:
        images: Training pictures, whose colours are analysed.
        window: `(height, width)` of a window; the paper cuts 224 out of 256 pixels.
    """
    colors = PrincipalColors(*principal_colors(images))
    return [RandomWindow(window), keras.layers.RandomFlip("horizontal"), colors]


def augment(
    model: keras.Model,
    augmentations: Sequence[keras.Layer],
    input_shape: tuple[int, int, int] | None = None,
) -> keras.Model:
    """Put layers in front of a model, to train it through them.

    The model itself shares its weights with the new one, and stays as it was built: save that.

    Args:
        model: A model from images.
        augmentations: Layers, first to last.
        input_shape: Shape of an image before them, if not that which the model takes.

    Returns:
        A model with the same output; out of training it differs by cut windows alone.
    """
    inputs = x = keras.Input(input_shape or model.input_shape[1:], name="images")
    for layer in augmentations:
        x = layer(x)
    return keras.Model(inputs, model(x), name=f"augmented_{model.name}")


def ten_windows(images: np.ndarray, window: Sequence[int]) -> np.ndarray:
    """Cut the corners and the middle of pictures, plain and mirrored, as AlexNet is tested.

    Args:
        images: Pictures `(n, height, width, channels)`.
        window: `(height, width)` in pixels.

    Returns:
        Windows `(n, 10, *window, channels)`; the network's probabilities for the ten are averaged.

    Raises:
        ValueError: If `images` has another rank, or the window does not fit into the pictures.
    """
    images = np.asarray(images)
    if images.ndim != 4:
        raise ValueError(f"images must be (n, height, width, channels), got {images.shape}")
    height, width = images.shape[1:3]
    if len(window) != 2 or not (1 <= window[0] <= height and 1 <= window[1] <= width):
        raise ValueError(f"window must fit into {(height, width)}, got {tuple(window)}")
    below, right = height - window[0], width - window[1]
    starts = [(0, 0), (0, right), (below, 0), (below, right), (below // 2, right // 2)]
    windows = [
        pictures[:, y : y + window[0], x : x + window[1]]
        for pictures in (images, images[:, :, ::-1])
        for y, x in starts
    ]
    return np.stack(windows, axis=1)
