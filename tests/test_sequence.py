"""Networks that read tokens or frames: against other implementations, and blind to padding."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfcourse import training
from tfcourse.data.in_memory import InMemory
from tfcourse.sequence import build_language_model, build_rnn, build_tdnn, build_textcnn
from tfcourse.sequence.cells import gru_step, lstm_step, rnn_step

IDS = np.array([[3, 8, 1, 4, 2, 8], [5, 0, 0, 0, 0, 0], [0] * 6, [1, 2, 3, 7, 0, 0]])
LENGTHS = [6, 1, 0, 4]
CELLS = ("rnn", "lstm", "gru", "gru-2014")
VARIANTS = ("rand", "static", "non-static", "multichannel")
small = {"embedding_dim": 4, "units": 5}


def randomized(model: keras.Model, spread: float = 1.0) -> keras.Model:
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(scale=spread, size=w.shape) for w in model.get_weights()])
    return model


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype("float32")


def padded(ids: np.ndarray, more: int) -> np.ndarray:
    return np.pad(ids, ((0, 0), (0, more)))


def small_textcnn(variant: str, **arguments) -> keras.Model:
    vectors = None if variant == "rand" else normal(9, 4)
    settings = {"embedding_dim": 4, "filters": 5, "vectors": vectors} | arguments
    return build_textcnn(variant, 9, 3, **settings)


def compiled(model: keras.Model, rate: float = 0.1) -> keras.Model:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate), loss)
    return model


# Cells


def states_by_step(step, state, x, mask):
    """Take one step after the other; where the mask is False, what was before stays."""
    states = []
    for t in range(x.shape[1]):
        new, here = step(x[:, t], state), mask[:, t, None]
        state = keras.tree.map_structure(lambda a, b, here=here: np.where(here, a, b), new, state)
        states.append(state[0] if isinstance(state, tuple) else state)
    return np.stack(states, axis=1), state


@pytest.mark.parametrize(
    ("layer", "step"),
    [
        (layers.SimpleRNN, rnn_step),
        (layers.LSTM, lstm_step),
        (layers.GRU, gru_step),
        (
            lambda *arguments, **more: layers.GRU(*arguments, reset_after=False, **more),
            lambda *arguments: gru_step(*arguments, reset_after=False),
        ),
    ],
    ids=CELLS,
)
def test_a_step_is_that_of_keras(layer, step):
    layer = layer(5, return_sequences=True, return_state=True)
    x, start = normal(3, 6, 4), np.zeros((3, 5), "float32")
    layer.build(x.shape)
    randomized(layer)
    # Also a gap: the mask need not be at the end.
    mask = np.array([[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0]], bool)
    expected, *last = layer(x, mask=mask)
    state = (start, start) if step is lstm_step else start
    weights = layer.get_weights()
    found, state = states_by_step(lambda x, s: step(x, s, *weights), state, x, mask)
    where = mask[..., None]  # at padding, Keras repeats the output before, or zeros
    np.testing.assert_allclose(found * where, expected * where, atol=1e-6)
    for ours, theirs in zip(keras.tree.flatten(state), last, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


# Recurrent networks


@pytest.mark.parametrize(
    ("cell", "bidirectional"),
    [
        *((cell, True) for cell in CELLS[:-1]),
        ("gru", False),
        *(pytest.param(cell, False, marks=pytest.mark.slow) for cell in ("rnn", "lstm")),
        *(pytest.param("gru-2014", both, marks=pytest.mark.slow) for both in (False, True)),
    ],
)
def test_a_padded_batch_gives_what_each_text_gives_alone(cell, bidirectional):
    model = randomized(build_rnn(cell, 9, 3, num_layers=2, bidirectional=bidirectional, **small))
    together = np.asarray(model(padded(IDS, 3)))
    for row, length in enumerate(LENGTHS):
        if length:
            alone = model(IDS[row : row + 1, :length])[0]
            np.testing.assert_allclose(together[row], alone, atol=1e-6)
    # Without a token there is nothing but the bias, and tokens do change something.
    np.testing.assert_allclose(together[2], model.get_layer("logits").bias, atol=1e-6)
    assert np.abs(together[[0, 1, 3]] - together[2]).max(axis=1).min() > 0.01


@pytest.mark.parametrize("bidirectional", [False, True])
def test_states_of_a_padded_batch(bidirectional):
    model = randomized(build_rnn("gru", 9, None, bidirectional=bidirectional, **small))
    together = np.asarray(model(IDS))
    assert together.shape == (4, 6, 10 if bidirectional else 5)
    for row, length in enumerate(LENGTHS):
        assert not together[row, length:].any()
        if length:
            alone = model(IDS[row : row + 1, :length])[0]
            np.testing.assert_allclose(together[row, :length], alone, atol=1e-6)


def to_torch(torch, cell, model, num_layers):
    """Return torch's network with the weights of ours, both ways."""
    kind = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell]
    twin = kind(4, 5, num_layers, bidirectional=True, batch_first=True)
    for number in range(num_layers):
        weights = model.get_layer(f"recurrent{number + 1}").get_weights()
        half = len(weights) // 2
        for one, end in ((weights[:half], ""), (weights[half:], "_reverse")):
            values = [one[0].T, one[1].T, *(one[2] if cell == "gru" else (one[2], 0 * one[2]))]
            if cell == "gru":  # torch has the reset gate first
                order = np.r_[5:10, 0:5, 10:15]
                values = [value[order] for value in values]
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            for name, value in zip(names, values, strict=True):
                getattr(twin, f"{name}_l{number}{end}").data = torch.tensor(value)
    return twin


@pytest.mark.parametrize(
    "cell", ["gru", *(pytest.param(x, marks=pytest.mark.slow) for x in ("rnn", "lstm"))]
)
def test_states_are_those_of_packed_sequences_in_torch(cell):
    torch = pytest.importorskip("torch", reason="the twin is torch's; it is missing")
    model = randomized(build_rnn(cell, 9, 3, num_layers=2, bidirectional=True, **small), 0.5)
    twin = to_torch(torch, cell, model, 2)
    rows = [0, 1, 3]  # torch knows no empty sequence
    vectors = torch.tensor(model.get_layer("embedding").get_weights()[0])[IDS[rows]]
    pack = torch.nn.utils.rnn.pack_padded_sequence
    lengths = [LENGTHS[row] for row in rows]
    with torch.no_grad():
        _, last = twin(pack(vectors, lengths, batch_first=True, enforce_sorted=False))
    last = last[0] if cell == "lstm" else last
    states = np.concatenate([last[-2], last[-1]], axis=1)
    kernel, bias = model.get_layer("logits").get_weights()
    np.testing.assert_allclose(np.asarray(model(IDS))[rows], states @ kernel + bias, atol=1e-5)


@pytest.mark.parametrize(
    "build",
    [
        lambda vectors: build_rnn("gru", 9, 3, vectors=vectors, **small),
        lambda vectors: build_tdnn((None, 4), vocabulary_size=9, vectors=vectors),
    ],
    ids=["gru", "tdnn"],
)
def test_a_network_of_tokens_begins_with_the_vectors_and_changes_them(build):
    model = compiled(build(normal(9, 4)))
    table = model.get_layer("embedding")
    np.testing.assert_array_equal(table.get_weights()[0], normal(9, 4))
    training.fit(model, InMemory(IDS, np.arange(4) % 3, 4), 1)
    assert np.abs(table.get_weights()[0] - normal(9, 4))[[1, 2, 3]].min() > 0


@pytest.mark.slow
def test_xla_computes_the_same():
    model = randomized(build_rnn("gru", 9, 3, bidirectional=True, **small))
    function = tf.function(model, jit_compile=True)
    np.testing.assert_allclose(function(tf.constant(IDS)), model(IDS), atol=1e-5)


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda: build_rnn("gru", 9, 3, **small), marks=pytest.mark.slow),
        lambda: small_textcnn("multichannel", dropout=0.0),
    ],
    ids=["gru", "textcnn"],
)
def test_two_replicas_learn_what_one_does(build):
    weights = []
    for replicas in (1, 2):
        with training.strategy(f"cpu:{replicas}").scope():
            model = compiled(randomized(build(), 0.5))
        # 7 rows are split unevenly.
        training.fit(model, InMemory(np.tile(IDS, (4, 1)), np.arange(16) % 3, 7), 2)
        weights.append(model.get_weights())
    for one, two in zip(*weights, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


# The language model


def test_a_language_model_does_not_look_ahead():
    model = randomized(build_language_model("lstm", 9, num_layers=2, **small))
    logits, changed = np.asarray(model(IDS)), IDS.copy()
    changed[0, 3] = 7
    difference = np.abs(model(changed) - logits).max(axis=2)
    assert not difference[1:].any()
    assert not difference[0, :3].any()
    assert (difference[0, 3:] > 1e-4).all()


def test_the_masked_loss_of_a_padded_batch_is_the_mean_over_tokens():
    model = randomized(build_language_model("gru", 9, **small))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
    losses = []
    for row, length in enumerate(LENGTHS):
        for place in range(length - 1):
            logits = np.asarray(model(IDS[row : row + 1, : place + 1])[0, -1], float)
            losses.append(np.log(np.exp(logits).sum()) - logits[IDS[row, place + 1]])
    ids = padded(IDS, 2)
    np.testing.assert_allclose(loss(ids[:, 1:], model(ids[:, :-1])), np.mean(losses), rtol=1e-5)


def test_a_language_model_learns_what_comes_next():
    keras.utils.set_random_seed(0)
    model = build_language_model("gru", 6, embedding_dim=8, units=16, dropout=0.1)
    # After 1 comes 2 or 3, told by what was before the 1: two tokens have to be remembered.
    ids = np.array([[4, 1, 2] * 3 + [0, 0], [5, 1, 3] * 3 + [4, 1]] * 16)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
    model.compile(keras.optimizers.Adam(0.02), loss)
    training.fit(model, InMemory(ids[:, :-1], ids[:, 1:], 32), 40)
    told = np.asarray(model(np.array([[4, 1], [5, 1]])))[:, -1].argmax(axis=1)
    np.testing.assert_array_equal(told, [2, 3])


# TextCNN


def textcnn_by_hand(model, ids, channels):
    """Slide over each text window by window."""
    tables = [model.get_layer(name).get_weights()[0] for name in channels]
    logits = []
    for text in ids:
        words = sum(table[text[text > 0]] for table in tables)
        features = []
        for size in (3, 4, 5):
            kernel, bias = model.get_layer(f"windows{size}").get_weights()
            seen = np.concatenate([words, np.zeros((size - 1, 4))])
            found = [
                np.einsum("hk,hkf->f", seen[i : i + size], kernel) + bias for i in range(len(words))
            ]
            features.append(np.maximum(found, 0).max(axis=0) if found else np.zeros(5))
        kernel, bias = model.get_layer("logits").get_weights()
        logits.append(np.concatenate(features) @ kernel + bias)
    return logits


@pytest.mark.parametrize("variant", VARIANTS)
def test_textcnn_against_numpy(variant):
    model = randomized(small_textcnn(variant))
    channels = {"static": ["static_embedding"], "multichannel": ["static_embedding", "embedding"]}
    expected = textcnn_by_hand(model, IDS, channels.get(variant, ["embedding"]))
    np.testing.assert_allclose(model(IDS), expected, atol=1e-4)


def test_padding_changes_nothing_of_a_textcnn():
    model = randomized(small_textcnn("rand"))
    together = np.asarray(model(IDS))
    np.testing.assert_allclose(model(padded(IDS, 7)), together, atol=1e-6)
    for row, length in enumerate(LENGTHS):
        if length:  # the shortest has one word, the widest window five
            alone = model(IDS[row : row + 1, :length])[0]
            np.testing.assert_allclose(together[row], alone, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_padding_changes_nothing_of_a_textcnn_in_half_precision(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = randomized(small_textcnn("rand"))
    finally:
        keras.config.set_dtype_policy(before)
    together = np.asarray(model(padded(IDS, 3)), "float32")
    np.testing.assert_allclose(together, randomized(small_textcnn("rand"))(IDS), atol=0.5)
    for row, length in enumerate(LENGTHS):
        if length:
            np.testing.assert_allclose(
                together[row], model(IDS[row : row + 1, :length])[0], rtol=0.02
            )


def test_a_step_of_a_textcnn_is_that_of_plain_layers():
    """Also where several windows are the best, as in a text that repeats itself."""
    model = compiled(randomized(small_textcnn("rand", dropout=0.0, max_norm=None), 0.5))
    ids = keras.Input((None,), dtype="int32")
    words = layers.Embedding(9, 4)(ids)
    best = []
    for size in (3, 4, 5):
        x = layers.ZeroPadding1D((0, size - 1))(words)
        best.append(layers.GlobalMaxPooling1D()(layers.Conv1D(5, size, activation="relu")(x)))
    plain = compiled(keras.Model(ids, layers.Dense(3)(layers.Concatenate()(best))))
    plain.set_weights(model.get_weights())
    before = model.get_weights()
    texts = np.array([[3, 8, 1, 4, 2, 8], [5, 6, 5, 6, 5, 6], [7] * 6])
    training.fit(model, InMemory(texts, np.arange(3), 3), 1)
    plain.fit(texts, np.arange(3), verbose=0)
    for start, ours, theirs in zip(before, model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
        assert np.abs(ours - start).max() > 1e-3


@pytest.mark.parametrize("variant", VARIANTS[1:])
def test_textcnn_begins_with_the_vectors(variant):
    model = small_textcnn(variant)
    for name in [layer.name for layer in model.layers if "embedding" in layer.name]:
        np.testing.assert_array_equal(model.get_layer(name).get_weights()[0], normal(9, 4))
    assert model.get_layer(name).trainable == (variant != "static")


def test_one_channel_learns_and_the_other_stays():
    model = compiled(small_textcnn("multichannel"))
    training.fit(model, InMemory(IDS, np.arange(4) % 3, 4), 1)
    fixed, tuned = (model.get_layer(n).get_weights()[0] for n in ("static_embedding", "embedding"))
    np.testing.assert_array_equal(fixed, normal(9, 4))
    assert np.abs(tuned - fixed).max() > 1e-4
    np.testing.assert_array_equal(tuned[[0, 6]], fixed[[0, 6]])  # padding, and what never came


def test_weights_of_a_class_stay_within_the_norm():
    model = compiled(randomized(small_textcnn("rand"), 5.0), 1e-6)
    before = model.get_layer("logits").get_weights()[0]
    assert np.linalg.norm(before, axis=0).min() > 3.5
    training.fit(model, InMemory(IDS, np.arange(4) % 3, 4), 1)
    after = model.get_layer("logits").get_weights()[0]
    np.testing.assert_allclose(np.linalg.norm(after, axis=0), 3, rtol=1e-4)
    assert small_textcnn("rand", max_norm=None).get_layer("logits").kernel_constraint is None


# TDNN


@pytest.mark.parametrize("evidence", ["sum", "squares"])
def test_tdnn_against_numpy(evidence):
    model = randomized(build_tdnn(evidence=evidence))
    frames = normal(2, 15, 16)
    first, of_first, second, of_second, threshold = model.get_weights()
    for row, x in enumerate(frames):
        units = x
        for kernel, bias, left in ((first, of_first, 13), (second, of_second, 9)):
            sums = [
                (units[t : t + len(kernel), :, None] * kernel).sum(axis=(0, 1)) for t in range(left)
            ]
            units = 1 / (1 + np.exp(-(np.array(sums) + bias)))
        found = units - 0.5 if evidence == "sum" else units**2 - 0.25
        np.testing.assert_allclose(model(frames)[row], found.sum(axis=0) + threshold, atol=1e-4)


def test_tdnn_has_the_connections_of_the_paper():
    """Each unit at each time counts its weights, its threshold too; the output adds up 9 units."""
    model = build_tdnn()
    stages = [model.get_layer(name) for name in ("stage1", "stage2")]
    hidden = sum(stage.output.shape[1] * stage.count_params() for stage in stages)
    assert hidden + (9 + 1) * 3 == 6_233


@pytest.mark.parametrize("evidence", ["sum", "squares"])
def test_tdnn_scores_do_not_depend_on_when(evidence):
    model = randomized(build_tdnn((None, 16), evidence=evidence), 0.5)
    pattern, clips = normal(8, 16), np.zeros((6, 40, 16), "float32")
    # Six frames of silence on either side: then every window that sees it is there.
    for clip, start in zip(clips, (6, 7, 11, 18, 26, 6), strict=True):
        clip[start : start + 8] = pattern
    clips[5] = clips[5, ::-1]
    scores = np.asarray(model(clips))
    np.testing.assert_allclose(scores[1:5], np.tile(scores[0], (4, 1)), atol=1e-5)
    assert np.abs(scores[5] - scores[0]).max() > 0.1  # but on the order of what is heard
    assert model(normal(2, 7, 16)).shape == (2, 3)


@pytest.mark.parametrize("evidence", ["sum", "squares"])
def test_tdnn_of_tokens_is_blind_to_padding(evidence):
    model = randomized(build_tdnn((None, 4), vocabulary_size=9, evidence=evidence), 0.5)
    together = np.asarray(model(IDS))
    np.testing.assert_allclose(model(padded(IDS, 5)), together, atol=1e-5)
    for row, length in enumerate(LENGTHS):
        if length:
            alone = model(IDS[row : row + 1, :length])[0]
            np.testing.assert_allclose(together[row], alone, atol=1e-5)
    np.testing.assert_allclose(together[2], model.get_layer("logits").bias, atol=1e-6)
    # It is the network of frames that sees the vectors, and silence behind them.
    frames = build_tdnn((12, 4), evidence=evidence)
    table, *weights = model.get_weights()
    frames.set_weights(weights)
    vectors = np.pad(table[IDS[:1]], ((0, 0), (0, 6), (0, 0)))
    np.testing.assert_allclose(frames(vectors)[0], together[0], atol=1e-5)


def test_tdnn_of_other_windows():
    model = build_tdnn((None, 4), None, hidden_units=(6, 5), windows=(2, 3, 4))
    assert model(normal(2, 10, 4)).shape == (2, 7, 5)


# What is refused

COUNT = "must be a whole number of at least 1, got"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *(
            (
                lambda build=build, cell=cell: build(cell),
                rf"cell must be one of \['rnn', 'lstm', 'gru', 'gru-2014'\], got {cell!r}",
            )
            for build in (lambda cell: build_rnn(cell, 9, 2), lambda c: build_language_model(c, 9))
            for cell in ("transformer", None)
        ),
        (
            lambda: build_rnn("gru", 1, 2),
            "vocabulary_size must be a whole number of at least 2, got 1",
        ),
        (
            lambda: build_language_model("gru", 1e4),
            "vocabulary_size must be a whole number of at least 2, got 10000.0",
        ),
        (lambda: build_rnn("gru", 9, 0), f"num_classes {COUNT} 0"),
        (lambda: build_rnn("gru", 9, 2, units=0), f"units {COUNT} 0"),
        (lambda: build_rnn("gru", 9, 2, num_layers=True), f"num_layers {COUNT} True"),
        (lambda: build_language_model("gru", 9, embedding_dim="8"), f"embedding_dim {COUNT} '8'"),
        (
            lambda: build_rnn("gru", 9, 2, dropout=1.0),
            "dropout must be from 0 to below 1, got 1.0",
        ),
        (
            lambda: build_rnn("gru", 9, 2, embedding_dim=4, vectors=normal(8, 4)),
            r"vectors must be of shape \(9, 4\), or None, got \(8, 4\)",
        ),
        (
            lambda: build_tdnn((None, 4), vocabulary_size=9, vectors=normal(9)),
            r"vectors must be of shape \(9, 4\), or None, got \(9,\)",
        ),
        (
            lambda: build_tdnn((None, 4), vectors=normal(9, 4)),
            "vectors must be None without a vocabulary_size: they are of tokens",
        ),
        (lambda: small_textcnn("rand", filters=0), f"filters {COUNT} 0"),
        (lambda: small_textcnn("rand", kernel_sizes=(3, 0)), f"kernel_sizes {COUNT} 0"),
        (
            lambda: small_textcnn("rand", kernel_sizes=()),
            r"kernel_sizes must be one or more different, got \(\)",
        ),
        (
            lambda: small_textcnn("rand", kernel_sizes=(3, 3)),
            r"kernel_sizes must be one or more different, got \(3, 3\)",
        ),
        (lambda: small_textcnn("rand", max_norm=0), "max_norm must be above 0, or None, got 0"),
        (
            lambda: small_textcnn("static", vectors=None),
            r"vectors must be of shape \(9, 4\) for 'static', got None",
        ),
        (
            lambda: small_textcnn("multichannel", vectors=normal(9, 5)),
            r"vectors must be of shape \(9, 4\) for 'multichannel', got \(9, 5\)",
        ),
        (
            lambda: small_textcnn("rand", vectors=normal(9, 4)),
            "vectors must be None for 'rand', which learns its own",
        ),
        *(
            (
                lambda shape=shape: build_tdnn(shape),
                r"input_shape must be \(frames, coefficients\) from 7 frames, got .*",
            )
            for shape in ((6, 16), (15, 0), (15, None), (15.0, 16))
        ),
        *(
            (
                lambda shape=shape: build_tdnn(shape),
                r"input_shape must be \(frames, coefficients\), got .*",
            )
            for shape in (None, 15, (15,), (15, 16, 1))
        ),
        (
            lambda: build_tdnn(windows=(3, 5, 7)),
            r"windows must be one more than the 1 hidden_units, got \(3, 5, 7\)",
        ),
        (lambda: build_tdnn(windows=(3, 0)), f"windows {COUNT} 0"),
        (lambda: build_tdnn(hidden_units=(0,)), f"hidden_units {COUNT} 0"),
        (lambda: build_tdnn(num_classes=0), f"num_classes {COUNT} 0"),
        (
            lambda: build_tdnn(vocabulary_size=1),
            "vocabulary_size must be a whole number of at least 2, got 1",
        ),
        (
            lambda: build_tdnn((0, 16), vocabulary_size=9),
            r"input_shape must be \(frames, coefficients\) from 1 frames, got \(0, 16\)",
        ),
        (
            lambda: build_tdnn(evidence="max"),
            r"evidence must be one of \['sum', 'squares'\], got 'max'",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        call()
