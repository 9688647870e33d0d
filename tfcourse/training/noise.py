"""Steps for `training.fit` that train with noise: in the weights, and by mixing examples.

The noise follows from a seed and the number of the step alone. So there is nothing to remember:
a resumed training draws what the uninterrupted one would have drawn. (XLA draws other numbers.)
"""

import functools
import math

import keras
import numpy as np
import tensorflow as tf

from tfcourse.training import replicas
from tfcourse.training.inner import Step
from tfcourse.training.penalties import kernels
from tfcourse.training.steps import forward, supervised_step, update_metrics, whole_loss

QUANTILES = 4096


def weight_noise(stddev: float, *, seed: int = 0) -> Step:
    """Make a step that takes the gradient at noisy weights and updates the clean ones.

    A minimum that stays low when the weights are shaken is a flat one: it needs fewer bits to be
    written down (Hinton & van Camp, 1993, https://doi.org/10.1145/168304.168306), and often
    generalizes better. Only kernels are shaken, each step anew and on all replicas alike.

    Args:
        stddev: Standard deviation of the noise; initial weights have about `1 / sqrt(inputs)`.
        seed: Of the noise.

    Returns:
        What `fit` takes as `step`.

    Raises:
        ValueError: If `stddev` is negative or not finite.
    """
    if not 0 <= stddev < math.inf:
        raise ValueError(f"stddev must be at least 0 and finite, got {stddev}")

    def step(model: keras.Model, batch: tuple) -> dict[str, tf.Tensor]:
        shaken = [_local(kernel) for kernel in kernels(model) if kernel.trainable]
        clean = [tf.identity(variable) for variable in shaken]
        draw = _draw(model, seed)
        for i, variable in enumerate(shaken):
            own = tf.random.fold_in(draw, i)
            noise = tf.random.stateless_normal(variable.shape, own, dtype=variable.dtype)
            variable.assign_add(stddev * noise)
        weights = model.trainable_variables
        with tf.GradientTape() as tape:
            y_pred = forward(model, keras.utils.unpack_x_y_sample_weight(batch)[0], training=True)
            objective, loss = whole_loss(model, batch, y_pred, training=True)
            objective = model.optimizer.scale_loss(objective)
        gradients = tape.gradient(objective, weights)
        for variable, value in zip(shaken, clean, strict=True):
            variable.assign(value)  # subtracting the noise again would leave its rounding
        replicas.apply_gradients(model.optimizer, gradients, weights)
        return update_metrics(model, loss, batch, y_pred)

    step.__qualname__ = f"weight_noise(stddev={stddev}, seed={seed})"  # part of what a resume needs
    return step


def mix_up(alpha: float = 0.2, *, seed: int = 0, step: Step = supervised_step) -> Step:
    """Make a step that trains on mixtures of two examples each (Zhang et al., 2018).

    `x = t x_i + (1 - t) x_j` and `y = t y_i + (1 - t) y_j` with `t ~ Beta(alpha, alpha)`
    (https://arxiv.org/abs/1710.09412): between two examples the network is to be linear. Example j
    is the one as far from the end of the batch as i is from its start (on several replicas, of the
    replica's share), so the data have to be shuffled. Cross-entropy is linear in its targets:
    that of the mixed target is the mixture of the two. Other losses may not be.

    Keras' MixUp layer draws gammas, which XLA has not.

    Args:
        alpha: 1 mixes evenly, towards 0 one of the two prevails.
        seed: Of the mixtures.
        step: What is done with the mixed batch.

    Returns:
        What `fit` takes as `step`, for batches `(x, y)` with one-hot targets `y`.

    Raises:
        ValueError: If `alpha` is not above 0 and finite.
    """
    if not 0 < alpha < math.inf:
        raise ValueError(f"alpha must be above 0 and finite, got {alpha}")

    def mixed_step(model: keras.Model, batch: tuple) -> dict[str, tf.Tensor]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        if sample_weight is not None:
            raise ValueError("mix_up must have batches (x, y), got sample weights or class weights")
        if y.shape.rank != 2 or not y.dtype.is_floating:
            raise ValueError(
                f"mix_up must have one-hot targets (rows, classes) of float, got {y.dtype.name} "
                f"of shape {tuple(y.shape)}"
            )
        share = _shares(model, replicas.rows_of(x), alpha, seed)

        def mix(tensor):
            tensor = tf.cast(tensor, keras.config.floatx())
            t = tf.reshape(share, [-1] + [1] * (tensor.shape.rank - 1))
            return t * tensor + (1 - t) * tensor[::-1]

        return step(model, keras.tree.map_structure(mix, (x, y)))

    inner = getattr(step, "__qualname__", type(step).__name__)
    mixed_step.__qualname__ = f"mix_up(alpha={alpha}, seed={seed}, step={inner})"
    return mixed_step


def _local(variable: keras.Variable) -> tf.Variable:
    """Return this replica's copy of a variable, which it may set by itself."""
    value = variable._value
    return value._get() if hasattr(value, "_get") else value


def _draw(model: keras.Model, seed: int) -> tf.Tensor:
    """Return the seed of this step: what is drawn depends on nothing else."""
    if model.optimizer is None:
        raise ValueError(f"model must be compiled with an optimizer, {model.name} is not")
    return tf.stack([tf.constant(seed, tf.int64), tf.cast(model.optimizer.iterations, tf.int64)])


def _shares(model: keras.Model, rows: tf.Tensor, alpha: float, seed: int) -> tf.Tensor:
    """Draw `t ~ Beta(alpha, alpha)` for each row, other ones on each replica."""
    context = tf.distribute.get_replica_context()
    draw = tf.random.fold_in(_draw(model, seed), context.replica_id_in_sync_group if context else 0)
    place = tf.random.stateless_uniform([rows], draw) * QUANTILES
    table = tf.constant(beta_quantiles(alpha), keras.config.floatx())
    index = tf.minimum(tf.cast(place, tf.int32), QUANTILES - 1)
    low, high = tf.gather(table, index), tf.gather(table, index + 1)
    return low + (high - low) * tf.cast(place - tf.cast(index, place.dtype), table.dtype)


@functools.cache
def beta_quantiles(alpha: float) -> np.ndarray:
    """Return the quantiles 0, 1/4096, ..., 1 of Beta(alpha, alpha), by the trapezoid rule.

    The density `(t (1 - t))^(alpha - 1)` has poles for an alpha below 1. In `v = t^alpha` it is
    `(1 - t)^(alpha - 1) / alpha`, without a pole up to the median 1/2; the rest is its mirror.
    """
    if alpha < 1:
        t = np.linspace(0, 0.5**alpha, 200_001) ** (1 / alpha)
        density = (1 - t) ** (alpha - 1)
    else:
        t = np.linspace(0, 0.5, 200_001)
        density = (4 * t * (1 - t)) ** (alpha - 1)  # in units of that at 1/2
    area = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    lower = np.interp(np.linspace(0, 1, QUANTILES // 2 + 1), area / area[-1], t)
    return np.concatenate([lower, 1 - lower[-2::-1]])
