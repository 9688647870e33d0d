"""Keras callbacks that leave the folder of a run: a progress bar, metrics, curves, best weights.

They work in `training.fit` and in `Model.fit`. After a resume they go on from the history that
`fit` restored.
"""

import csv
import math
import time
from pathlib import Path

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tfcourse import plots
from tfcourse.data.cache import atomic_file
from tfcourse.training.strategies import is_chief, sum_over_workers


def standard_callbacks(
    workdir: str | Path, *, monitor: str = "val_accuracy", phase: str = ""
) -> list[keras.callbacks.Callback]:
    """Return the callbacks that every recipe uses.

    Args:
        workdir: The run's folder.
        monitor: The metric that chooses the best weights.
        phase: Name of one of several trainings of a run; its files go to the subfolder `phase`.

    Returns:
        Best weights, `metrics.csv`, `curves.png`, TensorBoard events and the progress bar. The
        best weights are put back before the others end.
    """
    folder = Path(workdir) / phase
    tensorboard = keras.callbacks.TensorBoard(folder / "tensorboard", write_graph=False)
    tensorboard.chief_only = True
    return [
        BestCheckpoint(folder / "best.weights.h5", monitor=monitor),
        MetricsCSV(folder / "metrics.csv"),
        Curves(folder / "curves.png", title=phase),
        tensorboard,
        ProgressBar(phase),
    ]


class ProgressBar(keras.callbacks.Callback):
    """One bar over all epochs in a terminal, one line per epoch anywhere else.

    Args:
        description: Text at the front, such as the name of the phase.
        console: Where to write; standard output by default.
    """

    reads_batches = False
    chief_only = True

    def __init__(self, description: str = "", console: Console | None = None):
        super().__init__()
        self.prefix = f"{description} " if description else ""
        self.console = console or Console()
        self.bar = None

    def on_train_begin(self, logs=None):
        self.steps = self.params.get("steps")
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}", markup=False), BarColumn(20))
            columns += (TextColumn("{task.fields[metrics]}", markup=False), TimeRemainingColumn())
            self.bar = Progress(*columns, console=self.console)
            self.task = self.bar.add_task(f"{self.prefix}epoch", total=self._total(), metrics="")
            self.bar.start()

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.epoch_start, self.batch = epoch, time.monotonic(), 0
        if self.bar:
            text = f"{self.prefix}epoch {epoch + 1}/{self.params['epochs']}"
            done = epoch * (self.steps or 0)
            self.bar.update(self.task, description=text, completed=done, total=self._total())

    def on_train_batch_end(self, batch, logs=None):
        self.batch = batch + 1
        if self.bar:
            done = self.epoch * (self.steps or 0) + self.batch
            self.bar.update(self.task, completed=done, metrics=_line(logs or {}))

    def on_epoch_end(self, epoch, logs=None):
        self.steps = self.steps or self.batch
        if self.bar:
            self.bar.update(self.task, metrics=_line(logs or {}))
            return
        seconds = time.monotonic() - self.epoch_start
        text = f"{self.prefix}epoch {epoch + 1}/{self.params['epochs']}  {_line(logs or {})}"
        self.console.print(
            f"{text}  ({seconds:.1f} s)", markup=False, highlight=False, soft_wrap=True
        )

    def on_train_end(self, logs=None):
        self.close()

    def close(self) -> None:
        """End the bar; `fit` calls this when training raises, too."""
        if self.bar:
            self.bar.stop()
            self.bar = None

    def _total(self) -> int | None:
        return self.steps * self.params["epochs"] if self.steps else None


class _WholeHistory(keras.callbacks.Callback):
    """Keeps the history of all epochs, those before a resume included."""

    chief_only = True

    def on_train_begin(self, logs=None):
        self.history = {name: list(v) for name, v in self.model.history.history.items()}

    def on_epoch_end(self, epoch, logs=None):
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))


class MetricsCSV(_WholeHistory):
    """A table of all epochs, one row each; Keras' CSVLogger repeats rows after a resume.

    Args:
        path: The file, rewritten as a whole after each epoch.
    """

    def __init__(self, path: str | Path):
        super().__init__()
        self.path = Path(path)

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        epochs = max(map(len, self.history.values()), default=0)
        with atomic_file(self.path) as staging, open(staging, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["epoch", *self.history])
            # A metric that came late has blanks in front.
            columns = [[""] * (epochs - len(v)) + v for v in self.history.values()]
            writer.writerows(zip(range(1, epochs + 1), *columns, strict=True))


class Curves(_WholeHistory):
    """A picture of loss and metrics, drawn after each epoch that is worth the time it takes.

    Args:
        path: The PNG file.
        title: Title of the picture.
    """

    SHARE_OF_TIME = 0.1

    def __init__(self, path: str | Path, title: str = ""):
        super().__init__()
        self.path, self.title = Path(path), title
        self.next_drawing = 0.0

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        if time.monotonic() >= self.next_drawing:
            self._draw()

    def on_train_end(self, logs=None):
        self._draw()

    def _draw(self):
        start = time.monotonic()
        plots.learning_curves(self.history, self.path, title=self.title)
        now = time.monotonic()
        self.next_drawing = now + (now - start) / self.SHARE_OF_TIME


class BestCheckpoint(keras.callbacks.Callback):
    """Keeps the weights of the best epoch and puts them back at the end of training.

    Keras' ModelCheckpoint writes in place and forgets the best value when a run is resumed.

    Args:
        path: The file, which ends in `.weights.h5`.
        monitor: The metric to compare; less is better if it has `loss` or `error` in its name.
    """

    def __init__(self, path: str | Path, monitor: str = "val_accuracy"):
        super().__init__()
        if not str(path).endswith(".weights.h5"):
            raise ValueError(f"path must end in .weights.h5, got {path}")
        self.path, self.monitor = Path(path), monitor
        self.sign = -1 if "loss" in monitor or "error" in monitor else 1
        self.best = -math.inf

    def on_train_begin(self, logs=None):
        seen = self.model.history.history.get(self.monitor, []) if self.path.exists() else []
        scores = (self.sign * value for value in seen)
        self.best = max((score for score in scores if not math.isnan(score)), default=-math.inf)

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        if self.monitor not in logs:
            raise ValueError(f"monitor must be one of {', '.join(logs)}, got {self.monitor!r}")
        if (score := self.sign * float(logs[self.monitor])) > self.best:
            if is_chief(self.model.distribute_strategy):
                with atomic_file(self.path) as staging:
                    self.model.save_weights(staging)
            self.best = score

    def on_train_end(self, logs=None):
        if self.best > -math.inf:
            sum_over_workers(self.model.distribute_strategy, 0.0)  # until the chief has written
            self.model.load_weights(self.path)


def _line(logs: dict[str, float]) -> str:
    """Return the metrics as text: training before validation, the loss first."""

    def order(name):
        return name.startswith("val_"), not name.endswith("loss"), name

    return "  ".join(f"{name} {float(logs[name]):.4g}" for name in sorted(logs, key=order))
