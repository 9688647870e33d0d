"""GoogLeNet (Szegedy et al., 2015), https://arxiv.org/abs/1409.4842, the first Inception network.

Batch normalization in it: Ioffe & Szegedy (2015), https://arxiv.org/abs/1502.03167.
"""

from dataclasses import dataclass

import keras
from keras import layers

from tfcourse.vision.blocks import LocalResponseNormalization, check_choice, check_images

# Table 1, a module a line: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
STEM_FILTERS = (64, 64, 192)
# Section 5: the two heads in the middle, and what they count for in the loss.
AUXILIARY_FILTERS, AUXILIARY_UNITS, AUXILIARY_DROPOUT = 128, 1024, 0.7
AUXILIARY_AFTER = {"4a": "auxiliary1", "4d": "auxiliary2"}
LOSS_WEIGHTS = {"logits": 1.0, "auxiliary1": 0.3, "auxiliary2": 0.3}


@dataclass(frozen=True)
class Variant:
    """BatchNorm or not, kernel of the branch called 5x5, window of the last max pooling, heads.

    Torch's heads pool to 4x4 whatever the size; the paper's slide a 5x5 window by 3 pixels. The
    smallest image is in pixels.
    """

    batch_norm: bool
    kernel_size: int
    last_pool: int
    torch_pooling: bool
    smallest: int
    smallest_with_heads: int


VARIANTS = {
    "2014": Variant(False, 5, 3, False, 1, 65),
    "batch-norm": Variant(True, 5, 3, False, 1, 65),
    "torchvision": Variant(True, 3, 2, True, 15, 31),
}


def build_googlenet(
    variant: str = "2014",
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    num_classes: int | None = 1000,
    *,
    auxiliary: bool = False,
    dropout: float = 0.4,
) -> keras.Model:
    """Build GoogLeNet, the Inception network that won ILSVRC 2014.

    Each module looks at the same map through kernels of several sizes at once; 1x1 convolutions
    first reduce the channels, so that 22 layers have a ninth of AlexNet's weights. Two heads in
    the middle bring the gradient to the early layers, in training only:

        from tfcourse.vision.googlenet import LOSS_WEIGHTS

        losses = dict.fromkeys(LOSS_WEIGHTS, SparseCategoricalCrossentropy(from_logits=True))
        model.compile("adam", losses, loss_weights=LOSS_WEIGHTS)
        fit(model, InMemory(images, dict.fromkeys(LOSS_WEIGHTS, labels), 32), epochs=1)
        classifier = keras.Model(model.input, model.output["logits"])

    Args:
        variant: "2014" is the paper's: biases, no batch normalization, local response
            normalization (the paper doesn't state its constants: they are AlexNet's).
            "batch-norm" has BatchNorm after every convolution for both. "torchvision" fits the
            weights published there: BatchNorm too, but the 5x5 kernels are 3x3 (a known mistake),
            the last max pooling is 2x2, maps of odd size are pooled without padding, and the heads
            pool adaptively; its `dropout` was 0.2.
        input_shape: `(height, width, channels)`, "torchvision" from 15 pixels up; `None` takes any
            size. With auxiliary heads from 65 pixels up ("torchvision": 31), and no `None`.
        num_classes: Number of classes, or `None` to end at the last feature map.
        auxiliary: Whether to add the auxiliary heads.
        dropout: Rate before the classifier. The auxiliary heads have 0.7.

    Returns:
        A model from images `(batch, *input_shape)` to logits `(batch, num_classes)`, to a dict of
        three such logits with the keys of `LOSS_WEIGHTS`, or to features
        `(batch, height / 32, width / 32, 1024)`. The layers `stage1` to `stage5` end its stages.

    Raises:
        ValueError: If there is no such variant, the images are too small, or auxiliary heads have
            no classes.
    """
    check_choice("variant", variant, VARIANTS)
    if auxiliary and num_classes is None:
        raise ValueError("auxiliary must be False where num_classes is None, got True")
    kind = VARIANTS[variant]
    smallest, where = kind.smallest, ""
    if auxiliary:
        smallest, where = kind.smallest_with_heads, " with auxiliary heads"
    check_images(input_shape, smallest, any_size=not auxiliary, where=where)
    inputs = keras.Input(input_shape)
    x = stem(inputs, kind)
    outputs = {}
    for module, filters in MODULES.items():
        if module in {"4a", "5a"}:
            x = layers.Identity(name=f"stage{int(module[0]) - 1}")(x)
            pool_size = 3 if module == "4a" else kind.last_pool
            x = halve(x, pool_size, kind, f"pool{int(module[0]) - 1}")
        x = inception(x, filters, kind, f"inception{module}")
        if auxiliary and module in AUXILIARY_AFTER:
            name = AUXILIARY_AFTER[module]
            outputs[name] = auxiliary_head(x, num_classes, kind, name)
    x = layers.Identity(name="stage5")(x)
    if num_classes is not None:
        x = layers.GlobalAveragePooling2D(name="pool5")(x)
        x = layers.Dropout(dropout, name="dropout")(x)
        x = layers.Dense(num_classes, name="logits")(x)
    name = f"googlenet_{variant.replace('-', '_')}"
    return keras.Model(inputs, {"logits": x, **outputs} if auxiliary else x, name=name)


def stem(x: keras.KerasTensor, kind: Variant) -> keras.KerasTensor:
    """Shrink the image to an eighth: `(batch, height / 8, width / 8, 192)`."""
    first, reduce, last = STEM_FILTERS
    x = layers.ZeroPadding2D(3, name="conv1_pad")(x)
    x = convolve(x, first, 7, kind, "conv1", strides=2)
    x = halve(layers.Identity(name="stage1")(x), 3, kind, "pool1")
    if not kind.batch_norm:
        x = LocalResponseNormalization(name="norm1")(x)
    x = convolve(x, reduce, 1, kind, "conv2")
    x = convolve(x, last, 3, kind, "conv3")
    if not kind.batch_norm:
        x = LocalResponseNormalization(name="norm2")(x)
    return halve(layers.Identity(name="stage2")(x), 3, kind, "pool2")


def inception(
    x: keras.KerasTensor, filters: tuple[int, ...], kind: Variant, name: str
) -> keras.KerasTensor:
    """Look through 1x1, 3x3 and 5x5 kernels and a max pooling; join what they see."""
    narrow, reduce3, middle, reduce5, wide, projection = filters
    one = convolve(x, narrow, 1, kind, f"{name}_1x1")
    three = convolve(x, reduce3, 1, kind, f"{name}_3x3_reduce")
    three = convolve(three, middle, 3, kind, f"{name}_3x3")
    five = convolve(x, reduce5, 1, kind, f"{name}_5x5_reduce")
    five = convolve(five, wide, kind.kernel_size, kind, f"{name}_5x5")
    pool = layers.MaxPooling2D(3, 1, padding="same", name=f"{name}_pool")(x)
    pool = convolve(pool, projection, 1, kind, f"{name}_pool_projection")
    return layers.Concatenate(name=name)([one, three, five, pool])


def auxiliary_head(
    x: keras.KerasTensor, num_classes: int, kind: Variant, name: str
) -> keras.KerasTensor:
    """Classify a map in the middle: `(batch, height, width, channels)` -> logits."""
    if kind.torch_pooling:
        x = layers.AdaptiveAveragePooling2D(4, name=f"{name}_pool")(x)
    else:
        x = layers.AveragePooling2D(5, 3, name=f"{name}_pool")(x)
    x = convolve(x, AUXILIARY_FILTERS, 1, kind, f"{name}_reduce")
    x = layers.Flatten(name=f"{name}_flatten")(x)
    x = layers.Dense(AUXILIARY_UNITS, activation="relu", name=f"{name}_hidden")(x)
    x = layers.Dropout(AUXILIARY_DROPOUT, name=f"{name}_dropout")(x)
    return layers.Dense(num_classes, name=name)(x)


def convolve(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    kind: Variant,
    name: str,
    *,
    strides: int = 1,
) -> keras.KerasTensor:
    """Convolve, normalize where the variant does, ReLU."""
    x = layers.Conv2D(
        filters,
        kernel_size,
        strides,
        padding="same" if strides == 1 else "valid",
        use_bias=not kind.batch_norm,
        name=f"{name}_conv",
    )(x)
    if kind.batch_norm:
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-3, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def halve(x: keras.KerasTensor, pool_size: int, kind: Variant, name: str) -> keras.KerasTensor:
    """Pool every second pixel; the paper's maps are even, so padding and rounding up agree."""
    if not kind.torch_pooling:
        return layers.MaxPooling2D(pool_size, 2, padding="same", name=name)(x)
    # Torch lets the last window hang over the edge (`ceil_mode`). Zeros never win, as `x` comes
    # from a ReLU, and where the windows fit without them none reaches them.
    x = layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_pad")(x)
    return layers.MaxPooling2D(pool_size, 2, name=name)(x)
