"""The learning-rate finder, one batch by heart, the dry run, gradients by finite differences."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfcourse import training
from tfcourse.data.in_memory import InMemory
from tfcourse.training.diagnostics import dry_run, overfit_one_batch
from tfcourse.training.gradients import check_gradients
from tfcourse.training.lr_finder import find_learning_rate

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 4)).astype("float32")
Y = (X @ [1.0, -2.0, 0.5, 3.0] > 0).astype("int32")
DATA = tf.data.Dataset.from_tensor_slices((X, Y)).batch(10)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def net(optimizer="adam", dropout=0.2):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((4,)), keras.layers.Dense(16, "tanh"), keras.layers.BatchNormalization()]
    layers += [keras.layers.Dropout(dropout), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    model.compile(optimizer, loss=LOSS, metrics=["accuracy"])
    return model


def state(model):
    variables = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
    return [variable.numpy() for variable in variables]


def same(before, after):
    return len(before) == len(after) and all(map(np.array_equal, before, after))


def trained(optimizer="adam"):
    """Return a model in the middle of a training: slots, seeds and metrics are not zero."""
    model = net(optimizer)
    training.fit(model, DATA, 1)
    return model


class Interrupt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 2:
            raise KeyboardInterrupt


TRIALS = {
    "find_learning_rate": lambda model: find_learning_rate(model, DATA, steps=40),
    "overfit_one_batch": lambda model: overfit_one_batch(model, DATA, 5),
    "dry_run": lambda model: dry_run(model, DATA, DATA),
    "check_gradients": lambda model: check_gradients(model, (X[:4], Y[:4]), entries=1),
}


@pytest.mark.parametrize("name", TRIALS)
def test_a_trial_leaves_no_trace(name):
    model = trained()
    before, history = state(model), model.history
    TRIALS[name](model)
    assert same(before, state(model))
    assert model.history is history
    fresh, other = trained(), model
    again = [training.fit(m, DATA, 1).history for m in (fresh, other)]
    assert again[0] == again[1]
    assert same(state(fresh), state(other))


@pytest.mark.parametrize("data", [DATA.repeat(), InMemory(X, Y, 10)])
def test_trials_of_endless_data_and_of_arrays(data):
    model = trained()
    before = state(model)
    curve, _ = find_learning_rate(model, data, steps=40, lowest=1e-3)
    assert len(curve["rate"]) > 10
    losses, fell = overfit_one_batch(model, data, 100)
    assert fell == (losses[-1] < 0.1 * losses[0])
    assert dry_run(model, data, data)["inputs"] == "(10, 4) float32"
    assert same(before, state(model))


def test_an_interrupted_trial_leaves_no_trace(monkeypatch):
    from tfcourse.training import lr_finder

    model = trained()
    before = state(model)

    def interrupted(*arguments, callbacks):
        return training.fit(*arguments, callbacks=[*callbacks, Interrupt()])

    monkeypatch.setattr(lr_finder, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        find_learning_rate(model, DATA)
    assert same(before, state(model))


def test_a_trial_on_two_replicas_leaves_each_as_it_was():
    with training.strategy("cpu:2").scope():
        model = trained()
    values = [part for v in model.variables for part in v.value.values]
    before = [part.numpy() for part in values]
    curve, suggestion = find_learning_rate(model, DATA, steps=60, lowest=1e-5)
    assert 1e-5 < suggestion < 10
    assert len(curve["rate"]) == len(curve["loss"])
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, values, strict=True))


def test_the_rates_rise_evenly_and_the_losses_are_those_of_single_batches():
    model, twin = net(keras.optimizers.SGD(0.3), 0.0), net(keras.optimizers.SGD(0.3), 0.0)
    curve, _ = find_learning_rate(model, DATA, steps=10, lowest=1e-3, highest=1.0)
    np.testing.assert_allclose(curve["rate"], np.geomspace(1e-3, 1.0, 10))
    losses = []
    for rate, (x, y) in zip(curve["rate"], DATA.repeat(), strict=False):
        with tf.GradientTape() as tape:
            loss = LOSS(y, twin(x, training=True))
        for weight, gradient in zip(
            twin.trainable_variables, tape.gradient(loss, twin.trainable_variables), strict=True
        ):
            weight.assign_sub(rate * gradient)
        losses.append(float(loss))
    np.testing.assert_allclose(curve["loss"], losses, rtol=1e-4)


def test_the_suggestion_of_a_parabola_is_below_its_limit(tmp_path):
    """Gradient descent on `(w - 3)^2` diverges above rate 1 and needs about 0.1 to be quick."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    ones = np.ones((100, 1), "float32")
    targets = 3 + 0.01 * RNG.normal(size=(100, 1))
    data = tf.data.Dataset.from_tensor_slices((ones, targets)).batch(10)
    model.layers[0].set_weights([np.zeros((1, 1))])
    path = tmp_path / "curve.png"
    curve, suggestion = find_learning_rate(model, data, lowest=1e-4, highest=100, path=path)
    assert 0.01 < suggestion < 0.5
    assert len(curve["rate"]) < 100  # it exploded, and the sweep ended
    assert curve["rate"][-1] > 1.0
    with Image.open(path) as image:
        assert image.format == "PNG"


@pytest.mark.parametrize("trial", [find_learning_rate, overfit_one_batch, dry_run])
def test_a_model_that_is_not_compiled(trial):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="plain")
    with pytest.raises(ValueError, match="model must be compiled before training, plain is not"):
        trial(model, DATA)


def test_a_model_without_weights_yet():
    model = keras.Sequential([keras.layers.Dense(2)], name="late")
    model.compile("sgd", loss=LOSS)
    with pytest.raises(ValueError, match="model must have its weights: call late on a batch first"):
        dry_run(model, DATA)


def test_find_learning_rate_errors():
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    with pytest.raises(ValueError, match="learning_rate must be a number to be set, got CosineDec"):
        find_learning_rate(net(keras.optimizers.SGD(schedule)), DATA)
    with pytest.raises(
        ValueError, match=r"lowest must be above 0 and below highest, got 1 and 0\.1"
    ):
        find_learning_rate(net(), DATA, lowest=1, highest=0.1)
    with pytest.raises(ValueError, match="steps must be at least 10, got 3"):
        find_learning_rate(net(), DATA, steps=3)
    with pytest.raises(ValueError, match="the loss never falls"):
        find_learning_rate(net(keras.optimizers.SGD(1.0)), DATA, lowest=1e3, highest=1e4)


def test_a_sound_model_learns_one_batch(capsys):
    losses, fell = overfit_one_batch(net(keras.optimizers.Adam(0.03), 0.0), DATA, 100)
    assert fell
    assert len(losses) == 100
    assert losses[-1] < 0.1 * losses[0]
    assert "the model can learn" in capsys.readouterr().out


def test_a_model_that_cannot_learn_is_found_out(capsys):
    model = net("sgd")
    inputs = keras.Input((4,))
    deaf = keras.Model(inputs, model.layers[-1](keras.layers.Dense(16)(inputs * 0.0)))
    deaf.compile(keras.optimizers.Adam(0.1), loss=LOSS)
    losses, fell = overfit_one_batch(deaf, DATA, 60)
    assert not fell
    assert min(losses) > 0.1 * losses[0]
    assert "it should fall below 10%" in capsys.readouterr().out


def test_overfit_errors():
    with pytest.raises(ValueError, match="steps must be at least 2, got 1"):
        overfit_one_batch(net(), DATA, 1)


def test_dry_run_prints_what_goes_through(capsys):
    model = net()
    model.layers[0].trainable = False
    table = dry_run(model, DATA, DATA)
    assert table["inputs"] == "(10, 4) float32"
    assert table["targets"] == "(10,) int32"
    assert table["weights"] == "66 trainable, 112 frozen"
    assert "loss " in table["validation"]
    output = capsys.readouterr().out
    assert all(f"  {name}" in output and value in output for name, value in table.items())


def test_dry_run_fails_where_training_would():
    wrong = tf.data.Dataset.from_tensor_slices((X[:, :3], Y)).batch(8)
    with pytest.raises(ValueError):
        dry_run(net(), DATA, wrong)


@keras.saving.register_keras_serializable("tests")
class Wrong(keras.layers.Layer):
    """`x * x` with the gradient of `x`: wrong by a factor."""

    def call(self, x):
        @tf.custom_gradient
        def square(x):
            return x * x, lambda upstream: upstream

        return square(x)


def dense():
    return [keras.Input((4,)), keras.layers.Dense(5, "gelu", kernel_regularizer="l2")]


def conv():
    layers = [keras.Input((6, 6, 2)), keras.layers.Conv2D(3, 3, activation="tanh")]
    return [*layers, keras.layers.BatchNormalization(), keras.layers.GlobalAveragePooling2D()]


def lstm():
    return [keras.Input((5,), dtype="int32"), keras.layers.Embedding(9, 3), keras.layers.LSTM(4)]


def dropout():
    return [*dense(), keras.layers.Dropout(0.5), keras.layers.LayerNormalization()]


def checkable(layers, **arguments):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([*layers, keras.layers.Dense(3)])
    model.compile("sgd", loss=LOSS, **arguments)
    return model


def rows(model):
    shape = (4, *model.input_shape[1:])
    x = RNG.integers(0, 9, shape) if "int" in model.inputs[0].dtype else RNG.normal(size=shape)
    return x.astype(model.inputs[0].dtype), RNG.integers(0, 3, 4)


@pytest.mark.parametrize("layers", [dense, conv, lstm, dropout])
def test_right_gradients_pass(layers):
    model = checkable(layers())
    errors = check_gradients(model, rows(model), entries=3)
    assert list(errors) == [weight.path for weight in model.trainable_variables]
    assert max(errors.values()) < 1e-4
    assert keras.config.floatx() == "float32"
    assert keras.config.dtype_policy().name == "float32"


def test_a_wrong_gradient_is_found_below_its_layer_only():
    model = checkable([keras.Input((4,)), keras.layers.Dense(5), Wrong(), keras.layers.Dense(2)])
    first, *others = check_gradients(model, rows(model)).values()
    assert first > 0.1
    assert max(others[-4:]) < 1e-4


def test_gradients_of_a_mixed_model_with_weighted_losses():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        inputs = keras.Input((4,))
        hidden = keras.layers.Dense(3, "tanh")(inputs)
        outputs = {n: keras.layers.Dense(2, dtype="float32", name=n)(hidden) for n in "ab"}
        model = keras.Model(inputs, outputs)
        model.compile(loss={"a": LOSS, "b": "mse"}, loss_weights={"a": 0.3, "b": 2.0})
    finally:
        keras.config.set_dtype_policy("float32")
    y = {"a": Y[:4], "b": X[:4, :2]}
    errors = check_gradients(model, (X[:4], y, np.arange(4.0)))
    assert max(errors.values()) < 1e-4


def test_check_gradients_errors():
    with pytest.raises(ValueError, match="model must be compiled to have a loss, plain is not"):
        check_gradients(keras.Sequential([keras.layers.Dense(2)], name="plain"), (X, Y))

    class Own(keras.Model):
        def __init__(self, layer):
            super().__init__(name="own")
            self.layer = layer

        def call(self, x):
            return self.layer(x)

    model = Own(keras.layers.Dense(2))
    model.compile(loss=LOSS)
    model(X)
    with pytest.raises(ValueError, match="model must be one that its config gives again, own: "):
        check_gradients(model, (X, Y))
