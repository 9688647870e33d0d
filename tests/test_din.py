"""DIN against NumPy and PyTorch: Dice, the activation unit, padding, and the look at attention."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from twins import policy, torch_din

from tfcourse import training
from tfcourse.data.features import Category, Cross, History, Number
from tfcourse.data.in_memory import InMemory
from tfcourse.recommendation import attention_of, build_dien, build_din
from tfcourse.recommendation.din import Comparison, activation_unit
from tfcourse.recommendation.interest import Dice

USER, ITEM = Category("user", 30), Category("item", 40)
BUILDERS = [
    build_din,
    build_dien,
    functools.partial(build_dien, variant="course", embedding_dim=16),
]


def columns(length: int = 6) -> list:
    return [USER, Number("age"), History("seen", ITEM, length), ITEM]


def events(rows: int, length: int = 6, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, length + 1, rows)
    lengths[:2] = 0, length
    seen = rng.integers(1, ITEM.size, (rows, length)) * (np.arange(length) < lengths[:, None])
    return {
        "user": rng.integers(0, USER.size, rows).astype("int32"),
        "age": rng.normal(size=rows).astype("float32"),
        "seen": seen.astype("int32"),
        "item": rng.integers(1, ITEM.size, rows).astype("int32"),
    }


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_dice_in_training_and_after_it():
    x = np.random.default_rng(0).normal(2.0, 3.0, (50, 4)).astype("float32")
    dice = Dice()
    dice.build(x.shape)
    alpha = np.array([-0.5, 0.0, 0.3, 1.0], "float32")
    dice.alpha.assign(alpha)

    def by_hand(mean, variance):
        p = sigmoid((x - mean) / np.sqrt(variance + 1e-8))
        return p * x + (1 - p) * alpha * x

    mean, variance = x.mean(0), x.var(0)
    np.testing.assert_allclose(dice(x, training=True), by_hand(mean, variance), rtol=1e-4)
    after = by_hand(0.1 * mean, 0.9 + 0.1 * variance)
    np.testing.assert_allclose(dice(x), after, rtol=1e-4)
    # A slope of 1 is no bend at all.
    np.testing.assert_allclose(dice(x)[:, 3], x[:, 3], rtol=1e-6)


def of_dice() -> keras.Model:
    dense = keras.layers.Dense(4, name="hidden")
    dice, last = Dice(name="dice"), keras.layers.Dense(1, name="logits")
    return keras.Sequential([keras.Input((1,)), dense, dice, last], name="of_dice")


@pytest.mark.parametrize(
    "build",
    [
        of_dice,
        *(
            pytest.param(
                lambda activation=activation: build_din(
                    columns(), hidden_units=(8,), attention_units=(4,), activation=activation
                ),
                marks=pytest.mark.slow,
            )
            for activation in ("dice", "prelu")
        ),
    ],
    ids=["dice", "DIN with dice", "DIN with prelu"],
)
def test_two_replicas_are_one_device(build):
    x, y = events(23), np.random.default_rng(1).integers(0, 2, (23, 1)).astype("float32")
    if build is of_dice:
        x = x["age"][:, None]
    weights = []
    for count in (1, 2):
        keras.utils.set_random_seed(0)
        with training.strategy(f"cpu:{count}").scope():
            model = build()
            loss = keras.losses.BinaryCrossentropy(from_logits=True)
            model.compile(keras.optimizers.SGD(0.5), loss)
        training.fit(model, InMemory(x, y, 10), 2)
        weights.append({weight.path: weight.numpy() for weight in model.weights})
    for path, weight in weights[0].items():
        np.testing.assert_allclose(weights[1][path], weight, atol=2e-6, err_msg=path)


@pytest.mark.parametrize("build", BUILDERS)
def test_a_model_of_another_policy_is_loaded_with_its_own(build, tmp_path):
    with policy("mixed_bfloat16"):
        model = build(columns(), hidden_units=(8,))
    model.save(tmp_path / "model.keras")
    again, x = keras.saving.load_model(tmp_path / "model.keras"), events(8)
    ours, theirs = (tf.cast(one(x), "float32").numpy() for one in (model, again))
    np.testing.assert_array_equal(theirs, ours)


def test_comparison_is_a_dense_layer_over_four_parts():
    rng = np.random.default_rng(0)
    history = rng.normal(size=(3, 5, 4)).astype("float32")
    target = rng.normal(size=(3, 4)).astype("float32")
    layer = Comparison(7)
    result = layer(history, target)
    layer.bias.assign(rng.normal(size=7))
    result = layer(history, target)
    spread = np.repeat(target[:, None], 5, axis=1)
    parts = np.concatenate([history, spread, history - spread, history * spread], axis=-1)
    expected = parts @ layer.kernel.numpy() + layer.bias.numpy()
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", ["paper", "course"])
def test_attention_against_numpy(variant):
    """The weights of a whole model, from the rows of its table on."""
    model = build_din(columns(), variant=variant, embedding_dim=4, attention_units=(8, 5))
    rng = np.random.default_rng(2)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(size=weight.shape))
    x = events(9)
    layers = {layer.name: layer for layer in model.layers}
    table = layers["embedding"].table.numpy()[layers["embedding"].rows("item")]
    e, t = table[x["seen"]], np.repeat(table[x["item"]][:, None], 6, axis=1)
    hidden = np.concatenate([e, t, e - t, e * t], axis=-1)
    for name in ("seen_unit1", "seen_unit2"):
        kernel, bias = (weight.numpy() for weight in layers[name].weights)
        hidden = hidden @ kernel + bias
        if variant == "paper":
            hidden = sigmoid(hidden)
        else:
            alpha = layers[f"{name}_prelu"].weights[0].numpy()
            assert alpha.shape == hidden.shape[1:]  # the course has a slope for each place
            hidden = np.where(hidden > 0, hidden, alpha * hidden)
    kernel, bias = (weight.numpy() for weight in layers["seen_score"].weights)
    expected = (hidden @ kernel + bias)[..., 0]
    expected = sigmoid(expected) if variant == "course" else expected
    found = np.asarray(attention_of(model, "seen")(x))
    assert (found[x["seen"] == 0] == 0).all()
    np.testing.assert_allclose(found, expected * (x["seen"] > 0), rtol=2e-3, atol=1e-4)
    everything = keras.Model(model.input, layers["fields"].output)(x)
    pooled = (e * found[..., None]).sum(axis=1)
    # user, history, item, age: in the order of the columns, numbers last.
    np.testing.assert_allclose(everything[:, 4:8], pooled, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(everything[:, 8:12], table[x["item"]])
    np.testing.assert_array_equal(everything[:, 12], x["age"])


def into_torch(torch, model, twin) -> None:
    """Copy all weights and statistics; both have their dense layers in the same order."""
    table = model.get_layer("embedding")
    dices = [layer for layer in model.layers if isinstance(layer, Dice)]
    dense = ["seen_unit1", "seen_unit2", "seen_score", "hidden1", "hidden2", "logits"]
    theirs = list(twin.modules())
    pairs = [
        (rows.weight, table.table[table.rows(name)]) for name, rows in twin.fields.tables.items()
    ]
    for layer, name in zip(
        (x for x in theirs if isinstance(x, torch.nn.Linear)), dense, strict=True
    ):
        kernel, bias = model.get_layer(name).get_weights()
        pairs += [(layer.weight, kernel.T), (layer.bias, bias)]
    for layer, dice in zip((x for x in theirs if hasattr(x, "alpha")), dices, strict=True):
        statistics = dice.normalize.moving_mean, dice.normalize.moving_variance
        ours = (dice.alpha, *statistics)
        pairs += zip(
            (layer.alpha, layer.normalize.running_mean, layer.normalize.running_var),
            ours,
            strict=True,
        )
    with torch.no_grad():
        for tensor, value in pairs:
            tensor.copy_(torch.from_numpy(np.array(value)))


def test_scores_and_gradients_are_those_of_torch():
    """The network that the benchmark times, in PyTorch, with copied weights."""
    features = [USER, ITEM, History("seen", ITEM, 6), Number("age")]
    kinds = [["category", "user", 30], ["category", "item", 40]]
    kinds += [["history", "seen", "item", 40, 6], ["number", "age"]]
    sizes = {"embedding_dim": 4, "attention_units": (8, 5)}
    torch, twin = torch_din(kinds, **sizes, din_units=(9, 7))
    model = build_din(features, **sizes, hidden_units=(9, 7))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.uniform(0.1, 0.9, weight.shape) - 0.4 * weight.trainable)
    into_torch(torch, model, twin)
    x = events(32)
    batch = {name: torch.from_numpy(column) for name, column in x.items()}
    with torch.no_grad():
        expected = twin.eval()({name: tensor + 0 for name, tensor in batch.items()})
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)
    # In training the statistics are those of the batch.
    expected = twin.train()(batch)
    expected.square().sum().backward()
    with tf.GradientTape() as tape:
        scores = model(x, training=True)
        loss = tf.reduce_sum(scores**2)
    np.testing.assert_allclose(scores, expected.detach(), rtol=1e-4, atol=1e-5)
    layer = model.get_layer("embedding")
    first, last = tape.gradient(loss, [layer.table, model.get_layer("seen_unit1").kernel])
    first = tf.convert_to_tensor(first)[layer.rows("item").start :].numpy()
    first = first[: ITEM.size]
    theirs = twin.fields.tables["item"].weight.grad.numpy()
    np.testing.assert_allclose(first, theirs, rtol=1e-3, atol=1e-3)
    theirs = twin.attention[0][0].weight.grad.numpy().T
    np.testing.assert_allclose(last, theirs, rtol=1e-3, atol=1e-3)


def test_many_like_the_target_count_more_than_one():
    """The weights are no shares: a history that is twice as long has twice the vector."""
    history = keras.Input((6, 4))
    target, ids = keras.Input((4,)), keras.Input((6,), dtype="int32")
    weights = activation_unit(history, target, ids, units=(8,), variant="paper", name="seen")
    unit = keras.Model([history, target, ids], weights)
    vectors = np.ones((2, 6, 4), "float32")
    seen = np.array([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]])
    once, twice = np.asarray(unit([vectors, np.ones((2, 4), "float32"), seen])).sum(axis=1)
    assert abs(once) > 0.01
    assert twice == pytest.approx(2 * once, rel=1e-5)


@pytest.mark.parametrize("build", BUILDERS)
def test_padding_changes_no_score(build):
    """Neither a score nor, in training, a gradient: the same weights for 6 places and for 9."""
    short, long = build(columns(6)), build(columns(9))
    rng = np.random.default_rng(0)
    for weight in short.weights:
        weight.assign(weight.numpy() + rng.uniform(0, 0.5, weight.shape))
    long.set_weights(short.get_weights())
    x = events(8)
    longer = x | {"seen": np.pad(x["seen"], ((0, 0), (0, 3)))}
    np.testing.assert_allclose(long(longer), short(x), rtol=1e-5, atol=1e-6)
    in_front = x | {"seen": np.pad(x["seen"], ((0, 0), (3, 0)))}
    np.testing.assert_allclose(long(in_front), short(x), rtol=1e-5, atol=1e-6)
    found = attention_of(long, "seen")(longer)
    np.testing.assert_allclose(found[:, :6], attention_of(short, "seen")(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[:, 6:], np.zeros((8, 3)))
    gradients = []
    for model, batch in ((short, x), (long, longer)):
        with tf.GradientTape() as tape:
            score = tf.reduce_sum(model(batch, training=True))
        # What belongs to the auxiliary loss has no part in the score.
        weights = [weight.value for weight in model.trainable_variables]
        gradients.append(tape.gradient(score, weights, unconnected_gradients="zero"))
    for one, other in zip(*gradients, strict=True):
        dense = (tf.convert_to_tensor(one), tf.convert_to_tensor(other))
        np.testing.assert_allclose(*dense, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("build", BUILDERS)
def test_what_padding_points_at_does_not_matter(build):
    model = build(columns())
    x = events(8) | {"user": np.arange(1, 9)}
    before = np.asarray(model(x))
    layer = model.get_layer("embedding")
    table = layer.table.numpy()
    table[layer.rows("item").start] = 9.0  # the row of id 0
    layer.table.assign(table)
    np.testing.assert_array_equal(model(x), before)
    # An id that is out of range is unknown, which in a history is nothing.
    out = x["seen"].copy()
    out[x["seen"] == 0] = ITEM.size
    np.testing.assert_array_equal(model(x | {"seen": out}), before)


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
@pytest.mark.parametrize("build", BUILDERS)
def test_histories_that_are_all_empty(build, dtype):
    with policy(dtype):
        model = build(columns(), hidden_units=(16, 8))
    x = events(12) | {"seen": np.zeros((12, 6), "int32")}
    with tf.GradientTape() as tape:
        scores = tf.cast(tf.reduce_sum(model(x, training=True)), "float32") + sum(model.losses)
    assert np.isfinite(scores)
    for gradient in tape.gradient(scores, model.trainable_variables):
        assert np.isfinite(tf.convert_to_tensor(gradient)).all()
    fields = np.asarray(keras.Model(model.input, model.get_layer("fields").output)(x))
    np.testing.assert_array_equal(fields[:, 16:32], np.zeros((12, 16)))


@pytest.mark.parametrize("build", BUILDERS)
def test_several_histories_each_with_its_own_target(build, tmp_path):
    genre = Category("genre", 5)
    both = [*columns(), genre, History("genres", genre, 3)]
    model = build([*both, Cross("pair", (USER, genre), 50)])
    x = events(8) | {"genre": np.arange(8) % 5, "genres": np.tile([[4, 1, 0]], (8, 1))}
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for history, length in (("seen", 6), ("genres", 3)):
        weights = attention_of(again, history)(x)
        assert weights.shape == (8, length)
        np.testing.assert_array_equal(weights, attention_of(model, history)(x))
    # Another genre as the target changes what is looked at in genres, not in items.
    other = x | {"genre": (x["genre"] + 1) % 5}
    np.testing.assert_array_equal(
        attention_of(model, "seen")(x), attention_of(model, "seen")(other)
    )
    assert np.any(attention_of(model, "genres")(x) != attention_of(model, "genres")(other))
    with pytest.raises(
        ValueError, match=r"^history must be one of \['seen', 'genres'\], got 'item'$"
    ):
        attention_of(model, "item")


@pytest.mark.slow
@pytest.mark.parametrize("build", BUILDERS)
def test_learns_what_only_attention_can_tell(build):
    """The label: whether the target is in the history."""
    rng = np.random.default_rng(0)
    x = events(4_000, seed=3)
    rows = np.arange(0, 4_000, 2)
    x["seen"][:, 0] = np.maximum(x["seen"][:, 0], 1)
    x["item"][rows] = x["seen"][rows, rng.integers(0, 6, len(rows))]
    x["item"] = np.maximum(x["item"], 1)
    y = (x["seen"] == x["item"][:, None]).any(axis=1, keepdims=True).astype("float32")
    keras.utils.set_random_seed(0)
    model = build(columns(), activation="prelu", hidden_units=(32,), embedding_dim=8)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.Adam(0.01), loss, metrics=[keras.metrics.AUC(from_logits=True, name="auc")]
    )
    train = {name: column[:3_000] for name, column in x.items()}
    test = {name: column[3_000:] for name, column in x.items()}
    training.fit(model, InMemory(train, y[:3_000], 100), 12)
    assert training.evaluate(model, InMemory(test, y[3_000:], 1_000))["auc"] > 0.8


@pytest.mark.parametrize(
    ("features", "arguments", "message"),
    [
        ([USER, ITEM], {}, "features must have at least one history, got user, item"),
        (
            [USER, History("seen", ITEM, 5)],
            {},
            "features must have item, what seen is a history of, got user, seen",
        ),
        (columns(), {"activation": "relu"}, r"activation must be .*'prelu'\], got 'relu'"),
        (columns(), {"hidden_units": ()}, r"hidden_units must be whole numbers .*, got \(\)"),
        (columns(), {"hidden_units": 8}, "hidden_units must be whole numbers .*, got 8"),
        (columns(), {"dropout": 1.0}, r"dropout must be from 0 to below 1, got 1.0"),
        (columns(), {"embedding_dim": 0}, "embedding_dim must be a whole .* at least 1, got 0"),
    ],
)
@pytest.mark.parametrize("build", BUILDERS)
def test_bad_arguments_are_named(build, features, arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        build(features, **arguments)


@pytest.mark.parametrize("units", [(), (8, 0), (8.0,), 8])
def test_bad_attention_units_are_named(units):
    with pytest.raises(ValueError) as error:
        build_din(columns(), attention_units=units)
    rule = "attention_units must be whole numbers of at least 1"
    assert str(error.value) == f"{rule}, got {units!r}"
