"""Two towers and the softmax within a batch: against loops, enumerations, and one device."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from twins import policy

from tfcourse.data.features import Category, History, Number
from tfcourse.recommendation import InBatchSoftmax, build_two_tower
from tfcourse.recommendation.cold_start import add_to_history, vectors_of
from tfcourse.training import InMemory, LazyAdam, fit, predict, strategy

ITEM, GENRE = Category("item", 30), Category("genre", 5)
USER = [Category("user", 12), History("seen", ITEM, 4), Number("hour")]
FACTS = [ITEM, GENRE]


def rows(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "user": rng.integers(0, 12, count).astype("int32"),
        "seen": rng.integers(0, 30, (count, 4)).astype("int32"),
        "hour": rng.normal(size=count).astype("float32"),
        "item": rng.integers(1, 30, count).astype("int32"),
        "genre": rng.integers(1, 5, count).astype("int32"),
    }


def targets(items, q=None, labels=None) -> np.ndarray:
    columns = (items, np.zeros(len(items)) if q is None else np.log(q), labels)
    return np.stack([np.ones(len(items)) if c is None else c for c in columns], 1).astype("float32")


def in_a_loop(y_true, y_pred, temperature, hard_negatives, remove) -> np.ndarray:
    """Write the loss out: one row, one candidate at a time."""
    losses = []
    for i, (item, _, label) in enumerate(y_true):
        scores = {
            j: float(y_pred[i, 0] @ y_pred[j, 1]) / temperature - y_true[j, 1]
            for j in range(len(y_true))
        }
        others = [
            score for j, score in scores.items() if j != i and not (remove and y_true[j, 0] == item)
        ]
        others = sorted(others)[::-1][:hard_negatives]
        losses.append(-label * np.log(np.exp(scores[i]) / np.exp([scores[i], *others]).sum()))
    return np.array(losses)


def some_batch(seed: int = 0):
    rng = np.random.default_rng(seed)
    y_true = np.stack(
        [rng.integers(1, 6, 9), np.log(rng.uniform(0.01, 0.5, 9)), np.arange(9) % 3 > 0], 1
    ).astype("float64")
    assert len(set(y_true[:, 0])) < 9
    return y_true, rng.normal(size=(9, 2, 4))


@pytest.mark.parametrize("remove", [True, False])
@pytest.mark.parametrize("hard_negatives", [None, 1, 3, 100])
def test_the_loss_is_that_of_a_loop(hard_negatives, remove):
    y_true, y_pred = some_batch()
    loss = InBatchSoftmax(0.7, hard_negatives=hard_negatives, remove_accidental_hits=remove)
    expected = in_a_loop(y_true, y_pred, 0.7, hard_negatives, remove)
    inside = loss.call(tf.constant(y_true), tf.constant(y_pred))
    np.testing.assert_allclose(inside, expected, rtol=1e-12, atol=1e-12)
    # What Keras makes of it: 32 bits, and a mean in which a row with label 0 counts as 0.
    np.testing.assert_allclose(loss(y_true, y_pred), expected.mean(), rtol=1e-5)


@pytest.mark.parametrize("hard_negatives", [None, 3, 100])
def test_xla_changes_nothing(hard_negatives):
    y_true, y_pred = (tf.constant(x, "float32") for x in some_batch())
    loss = InBatchSoftmax(0.7, hard_negatives=hard_negatives)
    compiled = tf.function(loss, jit_compile=True)
    np.testing.assert_allclose(compiled(y_true, y_pred), loss(y_true, y_pred), rtol=1e-5)


@pytest.mark.parametrize("hard_negatives", [None, 3])
def test_the_gradient_is_that_of_finite_differences(hard_negatives):
    y_true, y_pred = some_batch(1)
    loss = InBatchSoftmax(0.7, hard_negatives=hard_negatives)
    variable = tf.Variable(y_pred)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(loss.call(tf.constant(y_true), variable))
    gradient = tape.gradient(total, variable).numpy()
    for index in np.ndindex(y_pred.shape):
        up, down = y_pred.copy(), y_pred.copy()
        up[index] += 1e-6
        down[index] -= 1e-6
        values = [in_a_loop(y_true, y, 0.7, hard_negatives, True).sum() for y in (up, down)]
        assert gradient[index] == pytest.approx((values[0] - values[1]) / 2e-6, abs=1e-6)


# Three items, two kinds of users: what each likes, and how often there is one of them.
LIKES = np.array([[0.7, 0.2, 0.1], [0.05, 0.15, 0.8]])
SHARE = np.array([0.6, 0.4])
POPULARITY = SHARE @ LIKES


def every_batch(size: int):
    """Return all batches of rows (kind of user, item), and how probable each is."""
    joint = SHARE[:, None] * LIKES
    cells = list(itertools.product(range(2), range(3)))
    batches = np.array(list(itertools.product(cells, repeat=size)))
    return batches, joint[batches[..., 0], batches[..., 1]].prod(axis=1)


@pytest.mark.parametrize("corrected", [True, False])
def test_with_log_q_the_negatives_stand_for_the_whole_catalogue(corrected):
    """In the mean over all batches, their sum is n - 1 times that over all the other items."""
    scores, size = np.random.default_rng(0).normal(size=(2, 3)), 3
    batches, probability = every_batch(size)
    loss, sums = InBatchSoftmax(1.0, reduction=None), np.zeros((2, 3))
    for batch, weight in zip(batches, probability, strict=True):
        users, items = batch.T
        y_pred = np.stack([scores[users], np.eye(3)[items]], 1)
        y_true = targets(items + 1, POPULARITY[items] if corrected else None)
        own = scores[users[0], items[0]] - y_true[0, 1]
        # The loss of the first row tells the sum of its negatives.
        sums[users[0], items[0]] += weight * np.expm1(float(loss(y_true, y_pred)[0])) * np.exp(own)
    estimate = sums / (SHARE[:, None] * LIKES) / (size - 1)
    truth = np.exp(scores).sum(axis=1, keepdims=True) - np.exp(scores)
    error = np.abs(estimate / truth - 1).max()
    assert error < 1e-4 if corrected else error > 0.3


def slope(scores: np.ndarray, q, size: int = 2, remove: bool = False) -> float:
    """Return the largest slope of the expected loss at these scores, `(users, items)`."""
    scores = tf.Variable(scores)
    loss, expected = InBatchSoftmax(1.0, remove_accidental_hits=remove), 0.0
    with tf.GradientTape() as tape:
        for batch, weight in zip(*every_batch(size), strict=True):
            users, items = batch.T
            y_true = targets(items, None if q is None else q[items]).astype("float64")
            vectors = tf.one_hot(items, 3, dtype="float64")
            y_pred = tf.stack([tf.gather(scores, users), vectors], 1)
            expected += weight * tf.reduce_mean(loss.call(tf.constant(y_true), y_pred))
    return float(np.abs(tf.convert_to_tensor(tape.gradient(expected, scores))).max())


def test_with_log_q_the_optimum_is_the_truth():
    """Over all batches the loss is flat where the scores are log p(item | user), and only so."""
    truth = np.log(LIKES)
    assert slope(truth, POPULARITY) < 1e-7
    assert slope(truth, None) > 0.02
    # Uncorrected it is flat where popularity is divided out: popular items come too low.
    assert slope(truth - np.log(POPULARITY), None) < 1e-7
    assert slope(truth, POPULARITY, remove=True) < 1e-7


@pytest.mark.slow
def test_with_log_q_the_optimum_is_the_truth_in_larger_batches():
    truth = np.log(LIKES)
    assert slope(truth, POPULARITY, 3) < 1e-7
    # Without accidental hits it is a little off: a catalogue of three is the worst case.
    assert 1e-3 < slope(truth, POPULARITY, 3, remove=True) < slope(truth, None, 3)


def test_accidental_hits_do_not_count():
    y_true, y_pred = some_batch(2)
    y_true[:, 0], y_true[:, 2] = [7, 7, 1, 2, 3, 4, 5, 6, 7], 1
    loss = InBatchSoftmax(reduction=None)
    without = [0, 2, 3, 4, 5, 6, 7]
    np.testing.assert_allclose(
        loss(y_true, y_pred)[0], loss(y_true[without], y_pred[without])[0], rtol=1e-6
    )
    counted = InBatchSoftmax(reduction=None, remove_accidental_hits=False)
    assert counted(y_true, y_pred)[0] > loss(y_true, y_pred)[0]
    y_true[:, 0] = 7
    assert loss(y_true, y_pred).numpy().tolist() == [0] * 9


def test_what_was_not_liked_is_a_candidate_only():
    y_true, y_pred = some_batch(3)
    y_true[:, 0], y_true[:, 2] = np.arange(1, 10), 1
    y_true[4, 2] = 0
    variable = tf.Variable(y_pred)
    loss = InBatchSoftmax(reduction=None)
    with tf.GradientTape() as tape:
        losses = loss.call(tf.constant(y_true), variable)
    users, items = np.moveaxis(tape.gradient(losses, variable).numpy(), 1, 0)
    assert losses[4] == 0
    assert not users[4].any() and items[4].any()
    # Each user is pushed away from it, in proportion to how near it is.
    logits = y_pred[:, 0] @ y_pred[:, 1].T / loss.temperature - y_true[:, 1]
    shares = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    shares[4] = 0
    np.testing.assert_allclose(items[4], shares[:, 4] @ y_pred[:, 0] / 0.1, rtol=1e-9)


def train(replicas: int, jit_compile: bool = False) -> list[np.ndarray]:
    x = rows(33)
    counts = np.bincount(x["item"])[x["item"]]
    y = targets(x["item"], counts / 33, np.arange(33) % 4 > 0)
    with strategy(f"cpu:{replicas}").scope() if replicas > 1 else tf.device("cpu"):
        keras.utils.set_random_seed(3)
        model = build_two_tower(USER, FACTS, embedding_dim=6, hidden_units=(8,))
        model.compile(LazyAdam(0.01, epsilon=1e-3), InBatchSoftmax(0.3, hard_negatives=5))
    fit(model, InMemory(x, y, 8), 3, jit_compile=jit_compile)
    return model.get_weights()


@pytest.mark.parametrize(
    ("replicas", "jit_compile"),
    [(2, False), *(pytest.param(n, True, marks=pytest.mark.slow) for n in (1, 2, 4))],
)
def test_replicas_are_one_device_and_xla_changes_nothing(replicas, jit_compile):
    """33 rows in batches of 8: the last has one row, so that the other replicas have none."""
    for ours, theirs in zip(train(1), train(replicas, jit_compile), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_in_bfloat16_ids_and_losses_keep_their_bits():
    x = rows(8)
    y = targets(np.arange(1000, 1008), np.full(8, 0.01))  # 8 bits know no 1001
    model = build_two_tower(USER, FACTS, embedding_dim=6, hidden_units=(8,))
    with policy("mixed_bfloat16"):
        half = build_two_tower(USER, FACTS, embedding_dim=6, hidden_units=(8,))
    half.set_weights(model.get_weights())
    losses = []
    for each in (model, half):
        each.compile("sgd", InBatchSoftmax(0.5))
        losses.append(fit(each, InMemory(x, y, 8), 1).history["loss"][0])
    assert losses[0] > 1.5
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


def test_each_tower_is_a_model_of_its_own(tmp_path):
    model, x = build_two_tower(USER, FACTS, embedding_dim=6), rows(20)
    users, items = (model.get_layer(name) for name in ("user_tower", "item_tower"))
    assert set(users.input) == {"user", "seen", "hour"}
    assert set(items.input) == {"item", "genre"}
    both = predict(model, InMemory(x, None, 8, shuffle=False))
    np.testing.assert_allclose(np.linalg.norm(both, axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(both[:, 0], vectors_of(users, x, batch_size=7), atol=1e-6)
    np.testing.assert_allclose(both[:, 1], vectors_of(items, x), atol=1e-6)
    assert vectors_of(items, {"item": []}).shape == (0, 6)
    users.save(tmp_path / "users.keras")
    again = keras.saving.load_model(tmp_path / "users.keras")
    np.testing.assert_array_equal(vectors_of(users, x), vectors_of(again, x))


def test_padding_and_its_place_change_no_vector():
    tower = build_two_tower([USER[1]], FACTS).get_layer("user_tower")
    one, two = tower({"seen": np.array([[4, 9, 0, 0], [9, 0, 0, 4]])}).numpy()
    np.testing.assert_allclose(one, two, atol=1e-6)
    longer = build_two_tower([History("seen", ITEM, 6)], FACTS).get_layer("user_tower")
    longer.set_weights(tower.get_weights())
    np.testing.assert_allclose(longer({"seen": np.array([[4, 9, 0, 0, 0, 0]])})[0], one, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_nothing_known_of_a_user_is_no_nan(dtype):
    with policy(dtype):
        model = build_two_tower([USER[1]], FACTS)
    x = {"seen": np.zeros((4, 4), "int32"), "item": np.arange(1, 5), "genre": np.arange(1, 5)}
    model.compile(keras.optimizers.SGD(1.0), InBatchSoftmax())
    fit(model, InMemory(x, targets(x["item"]), 4), 2)
    vectors = vectors_of(model.get_layer("user_tower"), x)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=0.01)


def test_forgetting_makes_ids_unknown_in_training_only():
    model = build_two_tower(USER, FACTS, forgetting={"item": 0.25})
    layer = model.get_layer("item_tower").get_layer("forget_item")
    ids = np.arange(1, 20_001, dtype="int32")
    kept = np.asarray(layer(ids, training=True))
    assert np.mean(kept == 0) == pytest.approx(0.25, abs=0.015)  # five deviations
    assert (kept[kept > 0] == ids[kept > 0]).all()
    assert (np.asarray(layer(ids)) == ids).all()
    assert (np.asarray(layer(ids, training=True)) != kept).any()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.rate == 0.25


def test_new_users_and_new_items_find_each_other():
    """Each user likes one genre; ids that training never saw come with a history, or a genre."""
    rng = np.random.default_rng(0)
    genre_of = np.concatenate([[0], 1 + np.arange(29) % 4])
    user = rng.integers(1, 12, 1000)
    alike = np.array([np.flatnonzero(genre_of[:25] == g) for g in range(1, 5)])
    draw = np.take_along_axis(alike[user % 4], rng.integers(0, 6, (1000, 5)), axis=1)
    x = {"user": user.astype("int32"), "seen": draw[:, 1:].astype("int32")}
    x |= {"item": draw[:, 0].astype("int32"), "genre": genre_of[draw[:, 0]].astype("int32")}
    keras.utils.set_random_seed(0)
    forgetting = {"user": 0.3, "item": 0.3}
    model = build_two_tower(
        USER[:2], FACTS, embedding_dim=8, hidden_units=(16,), forgetting=forgetting
    )
    model.compile(LazyAdam(0.02), InBatchSoftmax(0.2))
    fit(model, InMemory(x, targets(x["item"]), 100), 8)
    users, items = (model.get_layer(name) for name in ("user_tower", "item_tower"))
    new_items = vectors_of(items, {"genre": np.arange(1, 5)})
    known = vectors_of(items, {"item": np.arange(1, 25), "genre": genre_of[1:25]})
    for genre in range(1, 5):
        history = np.array([*alike[genre - 1][:2], 0, 0])
        new_user = vectors_of(users, {"seen": history[None]})[0]
        assert (new_items @ new_user).argmax() == genre - 1
        best = np.argsort(-known @ new_user)[:6] + 1
        assert set(genre_of[best]) == {genre}
        # His next two films are of another kind: the list changes, and nothing is trained.
        other = alike[genre % 4]
        for item in (*other[:2], *other[2:4]):
            history = add_to_history(history, item)
        moved = vectors_of(users, {"seen": history[None]})[0]
        assert (new_items @ moved).argmax() == genre % 4


def test_a_history_takes_one_more():
    assert add_to_history(np.array([5, 3, 0]), 7).tolist() == [7, 5, 3]
    assert add_to_history(np.array([7, 5, 3]), 9).tolist() == [9, 7, 5]
    assert add_to_history(np.array([7, 5, 3]), 3).tolist() == [3, 7, 5]
    assert add_to_history(np.array([0, 0, 0]), 3).tolist() == [3, 0, 0]
    with pytest.raises(ValueError, match=r"^item must be an id from 1 up, got 0$"):
        add_to_history(np.array([5, 3, 0]), 0)


def test_the_loss_is_saved_with_the_model(tmp_path):
    model = build_two_tower([Number("hour")], FACTS)
    model.compile("sgd", InBatchSoftmax(0.3, hard_negatives=4, remove_accidental_hits=False))
    model.save(tmp_path / "model.keras")
    loss = keras.saving.load_model(tmp_path / "model.keras").loss
    assert (loss.temperature, loss.hard_negatives, loss.remove_accidental_hits) == (0.3, 4, False)


def user_tower() -> keras.Model:
    return build_two_tower(USER, FACTS).get_layer("user_tower")


REFUSED = [
    (lambda: InBatchSoftmax(0), "temperature must be above 0, got 0"),
    (lambda: InBatchSoftmax(float("nan")), "temperature must be above 0, got nan"),
    (lambda: InBatchSoftmax(hard_negatives=0), "hard_negatives must be at least 1 or None, got 0"),
    (lambda: build_two_tower([], FACTS), "features must have at least one column, got none"),
    (
        lambda: build_two_tower([*USER, GENRE], FACTS),
        "user_features and item_features must have no column in common, got genre",
    ),
    (
        lambda: build_two_tower(USER, FACTS, forgetting={"item": 1}),
        "forgetting must be from 0 to below 1, got 1 for item",
    ),
    (
        lambda: build_two_tower(USER, FACTS, forgetting=0.2),
        "forgetting must be rates by category, got 0.2",
    ),
    (
        lambda: build_two_tower(USER, FACTS, forgetting={"hour": 0.1}),
        "forgetting must name one of user, item, genre, got hour",
    ),
    (
        lambda: build_two_tower(USER, FACTS, embedding_dim=0),
        "embedding_dim must be a whole number of at least 1, got 0",
    ),
    (
        lambda: build_two_tower(USER, FACTS, dropout=1.0),
        "dropout must be from 0 to below 1, got 1.0",
    ),
    (
        lambda: vectors_of(user_tower(), {"genre": [1]}),
        r"rows must have a column of \['hour', 'seen', 'user'\], got \['genre'\]",
    ),
    (
        lambda: vectors_of(user_tower(), {"user": [1]}),
        "column hour is missing: a number that is unknown has no id 0",
    ),
    (
        lambda: vectors_of(user_tower(), {"user": [1, 2], "hour": [0.5]}),
        r"column hour must be finite numbers \(2,\), got float64 \(1,\)",
    ),
    (
        lambda: vectors_of(user_tower(), {"hour": [0.5, np.nan]}),
        "column hour must be finite numbers, got nan in row 1",
    ),
    (
        lambda: vectors_of(user_tower(), {"hour": [0.5], "seen": [[3, 4]]}),
        r"column seen must be whole numbers \(1, 4\), got int64 \(1, 2\)",
    ),
    (
        lambda: vectors_of(user_tower(), {"hour": [0.5], "user": ["a"]}),
        r"column user must be whole numbers \(1,\), got <U1 \(1,\)",
    ),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        call()
