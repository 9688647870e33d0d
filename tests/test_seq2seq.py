"""Attention and networks that translate: against NumPy and Keras, and blind to padding."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfcourse import training
from tfcourse.data.in_memory import InMemory
from tfcourse.sequence import attention_maps, build_seq2seq, greedy_search
from tfcourse.sequence.attention import (
    additive_scores,
    dot_scores,
    masked_softmax,
    scaled_dot_product,
)
from tfcourse.sequence.cells import gru_step
from tfcourse.sequence.recurrence import gru_update, product, scan, step_once
from tfcourse.sequence.seq2seq import ATTENTION

SOURCE = np.array([[3, 8, 1, 4, 2], [5, 0, 0, 0, 0], [0] * 5, [1, 2, 3, 0, 0]], "int32")
TARGET = np.array([[2, 4, 1, 6], [2, 5, 0, 0], [2, 1, 4, 0], [2, 0, 0, 0]], "int32")
PAIRS = {"source": SOURCE, "target": TARGET}
SOURCE_LENGTHS, TARGET_LENGTHS = (5, 1, 0, 3), (4, 2, 3, 1)
MASK = SOURCE > 0
LATE = [
    kind if kind == "luong" else pytest.param(kind, marks=pytest.mark.slow) for kind in ATTENTION
]
every_kind = pytest.mark.parametrize("attention", ATTENTION)


def normal(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@functools.cache
def small(attention: str, **arguments) -> keras.Model:
    """Return a network whose weights are large enough that everything matters."""
    model = build_seq2seq(attention, 9, 7, embedding_dim=4, units=5, **arguments)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(scale=0.7, size=w.shape) for w in model.get_weights()])
    return model


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


# Attention


def test_additive_scores_are_those_of_keras():
    queries, keys, v = normal(3, 4, 5), normal(3, 6, 5, seed=2), normal(5, seed=3)
    layer = layers.AdditiveAttention()
    layer.build([queries.shape, keys.shape])
    layer.set_weights([v])
    values = normal(3, 6, 2, seed=4)
    mask = np.arange(6) < np.array([6, 1, 3])[:, None]
    expected, weights = layer(
        [queries, values, keys], mask=[None, tf.constant(mask)], return_attention_scores=True
    )
    found = masked_softmax(additive_scores(queries, keys, v), mask[:, None])
    np.testing.assert_allclose(found, weights, atol=1e-6)
    np.testing.assert_allclose(found @ values, expected, atol=1e-5)


def test_dot_scores_are_those_of_keras():
    queries, keys = normal(3, 4, 5), normal(3, 6, 5, seed=2)
    _, weights = layers.Attention()([queries, keys], return_attention_scores=True)
    found = masked_softmax(dot_scores(queries, keys), np.ones((1, 6), bool))
    np.testing.assert_allclose(found, weights, atol=1e-6)


def test_scaled_dot_product_is_that_of_keras_many_heads():
    x, y, mask = normal(2, 3, 8), normal(2, 5, 8, seed=2), np.tri(3, 5, 1, dtype=bool)
    layer = layers.MultiHeadAttention(num_heads=2, key_dim=3, value_dim=4, use_bias=False)
    expected, weights = layer(x, y, attention_mask=mask[None], return_attention_scores=True)
    of_query, of_key, of_value, of_output = layer.get_weights()
    heads = [
        np.einsum("bti,ihn->bhtn", inputs, kernel)
        for inputs, kernel in ((x, of_query), (y, of_key), (y, of_value))
    ]
    found, found_weights = scaled_dot_product(*map(tf.constant, heads), mask)
    np.testing.assert_allclose(found_weights, weights, atol=1e-6)
    found = np.einsum("bhtn,hno->bto", found, of_output)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("float64", 1e-12), ("float32", 1e-6), ("float16", 4e-3), ("bfloat16", 4e-3)],
)
def test_masked_softmax_is_that_of_what_is_left(dtype, tolerance):
    scores = tf.Variable([[50.0], [2.0], [2.0], [2.0]] * normal(4, 6), dtype=dtype)
    mask = np.arange(6) < np.array([6, 1, 3, 0])[:, None]
    with tf.GradientTape() as tape:
        found = masked_softmax(scores, mask)
        loss = tf.reduce_sum(found[:, 0])
    assert found.dtype == dtype
    assert np.isfinite(tf.cast(tape.gradient(loss, scores), "float32")).all()
    for row, length in enumerate((6, 1, 3, 0)):
        left = np.asarray(tf.cast(scores[row, :length], "float64"))
        expected = softmax(left) if length else left
        weights = np.asarray(tf.cast(found[row], "float64"))
        np.testing.assert_allclose(weights[:length], expected, atol=tolerance)
        assert not weights[length:].any()


# The loop


def test_a_step_is_that_of_the_cell():
    x, h, kernel = normal(3, 4), normal(3, 5, seed=2), normal(4, 15, seed=3)
    recurrent_kernel, bias = normal(5, 15, seed=4), normal(2, 15, seed=5)
    found = gru_update(product(x, kernel) + bias[0], product(h, recurrent_kernel) + bias[1], h)
    np.testing.assert_allclose(found, gru_step(x, h, kernel, recurrent_kernel, bias), atol=1e-6)


@pytest.mark.parametrize("places", [1, 6])
def test_the_gradient_of_the_loop_is_that_of_its_steps(places):
    """Of states that mix, elements of which one is no float, and two kinds of what is shared."""
    inputs = [normal(3, 4), normal(3, 2), normal(3, places, 4), normal(4, 4), normal(3, 5, 2)]
    inputs, there = [tf.constant(x) for x in inputs], normal(3, places, 1) > 0

    def step(states, products, elements, shared):
        h, c = states
        x, there = elements
        (values,) = shared
        seen = tf.matmul(tf.matmul(c, values, transpose_b=True), values)
        new = tf.tanh(products[0] + x) * tf.reduce_sum(seen, axis=-1, keepdims=True)
        return [tf.where(there, new, h), tf.sin(c + new[..., :2])]

    def one_by_one(step, start, kernels, elements, shared):
        found, states = [], start
        for i in range(places):
            now = step_once(step, states, kernels, [x[:, i : i + 1] for x in elements], shared)
            states = [x[:, 0] for x in now]
            found.append(states)
        return [tf.stack(x, axis=1) for x in zip(*found, strict=True)]

    results = []
    for way in (scan, one_by_one):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            states = way(step, inputs[:2], inputs[3:4], [inputs[2], there], inputs[4:])
            loss = sum(tf.reduce_sum(tf.sin(3 * x)) for x in states)
        results.append([*states, *tape.gradient(loss, inputs)])
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


# The networks


def gru_by_hand(x, h, kernel, recurrent_kernel, bias):
    (wz, wr, wg), (uz, ur, ug) = (np.split(w, 3, axis=1) for w in (kernel, recurrent_kernel))
    (bz, br, bg), (dz, dr, dg) = (np.split(b, 3) for b in bias)
    z, r = sigmoid(x @ wz + bz + h @ uz + dz), sigmoid(x @ wr + br + h @ ur + dr)
    return z * h + (1 - z) * np.tanh(x @ wg + bg + r * (h @ ug + dg))


def parts_of(model, half):
    """Return the weights of an encoder's or a decoder's parts by name."""
    found = {}
    for weight in model.get_layer(half).weights:
        found.setdefault(weight.path.split("/")[1], []).append(weight.numpy())
    return found


def encode_by_hand(model, source):
    """Return the memory of one source without padding, and what both ways have read."""
    parts, ways, last = parts_of(model, "encoder"), [], []
    for way, order in (("forward", source), ("backward", source[::-1])):
        h, states = np.zeros(5), []
        for token in order:
            h = gru_by_hand(parts["embedding"][0][token], h, *parts[way])
            states.append(h)
        ways.append(states)
        last.append(h)
    memory = [np.r_[x, y] for x, y in zip(ways[0], ways[1][::-1], strict=True)]
    return np.array(memory).reshape(-1, 10), np.concatenate(last)


def by_hand(model, source, target):
    """Return logits and weights of one pair without padding, token by token."""
    parts, kind = parts_of(model, "decoder"), model.name.removeprefix("seq2seq_")
    memory, last = encode_by_hand(model, source)
    s, logits, maps = np.tanh(last @ parts["begin"][0] + parts["begin"][1]), [], []
    for token in target:
        y = parts["embedding"][0][token]
        if kind == "bahdanau":
            hidden = np.tanh(s @ parts["query"][0] + memory @ parts["key"][0])
            a = softmax(hidden @ parts["score"][0][:, 0]) if len(memory) else np.zeros(0)
            y = np.r_[y, a @ memory]
        s = r = gru_by_hand(y, s, *parts["gru"])
        if kind == "luong":
            a = softmax(memory @ parts["key"][0] @ s) if len(memory) else np.zeros(0)
        if kind != "none":
            r = np.tanh(np.r_[a @ memory, s] @ parts["combine"][0] + parts["combine"][1])
            maps.append(a)
        logits.append(r @ parts["logits"][0] + parts["logits"][1])
    return np.array(logits), np.array(maps)


@every_kind
def test_a_padded_batch_against_numpy_pair_by_pair(attention):
    model = small(attention)
    together = np.asarray(model(PAIRS))
    maps = attention_maps(model, SOURCE, TARGET) if attention != "none" else None
    for row, (length, places) in enumerate(zip(SOURCE_LENGTHS, TARGET_LENGTHS, strict=True)):
        logits, weights = by_hand(model, SOURCE[row, :length], TARGET[row, :places])
        np.testing.assert_allclose(together[row, :places], logits, atol=1e-5)
        if maps is not None:
            np.testing.assert_allclose(maps[row, :places, :length], weights, atol=1e-6)
            assert not maps[row, :, length:].any()
            np.testing.assert_allclose(maps[row].sum(axis=-1), length > 0, atol=1e-6)


@every_kind
def test_more_padding_changes_nothing(attention):
    model = small(attention)
    more = {name: np.pad(ids, ((0, 0), (0, 3))) for name, ids in PAIRS.items()}
    found, expected = np.asarray(model(more)), np.asarray(model(PAIRS))
    np.testing.assert_allclose(found[:, :4], expected, atol=1e-6)
    for row, (length, places) in enumerate(zip(SOURCE_LENGTHS, TARGET_LENGTHS, strict=True)):
        if length:
            alone = {"source": SOURCE[row : row + 1, :length]}
            alone["target"] = TARGET[row : row + 1, :places]
            np.testing.assert_allclose(model(alone)[0], expected[row, :places], atol=1e-6)


@every_kind
def test_the_decoder_does_not_look_ahead(attention):
    model = small(attention)
    changed = TARGET.copy()
    changed[0, 2] = 5
    difference = np.abs(model({**PAIRS, "target": changed}) - np.asarray(model(PAIRS)))
    assert not difference[1:].any()
    assert not difference[0, :2].any()
    assert difference[0, 2:].max(axis=1).min() > 1e-3


def stepwise(model):
    memory, source_mask = model.get_layer("encoder")(SOURCE)
    decoder, found = model.get_layer("decoder"), []
    state = decoder.start(memory, source_mask, TARGET.shape[1])
    shapes = {name: (len(SOURCE), *x.shape[1:], x.dtype) for name, x in state.items()}
    for place, tokens in enumerate(TARGET.T):
        logits, state = decoder.step(tf.constant(tokens), tf.constant(place), state)
        assert shapes == {name: (*x.shape, x.dtype) for name, x in state.items()}
        found.append(logits)
    return np.stack(found, axis=1)


@pytest.mark.parametrize("attention", LATE)
def test_place_by_place_is_all_at_once(attention, tmp_path):
    model = small(attention, dropout=0.5)
    np.testing.assert_allclose(stepwise(model), model(PAIRS), atol=1e-5)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(stepwise(again), stepwise(model))


def test_dropout_is_for_training_alone():
    """It is at the vectors of both halves and before the logits."""
    model = small("luong", dropout=0.5)

    def drawn():
        return sum(int(x.numpy()[1]) for x in model.non_trainable_variables if "seed" in x.path)

    before = drawn()
    first, second = (np.asarray(model(PAIRS, training=True)) for _ in range(2))
    assert np.abs(first - second).max() > 0.01
    assert drawn() - before == 2 * 3
    before = drawn()
    np.testing.assert_array_equal(model(PAIRS), model(PAIRS))
    greedy_search(model, SOURCE, length=2)
    assert drawn() == before


def test_the_encoder_is_a_bidirectional_layer_of_keras():
    model = small("none")
    table, *weights = model.get_layer("encoder").get_weights()
    twin = layers.Bidirectional(layers.GRU(5, return_sequences=True))
    twin.build((None, 5, 4))
    twin.set_weights(weights)
    memory, mask = model.get_layer("encoder")(SOURCE)
    np.testing.assert_array_equal(mask, MASK)
    expected = twin(table[SOURCE], mask=tf.constant(MASK))
    np.testing.assert_allclose(np.asarray(memory)[MASK], np.asarray(expected)[MASK], atol=1e-6)


@pytest.mark.slow
@every_kind
def test_a_half_precision_model_reads_place_by_place(attention):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small.__wrapped__(attention)
    finally:
        keras.config.set_dtype_policy(before)
    found = stepwise(model)
    assert found.dtype == model(PAIRS).dtype == "bfloat16"
    expected = small(attention)(PAIRS)
    np.testing.assert_allclose(found.astype("float32"), expected, atol=0.3)


@pytest.mark.slow
@every_kind
def test_xla_computes_the_same_gradients(attention):
    model = small(attention)
    batch = keras.tree.map_structure(tf.constant, PAIRS)

    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.sin(model(batch)))
        return [tf.convert_to_tensor(x) for x in tape.gradient(loss, model.trainable_variables)]

    compiled = tf.function(gradients, jit_compile=True)()
    for one, two in zip(compiled, gradients(), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4)


def compiled(model, rate=0.1):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
    model.compile(keras.optimizers.SGD(rate), loss)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_two_replicas_learn_what_one_does(jit_compile):
    weights = []
    for replicas in (1, 2):
        with training.strategy(f"cpu:{replicas}").scope():
            model = compiled(small.__wrapped__("bahdanau"))
        pairs = {name: np.tile(ids, (3, 1)) for name, ids in PAIRS.items()}
        answers = np.tile(np.roll(TARGET, -1, axis=1), (3, 1))
        training.fit(model, InMemory(pairs, answers, 6), 2, jit_compile=jit_compile)
        weights.append(model.get_weights())
    for one, two in zip(*weights, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


@pytest.mark.slow
def test_with_attention_it_learns_to_write_backwards():
    """Sequences of up to 6 tokens that it has not seen; the diagonal it attends to falls."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    length = rng.integers(2, 7, 1200)[:, None]
    source = np.where(np.arange(6) < length, rng.integers(4, 10, (1200, 6)), 0)
    answers = np.array([[*row[row > 0][::-1], 3, *[0] * (6 - (row > 0).sum())] for row in source])
    target = np.pad(answers[:, :-1], ((0, 0), (1, 0)), constant_values=2)
    new = ~(source[1000:, None] == source[:1000]).all(axis=-1).any(axis=1)
    model = build_seq2seq("luong", 10, 10, embedding_dim=16, units=32)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
    model.compile(keras.optimizers.Adam(0.01), loss)
    pairs = {"source": source[:1000], "target": target[:1000]}
    training.fit(model, InMemory(pairs, answers[:1000], 50, shuffle=True), 25)
    ids, _ = greedy_search(model, source[1000:], length=7)
    assert (ids == answers[1000:]).all(axis=1)[new].mean() > 0.9
    one = np.array([[4, 5, 6, 7, 8, 9]])
    maps = attention_maps(model, one, np.array([[2, 9, 8, 7, 6, 5]]))[0]
    np.testing.assert_array_equal(maps.argmax(axis=1), [5, 4, 3, 2, 1, 0])


# What is refused

COUNT = "must be a whole number of at least"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *(
            (
                lambda kind=kind: build_seq2seq(kind, 9, 9),
                rf"attention must be one of \['none', 'bahdanau', 'luong'\], got {kind!r}",
            )
            for kind in ("dot", None)
        ),
        (lambda: small("luong", dropout=1), "dropout must be from 0 to below 1, got 1"),
        (
            lambda: build_seq2seq("luong", 1, 9),
            f"source_vocabulary_size {COUNT} 2, got 1",
        ),
        (
            lambda: build_seq2seq("luong", 9, 3),
            f"target_vocabulary_size {COUNT} 4, got 3",
        ),
        (
            lambda: build_seq2seq("luong", 9, 9, embedding_dim=0),
            f"embedding_dim {COUNT} 1, got 0",
        ),
        (lambda: build_seq2seq("luong", 9, 9, units=2.0), f"units {COUNT} 1, got 2.0"),
        (
            lambda: small("none").get_layer("decoder").attention(TARGET, normal(4, 5, 10), MASK),
            "attention must be 'bahdanau' or 'luong' to be looked at, got 'none'",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        call()
