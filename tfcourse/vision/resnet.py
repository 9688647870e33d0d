"""ResNet (He, Zhang, Ren & Sun, 2016), https://arxiv.org/abs/1512.03385."""

import functools
from collections.abc import Callable

import keras
from keras import layers

from tfcourse.vision.blocks import check_choice, check_images

# Table 1: how many residual blocks each of the stages conv2_x to conv5_x has.
BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
FILTERS = (64, 128, 256, 512)
EXPANSION = 4
# Which convolution of a bottleneck takes the stride: the first, or the second.
VARIANTS = ("2015", "v1.5")
# Section 4.2: depths 6 n + 2 for CIFAR, with n blocks in each of three stages.
CIFAR_DEPTHS = (20, 32, 44, 56, 110, 1202)
CIFAR_FILTERS = (16, 32, 64)
SMALLEST = 1


def build_resnet(
    depth: int,
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    num_classes: int | None = 1000,
    *,
    variant: str = "2015",
) -> keras.Model:
    """Build a ResNet image classifier.

    A block learns what to add to its input instead of a whole new output, so a deeper network can
    always do nothing in its extra layers, and a gradient finds a way past them. From 50 layers on,
    1x1 convolutions narrow a block's input and widen its output, around one 3x3 convolution.

    Args:
        depth: Number of layers with weights: 18, 34, 50, 101 or 152.
        input_shape: `(height, width, channels)`; `None` takes any size. The padding allows
            images of any size, but up to 32 pixels the last stage sees a single position.
        num_classes: Number of classes, or `None` to end at the last feature map.
        variant: Where a bottleneck that halves the image does so: "2015" in its first 1x1
            convolution, as the paper and Keras; "v1.5" in its 3x3, as torchvision, which skips no
            pixel for 6 % more multiply-adds (depth 50). Depths 18 and 34 have no bottlenecks:
            both variants are the same.

    Returns:
        A model from images `(batch, *input_shape)` to logits `(batch, num_classes)`, or to
        features `(batch, height / 32, width / 32, 512 or 2048)`. The layers `stage1` to `stage5`
        end its stages, at strides 2 to 32.

    Raises:
        ValueError: If there is no such depth or variant, or `input_shape` is none of an image.
    """
    check_choice("depth", depth, BLOCKS)
    check_choice("variant", variant, VARIANTS)
    check_images(input_shape, SMALLEST)
    block, name = basic_block, f"resnet{depth}"
    if depth >= 50:
        block = functools.partial(bottleneck, variant=variant)
        name += "" if variant == "2015" else "_v1_5"
    inputs = keras.Input(input_shape)
    x = convolve(inputs, FILTERS[0], 7, 2, "stem")
    x = layers.ReLU(name="stage1")(x)
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    for stage, (filters, count) in enumerate(zip(FILTERS, BLOCKS[depth], strict=True), 2):
        strides = 1 if stage == 2 else 2
        x = residual_stage(x, block, filters, count, strides=strides, name=f"stage{stage}")
    return classify(inputs, x, num_classes, name)


def build_cifar_resnet(
    depth: int,
    input_shape: tuple[int | None, int | None, int] = (32, 32, 3),
    num_classes: int | None = 10,
) -> keras.Model:
    """Build one of the narrow ResNets for images as small as those of CIFAR.

    Three stages of 16, 32 and 64 filters keep the image large and the network thin. Shortcuts
    have no weights at all (option A): where the shape changes they drop every other pixel and add
    channels of zeros. Convolutions have no bias, and every normalization a scale and a shift:
    that gives the parameters of Table 6.

    Args:
        depth: Number of layers with weights, `6 n + 2`: 20, 32, 44, 56, 110 and 1202 in the paper.
        input_shape: `(height, width, channels)`; `None` takes any size.
        num_classes: Number of classes, or `None` to end at the last feature map.

    Returns:
        A model from images `(batch, *input_shape)` to logits `(batch, num_classes)`, or to
        features `(batch, height / 4, width / 4, 64)`. The layers `stage1` to `stage3` end its
        stages, at strides 1, 2 and 4.

    Raises:
        ValueError: If no such depth is possible, or `input_shape` is none of an image.
    """
    if not isinstance(depth, int) or depth < 8 or depth % 6 != 2:
        known = ", ".join(map(str, CIFAR_DEPTHS))
        raise ValueError(f"depth must be 6 n + 2, as the paper's {known}, got {depth!r}")
    check_images(input_shape, SMALLEST)
    block = functools.partial(basic_block, shortcut=pad_channels)
    inputs = keras.Input(input_shape)
    x = convolve(inputs, CIFAR_FILTERS[0], 3, 1, "stem")
    x = layers.ReLU(name="stem_relu")(x)
    for stage, filters in enumerate(CIFAR_FILTERS, 1):
        strides = 1 if stage == 1 else 2
        x = residual_stage(x, block, filters, depth // 6, strides=strides, name=f"stage{stage}")
    return classify(inputs, x, num_classes, f"cifar_resnet{depth}")


def residual_stage(
    x: keras.KerasTensor,
    block: Callable[..., keras.KerasTensor],
    filters: int,
    count: int,
    *,
    strides: int,
    name: str,
) -> keras.KerasTensor:
    """Chain `count` blocks with ReLUs between; the first takes the strides, the last the name."""
    for n in range(1, count + 1):
        x = block(x, filters, strides if n == 1 else 1, name=f"{name}_block{n}")
        x = layers.ReLU(name=name if n == count else f"{name}_block{n}_relu")(x)
    return x


def project(x: keras.KerasTensor, filters: int, strides: int, name: str) -> keras.KerasTensor:
    """Shortcut of option B: a 1x1 convolution gives the shape `(..., filters)`."""
    return convolve(x, filters, 1, strides, name)


def pad_channels(x: keras.KerasTensor, filters: int, strides: int, name: str) -> keras.KerasTensor:
    """Shortcut of option A: drop pixels, append channels of zeros; no weights."""
    x = layers.AveragePooling2D(1, strides, name=f"{name}_subsample")(x)
    # To a layer that takes channels to come first, ours are the width.
    zeros = ((0, 0), (0, filters - x.shape[-1]))
    return layers.ZeroPadding2D(zeros, data_format="channels_first", name=f"{name}_pad")(x)


def basic_block(
    x: keras.KerasTensor,
    filters: int,
    strides: int,
    *,
    name: str,
    shortcut: Callable[..., keras.KerasTensor] = project,
) -> keras.KerasTensor:
    """Add two 3x3 convolutions of `x` to `x`: shape `(batch, height / strides, ..., filters)`."""
    y = convolve(x, filters, 3, strides, f"{name}_1")
    y = layers.ReLU(name=f"{name}_1_relu")(y)
    y = convolve(y, filters, 3, 1, f"{name}_2")
    if strides > 1 or x.shape[-1] != filters:
        x = shortcut(x, filters, strides, f"{name}_shortcut")
    return layers.Add(name=f"{name}_add")([y, x])


def bottleneck(
    x: keras.KerasTensor, filters: int, strides: int, *, variant: str, name: str
) -> keras.KerasTensor:
    """Narrow, filter and widen `x`, and add it: `(batch, height / strides, ..., 4 filters)`."""
    first, second = (strides, 1) if variant == "2015" else (1, strides)
    y = convolve(x, filters, 1, first, f"{name}_1")
    y = layers.ReLU(name=f"{name}_1_relu")(y)
    y = convolve(y, filters, 3, second, f"{name}_2")
    y = layers.ReLU(name=f"{name}_2_relu")(y)
    y = convolve(y, EXPANSION * filters, 1, 1, f"{name}_3")
    if strides > 1 or x.shape[-1] != EXPANSION * filters:
        x = project(x, EXPANSION * filters, strides, f"{name}_shortcut")
    return layers.Add(name=f"{name}_add")([y, x])


def convolve(
    x: keras.KerasTensor, filters: int, kernel_size: int, strides: int, name: str
) -> keras.KerasTensor:
    """Convolve without a bias, which the normalization after it would take away again."""
    padding = "same"
    if strides > 1 and kernel_size > 1:
        # Equal zeros on all sides, as in every published port; "same" would put more at the end.
        x = layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x)
        padding = "valid"
    # He's variance; uniform numbers take a third of the time that normal ones do.
    x = layers.Conv2D(
        filters,
        kernel_size,
        strides,
        padding=padding,
        use_bias=False,
        kernel_initializer="he_uniform",
        name=f"{name}_conv",
    )(x)
    # The constants of the authors' code for Torch.
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)


def classify(
    inputs: keras.KerasTensor, x: keras.KerasTensor, num_classes: int | None, name: str
) -> keras.Model:
    """End in logits from the average over all positions, or in the map itself."""
    if num_classes is not None:
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        x = layers.Dense(num_classes, name="logits")(x)
    return keras.Model(inputs, x, name=name)
