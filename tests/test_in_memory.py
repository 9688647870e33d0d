"""`InMemory`: the order of its examples, its batches, and training on it against `Model.fit`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcourse import training
from tfcourse.training import InMemory

ROWS, BATCH = 29, 8
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 5)).astype("float32")
Y = RNG.integers(0, 3, ROWS).astype("int32")
WEIGHTS = RNG.uniform(0.2, 2.0, ROWS).astype("float32")


def net(optimizer="adam", **settings):
    keras.utils.set_random_seed(7)
    layers = [keras.Input((5,)), keras.layers.Dense(8, "tanh"), keras.layers.BatchNormalization()]
    model = keras.Sequential([*layers, keras.layers.Dropout(0.3, seed=1), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], **settings)
    return model


def same(model, other):
    pairs = zip(model.get_weights(), other.get_weights(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def close(model, other):
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_an_order_is_a_permutation_and_depends_on_seed_and_epoch_alone():
    data, again = InMemory(X, Y, BATCH, seed=4), InMemory(2 * X, Y, 3, seed=4)
    orders = [data.order(epoch) for epoch in range(5)]
    for epoch, order in reversed(list(enumerate(orders))):  # whichever was asked for before
        assert sorted(order) == list(range(ROWS))
        np.testing.assert_array_equal(again.order(epoch), order)
    others = [*orders, InMemory(X, Y, BATCH, seed=5).order(0)]
    assert len({tuple(order) for order in others}) == 6


def test_shuffling_is_fair():
    """Each example comes first in about 30 of 3000 epochs, give or take four deviations."""
    data = InMemory(np.zeros((100, 1)), np.zeros(100), 10)
    first = np.bincount([data.order(epoch)[0] for epoch in range(3000)], minlength=100)
    assert first.min() > 30 - 4 * np.sqrt(30)
    assert first.max() < 30 + 4 * np.sqrt(30)


def test_without_shuffling_the_order_is_that_of_the_arrays():
    data = InMemory(X, Y, BATCH, shuffle=False)
    for epoch in (0, 3):
        np.testing.assert_array_equal(data.order(epoch), np.arange(ROWS))


@pytest.mark.parametrize("rows", [29, 24, 3])
@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_are_all_rows_once(rows, shuffle):
    data = InMemory(X[:rows], Y[:rows], BATCH, sample_weight=WEIGHTS[:rows], shuffle=shuffle)
    assert len(data) == rows
    assert data.steps == -(-rows // BATCH)
    batches = [data.batch(2, step) for step in range(data.steps)]
    assert [len(y) for _, y, _ in batches[:-1]] == [BATCH] * (data.steps - 1)
    order = data.order(2)
    for part, whole in enumerate((X, Y, WEIGHTS)):
        np.testing.assert_array_equal(np.concatenate([b[part] for b in batches]), whole[order])
    for batch, tensors in zip(batches, data.dataset(2), strict=True):
        for a, b in zip(batch, tensors, strict=True):
            np.testing.assert_array_equal(a, b)


def test_structures_and_types():
    inputs = {"a": np.ones((4, 2)), "b": [np.arange(4), np.array(["w", "x", "y", "z"])]}
    data = InMemory(inputs, (np.zeros(4), np.ones((4, 1), bool)), 3, shuffle=False)
    x, (zeros, flags) = data.batch(0, 1)
    assert x["a"].dtype == zeros.dtype == np.float32
    assert x["b"][0].dtype == np.int64
    assert flags.dtype == bool
    assert x["b"][1].tolist() == ["z"]
    assert data.element_spec[0]["a"] == tf.TensorSpec((None, 2), tf.float32)
    assert InMemory(inputs, None, 2).element_spec[0]["a"].shape == (2, 2)  # all batches are full
    (first,) = InMemory(inputs, None, 2, shuffle=False).batch(0, 0)
    np.testing.assert_array_equal(first["b"][0], [0, 1])


def test_what_it_refuses():
    spoiled, weights = X.copy(), WEIGHTS.copy()
    spoiled[17, 2] = spoiled[20, 0] = np.nan
    weights[3] = np.nan
    cases = [
        (lambda: InMemory(spoiled, Y, 8), "inputs must have no NaN, got one in example 17"),
        (lambda: InMemory({"x": X, "z": spoiled}, Y, 8), "got one in example 17 of z$"),
        (lambda: InMemory(X, spoiled, 8), "targets must have no NaN, got one in example 17"),
        (lambda: InMemory(X, Y, 8, sample_weight=weights), "sample_weight must have no NaN.* 3$"),
        (lambda: InMemory(X, Y[:-1], 8), r"equally long.*'inputs': \[29\], 'targets': \[28\]"),
        (lambda: InMemory(X, Y, 8, sample_weight=WEIGHTS[:2]), r"'sample_weight': \[2\]"),
        (lambda: InMemory(X[:0], Y[:0], 8), "at least 1, got lengths"),
        (lambda: InMemory(X, 3, 8), "an axis of examples, got the single value 3"),
        (lambda: InMemory(X, Y, 0), "batch_size must be at least 1, got 0"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


def test_infinite_values_are_not_nan():
    """Masks are made of them; the loss says whether they are a mistake."""
    assert len(InMemory(np.array([np.inf, -np.inf]), None, 1)) == 2


@pytest.mark.parametrize("weighted", [False, True])
def test_training_is_that_of_model_fit_on_the_arrays(weighted):
    weights = WEIGHTS if weighted else None
    model, reference = net(weighted_metrics=["accuracy"]), net(weighted_metrics=["accuracy"])
    data = InMemory(X, Y, BATCH, sample_weight=weights, shuffle=False)
    held_out = (X, Y, WEIGHTS) if weighted else (X, Y)
    settings = {"batch_size": BATCH, "epochs": 3, "shuffle": False, "verbose": 0}
    expected = reference.fit(X, Y, sample_weight=weights, validation_data=held_out, **settings)
    history = training.fit(model, data, 3, validation_data=data).history
    assert history.keys() == expected.history.keys()
    for name, values in expected.history.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-6)
    close(model, reference)
    figures = reference.evaluate(
        X, Y, sample_weight=weights, batch_size=BATCH, verbose=0, return_dict=True
    )
    assert training.evaluate(model, data) == pytest.approx(figures, abs=1e-6)
    outputs = reference.predict(X, batch_size=BATCH, verbose=0)
    np.testing.assert_allclose(training.predict(model, data), outputs, atol=1e-6)


def test_shuffled_training_is_that_on_the_batches_of_each_epoch():
    data, model, reference = InMemory(X, Y, BATCH, seed=3), net(), net()
    training.fit(model, data, 3)
    for epoch in range(3):
        reference.fit(data.dataset(epoch), epochs=1, shuffle=False, verbose=0)
    close(model, reference)


def test_evaluation_does_not_depend_on_the_order_and_prediction_asks_for_one():
    model = net()
    figures = [training.evaluate(model, InMemory(X, Y, 8, shuffle=s)) for s in (True, False)]
    assert figures[0] == pytest.approx(figures[1], abs=1e-6)
    with pytest.raises(ValueError, match=r"data must keep its order.*got shuffle=True"):
        training.predict(model, InMemory(X, Y, 8))


def test_class_weights_are_those_of_model_fit():
    weight = {1: 3.0}  # the others count once, whether below or above
    model, reference = net(), net()
    training.fit(model, InMemory(X, Y, BATCH, shuffle=False), 2, class_weight=weight)
    settings = {"batch_size": BATCH, "epochs": 2, "shuffle": False, "verbose": 0}
    reference.fit(X, Y, class_weight={0: 1.0, 2: 1.0, **weight}, **settings)
    close(model, reference)
    one_hot, by_rows = net(), net()
    for other in (one_hot, by_rows):
        other.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))
    targets, rows = np.eye(3, dtype="float32")[Y], np.array([1.0, 3.0, 1.0], "float32")[Y]
    training.fit(one_hot, InMemory(X, targets, BATCH, shuffle=False), 2, class_weight=weight)
    by_rows.fit(X, targets, sample_weight=rows, **settings)
    close(one_hot, by_rows)


@pytest.mark.parametrize("steps_per_call", [1, 3, 100])
def test_the_number_of_steps_in_a_call_changes_no_bit(steps_per_call):
    data, model, usual = InMemory(X, Y, BATCH), net(), net()
    expected = training.fit(usual, data, 3).history
    history = training.fit(model, data, 3, steps_per_call=steps_per_call).history
    assert history == expected
    assert same(model, usual)


def test_epochs_of_some_steps_go_on_where_the_last_one_ended():
    """Six epochs of two steps are three passes of four: the same order, the same weights."""
    data, model, whole = InMemory(X, Y, BATCH), net(), net()
    history = training.fit(model, data, 6, steps_per_epoch=2)
    training.fit(whole, data, 3)
    assert len(history.history["loss"]) == 6
    assert same(model, whole)


def test_an_epoch_may_be_longer_than_a_pass():
    data, model, whole = InMemory(X, Y, BATCH), net(), net()
    training.fit(model, data, 2, steps_per_epoch=6)
    training.fit(whole, data, 3)
    assert same(model, whole)
    assert int(model.optimizer.iterations.numpy()) == 12
