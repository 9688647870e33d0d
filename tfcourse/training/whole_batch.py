"""What layers need to see of the whole batch, when each replica has only some of its rows.

Keras' layers are used as they are. While a step is traced, the few methods that would depend on the
number of replicas are exchanged: BatchNorm's mean and variance, the seed of dropout, the list of
penalties. A look-up in an embedding is exchanged, too, on one replica as on many: Keras reads the
whole table for each step.
"""

import contextlib
import functools
import sys
import threading
import types
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from tfcourse.training.replicas import gather, replaced, rows_of, total


@contextlib.contextmanager
def as_one_device(model: keras.Model, replicas: int, jit_compile: bool) -> Iterator[None]:
    """While a step is traced: layers work on the whole batch, and look rows up in place."""
    layers = list(model._flatten_layers())
    replacements = [
        (layer, "call", _look_up(layer)) for layer in layers if _is_plain_embedding(layer)
    ]
    if replicas > 1:
        replacements.append((_trace, "jit_compile", jit_compile))
        norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
        replacements += [(layer, "_moments", _moments_of_all(layer)) for layer in norms]
        replacements += [(layer, "add_loss", _noted) for layer in layers]
        if _activities_are_sums():
            active = [layer for layer in layers if layer.activity_regularizer is not None]
            replacements += [(x, "activity_regularizer", _summed(x)) for x in active]
        generator, losses = keras.random.SeedGenerator, sys.modules[keras.Loss.__module__]
        replacements += [
            (generator, "next", _next_seed(generator.next)),
            # Keras divides a mean by the number of replicas; ours is one of the whole batch.
            (losses, "scale_loss_for_distribution", lambda value: value),
            (losses, "unscale_loss_for_distribution", lambda value: value),
        ]
    with replaced(replacements):
        yield


def call_model(model: keras.Model, x, **arguments):
    """Call a model; if the steps on several replicas are compiled, as a function XLA can take.

    XLA cannot take the variables of several devices: it is given their values.
    """
    if not _trace.jit_compile:
        return model(x, **arguments)
    weights, others = model.trainable_variables, model.non_trainable_variables

    @tf.function(jit_compile=True, autograph=False)
    def compiled(weights, others, x):
        _replica.added, _replica.sums = [], []
        y_pred, states = model.stateless_call(weights, others, x, **arguments)
        return y_pred, states, _replica.added, _replica.sums

    values = [[tf.convert_to_tensor(v._value) for v in group] for group in (weights, others)]
    y_pred, states, _replica.added, _replica.sums = compiled(*values, x)
    for variable, state in zip(others, states, strict=True):
        variable.assign(state)
    return y_pred


def standing_in(rows):
    """Note the rows that stand in where this replica has none: some of the batch's own."""
    _replica.stand_in, _replica.added, _replica.sums = rows, [], []
    _replica.counts = None  # until `at_least_one` tells: a thread may trace one graph after another


def at_least_one(x):
    """Return rows that are not none, and whether they count; layers give NaN for no rows.

    Args:
        x: Inputs of this replica, `(rows, ...)`.
    """
    rows = rows_of(x)
    stand_in = keras.utils.unpack_x_y_sample_weight(_replica.stand_in)[0]
    like = [[(t.shape[1:], t.dtype) for t in keras.tree.flatten(s)] for s in (x, stand_in)]
    if like[0] != like[1]:  # not the batch's own inputs: ask the other replicas
        stand_in = gather(x)

    def pad(tensor, instead):
        return tf.concat([tensor, instead[: tf.cast(rows == 0, tf.int32)]], axis=0)

    x_flat, stand_in = keras.tree.flatten(x), keras.tree.flatten(stand_in)
    _replica.counts = rows > 0
    return keras.tree.pack_sequence_as(
        x, [pad(*pair) for pair in zip(x_flat, stand_in, strict=True)]
    )


def _counted(value):
    """Return zeros instead of what comes from rows that only stand in."""
    counts = getattr(_replica, "counts", None)
    return value if counts is None else tf.where(counts, value, tf.zeros_like(value))


def penalty(model: keras.Model, share: tf.Tensor) -> tf.Tensor:
    """Return this replica's part of the penalties on weights and of what layers gave to `add_loss`.

    The first are the same everywhere, the others means over rows, as Keras' activity regularizers
    are: weighted by the replica's share of the rows, both add up to what one device has.
    """
    means = [tf.cast(tf.reduce_sum(x), tf.float32) for x in [*model.losses, *_replica.added]]
    return share * sum(means, tf.constant(0.0)) + sum(_replica.sums, tf.constant(0.0))


@functools.cache
def _activities_are_sums() -> bool:
    """Tell whether this Keras adds an activity regularizer up over the rows, as 3.13 does."""
    with tf.init_scope():
        layer = keras.layers.Identity(activity_regularizer=keras.regularizers.L1(1.0))
        layer(tf.ones((2, 1)))
        return float(layer.losses[0]) > 1.5


def _summed(layer: keras.Layer) -> Callable:
    regularizer = layer.activity_regularizer

    def activity(outputs):
        _replica.sums.append(tf.cast(_counted(regularizer(outputs)), tf.float32))
        return tf.constant(0.0)

    return activity


def _noted(loss) -> None:
    """Keep what a layer gives to `add_loss` by replica: Keras has one list for all of them."""
    _replica.added += keras.tree.flatten(loss)


_trace = types.SimpleNamespace(jit_compile=False)
_replica = threading.local()  # each replica of a MirroredStrategy is traced in a thread of its own


def _moments_of_all(layer: keras.layers.BatchNormalization) -> Callable:
    """Return BatchNorm's `(inputs, mask) -> mean, variance` over the rows of all replicas."""

    def sum_of(values):
        return total(_counted(tf.reduce_sum(values, layer._reduction_axes)))

    def moments(inputs, mask):
        if mask is None:
            weight, epsilon = tf.ones_like(inputs), 0.0
        else:
            weight = tf.cast(tf.broadcast_to(mask[..., None], tf.shape(inputs)), inputs.dtype)
            epsilon = keras.config.epsilon()
        rows = sum_of(weight) + epsilon
        mean = sum_of(inputs * weight) / rows
        broadcast = [1] * inputs.shape.rank
        broadcast[layer.axis] = -1
        difference = (inputs - tf.reshape(mean, broadcast)) * weight
        return mean, sum_of(difference * difference) / rows

    return moments


def _next_seed(draw: Callable) -> Callable:
    """Return `SeedGenerator.next` with another seed for each replica but the first."""

    def following(self, ordered=True):
        seed = draw(self, ordered)
        context = tf.distribute.get_replica_context()
        if context is None:
            return seed
        index = tf.cast(context.replica_id_in_sync_group, seed.dtype)
        return seed + tf.stack([index * 1_000_003, tf.zeros_like(index)])

    return following


def _is_plain_embedding(layer: keras.Layer) -> bool:
    plain = type(layer) is keras.layers.Embedding and layer.built
    return plain and not layer.lora_enabled and layer.quantization_mode is None


def _look_up(layer: keras.layers.Embedding) -> Callable:
    """Return `Embedding.call` without its read of the whole table, a copy for each step."""
    usual, table = layer.call, layer._embeddings

    def call(inputs):
        if not isinstance(inputs, tf.Tensor):
            return usual(inputs)
        ids = tf.cast(inputs, "int32") if inputs.dtype not in (tf.int32, tf.int64) else inputs
        ids = tf.where(ids < 0, ids + layer.input_dim, ids)
        # `_value`, because `value` casts the table under mixed precision.
        return tf.cast(tf.gather(table._value, ids), layer.compute_dtype)

    return call
