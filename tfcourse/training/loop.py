"""`fit`, `evaluate` and `predict`: the words of Keras' Model, right on any number of replicas.

`fit` from top to bottom: check what was given (`checks`), go back to the newest checkpoint
(`checkpoints`), then epoch by epoch (`epochs`) many steps in one call of a graph (`inner`); each
step is forward, loss, gradient, update (`steps`), and the same on any number of replicas
(`replicas`, `whole_batch`).
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfcourse.data.in_memory import InMemory
from tfcourse.training.checks import (
    build,
    check_callbacks,
    check_class_weight,
    check_columns,
    check_compiled,
    check_counts,
    check_data,
    check_fit,
    check_scope,
)
from tfcourse.training.epochs import Run, evaluate_pass
from tfcourse.training.inner import Step, inner_loop
from tfcourse.training.labels import judge_labels
from tfcourse.training.restoring import described, signature
from tfcourse.training.rhythm import Rhythm
from tfcourse.training.steps import forward, step_of
from tfcourse.training.xla import choose

Data = tf.data.Dataset | InMemory


def fit(
    model: keras.Model,
    data: Data,
    epochs: int,
    *,
    validation_data: Data | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    step: Step | None = None,
    workdir: str | Path | None = None,
    class_weight: dict[int, float] | None = None,
    steps_per_epoch: int | None = None,
    steps_per_call: int | None = None,
    jit_compile: bool | str = False,
) -> keras.callbacks.History:
    """Train a compiled model, on one replica or on all that its strategy has.

    Loss, metrics, clipping, accumulation, averaging of weights and loss scaling are those that the
    model and its optimizer were compiled with. What is trainable is read at the call.

    Args:
        model: A compiled model; built and compiled in the scope of its strategy, if it has one.
        data: `InMemory`, or batches `(x, y)` or `(x, y, sample_weight)`; a batch is for all
            replicas together.
        epochs: How many epochs the run has, those before a resume included.
        validation_data: What to evaluate on after each epoch; its logs begin with `val_`.
        callbacks: Keras callbacks; they see the events of `Model.fit`.
        step: What one replica does with its share of a batch; returns logs. It is traced: a
            branch on a tensor is `tf.cond`, not `if`. A share may have no rows: `forward` calls a
            model all the same. By default `supervised_step`, or the model's own `train_step` if
            its class has one.
        workdir: Folder for checkpoints (`Checkpointing` says when, default each epoch and each
            minute). A run that has one goes on from there, to the same bits; a finished run
            returns at once.
        class_weight: How much each class counts, by its number.
        steps_per_epoch: Steps of an epoch, if not one pass over the data; the next epoch goes on
            where this one ended.
        steps_per_call: Steps in one call of the graph. By default about a quarter of a second of
            them; one, if a callback wants every batch.
        jit_compile: Whether XLA compiles the steps. "auto": what is faster in a trial of a few
            steps that changes nothing; only for models without convolutions.

    Returns:
        The history of all epochs.

    Raises:
        ValueError: If the model, the data or the checkpoint cannot be trained with; so it is with
            ids in memory that the model has no rows for, and with labels that are all the same,
            where the loss is binary cross-entropy: in memory before training, of a stream when
            the first pass over it ends. What never ends, or is on a TPU, is not judged.
    """
    check_compiled(model)
    replicas = model.distribute_strategy.num_replicas_in_sync
    check_data("data", data, replicas, endless=steps_per_epoch is not None)
    check_counts(epochs=epochs, steps_per_epoch=steps_per_epoch, steps_per_call=steps_per_call)
    if validation_data is not None:
        check_data("validation_data", validation_data, replicas)
    step = step or step_of(model, "train")
    check_fit(model, step, jit_compile)
    check_columns(model, data)
    labels = judge_labels(model, data, step)
    check_callbacks(callbacks)
    class_weight = check_class_weight(class_weight, data)
    build(model, data)
    run = Run(model, callbacks, epochs, steps_per_call)
    if validation_data is not None:
        run.validation = inner_loop(model, validation_data, step_of(model, "test"))

    def loop_over(data, jit_compile):
        return inner_loop(model, data, step, class_weight=class_weight, jit_compile=jit_compile)

    if workdir:
        settings = {"data": signature(data), "steps_per_epoch": steps_per_epoch}
        settings |= {"class_weight": class_weight, "jit_compile": jit_compile}
        settings["step"] = getattr(step, "__qualname__", type(step).__name__)
        run.open(workdir, settings | described(model))
        if progress := run.checkpoints.finished(epochs):
            return run.finished(progress)
    progress = run.newest()
    if progress.jit_compile is None:
        progress.jit_compile = choose(model, data, loop_over, jit_compile)
    run.training = loop_over(data, progress.jit_compile)
    run.training.labels = labels
    run.steps, run.goes_on = steps_per_epoch or run.training.steps, bool(steps_per_epoch)
    with contextlib.ExitStack() as stack:
        stack.callback(run.close)
        for callback in callbacks:
            # `on_train_end` does not come when training raises; a progress bar must still end.
            stack.callback(getattr(callback, "close", lambda: None))
        run.restore(progress)
        run.train(progress)
    return run.history


def evaluate(model: keras.Model, data: Data) -> dict[str, float]:
    """Return the loss and the metrics of a compiled model over all batches of `data`.

    Raises:
        ValueError: If the model is not compiled, or `data` is empty or endless.
    """
    check_compiled(model)
    check_data("data", data, 1)
    build(model, data)
    loop = inner_loop(model, data, step_of(model, "test"))
    return evaluate_pass(loop, keras.callbacks.CallbackList(), Rhythm((), "test", model))


def predict(model: keras.Model, data: Data) -> np.ndarray:
    """Return the model's outputs for all rows of `data`, in order.

    Args:
        model: Any model, compiled or not.
        data: `InMemory` without shuffling, or batches `x`, `(x, y)` or `(x, y, sample_weight)`.

    Returns:
        An array `(rows, ...)`, or arrays in the structure of the model's output.

    Raises:
        ValueError: If `data` is empty or endless, or comes in another order.
    """
    check_scope(model)
    check_data("data", data, 1)
    if isinstance(data, InMemory):
        if data.shuffle:
            raise ValueError("data must keep its order for predictions, got shuffle=True")
        data = data.dataset()

    def step(model, batch):
        return forward(model, keras.utils.unpack_x_y_sample_weight(batch)[0], training=False)

    strategy = model.distribute_strategy

    def join(outputs):
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return strategy.gather(outputs, axis=0)
        return tf.concat(strategy.experimental_local_results(outputs), axis=0)

    loop = inner_loop(model, data, step, combine=join)
    outputs = [keras.tree.map_structure(np.asarray, loop.one(batch)) for batch in loop.data]
    if not outputs:
        raise ValueError("data must have at least one batch, got none")
    return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *outputs)
