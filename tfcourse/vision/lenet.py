"""LeNet-5 (LeCun, Bottou, Bengio & Haffner, 1998), https://doi.org/10.1109/5.726791."""

import keras
from keras import layers

from tfcourse.vision.blocks import check_images

# Figure 2: the layers C1, C3, C5 and F6.
FILTERS = (6, 16)
UNITS = (120, 84)
SMALLEST = 12


def build_lenet(
    input_shape: tuple[int | None, int | None, int] = (28, 28, 1), num_classes: int | None = 10
) -> keras.Model:
    """Build LeNet-5, the convolutional network that read the digits on bank cheques.

    Small kernels with shared weights look for the same stroke everywhere; pooling then forgets
    where exactly it was. Differences from the paper, all common today: ReLU instead of a scaled
    tanh, max pooling instead of averages with trainable weights, every map of C3 sees all six
    maps of S2 (the paper's table gives each three to six), and the output is a plain linear
    layer instead of distances to drawn characters.

    Args:
        input_shape: `(height, width, channels)` from 12 pixels up; `None` takes any size where
            `num_classes` is `None` too. The first convolution pads by two pixels: 28 become the
            paper's 32.
        num_classes: Number of classes, or `None` to end at the last feature map.

    Returns:
        A model from images `(batch, *input_shape)` to logits `(batch, num_classes)`, or to
        features `(batch, 5, 5, 16)` for images of 28 pixels. The layers `stage1` and `stage2`
        end its stages.

    Raises:
        ValueError: If the images are smaller than 12 pixels, or of unknown size.
    """
    check_images(input_shape, SMALLEST, any_size=num_classes is None)
    inputs = keras.Input(input_shape)
    x = layers.Conv2D(FILTERS[0], 5, padding="same", activation="relu", name="c1")(inputs)
    x = layers.MaxPooling2D(2, name="stage1")(x)
    x = layers.Conv2D(FILTERS[1], 5, activation="relu", name="c3")(x)
    x = layers.MaxPooling2D(2, name="stage2")(x)
    if num_classes is not None:
        x = layers.Flatten(name="flatten")(x)
        x = layers.Dense(UNITS[0], activation="relu", name="c5")(x)
        x = layers.Dense(UNITS[1], activation="relu", name="f6")(x)
        x = layers.Dense(num_classes, name="logits")(x)
    return keras.Model(inputs, x, name="lenet5")
