"""VGG (Simonyan & Zisserman, 2015), https://arxiv.org/abs/1409.1556."""

import keras
from keras import layers

from tfcourse.vision.blocks import check_choice, check_images

# Table 1: how many convolutions each of the five stages has (columns A, B, D and E).
CONVOLUTIONS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
FILTERS = (64, 128, 256, 512, 512)
UNITS = 4096
SMALLEST = 32


def build_vgg(
    depth: int,
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    num_classes: int | None = 1000,
    *,
    batch_norm: bool = False,
    dropout: float = 0.5,
) -> keras.Model:
    """Build a VGG image classifier.

    Stacks of 3x3 convolutions replace the large kernels of AlexNet: the same view of the image,
    with fewer weights and more nonlinearities. The paper trained its deep networks from the
    weights of shallow ones; here Keras' initial weights (Glorot's, as its authors advise
    afterwards) or `batch_norm` do without.

    Args:
        depth: Number of layers with weights: 11, 13, 16 or 19.
        input_shape: `(height, width, channels)` from 32 pixels up; `None` takes any size where
            `num_classes` is `None` too. The first dense layer grows with the last map: torchvision
            brings any map to 7x7 instead, which does nothing at 224 pixels.
        num_classes: Number of classes, or `None` to end at the last feature map.
        batch_norm: Whether to normalize after each convolution, which keeps its bias, as in
            torchvision's `vgg16_bn`; the paper is older than the idea.
        dropout: Rate after each hidden dense layer.

    Returns:
        A model from images `(batch, *input_shape)` to logits `(batch, num_classes)`, or to
        features `(batch, height / 32, width / 32, 512)`. The poolings `stage1` to `stage5` end its
        stages, at strides 2 to 32; the others are `block1_conv1`, ..., `block5_conv3`, `fc1`,
        `fc2`, `logits`.

    Raises:
        ValueError: If there is no VGG of this depth, or the images are smaller than 32 pixels.
    """
    check_choice("depth", depth, CONVOLUTIONS)
    check_images(input_shape, SMALLEST, any_size=num_classes is None)
    inputs = x = keras.Input(input_shape)
    for stage, repeats in enumerate(CONVOLUTIONS[depth], 1):
        for number in range(1, repeats + 1):
            x = convolve(x, FILTERS[stage - 1], batch_norm, f"block{stage}_{{}}{number}")
        x = layers.MaxPooling2D(2, name=f"stage{stage}")(x)
    if num_classes is not None:
        x = layers.Flatten(name="flatten")(x)
        for name in ("fc1", "fc2"):
            x = layers.Dense(UNITS, activation="relu", name=name)(x)
            x = layers.Dropout(dropout, name=f"{name}_dropout")(x)
        x = layers.Dense(num_classes, name="logits")(x)
    return keras.Model(inputs, x, name=f"vgg{depth}_bn" if batch_norm else f"vgg{depth}")


def convolve(x: keras.KerasTensor, filters: int, batch_norm: bool, name: str) -> keras.KerasTensor:
    """Convolve 3x3 and cut off below 0: `(batch, height, width, filters)`.

    `name` has a place for what each layer does: `block1_{}2`.
    """
    activation = None if batch_norm else "relu"
    x = layers.Conv2D(filters, 3, padding="same", activation=activation, name=name.format("conv"))(
        x
    )
    if batch_norm:
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name.format("bn"))(x)
        x = layers.ReLU(name=name.format("relu"))(x)
    return x
