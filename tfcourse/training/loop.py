"""`fit`, `evaluate` and `predict`: the words of Keras' Model, right on any number of replicas.

`fit` from top to bottom: check what was given, build what is missing, go back to the newest
checkpoint, then epoch by epoch many steps in one call of a graph (`inner`), events for the
callbacks between calls, and a checkpoint at the end of each epoch.
"""

import contextlib
import signal
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfcourse.data.in_memory import InMemory
from tfcourse.training.checkpoints import Checkpointing, Progress, RunCheckpoints
from tfcourse.training.checks import (
    build,
    check_compiled,
    check_counts,
    check_data,
    check_fit,
    check_scope,
)
from tfcourse.training.inner import Step, inner_loop
from tfcourse.training.memory import recall, remember
from tfcourse.training.restoring import (
    Place,
    all_variables,
    compiled_with,
    signature,
    unknown_variables,
)
from tfcourse.training.rhythm import Rhythm, read
from tfcourse.training.signals import stop_on_sigterm
from tfcourse.training.steps import forward, step_of
from tfcourse.training.strategies import is_chief, sum_over_workers
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
        ValueError: If the model, the data or the checkpoint cannot be trained with.
    """
    check_counts(epochs=epochs, steps_per_epoch=steps_per_epoch, steps_per_call=steps_per_call)
    check_compiled(model)
    replicas = model.distribute_strategy.num_replicas_in_sync
    check_data("data", data, replicas, endless=steps_per_epoch is not None)
    if validation_data is not None:
        check_data("validation_data", validation_data, replicas)
    step = step or step_of(model, "train")
    check_fit(model, step, jit_compile)
    build(model, data)
    history = keras.callbacks.History()
    run = _Run(model, [*callbacks, history], epochs, steps_per_call)
    if validation_data is not None:
        run.validation = inner_loop(model, validation_data, step_of(model, "test"))

    def loop_over(data, jit_compile):
        return inner_loop(model, data, step, class_weight=class_weight, jit_compile=jit_compile)

    if workdir:
        settings = {"data": signature(data), "steps_per_epoch": steps_per_epoch}
        settings |= {"class_weight": class_weight, "jit_compile": jit_compile}
        run.open(workdir, settings | compiled_with(model))
        if progress := run.checkpoints.finished(epochs):
            return run.finished(progress)
    progress = run.newest()
    if progress.jit_compile is None:
        progress.jit_compile = choose(model, data, loop_over, jit_compile)
    run.training = loop_over(data, progress.jit_compile)
    run.steps, run.goes_on = steps_per_epoch or run.training.steps, bool(steps_per_epoch)
    with contextlib.ExitStack() as stack:
        stack.callback(run.close)
        for callback in callbacks:
            # `on_train_end` does not come when training raises; a progress bar must still end.
            stack.callback(getattr(callback, "close", lambda: None))
        run.restore(progress)
        run.train(progress)
    return history


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


class _Run:
    """A call of `fit`: the loops over the data, and the epochs that are left."""

    validation = checkpoints = place = None

    def __init__(self, model, callbacks, epochs, steps_per_call):
        self.model, self.callbacks, self.epochs = model, callbacks, epochs
        self.rhythm = Rhythm(callbacks, "train", model, steps_per_call)
        self.test_rhythm = Rhythm(callbacks, "test", model, steps_per_call)

    def open(self, workdir: str | Path, settings: dict[str, object]) -> None:
        """Open the folder of checkpoints."""
        kinds = [c for c in self.callbacks if isinstance(c, Checkpointing)]
        self.when = kinds[0] if kinds else Checkpointing()
        strategy = self.model.distribute_strategy
        sum_over_workers(strategy, 0.0)  # the chief may have been removing an old run
        chief = is_chief(strategy)
        variables = all_variables(self.model)
        self.checkpoints = RunCheckpoints(
            variables, workdir, settings, keep=self.when.keep, is_chief=chief
        )

    def finished(self, progress: Progress) -> keras.callbacks.History:
        """Return the history of a run that has come to its end, and put back what it ended with."""
        self.checkpoints.restore(progress)
        history = self.callbacks[-1]
        history.history, history.epoch = progress.history, list(range(progress.epochs))
        history.set_model(self.model)
        self.model.history = history
        return history

    def newest(self) -> Progress:
        """Return how far the run has come."""
        return (self.checkpoints and self.checkpoints.newest()) or Progress()

    def restore(self, progress: Progress) -> None:
        """Put back weights and the place in the data, if there is a checkpoint."""
        loop = self.training
        loop.begin(progress.epochs * (self.steps or 0) + progress.steps)
        if self.checkpoints is None:
            return
        self.place = Place(loop)
        if not self.model.run_eagerly:
            self.checkpoints.extras = unknown_variables(loop.graph(), self.checkpoints.variables)
        if progress.epochs or progress.steps:
            self.checkpoints.restore(progress, self.place)

    def close(self) -> None:
        """Let go of the data."""
        if self.place:
            self.place.close()

    def train(self, progress: Progress) -> None:
        """Run the epochs that are left."""
        model, history = self.model, self.callbacks[-1]
        chief = is_chief(model.distribute_strategy)
        heard = [c for c in self.callbacks if chief or not getattr(c, "chief_only", False)]
        events = keras.callbacks.CallbackList(
            heard, model=model, epochs=self.epochs, steps=self.steps
        )
        history.history = progress.history
        model.stop_training = progress.stopped
        logs = {}
        events.on_train_begin()
        recall(self.callbacks, progress.callbacks)
        history.epoch = list(range(progress.epochs))
        with stop_on_sigterm(model.distribute_strategy) as self.is_stopped:
            while progress.epochs < self.epochs and not model.stop_training:
                logs = self.epoch(progress, events)
                progress.epochs, progress.steps = progress.epochs + 1, 0
                progress.stopped = model.stop_training
                self.save(progress)
                self.leave_if_told()
        if model.optimizer is not None:
            model.optimizer.finalize_variable_values(model.trainable_variables)
        events.on_train_end(logs)
        progress.finished = True
        self.save(progress)

    def epoch(self, progress: Progress, events: keras.callbacks.CallbackList) -> dict[str, float]:
        """Run one epoch, or what is left of it, and the validation after it."""
        events.on_epoch_begin(progress.epochs)
        logs = self.steps_of(progress, events)
        if self.validation:
            validation = evaluate_pass(self.validation, events, self.test_rhythm)
            logs |= {f"val_{name}": value for name, value in validation.items()}
        events.on_epoch_end(progress.epochs, logs)
        return logs

    def steps_of(self, progress: Progress, events: keras.callbacks.CallbackList):
        """Run the training steps of an epoch; return what they logged."""
        loop, logs, began = self.training, None, -1
        if progress.steps == 0:
            self.model.reset_metrics()
            if progress.epochs and not self.goes_on:
                self.begin()
        while progress.steps != self.steps and not self.model.stop_training:
            events.on_train_batch_begin(progress.steps)
            done, logs_of_call = self.rhythm.run(loop, self.next_stop(progress.steps))
            if done == 0:
                if not self.goes_on or began == loop.position:  # the end, or nothing at all
                    break
                began = loop.position
                self.begin()
                continue
            progress.steps, logs = progress.steps + done, logs_of_call
            events.on_train_batch_end(progress.steps - 1, self.rhythm.read(logs))
            if self.is_due(progress.steps):
                self.save(progress)
                self.leave_if_told()
        if logs is None and not progress.steps:
            raise ValueError("data must have at least one batch, got none")
        return read(self.model, logs or {})

    def begin(self) -> None:
        """Begin another pass over the data."""
        self.training.begin(self.training.position)
        if self.checkpoints:
            self.place.begin()

    def next_stop(self, steps: int) -> int | None:
        """Return how many steps are left until the epoch or a checkpoint asks for a pause."""
        left = [] if self.steps is None else [self.steps - steps]
        if self.checkpoints and self.when.every_steps:
            left.append(self.when.every_steps - steps % self.when.every_steps)
        return min(left, default=None)

    def is_due(self, steps: int) -> bool:
        """Tell whether to write a checkpoint in the middle of an epoch."""
        if not self.checkpoints or not self.place.can_be_kept or steps == self.steps:
            return False
        when, seconds = self.when, self.checkpoints.seconds_since_save()
        by_steps = when.every_steps is not None and steps % when.every_steps == 0
        by_time = when.every_seconds is not None and seconds >= when.every_seconds
        return by_steps or (by_time and not self.rhythm.many_workers) or self.is_stopped()

    def save(self, progress: Progress) -> None:
        """Write a checkpoint, if the run has a folder."""
        if self.checkpoints:
            progress.callbacks = remember(self.callbacks)
            self.checkpoints.save(progress, self.place)

    def leave_if_told(self) -> None:
        """End the process after SIGTERM: what is worth keeping has been written."""
        if self.is_stopped():
            print("stopped by SIGTERM; the same command continues", flush=True)
            raise SystemExit(128 + signal.SIGTERM)


def evaluate_pass(loop, events: keras.callbacks.CallbackList, rhythm: Rhythm) -> dict[str, float]:
    """Evaluate on all batches of a loop, with the events of a test."""
    loop.model.reset_metrics()
    events.on_test_begin()
    loop.begin(0)
    steps, logs = 0, None
    while steps != loop.steps:
        events.on_test_batch_begin(steps)
        done, logs_of_call = rhythm.run(loop, loop.steps and loop.steps - steps)
        if done == 0:
            break
        steps, logs = steps + done, logs_of_call
        events.on_test_batch_end(steps - 1, rhythm.read(logs))
    if logs is None:
        raise ValueError("data must have at least one batch, got none")
    logs = read(loop.model, logs)
    events.on_test_end(logs)
    return logs
