"""What a network that restores images has to be better than: filters and principal components."""

from collections.abc import Callable, Sequence

import numpy as np

RADIUS = 4  # of the window of `mean_filter`, in pixels


def mean_filter(images: np.ndarray, width: float) -> np.ndarray:
    """Replace each pixel by a mean of its neighbours, weighted by a Gaussian.

    Args:
        images: `(n, height, width, channels)` of floats, from 5 pixels; beyond its rim an image is
            its own mirror image.
        width: Standard deviation of the Gaussian in pixels, above 0; from 2 on the window of 9x9
            pixels cuts it off.

    Returns:
        Images of the same shape and type.

    Raises:
        ValueError: If the width is not above 0.
    """
    if not width > 0:
        raise ValueError(f"width must be above 0, got {width}")
    weights = np.exp(-np.square(np.arange(-RADIUS, RADIUS + 1) / width) / 2)
    weights = (np.outer(weights, weights) / weights.sum() ** 2).astype(images.dtype)
    return np.stack([np.tensordot(_windows(image, RADIUS), weights) for image in images])


def median_filter(images: np.ndarray, size: int) -> np.ndarray:
    """Replace each pixel by the median of the `size` x `size` pixels around it.

    Args:
        images: `(n, height, width, channels)` of floats; beyond its rim an image is its own mirror
            image.
        size: An odd number.

    Returns:
        Images of the same shape and type.

    Raises:
        ValueError: If the size is not an odd number from 1 up.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size must be an odd number from 1 up, got {size}")
    return np.stack([np.median(_windows(image, size // 2), axis=(-2, -1)) for image in images])


def best_strength(
    apply: Callable, strengths: Sequence, clean: np.ndarray, noisy: np.ndarray
) -> float:
    """Choose the strength at which a filter brings noisy images nearest to the clean ones.

    Args:
        apply: A filter of images that takes a strength, such as `mean_filter`.
        strengths: What to choose from.
        clean: `(n, height, width, channels)`, with pixels from 0 to 1.
        noisy: The same images with noise.

    Returns:
        The strength with the highest mean `psnr`; pixels are clipped to 0 and 1 first.
    """
    values = [psnr(clean, apply(noisy, strength).clip(0, 1)).mean() for strength in strengths]
    return strengths[int(np.argmax(values))]


def principal_components(train: np.ndarray, images: np.ndarray, count: int) -> np.ndarray:
    """Project images on the directions in which the training images differ most.

    No other linear map through `count` numbers has a smaller squared error on `train`.

    Args:
        train: `(n, ...)`, what the directions are found on.
        images: `(m, ...)`, what is projected.
        count: How many directions are kept; at most `n`, or the numbers in an image, are there.

    Returns:
        The images as their principal components give them back, `(m, ...)`.
    """
    mean = train.mean(axis=0).ravel()
    axes = np.linalg.svd(train.reshape(len(train), -1) - mean, full_matrices=False)[2][:count]
    codes = (images.reshape(len(images), -1) - mean) @ axes.T
    return (codes @ axes + mean).reshape(images.shape)


def linear_map(train: np.ndarray, images: np.ndarray, stddev: float) -> np.ndarray:
    """Take white noise out of images by the linear map with the least squared error on `train`.

    `mean + C (C + stddev^2 I)^-1 (image - mean)`, with the covariance C of the training images: a
    Wiener filter (https://doi.org/10.7551/mitpress/2946.001.0001) that differs from place to place.

    Args:
        train: `(n, ...)` without noise.
        images: `(m, ...)` with noise.
        stddev: Standard deviation of the noise.

    Returns:
        The images without as much of it, `(m, ...)`.
    """
    mean = train.mean(axis=0).ravel()
    centred = train.reshape(len(train), -1) - mean
    covariance = centred.T @ centred / len(train)
    gain = np.linalg.solve(covariance + stddev**2 * np.eye(len(mean)), covariance)
    return ((images.reshape(len(images), -1) - mean) @ gain + mean).reshape(images.shape)


def psnr(clean: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return the peak signal-to-noise ratio of each image in decibels: 10 log10(1 / MSE).

    An image that is restored exactly gets 100 dB.

    Args:
        clean: `(n, height, width, channels)`, with pixels from 0 to 1.
        images: The same images, restored.
    """
    errors = np.square(clean - images).mean(axis=(1, 2, 3), dtype="float64")
    return -10 * np.log10(np.maximum(errors, 1e-10))


def _windows(image: np.ndarray, radius: int) -> np.ndarray:
    """Return the window around each pixel, `(height, width, channels, size, size)`."""
    padded = np.pad(image, ((radius, radius), (radius, radius), (0, 0)), "reflect")
    size = 2 * radius + 1
    return np.lib.stride_tricks.sliding_window_view(padded, (size, size), (0, 1))
