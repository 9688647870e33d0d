"""Speed, gradient norms and the profile of a training."""

import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tfcourse import training
from tfcourse.training.gradients import GradientNorms, gradient_norms
from tfcourse.training.monitors import Profile, Throughput

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype("float32")
Y = RNG.normal(size=(40, 1)).astype("float32")
DATA = tf.data.Dataset.from_tensor_slices((X, Y)).batch(5)


def net():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((3,)), keras.layers.Dense(4, name="first"), keras.layers.Dropout(0.3)]
    layers += [keras.layers.BatchNormalization(name="norm"), keras.layers.Dense(1, name="head")]
    model = keras.Sequential(layers, name="net")
    model.compile("adam", loss="mse", metrics=["mae"])
    return model


class Slow(keras.callbacks.Callback):
    """Makes each step take at least so long, the last one of an epoch longer."""

    def on_train_batch_begin(self, batch, logs=None):
        time.sleep(0.06 if batch == 7 else 0.02)


@pytest.mark.parametrize("how", ["fit", "Model.fit"])
def test_throughput_measures_the_steps(how, capsys):
    model, throughput = net(), Throughput(5)
    if how == "fit":
        training.fit(model, DATA, 3, callbacks=[throughput, Slow()])
    else:
        model.fit(X, Y, 5, epochs=3, callbacks=[throughput, Slow()], verbose=0)
    assert len(throughput.results) == 3
    for result in throughput.results:
        assert result["p50"] >= 20
        assert result["p99"] > 55
        assert result["p50"] <= result["p90"] <= result["p99"]
        # No quicker than the sleep, and the trace of the first step, some 300 ms, does not count.
        assert 5 / 0.1 < result["samples_per_second"] < 5 / 0.025
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1", "epoch 2", "epoch 3"]
    assert f"{throughput.results[0]['samples_per_second']:,.0f} samples/s" in lines[0]


def test_throughput_leaves_the_history_alone():
    plain = training.fit(net(), DATA, 2).history
    assert training.fit(net(), DATA, 2, callbacks=[Throughput(5)]).history == plain


def test_throughput_counts_steps_that_come_in_one_go():
    throughput = Throughput(10)
    throughput.on_train_begin()
    throughput.on_epoch_begin(0)
    for batch in (3, 7, 11):
        time.sleep(0.04)
        throughput.on_train_batch_end(batch)
    throughput.on_epoch_end(0)
    [result] = throughput.results
    assert 10 <= result["p50"] < 30
    assert 10 / 0.03 < result["samples_per_second"] <= 10 / 0.01


def test_gradient_norms_are_the_formula():
    """Mean square error of `x w + b`: gradients `2 x^T (x w + b - y) / n` and their row of ones."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="line")])
    model.compile(loss="mse", optimizer="sgd")
    w, b = (weight.numpy() for weight in model.weights)
    error = X @ w + b - Y
    gradient = 2 / len(X) * np.concatenate([X, np.ones((len(X), 1))], axis=1).T @ error
    [(path, norm)] = gradient_norms(model, (X, Y)).items()
    assert path.endswith("line")
    assert norm == pytest.approx(np.linalg.norm(gradient), rel=1e-5)


@pytest.mark.parametrize("replicas", [1, 2])
def test_gradient_norms_go_to_tensorboard_and_change_nothing(tmp_path, replicas):
    def run(callbacks):
        with training.strategy(f"cpu:{replicas}").scope():
            model = net()
        history = training.fit(model, DATA, 3, callbacks=callbacks).history
        return history, model.get_weights()

    plain, watched = run([]), run([GradientNorms(tmp_path, (X[:8], Y[:8]))])
    assert watched[0] == plain[0]
    assert all(map(np.array_equal, plain[1], watched[1]))
    events = EventAccumulator(str(tmp_path)).Reload()
    tags = [tag for tag in events.Tags()["tensors"] if tag.startswith("gradient_norm/")]
    assert len(tags) == 3
    for tag in tags:
        values = [float(tf.make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)]
        assert len(values) == 3
        assert min(values) > 0


def test_gradient_norms_of_repeated_ids():
    """A table's gradient adds up the rows of a repeated id: twice the same is norm 2, not 1.4."""
    model = keras.Sequential([keras.Input((2,), dtype="int32"), keras.layers.Embedding(5, 1)])
    model.compile(loss=lambda y, y_pred: tf.reduce_sum(y_pred))
    [norm] = gradient_norms(model, (np.array([[3, 3]]), np.zeros((1, 1)))).values()
    assert norm == pytest.approx(2.0)


def test_a_profile_is_recorded(tmp_path):
    training.fit(net(), DATA, 2, callbacks=[Profile(tmp_path, (3, 5))])
    assert len(list(tmp_path.rglob("*.xplane.pb"))) == 1


def test_a_profile_ends_when_training_raises(tmp_path):
    class Fail(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 5:
                raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            training.fit(net(), DATA, 2, callbacks=[Profile(tmp_path, (3, 50)), Fail()])
    assert list(tmp_path.rglob("*.xplane.pb"))


def test_errors():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        Throughput(0)
    with pytest.raises(ValueError, match="steps must be a first and a later last step above 0"):
        Profile("logs", (5, 5))
