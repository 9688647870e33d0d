"""DenseNet (Huang, Liu, van der Maaten & Weinberger, 2017), https://arxiv.org/abs/1608.06993."""

from typing import NamedTuple

import keras
from keras import layers

from tfcourse.vision.blocks import check_choice, check_images


class Variant(NamedTuple):
    """Growth rate k, layers in each dense block, first filters, bottlenecks, compression."""

    growth: int
    blocks: tuple[int, ...]
    stem: int
    bottleneck: bool = True
    compression: float = 0.5


# Table 1, the number of layers of each dense block; 161 has k = 48, the others 32.
VARIANTS = {
    121: Variant(32, (6, 12, 24, 16), 64),
    161: Variant(48, (6, 12, 36, 24), 96),
    169: Variant(32, (6, 12, 32, 32), 64),
    201: Variant(32, (6, 12, 48, 32), 64),
}
# Table 2: [BC-]depth-k. A layer of a BC network is two convolutions, and its stem has 2 k filters.
CIFAR_VARIANTS = {
    "40-12": Variant(12, (12,) * 3, 16, False, 1.0),
    "100-12": Variant(12, (32,) * 3, 16, False, 1.0),
    "100-24": Variant(24, (32,) * 3, 16, False, 1.0),
    "BC-100-12": Variant(12, (16,) * 3, 24),
    "BC-250-24": Variant(24, (41,) * 3, 48),
    "BC-190-40": Variant(40, (31,) * 3, 80),
}
# Below this the average pooling of the last transition finds no window of 2x2.
SMALLEST = 29
CIFAR_SMALLEST = 4


def build_densenet(
    depth: int,
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    num_classes: int | None = 1000,
) -> keras.Model:
    """Build a DenseNet image classifier.

    Every layer of a block sees the maps of all layers before it, side by side, and adds only a
    few of its own (the growth rate): nothing has to be learned twice, and every layer is near
    the loss. Between blocks a transition halves the number of maps and the image.

    Args:
        depth: Number of layers with weights: 121, 161, 169 or 201.
        input_shape: `(height, width, channels)` from 29 pixels up; `None` takes any size.
        num_classes: Number of classes, or `None` to end at the last feature map.

    Returns:
        A model from images `(batch, *input_shape)` to logits `(batch, num_classes)`, or to
        features `(batch, height / 32, width / 32, 1024 or more)`. The layers `stage1` to `stage5`
        end its stages, at strides 2 to 32: the stem, three dense blocks, and the fourth with the
        last normalization.

    Raises:
        ValueError: If there is no DenseNet of this depth, or the images are too small.
    """
    check_choice("depth", depth, VARIANTS)
    check_images(input_shape, SMALLEST)
    variant = VARIANTS[depth]
    inputs = keras.Input(input_shape)
    # Equal zeros on all sides, as in every published port; "same" would put more at the end.
    x = layers.ZeroPadding2D(3, name="stem_pad")(inputs)
    x = convolve(x, variant.stem, 7, "stem_conv", strides=2, padding="valid")
    x = normalize(x, "stem_bn", "stage1")
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    return dense_blocks(inputs, x, variant, num_classes, first_stage=2, name=f"densenet{depth}")


def build_cifar_densenet(
    variant: str = "BC-100-12",
    input_shape: tuple[int | None, int | None, int] = (32, 32, 3),
    num_classes: int | None = 10,
    *,
    dropout: float = 0.0,
) -> keras.Model:
    """Build one of the DenseNets for images as small as those of CIFAR.

    Three dense blocks keep the image large and the layers thin. "BC" networks put a 1x1
    convolution before each 3x3 (bottleneck) and halve the maps in transitions (compression).

    Args:
        variant: "40-12", "100-12", "100-24", "BC-100-12", "BC-250-24" or "BC-190-40": the number
            of layers with weights, and the growth rate.
        input_shape: `(height, width, channels)` from 4 pixels up; `None` takes any size.
        num_classes: Number of classes, or `None` to end at the last feature map.
        dropout: Rate after each convolution but the first; the paper has 0.2 where it trains
            without augmentation.

    Returns:
        A model from images `(batch, *input_shape)` to logits `(batch, num_classes)`, or to
        features `(batch, height / 4, width / 4, filters)`. The layers `stage1` to `stage3` end
        its stages, at strides 1, 2 and 4.

    Raises:
        ValueError: If there is no such variant, or the images are too small.
    """
    check_choice("variant", variant, CIFAR_VARIANTS)
    check_images(input_shape, CIFAR_SMALLEST)
    row = CIFAR_VARIANTS[variant]
    inputs = keras.Input(input_shape)
    x = convolve(inputs, row.stem, 3, "stem_conv")
    name = f"cifar_densenet_{variant.lower().replace('-', '_')}"
    return dense_blocks(inputs, x, row, num_classes, first_stage=1, name=name, dropout=dropout)


def dense_blocks(
    inputs: keras.KerasTensor,
    x: keras.KerasTensor,
    variant: Variant,
    num_classes: int | None,
    *,
    first_stage: int,
    name: str,
    dropout: float = 0.0,
) -> keras.Model:
    """Build a model from its stem's output on: dense blocks, transitions and the classifier."""
    last_stage = first_stage + len(variant.blocks) - 1
    for stage, count in enumerate(variant.blocks, first_stage):
        for n in range(1, count + 1):
            layer = f"stage{stage}_layer{n}"
            new = dense_layer(x, variant, layer, dropout)
            ends = n == count and stage < last_stage
            x = layers.Concatenate(name=f"stage{stage}" if ends else f"{layer}_concat")([x, new])
        if stage < last_stage:
            filters = int(x.shape[-1] * variant.compression)
            x = transition(x, filters, f"transition{stage}", dropout)
    x = normalize(x, "head_bn", f"stage{last_stage}")
    if num_classes is not None:
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        x = layers.Dense(num_classes, name="logits")(x)
    return keras.Model(inputs, x, name=name)


def dense_layer(
    x: keras.KerasTensor, variant: Variant, name: str, dropout: float
) -> keras.KerasTensor:
    """Make the new maps of one layer: shape `(batch, height, width, growth)`."""
    parts = [(variant.growth, 3)]
    if variant.bottleneck:
        parts.insert(0, (4 * variant.growth, 1))
    for n, (filters, kernel_size) in enumerate(parts, 1):
        x = normalize(x, f"{name}_{n}_bn", f"{name}_{n}_relu")
        x = convolve(x, filters, kernel_size, f"{name}_{n}_conv")
        x = drop(x, dropout, f"{name}_{n}_dropout")
    return x


def transition(x: keras.KerasTensor, filters: int, name: str, dropout: float) -> keras.KerasTensor:
    """Mix the maps into `filters`, and halve the image."""
    x = normalize(x, f"{name}_bn", f"{name}_relu")
    x = convolve(x, filters, 1, f"{name}_conv")
    x = drop(x, dropout, f"{name}_dropout")
    return layers.AveragePooling2D(2, name=f"{name}_pool")(x)


def normalize(x: keras.KerasTensor, name: str, relu: str) -> keras.KerasTensor:
    """Normalize over the batch with the constants of the authors' code for Torch, then ReLU."""
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)
    return layers.ReLU(name=relu)(x)


def convolve(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    name: str,
    *,
    strides: int = 1,
    padding: str = "same",
) -> keras.KerasTensor:
    """Convolve without a bias: shape `(batch, height / strides, width / strides, filters)`."""
    # He's variance; uniform numbers take a third of the time that normal ones do.
    return layers.Conv2D(
        filters,
        kernel_size,
        strides,
        padding=padding,
        use_bias=False,
        kernel_initializer="he_uniform",
        name=name,
    )(x)


def drop(x: keras.KerasTensor, rate: float, name: str) -> keras.KerasTensor:
    """Drop values at a rate; no layer where the rate is 0."""
    return layers.Dropout(rate, name=name)(x) if rate else x
