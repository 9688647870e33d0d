"""Where in a training step a number first became infinite or NaN: in which layer."""

import contextlib
import dataclasses
from collections.abc import Iterator

import keras
import tensorflow as tf


@dataclasses.dataclass
class _Call:
    layer: keras.Operation
    inputs: list[tf.Tensor]
    outputs: list[tf.Tensor]
    inner: bool


def first_nonfinite(model: keras.Model, batch: tuple) -> str | None:
    """Run one batch forward and backward and name the first place that is not finite.

    The model runs eagerly, in training mode and without an update; BatchNorm statistics and seeds
    move as in a step.

    Args:
        model: A compiled model.
        batch: `(x, y)` or `(x, y, sample_weight)`.

    Returns:
        Such as `input of the model`, `output of layer 'log'`, `loss`, or, backwards from the loss,
        `gradient in layer 'sqrt'`; `None` where all is finite.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    if not _finite(x):
        return "input of the model"
    with tf.GradientTape(persistent=True) as tape, _recorded(model, tape) as calls:
        y_pred = model(x, training=True)
        loss = model.compute_loss(x, y, y_pred, sample_weight, training=True)
    for call in calls:
        if not _finite(call.outputs):
            return f"output of layer {call.layer.name!r}"
    if not _finite(loss):
        return "targets or sample weights" if not _finite([y, sample_weight]) else "loss"
    return _first_gradient(tape, loss, y_pred, [call for call in calls if call.inner])


def nonfinite_weight(model: keras.Model) -> str | None:
    """Return the first weight that is infinite or NaN, such as `weight 'dense/kernel'`."""
    for variable in model.variables:
        if not _finite(variable.value):
            return f"weight {variable.path!r}"
    return None


def _first_gradient(tape, loss, y_pred, calls: list[_Call]) -> str | None:
    if not _finite(tape.gradient(loss, keras.tree.flatten(y_pred))):
        return "gradient of the loss"
    for call in reversed(calls):
        weights = [v.value for v in getattr(call.layer, "trainable_variables", [])]
        if not _finite(tape.gradient(loss, [call.inputs, weights])):
            return f"gradient in layer {call.layer.name!r}"
    return None


@contextlib.contextmanager
def _recorded(model: keras.Model, tape: tf.GradientTape) -> Iterator[list[_Call]]:
    """Record the calls of all layers, in the order in which they end: inner before outer ones."""
    calls = []

    def recording(layer, call):
        def run(*args, **kwargs):
            inputs = _floats([args, kwargs])
            # Inputs that no weight was applied to have a gradient, too, if they are watched.
            tape.watch(inputs)
            before = len(calls)
            outputs = call(*args, **kwargs)
            calls.append(_Call(layer, inputs, _floats(outputs), inner=len(calls) == before))
            return outputs

        return run

    with contextlib.ExitStack() as stack:
        for layer in _operations(model):
            # On the object, not its class: taken away, the class' method is there again.
            layer.call = recording(layer, layer.call)
            stack.callback(vars(layer).pop, "call")
        yield calls


def _operations(model: keras.Model) -> list[keras.Operation]:
    """Return all layers inside a model, and the bare operations of functional ones."""
    found = {}
    for layer in model._flatten_layers():
        for operation in [*getattr(layer, "operations", ()), layer]:
            if operation is not model and not isinstance(operation, keras.layers.InputLayer):
                found[id(operation)] = operation
    return list(found.values())


def _floats(structure) -> list[tf.Tensor]:
    tensors = [t for t in keras.tree.flatten(structure) if tf.is_tensor(t)]
    return [t for t in tensors if not tf.is_symbolic_tensor(t) and t.dtype.is_floating]


def _finite(structure) -> bool:
    leaves = [leaf for leaf in keras.tree.flatten(structure) if leaf is not None]
    # The gradient of an embedding table holds only the rows that were read.
    sparse = tf.IndexedSlices
    leaves = [tf.convert_to_tensor(v.values if isinstance(v, sparse) else v) for v in leaves]
    floats = (leaf for leaf in leaves if leaf.dtype.is_floating)
    return all(bool(tf.reduce_all(tf.math.is_finite(leaf))) for leaf in floats)
