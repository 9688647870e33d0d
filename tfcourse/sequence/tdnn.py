"""TDNN (Waibel, Hanazawa, Hinton, Shikano & Lang, 1989), https://doi.org/10.1109/29.21701.

With x_t frame t, a unit reads a window of frames through the same weights at all times, and so does
each unit above it. The last units h, one for each class, find evidence; the output adds it up:

    h_t = sigmoid(sum_d h'_(t+d) W_d + b)           logit = sum_t (h_t - 1/2) + b
"""

from numbers import Integral

import keras
import numpy as np
from keras import layers, ops

from tfcourse.sequence.tokens import check_counts, check_vectors, check_vocabulary, embedding

POWERS = {"sum": 1, "squares": 2}


@keras.saving.register_keras_serializable("tfcourse")
class Evidence(layers.Layer):
    """Add up over time: `(batch, frames, classes) -> (batch, classes)`.

    `y_c = b_c + sum_t (x_tc^p - 2^-p)`, with p = 1 or 2. A sigmoid in doubt is 1/2, and counts
    nothing: for a given number of frames that is no more than another b, and it keeps logits of
    long sequences near 0.
    """

    def __init__(self, power: int = 1, **kwargs):
        """Say what is added up.

        Args:
            power: p.
            **kwargs: What every layer takes.
        """
        super().__init__(**kwargs)
        self.power = power

    def build(self, input_shape):
        self.bias = self.add_weight(name="bias", shape=input_shape[-1:], initializer="zeros")

    def call(self, inputs):
        return ops.sum(inputs**self.power - 0.5**self.power, axis=1) + self.bias

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])

    def get_config(self):
        return super().get_config() | {"power": self.power}


def build_tdnn(
    input_shape: tuple[int | None, int] = (15, 16),
    num_classes: int | None = 3,
    *,
    hidden_units: tuple[int, ...] = (8,),
    windows: tuple[int, ...] = (3, 5),
    evidence: str = "sum",
    vocabulary_size: int | None = None,
    vectors: np.ndarray | None = None,
) -> keras.Model:
    """Build a time-delay neural network, the first convolutional network in time.

    Units see a few frames at all times through the same weights, and what they find is added up
    over time: what matters is what was said, not when. The defaults are the paper's, for b, d and g
    from 16 mel coefficients every 10 ms: 392 weights, 123, and 3 thresholds, which stand for 5,096
    + 1,107 + 30 connections, the paper's 6,233. Where the paper's output is a sigmoid of the sum
    with a squared error, ours are logits for a cross-entropy.

    Args:
        input_shape: `(frames, coefficients)`; frames may be `None`, for any number of at least
            `sum(windows) - len(windows) + 1`: 7 by default; of tokens, any number.
        num_classes: Number of classes, or `None` to end at the last hidden layer.
        hidden_units: Of each hidden layer but the last, which has a unit for each class.
        windows: Frames that a unit of each hidden layer sees.
        evidence: What is added up: "sum" the last units, as in the paper, or their "squares", in
            which a few windows that are sure outweigh many that are not.
        vocabulary_size: Number of tokens, with the padding, if the frames are the vectors of
            tokens, which are learned; `None` for frames as they are.
        vectors: What the vectors of tokens begin with, `(vocabulary_size, coefficients)`; `None`
            for small random numbers.

    Returns:
        A model from frames `(batch, frames, coefficients)`, or from ids `(batch, frames)` with 0
        for padding at the end, to logits `(batch, num_classes)` or to hidden units `(batch, frames
        left, units)`. The layers `stage1`, `stage2`, ... are the hidden ones. What begins at a
        token is evidence, and sees zeros beyond the end: padding changes nothing.

    Raises:
        ValueError: If the shape is none of frames or too short, or another argument makes no sense.
    """
    _check_windows(hidden_units, windows)
    beyond = sum(windows) - len(windows)
    _check_frames(input_shape, beyond + 1 if vocabulary_size is None else 1)
    if evidence not in list(POWERS):
        raise ValueError(f"evidence must be one of {list(POWERS)}, got {evidence!r}")
    units = hidden_units
    if num_classes is not None:
        check_counts({"num_classes": num_classes})
        units = (*hidden_units, num_classes)
    if vocabulary_size is None:
        if vectors is not None:
            raise ValueError("vectors must be None without a vocabulary_size: they are of tokens")
        x = inputs = keras.Input(input_shape, name="frames")
    else:
        inputs, x = _tokens(input_shape, vocabulary_size, vectors, beyond)
    for number, (width, window) in enumerate(zip(units, windows, strict=False), start=1):
        x = layers.Conv1D(width, window, activation="sigmoid", name=f"stage{number}")(x)
    if num_classes is not None:
        if vocabulary_size is not None:
            x = ops.where(ops.not_equal(inputs, 0)[..., None], x, 0.5)  # which counts nothing
        x = Evidence(POWERS[evidence], name="logits")(x)
    return keras.Model(inputs, x, name="tdnn")


def _tokens(
    input_shape: tuple[int | None, int],
    vocabulary_size: int,
    vectors: np.ndarray | None,
    beyond: int,
):
    """Return ids and their vectors: zeros at padding, and for some frames beyond the end."""
    check_vocabulary(vocabulary_size)
    check_vectors(vectors, (vocabulary_size, input_shape[1]))
    ids = keras.Input(input_shape[:1], dtype="int32", name="ids")
    x = embedding(ids, (vocabulary_size, input_shape[1]), vectors)
    x = x * ops.cast(ops.not_equal(ids, 0), x.dtype)[..., None]
    return ids, layers.ZeroPadding1D((0, beyond), name="beyond")(x)


def _check_windows(hidden_units: tuple[int, ...], windows: tuple[int, ...]) -> None:
    for units in hidden_units:
        check_counts({"hidden_units": units})
    for window in windows:
        check_counts({"windows": window})
    if len(windows) != len(hidden_units) + 1:
        rule = f"windows must be one more than the {len(hidden_units)} hidden_units"
        raise ValueError(f"{rule}, got {windows!r}")


def _check_frames(input_shape: tuple[int | None, int], least: int) -> None:
    if not isinstance(input_shape, tuple | list) or len(input_shape) != 2:
        raise ValueError(f"input_shape must be (frames, coefficients), got {input_shape!r}")
    frames, coefficients = input_shape
    right = frames is None or (isinstance(frames, Integral) and frames >= least)
    if not right or not isinstance(coefficients, Integral) or coefficients < 1:
        rule = f"input_shape must be (frames, coefficients) from {least} frames"
        raise ValueError(f"{rule}, got {input_shape!r}")
