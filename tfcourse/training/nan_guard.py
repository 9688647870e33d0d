"""NaNGuard finds the first infinite or NaN number of a training, and saves the training."""

import dataclasses
import math

import keras
import tensorflow as tf

from tfcourse.training.probe import first_nonfinite, nonfinite_weight
from tfcourse.training.snapshots import Snapshot, optimizers, unchanged

# A loss so many times the usual one is a training on its way to infinity.
UNUSUAL = 10.0
MEMORY = 0.99


@dataclasses.dataclass
class _State:
    """A state and when it was: so many batches, of this sum of losses, are in the metrics."""

    snapshot: Snapshot
    epoch: int
    step: int
    batches: int = 0
    total: float = 0.0


class NaNGuard(keras.callbacks.Callback):
    """Goes back to the last good state when the loss or a weight is no longer finite.

    It says in one line in which step and in which layer it began, puts a state back from which
    the next losses were still as usual, lowers the learning rate and lets training go on with
    the next batch; what was learned in between is lost. After `retries` times it stops the
    training, in a good state. A rate that is a schedule cannot be set and stays; a step of one's
    own that logs no `loss` is judged by its weights alone. Works in `Model.fit`, too.

    When to use it: when a training has diverged once, to find out where; or over night. With
    `every_steps=1` every batch is looked at, so that the step is exact and two steps are lost,
    but `fit` has to run the steps one by one, and each copies the state. More is cheaper: `fit`
    runs many steps in one go, and the state is looked at and kept when so many have passed.

    The layer is found by running the batches since the last look again, from the state that they
    began with: if the weights grew on the way, maybe none fails, and a bad weight is named.

    Args:
        data: What is trained on, to find the layer. From `InMemory` the very batches are read
            again; from a `tf.data.Dataset` those of one pass, until one fails. Without it only
            weights are looked at, which after a bad step are often bad in all layers.
        retries: How often to go on.
        factor: By which the learning rate is multiplied each time.
        every_steps: How often to look.
    """

    def __init__(self, data=None, *, retries: int = 3, factor: float = 0.5, every_steps: int = 1):
        super().__init__()
        for name, value, least in (("retries", retries, 0), ("every_steps", every_steps, 1)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if not 0 < factor <= 1:
            raise ValueError(f"factor must be above 0 and at most 1, got {factor}")
        self.data, self.retries, self.factor = data, retries, factor
        self.every_steps = every_steps
        self.reads_batches = every_steps == 1
        self.reports: list[str] = []

    def on_train_begin(self, logs=None):
        self.reports, self.newest, self.usual = [], None, None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.batch = epoch, -1
        if self.newest is None:
            self.newest = self.good = _State(Snapshot(self.model), epoch, -1)

    def on_train_batch_end(self, batch, logs=None):
        # `fit` calls after each step or after many; Keras after each.
        self.batch = batch
        if batch - self._last_step() >= self.every_steps:
            self._look(logs)

    def on_epoch_end(self, epoch, logs=None):
        if self.batch > self._last_step():
            self._look(logs)

    def get_state(self) -> dict:
        """Return what a resumed training needs: how often it has gone back."""
        return {"reports": list(self.reports)}

    def set_state(self, state: dict) -> None:
        """Take over from a training that was interrupted."""
        self.reports = list(state["reports"])

    def _last_step(self) -> int:
        return self.newest.step if self.newest.epoch == self.epoch else -1

    def _look(self, logs) -> None:
        logs = logs or self.model.get_metrics_result()
        state = _State(Snapshot(self.model), self.epoch, self.batch)
        before = self.newest if self.newest.epoch == self.epoch else _State(None, 0, -1)
        state.batches = before.batches + self.batch - before.step
        # Keras' loss is the mean since the epoch began; here that since the last look counts.
        state.total = float(logs.get("loss", 0.0)) * state.batches
        loss = (state.total - before.total) / (state.batches - before.batches)
        if self._as_usual(loss):
            self.good = self.newest
        if math.isfinite(loss) and state.snapshot.finite():
            self.newest = state
        else:
            self._go_back()

    def _as_usual(self, loss: float) -> bool:
        if not math.isfinite(loss):
            return False
        if self.usual is None:
            self.usual = abs(loss)
        limit = UNUSUAL * self.usual
        # It follows slowly, also a rise that stays, which is no explosion.
        self.usual = MEMORY * self.usual + (1 - MEMORY) * min(abs(loss), limit)
        return loss <= limit

    def _go_back(self) -> None:
        weight = nonfinite_weight(self.model)
        where = self._search() or f"step {self.batch + 1}: {weight or 'loss'}"
        good = self.good
        good.snapshot.restore()
        if good.epoch != self.epoch:
            self.model.reset_metrics()
            good = dataclasses.replace(good, batches=0, total=0.0)
        text = f"NaNGuard: epoch {self.epoch + 1}, {where} is not finite; "
        text += f"back to the state after epoch {good.epoch + 1}, step {good.step + 1}"
        if len(self.reports) < self.retries:
            text += f", {self._lower_rates()} ({len(self.reports) + 1} of {self.retries})"
        else:
            text += f", training ends: retries are {self.retries}"
            self.model.stop_training = True
        self.reports.append(text)
        print(text)
        # With the lower rate, for the next time; the batches that failed are behind it.
        now = {"snapshot": Snapshot(self.model), "epoch": self.epoch, "step": self.batch}
        self.newest = self.good = dataclasses.replace(good, **now)

    def _lower_rates(self) -> str:
        changes = []
        for outer in optimizers(self.model):
            optimizer = getattr(outer, "inner_optimizer", outer)
            if not isinstance(optimizer._learning_rate, keras.Variable):
                return "the learning rate stays: it is a schedule"
            before = float(optimizer.learning_rate.numpy())
            optimizer.learning_rate = before * self.factor
            changes.append(f"learning rate {before:.3g} -> {before * self.factor:.3g}")
        return ", ".join(changes)

    def _search(self) -> str | None:
        with unchanged(self.model):
            self.newest.snapshot.restore()
            for name, batch in self._batches():
                if where := first_nonfinite(self.model, batch):
                    return f"{name}: {where}"
        return None

    def _batches(self):
        """Give the batches that can have been the first bad one, with their names."""
        if isinstance(self.data, tf.data.Dataset):
            for index, batch in enumerate(self.data):
                yield f"step {self.batch + 1}, batch {index + 1} of a pass over data", batch
        elif self.data is not None:
            for index in range(self._last_step() + 1, self.batch + 1):
                yield f"step {index + 1}", self.data.batch(self.epoch, index)
