"""A copy of a model that counts in float64, for what rounding in float32 would hide."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Make layers and losses that are made here count in float64."""
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    try:
        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("float64")
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def twin_of(model: keras.Model, batch: tuple) -> keras.Model:
    """Return a copy of a compiled model in float64, with the same weights."""
    try:
        twin = type(model).from_config(_widened(model.get_config()))
        twin(in_float64(batch)[0])
        twin.set_weights(model.get_weights())  # raises where the shapes differ
    except (TypeError, ValueError, NotImplementedError, AttributeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"model must be one that its config gives again, {model.name}: {reason}"
        ) from error
    for original, copy in zip(model.variables, twin.variables, strict=True):
        copy.assign(original.numpy())
    weights = model.get_compile_config().get("loss_weights")
    twin.compile(loss=keras.tree.map_structure(_widened_loss, model.loss), loss_weights=weights)
    return twin


def _widened_loss(loss):
    if not isinstance(loss, keras.losses.Loss):
        return loss
    return type(loss).from_config(_widened(loss.get_config()))


def _widened(config):
    """Return a config with each floating dtype, and each policy of one, replaced by float64."""
    if isinstance(config, list | tuple):
        return type(config)(_widened(item) for item in config)
    if not isinstance(config, dict):
        return config
    if str(config.get("class_name", "")).endswith("DTypePolicy"):
        return "float64"
    return {
        name: "float64" if "dtype" in name and _is_float(value) else _widened(value)
        for name, value in config.items()
    }


def _is_float(dtype) -> bool:
    return isinstance(dtype, str) and ("float" in dtype)


def in_float64(batch):
    """Return the batch with its floating numbers in float64."""

    def cast(leaf):
        leaf = tf.convert_to_tensor(leaf)
        return tf.cast(leaf, tf.float64) if leaf.dtype.is_floating else leaf

    return keras.tree.map_structure(lambda v: v if v is None else cast(v), batch)
