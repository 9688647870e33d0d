"""What is wrong with a model or its data, said in one line before anything is trained."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfcourse.data.in_memory import InMemory
from tfcourse.training.steps import supervised_step


def check_compiled(model: keras.Model) -> None:
    """Raise ValueError unless the model is compiled, in the scope of its strategy."""
    if not model.compiled:
        raise ValueError(f"model must be compiled before training, {model.name} is not")
    check_scope(model)


def check_scope(model: keras.Model) -> None:
    """Raise ValueError if a variable was made outside the scope of the model's strategy."""
    in_scope = model.distribute_strategy.extended.variable_created_in_scope
    optimizer = getattr(model, "optimizer", None)
    for variable in [*model.variables, *(optimizer.variables if optimizer else [])]:
        if not in_scope(variable.value):
            raise ValueError(
                f"model must be built and compiled in its strategy's scope, {variable.path} was not"
            )


def check_data(
    name: str, data: tf.data.Dataset | InMemory, replicas: int, *, endless: bool = False
) -> None:
    """Raise ValueError unless `data` has batches, enough rows for all replicas, and ends."""
    if not isinstance(data, tf.data.Dataset | InMemory):
        raise ValueError(f"{name} must be a tf.data.Dataset or InMemory, got {type(data).__name__}")
    if isinstance(data, tf.data.Dataset):
        if data.cardinality() == 0:
            raise ValueError(f"{name} must have at least one batch, got none")
        if data.cardinality() == tf.data.INFINITE_CARDINALITY and not endless:
            raise ValueError(f"{name} must end, got an endless data set: say steps_per_epoch")
    if any(spec.shape.rank in (None, 0) for spec in keras.tree.flatten(data.element_spec)):
        raise ValueError(f"{name} must give batches of known rank, got {data.element_spec}")
    size = data.batch_size if isinstance(data, InMemory) else _batch_size(data)
    if size is not None and size < replicas:
        raise ValueError(
            f"batch size must be at least the number of replicas, {replicas}, got {size}"
        )


def check_columns(model: keras.Model, data: tf.data.Dataset | InMemory) -> None:
    """Let layers that look up ids refuse arrays of those inputs that they read as they are."""
    inputs = getattr(model, "_inputs_struct", None)
    arrays = data.arrays[0] if isinstance(data, InMemory) else None
    if not isinstance(inputs, dict) or not isinstance(arrays, Mapping):
        return
    arrays = {name: arrays[name] for name in inputs if name in arrays}
    for layer in model.layers:
        if callable(check := getattr(layer, "check_arrays", None)):
            check(inputs, arrays)


def _batch_size(data: tf.data.Dataset) -> int | None:
    """Return the batch size that a pipeline was made with, where it can be found out."""
    while data is not None:
        if (size := getattr(data, "_batch_size", None)) is not None:
            return int(tf.get_static_value(size))
        data = getattr(data, "_input_dataset", None)
    return None


def check_counts(**counts: int | None) -> None:
    """Raise ValueError if one of these, where given, is no whole number of at least 1."""
    for name, count in counts.items():
        whole = isinstance(count, int | np.integer) and not isinstance(count, bool)
        if count is not None and (not whole or count < 1):
            raise ValueError(f"{name} must be at least 1, got {count!r}")


def check_fit(model: keras.Model, step, jit_compile: bool | str) -> None:
    """Raise ValueError for what cannot be trained with this strategy, or with XLA."""
    if jit_compile not in (True, False, "auto"):
        raise ValueError(f"jit_compile must be True, False or 'auto', got {jit_compile!r}")
    replicas = model.distribute_strategy.num_replicas_in_sync
    layers = list(model._flatten_layers())
    if replicas > 1 and jit_compile is True:
        norms = [x.name for x in layers if isinstance(x, keras.layers.BatchNormalization)]
        if norms:
            raise ValueError(
                "jit_compile must be False for BatchNormalization on several replicas, "
                f"which is in layer {norms[0]!r}"
            )
        # Their loops keep lists of tensors, which XLA hands to nobody.
        loops = [x.name for x in layers if isinstance(x, keras.layers.RNN)]
        if loops:
            raise ValueError(
                "jit_compile must be False for recurrent layers on several replicas, "
                f"such as {loops[0]!r}"
            )
    own_loss = type(model).compute_loss is not keras.Model.compute_loss
    if replicas > 1 and own_loss and model.losses:
        raise ValueError(
            "a model with a compute_loss of its own must have no penalties on several replicas, "
            f"{model.name} has {len(model.losses)}"
        )
    if model.optimizer is None and step is supervised_step:
        raise ValueError(f"model must be compiled with an optimizer, {model.name} is not")


def check_callbacks(callbacks: Sequence[keras.callbacks.Callback]) -> None:
    """Raise ValueError for a callback that cannot work here."""
    if not isinstance(callbacks, Sequence):
        raise ValueError(f"callbacks must be a list, got {type(callbacks).__name__}")
    if any(isinstance(c, keras.callbacks.BackupAndRestore) for c in callbacks):
        raise ValueError("callbacks must not have BackupAndRestore: workdir= resumes, to the bit")


def check_class_weight(weights, data: tf.data.Dataset | InMemory) -> dict[int, float] | None:
    """Return the weights of classes by plain numbers.

    Raises:
        ValueError: If there is none, a class is no number, or the targets have no single class.
    """
    if weights is None:
        return None
    whole = isinstance(weights, Mapping) and all(
        isinstance(c, int | np.integer) and c >= 0 for c in weights
    )
    if not whole or not weights:
        raise ValueError(f"class_weight must be a weight for each class number, got {weights!r}")
    y = keras.utils.unpack_x_y_sample_weight(data.element_spec)[1]
    if not isinstance(y, tf.TensorSpec) or y.shape.rank not in (1, 2):
        raise ValueError("class_weight must go with one class for each example, got other targets")
    return {int(c): float(weight) for c, weight in weights.items()}


def check_targets(model: keras.Model, y, y_pred) -> None:
    """Raise ValueError if the loss cannot compare targets of this shape with the predictions."""
    targets, outputs = keras.tree.flatten(y), keras.tree.flatten(y_pred)
    losses = keras.tree.flatten(model.loss)
    if not len(targets) == len(outputs) == len(losses):
        return
    for loss, target, output in zip(losses, targets, outputs, strict=True):
        sparse = "sparse" in (loss if isinstance(loss, str) else type(loss).__name__.lower())
        expected = output.shape[:-1] if sparse else output.shape
        plain = isinstance(loss, str) or type(loss).__module__.startswith("keras.")
        if plain and _without_last_one(expected) != _without_last_one(target.shape):
            name = loss if isinstance(loss, str) else loss.name
            raise ValueError(
                f"targets must have the shape {_open(expected)} for the loss {name!r} and outputs "
                f"of {_open(output.shape)}, got {_open(target.shape)}"
            )


def _without_last_one(shape) -> list[int | None]:
    """Return a shape without the rows, and without a last axis of 1, which Keras adds or drops."""
    shape = list(shape)[1:]
    return shape[:-1] if shape[-1:] == [1] else shape


def _open(shape) -> tuple[int | None, ...]:
    return (None, *shape[1:])


def build(model: keras.Model, data: tf.data.Dataset | InMemory) -> None:
    """Make the variables that do not exist yet; a graph over several replicas cannot make them.

    Weights follow from the shapes of `data`, metrics from zeros of these shapes: no batch is read.
    """

    def symbol(spec):
        return keras.KerasTensor((None, *spec.shape[1:]), spec.dtype.name)

    def zeros(tensor):
        return tf.zeros([size or 1 for size in (1, *tensor.shape[1:])], tensor.dtype)

    with model.distribute_strategy.scope():
        has_metrics = model.built and getattr(model, "_compile_metrics", None) is not None
        if getattr(model, "loss", None) is not None or has_metrics:
            specs = keras.utils.unpack_x_y_sample_weight(data.element_spec)
            if specs[1] is None:
                raise ValueError("data must give batches (x, y), got x alone")
            symbols = keras.tree.map_structure(symbol, specs[0])
            y_pred = keras.tree.map_structure(zeros, model(symbols))
            x, y, weight = (s if s is None else keras.tree.map_structure(zeros, s) for s in specs)
            if model.loss is not None:
                check_targets(model, y, y_pred)
                model._compute_loss(x, y, y_pred, weight, training=False)
            model.compute_metrics(x, y, y_pred, weight)
            model.reset_metrics()
        _build_optimizer(model)


def _build_optimizer(model: keras.Model) -> None:
    if model.optimizer is None or not model.built:
        return
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    known = {id(v) for v in inner._trainable_variables}
    new = [v.path for v in model.trainable_variables if id(v) not in known]
    if new:
        raise ValueError(
            f"the model must be compiled again after its trainable variables changed: the "
            f"optimizer does not know {new[0]!r}"
        )
