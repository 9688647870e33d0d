"""Checkpoints of a run: weights, optimizer, epochs and history, in a folder that is always whole.

`checkpoints/epoch-0003` is the state after three epochs, from which a run goes on;
`checkpoints/final` is the state that the run ended with (a callback may have put back the best
weights), which a finished run returns.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import keras
import tensorflow as tf

from tfcourse.data.cache import atomic_folder


@dataclasses.dataclass
class Progress:
    """How far a run has come: epochs done, their history, whether a callback ended it early."""

    epochs: int = 0
    history: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    stopped: bool = False
    finished: bool = False


class RunCheckpoints:
    """The checkpoints of one model, with its built optimizer, in `workdir/checkpoints`."""

    def __init__(self, model: keras.Model, workdir: str | Path):
        variables = [*model.variables, *(model.optimizer.variables if model.optimizer else [])]
        # Keras numbers layers through a process, and its optimizers spell them out in front.
        names = [v.name.rpartition("_")[2] for v in variables]
        pairs = zip(names, variables, strict=True)
        self.signature = [f"{name} {tuple(v.shape)} {v.dtype}" for name, v in pairs]
        self.checkpoint = tf.train.Checkpoint(variables=[v.value for v in variables])
        self.folder = Path(workdir) / "checkpoints"
        self.folder.mkdir(parents=True, exist_ok=True)

    def save(self, progress: Progress) -> None:
        """Write the state, whole or not at all, and then remove what it replaces."""
        name = "final" if progress.finished else f"epoch-{progress.epochs:04d}"
        with atomic_folder(self.folder / name) as staging:
            self.checkpoint.write(str(staging / "variables"))
            state = dataclasses.asdict(progress) | {"signature": self.signature}
            (staging / "state.json").write_text(json.dumps(state), encoding="utf-8")
        kept = {name, self._epochs()[-1].name} if progress.finished else {name}
        for entry in self.folder.iterdir():
            if entry.name not in kept:
                shutil.rmtree(entry, ignore_errors=True)

    def restore(self, epochs: int) -> Progress:
        """Put back the newest state of a run of so many epochs.

        Args:
            epochs: How many epochs the run is to have. More than a finished run had: it goes on.

        Returns:
            How far the run had come; nothing done if there is no checkpoint.

        Raises:
            ValueError: If the checkpoint is of another model or cannot be read.
        """
        final = self.folder / "final"
        if final.exists():
            progress = self._read_state(final)
            if progress.stopped or progress.epochs >= epochs:
                return self._restore_variables(final, progress)
        if not (folders := self._epochs()):
            return Progress()
        return self._restore_variables(folders[-1], self._read_state(folders[-1]))

    def _epochs(self) -> list[Path]:
        return sorted(self.folder.glob("epoch-*"))

    def _read_state(self, folder: Path) -> Progress:
        try:
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            signature = state.pop("signature")
            progress = Progress(**state)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"checkpoint {folder} cannot be read: {error}") from error
        if signature != self.signature:
            raise ValueError(f"checkpoint {folder} is of another model: {self._unlike(signature)}")
        return progress

    def _restore_variables(self, folder: Path, progress: Progress) -> Progress:
        try:
            self.checkpoint.read(str(folder / "variables")).assert_consumed()
        except Exception as error:  # a damaged file makes TensorFlow raise almost anything
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"checkpoint {folder} cannot be read: {reason}") from error
        return progress

    def _unlike(self, signature: list[str]) -> str:
        if len(signature) != len(self.signature):
            return f"it has {len(signature)} variables, this model {len(self.signature)}"
        pairs = zip(signature, self.signature, strict=True)
        there, here = next(pair for pair in pairs if pair[0] != pair[1])
        return f"it has {there} where this model has {here}"
