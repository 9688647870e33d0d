"""Layers of augmentation that Keras lacks: windows of each image, and AlexNet's change of colour.

Krizhevsky, Sutskever & Hinton (2012), section 4.1,
https://papers.nips.cc/paper/4824-imagenet-classification-with-deep-convolutional-neural-networks.
"""

import math
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable("tfcourse")
class RandomWindow(keras.layers.Layer):
    """Cut a window out of each picture: in training at random, else from its middle.

    `(batch, height, width, channels) -> (batch, *window, channels)`. With `padding`, zeros are put
    around the picture first: a shift by up to so many pixels.

    Args:
        window: `(height, width)` in pixels.
        padding: Rows and columns of zeros at each side.
        seed: Of the windows.
        name: Of the layer.
        dtype: Type or policy to compute in.
    """

    def __init__(
        self,
        window: Sequence[int],
        *,
        padding: int = 0,
        seed: int | None = None,
        name: str | None = None,
        dtype: object = None,
    ):
        super().__init__(name=name, dtype=dtype)
        whole = all(isinstance(n, int | np.integer) for n in window)
        if len(window) != 2 or not whole or min(window) < 1:
            raise ValueError(
                f"window must be (height, width), whole numbers from 1 up, got {window}"
            )
        if padding < 0:
            raise ValueError(f"padding must be at least 0, got {padding}")
        self.window, self.padding, self.seed = tuple(window), padding, seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape: tuple) -> None:
        """Note how far the window can move."""
        size = [None if n is None else n + 2 * self.padding for n in input_shape[1:3]]
        if None in size or size[0] < self.window[0] or size[1] < self.window[1]:
            raise ValueError(
                f"window {self.window} must fit into pictures of a known size, got {input_shape}"
            )
        self.spare = [n - w for n, w in zip(size, self.window, strict=True)]

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Cut windows out of images `(batch, height, width, channels)`."""
        p = self.padding
        images = ops.pad(images, [[0, 0], [p, p], [p, p], [0, 0]])
        rows = ops.shape(images)[0]
        for axis, (window, spare) in enumerate(zip(self.window, self.spare, strict=True), 1):
            if training:
                start = keras.random.randint((rows, 1), 0, spare + 1, seed=self.seed_generator)
                index = start + ops.arange(window, dtype="int32")
                images = tf.gather(images, index, axis=axis, batch_dims=1)
            else:
                images = ops.take(images, np.arange(window) + spare // 2, axis=axis)
        return images

    def get_config(self) -> dict:
        """Return what the constructor takes."""
        config = super().get_config()
        own = {"window": self.window, "padding": self.padding, "seed": self.seed}
        return {"name": config["name"], "dtype": config["dtype"], **own}


@keras.saving.register_keras_serializable("tfcourse")
class PrincipalColors(keras.layers.Layer):
    """AlexNet's change of colour (Krizhevsky et al., 2012, section 4.1), in training.

    `image + sum_k a_k * deviation_k * direction_k` with one `a ~ N(0, stddev)` for each image and
    component: light changes as the colours of the pictures do. The paper has the variance in the
    place of the deviation; then the change would depend on the unit of the pixels, and from 0 to
    255 it would leave no picture. With deviations (ImageNet's constants in popular code, 55, 5 and
    1, are of their size) the changes have the covariance of the pixels, times `stddev^2`.

    Args:
        deviations: Standard deviations of the pixels along the directions, `(channels,)`.
        directions: The directions, one in each row, `(channels, channels)`.
        stddev: Strength of the changes.
        seed: Of the changes.
        name: Of the layer.
        dtype: Type or policy to compute in.
    """

    def __init__(
        self,
        deviations: Sequence[float],
        directions: Sequence[Sequence[float]],
        *,
        stddev: float = 0.1,
        seed: int | None = None,
        name: str | None = None,
        dtype: object = None,
    ):
        super().__init__(name=name, dtype=dtype)
        self.deviations = np.asarray(deviations, "float32")
        self.directions = np.asarray(directions, "float32")
        channels = len(self.deviations)
        if self.directions.shape != (channels, channels):
            raise ValueError(
                f"directions must be ({channels}, {channels}), got {self.directions.shape}"
            )
        if not 0 <= stddev < math.inf:
            raise ValueError(f"stddev must be at least 0 and finite, got {stddev}")
        self.stddev, self.seed = stddev, seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Change the colours of images `(batch, height, width, channels)`."""
        if not training:
            return images
        shape = (ops.shape(images)[0], len(self.deviations))
        draw = self.seed_generator
        a = keras.random.normal(shape, stddev=self.stddev, dtype="float32", seed=draw)
        change = ops.matmul(a * self.deviations, self.directions)
        return images + ops.cast(change[:, None, None, :], images.dtype)

    def get_config(self) -> dict:
        """Return what the constructor takes."""
        config = super().get_config()
        own = {"deviations": self.deviations.tolist(), "directions": self.directions.tolist()}
        own |= {"stddev": self.stddev, "seed": self.seed}
        return {"name": config["name"], "dtype": config["dtype"], **own}
