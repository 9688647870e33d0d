"""A run that is killed at random moments, again and again, against one that is left alone.

    python tests/kill_and_resume.py --kills 20

It has dropout, shuffling, BatchNorm, a schedule of the learning rate, an average of the weights
and early stopping, once over arrays in memory and once over a `tf.data` pipeline; both must end
with the same bits.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from tfcourse import training

ROWS, BATCH, EPOCHS = 200, 16, 12
PAUSE = 0.35  # seconds in each step, so that twenty kills find the run in its middle


class Pause(keras.callbacks.Callback):
    """Makes the steps slow, and one in a call."""

    def on_train_batch_end(self, batch, logs=None):
        time.sleep(PAUSE)


def build():
    keras.utils.set_random_seed(5)
    layers = [
        keras.Input((6,)),
        keras.layers.Dense(16, "relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.4),
        keras.layers.Dense(2),
    ]
    model = keras.Sequential(layers)
    rate = keras.optimizers.schedules.CosineDecay(0.02, EPOCHS * -(-ROWS // BATCH))
    optimizer = keras.optimizers.Adam(rate, use_ema=True, ema_overwrite_frequency=7)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def train(folder, kind, pause):
    """Train to the end, and write what came out."""
    keras.utils.set_random_seed(5)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 6)).astype("float32")
    y = ((x[:, 0] * x[:, 1] > 0) ^ (rng.random(ROWS) < 0.2)).astype("int32")
    data = training.InMemory(x, y, BATCH, seed=3)
    if kind == "tf.data":
        data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(ROWS // 2, seed=3).batch(BATCH)
    callbacks = [
        keras.callbacks.EarlyStopping("val_loss", patience=6, restore_best_weights=True),
        training.Checkpointing(every_steps=3),
        *([Pause()] if pause else []),
    ]
    model = build()
    validation = training.InMemory(x[:50], y[:50], BATCH, shuffle=False)
    history = training.fit(
        model, data, EPOCHS, validation_data=validation, callbacks=callbacks, workdir=folder
    )
    values = [v.numpy() for v in [*model.variables, *model.optimizer.variables]]
    np.savez(folder / "weights.npz", *values)
    (folder / "history.json").write_text(json.dumps(history.history))


def child(folder, kind, pause):
    """Start a run in a process of its own; TensorFlow is imported, but has not started yet."""
    number = os.fork()
    if number == 0:
        try:
            train(folder, kind, pause)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return number


def same(one, other):
    """Return whether two runs ended with the same bits."""
    if (one / "history.json").read_text() != (other / "history.json").read_text():
        return False
    a, b = (np.load(folder / "weights.npz") for folder in (one, other))
    return a.files == b.files and all(a[n].tobytes() == b[n].tobytes() for n in a.files)


def rehearse(kills, kind, rng):
    """Kill a run so many times; return how often it was hit, and whether it ended the same."""
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        for path in (whole, killed):
            path.mkdir()
        if os.waitpid(child(whole, kind, pause=False), 0)[1] != 0:
            raise SystemExit("the run that is left alone failed")
        hits, status = 0, None
        while status is None:
            number, start = child(killed, kind, pause=hits < kills), time.monotonic()
            moment = rng.uniform(0.5, 4.0) if hits < kills else float("inf")
            while status is None and time.monotonic() - start < moment:
                done, code = os.waitpid(number, os.WNOHANG)
                status = code if done else None
                time.sleep(0.01)
            if status is None:
                os.kill(number, signal.SIGKILL)
                os.waitpid(number, 0)
                hits += 1
        if status != 0:
            raise SystemExit(f"a resumed run failed with status {status}")
        return hits, same(whole, killed)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    failed = False
    for kind in ("in memory", "tf.data"):
        hits, identical = rehearse(flags.kills, kind, np.random.default_rng(flags.seed))
        print(f"{kind}: killed {hits} times, bit-identical: {identical}", flush=True)
        failed |= not identical
    sys.exit(failed)


if __name__ == "__main__":
    main()
