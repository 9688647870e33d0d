"""The columns of a recommender: which lists are refused, and ids out of range on every device."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcourse import training
from tfcourse.data.features import (
    Category,
    Cross,
    History,
    Number,
    categories_of,
    check_batch,
    check_features,
    columns,
)
from tfcourse.recommendation.embedding import embed, make_inputs
from tfcourse.training import InMemory

ITEM, USER = Category("item", 5), Category("user", 4)
SEEN, BOTH = History("seen", ITEM, 3), Cross("both", (USER, ITEM), 50)
FEATURES = [USER, ITEM, Number("age"), SEEN, BOTH]
BATCH = {
    "user": np.array([1, 3]),
    "item": np.array([4, 0]),
    "age": np.array([0.5, -1.0]),
    "seen": np.array([[1, 2, 0], [4, 0, 0]]),
}


@pytest.mark.parametrize(
    "features, message",
    [
        ([], "features must have at least one column, got none"),
        ([USER, Number("user")], "features must have each name once, got user twice"),
        (
            [ITEM, History("seen", Category("item", 6), 3)],
            "features must have one column item, got Category(name='item', size=6) and "
            "Category(name='item', size=5)",
        ),
        (
            # Its table would be the category's, and the category no column.
            [Cross("user", (USER, ITEM), 9)],
            "features must have one column user, got Category(name='user', size=4) and "
            f"{Cross('user', (USER, ITEM), 9)}",
        ),
        (
            ["user"],
            "features must be of Number, Category, History, Cross, got 'user'",
        ),
        ([Category("item", 1)], "item: size must be at least 2, got 1"),
        ([History("seen", ITEM, 0)], "seen: length must be at least 1, got 0"),
        ([Cross("both", (USER, ITEM), 1)], "both: size must be at least 2, got 1"),
        ([Cross("both", (USER,), 9)], "both: a cross must have at least 2 categories, got 1"),
    ],
)
def test_what_no_model_can_be_built_from(features, message):
    check_features(FEATURES)
    with pytest.raises(ValueError) as error:
        check_features(features)
    assert str(error.value) == message


def test_a_batch_needs_the_categories_of_a_cross_but_not_the_cross():
    assert columns([BOTH, SEEN]) == {"seen": SEEN, "user": USER, "item": ITEM}
    assert [categories_of(f) for f in FEATURES] == [(USER,), (ITEM,), (), (ITEM,), (USER, ITEM)]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"age": None}, "column age is missing; there are item, seen, user"),
        ({"user": np.array([1, 4])}, "column user must have ids from 0 to 3, got 4 in row 1"),
        ({"item": np.array([-1, 4])}, "column item must have ids from 0 to 4, got -1 in row 0"),
        (
            {"seen": np.array([[1, 2, 0], [1, 7, 0]])},
            "column seen must have ids from 0 to 4, got 7 in row 1",
        ),
        ({"age": np.array([1, np.nan])}, "column age must be a finite number, got nan in row 1"),
        (
            {"seen": np.ones((2, 4), int)},
            "column seen must have the shape ('rows', 3), got (2, 4)",
        ),
        ({"user": np.ones((2, 1))}, "column user must have the shape ('rows',), got (2, 1)"),
        ({"user": np.array([1, np.nan])}, "column user must be integers, got float64"),
        ({"age": np.array(["1", "2"])}, "column age must be numbers, got <U1"),
        (
            {"user": np.array([1])},
            "columns must be equally long, got user 1, item 2, age 2, seen 2",
        ),
    ],
)
def test_a_bad_batch_is_one_line_with_column_row_and_value(changes, message):
    check_batch(FEATURES, BATCH)
    batch = {name: array for name, array in (BATCH | changes).items() if array is not None}
    with pytest.raises(ValueError) as error:
        check_batch(FEATURES, batch)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"user": np.array([1, 2**32 + 1])},
            "column user must have ids from 0 to 3, got 4294967297",
        ),
        ({"item": np.array([-1, 4])}, "column item must have ids from 0 to 4, got -1 in row 0"),
        ({"seen": np.array([[1, 2, 0], [1, 7, 0]])}, "column seen must have ids .* got 7 in row 1"),
        ({"item": np.array([1.7, 4])}, "column item must be integers, got float32"),
    ],
)
def test_training_refuses_ids_out_of_range_before_it_begins(network, changes, message):
    network.compile("sgd", "mse")
    before = network.get_weights()
    data = InMemory(BATCH | changes, np.zeros(2), 2)
    with pytest.raises(ValueError, match=f"^{message}"):
        training.fit(network, data, 1)
    for old, new in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_training_judges_inputs_that_come_to_a_table_as_they_are(network):
    """Texts that a model makes ids of are none; a loaded model's inputs are judged as before."""
    names = keras.Input((), name="user", dtype="string")
    lookup = keras.layers.StringLookup(vocabulary=["ann", "bob"])
    others = {n: keras.Input(t.shape[1:], name=n) for n, t in network.input.items() if n != "user"}
    model = keras.Model(others | {"user": names}, network(others | {"user": lookup(names)}))
    model.compile("sgd", "mse")
    texts = BATCH | {"user": np.array(["bob", "eve"])}
    training.fit(model, InMemory(texts, np.zeros(2), 2), 1)
    assert model.optimizer.iterations == 1
    again = keras.Model.from_config(network.get_config())
    again.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"^column user must have ids from 0 to 3, got 4 in row 1"):
        training.fit(again, InMemory(BATCH | {"user": np.array([1, 4])}, np.zeros(2), 2), 1)


@pytest.fixture(scope="module")
def network():
    """A model of every kind of column, whose score is a sum over all vectors."""
    inputs = make_inputs(FEATURES)
    vectors = embed(FEATURES, inputs, 2, "embedding")
    parts = [keras.layers.Flatten()(vector) for vector in vectors.values()]
    parts.append(inputs["age"][:, None])
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.ops.concatenate(parts, axis=1)))
    table = model.get_layer("embedding").table
    table.assign(np.random.default_rng(0).normal(size=table.shape))
    return model


@pytest.mark.parametrize("way", ["eager", "graph", "XLA", "two devices", "predict"])
def test_an_id_out_of_range_is_the_unknown_one_on_every_device(network, way):
    known = {name: BATCH[name].astype("float32" if name == "age" else "int32") for name in BATCH}
    known |= {"item": np.int32([0, 3]), "seen": np.int32([[1, 0, 0], [0, 2, 0]])}
    out = {"item": np.int32([2**31 - 1, 3]), "seen": np.int32([[1, -7, 0], [5, 2, -(2**31)]])}
    # As int32 each of these would be an id that exists.
    wide = {"item": np.int64([2**32 + 1, 3]), "seen": np.int64([[1, 2 - 2**32, 0], [2**40, 2, 0]])}

    def scores(batch):
        if way == "predict":
            return network.predict(batch, verbose=0)
        if way == "two devices":
            with tf.device("CPU:1"):
                return tf.function(network)(batch)
        return {"eager": network, "graph": tf.function(network)}.get(
            way, tf.function(network, jit_compile=True)
        )(batch)

    expected = network(known).numpy()
    np.testing.assert_allclose(scores(known), expected, rtol=1e-5)
    np.testing.assert_allclose(scores(known | out), expected, rtol=1e-5)
    np.testing.assert_allclose(scores(known | wide), expected, rtol=1e-5)
    assert abs(network(known | {"item": np.int32([1, 3])}).numpy() - expected)[0] > 1e-3


def test_an_id_out_of_range_is_the_unknown_one_on_two_replicas(network):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        copy = keras.models.clone_model(network)
        copy.set_weights(network.get_weights())
    batch = {"age": np.float32([0.5]), "seen": np.int32([[9, 1, 0]])}
    batch |= {"user": np.int32([-3]), "item": np.int32([5])}
    known = batch | {"seen": np.int32([[0, 1, 0]]), "user": np.int32([0]), "item": np.int32([0])}
    per_replica = strategy.run(tf.function(copy), ({n: tf.constant(a) for n, a in batch.items()},))
    for scores in strategy.experimental_local_results(per_replica):
        np.testing.assert_allclose(scores, network(known), rtol=1e-5)
