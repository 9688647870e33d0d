"""What several architectures share: a layer that Keras lacks, and the checks of their arguments.

Local response normalization: Krizhevsky, Sutskever & Hinton (2012),
https://papers.nips.cc/paper/4824-imagenet-classification-with-deep-convolutional-neural-networks,
section 3.3.
"""

from collections.abc import Iterable
from numbers import Integral

import keras
import tensorflow as tf
from keras import layers


@keras.saving.register_keras_serializable("tfcourse")
class LocalResponseNormalization(layers.Layer):
    """Divide each value by the strength of its neighbours: maps at the same pixel compete.

    `y[i] = x[i] / (bias + alpha * sum(x[j] ** 2)) ** beta`, `j` from `i - radius` to
    `i + radius`; shape `(batch, height, width, channels)`, unchanged. As in the paper `alpha`
    counts for each map; Caffe and torch divide it by the number of maps, `2 * radius + 1`.

    Args:
        radius: How many maps on either side count: 2 is the paper's n = 5.
        bias: The paper's k.
        alpha: Weight of each squared map.
        beta: Exponent.
        name: Name of the layer.
        dtype: Policy of the layer. The sum is in float32 whatever it is.
    """

    def __init__(
        self,
        radius: int = 2,
        bias: float = 2.0,
        alpha: float = 1e-4,
        beta: float = 0.75,
        *,
        name: str | None = None,
        dtype: object = None,
    ):
        super().__init__(name=name, dtype=dtype)
        self.constants = {"radius": radius, "bias": bias, "alpha": alpha, "beta": beta}

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalize maps `(batch, height, width, channels)`."""
        radius, bias, alpha, beta = self.constants.values()
        # TensorFlow has no bfloat16 kernel for a CPU, and 1e-4 is below bfloat16's resolution.
        x = tf.cast(inputs, "float32")
        x = tf.nn.local_response_normalization(x, radius, bias, alpha, beta)
        return tf.cast(x, inputs.dtype)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the shape of the input."""
        return input_shape

    def get_config(self) -> dict:
        """Return what the constructor takes."""
        config = super().get_config()
        return {"name": config["name"], "dtype": config["dtype"], **self.constants}


def check_images(
    input_shape: tuple[int | None, int | None, int],
    smallest: int,
    *,
    any_size: bool = True,
    where: str = "",
) -> None:
    """Refuse a shape of images that an architecture can't take.

    Args:
        input_shape: What the builder got: should be `(height, width, channels)`.
        smallest: The least height and width, in pixels.
        any_size: Whether height and width may be `None`: not where a dense layer counts them.
        where: What asks for this size, for the message: " with auxiliary heads".

    Raises:
        ValueError: If the shape is none of an image, too small, or unknown where it must not be.
    """
    is_shape = isinstance(input_shape, (tuple, list)) and len(input_shape) == 3
    if not is_shape or not all(n is None or _is_count(n, smallest) for n in input_shape[:2]):
        allowed = f"(height, width, channels) from {smallest} px{where}"
        raise ValueError(f"input_shape must be {allowed}, got {input_shape!r}")
    if not _is_count(input_shape[2], 1):
        raise ValueError(f"input_shape must end in a number of channels, got {input_shape!r}")
    if None in input_shape and not any_size:
        where = where or " unless num_classes is None"
        raise ValueError(f"input_shape must be all numbers{where}, got {input_shape!r}")


def check_choice(name: str, value: object, choices: Iterable) -> None:
    """Refuse a depth or a variant that an architecture does not have.

    Args:
        name: What the builder calls it.
        value: What the builder got: 18.0 and "18" are not 18.
        choices: What there is.

    Raises:
        ValueError: If it is none of them.
    """
    choices = list(choices)
    if not isinstance(value, str | Integral) or value not in choices:
        raise ValueError(f"{name} must be one of {choices}, got {value!r}")


def _is_count(value: object, smallest: int) -> bool:
    return isinstance(value, Integral) and value >= smallest
