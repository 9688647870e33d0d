"""Resuming: a run that is stopped anywhere, and goes on, ends with the bits of one that is not.

The net has all that a run must remember: dropout, BatchNorm, a schedule, an average of the
weights, early stopping with the best weights.
"""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcourse import training
from tfcourse.training.checkpoints import RunCheckpoints

ROWS, BATCH, EPOCHS, STEPS = 37, 8, 4, 5
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 5)).astype("float32")
Y = RNG.integers(0, 3, ROWS).astype("int32")


def net(rate=None, units=8, jitter=False, conv=False):
    keras.utils.set_random_seed(7)
    layers = [keras.Input((5,)), keras.layers.Dense(units, "tanh")]
    layers += [keras.layers.BatchNormalization(), keras.layers.Dropout(0.4)]
    if conv:
        layers += [keras.layers.Reshape((units, 1)), keras.layers.Conv1D(1, 3)]
        layers.append(keras.layers.Flatten())
    if jitter:
        layers.append(keras.layers.Lambda(lambda x: x + tf.random.normal(tf.shape(x))))
    model = keras.Sequential([*layers, keras.layers.Dense(3)])
    rate = rate or keras.optimizers.schedules.CosineDecay(0.05, EPOCHS * STEPS)
    optimizer = keras.optimizers.Adam(rate, use_ema=True, ema_overwrite_frequency=3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def rows():
    return tf.data.Dataset.from_tensor_slices((X, Y))


def noisy(x, y):
    seed = tf.stack([tf.cast(y, tf.int32), 3])
    return x + tf.random.stateless_normal(tf.shape(x), seed), y


# A pipeline and the steps of its epochs, `None` for a pass.
DATA = {
    "in memory": (lambda: training.InMemory(X, Y, BATCH, seed=3), None),
    "in memory, steps": (lambda: training.InMemory(X, Y, BATCH, seed=3), 3),
    "in order": (lambda: rows().batch(BATCH), None),
    "shuffled": (lambda: rows().shuffle(ROWS, seed=1).batch(BATCH).prefetch(2), None),
    "shuffled in part": (lambda: rows().shuffle(11, seed=1).batch(BATCH), None),
    "shuffled once": (
        lambda: rows().shuffle(ROWS, seed=1, reshuffle_each_iteration=False).batch(BATCH),
        None,
    ),
    "batches shuffled": (lambda: rows().map(noisy).batch(BATCH).shuffle(3, seed=2), None),
    "repeated": (lambda: rows().shuffle(20, seed=1).repeat().batch(BATCH), 5),
    "steps": (lambda: rows().shuffle(20, seed=1).batch(BATCH), 3),
    "unknown length": (
        lambda: rows().shuffle(20, seed=1).filter(lambda x, y: y < 2).batch(BATCH),
        None,
    ),
    "interleaved": (
        lambda: (
            tf.data.Dataset.range(4)
            .interleave(lambda i: rows().shard(4, i), cycle_length=2)
            .batch(BATCH, num_parallel_calls=2)
        ),
        None,
    ),
}


class Crash(keras.callbacks.Callback):
    """Ends the run at an event of a step or an epoch, counted from the run's first."""

    def __init__(self, event, epoch, batch=None):
        super().__init__()
        self.event, self.epoch, self.batch, self.now = event, epoch, batch, None

    def hit(self, event, batch=None):
        if (event, self.now) == (self.event, self.epoch) and batch == self.batch:
            raise KeyboardInterrupt

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch
        self.hit("epoch begins")

    def on_train_batch_end(self, batch, logs=None):
        self.hit("batch", batch)

    def on_test_batch_end(self, batch, logs=None):
        self.hit("validation", batch)

    def on_epoch_end(self, epoch, logs=None):
        self.hit("epoch ends")

    def on_train_end(self, logs=None):
        self.hit("training ends")


# In the order of a run; each goes on from what the one before has left.
CRASHES = [
    ("batch", 0, 0),
    ("batch", 0, 2),
    ("epoch ends", 0, None),
    ("epoch begins", 1, None),
    ("batch", 1, 1),
    ("validation", 1, 1),
    ("batch", 2, 0),
    ("batch", 3, 2),
    ("training ends", 3, None),
]


def patient():
    """Return early stopping that only keeps the best weights."""
    return keras.callbacks.EarlyStopping("val_loss", patience=9, restore_best_weights=True)


def train(workdir, kind, *, crash=None, callbacks=None, model=None, **settings):
    make, steps = DATA[kind]
    model = model or net()
    if callbacks is None:
        callbacks = [
            keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True)
        ]
    callbacks = [*callbacks, training.Checkpointing(every_steps=2)]
    callbacks += [Crash(*crash)] if crash else []
    settings = {"validation_data": rows().batch(12), "steps_per_epoch": steps} | settings
    history = training.fit(model, make(), EPOCHS, workdir=workdir, callbacks=callbacks, **settings)
    variables = [*model.variables, *model.optimizer.variables]
    return history.history, [v.numpy() for v in variables]


def crashed(workdir, kind, crash, **settings):
    with pytest.raises(KeyboardInterrupt):
        train(workdir, kind, crash=crash, **settings)


def same(run, other):
    assert run[0] == other[0]
    for a, b in zip(run[1], other[1], strict=True):
        np.testing.assert_array_equal(a, b)


FAST = ("repeated", "unknown length")


@pytest.mark.parametrize(
    "kind", [k if k in FAST else pytest.param(k, marks=pytest.mark.slow) for k in DATA]
)
def test_a_run_that_crashed_twice_ends_with_the_same_bits(kind, tmp_path):
    expected = train(None, kind)
    for crash in [("batch", 1, 2), ("batch", 2, 1)]:
        crashed(tmp_path, kind, crash)
    same(train(tmp_path, kind), expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["shuffled", "in memory"])
def test_a_run_that_crashed_everywhere_ends_with_the_same_bits(kind, tmp_path):
    expected = train(None, kind, callbacks=[patient()])
    assert len(expected[0]["loss"]) == EPOCHS
    for crash in CRASHES:
        crashed(tmp_path, kind, crash, callbacks=[patient()])
    same(train(tmp_path, kind, callbacks=[patient()]), expected)


def test_a_resume_does_not_begin_the_epoch_again(tmp_path):
    class Batches(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.seen = []

        def on_train_batch_end(self, batch, logs=None):
            self.seen.append(batch)

    crashed(tmp_path, "shuffled", ("batch", 1, 3))
    batches = Batches()
    train(tmp_path, "shuffled", callbacks=[batches])
    assert batches.seen[:3] == [2, 3, 4]  # two steps of the second epoch were saved


def test_callbacks_remember(tmp_path):
    """Plateaus and early stopping count epochs, and the best weights, over a resume."""

    def callbacks():
        plateau = keras.callbacks.ReduceLROnPlateau("loss", 0.5, 1, min_delta=9.0, cooldown=1)
        stop = keras.callbacks.EarlyStopping(
            "loss", min_delta=9.0, patience=3, restore_best_weights=True
        )
        return [plateau, stop]

    expected = train(None, "in memory", callbacks=callbacks(), model=net(rate=0.01))
    assert len(expected[0]["loss"]) == 4  # the first is best, and three more are waited for
    assert expected[0]["learning_rate"][-1] < 0.004
    for crash in [("batch", 1, 3), ("batch", 3, 1)]:
        crashed(tmp_path, "in memory", crash, callbacks=callbacks(), model=net(rate=0.01))
    run = train(tmp_path, "in memory", callbacks=callbacks(), model=net(rate=0.01))
    same(run, expected)


@pytest.mark.slow
def test_a_callback_of_ones_own_remembers_arrays(tmp_path):
    class Norms(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.norms, self.sums = [], np.zeros(3)

        def on_epoch_end(self, epoch, logs=None):
            kernel = self.model.layers[-1].kernel.numpy()
            self.norms.append(float(np.linalg.norm(kernel)))
            self.sums = self.sums + kernel.sum(axis=0)

        def get_state(self):
            return {"norms": self.norms, "sums": self.sums, "nested": {"list": [self.sums, 1]}}

        def set_state(self, state):
            self.norms, self.sums = state["norms"], state["sums"]
            np.testing.assert_array_equal(state["nested"]["list"][0], self.sums)

    whole, cut, resumed = Norms(), Norms(), Norms()
    train(None, "in memory", callbacks=[whole])
    crashed(tmp_path, "in memory", ("batch", 2, 3), callbacks=[cut])
    train(tmp_path, "in memory", callbacks=[resumed])
    assert len(resumed.norms) == 4
    assert resumed.norms == whole.norms
    np.testing.assert_array_equal(resumed.sums, whole.sums)


@pytest.mark.slow
def test_the_choice_of_xla_is_made_once(tmp_path):
    """A resume takes what is written, even where a trial would always end otherwise."""
    crashed(tmp_path, "in memory", ("epoch begins", 1), model=net(conv=True), jit_compile="auto")
    state = tmp_path / "checkpoints" / "epoch-0001-step-000000" / "state.json"
    values = json.loads(state.read_text())
    assert values["jit_compile"] is False  # as there is a convolution
    state.write_text(json.dumps(values | {"jit_compile": True}))
    train(tmp_path, "in memory", model=net(conv=True), jit_compile="auto")
    final = json.loads((tmp_path / "checkpoints" / "final" / "state.json").read_text())
    assert final["jit_compile"] is True


def random_map():
    return rows().map(lambda x, y: (x + tf.random.normal(x.shape), y)).batch(BATCH)


def generator():
    spec = (tf.TensorSpec((5,)), tf.TensorSpec((), tf.int32))
    data = tf.data.Dataset.from_generator(lambda: zip(X, Y, strict=True), output_signature=spec)
    return data.batch(BATCH)


@pytest.mark.parametrize(
    ("data", "model", "reason"),
    [
        (random_map, net, "in the data, .*[Rr]andom"),
        (generator, net, "in the data, .*(PyFunc|Generator|py_func)"),
        (
            lambda: rows().batch(BATCH),
            lambda: net(jitter=True),
            "RandomStandardNormal in the model",
        ),
    ],
    ids=["map", "generator", "model"],
)
def test_what_cannot_be_restored_is_named_and_the_epoch_begins_again(
    data, model, reason, tmp_path, capsys
):
    seen = []

    class Batches(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append((self.now, batch))
            if seen[-1] == (1, 3) and seen.count((1, 3)) == 1:
                raise KeyboardInterrupt

        def on_epoch_begin(self, epoch, logs=None):
            self.now = epoch

    callbacks = [Batches(), training.Checkpointing(every_steps=1)]
    with pytest.raises(KeyboardInterrupt):
        training.fit(model(), data(), 3, workdir=tmp_path, callbacks=callbacks)
    out = capsys.readouterr().out
    assert re.match(f"a resume will begin at an epoch, not to the bit: {reason}.*\n$", out)
    cut = len(seen)
    training.fit(model(), data(), 3, workdir=tmp_path, callbacks=callbacks)
    assert seen[cut:] == [(epoch, batch) for epoch in (1, 2) for batch in range(5)]


def flip(path):
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4] = b"\xff\x00\xff\x00"
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("state.json", truncate),
        pytest.param("state.json", flip, marks=pytest.mark.slow),
        pytest.param("variables.index", truncate, marks=pytest.mark.slow),
        pytest.param("variables.data-00000-of-00001", truncate, marks=pytest.mark.slow),
        ("variables.data-00000-of-00001", flip),
        pytest.param("callbacks.npz", Path.unlink, marks=pytest.mark.slow),
        ("callbacks.npz", truncate),
        ("data/now.data-00000-of-00001", truncate),
        ("data/start.index", Path.unlink),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_damaged_newest_checkpoint_is_passed_over(name, damage, whole, tmp_path, capsys):
    """With a line that says so; the one before leads to the same bits."""
    folder, expected = whole
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    newest, older = sorted((tmp_path / "checkpoints").iterdir(), reverse=True)
    assert (newest.name, older.name) == ("epoch-0001-step-000004", "epoch-0001-step-000002")
    damage(newest / name)
    capsys.readouterr()
    result = train(tmp_path, "shuffled")
    out = capsys.readouterr().out
    assert re.match(f"passed over: checkpoint {re.escape(str(newest))} cannot be read: .+\n$", out)
    same(result, expected)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a folder with two checkpoints of a crashed run, and the result of a whole one."""
    folder = tmp_path_factory.mktemp("crashed")
    crashed(folder, "shuffled", ("validation", 1, 0))
    return folder, train(None, "shuffled")


def test_what_was_not_written_whole_does_not_count(whole, tmp_path):
    """What a kill leaves behind in the middle of writing has another name, and is removed."""
    folder, expected = whole
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    newest = max((tmp_path / "checkpoints").iterdir())
    stray = newest.with_name(f".{newest.name}-x1y2")
    stray.mkdir()
    (stray / "state.json").write_text("{")
    same(train(tmp_path, "shuffled"), expected)
    assert not stray.exists()


@pytest.mark.parametrize("keep", [1, 3])
def test_the_last_ones_are_kept(keep, tmp_path):
    checkpointing = training.Checkpointing(every_steps=2, keep=keep)
    data = training.InMemory(X, Y, BATCH)
    training.fit(net(), data, 2, workdir=tmp_path, callbacks=[checkpointing])
    names = ["000004", "000000", "000002"]
    expected = {f"epoch-{e:04d}-step-{s}" for e, s in zip((1, 2, 1), names, strict=True)}
    newest = sorted(expected, reverse=True)[:keep]
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {*newest, "final"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model": lambda: net(units=9)},
            r"of another model: it has kernel \(5, 8\) float32 where",
        ),
        (
            {"model": lambda: net(keras.optimizers.schedules.CosineDecay(0.3, 9))},
            "of another run: optimizer.*initial_learning_rate 0.05 -> 0.3",
        ),
        ({"class_weight": {0: 2.0}}, r"of another run: class_weight None -> \{'0': 2.0\}"),
        ({"jit_compile": True}, "of another run: jit_compile False -> True"),
        ({"steps_per_epoch": 2}, "of another run: steps_per_epoch None -> 2"),
        ({"kind": "in memory"}, "of another run: data "),
    ],
    ids=["units", "schedule", "class_weight", "jit_compile", "steps", "data"],
)
def test_a_changed_run_is_refused_with_what_differs(change, message, whole):
    change = {n: v() if n == "model" else v for n, v in change.items()}
    with pytest.raises(ValueError, match=message) as error:
        train(whole[0], change.pop("kind", "shuffled"), **change)
    assert "\n" not in str(error.value)


class AtEpoch(keras.callbacks.Callback):
    def __init__(self, epoch, call):
        super().__init__()
        self.epoch, self.call = epoch, call

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            self.call()


def test_a_full_disk_is_said_and_training_goes_on(tmp_path, capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))

    try:
        result = train(tmp_path, "in memory", callbacks=[patient(), AtEpoch(1, fill)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    same(result, train(None, "in memory", callbacks=[patient()]))
    lines = capsys.readouterr().out.splitlines()
    pattern = r"checkpoint (epoch-000\d-step-00000\d|final) could not be written: .*File too large"
    assert lines
    assert all(re.search(pattern, line) for line in lines)
    # What was written before is still there, whole, and a run can go on from it.
    same(train(tmp_path, "in memory", callbacks=[patient()]), result)


def test_a_folder_that_vanishes_is_said_and_training_goes_on(tmp_path, capsys):
    folder = tmp_path / "checkpoints"

    def vanish():
        shutil.rmtree(folder)
        folder.write_text("a file in its place")

    result = train(tmp_path, "in memory", callbacks=[patient(), AtEpoch(2, vanish)])
    assert len(result[0]["loss"]) == EPOCHS
    lines = capsys.readouterr().out.splitlines()
    assert "checkpoint epoch-0002-step-000002 could not be written" in lines[0]
    assert "checkpoint final could not be written" in lines[-1]


def test_a_folder_that_cannot_be_written_is_an_error_before_training():
    with pytest.raises(OSError, match="/proc/"):
        train("/proc/nothing/here", "in memory")


def test_sigterm_saves_and_ends_with_143(tmp_path, capsys):
    class Told(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        training.fit(
            net(),
            DATA["shuffled"][0](),
            EPOCHS,
            validation_data=rows().batch(12),
            callbacks=[patient(), Told()],
            workdir=tmp_path,
        )
    assert end.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is handler
    assert capsys.readouterr().out == "stopped by SIGTERM; the same command continues\n"
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["epoch-0000-step-000003"]
    expected = train(None, "shuffled", callbacks=[patient()])
    same(train(tmp_path, "shuffled", callbacks=[patient()]), expected)


@pytest.mark.slow
def test_twenty_kills():
    script = Path(__file__).with_name("kill_and_resume.py")
    command = [sys.executable, str(script), "--kills", "20"]
    environment = os.environ | {"PYTHONPATH": str(script.parent.parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("killed 20 times, bit-identical: True") == 2


def small(dropout=0.1, smoothing=0.0):
    keras.utils.set_random_seed(2)
    layers = [keras.Input((3,)), keras.layers.Dropout(dropout), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model


def few():
    x = np.random.default_rng(1).normal(size=(12, 3)).astype("float32")
    return training.InMemory(x, np.eye(2, dtype="float32")[(x[:, 0] > 0).astype(int)], 4)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"dropout": 0.5}, r"layer . Dropout.rate 0.1 -> 0.5"),
        ({"smoothing": 0.2}, r"label_smoothing 0.0 -> 0.2"),
    ],
)
def test_another_setting_of_a_layer_or_a_loss_is_refused(tmp_path, other, message):
    training.fit(small(), few(), 1, workdir=tmp_path)
    with pytest.raises(ValueError, match=message):
        training.fit(small(**other), few(), 2, workdir=tmp_path)


def test_a_rate_that_a_callback_lowered_is_no_other_run(tmp_path):
    def lower():
        return [keras.callbacks.ReduceLROnPlateau("loss", patience=0, min_delta=10.0)]

    model = small()
    first = training.fit(model, few(), 2, workdir=tmp_path, callbacks=lower()).history
    assert float(model.optimizer.learning_rate) < 0.1
    assert training.fit(model, few(), 2, workdir=tmp_path, callbacks=lower()).history == first


def test_the_newest_of_many_epochs_is_found(tmp_path):
    for epochs in (9_998, 9_999, 10_000, 10_001):
        for path in [tmp_path / "checkpoints" / f"epoch-{epochs:04d}-step-000000"]:
            path.mkdir(parents=True)
    checkpoints = RunCheckpoints([], tmp_path, {})
    assert [p.name[6:11] for p in checkpoints._newest()[:2]] == ["10001", "10000"]


def test_a_callback_in_front_does_not_make_another_forget(tmp_path):
    def stop():
        return keras.callbacks.EarlyStopping("loss", min_delta=100.0, patience=3)

    class Crash(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.fit(small(), few(), 9, workdir=tmp_path, callbacks=[stop(), Crash()])
    new = [keras.callbacks.LambdaCallback(), stop()]
    whole = training.fit(small(), few(), 9, callbacks=[stop()]).history["loss"]
    again = training.fit(small(), few(), 9, workdir=tmp_path, callbacks=new).history["loss"]
    assert again == whole
    assert len(whole) < 9


def test_sigterm_in_validation_saves_the_steps_of_the_epoch(tmp_path):
    class Terminate(keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            os.kill(os.getpid(), signal.SIGTERM)

    whole = training.fit(small(), few(), 2, validation_data=few()).history
    with pytest.raises(SystemExit):
        arguments = {"validation_data": few(), "workdir": tmp_path}
        training.fit(small(), few(), 2, callbacks=[Terminate()], **arguments)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["epoch-0000-step-000003"]
    again = training.fit(small(), few(), 2, validation_data=few(), workdir=tmp_path).history
    assert again == whole
