"""The callbacks that leave a run's folder, in `training.fit` and in `Model.fit`."""

import contextlib
import csv
import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tfcourse import training

X = np.random.default_rng(0).normal(size=(30, 4)).astype("float32")
Y = (X.sum(axis=1) > 0).astype("int32")
DATA = tf.data.Dataset.from_tensor_slices((X, Y)).batch(7)


def net():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss=loss, metrics=["accuracy"])
    return model


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


class Logs(keras.callbacks.Callback):
    """Replaces a metric by given values, so that the best epoch is known."""

    def __init__(self, name, values):
        super().__init__()
        self.name, self.values, self.weights = name, values, []

    def on_epoch_end(self, epoch, logs=None):
        logs[self.name] = self.values[epoch]
        self.weights.append(self.model.get_weights())


class Fail(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


def plain_console():
    return Console(file=io.StringIO(), force_terminal=False, width=40)


def terminal():
    return Console(file=io.StringIO(), force_terminal=True, width=120)


def test_metrics_csv_holds_every_epoch(tmp_path):
    path = tmp_path / "metrics.csv"
    callbacks = [training.MetricsCSV(path)]
    history = training.fit(net(), DATA, 3, validation_data=DATA, callbacks=callbacks).history
    table = rows(path)
    assert [row["epoch"] for row in table] == ["1", "2", "3"]
    for name, values in history.items():
        assert [float(row[name]) for row in table] == values


def test_metrics_csv_has_each_epoch_once_after_a_resume(tmp_path):
    path = tmp_path / "metrics.csv"
    with pytest.raises(KeyboardInterrupt):
        callbacks = [training.MetricsCSV(path), Fail()]
        training.fit(net(), DATA, 4, callbacks=callbacks, workdir=tmp_path)
    assert len(rows(path)) == 2
    late = Logs("late", [0.0, 1.0, 2.0, 3.0])
    callbacks = [late, training.MetricsCSV(path)]
    history = training.fit(net(), DATA, 4, callbacks=callbacks, workdir=tmp_path).history
    assert [row["epoch"] for row in rows(path)] == ["1", "2", "3", "4"]
    assert [float(row["loss"]) for row in rows(path)] == history["loss"]
    assert [row["late"] for row in rows(path)] == ["", "", "2.0", "3.0"]


def test_metrics_csv_works_in_model_fit(tmp_path):
    table = training.MetricsCSV(tmp_path / "metrics.csv")
    history = net().fit(X, Y, epochs=2, verbose=0, callbacks=[table]).history
    assert [float(row["loss"]) for row in rows(table.path)] == history["loss"]


@pytest.mark.parametrize(
    ("monitor", "values", "best"),
    [("score", [0.1, 0.7, 0.3], 1), ("my_loss", [3.0, 2.0, 2.5], 1), ("score", [np.nan, 1, 1], 1)],
)
def test_best_checkpoint_puts_the_best_weights_back(tmp_path, monitor, values, best):
    path = tmp_path / "best.weights.h5"
    model, logs = net(), Logs(monitor, values)
    callbacks = [logs, training.BestCheckpoint(path, monitor)]
    training.fit(model, DATA, 3, callbacks=callbacks)
    assert all(map(np.array_equal, model.get_weights(), logs.weights[best]))
    other = net()
    other.load_weights(path)
    assert all(map(np.array_equal, other.get_weights(), logs.weights[best]))


@pytest.mark.parametrize(("later", "best"), [(0.5, 1), (0.95, 3)])
def test_best_checkpoint_remembers_over_a_resume(tmp_path, later, best):
    path = tmp_path / "best.weights.h5"
    values = [0.1, 0.9, 0.2, later]

    def run(*callbacks):
        logs, model = Logs("score", values), net()
        callbacks = [logs, training.BestCheckpoint(path, "score"), *callbacks]
        training.fit(model, DATA, 4, callbacks=callbacks, workdir=tmp_path)
        return model

    with pytest.raises(KeyboardInterrupt):
        run(Fail())
    resumed = run()
    whole = Logs("score", values)
    training.fit(net(), DATA, 4, callbacks=[whole])
    assert all(map(np.array_equal, resumed.get_weights(), whole.weights[best]))


def test_best_checkpoint_ignores_the_file_of_another_run(tmp_path):
    path = tmp_path / "best.weights.h5"
    path.write_text("of another run")
    training.fit(net(), DATA, 1, callbacks=[training.BestCheckpoint(path, "accuracy")])
    net().load_weights(path)


def test_best_checkpoint_errors(tmp_path):
    with pytest.raises(ValueError, match=r"path must end in \.weights\.h5, got best\.h5"):
        training.BestCheckpoint("best.h5")
    best = training.BestCheckpoint(tmp_path / "best.weights.h5", "val_acc")
    with pytest.raises(ValueError, match="monitor must be one of accuracy, loss, got 'val_acc'"):
        training.fit(net(), DATA, 1, callbacks=[best])


def test_progress_is_one_line_per_epoch_outside_a_terminal():
    console = plain_console()
    bar = training.ProgressBar("head", console)
    history = training.fit(net(), DATA, 2, validation_data=DATA, callbacks=[bar]).history
    first, second = console.file.getvalue().splitlines()
    assert first.startswith(f"head epoch 1/2  loss {history['loss'][0]:.4g}  accuracy ")
    assert second.startswith("head epoch 2/2  loss ")
    assert f"val_loss {history['val_loss'][1]:.4g}" in second


@pytest.mark.parametrize("known", [True, False])
def test_progress_is_a_bar_in_a_terminal(known):
    console, data = terminal(), DATA if known else DATA.filter(lambda *batch: True)
    bar = training.ProgressBar(console=console)
    history = training.fit(net(), data, 3, callbacks=[bar]).history
    output = console.file.getvalue()
    assert "epoch 3/3" in output
    assert f"loss {history['loss'][-1]:.4g}" in output
    assert output.count("\x1b[?25h") == output.count("\x1b[?25l") == 1
    assert bar.bar is None


def test_the_terminal_gets_its_cursor_back_when_training_fails():
    console = terminal()
    with pytest.raises(KeyboardInterrupt):
        training.fit(net(), DATA, 5, callbacks=[training.ProgressBar(console=console), Fail()])
    assert "\x1b[?25h" in console.file.getvalue()


def test_curves_are_drawn_at_the_end_with_all_epochs(tmp_path):
    path = tmp_path / "curves.png"
    curves = training.Curves(path, "head")
    drawn = []
    curves._draw, draw = lambda: (drawn.append(len(curves.history["loss"])), draw()), curves._draw
    training.fit(net(), DATA, 6, callbacks=[curves])
    assert drawn[0] == 1
    assert drawn[-1] == 6
    with Image.open(path) as image:
        assert image.format == "PNG"


def test_the_standard_callbacks_do_not_ask_for_every_batch(monkeypatch, tmp_path):
    """Reading the metrics makes the device wait: it is done between calls of many steps."""
    model, reads = net(), []
    read = model.get_metrics_result
    monkeypatch.setattr(model, "get_metrics_result", lambda: reads.append(1) or read())
    callbacks = training.standard_callbacks(tmp_path, monitor="accuracy")
    training.fit(model, DATA.repeat(100), 1, callbacks=callbacks)
    assert len(reads) < 100


@pytest.mark.parametrize("name", [None, "cpu:2"])
def test_standard_callbacks_fill_the_folder(tmp_path, name, capsys):
    with training.strategy(name).scope() if name else contextlib.nullcontext():
        model = net()
    callbacks = training.standard_callbacks(tmp_path, phase="head")
    history = training.fit(model, DATA, 2, validation_data=DATA, callbacks=callbacks).history
    folder = tmp_path / "head"
    names = {"best.weights.h5", "metrics.csv", "curves.png", "tensorboard"}
    assert {entry.name for entry in folder.iterdir()} == names
    assert "head epoch 2/2" in capsys.readouterr().out
    for part, key in (("train", "loss"), ("validation", "val_loss")):
        events = EventAccumulator(str(folder / "tensorboard" / part)).Reload()
        values = [
            float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors("epoch_loss")
        ]
        assert values == pytest.approx(history[key])
    best = max(history["val_accuracy"])
    assert training.evaluate(model, DATA)["accuracy"] == pytest.approx(best)
