"""What makes N replicas one device: the loss and the gradient of the whole batch.

Each replica holds a copy of the weights and some of the rows of a batch. Four things have to be
common to all of them (all-gather, all-reduce), or else the result depends on their number:

- the loss: every replica sees the predictions for all rows (`gather`), and so computes the loss of
  the whole batch, whatever its formula; its gradient flows back to the replica's own rows alone;
- the gradient: the replicas' shares are added up first, and only then clipped or accumulated
  (`apply_gradients`);
- BatchNorm's mean and variance: over all rows (`whole_batch`);
- dropout: the masks must *differ*, as the rows do (`whole_batch`).
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import keras
import tensorflow as tf

# Methods of Keras' optimizers that are there twice: spread over replicas, and plain.
SPREAD = (
    "_apply_weight_decay",
    "_backend_update_step",
    "_backend_increment_gradient_accumulators",
    "_overwrite_model_variables_with_average_value",
)


def count() -> int:
    """Return the number of replicas of the strategy that runs this step."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def deal(batch):
    """Return this replica's rows of a batch that every replica sees whole.

    Args:
        batch: A structure of tensors `(rows, ...)`.

    Returns:
        The same structure with `ceil(rows / replicas)` rows or fewer; the last may have none.
    """
    replicas = count()
    if replicas == 1:
        return batch
    index = tf.distribute.get_replica_context().replica_id_in_sync_group

    def rows(tensor):
        size = -(-tf.shape(tensor)[0] // replicas)
        share = tensor[index * size : (index + 1) * size]
        whole = tensor.shape[0]
        if whole is not None and whole % replicas == 0:
            share = tf.ensure_shape(share, (whole // replicas, *tensor.shape[1:]))
        return share

    return keras.tree.map_structure(rows, batch)


def gather(values):
    """Return the rows of all replicas, in order; the gradient flows to this replica's rows alone.

    A loss that is written over gathered predictions and targets reads as on one device, and its
    gradients, added up by `apply_gradients`, are those of one device. What does not go through
    here, such as a penalty on weights, counts once for each replica: divide it by their number.

    Args:
        values: A structure of tensors `(rows of this replica, ...)`; `None` stays `None`.

    Returns:
        The structure with tensors `(rows of all replicas, ...)`.
    """
    if count() == 1:
        return values
    return keras.tree.map_structure(lambda x: x if x is None else _gather(x), values)


def _gather(tensor: tf.Tensor) -> tf.Tensor:
    context = tf.distribute.get_replica_context()
    mask = getattr(tensor, "_keras_mask", None)

    @tf.custom_gradient
    def gathered(local):
        rows = tf.shape(local)[0]
        sizes = context.all_gather(rows[None], axis=0)
        first = tf.reduce_sum(sizes[: context.replica_id_in_sync_group])
        return context.all_gather(local, axis=0), lambda upstream: upstream[first : first + rows]

    whole = gathered(tf.identity(tensor))
    whole.set_shape((None, *tensor.shape[1:]))
    if mask is not None:
        whole._keras_mask = _gather(mask)
    return whole


def total(value: tf.Tensor) -> tf.Tensor:
    """Return the sum of a value over the replicas."""
    if count() == 1:
        return value
    return tf.distribute.get_replica_context().all_reduce("SUM", tf.identity(value))


def rows_of(structure) -> tf.Tensor:
    """Return the number of rows of a structure of tensors `(rows, ...)`."""
    return tf.shape(next(x for x in keras.tree.flatten(structure) if x is not None))[0]


def apply_gradients(
    optimizer: keras.optimizers.Optimizer, gradients: Sequence, variables: Sequence[keras.Variable]
) -> None:
    """Add the gradients up over the replicas, then let the optimizer do all that it was made for.

    It clips, accumulates, averages weights and scales losses back on the gradient of the whole
    batch, as on one device; every replica does the same to its copy of the variables.

    Args:
        optimizer: Built on `variables`, in the scope of the strategy.
        gradients: One per variable, for this replica's rows; `None` where there is none.
        variables: Trainable variables.

    Raises:
        ValueError: If no variable has a gradient.
    """
    pairs = [(g, v) for g, v in zip(gradients, variables, strict=True) if g is not None]
    if not pairs:
        raise ValueError("the loss must depend on a trainable variable, no gradient reaches any")
    gradients, variables = [g for g, _ in pairs], [v for _, v in pairs]
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if inner.loss_scale_factor and type(inner).__module__.startswith("keras."):
        gradients = [tf.convert_to_tensor(g) for g in gradients]  # Keras cannot divide rows alone
    if count() > 1:
        gradients = tf.distribute.get_replica_context().all_reduce("SUM", gradients)
    with _alone(optimizer):
        optimizer.apply(gradients, variables)


@contextlib.contextmanager
def _alone(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Let an optimizer see this replica's copies of the variables, and nothing of the others."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    # Keras' TFOptimizer spreads over replicas what its base class has in plain form. A subclass
    # with a way of its own keeps it, and its `super()` finds the plain one.
    spread, plain = (
        next(c for c in type(inner).__mro__ if c.__name__ == name)
        for name in ("TFOptimizer", "BaseOptimizer")
    )
    replacements = [(spread, name, getattr(plain, name)) for name in SPREAD]
    if type(inner).update_step.__module__.startswith("keras."):
        replacements.append((inner, "update_step", _with_one_step_number(inner)))
    if inner is not optimizer:
        scaled = keras.optimizers.LossScaleOptimizer
        replacements.append((scaled, "_tf_apply", scaled._common_apply))
        replacements.append((scaled, "check_finite", _are_finite))
    for variable in {
        id(v): v for v in [*inner._trainable_variables, *optimizer.variables]
    }.values():
        if hasattr(variable._value, "_get"):
            replacements.append((variable, "_value", variable._value._get()))
    with replaced(replacements):
        yield


def _with_one_step_number(optimizer: keras.optimizers.Optimizer) -> Callable:
    """Return `update_step` that reads the number of steps once, not for each variable.

    What follows from it, such as Adam's corrections, is then computed once, too.
    """
    update, number = optimizer.update_step, []

    def update_step(gradient, variable, learning_rate):
        if not number:
            number.append(tf.convert_to_tensor(optimizer._iterations))
        with replaced([(optimizer, "_iterations", number[0])]):
            return update(gradient, variable, learning_rate)

    return update_step


def _are_finite(optimizer: keras.optimizers.Optimizer, gradients: Sequence) -> tf.Tensor:
    """Tell whether all gradients are numbers; Keras' own way makes whole tables of sparse ones."""
    values = [getattr(gradient, "values", gradient) for gradient in gradients]
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(value)) for value in values])


@contextlib.contextmanager
def replaced(replacements: Iterable[tuple[object, str, object]]) -> Iterator[None]:
    """Set attributes, and put back what was there."""
    missing = object()
    kept = []
    try:
        for owner, name, value in replacements:
            kept.append((owner, name, vars(owner).get(name, missing)))
            _set(owner, name, value)
        yield
    finally:
        for owner, name, value in reversed(kept):
            if value is missing:
                _delete(owner, name)
            else:
                _set(owner, name, value)


def _set(owner: object, name: str, value: object) -> None:
    # Past the bookkeeping of Keras' objects, which look at everything that is set on them.
    (type.__setattr__ if isinstance(owner, type) else object.__setattr__)(owner, name, value)


def _delete(owner: object, name: str) -> None:
    (type.__delattr__ if isinstance(owner, type) else object.__delattr__)(owner, name)
