"""Checkpoints of a run: everything that decides how it goes on, in a folder that is always whole.

`checkpoints/epoch-0003-step-000020` is the state after three epochs and twenty steps of the next:
weights, optimizer, seeds of dropout, metrics so far, the callbacks' memory, the history, and the
place in the data. `checkpoints/final` is what the run ended with (a callback may have put back the
best weights), which a finished run returns.
"""

import contextlib
import dataclasses
import json
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfcourse.data.cache import atomic_folder, sha256
from tfcourse.training.memory import pack, unpack
from tfcourse.training.restoring import Place

UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, EOFError)


class Checkpointing(keras.callbacks.Callback):
    """How often `fit` writes a checkpoint into its workdir, besides the end of every epoch.

    It only carries settings; give it to `fit` among the callbacks.

    Args:
        every_steps: Steps between two checkpoints in an epoch, or `None`.
        every_seconds: Seconds between two, or `None`. Not with several workers, whose clocks
            differ.
        keep: How many of the newest are kept.
    """

    reads_batches = False

    def __init__(
        self,
        every_steps: int | None = None,
        every_seconds: float | None = 60.0,
        keep: int = 2,
    ):
        super().__init__()
        for name, value in (("every_steps", every_steps), ("keep", keep)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if every_seconds is not None and every_seconds < 0:
            raise ValueError(f"every_seconds must be at least 0, got {every_seconds}")
        self.every_steps, self.every_seconds, self.keep = every_steps, every_seconds, keep


@dataclasses.dataclass
class Progress:
    """How far a run has come.

    Attributes:
        epochs: Epochs done.
        steps: Steps done of the next.
        history: Of the epochs done.
        stopped: Whether a callback ended it early.
        finished: Whether it has come to its end.
        jit_compile: Whether its steps are compiled by XLA.
        callbacks: What the callbacks remember.
    """

    epochs: int = 0
    steps: int = 0
    history: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    stopped: bool = False
    finished: bool = False
    jit_compile: bool | None = None
    callbacks: dict[str, object] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        return "final" if self.finished else f"epoch-{self.epochs:04d}-step-{self.steps:06d}"


class RunCheckpoints:
    """The checkpoints of one run, in `workdir/checkpoints`.

    Args:
        variables: All variables that the run changes.
        workdir: The run's folder.
        settings: What a continued run must have in common with this one, by name.
        keep: How many of the newest are kept.
        is_chief: Whether this process writes; of several workers only one does.
    """

    def __init__(
        self,
        variables: Sequence[keras.Variable],
        workdir: str | Path,
        settings: dict[str, object],
        *,
        keep: int = 2,
        is_chief: bool = True,
    ):
        # Keras numbers layers through a process, and its optimizers spell them out in front.
        names = [getattr(v, "name", "").rpartition("_")[2].split(":")[0] for v in variables]
        pairs = zip(names, variables, strict=True)
        self.signature = [f"{name} {tuple(v.shape)} {v.dtype}" for name, v in pairs]
        self.variables = [v.value if isinstance(v, keras.Variable) else v for v in variables]
        self.settings = json.loads(json.dumps(settings, default=str))
        self.folder, self.keep, self.is_chief = Path(workdir) / "checkpoints", keep, is_chief
        self.folder.mkdir(parents=True, exist_ok=True)
        if is_chief:  # an unwritable folder is said now, not after an epoch
            tempfile.TemporaryFile(dir=self.folder).close()
        self.extras = []  # variables that only the traced step knows of
        self._last_save = time.monotonic()

    def seconds_since_save(self) -> float:
        """Return how long ago the last checkpoint was written, or this run began."""
        return time.monotonic() - self._last_save

    def save(self, progress: Progress, place: Place) -> None:
        """Write the state, whole or not at all, and then remove what it replaces.

        A full disk is said in a line, and training goes on.
        """
        try:
            self._write(progress, place)
        except (OSError, tf.errors.OpError) as error:
            reason = str(error).strip().partition("\n")[0]
            print(f"checkpoint {progress.name} could not be written: {reason}", flush=True)
        self._last_save = time.monotonic()

    def _write(self, progress: Progress, place: Place) -> None:
        with self._target(progress.name) as staging:
            self._checkpoint().write(str(staging / "variables"))
            place.save(staging)
            state = dataclasses.asdict(progress)
            state["callbacks"], arrays = pack(progress.callbacks)
            if arrays:
                np.savez(staging / "callbacks.npz", **arrays)
            state |= {"signature": self.signature, "settings": self.settings}
            state["files"] = _digests(staging)
            (staging / "state.json").write_text(json.dumps(state), encoding="utf-8")
        if not self.is_chief:
            return
        newest = [entry.name for entry in self._newest()[: self.keep]]
        for entry in self.folder.iterdir():
            if entry.name not in newest and entry.name != progress.name:
                shutil.rmtree(entry, ignore_errors=True)

    def _target(self, name: str):
        if self.is_chief:
            return atomic_folder(self.folder / name)
        # Every worker has to take part when variables are read, but one copy is enough.
        return _nowhere()

    def _checkpoint(self) -> tf.train.Checkpoint:
        return tf.train.Checkpoint(variables=self.variables, extras=self.extras)

    def finished(self, epochs: int) -> Progress | None:
        """Return how a run of so many epochs ended, if it has; more than it had: it goes on."""
        with contextlib.suppress(_DamagedError):
            progress = self._read(self.folder / "final", check=False)
            if progress.stopped or progress.epochs >= epochs:
                return self._read(self.folder / "final")
        return None

    def newest(self) -> Progress | None:
        """Return the newest state that can be read; what is damaged is passed over with a line.

        Raises:
            ValueError: If it is a state of another run, or there are some and none can be read.
        """
        damaged = None
        for folder in self._newest():
            try:
                return self._read(folder)
            except _DamagedError as error:
                damaged = error
                print(f"passed over: {error}", flush=True)
        if damaged:
            raise ValueError(f"{damaged}; no other is left to go on from: take another workdir")
        return None

    def restore(self, progress: Progress, place: Place | None = None) -> None:
        """Put back the variables, and the place in the data."""
        folder = self.folder / progress.name
        try:
            status = self._checkpoint().read(str(folder / "variables"))
            if place is None:
                status.expect_partial()  # a finished run, whose step was not traced again
            else:
                status.assert_consumed()
                place.restore(folder)
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"checkpoint {folder} cannot be read: {reason}") from error

    def _newest(self) -> list[Path]:
        def place(folder):
            return [int(number) for number in re.findall(r"\d+", folder.name)]

        return sorted(self.folder.glob("epoch-*"), key=place, reverse=True)

    def _read(self, folder: Path, *, check: bool = True) -> Progress:
        try:
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            signature, settings = state.pop("signature"), state.pop("settings")
            if state.pop("files") != _digests(folder):
                raise ValueError("its files are not as they were written")
            arrays = {}
            if (folder / "callbacks.npz").exists():
                with np.load(folder / "callbacks.npz", allow_pickle=False) as file:
                    arrays = dict(file)
            state["callbacks"] = unpack(state["callbacks"], arrays)
            progress = Progress(**state)
        except UNREADABLE as error:
            raise _DamagedError(f"checkpoint {folder} cannot be read: {error}") from error
        if check and signature != self.signature:
            raise ValueError(f"checkpoint {folder} is of another model: {self._unlike(signature)}")
        if check and settings != self.settings:
            raise ValueError(f"checkpoint {folder} is of another run: {self._changed(settings)}")
        return progress

    def _unlike(self, signature: list[str]) -> str:
        if len(signature) != len(self.signature):
            return f"it has {len(signature)} variables, this model {len(self.signature)}"
        pairs = zip(signature, self.signature, strict=True)
        there, here = next(pair for pair in pairs if pair[0] != pair[1])
        return f"it has {there} where this model has {here}"

    def _changed(self, settings: dict[str, object]) -> str:
        names = sorted(settings.keys() | self.settings.keys())
        pairs = [(n, settings.get(n), self.settings.get(n)) for n in names]
        return ", ".join(f"{n} {there} -> {here}" for n, there, here in pairs if there != here)


def _digests(folder: Path) -> dict[str, str]:
    """Return the digests of the files that a state consists of, besides `state.json`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): sha256(p) for p in files if p.name != "state.json"}


class _DamagedError(ValueError):
    """A checkpoint that is not as it was written."""


@contextlib.contextmanager
def _nowhere() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
