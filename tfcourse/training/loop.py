"""`fit`, `evaluate` and `predict`: the words of Keras' Model, over any strategy.

An epoch deals each batch out to the replicas. The step that they run is traced once into a graph
(`tf.function`), which is then called for every batch.
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfcourse.training.checkpoints import Progress, RunCheckpoints
from tfcourse.training.steps import (
    build,
    check_compiled,
    check_data,
    check_exact,
    check_scope,
    evaluate_step,
    forward,
    supervised_step,
)

Step = Callable[[keras.Model, tuple], dict[str, tf.Tensor]]
BATCH_END = {
    "train": ("on_batch_end", "on_train_batch_end"),
    "test": ("on_test_batch_end",),
}


def fit(
    model: keras.Model,
    data: tf.data.Dataset,
    epochs: int,
    *,
    validation_data: tf.data.Dataset | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    step: Step = supervised_step,
    workdir: str | Path | None = None,
) -> keras.callbacks.History:
    """Train a compiled model, on one replica or on all that its strategy has.

    What is trainable is read at the call. XLA and `steps_per_execution` of `compile` are not used.

    Args:
        model: A compiled model; built and compiled in the scope of its strategy, if it has one.
        data: Batches `(x, y)` or `(x, y, sample_weight)`; the batch size is that of all replicas.
        epochs: How many times to run over `data`, those before a resume included.
        validation_data: Batches to evaluate after each epoch; its logs begin with `val_`.
        callbacks: Keras callbacks; they see the events of `Model.fit`.
        step: What one replica does with its share of a batch; returns logs. It is traced: a
            branch on a tensor is `tf.cond`, not `if`.
        workdir: Folder for a checkpoint after each epoch. A run that has one goes on from there;
            a finished run returns at once.

    Returns:
        The history of all epochs.

    Raises:
        ValueError: If the model, the data or the checkpoint cannot be trained with.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    check_compiled(model)
    check_exact(model)
    for name, batches in (("data", data), ("validation_data", validation_data)):
        if batches is not None or name == "data":
            check_data(name, batches)
    build(model, data)
    checkpoints = RunCheckpoints(model, workdir) if workdir else None
    progress = checkpoints.restore(epochs) if checkpoints else Progress()
    history = keras.callbacks.History()
    history.history = progress.history
    if progress.finished:
        model.history = history
        history.set_model(model)
        history.epoch = list(range(progress.epochs))
        return history
    run = _Run(model, data, validation_data, step, [*callbacks, history])
    with contextlib.ExitStack() as stack:
        for callback in callbacks:
            # `on_train_end` does not come when training raises; a progress bar must still end.
            stack.callback(getattr(callback, "close", lambda: None))
        run.train(epochs, progress, checkpoints)
    return history


def evaluate(model: keras.Model, data: tf.data.Dataset) -> dict[str, float]:
    """Return the loss and the metrics of a compiled model over all batches of `data`.

    Raises:
        ValueError: If the model is not compiled, or `data` is empty or endless.
    """
    check_compiled(model)
    check_data("data", data)
    build(model, data)
    return _Pass(model, data, evaluate_step, "test").run(keras.callbacks.CallbackList())


def predict(model: keras.Model, data: tf.data.Dataset) -> np.ndarray:
    """Return the model's outputs for all rows of `data`, in order.

    Args:
        model: Any model, compiled or not.
        data: Batches `x`, `(x, y)` or `(x, y, sample_weight)`.

    Returns:
        An array `(rows, ...)`, or arrays in the structure of the model's output.

    Raises:
        ValueError: If `data` is empty or endless.
    """
    check_scope(model)
    check_data("data", data)

    def step(model, batch):
        return forward(model, keras.utils.unpack_x_y_sample_weight(batch)[0], training=False)

    def join(strategy, outputs):
        return tf.concat(strategy.experimental_local_results(outputs), axis=0)

    batches, function = _replicate(model, data, step, join)
    outputs = [keras.tree.map_structure(np.asarray, function(batch)) for batch in batches]
    if not outputs:
        raise ValueError("data must have at least one batch, got none")
    return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *outputs)


class _Run:
    """A call of `fit`: its graphs, and the epochs that are left."""

    def __init__(self, model, data, validation_data, step, callbacks):
        self.model, self.callbacks = model, callbacks
        self.training = _Pass(model, data, step, "train", callbacks)
        self.validation = validation_data and _Pass(
            model, validation_data, evaluate_step, "test", callbacks
        )
        steps = int(data.cardinality())
        self.steps = steps if steps >= 0 else None

    def train(self, epochs: int, progress: Progress, checkpoints: RunCheckpoints | None) -> None:
        model, history = self.model, self.callbacks[-1]
        events = keras.callbacks.CallbackList(
            self.callbacks, model=model, epochs=epochs, steps=self.steps
        )
        save = checkpoints.save if checkpoints else lambda progress: None
        model.stop_training = progress.stopped
        logs = {}
        events.on_train_begin()
        history.epoch = list(range(progress.epochs))
        while progress.epochs < epochs and not model.stop_training:
            logs = self.epoch(progress.epochs, events)
            progress = Progress(progress.epochs + 1, history.history, model.stop_training)
            save(progress)
        if model.optimizer is not None:
            model.optimizer.finalize_variable_values(model.trainable_variables)
        events.on_train_end(logs)
        save(Progress(progress.epochs, history.history, model.stop_training, finished=True))

    def epoch(self, index: int, events: keras.callbacks.CallbackList) -> dict[str, float]:
        events.on_epoch_begin(index)
        logs = self.training.run(events)
        if self.validation:
            validation = self.validation.run(events)
            logs |= {f"val_{name}": value for name, value in validation.items()}
        events.on_epoch_end(index, logs)
        return logs


class _Pass:
    """One run over all batches, to train or to test."""

    def __init__(self, model, data, step, kind: str, callbacks: Iterable = ()):
        def mean(strategy, value):
            return strategy.reduce("MEAN", value, axis=None)

        self.model, self.kind = model, kind
        self.batches, self.function = _replicate(model, data, step, mean)
        self.reads_batches = any(_reads_batches(callback, kind) for callback in callbacks)

    def run(self, events: keras.callbacks.CallbackList) -> dict[str, float]:
        begin = getattr(events, f"on_{self.kind}_batch_begin")
        end = getattr(events, f"on_{self.kind}_batch_end")
        logs = None
        self.model.reset_metrics()
        if self.kind == "test":
            events.on_test_begin()
        for index, batch in enumerate(self.batches):
            begin(index)
            logs = self.function(batch)
            # Reading makes the device wait, so it is only done for callbacks that look.
            end(index, self.read(logs) if self.reads_batches else None)
            if self.kind == "train" and self.model.stop_training:
                break
        if logs is None:
            raise ValueError("data must have at least one batch, got none")
        logs = self.read(logs)
        if self.kind == "test":
            events.on_test_end(logs)
        return logs

    def read(self, logs: dict[str, tf.Tensor]) -> dict[str, float]:
        """Return the last step's logs, overridden by the model's metrics of the whole epoch."""
        results = logs | self.model.get_metrics_result()
        return {name: float(value) for name, value in results.items()}


def _replicate(model: keras.Model, data: tf.data.Dataset, step: Callable, combine: Callable):
    """Return the batches, and a graph that deals one out to the replicas and runs `step` on all."""
    strategy = model.distribute_strategy
    on_host = _on_host(strategy)
    batches = data if on_host else strategy.experimental_distribute_dataset(data)

    def run(batch):
        def on_replica(batch):
            return step(model, _share_of(batch) if on_host else batch)

        outputs = strategy.run(on_replica, args=(batch,))
        return keras.tree.map_structure(lambda value: combine(strategy, value), outputs)

    if model.run_eagerly:
        return batches, run
    # Traced once, for any number of rows: a smaller last batch needs no second graph. Without
    # AutoGraph an error in the step is its own message, not a listing.
    graph = tf.function(run, autograph=False)
    return batches, graph.get_concrete_function(batches.element_spec)


def _on_host(strategy: tf.distribute.Strategy) -> bool:
    """Tell whether all replicas can read a batch where the data set leaves it."""
    if isinstance(strategy, tf.distribute.MirroredStrategy):
        return all("CPU" in device for device in strategy.extended.worker_devices)
    elsewhere = (tf.distribute.MultiWorkerMirroredStrategy, tf.distribute.TPUStrategy)
    return not isinstance(strategy, elsewhere)


def _share_of(batch):
    """Return this replica's rows of a batch that lies in the memory of all replicas.

    TensorFlow's own way, an iterator for each device, waits when it ends for a thread that sleeps
    20 s, 40 s, ... after long epochs.
    """
    context = tf.distribute.get_replica_context()
    replicas = context.num_replicas_in_sync
    if replicas == 1:
        return batch

    def rows(x):
        size = -(-tf.shape(x)[0] // replicas)
        first = context.replica_id_in_sync_group * size
        return x[first : first + size]

    return keras.tree.map_structure(rows, batch)


def _reads_batches(callback: keras.callbacks.Callback, kind: str) -> bool:
    """Tell whether a callback has a batch event, and no `reads_batches = False`."""
    own = [getattr(callback, name) for name in BATCH_END[kind]]
    default = [getattr(keras.callbacks.Callback, name) for name in BATCH_END[kind]]
    overrides = [getattr(method, "__func__", method) for method in own] != default
    return overrides and getattr(callback, "reads_batches", True)
