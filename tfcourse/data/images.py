"""Labelled images as arrays, and the parts that a learner needs of them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image


@dataclass(frozen=True, eq=False)
class Images:
    """Images with their labels.

    Attributes:
        images: uint8, `(n, height, width, channels)`, 0 to 255.
        labels: int64, `(n,)`, positions in `class_names`.
        class_names: What the labels mean.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "Images":
        """Return the images at these positions, in this order."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])


def hold_out(images: Images, fraction: float, seed: int) -> tuple[Images, Images]:
    """Split off a part of every class, for choosing checkpoints or for testing.

    Equal images stay together, so that no copy of a held-out image is left in the rest.

    Args:
        images: What to split.
        fraction: Part of each class that is held out, between 0 and 1; at least one image.
        seed: Seed of the choice.

    Returns:
        The rest and the held-out part, both in the order of `images`.

    Raises:
        ValueError: If a class can't be split, as it has fewer than 2 different images.
    """
    check_fraction(fraction)
    numbers: dict[bytes, int] = {}
    digests = (hashlib.sha256(image.tobytes()).digest() for image in images.images)
    groups = np.array([numbers.setdefault(digest, len(numbers)) for digest in digests], int)
    sides = np.full(len(numbers), -1)  # of a group: -1 open, 0 rest, 1 held out
    order = np.random.default_rng(seed).permutation(len(images))
    for label in np.unique(images.labels):
        mine = order[images.labels[order] == label]
        _split_class(groups[mine], sides, fraction)
        if len(set(sides[groups[mine]])) < 2:
            raise ValueError(
                f"class {images.class_names[label]!r} must have at least 2 different images "
                f"to be split, got {len(mine)} images"
            )
    held = sides[groups] == 1
    return images.take(np.flatnonzero(~held)), images.take(np.flatnonzero(held))


def _split_class(groups: np.ndarray, sides: np.ndarray, fraction: float) -> None:
    """Set the open sides of the groups that a class has images in, given in random order."""
    target = min(max(1, round(fraction * len(groups))), len(groups) - 1)
    held = int(np.sum(sides[groups] == 1))
    still_open = list(dict.fromkeys(g for g in groups.tolist() if sides[g] == -1))
    sizes = {g: int(np.sum(groups == g)) for g in still_open}
    for group in still_open:
        sides[group] = held + sizes[group] <= target
        held += sizes[group] * sides[group]
    if held == 0 and len(still_open) > 1:
        sides[min(still_open, key=sizes.get)] = 1


def subset_per_class(images: Images, n: int, seed: int) -> Images:
    """Choose `n` images of every class; the choice for a larger `n` contains that for a smaller.

    Args:
        images: What to choose from.
        n: How many images of each class, at least 1.
        seed: Seed of the choice.

    Returns:
        The chosen images, in the order of `images`.

    Raises:
        ValueError: If a class has fewer than `n` images.
    """
    fewest = smallest_class(images)
    if not 1 <= n <= fewest:
        raise ValueError(f"n must be between 1 and {fewest}, the smallest class, got {n}")
    order = np.random.default_rng(seed).permutation(len(images))
    labels = images.labels[order]
    chosen = [order[labels == label][:n] for label in range(len(images.class_names))]
    return images.take(np.sort(np.concatenate(chosen)))


def few_per_class(images: Images, most: int, seed: int = 0) -> Images:
    """Choose up to `most` images of every class, equally many: enough for a tiny run."""
    return subset_per_class(images, min(most, smallest_class(images)), seed)


def smallest_class(images: Images) -> int:
    """Return how many images the class with the fewest has."""
    return int(np.bincount(images.labels, minlength=len(images.class_names)).min())


def resize(images: Images, image_size: tuple[int, int]) -> Images:
    """Resize grey or RGB images, bilinear and with antialiasing, without cropping.

    Args:
        images: Images with 1 or 3 channels.
        image_size: `(height, width)` in pixels.
    """
    check_size(image_size)
    channels = images.images.shape[-1]
    if channels not in (1, 3):
        raise ValueError(f"images must have 1 or 3 channels, got {channels}")
    height, width = image_size
    resized = np.empty((len(images), height, width, channels), np.uint8)
    for target, image in zip(resized, images.images, strict=True):
        picture = Image.fromarray(image if channels == 3 else image[..., 0])
        array = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
        target[...] = array.reshape(target.shape)
    return replace(images, images=resized)


def to_rgb(images: Images) -> Images:
    """Give grey images three equal channels; RGB images stay as they are."""
    channels = images.images.shape[-1]
    if channels not in (1, 3):
        raise ValueError(f"images must have 1 or 3 channels, got {channels}")
    return images if channels == 3 else replace(images, images=np.repeat(images.images, 3, axis=-1))


def check_size(image_size: Sequence[int]) -> None:
    """Raise ValueError unless this is a height and a width."""
    if len(image_size) != 2 or min(image_size) < 1:
        raise ValueError(f"image_size must be (height, width), at least 1 each, got {image_size}")


def check_fraction(fraction: float) -> None:
    """Raise ValueError unless something is held out, and something left."""
    if not 0 < fraction < 1:
        raise ValueError(f"the fraction held out must be between 0 and 1, got {fraction}")
