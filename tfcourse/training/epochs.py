"""The epochs of a run: steps, events for the callbacks between them, validation, checkpoints."""

import signal
from collections.abc import Callable
from pathlib import Path

import keras

from tfcourse.training.checkpoints import Checkpointing, Progress, RunCheckpoints
from tfcourse.training.memory import recall, remember
from tfcourse.training.restoring import Place, all_variables, unknown_variables
from tfcourse.training.rhythm import Rhythm, read
from tfcourse.training.signals import stop_on_sigterm
from tfcourse.training.strategies import is_chief, sum_over_workers


class Run:
    """A call of `fit`: the loops over the data, the callbacks, and the epochs that are left.

    Attributes:
        training: The loop over the training data.
        validation: That over the validation data, or `None`.
        steps: Steps of an epoch; `None` if only the end of the data will tell.
        goes_on: Whether an epoch goes on in the data where the one before it ended.
    """

    training = validation = checkpoints = place = steps = None
    goes_on = False

    def __init__(self, model, callbacks, epochs, steps_per_call):
        self.history = keras.callbacks.History()
        self.model, self.epochs = model, epochs
        self.callbacks = [*callbacks, self.history]
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
        if progress.epochs != self.epochs:
            print(f"this run is finished: it ended after {progress.epochs} epochs", flush=True)
        history = self.history
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
            loop.labels = None  # they differed (`labels` says when that is not sure)

    def close(self) -> None:
        """Let go of the data."""
        if self.place:
            self.place.close()

    def train(self, progress: Progress) -> None:
        """Run the epochs that are left."""
        model, history = self.model, self.history
        chief = is_chief(model.distribute_strategy)
        heard = [c for c in self.callbacks if chief or not getattr(c, "chief_only", False)]
        events = keras.callbacks.CallbackList(
            heard, model=model, verbose=0, epochs=self.epochs, steps=self.steps
        )
        history.history = progress.history
        model.stop_training = progress.stopped
        logs = {}
        events.on_train_begin()
        recall(self.callbacks, progress.callbacks)
        history.epoch = list(range(progress.epochs))
        with stop_on_sigterm(self.checkpoints, model.distribute_strategy) as self.is_stopped:
            while progress.epochs < self.epochs and not model.stop_training:
                logs = self.epoch(progress, events)
                progress.epochs, progress.steps = progress.epochs + 1, 0
                progress.stopped = model.stop_training
                self.save(progress)
                self.leave_if(self.is_stopped())
        if model.optimizer is not None:
            model.optimizer.finalize_variable_values(model.trainable_variables)
        events.on_train_end(logs)
        progress.finished = True
        self.save(progress)

    def epoch(self, progress: Progress, events: keras.callbacks.CallbackList) -> dict[str, float]:
        """Run one epoch, or what is left of it, and the validation after it."""
        events.on_epoch_begin(progress.epochs)
        logs = self.steps_of(progress, events)
        if not self.goes_on and not self.model.stop_training:
            self.end_pass()
        if self.validation:
            metrics = [v for m in self.model.metrics for v in m.variables]
            seen = [v.numpy() for v in metrics] if self.checkpoints else []

            def pause():
                if self.is_stopped():  # validation has its own metrics: those of training return
                    for variable, value in zip(metrics, seen, strict=True):
                        variable.assign(value)
                    self.save(progress)
                    self.leave_if(True)

            validation = evaluate_pass(self.validation, events, self.test_rhythm, pause)
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
                self.end_pass()
                self.begin()
                continue
            progress.steps, logs = progress.steps + done, logs_of_call
            events.on_train_batch_end(progress.steps - 1, self.rhythm.read(logs))
            is_stopped = self.is_stopped()
            if is_stopped or self.is_due(progress.steps):
                self.save(progress)
            self.leave_if(is_stopped)
        if logs is None and not progress.steps:
            raise ValueError("data must have at least one batch, got none")
        return read(self.model, logs or {})

    def end_pass(self) -> None:
        """Judge the labels that a pass over the data had."""
        if self.training.labels:
            self.training.labels.check()

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
        """Tell whether it is time for a checkpoint in the middle of an epoch."""
        if not self.checkpoints or steps == self.steps:
            return False
        when, seconds = self.when, self.checkpoints.seconds_since_save()
        by_steps = when.every_steps is not None and steps % when.every_steps == 0
        by_time = when.every_seconds is not None and seconds >= when.every_seconds
        return by_steps or (by_time and not self.rhythm.many_workers)

    def is_undecided(self) -> bool:
        """Tell whether labels that must differ have all been the same so far, in the first pass."""
        labels = self.training.labels
        return labels is not None and not self.goes_on and not labels.differ()

    def save(self, progress: Progress) -> None:
        """Write a checkpoint, if the run has a folder and could go on from here."""
        if progress.steps and self.is_undecided():
            return
        if self.checkpoints and (self.place.can_be_kept or progress.steps == 0):
            progress.callbacks = remember(self.callbacks)
            self.checkpoints.save(progress, self.place)

    def leave_if(self, is_stopped: bool) -> None:
        """End the process after SIGTERM: what is worth keeping has been written."""
        if is_stopped:
            print("stopped by SIGTERM; the same command continues", flush=True)
            raise SystemExit(128 + signal.SIGTERM)


def evaluate_pass(
    loop,
    events: keras.callbacks.CallbackList,
    rhythm: Rhythm,
    pause: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Evaluate on all batches of a loop, with the events of a test, and a pause between calls."""
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
        pause()
    if logs is None:
        raise ValueError("data must have at least one batch, got none")
    logs = read(loop.model, logs)
    events.on_test_end(logs)
    return logs
