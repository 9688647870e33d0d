"""Factors on the learning rate, and layers that wake up: against plain optimizers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcourse import training
from tfcourse.training.transfer import BASES, UnfreezeAt, layer_rates

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 4)).astype("float32")
Y = RNG.normal(size=(20, 2)).astype("float32")
DATA = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
RATES = {"first/kernel": 0.0, "first": 0.5}


def net(optimizer):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((4,)), keras.layers.Dense(3, "tanh", name="first")]
    model = keras.Sequential([*layers, keras.layers.Dense(2, name="head")])
    model.compile(optimizer, loss="mse")
    return model


def after_one_step(optimizer):
    model = net(optimizer)
    before = model.get_weights()
    model.train_on_batch(X[:8], Y[:8])
    return [after - b for after, b in zip(model.get_weights(), before, strict=True)]


@pytest.mark.parametrize("base", BASES)
def test_a_step_is_the_plain_one_times_the_factor(base):
    plain = after_one_step(base(0.01, weight_decay=0.1))
    scaled = after_one_step(layer_rates(base(0.01, weight_decay=0.1), RATES))
    # The first step of all these is linear in the rate; Keras' decay comes before it.
    for factor, a, b in zip((0.0, 0.5, 1.0, 1.0), plain, scaled, strict=True):
        np.testing.assert_allclose(b, factor * a, rtol=2e-3, atol=1e-7)
    assert np.array_equal(scaled[0], np.zeros((4, 3)))


def test_factors_of_one_change_nothing():
    plain, rated = (
        net(o) for o in (keras.optimizers.Adam(), layer_rates(keras.optimizers.Adam(), {}))
    )
    for model in (plain, rated):
        training.fit(model, DATA, 2)
    for a, b in zip(plain.get_weights(), rated.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("how", ["fit", "Model.fit"])
def test_layers_wake_up_at_their_epoch(how):
    model = net(layer_rates(keras.optimizers.Adam(0.01), {}))
    seen = []
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(model.get_weights())
    )
    callbacks = [UnfreezeAt(2, "^first|/first", 0.5), look]
    if how == "fit":
        training.fit(model, DATA, 4, callbacks=callbacks)
    else:
        model.fit(X, Y, epochs=4, callbacks=callbacks, verbose=0)
    first = [weights[0] for weights in seen]
    head = [weights[2] for weights in seen]
    assert np.array_equal(first[0], first[1])
    assert not np.array_equal(first[1], first[2])
    assert not np.array_equal(head[0], head[1])
    np.testing.assert_array_equal(model.optimizer.factors.numpy(), [0.5, 0.5, 1.0, 1.0])


@pytest.mark.parametrize("base", [keras.optimizers.Adam, keras.optimizers.SGD])
def test_two_replicas_train_as_one(base):
    alone = net(layer_rates(base(0.05, weight_decay=0.01), RATES))
    with training.strategy("cpu:2").scope():
        both = net(layer_rates(base(0.05, weight_decay=0.01), RATES))
    for model in (alone, both):
        training.fit(model, DATA, 3, callbacks=[UnfreezeAt(1, "head", 0.3)])
    for a, b in zip(alone.get_weights(), both.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_it_survives_saving(tmp_path):
    schedule = keras.optimizers.schedules.CosineDecay(0.01, 50)
    model = net(layer_rates(keras.optimizers.Adam(schedule, clipnorm=1.0), RATES))
    training.fit(model, DATA, 1)
    model.optimizer.set_rate("head", 0.25)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is type(model.optimizer)
    assert loaded.optimizer.clipnorm == 1.0
    np.testing.assert_array_equal(loaded.optimizer.factors.numpy(), [0.0, 0.5, 0.25, 0.25])
    for m in (model, loaded):
        training.fit(m, DATA, 1)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_it_works_inside_a_loss_scale():
    optimizer = layer_rates(keras.optimizers.SGD(0.1), RATES)
    scaled = after_one_step(keras.optimizers.LossScaleOptimizer(optimizer))
    plain = after_one_step(keras.optimizers.SGD(0.1))
    for factor, a, b in zip((0.0, 0.5, 1.0, 1.0), plain, scaled, strict=True):
        np.testing.assert_allclose(b, factor * a, rtol=1e-3, atol=1e-7)


def test_errors():
    with pytest.raises(ValueError, match="rates must be at least 0, got -1 for 'head'"):
        layer_rates(keras.optimizers.SGD(), {"head": -1})
    with pytest.raises(ValueError, match=r"rates must match weights such as .*'stage1' does not"):
        training.fit(net(layer_rates(keras.optimizers.SGD(), {"stage1": 0.1})), DATA, 1)
    built = net(keras.optimizers.SGD())
    training.fit(built, DATA, 1)
    with pytest.raises(ValueError, match="optimizer must not be built before it gets rates"):
        layer_rates(built.optimizer, {})
    with pytest.raises(ValueError, match="optimizer must be one from layer_rates, got SGD"):
        training.fit(built, DATA, 1, callbacks=[UnfreezeAt(1, "head")])
    with pytest.raises(ValueError, match=r"layers must match weights such as .*'tail' does not"):
        rated = net(layer_rates(keras.optimizers.SGD(), {}))
        training.fit(rated, DATA, 1, callbacks=[UnfreezeAt(1, "tail")])
    with pytest.raises(ValueError, match="epoch must be at least 0, got -1"):
        UnfreezeAt(-1, "head")
