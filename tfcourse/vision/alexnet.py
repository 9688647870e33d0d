"""AlexNet (Krizhevsky, Sutskever & Hinton, 2012).

https://papers.nips.cc/paper/4824-imagenet-classification-with-deep-convolutional-neural-networks,
and its one tower of 2014 (Krizhevsky), https://arxiv.org/abs/1404.5997.
"""

from typing import NamedTuple

import keras
from keras import layers

from tfcourse.vision.blocks import LocalResponseNormalization, check_choice, check_images


class Variant(NamedTuple):
    """Filters and towers of the five convolutions; the smallest image in pixels."""

    filters: tuple[int, ...]
    towers: tuple[int, ...]
    padding: int
    normalize: bool
    smallest: int


# Figure 2 of 2012, with the filters of both towers together; the network that torchvision trained.
VARIANTS = {
    "2012": Variant((96, 256, 384, 384, 256), (1, 2, 1, 2, 2), 0, True, 67),
    "one-weird-trick": Variant((64, 192, 384, 256, 256), (1, 1, 1, 1, 1), 2, False, 63),
}
KERNEL_SIZES = (11, 5, 3, 3, 3)
POOLED = {1: "stage1", 2: "stage2", 5: "stage3"}
UNITS = 4096


def build_alexnet(
    variant: str = "2012",
    input_shape: tuple[int | None, int | None, int] = (227, 227, 3),
    num_classes: int | None = 1000,
    *,
    dropout: float = 0.5,
) -> keras.Model:
    """Build AlexNet, the network that won ImageNet's contest of 2012 by ten points.

    A large convolutional network trained on two graphics cards: ReLU learns faster than tanh,
    dropout and augmentation keep 60 million weights from learning by heart, overlapping windows
    (3 pixels, every 2) pool a little better. "2012" has the paper's two towers, which meet in the
    third convolution only, and local response normalization; "one-weird-trick" has one narrower
    tower and no normalization, as in torchvision, whose pooling to 6x6 does nothing at 224 pixels
    and is left out. The paper writes 224 pixels, but its first map of 55x55 without padding needs
    227; "one-weird-trick" pads by two and takes 224. Differences from the papers: Keras' initial
    weights and biases; dropout comes after each hidden dense layer in both variants (torchvision:
    before it).

    Args:
        variant: "2012" or "one-weird-trick".
        input_shape: `(height, width, channels)` from 67 pixels up ("2012") or 63
            ("one-weird-trick"); `None` takes any size where `num_classes` is `None` too.
        num_classes: Number of classes, or `None` to end at the last feature map.
        dropout: Rate after each hidden dense layer.

    Returns:
        A model from images `(batch, *input_shape)` to logits `(batch, num_classes)`, or to
        features `(batch, 6, 6, 256)` for images of the native size. The poolings `stage1` to
        `stage3` end its stages, at strides 8, 16 and 32; the others are `conv1`, ..., `fc2`.

    Raises:
        ValueError: If there is no such variant, or the images are too small for it.
    """
    check_choice("variant", variant, VARIANTS)
    row = VARIANTS[variant]
    check_images(input_shape, row.smallest, any_size=num_classes is None)
    inputs = x = keras.Input(input_shape)
    if row.padding:
        x = layers.ZeroPadding2D(row.padding, name="padding")(x)
    for number, kernel_size in enumerate(KERNEL_SIZES, 1):
        filters, towers = row.filters[number - 1], row.towers[number - 1]
        x = convolve(x, filters, kernel_size, towers, f"conv{number}")
        if row.normalize and number <= 2:
            x = LocalResponseNormalization(name=f"normalization{number}")(x)
        if number in POOLED:
            x = layers.MaxPooling2D(3, 2, name=POOLED[number])(x)
    if num_classes is not None:
        x = layers.Flatten(name="flatten")(x)
        for name in ("fc1", "fc2"):
            x = layers.Dense(UNITS, activation="relu", name=name)(x)
            x = layers.Dropout(dropout, name=f"{name}_dropout")(x)
        x = layers.Dense(num_classes, name="logits")(x)
    return keras.Model(inputs, x, name=f"alexnet_{variant.replace('-', '_')}")


def convolve(
    x: keras.KerasTensor, filters: int, kernel_size: int, towers: int, name: str
) -> keras.KerasTensor:
    """Convolve and cut off below 0; only the largest kernel, the first, strides and does not pad.

    Each tower sees its own share of the channels: a grouped convolution. It is written out, since
    on a CPU the gradient of `Conv2D(groups=2)` takes several times as long.
    """
    strides, padding = (4, "valid") if kernel_size == 11 else (1, "same")
    maps = []
    for tower, part in enumerate(keras.ops.split(x, towers, axis=-1) if towers > 1 else [x], 1):
        own = f"{name}_tower{tower}" if towers > 1 else name
        conv = layers.Conv2D(
            filters // towers, kernel_size, strides, padding, activation="relu", name=own
        )
        maps.append(conv(part))
    return layers.Concatenate(name=name)(maps) if towers > 1 else maps[0]
