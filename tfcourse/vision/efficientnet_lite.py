"""EfficientNet (Tan & Le, 2019), https://arxiv.org/abs/1905.11946, in the Lite variants of 2020.

Lite suits integer hardware: no squeeze-and-excite, ReLU6 for swish, a stem and a head of fixed
width, a first and a last group of blocks of fixed depth.
"""

import math
from dataclasses import dataclass

import keras
from keras import layers

from tfcourse.vision.blocks import check_choice, check_images


@dataclass(frozen=True)
class Variant:
    """How one variant scales Table 1: width and depth factors, native size in pixels, dropout."""

    width: float
    depth: float
    size: int
    dropout: float


VARIANTS = (
    Variant(1.0, 1.0, 224, 0.2),
    Variant(1.0, 1.1, 240, 0.2),
    Variant(1.1, 1.2, 260, 0.3),
    Variant(1.2, 1.4, 280, 0.3),
    Variant(1.4, 1.8, 300, 0.3),
)

# Table 1, one group of blocks a line: repeats, kernel size, strides, expansion, filters.
GROUPS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM_FILTERS = 32
HEAD_FILTERS = 1280
SMALLEST = 1


def build_efficientnet_lite(
    variant: int,
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    num_classes: int | None = 1000,
    *,
    dropout: float | None = None,
) -> keras.Model:
    """Build an EfficientNet-Lite image classifier.

    Width, depth and image size grow together, in a fixed proportion, from one small network.
    Stochastic depth, a regularizer of long trainings, is left out. No preprocessing is inside:
    the published weights expect `(x - 127) / 128` of pixels from 0 to 255.

    Args:
        variant: 0 to 4, for Lite0 to Lite4; their native sizes are 224, 240, 260, 280 and 300.
        input_shape: `(height, width, channels)`; `None` takes any size. The padding allows
            images of any size, but up to 32 pixels the last stage sees a single position.
        num_classes: Number of classes, or `None` to end at the last feature map.
        dropout: Rate before the classifier, or `None` for the variant's own (0.2 or 0.3).

    Returns:
        A model from images `(batch, *input_shape)` to logits `(batch, num_classes)`, or to
        features `(batch, height / 32, width / 32, 1280)`. The layers `stage1` to `stage5` end its
        stages, at strides 2 to 32. Every other layer says where it is: `stem_conv`,
        `block01_depthwise_conv`, ..., `block16_project_bn`, `head_conv`, `head_bn`, `logits`.

    Raises:
        ValueError: If there is no such variant, or `input_shape` is none of an image.
    """
    check_choice("variant", variant, range(len(VARIANTS)))
    check_images(input_shape, SMALLEST)
    inputs = keras.Input(input_shape)
    x = convolve(inputs, STEM_FILTERS, 3, 2, "stem")
    stage = 1
    for number, (filters, kernel_size, strides, expansion) in enumerate(scaled_blocks(variant), 1):
        if strides == 2:
            x = layers.Identity(name=f"stage{stage}")(x)
            stage += 1
        x = inverted_residual(x, filters, kernel_size, strides, expansion, name=f"block{number:02}")
    x = convolve(x, HEAD_FILTERS, 1, 1, "head")
    x = layers.Identity(name=f"stage{stage}")(x)
    if num_classes is not None:
        rate = VARIANTS[variant].dropout if dropout is None else dropout
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        x = layers.Dropout(rate, name="dropout")(x)
        x = layers.Dense(num_classes, name="logits")(x)
    return keras.Model(inputs, x, name=f"efficientnet_lite{variant}")


def scaled_blocks(variant: int) -> list[tuple[int, int, int, int]]:
    """List `(filters, kernel size, strides, expansion)` of every block of a variant."""
    scale = VARIANTS[variant]
    blocks = []
    for group in GROUPS:
        repeats, kernel_size, strides, expansion, filters = group
        filters = round_filters(filters * scale.width)
        if group not in {GROUPS[0], GROUPS[-1]}:
            repeats = math.ceil(repeats * scale.depth)
        blocks.append((filters, kernel_size, strides, expansion))
        blocks += [(filters, kernel_size, 1, expansion)] * (repeats - 1)
    return blocks


def round_filters(filters: float) -> int:
    """Round to a multiple of 8, and up where that would lose more than a tenth."""
    rounded = max(8, int(filters + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * filters else rounded


def inverted_residual(
    x: keras.KerasTensor, filters: int, kernel_size: int, strides: int, expansion: int, *, name: str
) -> keras.KerasTensor:
    """Expand the channels, filter each on its own, project down; add `x` where shapes allow."""
    shortcut = x
    if expansion > 1:
        x = convolve(x, x.shape[-1] * expansion, 1, 1, f"{name}_expand")
    x = layers.DepthwiseConv2D(
        kernel_size, strides, padding="same", use_bias=False, name=f"{name}_depthwise_conv"
    )(x)
    x = normalize(x, f"{name}_depthwise")
    x = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(x)
    x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_project_conv")(x)
    x = normalize(x, f"{name}_project")
    if strides == 1 and shortcut.shape[-1] == filters:
        x = layers.Add(name=f"{name}_add")([x, shortcut])
    return x


def convolve(
    x: keras.KerasTensor, filters: int, kernel_size: int, strides: int, name: str
) -> keras.KerasTensor:
    """Convolve, normalize, clip to 0..6: shape `(batch, height / strides, ..., filters)`."""
    x = layers.Conv2D(
        filters, kernel_size, strides, padding="same", use_bias=False, name=f"{name}_conv"
    )(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(normalize(x, name))


def normalize(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Normalize over the batch with the constants of the published training (0.99, 0.001)."""
    return layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=f"{name}_bn")(x)
