"""Neighbours of users and items against the formulas, written as loops over pairs."""

import math

import numpy as np
import pytest
from scipy import sparse

from tfcourse.recommendation import fit_als, fit_item_cf, fit_user_cf, neighbours, rating_matrix
from tfcourse.recommendation import similarity as similarity_module
from tfcourse.recommendation.interactions import best

USERS, ITEMS = 14, 11
FITS = {"items": fit_item_cf, "users": fit_user_cf}
SIMILARITIES = ("cosine", "adjusted_cosine", "pearson")
every_fit = pytest.mark.parametrize("side", FITS)
every_similarity = pytest.mark.parametrize("similarity", SIMILARITIES)


def make_ratings(seed=0):
    """Ratings of about half of the pairs, one of them 0; the last user and item have none."""
    rng = np.random.default_rng(seed)
    users, items = np.nonzero(rng.random((USERS - 1, ITEMS - 1)) < 0.5)
    ratings = rng.integers(1, 6, len(users)).astype(float)
    ratings[3] = 0.0
    order = rng.permutation(len(users))
    return users[order], items[order], ratings[order]


DATA = make_ratings()


def fit(side, data=DATA, **settings):
    """Fit with all neighbours, unless told otherwise: of nearly equal ones either is cut off."""
    everybody = {"users": USERS, "items": ITEMS}[side]
    settings = {"num_neighbours": everybody, "shrinkage": 3.0} | settings
    return FITS[side](rating_matrix(*data, USERS, ITEMS), **settings)


def table_of(side, data=DATA):
    """Ratings by row and column, where the rows are what has neighbours."""
    table = {}
    for u, i, r in zip(*data, strict=True):
        row, column = (i, u) if side == "items" else (u, i)
        table.setdefault(int(row), {})[int(column)] = float(r)
    return table


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def centred_by_hand(table, similarity):
    columns = {}
    for cells in table.values():
        for column, r in cells.items():
            columns.setdefault(column, []).append(r)
    less = {
        "cosine": lambda row, column: 0.0,
        "adjusted_cosine": lambda row, column: mean(columns[column]),
        "pearson": lambda row, column: mean(table[row].values()),
    }[similarity]
    return {
        row: {column: r - less(row, column) for column, r in cells.items()}
        for row, cells in table.items()
    }


def similarity_by_hand(similarity, x, y, shrinkage):
    common = set(x) & set(y)
    squares = (x, y) if similarity == "cosine" else (common, common)
    norm = math.sqrt(sum(x[c] ** 2 for c in squares[0]) * sum(y[c] ** 2 for c in squares[1]))
    if norm < 1e-9:
        return 0.0
    weight = len(common) / (len(common) + shrinkage)
    return weight * sum(x[c] * y[c] for c in common) / norm


def neighbours_by_hand(side, similarity, shrinkage=3.0):
    """For each row its neighbours: those whose similarity is above 0."""
    centred = centred_by_hand(table_of(side), similarity)
    found = {}
    for row, x in centred.items():
        others = {
            other: similarity_by_hand(similarity, x, y, shrinkage)
            for other, y in centred.items()
            if other != row
        }
        found[row] = {other: s for other, s in others.items() if s > 1e-9}
    return found


def baseline_by_hand():
    _, items, ratings = DATA
    m = mean(ratings)
    b_i, b_u = {}, {}
    for i in range(ITEMS):
        rest = [r - m for j, r in zip(items, ratings, strict=True) if j == i]
        b_i[i] = sum(rest) / (5 + len(rest))
    for u in range(USERS):
        rest = [r - m - b_i[j] for v, j, r in zip(*DATA, strict=True) if v == u]
        b_u[u] = sum(rest) / (5 + len(rest))
    return lambda u, i: m + b_u[u] + b_i[i]


@every_fit
@every_similarity
def test_similarities_as_a_loop_over_all_pairs(side, similarity):
    model = fit(side, similarity=similarity)
    expected = np.zeros(model.similar.shape)
    for row, others in neighbours_by_hand(side, similarity).items():
        for other, s in others.items():
            expected[row, other] = s
    assert (expected > 0).sum() > 20
    np.testing.assert_allclose(model.similar.toarray(), expected, atol=1e-6)


@every_fit
@every_similarity
def test_predictions_and_scores_as_a_loop(side, similarity):
    model = fit(side, similarity=similarity)
    found, table, b = neighbours_by_hand(side, similarity), table_of(side), baseline_by_hand()
    predicted, scores = np.empty((USERS, ITEMS)), np.zeros((USERS, ITEMS))
    for u in range(USERS):
        for i in range(ITEMS):
            row, column = (i, u) if side == "items" else (u, i)
            above, below = 0.0, 1.0
            for other, s in found.get(row, {}).items():
                if column in table[other]:
                    pair = (column, other) if side == "items" else (other, column)
                    above += s * (table[other][column] - b(*pair))
                    below += s
                    scores[u, i] += s * table[other][column]
            predicted[u, i] = b(u, i) + above / below
    users, items = np.divmod(np.arange(USERS * ITEMS), ITEMS)
    np.testing.assert_allclose(model.predict(users, items), predicted.ravel(), atol=1e-5)
    known = np.arange(USERS - 1)
    np.testing.assert_allclose(model.scores(known), scores[known], atol=1e-5)


def test_pearson_between_full_columns_is_that_of_numpy():
    table = np.random.default_rng(1).normal(size=(30, 6))
    users, items = np.divmod(np.arange(table.size), 6)
    ratings = rating_matrix(users, items, table.ravel(), 30, 6)
    settings = {"similarity": "pearson", "shrinkage": 0.0}
    expected = np.corrcoef(table.T) - np.eye(6)
    found = fit_item_cf(ratings, **settings).similar.toarray()
    np.testing.assert_allclose(found, np.maximum(expected, 0), atol=1e-6)
    expected = np.maximum(np.corrcoef(table) - np.eye(30), 0)
    found = fit_user_cf(ratings, **settings).similar.toarray()
    np.testing.assert_allclose(found, expected, atol=1e-6)


@every_fit
def test_blocks_change_nothing(side, monkeypatch):
    whole = fit(side)
    users, items = np.divmod(np.arange(USERS * ITEMS), ITEMS)
    expected = whole.predict(users, items), whole.recommend_many(np.arange(USERS), 5)
    monkeypatch.setattr(similarity_module, "BLOCK", 3 * ITEMS)
    monkeypatch.setattr(neighbours, "PAIRS", 7)
    monkeypatch.setattr("tfcourse.recommendation.recommender.BLOCK", 2 * ITEMS)
    parts = fit(side)
    assert abs(parts.similar - whole.similar).max() == 0
    np.testing.assert_array_equal(parts.predict(users, items), expected[0])
    np.testing.assert_array_equal(parts.recommend_many(np.arange(USERS), 5), expected[1])


@every_fit
def test_only_the_best_neighbours_are_kept(side):
    many, few = fit(side).similar.toarray(), fit(side, num_neighbours=2).similar.toarray()
    assert ((few > 0).sum(axis=1) <= 2).all()
    for row, kept in zip(many, few, strict=True):
        np.testing.assert_allclose(np.sort(kept)[-2:], np.sort(row)[-2:], rtol=1e-6)
    assert (np.diag(many) == 0).all()


@every_fit
def test_shrinkage_weighs_by_what_two_have_in_common(side):
    plain, shrunk = (fit(side, shrinkage=s).similar.toarray() for s in (0.0, 7.0))
    rated = rating_matrix(*DATA, USERS, ITEMS)
    rated.data[:] = 1
    common = (rated.T @ rated if side == "items" else rated @ rated.T).toarray()
    both = (plain > 0) & (shrunk > 0)
    np.testing.assert_allclose(
        (shrunk / np.where(both, plain, 1))[both], (common / (common + 7))[both], rtol=1e-5
    )
    assert both.sum() > 20


@every_fit
def test_a_rating_of_zero_is_a_rating(side):
    users, items, ratings = DATA
    place = np.flatnonzero(ratings == 0)[0]
    model = fit(side)
    assert model.seen[users[place], items[place]] == 1
    assert items[place] not in model.recommend(users[place], ITEMS)


@every_fit
def test_lists_are_the_best_unseen_items(side):
    model = fit(side)
    users, items, _ = DATA
    lists = model.recommend_many(np.arange(USERS), ITEMS)
    for user, found in enumerate(lists):
        scores, seen = model.scores([user])[0], set(items[users == user].tolist())
        expected = [i for i in np.lexsort((-model.popularity, -scores)) if i not in seen]
        assert found.tolist() == expected + [-1] * len(seen)
        assert model.recommend(user, 3).tolist() == found[:3].tolist()
    everything = model.recommend(2, ITEMS, exclude_seen=False)
    assert sorted(everything) == list(range(ITEMS))


@every_fit
def test_cold_start_is_item_means_and_popularity(side):
    model, b = fit(side), baseline_by_hand()
    new = USERS - 1
    expected = [b(new, i) for i in range(ITEMS)]
    np.testing.assert_allclose(model.predict([new] * ITEMS, range(ITEMS)), expected, atol=1e-6)
    counts = np.bincount(DATA[1], minlength=ITEMS)
    assert model.recommend(new, ITEMS).tolist() == np.argsort(-counts, kind="stable").tolist()
    # Of an item without ratings the user's own mildness is all there is.
    assert model.predict([0], [ITEMS - 1]) == pytest.approx(b(0, ITEMS - 1), abs=1e-6)


@every_similarity
def test_a_new_user_of_item_cf_is_as_one_who_was_there(similarity):
    model = fit("items", similarity=similarity)
    users, items, ratings = DATA
    for user in range(USERS - 1):
        own = users == user
        given = items[own], ratings[own]
        old = model.predict([user] * ITEMS, range(ITEMS))
        np.testing.assert_allclose(model.predict_new(*given), old, atol=1e-5)
        np.testing.assert_allclose(model.fold_in(*given), model.scores([user])[0], atol=1e-5)
        listed = model.recommend_new(*given, k=4)
        assert listed.tolist() == model.recommend(user, 4).tolist()


@every_similarity
def test_a_new_user_of_user_cf_has_the_neighbours_that_a_fit_finds(similarity):
    users, items, ratings = DATA
    user = 5
    own = users == user
    # The newcomer's ratings change the items' means in a fit, but not in folding in.
    rest = tuple(column[~own] for column in DATA)
    model = fit("users", rest, similarity=similarity)
    table = table_of("users", rest)
    centred = centred_by_hand(table | {99: {}}, similarity) if similarity != "pearson" else None
    item_means = np.bincount(rest[1], rest[2], ITEMS) / np.maximum(
        np.bincount(rest[1], minlength=ITEMS), 1
    )
    x = dict(zip(items[own].tolist(), ratings[own].tolist(), strict=True))
    if similarity == "adjusted_cosine":
        x = {i: r - item_means[i] for i, r in x.items()}
    elif similarity == "pearson":
        x = {i: r - mean(ratings[own]) for i, r in x.items()}
        centred = centred_by_hand(table, similarity)
    s = {o: similarity_by_hand(similarity, x, y, 3.0) for o, y in centred.items()}
    kept = [o for o in s if s[o] > 1e-9]
    expected = [sum(s[o] * table[o].get(i, 0.0) for o in kept) for i in range(ITEMS)]
    np.testing.assert_allclose(model.fold_in(items[own], ratings[own]), expected, atol=1e-5)
    assert np.isfinite(model.predict_new(items[own], ratings[own])).all()


def test_a_new_rating_changes_a_new_users_list():
    rng = np.random.default_rng(0)
    # Two groups of users that rate two groups of items high and low.
    users, items = np.divmod(np.arange(40 * 20), 20)
    ratings = np.where((users < 20) == (items < 10), 5.0, 1.0)
    known = rng.random(len(users)) < 0.6
    for fit_cf in FITS.values():
        matrix = rating_matrix(users[known], items[known], ratings[known], 40, 20)
        model = fit_cf(matrix, num_neighbours=10, shrinkage=1.0)
        assert (model.recommend_new([0, 1, 12], [5, 5, 1], 5) < 10).all()
        assert (model.recommend_new([0, 1, 12], [1, 1, 5], 5) >= 10).all()
        held = ~known
        predicted = model.predict(users[held], items[held])
        assert predicted[ratings[held] == 5].min() > predicted[ratings[held] == 1].max()


@every_fit
def test_cosine_of_what_was_only_seen_is_that_of_numpy(side):
    liked = np.random.default_rng(0).random((30, 9)) < 0.6
    liked[:, 8] = liked[:, 7]
    table = liked if side == "users" else liked.T
    expected = (table @ table.T.astype(float)) / np.sqrt(np.outer(table.sum(1), table.sum(1)))
    model = FITS[side](sparse.csr_array(liked), similarity="cosine", shrinkage=0)
    np.testing.assert_allclose(model.similar.toarray(), expected - np.eye(len(table)), atol=1e-6)


@every_fit
@every_similarity
@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_scale_of_ratings_changes_no_similarity(side, similarity, scale):
    plain = fit(side, similarity=similarity).similar.toarray()
    scaled = fit(side, (*DATA[:2], DATA[2] * scale), similarity=similarity).similar.toarray()
    np.testing.assert_allclose(scaled, plain, atol=1e-6)


@every_fit
def test_who_never_differs_from_the_mean_has_no_neighbours(side):
    ratings = np.full((5, 8), 3.1)
    ratings[2:] += np.random.default_rng(0).random((3, 8))
    similar = FITS[side](
        sparse.csr_array(ratings if side == "users" else ratings.T), similarity="pearson"
    ).similar.toarray()
    assert not similar[:2].any()
    assert similar[2:].any()


@every_fit
def test_where_neighbours_say_nothing_the_most_popular_are_listed(side):
    """User 0 took item 9 alone, which nobody else did."""
    likes = np.zeros((12, 10))
    likes[0, 9] = 1
    for item, count in enumerate([2, 3, 9, 1, 8]):
        likes[1 : 1 + count, item] = 1
    model = FITS[side](sparse.csr_array(likes), similarity="cosine")
    assert model.recommend(0, 5).tolist() == [2, 4, 1, 0, 3]
    assert model.recommend_new([9], [1], 3).tolist() == [2, 4, 1]
    # Who has neighbours gets what they took first, and what is popular then.
    assert model.recommend(9, 6)[0] == 4
    assert model.recommend(9, 6)[1:].tolist() == [1, 0, 3, 9, 5]


def test_best_of_ties_and_of_too_few():
    scores = np.array([[1.0, 3, 3, 2], [-np.inf, 5, -np.inf, -np.inf]])
    assert best(scores, 3).tolist() == [[1, 2, 3], [1, -1, -1]]
    assert best(scores, 4).tolist() == [[1, 2, 3, 0], [1, -1, -1, -1]]


def matrix(**changed):
    given = {"users": [0, 1, 1], "items": [0, 0, 2], "ratings": [3.0, 4.0, 5.0]} | changed
    return rating_matrix(*given.values(), 2, 3)


ARRAYS = [
    ({"users": [0, 2, 1]}, r"users must have ids from 0 to 1, got 2 in row 1"),
    ({"items": [0, 0, -1]}, r"items must have ids from 0 to 2, got -1 in row 2"),
    ({"items": [0.0, 0, 1]}, r"items must be whole numbers \(n,\), got float64 \(3,\)"),
    ({"ratings": [3, np.nan, 2]}, "ratings must be finite numbers, got nan in row 1"),
    ({"ratings": [3, 2, -np.inf]}, "ratings must be finite numbers, got -inf in row 2"),
    ({"ratings": [3, 2]}, r"equally long, at least 1, got \(3, 3, 2\)"),
    ({"users": [], "items": [], "ratings": []}, r"at least 1, got \(0, 0, 0\)"),
    (
        {"users": [1, 0, 1], "items": [2, 0, 2]},
        "each pair once, got user 1 and item 2 again in row 2",
    ),
]


@pytest.mark.parametrize(("changed", "message"), ARRAYS)
def test_what_is_no_matrix_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        matrix(**changed)


REFUSED = [
    (np.eye(2), {}, "ratings must be a sparse matrix, as rating_matrix makes, got ndarray"),
    (sparse.csr_array((2, 3)), {}, r"ratings must have at least one, got none in \(2, 3\)"),
    (
        sparse.csr_array([[0, 1.0], [np.nan, 0]]),
        {},
        "ratings must be finite numbers, got nan of user 1 for item 0",
    ),
    (matrix(), {"num_neighbours": 4}, "num_neighbours must be from 1 to the . there are, got 4"),
    (matrix(), {"num_neighbours": 0}, "num_neighbours must be from 1 to the . there are, got 0"),
    (
        matrix(),
        {"similarity": "jaccard"},
        r"similarity must be one of \['adjusted_cosine', 'cosine', 'pearson'\], got 'jaccard'",
    ),
    (matrix(), {"shrinkage": -1.0}, "shrinkage must be a number from 0 up, got -1.0"),
    (matrix(), {"shrinkage": math.nan}, "shrinkage must be a number from 0 up, got nan"),
    (matrix(ratings=[1, 1, 1]), {}, 'ratings must differ for .*, got 1 in all 3 rows: "cosine"'),
]


@every_fit
@pytest.mark.parametrize(("ratings", "settings", "message"), REFUSED)
def test_what_cannot_be_fitted_is_refused(side, ratings, settings, message):
    with pytest.raises(ValueError, match=message) as refusal:
        FITS[side](ratings, **settings)
    assert "\n" not in str(refusal.value)


def test_a_fit_leaves_the_matrix_as_it_was():
    ratings = sparse.csr_array(sparse.coo_array(([1.0, 2, 0, 4], ([1, 0, 0, 1], [2, 1, 0, 0]))))
    before = ratings.copy()
    for fit_it in (fit_item_cf, fit_user_cf, fit_als):
        fit_it(ratings)
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(ratings, name), getattr(before, name))


MODELS = {
    "items": lambda: fit("items"),
    "users": lambda: fit("users"),
    "als": lambda: fit_als(rating_matrix(*DATA, USERS, ITEMS), embedding_dim=2, iterations=1),
}
ASKED = [
    (lambda m: m.predict([0, USERS], [0, 0]), f"users must have ids from 0 to 13, got {USERS} in"),
    (lambda m: m.predict([0, 1], [0, -2]), "items must have ids from 0 to 10, got -2 in row 1"),
    (lambda m: m.predict([0, 1], [0]), "users and items must be equally long, got 2 and 1"),
    (lambda m: m.recommend(USERS), "users must have ids from 0 to 13, got 14 in row 0"),
    (lambda m: m.scores([-1]), "users must have ids from 0 to 13, got -1 in row 0"),
    (lambda m: m.recommend(0, 12), "k must be from 1 to the 11 items there are, got 12"),
    (lambda m: m.recommend_new([0], [1], 12), "k must be from 1 to the 11 items there are"),
    (lambda m: m.recommend_many([0], 0), "k must be from 1 to the 11 items there are, got 0"),
    (lambda m: m.fold_in([11], [1]), "items must have ids from 0 to 10, got 11 in row 0"),
    (lambda m: m.fold_in([1], [math.nan]), "ratings must be finite numbers, got nan in row 0"),
    (lambda m: m.fold_in([], []), r"at least 1, got \(0, 0, 0\)"),
]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("ask", "message"), ASKED)
def test_bad_questions_are_one_line(name, ask, message):
    with pytest.raises(ValueError, match=message) as refusal:
        ask(MODELS[name]())
    assert "\n" not in str(refusal.value)
