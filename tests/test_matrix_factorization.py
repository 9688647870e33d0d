"""Matrix factorisation: by gradients, by pairs, and by least squares, against their formulas."""

import keras
import numpy as np
import pytest

from tfcourse import training
from tfcourse.data.features import Category
from tfcourse.recommendation import (
    als,
    build_matrix_factorization,
    draw_pairs,
    fit_als,
    pairwise,
    rating_matrix,
)
from tfcourse.training import InMemory

USER, ITEM = Category("user", 6), Category("item", 8)
NAMES = ("p", "q", "b_u", "b_i")


def build(**settings):
    keras.utils.set_random_seed(0)
    model = build_matrix_factorization(USER, ITEM, **({"embedding_dim": 3} | settings))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.7, w.shape) for w in model.weights])
    return model


def tables(model):
    """The weights by their names in the formulas, as float64."""
    found = {}
    for table, names in (("vectors", ("p", "q")), ("biases", ("b_u", "b_i"))):
        layer = model.get_layer(table)
        for name, column in zip(names, ("user", "item"), strict=True):
            found[name] = layer.table.numpy()[layer.rows(column)].astype(float)
    return found


def score(t, u, i):
    return (t["p"][u] * t["q"][i]).sum(-1) + t["b_u"][u, 0] + t["b_i"][i, 0]


def penalty(t, u, i):
    parts = (t["p"][u], t["q"][i], t["b_u"][u], t["b_i"][i])
    return sum(np.square(part).sum() for part in parts) / len(u)


def numeric_gradients(t, function, step=1e-6):
    """Central differences of a function of the tables."""
    gradients = {}
    for name, table in t.items():
        gradients[name] = np.empty_like(table)
        for place in np.ndindex(table.shape):
            ends = []
            for sign in (1, -1):
                moved = table.copy()
                moved[place] += sign * step
                ends.append(function(t | {name: moved}))
            gradients[name][place] = (ends[0] - ends[1]) / (2 * step)
    return gradients


def gradients_of_a_step(model, x, y, loss):
    """What a step of gradient descent at rate 1 takes away, by table."""
    with model.distribute_strategy.scope():
        model.compile(keras.optimizers.SGD(1.0), loss)
    scorer = next((layer for layer in model.layers if isinstance(layer, keras.Model)), model)
    before = tables(scorer)
    training.fit(model, InMemory(x, y, len(y), shuffle=False), 1)
    return {name: before[name] - after for name, after in tables(scorer).items()}


IDS = {
    "user": np.array([1, 1, 2, 5, 3], "int32"),
    "item": np.array([2, 7, 2, 4, 1], "int32"),
    "negative": np.array([3, 2, 5, 6, 2], "int32"),
}
PAIR = {name: IDS[name] for name in ("user", "item")}


def test_scores_are_the_formula():
    model = build(mean=3.5)
    expected = 3.5 + score(tables(model), *PAIR.values())
    np.testing.assert_allclose(model(PAIR)[:, 0], expected, rtol=1e-5)
    assert model(PAIR).shape == (5, 1)
    assert model.output is model.get_layer("logits").output


def in_scope(strategy, make):
    if strategy is None:
        return make()
    with training.strategy(strategy).scope():
        return make()


@pytest.mark.parametrize("strategy", [None, "cpu:2"])
def test_gradient_of_least_squares_as_finite_differences(strategy):
    model = in_scope(strategy, lambda: build(mean=3.5, regularization=0.3))
    ratings = np.array([5, 1, 3, 4, 2], "float32")

    def loss(t):
        error = ratings - 3.5 - score(t, *PAIR.values())
        return np.mean(error**2) + 0.3 * penalty(t, *PAIR.values())

    expected = numeric_gradients(tables(model), loss)
    found = gradients_of_a_step(model, PAIR, ratings[:, None], "mse")
    for name in NAMES:
        np.testing.assert_allclose(found[name], expected[name], atol=2e-5, err_msg=name)
    assert np.abs(found["p"][4]).max() == 0  # nobody's row: no rating, no penalty


@pytest.mark.parametrize("strategy", [None, pytest.param("cpu:2", marks=pytest.mark.slow)])
def test_gradient_of_pairs_as_finite_differences(strategy):
    model = in_scope(strategy, lambda: pairwise(build(regularization=0.3)))
    users, items, others = IDS.values()

    def loss(t):
        difference = score(t, users, items) - score(t, users, others)
        value = np.mean(np.log1p(np.exp(-difference)))
        return value + 0.3 * (penalty(t, users, items) + penalty(t, users, others))

    scorer = model.get_layer("matrix_factorization")
    expected = numeric_gradients(tables(scorer), loss)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    found = gradients_of_a_step(model, IDS, np.ones((5, 1), "float32"), loss)
    for name in NAMES:
        np.testing.assert_allclose(found[name], expected[name], atol=2e-5, err_msg=name)


def test_a_pairwise_model_is_the_difference_and_shares_its_weights():
    scorer = build()
    model = pairwise(scorer)
    other = scorer({"user": IDS["user"], "item": IDS["negative"]})
    np.testing.assert_allclose(model(IDS), scorer(PAIR) - other, atol=1e-6)
    assert {id(w) for w in model.weights} == {id(w) for w in scorer.weights}


def test_a_loaded_pairwise_model_still_takes_one_label(tmp_path):
    model = pairwise(build())
    model.compile("sgd", "binary_crossentropy")
    model.save(tmp_path / "pairs.keras")
    loaded = keras.saving.load_model(tmp_path / "pairs.keras")
    training.fit(loaded, InMemory(IDS, np.ones(5), 5), 1)
    assert loaded.optimizer.iterations == 1


def test_pairs_teach_which_items_go_together():
    users, items = np.divmod(np.arange(40 * 20), 20)
    likes = (users < 20) == (items < 10)
    known = likes & (np.random.default_rng(0).random(800) < 0.7)
    user, item = Category("user", 41), Category("item", 21)
    pairs = draw_pairs(users[known] + 1, items[known] + 1, user, item, negatives=5)
    keras.utils.set_random_seed(0)
    scorer = build_matrix_factorization(user, item, embedding_dim=2, regularization=0.01)
    model = pairwise(scorer)
    model.compile(keras.optimizers.Adam(0.05), keras.losses.BinaryCrossentropy(from_logits=True))
    data = InMemory(pairs, np.ones((len(pairs["user"]), 1), "float32"), 128)
    training.fit(model, data, 10)  # all labels are 1, and may be
    every = {"user": (users + 1).astype("int32"), "item": (items + 1).astype("int32")}
    scores = np.asarray(scorer(every)).reshape(40, 20)
    held, against = ((part.reshape(40, 20)) for part in (likes & ~known, ~likes))
    won = [
        (found[h][:, None] > found[a]).mean()
        for found, h, a in zip(scores, held, against, strict=True)
        if h.any()
    ]
    assert len(won) > 30
    assert np.mean(won) > 0.95


def test_drawn_pairs_are_of_what_was_not_taken():
    rng = np.random.default_rng(0)
    taken = np.argwhere(rng.random((30, 12)) < 0.5) + 1
    taken = taken[taken[:, 1] != 5]  # nobody took 5: it is not drawn
    user, item = Category("person", 31), Category("film", 13)
    pairs = draw_pairs(taken[:, 0], taken[:, 1], user, item, negatives=200, seed=1)
    assert list(pairs) == ["person", "film", "negative"]
    assert all(column.shape == (200 * len(taken),) for column in pairs.values())
    np.testing.assert_array_equal(pairs["film"][::200], taken[:, 1])
    drawn = set(zip(pairs["person"].tolist(), pairs["negative"].tolist(), strict=True))
    left = {(u, i) for u in range(1, 31) for i in range(1, 13) if i != 5}
    assert drawn == {(u, i) for u, i in left - set(map(tuple, taken.tolist())) if u in taken[:, 0]}


def make_counts(seed=0):
    """How often 9 users took 7 items; the last user took nothing, the last item nobody took."""
    rng = np.random.default_rng(seed)
    users, items = np.nonzero(rng.random((8, 6)) < 0.45)
    return users, items, rng.integers(1, 5, len(users)).astype(float)


COUNTS = make_counts()
ALS = {"embedding_dim": 3, "alpha": 2.0, "regularization": 0.5}


def fit(**settings):
    return fit_als(rating_matrix(*COUNTS, 9, 7), **(ALS | settings))


def dense_objective(x, y, counts):
    total = 0.5 * (np.square(x).sum() + np.square(y).sum())
    for u in range(len(x)):
        for i in range(len(y)):
            wanted = float(counts[u, i] > 0)
            total += (1 + 2.0 * counts[u, i]) * (wanted - x[u] @ y[i]) ** 2
    return total


def test_als_solves_the_normal_equations():
    model = fit(iterations=4)
    counts = rating_matrix(*COUNTS, 9, 7).toarray()
    x, y = model.user_vectors, model.item_vectors
    for u in range(9):
        c = np.diag(1 + 2.0 * counts[u])
        expected = np.linalg.solve(y.T @ c @ y + 0.5 * np.eye(3), y.T @ c @ (counts[u] > 0))
        np.testing.assert_allclose(x[u], expected, atol=1e-10)
    found = als.solve(2.0 * rating_matrix(*COUNTS, 9, 7).T.tocsr(), x, 0.5)
    for i in range(7):
        c = np.diag(1 + 2.0 * counts[:, i])
        expected = np.linalg.solve(x.T @ c @ x + 0.5 * np.eye(3), x.T @ c @ (counts[:, i] > 0))
        np.testing.assert_allclose(found[i], expected, atol=1e-10)


def test_als_objective_falls_and_is_that_of_all_pairs():
    model = fit(iterations=12)
    assert (np.diff(model.objective) <= 1e-9).all()
    assert model.objective[-1] < 0.9 * model.objective[0]
    counts = rating_matrix(*COUNTS, 9, 7).toarray()
    expected = dense_objective(model.user_vectors, model.item_vectors, counts)
    assert model.objective[-1] == pytest.approx(expected, rel=1e-12)


def test_als_ends_where_no_direction_is_down():
    model = fit(iterations=500)
    counts = rating_matrix(*COUNTS, 9, 7).toarray()
    t = {"x": model.user_vectors, "y": model.item_vectors}
    gradients = numeric_gradients(t, lambda t: dense_objective(t["x"], t["y"], counts), 1e-5)
    for name, gradient in gradients.items():
        assert np.abs(gradient).max() < 1e-4, name


def test_als_blocks_change_nothing(monkeypatch):
    whole = fit(iterations=3)
    monkeypatch.setattr(als, "BLOCK", 20)
    parts = fit(iterations=3)
    np.testing.assert_allclose(parts.user_vectors, whole.user_vectors, atol=1e-12)


def test_als_predicts_folds_in_and_lists():
    model = fit(iterations=3)
    x, y = model.user_vectors, model.item_vectors
    users, items = np.divmod(np.arange(9 * 7), 7)
    expected = x @ y.T
    popularity = np.bincount(COUNTS[1], minlength=7) / 9
    expected[8] = popularity  # who took nothing
    np.testing.assert_allclose(model.predict(users, items), expected.ravel(), atol=1e-12)
    np.testing.assert_allclose(model.scores(np.arange(9)), expected, atol=1e-12)
    own = COUNTS[0] == 3
    given = COUNTS[1][own], COUNTS[2][own]
    np.testing.assert_allclose(model.fold_in(*given), expected[3], atol=1e-10)
    unseen = [i for i in np.argsort(-expected[3]) if i not in given[0]]
    assert model.recommend_new(*given, k=2).tolist() == unseen[:2]
    assert model.recommend(3, 2).tolist() == unseen[:2]
    assert model.recommend(8, 3).tolist() == np.argsort(-popularity, kind="stable")[:3].tolist()


def test_als_adds_repeats_up_and_leaves_zeros_out():
    users, items, counts = COUNTS
    twice = [np.concatenate([column, column]) for column in (users, items)]
    halves = rating_matrix(*twice, np.concatenate([counts, counts]) / 2, 9, 7, add_repeats=True)
    zeros = rating_matrix(
        *(np.append(column, 6) for column in (users, items)), np.append(counts, 0), 9, 7
    )
    for ratings in (halves, zeros):
        model = fit_als(ratings, **ALS)
        np.testing.assert_allclose(model.item_vectors, fit().item_vectors, atol=1e-12)


REFUSED = [
    (lambda: build(embedding_dim=0), "embedding_dim must be a whole number of at least 1, got 0"),
    (lambda: build(embedding_dim=2.5), "embedding_dim must be a whole number .*, got 2.5"),
    (lambda: build(regularization=-0.1), "regularization must be a number from 0 up, got -0.1"),
    (lambda: build(mean=np.nan), "mean must be a finite number, got nan"),
    (
        lambda: build_matrix_factorization(USER, Category("item", 1)),
        "item: size must be at least 2, got 1",
    ),
    (lambda: build_matrix_factorization(USER, USER), "each name once, got user twice"),
    (lambda: pairwise(build(), "film"), "must have a column film .* got item, user"),
    (lambda: pairwise(pairwise(build())), "none named negative, got item, negative, user"),
    (lambda: draw_pairs([1], [8], USER, ITEM), "column item must have ids from 0 to 7, got 8"),
    (lambda: draw_pairs([1], [1], USER, ITEM, negatives=0), "negatives must be at least 1, got 0"),
    (lambda: draw_pairs([1], [1], USER, ITEM), "user 1 must have an item to be drawn"),
    (lambda: fit(alpha=0), "alpha must be above 0, got 0"),
    (lambda: fit(regularization=-1.0), "regularization must be above 0, got -1.0"),
    (lambda: fit(embedding_dim=0), "embedding_dim must be at least 1, got 0"),
    (lambda: fit(iterations=0), "iterations must be at least 1, got 0"),
    (
        lambda: fit_als(rating_matrix([0], [1], [-1], 2, 2)),
        "from 0 up, got -1.0 of user 0 for item 1",
    ),
    (lambda: fit_als(rating_matrix([0], [0], [0], 2, 2)), "one above 0, got none in .2, 2."),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_bad_arguments_are_one_line(call, message):
    with pytest.raises(ValueError, match=message) as refusal:
        call()
    assert "\n" not in str(refusal.value)
