"""What one replica does with its share of a batch.

With several replicas, each one runs the step on its own rows, and the optimizer adds up their
gradients (all-reduce). The sum equals the gradient of the whole batch only if every replica's
mean is weighted by its share of the rows: a last batch of 3 rows on two replicas is split 2 to 1.
"""

import keras
import tensorflow as tf

MEANS = ("mean", "sum_over_batch_size")
# What Keras applies to each replica's gradient alone, before they are added up.
INEXACT = ("clipvalue", "clipnorm", "global_clipnorm", "gradient_accumulation_steps")


def supervised_step(model: keras.Model, batch: tuple) -> dict[str, tf.Tensor]:
    """Train on one replica's share of a batch, by the model's compiled loss and optimizer.

    Regularisation losses and sample weights count as in `Model.fit`; an empty share adds nothing.

    Args:
        model: A compiled model whose optimizer is built.
        batch: `(x, y)` or `(x, y, sample_weight)`, the rows of this replica.

    Returns:
        `{"loss": value}`, whose mean over the replicas is the loss of the whole batch.
    """
    weights = model.trainable_variables
    if not weights:
        raise ValueError(f"model must have trainable weights, {model.name} has none")
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    share = _share(x)
    with tf.GradientTape() as tape:
        y_pred = forward(model, x, training=True)
        loss = model.compute_loss(x, y, y_pred, sample_weight, training=True)
        objective = model.optimizer.scale_loss(loss * tf.cast(share, loss.dtype))
    model.optimizer.apply(tape.gradient(objective, weights), weights)
    return _update_metrics(model, loss, share, batch, y_pred)


def evaluate_step(model: keras.Model, batch: tuple) -> dict[str, tf.Tensor]:
    """Update the loss and the metrics with one replica's share of a batch; trains nothing.

    Args:
        model: A compiled model.
        batch: `(x, y)` or `(x, y, sample_weight)`, the rows of this replica.

    Returns:
        `{"loss": value}`, whose mean over the replicas is the loss of the whole batch.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    y_pred = forward(model, x, training=False)
    loss = model.compute_loss(x, y, y_pred, sample_weight, training=False)
    return _update_metrics(model, loss, _share(x), batch, y_pred)


def forward(model: keras.Model, x, training: bool):
    """Run the model on one replica's rows, which may be none.

    Layers such as BatchNorm give NaN for no rows, so an empty share runs as one row of zeros that
    is cut off again.

    Args:
        model: Any model.
        x: A tensor or a structure of tensors, `(rows, ...)`.
        training: Passed to the model.

    Returns:
        The model's output for the rows of `x`.
    """
    if _replicas() == 1 or keras.tree.flatten(x)[0].shape[0] is not None:
        return model(x, training=training)
    rows = _rows(x)

    def pad(tensor):
        shape = tf.concat([[tf.cast(rows == 0, tf.int32)], tf.shape(tensor)[1:]], axis=0)
        return tf.concat([tensor, tf.zeros(shape, tensor.dtype)], axis=0)

    def cut(tensor):
        if getattr(tensor, "_keras_mask", None) is not None:
            raise ValueError("a model with a masked output needs one replica: mask in the loss")
        return tensor[:rows]

    return keras.tree.map_structure(cut, model(keras.tree.map_structure(pad, x), training=training))


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


def check_data(name: str, data: tf.data.Dataset) -> None:
    """Raise ValueError unless `data` is a data set that has batches and ends."""
    if not isinstance(data, tf.data.Dataset):
        raise ValueError(f"{name} must be a tf.data.Dataset, got {type(data).__name__}")
    if data.cardinality() == 0:
        raise ValueError(f"{name} must have at least one batch, got none")
    if data.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(f"{name} must end, got an endless data set: use take(steps)")


def check_exact(model: keras.Model) -> None:
    """Make sure that N replicas will train as one device does.

    Raises:
        ValueError: If the loss or the optimizer asks for what is only right on one replica.
    """
    if model.distribute_strategy.num_replicas_in_sync == 1:
        return
    for loss in keras.tree.flatten(getattr(model, "loss", None)):
        reduction = getattr(loss, "reduction", "sum_over_batch_size")
        if reduction not in MEANS:
            raise ValueError(f"on several replicas reduction must be a mean, got {reduction!r}")
    optimizer = model.optimizer
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    for name in INEXACT:
        if (value := getattr(optimizer, name, None)) is not None:
            raise ValueError(f"on several replicas {name} is not supported, got {value}")


def build(model: keras.Model, data: tf.data.Dataset) -> None:
    """Make the variables that do not exist yet; a graph over several replicas cannot make them.

    Weights follow from the shapes of `data`, metrics from zeros of these shapes: no batch is read.
    """

    def symbol(spec):
        return keras.KerasTensor((None, *spec.shape[1:]), spec.dtype.name)

    def zeros(tensor):
        return tf.zeros([size or 1 for size in (1, *tensor.shape[1:])], tensor.dtype)

    with model.distribute_strategy.scope():
        if getattr(model, "loss", None) is not None:
            specs = keras.utils.unpack_x_y_sample_weight(data.element_spec)
            if specs[1] is None:
                raise ValueError("data must give batches (x, y), got x alone")
            y_pred = keras.tree.map_structure(
                zeros, model(keras.tree.map_structure(symbol, specs[0]))
            )
            x, y, weight = (s if s is None else keras.tree.map_structure(zeros, s) for s in specs)
            model.compute_loss(x, y, y_pred, weight, training=False)
            model.compute_metrics(x, y, y_pred, weight)
            model.reset_metrics()
        _build_optimizer(model)


def _build_optimizer(model: keras.Model) -> None:
    if model.optimizer is None or not model.built:
        return
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    known = {id(v) for v in model.optimizer._trainable_variables}
    new = [v.path for v in model.trainable_variables if id(v) not in known]
    if new:
        raise ValueError(
            f"the model must be compiled again after its trainable variables changed: the "
            f"optimizer does not know {new[0]!r}"
        )


def _update_metrics(model, loss, share, batch, y_pred) -> dict[str, tf.Tensor]:
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    # On N replicas Keras divides a loss by N; undone here, since this one is for reading.
    loss = loss * _replicas()
    for metric in model.metrics:
        if metric.name == "loss":
            metric.update_state(loss, sample_weight=_rows(x))
    model.compute_metrics(x, y, y_pred, sample_weight)
    return {"loss": loss * tf.cast(share, loss.dtype)}


def _share(x) -> tf.Tensor:
    """Return this replica's rows over the mean rows of all replicas: 1 where all have as many."""
    if _replicas() == 1:
        return tf.constant(1.0)
    rows = tf.cast(_rows(x), tf.float32)
    total = tf.distribute.get_replica_context().all_reduce("SUM", rows)
    return rows * _replicas() / total


def _rows(x) -> tf.Tensor:
    return tf.shape(keras.tree.flatten(x)[0])[0]


def _replicas() -> int:
    return tf.distribute.get_strategy().num_replicas_in_sync
