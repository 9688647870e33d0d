"""NaNGuard: names the planted place, puts the last good state back, lowers the rate, gives up."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcourse import training
from tfcourse.data.in_memory import InMemory
from tfcourse.training.nan_guard import NaNGuard
from tfcourse.training.probe import first_nonfinite
from tfcourse.training.schedules import warmup_cosine

RNG = np.random.default_rng(0)
X = RNG.uniform(1.0, 2.0, (40, 3)).astype("float32")
Y = RNG.normal(size=(40, 1)).astype("float32")
SIZE = 4


@keras.saving.register_keras_serializable("tests")
class Function(keras.layers.Layer):
    """Applies a TensorFlow function, such as `log` or `sqrt`."""

    def __init__(self, function, **arguments):
        super().__init__(**arguments)
        self.function = function

    def call(self, x):
        return getattr(tf.math, self.function)(x)


def planted(step, value):
    """Return the inputs with one bad row in the batch `step`."""
    x = X.copy()
    x[step * SIZE + 1] = value
    return tf.data.Dataset.from_tensor_slices((x, Y)).batch(SIZE)


def net(function=tf.math.log, name="log", optimizer=None):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((3,))
    x = keras.layers.Dense(3, kernel_initializer="identity", name="before")(x)
    inner = keras.Sequential([Function(function.__name__, name=name), keras.layers.Dense(3)])
    x = keras.layers.Dropout(0.2)(keras.layers.BatchNormalization()(inner(x)))
    model = keras.Model(inputs, keras.layers.Dense(1, name="head")(x))
    model.compile(optimizer or keras.optimizers.Adam(0.01), loss="mse", metrics=["mae"])
    return model


class Spy(keras.callbacks.Callback):
    """Keeps the weights after each batch, as the guard that ran before it left them."""

    def __init__(self):
        super().__init__()
        self.states = []

    def on_train_batch_end(self, batch, logs=None):
        optimizer = [variable.numpy() for variable in self.model.optimizer.variables]
        self.states.append([*self.model.get_weights(), *optimizer])


def run(model, data, epochs, callbacks, how):
    if how == "fit":
        return training.fit(model, data, epochs, callbacks=callbacks)
    return model.fit(data, epochs=epochs, callbacks=callbacks, verbose=0, shuffle=False)


def sqrt_net():
    """Return a net whose function has a finite value and an infinite gradient at 0."""
    x = inputs = keras.Input((3,))
    x = keras.layers.Dense(3, use_bias=False, kernel_initializer="identity", name="before")(x)
    x = keras.layers.Dense(1, name="head")(Function("sqrt", name="root")(x))
    model = keras.Model(inputs, x)
    model.compile(keras.optimizers.SGD(0.0), loss="mse")
    return model


def test_a_bad_first_batch_leaves_no_trace_in_the_optimizer():
    model, data = net(), planted(0, -5.0).take(1)
    model.fit(data, callbacks=[NaNGuard()], verbose=0, shuffle=False)
    slots = [v.numpy() for v in model.optimizer.variables]
    assert len(slots) == 2 + 2 * len(model.trainable_variables)
    assert all(np.isfinite(slot).all() for slot in slots)


@pytest.mark.parametrize("how", ["fit", "Model.fit"])
def test_a_bad_batch_is_named_and_undone(how, capsys):
    model, data, spy = net(), planted(3, -5.0), Spy()
    guard = NaNGuard(data)
    history = run(model, data, 1, [guard, spy], how).history
    [report] = guard.reports
    assert capsys.readouterr().out.count(report) == 1
    # Of one pass over the data, since a data set could have been shuffled.
    place = "epoch 1, step 4, batch 4 of a pass over data: output of layer 'log' is not finite"
    assert place in report
    assert report.endswith("after epoch 1, step 2, learning rate 0.01 -> 0.005 (1 of 3)")
    rate = [v.path.endswith("learning_rate") for v in model.optimizer.variables].index(True)
    rate += len(model.get_weights())
    before, after = spy.states[1], spy.states[3]
    assert after[rate] == np.float32(0.005)
    del before[rate], after[rate]
    assert all(map(np.array_equal, before, after))
    assert len(spy.states) == 10
    assert np.isfinite(history["loss"][0])
    assert np.isfinite(history["mae"][0])


def test_many_steps_at_once_find_the_same_place():
    model, data = net(), planted(6, -5.0)
    guard = NaNGuard(data, every_steps=5)
    assert not guard.reads_batches
    history = training.fit(model, data, 2, callbacks=[guard]).history
    assert "batch 7 of a pass over data: output of layer 'log'" in guard.reports[0]
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert len(guard.reports) == 2
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize("every_steps", [1, 4])
def test_of_arrays_it_names_the_very_step(every_steps):
    """Shuffled, so that a pass over the data would find another batch number."""
    x = X.copy()
    x[17] = -5.0
    data = InMemory(x, Y, SIZE, seed=3)
    [step] = [s for s in range(10) if (data.batch(0, s)[0] < 0).any()]
    guard = NaNGuard(data, every_steps=every_steps)
    training.fit(net(), data, 1, callbacks=[guard])
    assert f"epoch 1, step {step + 1}: output of layer 'log' is not finite" in guard.reports[0]


def test_it_gives_up_in_a_good_state():
    model, data = net(), planted(2, -5.0)
    guard = NaNGuard(data, retries=1)
    history = training.fit(model, data, 5, callbacks=[guard])
    assert len(history.epoch) == 2
    assert guard.reports[-1].endswith("training ends: retries are 1")
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_an_exploding_rate_is_lowered_until_training_goes():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((3,)), keras.layers.Dense(8), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(30.0), loss="mse")
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(SIZE).repeat(4)
    guard = NaNGuard(retries=20, factor=0.1)
    losses = training.fit(model, data, 6, callbacks=[guard]).history["loss"]
    assert 1 <= len(guard.reports) <= 20
    assert float(model.optimizer.learning_rate.numpy()) == pytest.approx(
        30.0 * 0.1 ** len(guard.reports)
    )
    assert losses[-1] < 2 * np.var(Y)


def test_without_data_it_names_a_weight():
    model, data = sqrt_net(), planted(1, 0.0)
    guard = NaNGuard()
    training.fit(model, data, 1, callbacks=[guard])
    assert "epoch 1, step 2: weight 'before/kernel' is not finite" in guard.reports[0]


def test_a_schedule_stays():
    schedule = warmup_cosine(0.1, 20)
    model, data = net(optimizer=keras.optimizers.SGD(schedule)), planted(3, -5.0)
    guard = NaNGuard()
    training.fit(model, data, 1, callbacks=[guard])
    assert "the learning rate stays: it is a schedule (1 of 3)" in guard.reports[0]
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_two_replicas():
    with training.strategy("cpu:2").scope():
        model = net()
    data = planted(3, -5.0)
    guard = NaNGuard(data)
    training.fit(model, data, 1, callbacks=[guard])
    assert "batch 4 of a pass over data: output of layer 'log'" in guard.reports[0]
    for variable in model.variables:
        for part in variable.value.values:
            assert np.isfinite(part.numpy()).all()


def test_its_state_survives_a_resume():
    guard, again = NaNGuard(retries=1), NaNGuard(retries=1)
    training.fit(net(), planted(2, -5.0), 1, callbacks=[guard])
    again.on_train_begin = lambda logs=None: (
        NaNGuard.on_train_begin(again),
        again.set_state(guard.get_state()),
    )
    history = training.fit(net(), planted(2, -5.0), 3, callbacks=[again])
    assert len(history.epoch) == 1
    assert "training ends" in again.reports[-1]


@pytest.mark.parametrize(
    ("model", "x", "place"),
    [
        (net, -5.0, "output of layer 'log'"),
        (net, np.nan, "input of the model"),
        (net, 1.0, None),
        (sqrt_net, 0.0, "gradient in layer 'root'"),
        (lambda: net(tf.math.exp, "exp"), 1e3, "output of layer 'exp'"),
    ],
)
def test_first_nonfinite_names_the_place(model, x, place):
    model, batch = model(), (tf.constant(X[:SIZE]), tf.constant(Y[:SIZE]))
    assert first_nonfinite(model, batch) is None
    rows = X[:SIZE].copy()
    rows[1] = x
    assert first_nonfinite(model, (tf.constant(rows), batch[1])) == place
    assert not any("call" in vars(layer) for layer in model._flatten_layers())


def test_first_nonfinite_of_targets_and_losses():
    model, x, y = net(), tf.constant(X[:SIZE]), Y[:SIZE].copy()
    y[0] = np.inf
    assert first_nonfinite(model, (x, tf.constant(y))) == "targets or sample weights"
    y[0] = 1e30
    assert first_nonfinite(model, (x, tf.constant(y))) == "loss"


def test_first_nonfinite_looks_into_a_subclassed_model():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.blocks = [keras.layers.Dense(3, name="a"), Function("log", name="inside")]
            self.head = keras.layers.Dense(1)

        def call(self, x):
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    model = Own()
    model.compile(loss="mse")
    batch = (tf.constant(-X[:SIZE] @ np.eye(3, dtype="float32")), tf.constant(Y[:SIZE]))
    model(batch[0])
    model.blocks[0].set_weights([np.eye(3), np.zeros(3)])
    assert first_nonfinite(model, batch) == "output of layer 'inside'"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"retries": -1}, "retries must be at least 0, got -1"),
        ({"every_steps": 0}, "every_steps must be at least 1, got 0"),
        ({"factor": 0}, "factor must be above 0 and at most 1, got 0"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        NaNGuard(**arguments)
