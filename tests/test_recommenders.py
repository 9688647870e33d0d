"""Recommenders of ids: tables, crosses, and what each model computes, by NumPy."""

import itertools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tfcourse import catalogue, cli, flags, training
from tfcourse.data.features import Category, Cross, History, Number
from tfcourse.recommendation import (
    build_deepfm,
    build_embedding_mlp,
    build_factorization_machine,
    build_neural_cf,
    build_wide_and_deep,
    course,
    start_from,
)
from tfcourse.recommendation.embedding import Crossed, Embedding
from tfcourse.recommendation.randomness import Dropout, random_bits
from tfcourse.training.ftrl import FtrlAdagrad

USER, ITEM, GENRE = Category("user", 40), Category("item", 30), Category("genre", 5)
SEEN = History("seen", item=ITEM, length=4)
CROSS = Cross("user_x_genre", (USER, GENRE), 50)
FEATURES = [USER, ITEM, Number("age"), GENRE, SEEN, Number("hour")]
WITH_CROSS = [*FEATURES, CROSS]
PAIRS = (("item", "user"), ("genre", "user"))
ROWS = 64
RNG = np.random.default_rng(0)
BATCH = {
    "user": RNG.integers(0, 40, ROWS),
    "item": RNG.integers(0, 30, ROWS),
    "genre": RNG.integers(0, 5, ROWS),
    "seen": np.where(np.arange(4) < RNG.integers(0, 5, (ROWS, 1)), 1 + np.arange(4), 0),
    "age": RNG.normal(size=ROWS).astype("float32"),
    "hour": RNG.normal(size=ROWS).astype("float32"),
}
BATCH_OF_IDS = {name: BATCH[name] for name in ("user", "genre", "seen")}
# That of rows whose user and genre fit: no column alone says it.
LABELS = ((BATCH["user"] + BATCH["genre"]) % 2).astype("float32")[:, None]

BUILT = {
    "embedding_mlp": build_embedding_mlp,
    "wide_and_deep": lambda features: build_wide_and_deep(
        [*features, CROSS], wide=["user_x_genre", "seen"]
    ),
    "factorization_machine": build_factorization_machine,
    "deepfm": build_deepfm,
    "deepfm of the course": lambda features: build_deepfm(
        features, variant="course", pairs=(*PAIRS, ("seen", "item"))
    ),
    "second deepfm of the course": lambda features: build_deepfm(features, variant="course_v2"),
}
each_model = pytest.mark.parametrize("name", BUILT)


def randomized(model, seed=0):
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape) / 3)
    return model


def compiled(model, optimizer="adam"):
    model.compile(optimizer, keras.losses.BinaryCrossentropy(from_logits=True))
    return model


def close(ours, expected, tolerance=1e-5):
    np.testing.assert_allclose(ours, expected, rtol=tolerance, atol=tolerance)


def two_tables(dim=3, users=40):
    """Return a layer with a table of items, shared by a history, between two others."""
    tables = {"user": users, "item": 30, "genre": 5}
    used = {"user": "user", "seen": "item", "genre": "genre", "item": "item"}
    layer = Embedding(tables, used, dim, name="embedding")
    layer.build(None)
    layer.table.assign(np.random.default_rng(1).normal(size=layer.table.shape))
    return layer


def ids_of(layer, batch=BATCH):
    return {name: tf.constant(batch[name], "int32") for name in layer.columns}


def test_the_table_is_as_one_embedding_layer_for_each_column():
    layer = two_tables()
    found = layer(ids_of(layer))
    for column, name in layer.columns.items():
        theirs = keras.layers.Embedding(layer.tables[name], 3)
        theirs.build(None)
        theirs.set_weights([layer.table.numpy()[layer.rows(name)]])
        np.testing.assert_array_equal(found[column], theirs(BATCH[column]))
    assert [layer.rows(name) for name in layer.tables] == [
        slice(0, 40),
        slice(40, 70),
        slice(70, 75),
    ]


def out_of_range():
    wrong = {name: np.array(values) for name, values in BATCH.items()}
    wrong["user"][:3] = (-1, 40, 2**31 - 1)
    wrong["genre"][:3] = (5, -40, -(2**31))
    wrong["seen"][:2] = ((30, -1, 1, 0), (-71, 2, 3, 75))
    right = {name: values.copy() for name, values in wrong.items()}
    right["user"][:3] = right["genre"][:3] = 0
    right["seen"][:2] = ((0, 0, 1, 0), (0, 2, 3, 0))
    return wrong, right


@pytest.mark.parametrize("jit_compile", [None, False, True], ids=["eager", "graph", "XLA"])
def test_an_id_out_of_range_has_the_row_of_what_is_unknown(jit_compile):
    layer = two_tables()
    call = layer
    if jit_compile is not None:
        call = tf.function(layer.call, jit_compile=jit_compile, autograph=False)
    wrong, right = (call(ids_of(layer, batch)) for batch in out_of_range())
    for column in layer.columns:
        np.testing.assert_array_equal(wrong[column], right[column])


def test_an_id_out_of_range_scores_the_same_on_two_devices():
    wrong, right = out_of_range()
    with training.strategy("cpu:2").scope():
        model = randomized(build_factorization_machine(FEATURES))
    batches = [tf.data.Dataset.from_tensors(batch) for batch in (wrong, right)]
    scores = [training.predict(model, batch) for batch in batches]
    np.testing.assert_array_equal(*scores)
    close(scores[0], randomized(build_factorization_machine(FEATURES))(right))


def test_an_id_out_of_range_makes_no_cross():
    wrong, right = out_of_range()
    model = randomized(build_wide_and_deep(WITH_CROSS, wide=["user_x_genre", "seen"]))
    np.testing.assert_array_equal(model(wrong), model(right))


def crossed_in_numpy(first, second, size):
    """FNV-1a with a shift, by Python's integers of any size."""
    found = []
    for ids in zip(first.tolist(), second.tolist(), strict=True):
        mixed = 2166136261
        for value in ids:
            mixed = (mixed ^ value) * 16777619 % 2**32
            signed = mixed - 2**32 if mixed >= 2**31 else mixed
            mixed ^= (signed >> 15) % 2**32
        found.append(0 if 0 in ids else 1 + mixed % 2**31 % (size - 1))
    return np.array(found)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_cross_is_the_same_number_everywhere(jit_compile):
    first, second = (RNG.integers(0, 2**20, 500) * RNG.integers(0, 2, 500) for _ in range(2))
    call = tf.function(Crossed(1_000).call, jit_compile=jit_compile, autograph=False)
    ours = call([tf.constant(first, "int32"), tf.constant(second, "int32")])
    np.testing.assert_array_equal(ours, crossed_in_numpy(first, second, 1_000))


@pytest.mark.parametrize("size", [11, 101, 1_000])
def test_a_cross_is_spread_evenly(size):
    """All pairs of 200 users and 150 items: a chi-square no larger than that of chance."""
    first, second = (ids.ravel() for ids in np.meshgrid(np.arange(1, 201), np.arange(1, 151)))
    ours = Crossed(size)([tf.constant(first, "int32"), tf.constant(second, "int32")]).numpy()
    assert ours.min() == 1 and ours.max() == size - 1
    assert stats.chisquare(np.bincount(ours)[1:]).pvalue > 1e-3


@pytest.mark.parametrize("users", [40, 100_000])
def test_the_gradient_of_a_large_table_has_the_rows_of_the_batch_alone(users):
    layer = two_tables(users=users)
    ids = ids_of(layer)
    with tf.GradientTape() as tape:
        loss = sum(tf.reduce_sum(x**2) for x in layer(ids).values())
    gradient = tape.gradient(loss, layer.trainable_variables)[0]
    if users > 40:
        assert isinstance(gradient, tf.IndexedSlices)
        assert gradient.values.shape == (ROWS * 7, 3)
    # Twice the value, as often as the id is there.
    times = np.zeros(sum(layer.tables.values()))
    for column, name in layer.columns.items():
        np.add.at(times, layer.rows(name).start + BATCH[column], 1)
    close(tf.convert_to_tensor(gradient), 2 * times[:, None] * layer.table.numpy())


@pytest.mark.parametrize(
    "optimizer",
    [training.LazyAdam, pytest.param(keras.optimizers.Adam, marks=pytest.mark.slow)],
)
def test_a_table_learns_and_rows_that_no_batch_has_stay(optimizer):
    keras.utils.set_random_seed(0)
    model = compiled(build_deepfm(FEATURES, hidden_units=(16,)), optimizer(0.02))
    data = training.InMemory(BATCH, LABELS, 16)
    layer = model.get_layer("embedding")
    before = layer.table.numpy()
    history = training.fit(model, data, 30)
    assert history.history["loss"][0] > 0.6
    assert history.history["loss"][-1] < 0.3
    moved = np.any(layer.table.numpy() != before, axis=1)
    used = np.zeros(len(before), bool)
    for column, name in layer.columns.items():
        used[layer.rows(name).start + np.unique(BATCH[column])] = True
    used[layer.rows("item").start] = (BATCH["item"] == 0).any()  # padding is no item
    np.testing.assert_array_equal(moved, used)


@each_model
def test_zeros_at_the_end_of_a_history_change_no_score(name):
    short, long = (
        [History("seen", ITEM, length) if f is SEEN else f for f in FEATURES] for length in (4, 9)
    )
    longer = BATCH | {"seen": np.pad(BATCH["seen"], ((0, 0), (0, 5)))}
    scores = randomized(BUILT[name](short))(BATCH)
    again = randomized(BUILT[name](long))(longer)
    np.testing.assert_array_equal(scores, again)
    emptied = BATCH | {"seen": np.zeros_like(BATCH["seen"])}
    changed = np.any(np.asarray(randomized(BUILT[name](short))(emptied)) != scores, axis=1)
    np.testing.assert_array_equal(changed, BATCH["seen"][:, 0] > 0)


def rows_in_numpy(model, layer="embedding", batch=BATCH):
    """Return each column's rows of a table, `(batch, dim)`; of a history the mean by a loop."""
    layer = model.get_layer(layer)
    table, found = layer.table.numpy().astype("float64"), {}
    for column, name in layer.columns.items():
        rows = table[layer.rows(name)]
        if batch[column].ndim == 1:
            found[column] = rows[batch[column]]
        else:
            zeros = np.zeros(table.shape[1])
            kept = [[rows[i] for i in ids if i] for ids in batch[column]]
            found[column] = np.array([np.mean(k, axis=0) if k else zeros for k in kept])
    return found


def hidden_in_numpy(model, x, name="hidden"):
    for layer in model.layers:
        if re.fullmatch(rf"{name}\d+", layer.name):
            kernel, bias = layer.get_weights()
            x = np.maximum(x @ kernel + bias, 0)
    return x


def machine_in_numpy(model):
    """Return sum_i w_i + sum_(i<j) <v_i, v_j> by a loop over pairs."""
    found = list(rows_in_numpy(model).values())
    table = model.get_layer("number_vectors").table.numpy()
    found += [BATCH[name][:, None] * table[i] for i, name in enumerate(("age", "hour"))]
    linear = sum(rows[:, :1] for rows in found)
    pairs = itertools.combinations([rows[:, 1:] for rows in found], 2)
    return linear + sum(np.sum(a * b, axis=1, keepdims=True) for a, b in pairs)


def deep_in_numpy(model, columns, layer="embedding", skip=0):
    rows = rows_in_numpy(model, layer)
    parts = [rows[name][:, skip:] for name in columns]
    x = np.concatenate([*parts, BATCH["age"][:, None], BATCH["hour"][:, None]], axis=1)
    return hidden_in_numpy(model, x)


def kernel(model, name):
    return model.get_layer(name).kernel.numpy()


def bias(model):
    return model.get_layer("logits").bias.numpy()


def test_factorization_machine_is_the_sum_over_all_pairs():
    model = randomized(build_factorization_machine(FEATURES, embedding_dim=5))
    close(model(BATCH), machine_in_numpy(model) + bias(model))


def test_deepfm_shares_its_vectors():
    model = randomized(build_deepfm(FEATURES, embedding_dim=5, hidden_units=(7, 6)))
    deep = deep_in_numpy(model, ("user", "item", "genre", "seen"), skip=1)
    expected = machine_in_numpy(model) + deep @ kernel(model, "deep") + bias(model)
    close(model(BATCH), expected)


def test_deepfm_of_the_course_has_its_own_pairs_and_tables():
    model = randomized(build_deepfm(FEATURES, variant="course", pairs=PAIRS))
    weights, rows = rows_in_numpy(model, "weights"), rows_in_numpy(model, "pair_embedding")
    assert set(weights) == set(rows) == {"item", "user", "genre"}
    products = np.stack([np.sum(rows[a] * rows[b], axis=1) for a, b in PAIRS], axis=1)
    deep = deep_in_numpy(model, ("item", "user", "seen"), "deep_embedding")
    expected = sum(weights.values()) + products @ kernel(model, "products")
    close(model(BATCH), expected + deep @ kernel(model, "deep") + bias(model))


def test_the_courses_second_deepfm_has_all_pairs_of_what_it_projects():
    model = randomized(build_deepfm(FEATURES, variant="course_v2"))
    numbers = np.stack([BATCH["age"], BATCH["hour"]], axis=1)
    found = list((rows_in_numpy(model) | {"all_numbers": numbers}).items())
    layers = [model.get_layer(f"projected_{name}").get_weights() for name, _ in found]
    z = [x @ matrix + shift for (_, x), (matrix, shift) in zip(found, layers, strict=True)]
    pairs = 2 * sum(a * b for a, b in itertools.combinations(z, 2))
    assert pairs.shape == (ROWS, 64)
    linear = sum(rows_in_numpy(model, "weights").values()) + model.get_layer("linear").bias
    linear += numbers @ kernel(model, "number_weights") + model.get_layer("number_weights").bias
    deep = hidden_in_numpy(model, np.concatenate(z, axis=1))
    parts = np.concatenate([linear, pairs, deep], axis=1)
    close(model(BATCH), parts @ kernel(model, "logits") + bias(model), 1e-4)
    build_deepfm([USER, ITEM], variant="course_v2")  # no numbers, one field less


@pytest.mark.parametrize("variant", ["paper", "course", "course_v2"])
def test_a_deepfm_of_a_cross(variant):
    model = build_deepfm(WITH_CROSS, variant=variant, pairs=[("user_x_genre", "item")])
    ids = np.asarray(keras.Model(model.input, model.get_layer("user_x_genre").output)(BATCH))
    np.testing.assert_array_equal(ids, crossed_in_numpy(BATCH["user"], BATCH["genre"], 50))
    assert model(BATCH).shape == (ROWS, 1)


def test_embedding_mlp_reads_vectors_and_numbers():
    model = randomized(build_embedding_mlp(FEATURES))
    deep = deep_in_numpy(model, ("user", "item", "genre", "seen"))
    close(model(BATCH), deep @ kernel(model, "logits") + bias(model))


@pytest.mark.parametrize("wide", [None, ["user", "user_x_genre", "seen"]])
def test_wide_and_deep_adds_a_weight_for_each_id_and_cross(wide):
    model = randomized(build_wide_and_deep(WITH_CROSS, wide=wide))
    ids = crossed_in_numpy(BATCH["user"], BATCH["genre"], 50)
    weights = rows_in_numpy(model, "wide", BATCH | {"user_x_genre": ids})
    assert list(weights) == (wide or ["user_x_genre"])
    deep = deep_in_numpy(model, ("user", "item", "genre", "seen"))
    close(model(BATCH), sum(weights.values()) + deep @ kernel(model, "deep") + bias(model))


def test_a_cross_that_is_not_wide_is_deep():
    other = Cross("item_x_genre", (ITEM, GENRE), 60)
    model = build_wide_and_deep([*WITH_CROSS, other], wide=["user_x_genre", "user"])
    assert set(model.get_layer("wide").columns) == {"user_x_genre", "user"}
    assert set(model.get_layer("embedding").columns) == {
        *("user", "item", "genre", "seen", "item_x_genre")
    }


def test_a_cross_brings_the_columns_of_its_categories():
    model = build_wide_and_deep([ITEM, CROSS])
    assert set(model.input) == {"item", "user", "genre"}
    assert not np.any(model.get_layer("wide").table)  # FTRL begins at zero


def ncf(kind, **sizes):
    return randomized(build_neural_cf(kind, USER, ITEM, **sizes), seed=len(kind))


def ncf_in_numpy(model):
    """Return what the last layer of a NeuralCF reads."""
    names, parts = {layer.name for layer in model.layers}, []
    if "gmf_embedding" in names:
        rows = rows_in_numpy(model, "gmf_embedding")
        parts.append(rows["user"] * rows["item"])
    if "mlp_embedding" in names:
        rows = rows_in_numpy(model, "mlp_embedding")
        if "user1" in names:
            towers = [hidden_in_numpy(model, rows[name], name) for name in ("user", "item")]
            return np.sum(towers[0] * towers[1], axis=1, keepdims=True)
        parts.append(hidden_in_numpy(model, np.concatenate([rows["user"], rows["item"]], axis=1)))
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("kind", ["gmf", "mlp", "neumf", "course_mlp", "course_towers"])
def test_neural_cf(kind):
    model = ncf(kind)
    expected = ncf_in_numpy(model) @ kernel(model, "logits") + bias(model)
    close(model({name: BATCH[name] for name in ("user", "item")}), expected)


@pytest.mark.parametrize("alpha", [0.5, 0.2, 1.0])
def test_neumf_begins_as_the_weighted_sum_of_both(alpha):
    sizes = {"embedding_dim": 6, "hidden_units": (8, 5)}
    gmf, mlp, neumf = (ncf(kind, **sizes) for kind in ("gmf", "mlp", "neumf"))
    batch = {name: BATCH[name] for name in ("user", "item")}
    parts = gmf(batch), mlp(batch)
    assert start_from(neumf, gmf, mlp, alpha) is neumf
    close(neumf(batch), alpha * parts[0] + (1 - alpha) * parts[1])
    assert np.any(np.asarray(parts[0]) != np.asarray(parts[1]))


BOTH = {"learning_rate": 0.1, "ftrl_factor": 0.5, "l1": 0.02, "l2": 0.01}


def wide_and_deep():
    keras.utils.set_random_seed(0)
    features = [USER, GENRE, SEEN, CROSS]
    return build_wide_and_deep(features, wide=["user_x_genre", "user"], hidden_units=(8,))


def trained(optimizer=BOTH, strategy="cpu", epochs=3, **settings):
    with training.strategy(strategy).scope():
        model = compiled(wide_and_deep(), FtrlAdagrad(**optimizer))
    training.fit(model, training.InMemory(BATCH_OF_IDS, LABELS, 16), epochs, **settings)
    return {weight.path: weight.numpy() for weight in model.weights}


@pytest.fixture(scope="module")
def two_optimizers():
    return trained()


def test_ftrl_and_adagrad_are_those_of_keras(two_optimizers):
    """Each part, while the other is held: by one gradient a step, from the whole model."""
    model = wide_and_deep()
    wide = [w for w in model.weights if w.path.startswith("wide/")]
    deep = [w for w in model.weights if not w.path.startswith("wide/")]
    ftrl = keras.optimizers.Ftrl(
        0.05, l1_regularization_strength=0.02, l2_regularization_strength=0.01
    )
    adagrad = keras.optimizers.Adagrad(0.1)
    data = training.InMemory(BATCH_OF_IDS, LABELS, 16)
    for epoch, step in itertools.product(range(3), range(data.steps)):
        x, y = data.batch(epoch, step)
        with tf.GradientTape(persistent=True) as tape:
            logits = model(x, training=True)
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(y, logits))
        for optimizer, weights in ((ftrl, wide), (adagrad, deep)):
            gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, weights)]
            optimizer.apply(gradients, weights)
    for weight in model.weights:
        close(two_optimizers[weight.path], weight.numpy(), 2e-5)
    users = two_optimizers["wide/table"][model.get_layer("wide").rows("user")]
    assert 0 < np.count_nonzero(users) < len(np.unique(BATCH["user"]))


def test_weight_decay_reaches_the_rows_of_adagrad_and_not_ftrl():
    values = np.random.default_rng(0).normal(size=(3, 2)).astype("float32")
    table, wide, theirs = (
        keras.Variable(values, name=name) for name in ("table", "wide", "theirs")
    )
    gradient = tf.IndexedSlices(tf.ones((3, 2)), tf.range(3), tf.constant([3, 2]))
    one, without = (FtrlAdagrad(0.1, ftrl="wide", weight_decay=decay) for decay in (0.5, None))
    one.apply([gradient, gradient], [table, wide])
    keras.optimizers.Adagrad(0.1, weight_decay=0.5).apply([tf.ones((3, 2))], [theirs])
    close(table, theirs.numpy())
    twin = keras.Variable(values, name="wide")
    without.apply([gradient], [twin])
    np.testing.assert_array_equal(wide, twin)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"strategy": "cpu:2"}, marks=pytest.mark.slow),
        pytest.param({"jit_compile": True}, marks=pytest.mark.slow),
        pytest.param({"strategy": "cpu:2", "jit_compile": True}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_ftrl_and_adagrad_are_the_same_on_any_device(two_optimizers, settings):
    again = trained(**settings)
    for path, weight in two_optimizers.items():
        close(again[path], weight)


@pytest.mark.slow
def test_ftrl_and_adagrad_go_on_after_a_resume(two_optimizers, tmp_path):
    for epochs in (1, 3):
        resumed = trained(epochs=epochs, workdir=tmp_path)
    for path, weight in two_optimizers.items():
        np.testing.assert_array_equal(resumed[path], weight)
    optimizer = FtrlAdagrad(**BOTH)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deepfm", "embedding_mlp"])
def test_two_devices_train_as_one(name):
    weights = {}
    for device in ("cpu", "cpu:2"):
        keras.utils.set_random_seed(0)
        with training.strategy(device).scope():
            model = compiled(BUILT[name]([USER, GENRE, SEEN]), keras.optimizers.Adam(0.01))
        training.fit(model, training.InMemory(BATCH_OF_IDS, LABELS, 20), 2)
        weights[device] = model.get_weights()
    for one, two in zip(*weights.values(), strict=True):
        close(one, two)


def bits_of(calls, seed=0, size=4_096, jit_compile=None):
    generator = keras.random.SeedGenerator(seed)
    draw = tf.function(
        lambda: random_bits((size,), generator), autograph=False, jit_compile=jit_compile
    )
    return np.stack([draw().numpy() for _ in range(calls)])


def test_random_bits_are_spread_evenly_and_know_nothing_of_each_other():
    bits = bits_of(32)
    ones = np.unpackbits(bits.view("uint8")).reshape(-1, 32)
    # Each bit is 1 in half of the 131,072 numbers, a standard deviation being 0.0014; and so is
    # whether two bits agree, of one number, of neighbours, and of the same place in the next call.
    assert np.abs(ones.mean(axis=0) - 0.5).max() < 0.007
    agree = np.corrcoef(ones.T)[~np.eye(32, dtype=bool)]
    assert np.abs(agree).max() < 0.015
    share = (bits < 0.3 * 2**32).astype(float)
    for axis in (0, 1):
        ahead = share.take(range(1, share.shape[axis]), axis)
        behind = share.take(range(share.shape[axis] - 1), axis)
        assert abs(np.corrcoef(ahead.ravel(), behind.ravel())[0, 1]) < 0.015
    assert stats.chisquare(np.bincount((bits >> 25).ravel())).pvalue > 1e-3
    assert stats.chisquare(np.bincount((bits % 100).ravel())).pvalue > 1e-3


def test_random_bits_are_those_of_the_seed_with_xla_too():
    np.testing.assert_array_equal(bits_of(2), bits_of(2, jit_compile=True))
    assert np.mean(bits_of(2) == bits_of(2, seed=1)) < 0.01


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_keeps_shares_and_the_mean(rate):
    x = tf.ones((300, 400))
    layer = Dropout(rate, seed=3)
    first, second = (layer(x, training=True).numpy() for _ in range(2))
    # The standard deviation of a share of 120,000 is 0.0014 at most.
    assert np.mean(first == 0) == pytest.approx(rate, abs=0.006)
    np.testing.assert_allclose(first[first != 0], 1 / (1 - rate), rtol=1e-6)
    assert np.mean((first == 0) & (second == 0)) == pytest.approx(rate**2, abs=0.006)
    np.testing.assert_array_equal(layer(x), x)
    again = Dropout.from_config(layer.get_config())
    np.testing.assert_array_equal(again(x, training=True), first)


def test_replicas_drop_other_units():
    """Of two equal rows, one a device, both, one or none adds to the gradient of a weight."""
    with training.strategy("cpu:2").scope():
        inputs = keras.Input((400,))
        dropped = Dropout(0.5, seed=0)(inputs)
        outputs = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")(dropped)
        model = keras.Model(inputs, outputs)
        model.compile(keras.optimizers.SGD(0.25), "mse")
    training.fit(model, training.InMemory(np.ones((2, 400)), np.ones((2, 1)), 2), 1)
    weights, counts = np.unique(model.get_weights()[0], return_counts=True)
    close(weights, [0, 0.5, 1])
    assert stats.chisquare(counts, [100, 200, 100]).pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["factorization_machine", "wide_and_deep"])
def test_learns_pairs(name):
    """Labels of which no column alone tells anything."""
    rng = np.random.default_rng(1)
    rows = {"user": rng.integers(1, 40, 4_000), "genre": rng.integers(1, 5, 4_000)}
    rows["item"] = rows["genre"] + 5 * rng.integers(0, 5, 4_000)
    rows["seen"] = np.zeros((4_000, 4), int)
    rows |= {name: rng.normal(size=4_000).astype("float32") for name in ("age", "hour")}
    labels = ((rows["user"] + rows["genre"]) % 2).astype("float32")[:, None]
    keras.utils.set_random_seed(0)
    model = compiled(BUILT[name](FEATURES), keras.optimizers.Adam(0.01))
    training.fit(model, training.InMemory(rows, labels, 100), 30, jit_compile=True)
    right = (np.asarray(model(rows)) > 0) == (labels > 0.5)
    assert right.mean() > 0.97


REFUSED = [
    (lambda: build_deepfm([]), "features must have at least one column, got none"),
    (lambda: build_deepfm([USER, USER]), "features must have each name once, got user twice"),
    (
        lambda: build_factorization_machine([Number("age"), Number("hour")]),
        "features must have a category, got numbers alone: age, hour",
    ),
    (
        lambda: build_embedding_mlp([USER, History("seen", Category("user", 7), 3)]),
        "features must have one column user, got .*7.* and .*40",
    ),
    (
        lambda: build_embedding_mlp(FEATURES, variant="2016"),
        r"variant must be one of \['paper', 'course'\], got '2016'",
    ),
    (
        lambda: build_wide_and_deep(FEATURES),
        "features must have a cross, or wide must name columns; got neither",
    ),
    (
        lambda: build_wide_and_deep(WITH_CROSS, wide=["age"]),
        r"wide must name columns of user, .*, user_x_genre, each once, got \['age'\]$",
    ),
    (
        lambda: build_wide_and_deep(WITH_CROSS, wide=["user", "user"]),
        r"wide must name columns of .*, each once, got \['user', 'user'\]$",
    ),
    (
        lambda: build_wide_and_deep([CROSS]),
        "features must have a column for the deep part, got none but crosses$",
    ),
    (lambda: build_wide_and_deep(WITH_CROSS, wide=[]), r"wide must name columns .*, got \[\]"),
    (
        lambda: build_deepfm(FEATURES, variant="course"),
        r"pairs must be of the columns user, item, genre, seen, got \[\('movieId', 'userId'\)",
    ),
    (lambda: build_deepfm(FEATURES, variant="course", pairs=()), r"pairs must be .*, got \[\]"),
    (
        lambda: build_deepfm(FEATURES, variant="course", pairs=[("user",)]),
        r"pairs must be .*, got \[\('user',\)\]$",
    ),
    (
        lambda: build_deepfm(FEATURES, hidden_units=64),
        "hidden_units must be whole numbers of at least 1, got 64$",
    ),
    (
        lambda: build_factorization_machine(FEATURES, embedding_dim=0),
        "embedding_dim must be a whole number of at least 1, got 0",
    ),
    (
        lambda: build_deepfm(FEATURES, embedding_dim=8.0),
        "embedding_dim must be a whole number of at least 1, got 8.0",
    ),
    (
        lambda: build_deepfm(FEATURES, hidden_units=(8, 0)),
        r"hidden_units must be whole numbers of at least 1, got \(8, 0\)",
    ),
    (
        lambda: build_embedding_mlp(FEATURES, hidden_units=()),
        r"hidden_units must be whole numbers of at least 1, got \(\)",
    ),
    (
        lambda: build_wide_and_deep(WITH_CROSS, dropout=1.0),
        "dropout must be from 0 to below 1, got 1.0",
    ),
    (
        lambda: build_neural_cf("ncf", USER, ITEM),
        r"kind must be one of \['gmf', 'mlp', 'neumf', 'course_mlp', .*\], got 'ncf'",
    ),
    (
        lambda: build_neural_cf("gmf", Number("user"), ITEM),
        r"user must be a category, got Number\(name='user'\)$",
    ),
    (
        lambda: build_neural_cf("mlp", USER, SEEN),
        r"item must be a category, got History\(name='seen', .*\)$",
    ),
    (lambda: build_neural_cf("gmf", USER, USER), "features must have each name once, got user"),
    (
        lambda: start_from(ncf("neumf"), ncf("mlp"), ncf("gmf")),
        "models must be a neumf, a gmf and an mlp, got neumf, mlp, gmf",
    ),
    (
        lambda: start_from(ncf("neumf"), ncf("gmf"), ncf("mlp"), 1.5),
        "alpha must be from 0 to 1, got 1.5",
    ),
    (
        lambda: start_from(ncf("neumf"), ncf("gmf", embedding_dim=5), ncf("mlp")),
        "models must have the same sizes, got .* in gmf_embedding",
    ),
    (
        lambda: FtrlAdagrad(l1=-1.0),
        "ftrl_factor must be above 0, l1 and l2 at least 0, got 1.0, -1.0, 0.0",
    ),
    (
        lambda: FtrlAdagrad(ftrl="cross").build(build_deepfm(FEATURES).weights),
        "ftrl must match weights such as .*; 'cross' does not",
    ),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=f"^{message}") as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "total"),
    [
        (["deepfm", "--variant", "course"], "657,481"),
        *(
            pytest.param(*row, marks=pytest.mark.slow)
            for row in (
                (["embedding_mlp", "--variant=course", "--hidden-units=128,128"], "342,005"),
                (["neural_cf", "--kind", "course_mlp"], "310,351"),
                (["factorization_machine", "--embedding-dim=10"], "341,518"),
            )
        ),
    ],
    ids=str,
)
def test_summary_of_a_recommender(words, total, capsys):
    """Of the columns of the course: no flag can carry others."""
    with pytest.raises(SystemExit) as stop:
        cli.execute(lambda: cli._summary(words[0], words[1:]))
    assert not stop.value.code
    printed = capsys.readouterr().out
    assert re.search(rf"^total +{total}$", printed, re.MULTILINE)
    assert ", columns " in printed


def test_every_recommender_has_columns_to_be_looked_at_with():
    needed = {x for b in catalogue.builders().values() for x in flags.without_flag(b)}
    assert {"features", "user", "item"} <= needed <= set(course.examples("deepfm"))


def test_the_courses_columns_fit_its_tables():
    """Every genre of MovieLens-100k has an id of its own, beside 0 for none."""
    assert len(set(course.GENRES)) == 18
    assert {genre.size for genre in [*course.USER_GENRES, *course.MOVIE_GENRES]} == {19}
