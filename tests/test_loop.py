"""`fit`, `evaluate` and `predict`: against Model.fit, on several replicas, and over a resume.

The nets of the replica tests have no BatchNorm and no dropout: these differ between replicas.
"""

import contextlib
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcourse import training

ROWS = 23
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 5)).astype("float32")
Y = RNG.integers(0, 3, ROWS).astype("int32")
WEIGHTS = RNG.uniform(0.2, 2.0, ROWS).astype("float32")
TINY = 1e-6


def batches(size=8, rows=ROWS, weighted=True):
    arrays = (X[:rows], Y[:rows], WEIGHTS[:rows]) if weighted else (X[:rows], Y[:rows])
    return tf.data.Dataset.from_tensor_slices(arrays).batch(size)


def net(strategy=None, optimizer="adam", norm=False, hidden=8, **compile_arguments):
    with strategy.scope() if strategy else contextlib.nullcontext():
        keras.utils.set_random_seed(7)
        layers = [keras.Input((5,)), keras.layers.Dense(hidden, "tanh", kernel_regularizer="l2")]
        layers += [keras.layers.BatchNormalization()] if norm else []
        model = keras.Sequential([*layers, keras.layers.Dense(3, dtype="float32")])
        settings = {
            "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "metrics": ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")],
            "weighted_metrics": ["accuracy"],
        }
        model.compile(optimizer, **settings | compile_arguments)
    return model


def difference(model, other):
    pairs = zip(model.get_weights(), other.get_weights(), strict=True)
    return max(np.abs(a - b).max() for a, b in pairs)


class Events(keras.callbacks.Callback):
    """Writes down every event by name."""

    def __init__(self):
        super().__init__()
        self.seen, self.logs = [], []

    def __getattribute__(self, name):
        if name.startswith("on_"):
            return lambda *index, logs=None: self.seen.append((name, *index[:1]))
        return super().__getattribute__(name)


class BatchLogs(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.logs = []

    def on_train_batch_end(self, batch, logs=None):
        self.logs.append(logs)


class Interrupt(keras.callbacks.Callback):
    """Stops the run in the middle of an epoch as a crash would."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.now == self.epoch and batch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("weighted", [True, False])
def test_same_numbers_as_model_fit(optimizer, weighted):
    data, reference, model = (
        batches(weighted=weighted),
        net(optimizer=optimizer),
        net(optimizer=optimizer),
    )
    expected = reference.fit(data, epochs=3, validation_data=data, verbose=0, shuffle=False).history
    history = training.fit(model, data, 3, validation_data=data).history
    assert set(history) == set(expected)
    assert len(expected) == 8
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, atol=TINY, rtol=0)
    assert difference(model, reference) <= TINY
    assert training.evaluate(model, data) == pytest.approx(
        reference.evaluate(data, return_dict=True, verbose=0), abs=TINY
    )


def test_same_numbers_as_model_fit_with_two_outputs():
    def build():
        keras.utils.set_random_seed(3)
        inputs = keras.Input((5,))
        outputs = {name: keras.layers.Dense(1, name=name)(inputs) for name in ("a", "b")}
        model = keras.Model(inputs, outputs)
        model.compile("sgd", loss={"a": "mse", "b": "mae"}, loss_weights={"a": 1.0, "b": 0.5})
        return model

    targets = {"a": X[:, :1], "b": X[:, 1:2]}
    data = tf.data.Dataset.from_tensor_slices((X, targets)).batch(ROWS)
    model, reference = build(), build()
    expected = reference.fit(data, epochs=2, verbose=0, shuffle=False).history
    history = training.fit(model, data, 2).history
    assert {name: pytest.approx(values) for name, values in expected.items()} == history
    assert difference(model, reference) <= TINY


@pytest.mark.parametrize(("replicas", "rows"), [(2, 19), (4, 17)])
def test_replicas_train_as_one_device_does(replicas, rows):
    """Last batches: full; 3 rows, uneven; 1 row, so that all replicas but one are empty."""
    data, one, many = batches(8, rows), net(), net(training.strategy(f"cpu:{replicas}"))
    expected = training.fit(one, data, 4, validation_data=data).history
    history = training.fit(many, data, 4, validation_data=data).history
    assert difference(many, one) <= 1e-5
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, atol=1e-5)


def test_replicas_get_the_rows_of_a_whole_batch():
    """The same rows in one batch and in many: a replica must not see a batch of its own size."""
    two = net(training.strategy("cpu:2"), optimizer="sgd")
    training.fit(two, batches(ROWS), 1)
    assert int(two.optimizer.iterations.numpy()) == 1


def test_float16_loss_scaling_on_one_and_two_replicas():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        one, two = net(optimizer="sgd"), net(training.strategy("cpu:2"), optimizer="sgd")
    finally:
        keras.config.set_dtype_policy("float32")
    full = net(optimizer="sgd")
    assert isinstance(one.optimizer, keras.optimizers.LossScaleOptimizer)
    for model in (one, two, full):
        training.fit(model, batches(), 3)
    assert difference(one, full) < 2e-3
    assert difference(two, full) < 2e-3
    assert difference(full, net()) > 1e-2


def test_batch_norm_survives_an_empty_replica():
    model = net(training.strategy("cpu:4"), norm=True)
    training.fit(model, batches(8, 17), 2, validation_data=batches(8, 17))
    assert all(np.isfinite(weights).all() for weights in model.get_weights())


@pytest.mark.parametrize("name", [None, "cpu", "cpu:2", "cpu:4"])
@pytest.mark.parametrize("rows", [23, 17])
def test_predict_keeps_the_order(name, rows):
    model = net(training.strategy(name) if name else None)
    expected = model(X[:rows]).numpy()
    np.testing.assert_allclose(training.predict(model, batches(8, rows)), expected, atol=TINY)


def test_predict_needs_no_compilation_and_takes_bare_inputs():
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
    data = tf.data.Dataset.from_tensor_slices(X).batch(10)
    np.testing.assert_allclose(training.predict(model, data), model(X), atol=TINY)


def test_what_is_frozen_stays_and_what_is_unfrozen_moves():
    model = net(optimizer="sgd")
    before = model.get_weights()
    model.layers[0].trainable = False
    model.compile("sgd", loss=model.loss)
    training.fit(model, batches(), 1)
    frozen = model.get_weights()
    assert np.array_equal(frozen[0], before[0])
    assert not np.array_equal(frozen[2], before[2])
    model.layers[0].trainable = True
    model.compile("sgd", loss=model.loss)
    training.fit(model, batches(), 1)
    assert not np.array_equal(model.get_weights()[0], before[0])


def test_callbacks_see_the_events_of_model_fit():
    data, ours, theirs = batches(), Events(), Events()
    net().fit(data, epochs=2, validation_data=data, callbacks=[theirs], verbose=0, shuffle=False)
    training.fit(net(), data, 2, validation_data=data, callbacks=[ours])
    skip = {"on_epoch_begin", "on_epoch_end"}
    assert [event for event in ours.seen if event[0] in skip] == [
        event for event in theirs.seen if event[0] in skip
    ]
    assert ours.seen == theirs.seen


def test_batch_logs_are_those_of_model_fit():
    data, ours, theirs = batches(), BatchLogs(), BatchLogs()
    net().fit(data, epochs=1, callbacks=[theirs], verbose=0, shuffle=False)
    training.fit(net(), data, 1, callbacks=[ours])
    assert [pytest.approx(logs, abs=TINY) for logs in theirs.logs] == ours.logs


def test_early_stopping_stops():
    stop = keras.callbacks.EarlyStopping("loss", min_delta=1e9, patience=1)
    assert len(training.fit(net(), batches(), 9, callbacks=[stop]).history["loss"]) == 2


def test_a_data_set_of_unknown_length():
    data = batches().filter(lambda *batch: True)
    model, reference = net(), net()
    training.fit(model, data, 2)
    training.fit(reference, batches(), 2)
    assert difference(model, reference) == 0


def test_a_step_of_ones_own():
    def step(model, batch):
        x, y, _ = batch
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, model(x), True))
        weights = model.trainable_variables
        model.optimizer.apply(tape.gradient(loss, weights), weights)
        return {"mine": loss}

    history = training.fit(
        net(metrics=None, weighted_metrics=None), batches(), 5, step=step
    ).history
    assert history["mine"][-1] < history["mine"][0]


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    whole, cut, resumed = net(), net(), net()
    expected = training.fit(whole, batches(), 5, validation_data=batches()).history
    with pytest.raises(KeyboardInterrupt):
        training.fit(
            cut, batches(), 5, callbacks=[Interrupt(3)], workdir=tmp_path, validation_data=batches()
        )
    events = Events()
    history = training.fit(
        resumed, batches(), 5, callbacks=[events], workdir=tmp_path, validation_data=batches()
    )
    assert [event for event in events.seen if event[0] == "on_epoch_begin"] == [
        ("on_epoch_begin", 3),
        ("on_epoch_begin", 4),
    ]
    assert history.history == expected
    assert history.epoch == [0, 1, 2, 3, 4]
    assert difference(resumed, whole) == 0
    assert int(resumed.optimizer.iterations.numpy()) == int(whole.optimizer.iterations.numpy())


def test_a_resume_on_two_replicas(tmp_path):
    whole = net()
    training.fit(whole, batches(), 3)
    for epochs in (1, 3):
        model = net(training.strategy("cpu:2"))
        training.fit(model, batches(), epochs, workdir=tmp_path)
    assert difference(model, whole) <= 1e-5


def test_a_finished_run_returns_at_once(tmp_path):
    first = net()
    expected = training.fit(first, batches(), 2, workdir=tmp_path).history
    events, again = Events(), net()
    history = training.fit(again, batches(), 2, callbacks=[events], workdir=tmp_path)
    assert not [event for event in events.seen if event[0] not in ("on_set_model",)]
    assert history.history == expected
    assert history is again.history
    assert difference(again, first) == 0


def test_a_finished_run_keeps_what_callbacks_did_at_its_end_and_still_goes_on(tmp_path):
    class Zero(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            self.model.layers[0].kernel.assign(tf.zeros((5, 8)))

    whole, finished, again, longer = net(), net(), net(), net()
    training.fit(whole, batches(), 4)
    training.fit(finished, batches(), 2, workdir=tmp_path, callbacks=[Zero()])
    training.fit(again, batches(), 2, workdir=tmp_path)
    assert np.all(again.get_weights()[0] == 0)
    training.fit(longer, batches(), 4, workdir=tmp_path)
    assert difference(longer, whole) == 0


def test_a_run_that_stopped_early_is_finished(tmp_path):
    def run(epochs):
        stop, events = keras.callbacks.EarlyStopping("loss", min_delta=1e9, patience=1), Events()
        callbacks = [stop, events]
        history = training.fit(net(), batches(), epochs, callbacks=callbacks, workdir=tmp_path)
        return history.history, "on_train_begin" in [event[0] for event in events.seen]

    first, started = run(5)
    assert started
    assert len(first["loss"]) == 2
    assert run(5) == run(9) == (first, False)


def test_a_workdir_that_cannot_be_is_an_error_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    events = Events()
    with pytest.raises(OSError, match="file"):
        training.fit(net(), batches(), 1, callbacks=[events], workdir=tmp_path / "file")
    assert events.seen == []


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    training.fit(net(), batches(), 3, workdir=tmp_path)
    names = {entry.name for entry in (tmp_path / "checkpoints").iterdir()}
    assert names == {"epoch-0002-step-000000", "epoch-0003-step-000000", "final"}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            lambda: net(hidden=9),
            r"another model: it has kernel \(5, 8\) float32 where this model has",
        ),
        (lambda: net(optimizer="sgd"), "another model: it has 22 variables, this model 14"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(tmp_path, other, message):
    training.fit(net(), batches(), 1, workdir=tmp_path)
    with pytest.raises(ValueError, match=message):
        training.fit(other(), batches(), 2, workdir=tmp_path)


@pytest.mark.parametrize("name", ["state.json", "variables.index", "variables.data-00000-of-00001"])
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_an_unreadable_checkpoint_is_one_clear_error(tmp_path, name, damage):
    training.fit(net(), batches(), 1, workdir=tmp_path)
    path = tmp_path / "checkpoints" / "epoch-0001-step-000000" / name
    path.write_bytes(path.read_bytes()[:20]) if damage == "truncated" else path.unlink()
    with pytest.raises(ValueError, match="epoch-0001-step-000000 cannot be read: ") as error:
        training.fit(net(), batches(), 2, workdir=tmp_path)
    assert "\n" not in str(error.value)


def test_a_killed_process_goes_on_with_a_continuous_table(tmp_path):
    script = f"""
import os, signal, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
import test_loop
from tfcourse import training

class Kill(test_loop.Interrupt):
    def on_train_batch_end(self, batch, logs=None):
        if self.now == self.epoch and batch == 1:
            os.kill(os.getpid(), signal.SIGKILL)

folder = {str(tmp_path)!r}
callbacks = [training.MetricsCSV(folder + "/metrics.csv"), Kill(2)]
training.fit(test_loop.net(), test_loop.batches(), 5, callbacks=callbacks, workdir=folder)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "metrics.csv").read_text().count("\n") == 3
    table, resumed, whole = training.MetricsCSV(tmp_path / "metrics.csv"), net(), net()
    training.fit(resumed, batches(), 5, callbacks=[table], workdir=tmp_path)
    expected = training.fit(whole, batches(), 5).history
    rows = np.genfromtxt(tmp_path / "metrics.csv", delimiter=",", names=True)
    assert list(rows["epoch"]) == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(rows["loss"], expected["loss"], atol=TINY)
    assert difference(resumed, whole) <= TINY


def test_errors_at_the_door(tmp_path):
    two = training.strategy("cpu:2")
    bare = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    outside = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    with two.scope():
        outside.compile("sgd", "mse")
    no_loss = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    no_loss.compile("sgd")
    frozen = net()
    frozen.trainable = False
    only_x = tf.data.Dataset.from_tensor_slices(X).batch(8)
    empty, endless = batches().take(0), batches().repeat()
    hidden = batches().filter(lambda *batch: False)
    cases = [
        (lambda: training.fit(bare, batches(), 1), "model must be compiled before training"),
        (lambda: training.evaluate(bare, batches()), "model must be compiled"),
        (lambda: training.fit(net(), batches(), 0), "epochs must be at least 1, got 0"),
        (lambda: training.fit(net(), empty, 1), "^data must have at least one batch, got none"),
        (lambda: training.fit(net(), hidden, 1), "data must have at least one batch, got none"),
        (lambda: training.fit(net(), endless, 1), "data must end"),
        (
            lambda: training.fit(net(), (X, Y), 1),
            "tf.data.Dataset or InMemory, got tuple",
        ),
        (
            lambda: training.fit(net(), batches(), 1, validation_data=empty),
            "^validation_data must have at least one batch",
        ),
        (lambda: training.predict(net(), empty), "data must have at least one batch"),
        (lambda: training.predict(net(), hidden), "data must have at least one batch"),
        (lambda: training.fit(net(), only_x, 1), r"data must give batches \(x, y\), got x alone"),
        (lambda: training.fit(frozen, batches(), 1), "model must have trainable weights"),
        (lambda: training.fit(no_loss, batches(), 1), "No loss to compute"),
        (lambda: training.fit(outside, batches(), 1), "built and compiled in its strategy's scope"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)
    with two.scope(), pytest.raises(ValueError, match="in its strategy's scope"):
        training.fit(outside, batches(), 1)
