"""The state of a model in training, kept in memory: what a trial changes can be put back."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf


class Snapshot:
    """A copy of all that training changes: weights, seeds, metrics and the optimizer's state.

    TensorFlow copies a variable when it is next written, not when it is read: taking a snapshot
    is cheap, the step after it pays for one more copy of the state.

    Args:
        model: A model with its weights made. Optimizers are found among its attributes; the one
            that it was compiled with gets its slots here, if it has none yet.

    Raises:
        ValueError: If the weights are not made: what a trial makes could not be undone.
    """

    def __init__(self, model: keras.Model):
        if not model.built:
            raise ValueError(f"model must have its weights: call {model.name} on a batch first")
        with_built_optimizer(model)
        self.kept = [(part, part.read_value()) for part in _parts(model)]

    def restore(self) -> None:
        """Put every variable back, on each replica its own value."""
        for part, value in self.kept:
            part.assign(value)

    def finite(self) -> bool:
        """Tell whether no weight and no state of the optimizer is infinite or NaN."""
        floats = [value for _, value in self.kept if value.dtype.is_floating]
        return all(bool(tf.reduce_all(tf.math.is_finite(value))) for value in floats)


@contextlib.contextmanager
def unchanged(model: keras.Model) -> Iterator[None]:
    """Undo on leaving, also by an exception or Ctrl-C, what training did to a model.

    Args:
        model: A model with its weights made.
    """
    names = [name for name in ("history", "stop_training") if hasattr(model, name)]
    attributes = {name: getattr(model, name) for name in names}
    snapshot = Snapshot(model)
    try:
        yield
    finally:
        # Metrics may be new, and then the snapshot does not know them.
        model.reset_metrics()
        snapshot.restore()
        for name, value in attributes.items():
            setattr(model, name, value)


def with_built_optimizer(model: keras.Model) -> None:
    """Make the slots of a compiled model's optimizer, which Keras makes in the first step."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and not optimizer.built and model.trainable_variables:
        with model.distribute_strategy.scope():
            optimizer.build(model.trainable_variables)


def optimizers(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """Return the optimizers among the attributes of a model: a GAN has two."""
    found = [v for v in vars(model).values() if isinstance(v, keras.optimizers.Optimizer)]
    return list({id(optimizer): optimizer for optimizer in found}.values())


def _parts(model: keras.Model) -> list[tf.Variable]:
    """Return the TensorFlow variables of a model and its optimizers, one for each replica."""
    variables = [*model.variables, *model.metrics_variables]
    for optimizer in optimizers(model):
        variables += optimizer.variables
    local = model.distribute_strategy.experimental_local_results
    parts = [part for variable in variables for part in local(variable.value)]
    return list({id(part): part for part in parts}.values())
