"""Inception v3 (Szegedy et al., 2016), https://arxiv.org/abs/1512.00567."""

import keras
from keras import layers

from tfcourse.vision.blocks import check_images

Kernel = int | tuple[int, int]
# A branch of a module is a row of convolutions: pairs of filters and kernel size.
Branch = tuple[tuple[int, Kernel], ...]

# Table 1, the layers before the modules: filters, kernel size, strides, padding; None: max pooling.
STEM = (
    (32, 3, 2, "valid"),
    (32, 3, 1, "valid"),
    (64, 3, 1, "same"),
    None,
    (80, 1, 1, "valid"),
    (192, 3, 1, "valid"),
    None,
)
# Filters of the pooling branch in the modules of 35 pixels (Figure 5) ...
POOL_FILTERS = (32, 64, 64)
# ... of the convolutions inside the modules of 17 pixels (Figure 6) ...
FACTORIZED_FILTERS = (128, 160, 160, 192)
# ... and how many modules have 8 pixels (Figure 7).
EXPANDED_MODULES = 2
ROW, COLUMN = (1, 7), (7, 1)
SMALLEST = 75


def build_inception_v3(
    input_shape: tuple[int | None, int | None, int] = (299, 299, 3),
    num_classes: int | None = 1000,
    *,
    dropout: float = 0.2,
) -> keras.Model:
    """Build Inception v3.

    Large kernels come apart into small ones: a 5x5 into two 3x3, a 7x7 into a row of 1x7 and a
    column of 7x1, the same view for fewer multiplications; maps shrink in convolutions and a
    pooling side by side. It is the released network, which keras.applications has too: unlike
    Table 1 of the paper its fifth layer is a 1x1 convolution and a max pooling ends the stem, and
    one branch of the first modules keeps a 5x5. The auxiliary head is left out.

    Args:
        input_shape: `(height, width, channels)` from 75 pixels up; `None` takes any size.
        num_classes: Number of classes, or `None` to end at the last feature map.
        dropout: Rate before the classifier.

    Returns:
        A model from images `(batch, *input_shape)` to logits `(batch, num_classes)`, or to
        features `(batch, 8, 8, 2048)` for images of 299 pixels. The layers `stage1` to `stage5`
        end its stages, at about strides 2 to 32.

    Raises:
        ValueError: If the images are smaller than 75 pixels.
    """
    check_images(input_shape, SMALLEST)
    inputs = keras.Input(input_shape)
    x = stem(inputs)
    for number, filters in enumerate(POOL_FILTERS):
        x = module(x, double_3x3(), filters, f"mixed{number}")
    x = layers.Identity(name="stage3")(x)
    x = reduction(x, (((384, 3),), ((64, 1), (96, 3), (96, 3))), "mixed3")
    for number, filters in enumerate(FACTORIZED_FILTERS, 4):
        x = module(x, factorized_7x7(filters), 192, f"mixed{number}")
    x = layers.Identity(name="stage4")(x)
    before = (192, 1), (192, ROW), (192, COLUMN)
    x = reduction(x, (((192, 1), (320, 3)), (*before, (192, 3))), "mixed8")
    for number in range(9, 9 + EXPANDED_MODULES):
        x = expanded(x, f"mixed{number}")
    x = layers.Identity(name="stage5")(x)
    if num_classes is not None:
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        x = layers.Dropout(dropout, name="dropout")(x)
        x = layers.Dense(num_classes, name="logits")(x)
    return keras.Model(inputs, x, name="inception_v3")


def double_3x3() -> tuple[Branch, ...]:
    """List the convolutions of a module of 35 pixels."""
    return ((64, 1),), ((48, 1), (64, 5)), ((64, 1), (96, 3), (96, 3))


def factorized_7x7(filters: int) -> tuple[Branch, ...]:
    """List the convolutions of a module of 17 pixels: 7x7 once and twice, each in two parts."""
    once = (filters, 1), (filters, ROW), (192, COLUMN)
    twice = (filters, 1), (filters, COLUMN), (filters, ROW), (filters, COLUMN), (192, ROW)
    return ((192, 1),), once, twice


def stem(x: keras.KerasTensor) -> keras.KerasTensor:
    """Shrink the image before the modules: 299 pixels to 35."""
    stage = 1
    for number, row in enumerate(STEM, 1):
        if row is None:
            x = layers.Identity(name=f"stage{stage}")(x)
            x = layers.MaxPooling2D(3, 2, name=f"pool{stage}")(x)
            stage += 1
        else:
            filters, kernel_size, strides, padding = row
            name = f"stem{number}"
            x = convolve(x, filters, kernel_size, name, strides=strides, padding=padding)
    return x


def module(
    x: keras.KerasTensor, branches: tuple[Branch, ...], pool_filters: int, name: str
) -> keras.KerasTensor:
    """Join branches of convolutions and one that pools: the size stays."""
    ends = [follow(x, branch, f"{name}_{i}") for i, branch in enumerate(branches, 1)]
    return layers.Concatenate(name=name)([*ends, pool_branch(x, pool_filters, name)])


def reduction(x: keras.KerasTensor, branches: tuple[Branch, ...], name: str) -> keras.KerasTensor:
    """Halve the map in convolutions and in a pooling side by side (Figure 10)."""
    ends = []
    for i, branch in enumerate(branches, 1):
        end = follow(x, branch[:-1], f"{name}_{i}")
        last = f"{name}_{i}_{len(branch)}"
        ends.append(convolve(end, *branch[-1], last, strides=2, padding="valid"))
    pool = layers.MaxPooling2D(3, 2, name=f"{name}_pool")(x)
    return layers.Concatenate(name=name)([*ends, pool])


def expanded(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Split the last kernels into 1x3 and 3x1 side by side: 2048 channels for 8 pixels."""
    ends = [convolve(x, 320, 1, f"{name}_1_1")]
    for i, branch in enumerate((((384, 1),), ((448, 1), (384, 3))), 2):
        end = follow(x, branch, f"{name}_{i}")
        row = convolve(end, 384, (1, 3), f"{name}_{i}_row")
        column = convolve(end, 384, (3, 1), f"{name}_{i}_column")
        ends.append(layers.Concatenate(name=f"{name}_{i}")([row, column]))
    return layers.Concatenate(name=name)([*ends, pool_branch(x, 192, name)])


def follow(x: keras.KerasTensor, branch: Branch, name: str) -> keras.KerasTensor:
    """Run one convolution of a branch after the other."""
    for number, (filters, kernel_size) in enumerate(branch, 1):
        x = convolve(x, filters, kernel_size, f"{name}_{number}")
    return x


def pool_branch(x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
    """Average over 3x3 pixels, then mix the channels."""
    x = layers.AveragePooling2D(3, 1, padding="same", name=f"{name}_pool")(x)
    return convolve(x, filters, 1, f"{name}_pool_1")


def convolve(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: Kernel,
    name: str,
    *,
    strides: int = 1,
    padding: str = "same",
) -> keras.KerasTensor:
    """Convolve, normalize, ReLU."""
    x = layers.Conv2D(
        filters, kernel_size, strides, padding=padding, use_bias=False, name=f"{name}_conv"
    )(x)
    # A scale would be idle before a ReLU and the next convolution's weights.
    x = layers.BatchNormalization(momentum=0.99, epsilon=1e-3, scale=False, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)
