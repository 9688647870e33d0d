"""DIEN's parts against NumPy and Keras' GRU; its draws; replicas, and going on after a stop."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcourse import training
from tfcourse.data.features import Category, History
from tfcourse.data.in_memory import InMemory
from tfcourse.recommendation import attention_of, build_dien
from tfcourse.recommendation.augru import AUGRU
from tfcourse.recommendation.auxiliary import AuxiliaryLoss, Negatives, auxiliary_loss

USER, ITEM = Category("user", 9), Category("item", 12)
IDS = np.array([[5, 3, 8, 0, 0], [2, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 2, 3, 4, 5]])


def columns(item: Category = ITEM, length: int = 5) -> list:
    return [USER, item, History("seen", item, length)]


def events(rows: int, item: Category = ITEM) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 6, (rows, 1))
    seen = rng.integers(1, item.size, (rows, 5)) * (np.arange(5) < lengths)
    x = {
        "user": rng.integers(0, 9, rows).astype("int32"),
        "item": rng.integers(1, item.size, rows).astype("int32"),
        "seen": seen.astype("int32"),
    }
    return x, rng.integers(0, 2, (rows, 1)).astype("float32")


def compiled(item: Category = ITEM, **arguments) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = build_dien(columns(item), hidden_units=(8,), embedding_dim=4, **arguments)
    model.compile(keras.optimizers.SGD(0.5), keras.losses.BinaryCrossentropy(from_logits=True))
    return model


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def augru_by_hand(weights, vectors, counts):
    """The equations of the paper, one row and one step after the other, the oldest first."""
    w, v, b = (np.asarray(weight, float) for weight in weights)
    n = len(v)
    states = np.zeros((*counts.shape, n))
    for row in range(len(vectors)):
        h = np.zeros(n)
        for j in reversed(range(counts.shape[1])):
            x = vectors[row, j]
            update = sigmoid(x @ w[:, :n] + h @ v[:, :n] + b[:n])
            reset = sigmoid(x @ w[:, n : 2 * n] + h @ v[:, n : 2 * n] + b[n : 2 * n])
            new = np.tanh(x @ w[:, 2 * n :] + reset * (h @ v[:, 2 * n :]) + b[2 * n :])
            scaled = counts[row, j] * update
            h = (1 - scaled) * h + scaled * new
            states[row, j] = h
    return states


def random_augru(units: int, width: int) -> AUGRU:
    layer, rng = AUGRU(units), np.random.default_rng(1)
    layer.build((None, 5, width), (None, 5))
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    return layer


def test_augru_against_numpy():
    rng = np.random.default_rng(0)
    layer = random_augru(3, 4)
    vectors = rng.normal(size=(4, 5, 4)).astype("float32")
    counts = (rng.uniform(size=(4, 5)) * (IDS > 0)).astype("float32")
    found = np.asarray(layer(vectors, counts))
    np.testing.assert_allclose(
        found, augru_by_hand(layer.get_weights(), vectors, counts), atol=1e-5
    )
    # What does not count leaves the state as it was: the last state is that of the row's own
    # length, and zeros for a history that is empty.
    np.testing.assert_array_equal(found[2], np.zeros((5, 3)))
    np.testing.assert_array_equal(found[1, 1:], np.zeros((4, 3)))
    gap = counts.copy()
    gap[3, 2] = 0
    found = np.asarray(layer(vectors, gap))
    np.testing.assert_array_equal(found[3, 2], found[3, 3])


def test_where_attention_is_1_it_is_a_gru_of_keras():
    layer = random_augru(3, 4)
    w, v, b = (weight.numpy() for weight in layer.weights)
    sign = np.repeat([-1.0, 1.0, 1.0], 3)  # the first gate of Keras says what stays
    gru = keras.layers.GRU(3, return_sequences=True)
    gru.build((None, 5, 4))
    gru.set_weights([w * sign, v * sign, np.stack([b * sign, np.zeros(9)])])
    x = np.random.default_rng(0).normal(size=(4, 5, 4)).astype("float32")
    newest_first = gru(x[:, ::-1])[:, ::-1]
    np.testing.assert_allclose(layer(x, np.ones((4, 5), "float32")), newest_first, atol=1e-5)
    masked = gru(x[:, ::-1], mask=tf.constant((IDS > 0)[:, ::-1]))
    last = np.asarray(layer(x, (IDS > 0).astype("float32")))[:, 0]
    np.testing.assert_allclose(last, masked[:, -1], atol=1e-5)


def test_gradients_of_augru_against_finite_differences():
    layer = random_augru(2, 3)
    rng = np.random.default_rng(0)
    x, counts = rng.normal(size=(4, 5, 3)), rng.uniform(size=(4, 5)) * (IDS > 0)
    signs = rng.normal(size=(4, 5, 2))
    with tf.GradientTape() as tape:
        inputs = tf.constant(x, tf.float32), tf.constant(counts, tf.float32)
        tape.watch(inputs)
        loss = tf.reduce_sum(layer(*inputs) * tf.constant(signs, tf.float32))
    found = tape.gradient(loss, [*inputs, *(weight.value for weight in layer.weights)])
    arrays = [x, counts, *(weight.numpy().astype(float) for weight in layer.weights)]
    for array, gradient in zip(arrays, found, strict=True):
        assert gradient.shape == array.shape
        for place in np.ndindex(array.shape):
            array[place] += 1e-5
            more = augru_by_hand(arrays[2:], x, counts)
            array[place] -= 2e-5
            less = augru_by_hand(arrays[2:], x, counts)
            array[place] += 1e-5
            slope = ((more - less) * signs).sum() / 2e-5
            assert float(gradient[place]) == pytest.approx(slope, abs=2e-4), place


def auxiliary_by_hand(states, vectors, negatives, ids):
    total = 0.0
    for row in range(len(ids)):
        losses = [
            -np.log(sigmoid(states[row, j] @ vectors[row, j - 1]))
            - np.log(1 - sigmoid(states[row, j] @ negatives[row, j - 1]))
            for j in range(1, ids.shape[1])
            if ids[row, j] and ids[row, j - 1]
        ]
        total += np.mean(losses) if losses else 0.0
    return total / len(ids)


def test_auxiliary_loss_against_numpy():
    rng = np.random.default_rng(0)
    three = [rng.normal(size=(4, 5, 3)) for _ in range(3)]
    expected = auxiliary_by_hand(*three, IDS)
    assert expected > 0.5
    tensors = [tf.constant(x, tf.float32) for x in three]
    assert float(auxiliary_loss(*tensors, IDS)) == pytest.approx(expected, rel=1e-5)
    padded = [np.pad(x, ((0, 0), (0, 4), (0, 0)), constant_values=7.0) for x in three]
    tensors = [tf.constant(x, tf.float32) for x in padded]
    longer = np.pad(IDS, ((0, 0), (0, 4)))
    assert float(auxiliary_loss(*tensors, longer)) == pytest.approx(expected, rel=1e-5)
    layer = AuxiliaryLoss(0.5)
    np.testing.assert_array_equal(layer(*tensors, longer, training=True), tensors[0])
    assert float(layer.losses[0]) == pytest.approx(0.5 * expected, rel=1e-5)


def test_attention_is_a_softmax_of_what_is_there():
    model = build_dien(columns(), embedding_dim=4)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(size=weight.shape))
    x = {"user": np.ones(4, int), "item": np.array([1, 7, 3, 11]), "seen": IDS}
    names = ["seen_interest", "seen_attention", "seen_evolution"]
    taps = keras.Model(model.input, [model.get_layer(name).output for name in names])
    states, attention, evolved = map(np.asarray, taps(x))
    layer = model.get_layer("embedding")
    table = layer.table.numpy()[layer.rows("item")]
    interest = augru_by_hand(
        model.get_layer("seen_interest").get_weights(), table[IDS], 1.0 * (IDS > 0)
    )
    np.testing.assert_allclose(states, interest, atol=1e-5)
    scores = np.exp(np.einsum("bln,mn,bm->bl", states, _kernel(model), table[x["item"]]))
    scores *= IDS > 0
    expected = scores / np.maximum(scores.sum(axis=1, keepdims=True), 1e-9)
    np.testing.assert_allclose(attention, expected, atol=1e-5)
    by_hand = augru_by_hand(model.get_layer("seen_evolution").get_weights(), states, attention)
    np.testing.assert_allclose(evolved, by_hand, atol=1e-5)
    fields = np.asarray(keras.Model(model.input, model.get_layer("fields").output)(x))
    np.testing.assert_array_equal(fields[:, 8:12], evolved[:, 0])


def _kernel(model):
    return model.get_layer("seen_bilinear").kernel.numpy()


def test_negatives_are_all_others_equally_often():
    layer = Negatives(6, seed=0)
    ids = np.tile(np.arange(6, dtype="int32"), (4_000, 1))
    first, second = (np.asarray(layer(ids, training=True)) for _ in range(2))
    assert np.any(first != second)
    np.testing.assert_array_equal(Negatives(6, seed=0)(ids, training=True), first)
    for place in range(1, 6):
        counts = np.bincount(first[:, place], minlength=6)
        assert counts[0] == counts[place] == 0
        others = np.delete(counts, [0, place])
        # Chi-square of four kinds: above 16.3 once in a thousand times, and the seed is fixed.
        assert ((others - 1_000) ** 2 / 1_000).sum() < 16.3
    np.testing.assert_array_equal(layer(ids), np.zeros_like(ids))


def test_auxiliary_loss_is_added_in_training_alone():
    """Of three ids, two are no padding, so that what is drawn is known."""
    three = Category("item", 3)
    model = compiled(three, auxiliary_weight=0.7)
    x, _ = events(16, three)
    layer = model.get_layer("embedding")
    table = layer.table.numpy()[layer.rows("item")]
    seen = x["seen"]
    states = augru_by_hand(
        model.get_layer("seen_interest").get_weights(), table[seen], 1.0 * (seen > 0)
    )
    extra = 0.7 * auxiliary_by_hand(states, table[seen], table[(3 - seen) % 3], seen)
    model(x, training=True)
    assert float(model.losses[0]) == pytest.approx(extra, rel=1e-4)
    model(x)
    assert not model.losses
    model = build_dien(columns(), auxiliary_weight=0.0)
    model(x, training=True)
    assert not model.losses


def course_states(model, vectors, present):
    """Return the states of Keras' GRU over each row's own history, the oldest first in time."""
    gru = keras.layers.GRU(vectors.shape[-1], return_sequences=True)
    gru.build((None, None, vectors.shape[-1]))
    gru.set_weights(model.get_layer("seen_interest").get_weights())
    states = np.zeros(vectors.shape)
    for row, length in enumerate(present.sum(axis=1)):
        if length:
            own = vectors[row : row + 1, :length].astype("float32")
            states[row, :length] = np.asarray(gru(own[:, ::-1]))[0, ::-1]
    return states


def dense(model, name, x):
    matrix, bias = model.get_layer(name).get_weights()
    return x @ matrix + bias


def test_the_courses_network_against_numpy():
    model = build_dien(columns(), variant="course", embedding_dim=4, hidden_units=(8,))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=weight.shape) / 2 for weight in model.weights])
    x, _ = events(16)
    layer = model.get_layer("embedding")
    rows = {name: layer.table.numpy()[layer.rows(name)] for name in ("user", "item")}
    target, present = rows["item"][x["item"]], x["seen"] > 0
    states = course_states(model, rows["item"][x["seen"]], present)
    attention = sigmoid(dense(model, "seen_unit", states * target[:, None]))
    attention = sigmoid(dense(model, "seen_score", attention))[..., 0] * present
    np.testing.assert_allclose(attention_of(model, "seen")(x), attention, atol=1e-5)
    w, v, b, after, after_bias = model.get_layer("seen_evolution").get_weights()

    def gate(i, vector, state):
        part = slice(4 * i, 4 * i + 4)
        return (vector @ w[:, part] + state @ v[:, part] + b[part]) @ after[i] + after_bias[i]

    last = np.zeros((16, 4))
    for row in range(16):
        for j in reversed(range(present[row].sum())):
            vector, state = states[row, j], last[row]
            update, reset = (sigmoid(gate(i, vector, state)) for i in (0, 1))
            new = np.tanh(gate(2, vector, reset * state))
            last[row] = state + attention[row, j] * update * (new - state)
    fields = np.concatenate([rows["user"][x["user"]], target, last], axis=1)
    hidden = dense(model, "hidden1", fields)
    (slopes,) = model.get_layer("hidden1_prelu").get_weights()
    hidden = np.where(hidden > 0, hidden, slopes * hidden)
    np.testing.assert_allclose(model(x), dense(model, "logits", hidden), atol=1e-4)


def test_the_courses_auxiliary_loss_has_two_networks():
    three = Category("item", 3)
    model = build_dien(columns(three), variant="course", embedding_dim=4)
    x, _ = events(16, three)
    seen, layer = x["seen"], model.get_layer("embedding")
    table = layer.table.numpy()[layer.rows("item")]
    states = course_states(model, table[seen], seen > 0)
    auxiliary = model.get_layer("seen_auxiliary")

    def log_loss(networks, state, vector, sign):
        (a, b), (c, d) = (one.get_weights() for one in networks)
        return np.logaddexp(0, sign * (sigmoid(np.r_[state, vector] @ a + b) @ c + d)[0])

    total = 0.0
    for row, ids in enumerate(seen):
        losses = [
            log_loss(auxiliary.real, states[row, j], table[ids[j - 1]], -1)
            + log_loss(auxiliary.drawn, states[row, j], table[3 - ids[j - 1]], 1)
            for j in range(1, np.count_nonzero(ids))
        ]
        total += np.mean(losses) if losses else 0.0
    model(x, training=True)
    assert float(model.losses[0]) == pytest.approx(0.5 * total / 16, rel=1e-4)
    model(x)
    assert not model.losses
    without = build_dien(columns(), variant="course", auxiliary_weight=0)
    assert without.count_params() < build_dien(columns(), variant="course").count_params()
    without(x, training=True)
    assert not without.losses


def on_replicas(count: int, build, x, y, **arguments) -> list:
    with training.strategy(f"cpu:{count}").scope():
        model = build()
    history = training.fit(model, InMemory(x, y, 13), 2, **arguments).history
    return [history["loss"], *(weight.numpy() for weight in model.weights)]


def small(size: int) -> keras.Model:
    """Negatives and the auxiliary loss without the GRUs, whose graphs take seconds to make."""
    keras.utils.set_random_seed(0)
    ids = keras.Input((5,), dtype="int32")
    embedding = keras.layers.Embedding(size, 3)
    vectors = embedding(ids)
    negatives = embedding(Negatives(size)(ids))
    states = AuxiliaryLoss(2.0)(vectors, vectors, negatives, ids)
    model = keras.Model(ids, keras.layers.Dense(1)(states[:, 0]))
    model.compile(keras.optimizers.SGD(0.5), keras.losses.BinaryCrossentropy(from_logits=True))
    return model


def test_auxiliary_loss_on_two_replicas_is_that_of_one():
    """13 rows are split unevenly. Of three ids only one can be drawn: what it is, is known."""
    x, y = events(21, Category("item", 3))
    one, two = (on_replicas(n, lambda: small(3), x["seen"], y) for n in (1, 2))
    for whole, halves in zip(one, two, strict=True):
        np.testing.assert_allclose(halves, whole, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "activation", "jit_compile"),
    [("paper", "dice", False), ("paper", "prelu", True), ("course", "prelu", False)],
)
def test_two_replicas_are_one_device(variant, activation, jit_compile):
    """Dice has statistics of the batch, which XLA does not compile on several replicas."""
    three, made = Category("item", 3), {"variant": variant, "activation": activation}
    x, y = events(12 if jit_compile else 21, three)  # XLA compiles for each number of rows
    one, two = (
        on_replicas(n, lambda: compiled(three, **made), x, y, jit_compile=jit_compile)
        for n in (1, 2)
    )
    for whole, halves in zip(one, two, strict=True):
        np.testing.assert_allclose(halves, whole, atol=3e-6)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["paper", "course"])
def test_goes_on_to_the_same_bits_after_a_stop(variant, tmp_path):
    data = InMemory(*events(24), 8)
    whole, halves, again = (compiled(variant=variant) for _ in range(3))
    training.fit(whole, data, 2)
    training.fit(halves, data, 1, workdir=tmp_path / "run")
    training.fit(again, data, 2, workdir=tmp_path / "run")
    for one, other in zip(whole.weights, again.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy(), err_msg=one.path)


@pytest.mark.slow
def test_served_from_a_savedmodel(tmp_path):
    model, (x, _) = compiled(), events(6)
    model.export(tmp_path / "served", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "served")
    served = loaded.serve({name: tf.constant(column, "int64") for name, column in x.items()})
    np.testing.assert_allclose(served, model(x), atol=1e-6)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"^auxiliary_weight must be finite, .*, got -1\.0$"):
        build_dien(columns(), auxiliary_weight=-1.0)
    with pytest.raises(ValueError, match=r"^auxiliary_weight must be finite, .*, got inf$"):
        build_dien(columns(), auxiliary_weight=float("inf"))
    message = "^item: size must be at least 3 for the auxiliary loss, got 2$"
    with pytest.raises(ValueError, match=message):
        build_dien(columns(Category("item", 2)))
    assert build_dien(columns(Category("item", 2)), auxiliary_weight=0).name == "dien"
