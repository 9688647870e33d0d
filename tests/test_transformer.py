"""The Transformer: against PyTorch's and Keras' own, blind to padding, and step by step."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from twins import policy

from tfcourse import training
from tfcourse.data.in_memory import InMemory
from tfcourse.sequence import beam_search, build_transformer, greedy_search
from tfcourse.sequence.transformer_blocks import AttentionHeads, sinusoids
from tfcourse.training.inverse_square_root import InverseSquareRoot
from tfcourse.training.label_smoothing import SmoothedCrossEntropy

SIZES = {"model_dim": 8, "num_heads": 2, "hidden_units": 16, "num_layers": 2}
SOURCE = np.array([[3, 8, 1, 4, 0], [5, 0, 0, 0, 0], [1, 2, 3, 7, 6]], "int32")
TARGET = np.array([[2, 5, 6, 4], [2, 3, 0, 0], [2, 4, 4, 0]], "int32")
BATCH = {"source": SOURCE, "target": TARGET}
SIZES_OF = {"two vocabularies": (9, 7), "one vocabulary": (9, None)}


def transformer(*vocabularies, **arguments) -> keras.Model:
    """Return a small one whose weights are far from where they start."""
    model = build_transformer(*vocabularies or (9, 7), **SIZES | arguments)
    rng = np.random.default_rng(0)
    # A norm's gain and bias, too: at 1 and 0 nobody would see if they were missing.
    model.set_weights([rng.normal(scale=0.5, size=w.shape) for w in model.get_weights()])
    return model


def torch_twin(torch, model: keras.Model):
    """Return PyTorch's encoder and decoder with the same weights."""
    nn = torch.nn
    sizes = (SIZES["model_dim"], SIZES["num_heads"], SIZES["hidden_units"], 0.0)
    kind = {"layer_norm_eps": 1e-6, "batch_first": True, "dtype": torch.float64}
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(*sizes, **kind), SIZES["num_layers"], enable_nested_tensor=False
    )
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(*sizes, **kind), 2)

    def array(weight):
        return torch.tensor(np.asarray(weight), dtype=torch.float64)

    def copy(own, name, block):
        heads = getattr(block, name)
        kernels = [array(part.kernel).T for part in (heads.query, heads.key, heads.value)]
        own.in_proj_weight.data = torch.cat(kernels)
        own.out_proj.weight.data = array(heads.join.kernel).T
        # The paper's heads have no biases, PyTorch's do.
        own.in_proj_bias.data.zero_()
        own.out_proj.bias.data.zero_()

    for stack, twin in (
        (model.get_layer("encoder"), encoder),
        (model.get_layer("decoder"), decoder),
    ):
        for block, own in zip(stack.blocks, twin.layers, strict=True):
            copy(own.self_attn, "attention", block)
            if block.memory_attention:
                copy(own.multihead_attn, "memory_attention", block)
            for part, linear in ((block.hidden, own.linear1), (block.narrow, own.linear2)):
                linear.weight.data, linear.bias.data = array(part.kernel).T, array(part.bias)
            for number, norm in enumerate(block.norms, 1):
                twin_norm = getattr(own, f"norm{number}")
                twin_norm.weight.data, twin_norm.bias.data = array(norm.gamma), array(norm.beta)
    return encoder, decoder


def test_against_torch():
    torch = pytest.importorskip("torch", reason="the twin is PyTorch's; torch is missing")
    with policy("float64"):
        model = transformer()
    encoder, decoder = torch_twin(torch, model)
    source_table, target_table = (
        np.asarray(model.get_layer(name).embedding.embeddings) for name in ("encoder", "decoder")
    )

    def vectors(table, ids):
        places = np.arange(ids.shape[1])[:, None] / 10_000 ** (np.arange(0, 8, 2) / 8)
        codes = np.zeros((ids.shape[1], 8))
        codes[:, 0::2], codes[:, 1::2] = np.sin(places), np.cos(places)
        return torch.tensor(table[ids] * np.sqrt(8) + codes)

    padding = torch.tensor(SOURCE == 0)
    later = torch.triu(torch.ones(4, 4, dtype=torch.bool), 1)
    with torch.no_grad():
        memory = encoder(vectors(source_table, SOURCE), src_key_padding_mask=padding)
        y = decoder(
            vectors(target_table, TARGET),
            memory,
            tgt_mask=later,
            memory_key_padding_mask=padding,
        )
    # The codes of places are of 32 bits.
    np.testing.assert_allclose(model(BATCH), y.numpy() @ target_table.T, atol=1e-5)


def test_heads_against_keras():
    ours = AttentionHeads(2, 8)
    rng = np.random.default_rng(2)
    x, y = (rng.normal(size=(3, n, 8)).astype("float32") for n in (4, 5))
    mask = SOURCE > 0
    ours(x, y, mask[:, None, None])
    theirs = keras.layers.MultiHeadAttention(2, 4, use_bias=False)
    theirs(x, y)
    ours.set_weights([rng.normal(size=w.shape) for w in ours.get_weights()])
    kernels = [np.asarray(part.kernel) for part in (ours.query, ours.key, ours.value)]
    output = np.asarray(ours.join.kernel).reshape(2, 4, 8)
    theirs.set_weights([*(kernel.reshape(8, 2, 4) for kernel in kernels), output])
    expected = theirs(x, y, attention_mask=mask[:, None])
    np.testing.assert_allclose(ours(x, y, mask[:, None, None]), expected, atol=1e-4)


def test_codes_of_places():
    found = np.asarray(sinusoids(np.arange(50), 6))
    for place, row in enumerate(found):
        for i in range(3):
            angle = place / 10_000 ** (2 * i / 6)
            np.testing.assert_allclose(row[2 * i], np.sin(angle), atol=1e-5)
            np.testing.assert_allclose(row[2 * i + 1], np.cos(angle), atol=1e-5)
    # How alike two codes are depends on how far apart the places are, not on where.
    np.testing.assert_allclose(found[3] @ found[8], found[40] @ found[45], atol=1e-4)


@pytest.mark.parametrize("vocabularies", SIZES_OF.values(), ids=SIZES_OF)
def test_padding_changes_nothing(vocabularies):
    model = transformer(*vocabularies)
    together = np.asarray(model(BATCH))
    wider = {name: np.pad(ids, ((0, 0), (0, 3))) for name, ids in BATCH.items()}
    np.testing.assert_allclose(np.asarray(model(wider))[:, :4], together, atol=1e-5)
    for row, (source, target) in enumerate(zip(SOURCE, TARGET, strict=True)):
        alone = {"source": source[source > 0][None], "target": target[target > 0][None]}
        logits = np.asarray(model(alone))[0]
        np.testing.assert_allclose(together[row, : len(logits)], logits, atol=1e-5)


def test_a_source_without_tokens_is_no_nan():
    model = transformer()
    batch = {"source": np.zeros((3, 5), "int32"), "target": TARGET}
    first = np.asarray(model(batch))
    assert np.isfinite(first).all()
    memory, mask = model.get_layer("encoder")(batch["source"])
    weights = model.get_layer("decoder").attention(TARGET, memory, mask)
    np.testing.assert_array_equal(weights, np.zeros((3, 4, 5)))


def test_no_place_sees_what_comes_after():
    model = transformer()
    before = np.asarray(model(BATCH))
    for place in range(1, 4):
        changed = TARGET.copy()
        changed[:, place] = 6
        after = np.asarray(model(BATCH | {"target": changed}))
        np.testing.assert_array_equal(after[:, :place], before[:, :place])
        moved = changed[:, place] != TARGET[:, place]
        assert np.abs(after - before)[moved, place].max(axis=-1).min() > 1e-3


def test_dropout_is_for_training_alone():
    """It is at two sums at the start, two parts of a reading block, and three of a writing one."""
    model = transformer(dropout=0.5)

    def drawn():
        return sum(int(x.numpy()[1]) for x in model.non_trainable_variables if "seed" in x.path)

    before = drawn()
    first, second = (np.asarray(model(BATCH, training=True)) for _ in range(2))
    assert np.abs(first - second).max() > 0.01
    assert drawn() - before == 2 * (2 + 2 * 2 + 2 * 3)
    before = drawn()
    np.testing.assert_array_equal(model(BATCH), model(BATCH))
    greedy_search(model, SOURCE, length=2)
    assert drawn() == before


def test_the_order_counts():
    model = transformer()
    swapped = SOURCE.copy()
    swapped[:, :2] = SOURCE[:, 1::-1]
    encoder = model.get_layer("encoder")
    memory, other = (np.asarray(encoder(ids)[0])[0] for ids in (SOURCE, swapped))
    assert np.abs(memory - other[[1, 0, 2, 3, 4]]).max() > 0.01


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
@pytest.mark.parametrize("vocabularies", SIZES_OF.values(), ids=SIZES_OF)
def test_step_by_step_also_when_loaded(vocabularies, tmp_path):
    model = transformer(*vocabularies)
    expected = np.asarray(model(BATCH))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.count_params() == model.count_params()
    tables = [again.get_layer(name).embedding for name in ("encoder", "decoder")]
    assert (tables[0] is tables[1]) == (vocabularies[1] is None)
    for network in (model, again):
        memory, mask = network.get_layer("encoder")(SOURCE)
        decoder = network.get_layer("decoder")
        state = decoder.start(memory, mask, 6)
        shapes = {name: value.shape for name, value in state.items()}
        for place in range(4):
            logits, state = decoder.step(TARGET[:, place], place, state)
            np.testing.assert_allclose(logits, expected[:, place], atol=1e-5)
        assert {name: value.shape for name, value in state.items()} == shapes


def test_step_by_step_in_bfloat16():
    with policy("mixed_bfloat16"):
        model = transformer()
    memory, mask = model.get_layer("encoder")(SOURCE)
    decoder = model.get_layer("decoder")
    state = decoder.start(memory, mask, 4)
    kinds = {name: value.dtype for name, value in state.items()}
    logits, state = decoder.step(TARGET[:, 0], 0, state)
    assert logits.dtype == "bfloat16"
    assert {name: value.dtype for name, value in state.items()} == kinds


def test_greedy_search_picks_the_best_next_token():
    model = transformer()
    ids, scores = (np.asarray(x) for x in greedy_search(model, SOURCE, length=5))
    for row in range(3):
        so_far, score = [2], 0.0
        for place in range(5):
            batch = {"source": SOURCE[row : row + 1], "target": np.array([so_far])}
            logits = np.asarray(model(batch), "float64")[0, -1]
            # As a probability padding and start count, but they are not to be written.
            best = max((1, *range(3, 7)), key=lambda token: logits[token])
            assert ids[row, place] == best
            score += logits[best] - np.log(np.exp(logits).sum())
            so_far.append(best)
            if best == 3:
                assert not ids[row, place + 1 :].any()
                break
        assert scores[row] == pytest.approx(score, abs=1e-4)


def test_attention_is_that_of_the_last_block():
    model = transformer()
    memory, mask = model.get_layer("encoder")(SOURCE)
    weights = np.asarray(model.get_layer("decoder").attention(TARGET, memory, mask))
    assert weights.shape == (3, 4, 5)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
    assert (weights[np.broadcast_to(SOURCE[:, None] == 0, weights.shape)] == 0).all()
    assert (weights[np.broadcast_to(SOURCE[:, None] > 0, weights.shape)] > 0).all()
    # Without queries the last block has no preference.
    model.get_layer("decoder").blocks[-1].memory_attention.query.kernel.assign(np.zeros((8, 8)))
    even = np.asarray(model.get_layer("decoder").attention(TARGET, memory, mask))
    np.testing.assert_allclose(even[0, :, :4], 0.25, atol=1e-6)


def test_of_one_vocabulary_there_is_one_table():
    one, two = build_transformer(9, **SIZES), build_transformer(9, 9, **SIZES)
    assert two.count_params() - one.count_params() == 9 * 8
    gradients = []
    for model in (one, two):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(BATCH)[..., 5] ** 2)
        decoder = model.get_layer("decoder")
        table = tape.gradient(loss, decoder.embedding.embeddings.value)
        gradients.append(np.asarray(tf.convert_to_tensor(table)))
    # Token 7 is only in the source.
    assert np.abs(gradients[0][7]).max() > 0
    assert np.abs(gradients[1][7]).max() == 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_smoothed_cross_entropy_is_that_of_one_hot_targets(smoothing):
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=3, size=(4, 5, 7)).astype("float32")
    labels = rng.integers(0, 7, (4, 5))
    weight = (np.arange(5) < [[5], [2], [1], [3]]).astype("float32")
    theirs = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=smoothing, reduction="none"
    )
    each = np.asarray(theirs(np.eye(7, dtype="float32")[labels], logits))
    ours = SmoothedCrossEntropy(smoothing)
    ours = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(ours))
    # The mean of the tokens, however much padding is beside them.
    expected = (each * weight).sum() / weight.sum()
    np.testing.assert_allclose(ours(labels, logits, weight), expected, rtol=1e-5)
    np.testing.assert_allclose(ours(labels, logits), each.mean(), rtol=1e-5)


@pytest.mark.slow
def test_two_replicas_learn_what_one_does():
    """Their rows have unequal numbers of tokens, and yet every token of the batch counts alike."""
    weights = []
    for devices in ("cpu:1", "cpu:2"):
        strategy = training.strategy(devices)
        with strategy.scope():
            model = transformer(dropout=0.0)
            model.compile(keras.optimizers.SGD(0.1), SmoothedCrossEntropy())
        x = {"source": SOURCE[:2], "target": TARGET[:2, :-1]}
        weight = (TARGET[:2, 1:] > 0).astype("float32")
        data = InMemory(x, TARGET[:2, 1:], 2, sample_weight=weight, shuffle=False)
        training.fit(model, data, 2)
        weights.append(model.get_weights())
    for one, two in zip(*weights, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_inverse_square_root():
    """The paper's formula (3), for its base model."""
    rate = InverseSquareRoot((512 * 4000) ** -0.5, 4000)
    rate = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(rate))
    for step in (1, 10, 3999, 4000, 4001, 100_000):
        expected = 512**-0.5 * min(step**-0.5, step * 4000**-1.5)
        assert float(rate(step - 1)) == pytest.approx(expected, rel=1e-5)
    model = transformer()
    model.compile(keras.optimizers.Adam(InverseSquareRoot(0.01, 10)), "mse")
    assert float(model.optimizer.learning_rate) == pytest.approx(0.001)


COUNT = "must be a whole number of at least"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source_vocabulary_size": 1}, f"source_vocabulary_size {COUNT} 2, got 1"),
        ({"target_vocabulary_size": 2.0}, rf"target_vocabulary_size {COUNT} 2, got 2\.0"),
        ({"num_heads": 0}, f"num_heads {COUNT} 1, got 0"),
        ({"num_layers": 0}, f"num_layers {COUNT} 1, got 0"),
        ({"hidden_units": "x"}, f"hidden_units {COUNT} 1, got 'x'"),
        ({"model_dim": 0}, f"model_dim {COUNT} 1, got 0"),
        (
            {"model_dim": 10, "num_heads": 4},
            "model_dim must be even and a multiple of num_heads, 4, got 10",
        ),
        (
            {"model_dim": 9, "num_heads": 3},
            "model_dim must be even and a multiple of num_heads, 3, got 9",
        ),
        ({"dropout": 1}, "dropout must be from 0 to below 1, got 1"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        build_transformer(**{"source_vocabulary_size": 9} | arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SmoothedCrossEntropy(1.0), "smoothing must be from 0 to below 1, got 1.0"),
        (lambda: SmoothedCrossEntropy(-0.1), "smoothing must be from 0 to below 1, got -0.1"),
        (lambda: InverseSquareRoot(0, 10), "peak must be above 0, got 0"),
        (lambda: InverseSquareRoot(1, 0), "warmup_steps must be at least 1, got 0"),
    ],
)
def test_bad_settings_of_training_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        call()


@pytest.mark.slow
@pytest.mark.parametrize("search", [greedy_search, beam_search])
def test_searches_compiled_by_xla(search):
    model = transformer()
    ids, scores = search(model, SOURCE, length=5)
    compiled = tf.function(lambda x: search(model, x, length=5), jit_compile=True)
    again, same = compiled(tf.constant(SOURCE))
    np.testing.assert_array_equal(again, ids)
    np.testing.assert_allclose(same, scores, atol=1e-4)
