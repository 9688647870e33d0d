"""A model's gradients: held against finite differences, and watched over a training."""

import collections
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfcourse.training.float64 import float64, in_float64, twin_of
from tfcourse.training.snapshots import unchanged

FLOOR = 1e-5


def check_gradients(
    model: keras.Model,
    batch: tuple,
    *,
    epsilon: float = 1e-6,
    entries: int = 5,
    training: bool = True,
    seed: int = 0,
) -> dict[str, float]:
    """Compare the gradient of the loss with `(loss(w + eps) - loss(w - eps)) / (2 eps)`.

    When to use it: for a layer, a loss or a `tf.custom_gradient` of one's own, on a small model
    and a batch of a few rows. Below 1e-4 is right, above 1e-2 is wrong. In between, and for single
    entries, it can be a kink: a ReLU or max-pooling whose choice changes within `epsilon`.

    A copy of the model is made by its config in float64; the model itself is not touched.
    Dropout keeps the same units out in every run.

    Args:
        model: A compiled model with its weights made, that can be made again from its config.
        batch: `(x, y)` or `(x, y, sample_weight)`.
        epsilon: Half the difference of a weight between two runs.
        entries: How many entries of each weight to move: that of the largest gradient, and others
            at random.
        training: Whether to run in training mode; BatchNorm then uses the batch.
        seed: Of the choice of entries.

    Returns:
        For each trainable weight by its path, the largest `|a - n| / (max(|a|, |n|) + floor)` of
        the gradient `a` and the difference `n`; the floor, 1e-5 or more for a large loss, is what
        rounding can hide.

    Raises:
        ValueError: If the model is not compiled, or its config does not give a model again.
    """
    if not model.compiled:
        raise ValueError(f"model must be compiled to have a loss, {model.name} is not")
    with float64():
        twin, rng = twin_of(model, batch), np.random.default_rng(seed)
        loss = _loss_of(twin, batch, training)
        weights = twin.trainable_variables
        with tf.GradientTape() as tape:
            value = loss()
        gradients = tape.gradient(value, [v.value for v in weights])
        floor = FLOOR * max(1.0, abs(float(value)))
        errors = {}
        for original, weight, gradient in zip(
            model.trainable_variables, weights, gradients, strict=True
        ):
            # A weight that the loss does not know has no gradient, and none is right.
            zeros = np.zeros(weight.shape)
            flat = np.ravel(zeros if gradient is None else tf.convert_to_tensor(gradient))
            chosen = _chosen(flat, entries, rng)
            differences = np.array([_difference(loss, weight, i, epsilon) for i in chosen])
            a, n = flat[chosen], differences
            error = np.abs(a - n) / (np.maximum(np.abs(a), np.abs(n)) + floor)
            errors[original.path] = float(np.max(error, initial=0.0))
    return errors


def _loss_of(twin: keras.Model, batch: tuple, training: bool) -> Callable[[], tf.Tensor]:
    """Return the loss as a function of the weights alone: seeds and statistics stay the same."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(in_float64(batch))
    trainable = {id(v) for v in twin.trainable_variables}
    state = [(v, v.numpy()) for v in twin.variables if id(v) not in trainable]

    def loss():
        for variable, value in state:
            variable.assign(value)
        y_pred = twin(x, training=training)
        return twin.compute_loss(x, y, y_pred, sample_weight, training=training)

    return loss


def _difference(loss, weight: keras.Variable, index: int, epsilon: float) -> float:
    value = weight.numpy()
    losses = []
    for sign in (1, -1):
        moved = value.copy()
        moved.flat[index] += sign * epsilon
        weight.assign(moved)
        losses.append(float(loss()))
    weight.assign(value)
    return (losses[0] - losses[1]) / (2 * epsilon)


def _chosen(gradient: np.ndarray, entries: int, rng: np.random.Generator) -> np.ndarray:
    """Choose the entry of the largest gradient: most rows of an embedding have none."""
    count = min(entries, gradient.size)
    random = rng.choice(gradient.size, count, replace=False)
    return np.unique([int(np.argmax(np.abs(gradient))), *random[: count - 1]])


class GradientNorms(keras.callbacks.Callback):
    """Writes the norm of each layer's gradient on one batch to TensorBoard after each epoch.

    When to use it: when a deep net learns slowly or not at all. Norms that shrink from layer to
    layer towards the input vanish, norms that grow explode: look at initializers, normalisation
    and shortcuts.

    It is one more forward and backward pass an epoch, always on the same batch, so that epochs
    compare; its penalties and dropout are those of training, and nothing of it stays behind.
    Before clipping. Works in `Model.fit`, too.

    Args:
        log_dir: Folder of the events; `tensorboard --logdir` shows it.
        batch: `(x, y)` or `(x, y, sample_weight)`, such as `next(iter(data))`.
    """

    def __init__(self, log_dir: str | Path, batch: tuple):
        super().__init__()
        self.log_dir, self.batch, self.writer = str(log_dir), batch, None

    def on_epoch_end(self, epoch, logs=None):
        self.writer = self.writer or tf.summary.create_file_writer(self.log_dir)
        with self.writer.as_default(step=epoch):
            for layer, norm in gradient_norms(self.model, self.batch).items():
                tf.summary.scalar(f"gradient_norm/{layer}", norm)

    def on_train_end(self, logs=None):
        self.close()

    def close(self) -> None:
        """End the file; `fit` calls this when training raises, too."""
        if self.writer:
            self.writer.close()
            self.writer = None


def gradient_norms(model: keras.Model, batch: tuple) -> dict[str, float]:
    """Return the norm of the gradient of a batch's loss by layer, all weights of a layer together.

    Args:
        model: A compiled model; it is as before afterwards.
        batch: `(x, y)` or `(x, y, sample_weight)`.

    Returns:
        Norms in float32 by the layers' paths, such as `stage1/conv`.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    weights = model.trainable_variables
    with unchanged(model):
        with tf.GradientTape() as tape:
            y_pred = model(x, training=True)
            loss = model.compute_loss(x, y, y_pred, sample_weight, training=True)
        gradients = tape.gradient(loss, [weight.value for weight in weights])
    layers = collections.defaultdict(list)
    for weight, gradient in zip(weights, gradients, strict=True):
        if gradient is not None:
            # Dense, because a row that a batch has twice is two entries of a sparse gradient.
            dense = tf.cast(tf.convert_to_tensor(gradient), tf.float32)
            layers[weight.path.rpartition("/")[0]].append(dense)
    return {layer: float(tf.linalg.global_norm(parts)) for layer, parts in layers.items()}
