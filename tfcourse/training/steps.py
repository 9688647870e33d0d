"""What one replica does with its share of a batch: forward, loss, gradient, update, metrics.

A step is ordinary Keras and TensorFlow. It is traced once into a graph (`tf.function`): the Python
below runs while the graph is made, and the graph runs for every batch. The tape (`GradientTape`)
records the forward pass, and walks it backwards for the gradient.
"""

import keras
import tensorflow as tf

from tfcourse.training import replicas, whole_batch


def supervised_step(model: keras.Model, batch: tuple) -> dict[str, tf.Tensor]:
    """Train on one replica's share of a batch, by the model's compiled loss and optimizer.

    Args:
        model: A compiled model whose optimizer is built.
        batch: `(x, y)` or `(x, y, sample_weight)`, the rows of this replica; maybe none.

    Returns:
        `{"loss": value}`, the loss of the whole batch.
    """
    x = keras.utils.unpack_x_y_sample_weight(batch)[0]
    weights = model.trainable_variables
    if not weights:
        raise ValueError(f"model must have trainable weights, {model.name} has none")
    with tf.GradientTape() as tape:
        y_pred = forward(model, x, training=True)
        objective, loss = whole_loss(model, batch, y_pred, training=True)
        objective = model.optimizer.scale_loss(objective)
    gradients = tape.gradient(objective, weights)
    replicas.apply_gradients(model.optimizer, gradients, weights)
    return update_metrics(model, loss, batch, y_pred)


def evaluate_step(model: keras.Model, batch: tuple) -> dict[str, tf.Tensor]:
    """Update the loss and the metrics with one replica's share of a batch; trains nothing.

    Args:
        model: A compiled model.
        batch: `(x, y)` or `(x, y, sample_weight)`, the rows of this replica; maybe none.

    Returns:
        `{"loss": value}`, the loss of the whole batch.
    """
    y_pred = forward(model, keras.utils.unpack_x_y_sample_weight(batch)[0], training=False)
    _, loss = whole_loss(model, batch, y_pred, training=False)
    return update_metrics(model, loss, batch, y_pred)


def own_step(model: keras.Model, batch: tuple) -> dict[str, tf.Tensor]:
    """Run the model's own `train_step`; on several replicas it is as right as it was written."""
    return {name: value for name, value in model.train_step(batch).items() if value is not None}


def own_test_step(model: keras.Model, batch: tuple) -> dict[str, tf.Tensor]:
    """Run the model's own `test_step`."""
    return {name: value for name, value in model.test_step(batch).items() if value is not None}


def step_of(model: keras.Model, kind: str):
    """Return the step of a model: its own `train_step` or `test_step`, if its class has one."""
    if kind == "train":
        own = type(model).train_step is not keras.Model.train_step
        return own_step if own else supervised_step
    own = type(model).test_step is not keras.Model.test_step
    return own_test_step if own else evaluate_step


def forward(model: keras.Model, x, training: bool):
    """Run the model on one replica's rows, which may be none.

    Layers give errors or NaN for no rows, so a replica without any runs a row of another, which is
    cut off again and which BatchNorm leaves out.

    Args:
        model: Any model.
        x: A tensor or a structure of tensors, `(rows, ...)`; of a dict, a model takes the columns
            that it has inputs for.
        training: Passed to the model.

    Returns:
        The model's output for the rows of `x`.
    """
    own = getattr(model, "_inputs_struct", None)
    if isinstance(own, dict) and isinstance(x, dict) and own.keys() <= x.keys():
        # With one column too many, Keras gives columns to inputs by the order of their names.
        x = {name: x[name] for name in own}
    arguments = {"training": training} if model._call_has_training_arg else {}
    if replicas.count() == 1 or keras.tree.flatten(x)[0].shape[0] is not None:
        return whole_batch.call_model(model, x, **arguments)
    rows = replicas.rows_of(x)

    def cut(tensor):
        share = tensor[:rows]
        if (mask := getattr(tensor, "_keras_mask", None)) is not None:
            share._keras_mask = mask[:rows]
        return share

    y_pred = whole_batch.call_model(model, whole_batch.at_least_one(x), **arguments)
    return keras.tree.map_structure(cut, y_pred)


def whole_loss(model: keras.Model, batch: tuple, y_pred, *, training: bool):
    """Compute the compiled loss of the whole batch, as its own `reduction` says.

    Args:
        model: A compiled model that has just made `y_pred`.
        batch: `(x, y)` or `(x, y, sample_weight)`, the rows of this replica.
        y_pred: The model's output.
        training: Whether the model is being trained.

    Returns:
        The objective, whose gradients add up over the replicas to that of the loss; and the loss.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    mine = (x, y, y_pred, sample_weight)
    if replicas.count() == 1:
        loss = model._compute_loss(*mine, training=training)
        # A vector, if the loss has no reduction: Keras differentiates its sum and logs its mean.
        return tf.reduce_sum(loss), tf.reduce_mean(loss)
    own_formula = type(model).compute_loss is not keras.Model.compute_loss
    everybody = (replicas.gather(x) if own_formula else x, *map(replicas.gather, mine[1:]))
    loss = tf.constant(0.0)
    if own_formula or model.loss is not None:
        loss = model._compute_loss(*everybody, training=training)
        loss -= sum(tf.cast(tf.reduce_sum(p), loss.dtype) for p in model.losses)
    share = replicas.rows_of(x) / replicas.total(replicas.rows_of(x))
    penalty = tf.cast(whole_batch.penalty(model, tf.cast(share, tf.float32)), loss.dtype)
    return tf.reduce_sum(loss) + penalty, tf.reduce_mean(loss) + replicas.total(penalty)


def update_metrics(model, loss, batch, y_pred) -> dict[str, tf.Tensor]:
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    for metric in model.metrics:
        if metric.name == "loss":
            metric.update_state(loss, sample_weight=replicas.rows_of(x))
    model.compute_metrics(x, y, y_pred, sample_weight)
    return {"loss": loss}
