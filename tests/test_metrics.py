"""Metrics: equal to scikit-learn's, to sums over all orders of ties, and never flattering."""

import itertools
import time

import numpy as np
import pytest
import sklearn.metrics
from sklearn.calibration import calibration_curve

from tfcourse.recommendation import metrics, ranking
from tfcourse.recommendation.sampling import NegativeSampler, popularity

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, 3000)
COARSE = RNG.integers(0, 20, 3000) / 19  # with many ties, and with 0 and 1
FINE = RNG.random(3000)
WEIGHTS = RNG.integers(0, 4, 3000) * RNG.random(3000)
AT = ("hit_rate", "recall", "ndcg", "reciprocal_rank", "average_precision")


@pytest.mark.parametrize("scores", [COARSE, FINE, FINE.astype("float32"), np.ones(3000)])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_as_in_scikit_learn(scores, weights):
    theirs = sklearn.metrics.roc_auc_score(LABELS, scores, sample_weight=weights)
    assert metrics.auc(LABELS, scores, weights) == pytest.approx(theirs, abs=1e-12)
    assert metrics.auc(LABELS[:, None], 3 * scores[:, None] - 7, weights) == pytest.approx(
        theirs, abs=1e-6
    )
    theirs = sklearn.metrics.log_loss(LABELS, scores, sample_weight=weights)
    assert metrics.log_loss(LABELS, scores, weights) == pytest.approx(theirs, rel=1e-6)


def test_auc_of_constant_and_of_perfect_scores():
    assert metrics.auc(LABELS, np.zeros(3000)) == 0.5
    assert metrics.auc(LABELS, LABELS * 1e-30) == 1
    assert metrics.auc(LABELS, -LABELS) == 0
    assert metrics.auc([0, 1], [-np.inf, np.inf]) == 1


def test_grouped_auc_is_each_users_own_by_scikit_learn():
    users = np.array([f"user {u}" for u in (300 * RNG.random(3000) ** 2).astype(int)])
    users[:2] = "of one label", "of the other"
    sizes, areas = [], []
    for user in np.unique(users):
        own = users == user
        if 0 < LABELS[own].mean() < 1:
            sizes.append(own.sum())
            areas.append(sklearn.metrics.roc_auc_score(LABELS[own], COARSE[own]))
    assert len(sizes) < len(np.unique(users))  # some users have one label only
    expected = np.average(areas, weights=sizes)
    assert metrics.grouped_auc(LABELS, COARSE, users) == pytest.approx(expected, abs=1e-12)
    # What is the same for all rows of a user is worth nothing within the user.
    _, number = np.unique(users, return_inverse=True)
    liking = np.bincount(number, LABELS)[number] / np.bincount(number)[number]
    assert metrics.auc(LABELS, liking) > 0.6
    assert metrics.grouped_auc(LABELS, liking, users) == 0.5


@pytest.mark.parametrize("bins", [1, 7, 10, 300])
def test_calibration_as_in_scikit_learn(bins):
    labels = (RNG.random(3000) < COARSE**2).astype(int)
    ours = metrics.calibration(labels, COARSE, bins)
    observed, predicted = calibration_curve(labels, COARSE, n_bins=bins)
    np.testing.assert_allclose(ours.observed, observed, atol=1e-12)
    np.testing.assert_allclose(ours.predicted, predicted, atol=1e-12)
    assert ours.counts.sum() == 3000
    assert ours.ratio == pytest.approx(COARSE.sum() / labels.sum())
    by_hand = sum(c * abs(p - o) for c, p, o in zip(ours.counts, predicted, observed, strict=True))
    assert ours.error == pytest.approx(by_hand / 3000)
    assert metrics.calibration([1, 1, 0, 0], [0.5] * 4).error == 0


def test_errors_of_ratings_and_probabilities_of_logits():
    a, b = RNG.normal(size=(2, 50))
    mse = sklearn.metrics.mean_squared_error(a, b)
    assert metrics.rmse(a, b[:, None]) == pytest.approx(np.sqrt(mse), abs=1e-12)
    expected = sklearn.metrics.mean_absolute_error(a, b)
    assert metrics.mae(a, b) == pytest.approx(expected, abs=1e-12)
    logits = np.array([-800.0, -1, 0, 2, 800])
    found = metrics.probabilities(logits)
    np.testing.assert_allclose(found[1:4], 1 / (1 + np.exp(-logits[1:4])), atol=1e-12)
    assert (found[0], found[-1]) == (0, 1)


def by_all_orders(scores, relevant, k):
    """Average the textbook's figures over every order of the items that is one by score."""
    figures = []
    count = relevant.sum()
    ideal = sum(1 / np.log2(place + 2) for place in range(min(count, k)))
    for order in itertools.permutations(range(len(scores))):
        if any(scores[a] < scores[b] for a, b in itertools.pairwise(order)):
            continue
        hits = [bool(relevant[item]) for item in order][:k]
        gain = sum(hit / np.log2(place + 2) for place, hit in enumerate(hits))
        precisions = [hit * np.mean(hits[: place + 1]) for place, hit in enumerate(hits)]
        reciprocal = 1 / (1 + hits.index(True)) if any(hits) else 0
        figures.append(
            (
                any(hits),
                sum(hits) / count,
                gain / ideal,
                reciprocal,
                sum(precisions) / min(count, k),
            )
        )
    return np.mean(figures, axis=0)


def small_case(seed, users=12, items=7, levels=3):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (users, items)).astype(float)
    relevant = rng.random((users, items)) < 0.35
    seen = (rng.random((users, items)) < 0.3) & ~relevant
    return scores, relevant, seen


@pytest.mark.parametrize("k", [1, 2, 5, 7])
def test_ranks_against_all_orders_of_ties(k):
    scores, relevant, seen = small_case(k)
    expected = [
        by_all_orders(scores[user][~seen[user]], relevant[user][~seen[user]], k)
        for user in range(12)
        if relevant[user].any()
    ]
    found = metrics.rank_metrics(scores, np.nonzero(relevant), np.nonzero(seen), (k,))
    assert found.pop("users") == len(expected) < 12  # some have nothing held out
    np.testing.assert_allclose(
        [found[f"{name}@{k}"] for name in AT], np.mean(expected, axis=0), atol=1e-12
    )


@pytest.mark.parametrize("levels", [4, 10**6])
def test_ndcg_as_in_scikit_learn(levels):
    scores, relevant, _ = small_case(0, 60, 80, levels)
    relevant[:, 0] = True
    found = metrics.rank_metrics(scores, np.nonzero(relevant), k=(5, 80))
    for k in (5, 80):
        theirs = sklearn.metrics.ndcg_score(relevant, scores, k=k)
        assert found[f"ndcg@{k}"] == pytest.approx(theirs, abs=1e-12)


def test_a_constant_scorer_gets_what_chance_gets():
    """Held-out items first or last in the catalogue: no order of the items helps."""
    users = np.arange(30)
    for item in (0, 199):
        found = metrics.rank_metrics(np.zeros((30, 200)), (users, np.full(30, item)), k=(10, 200))
        assert found["hit_rate@10"] == pytest.approx(10 / 200)
        assert found["reciprocal_rank@200"] == pytest.approx(np.mean(1 / np.arange(1, 201)))
    rng = np.random.default_rng(0)
    held_out = np.nonzero(rng.random((300, 40)) < 0.1)
    tied = metrics.rank_metrics(np.zeros((300, 40)), held_out, k=(10,))
    several = [metrics.rank_metrics(rng.random((300, 40)), held_out, k=(10,)) for _ in range(20)]
    for name in AT:
        drawn = [found[f"{name}@10"] for found in several]
        error = np.std(drawn) / np.sqrt(20)
        assert tied[f"{name}@10"] == pytest.approx(np.mean(drawn), abs=4 * error)


def test_perfect_and_seen():
    scores = np.array([[9.0, 5, 1, 0], [9, 5, 1, 0]])
    held_out = np.array([0, 1, 1]), np.array([1, 0, 2])
    found = metrics.rank_metrics(scores, held_out, (np.array([0]), np.array([0])), k=(1, 2))
    # Item 0 is seen by user 0, so 1 comes first; user 1 finds 0 at place 1 and 2 not among two.
    assert found["ndcg@1"] == found["hit_rate@2"] == found["reciprocal_rank@2"] == 1
    assert found["recall@2"] == 0.75
    # Rated again: what was seen is in no list, so it can't be missed there.
    again = metrics.rank_metrics(scores, held_out, (np.array([0, 1]), np.array([0, 2])), k=(1,))
    assert again["recall@1"] == 1 and again["users"] == 2


def test_functions_blocks_and_order_of_pairs_make_no_difference(monkeypatch):
    scores, relevant, seen = small_case(1, 50, 30, 5)
    held_out, seen = np.nonzero(relevant), np.nonzero(seen)
    whole = metrics.rank_metrics(scores, held_out, seen, (3, 30))
    lists = metrics.top_lists(scores + FINE[:1500].reshape(50, 30), np.arange(50), 5, seen)
    asked = []

    def score(users):
        asked.append(len(users))
        return scores[users].astype("int64")

    monkeypatch.setattr(ranking, "SCORES", 210)
    order = np.random.default_rng(0).permutation(len(seen[0]))
    shuffled = tuple(column[order] for column in seen)
    twice = tuple(np.concatenate([column, column]) for column in held_out)
    parts = metrics.rank_metrics(score, twice, shuffled, (3, 30))
    assert max(asked) == 7 and sum(asked) == parts["users"]
    assert parts == pytest.approx(whole, abs=1e-12)
    again = metrics.top_lists(scores + FINE[:1500].reshape(50, 30), np.arange(50), 5, shuffled)
    assert (lists == again).all()


def test_lists_are_sorted_and_give_the_same_figures():
    rng = np.random.default_rng(3)
    scores, relevant = rng.random((40, 25)), rng.random((40, 25)) < 0.2
    seen = (rng.random((40, 25)) < 0.4) & ~relevant
    seen[7], relevant[7] = True, False
    seen[8, 3:], relevant[8] = True, False
    pairs = np.nonzero(seen)
    lists = metrics.top_lists(scores, np.arange(40), 10, pairs)
    for user in range(40):
        expected = [i for i in np.argsort(-scores[user]) if not seen[user, i]][:10]
        assert lists[user].tolist() == expected + [-1] * (10 - len(expected))
    held_out = np.nonzero(relevant)
    ours = metrics.rank_metrics(scores, held_out, pairs, (5, 10))
    order = rng.permutation(40)
    assert metrics.list_metrics(lists[order], order, held_out, (5, 10)) == pytest.approx(ours)
    alone = {name: value for name, value in ours.items() if not name.endswith("@5")}
    assert metrics.rank_metrics(scores, held_out, pairs, 10) == pytest.approx(alone)
    assert metrics.list_metrics(lists, np.arange(40), held_out, 10) == pytest.approx(alone)


def test_coverage_and_popularity():
    counts = np.array([8, 1, 1, 0, 0])
    assert metrics.coverage([[0, 1], [0, -1]], 5) == 0.4
    # What people chose was chosen (8 * 8 + 1 + 1) / 10 = 6.6 times on average.
    bias = metrics.popularity_bias(np.array([[0, 1], [0, -1]]), counts)
    assert bias == pytest.approx((8 + 1 + 8) / 3 / 6.6 - 1)
    chosen = np.repeat(np.arange(5), counts)[:, None]
    assert metrics.popularity_bias(chosen, counts) == pytest.approx(0)


def test_sampled_metrics_say_so_and_flatter():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(200, 1000))
    users, items = np.arange(200), rng.integers(0, 1000, 200)
    scores[users, items] += 2
    sampler = NegativeSampler(popularity(items, 1000, 0), (users, items), seed=0)
    sampled = metrics.sampled_rank_metrics(scores, (users, items), sampler)
    full = metrics.rank_metrics(scores, (users, items), k=(10,))
    assert sampled.keys() == {f"sampled_{n}@10" for n in ("hit_rate", "ndcg", "reciprocal_rank")}
    assert sampled["sampled_hit_rate@10"] > full["hit_rate@10"] + 0.2
    # A held-out item above a share p of the others: at most 9 of 100 draws beat it, binomially.
    from scipy.stats import binom

    share = (scores > scores[users, items][:, None]).sum(axis=1) / 999
    expected = binom.cdf(9, 100, share)
    error = np.sqrt((expected * (1 - expected)).sum()) / 200
    assert sampled["sampled_hit_rate@10"] == pytest.approx(expected.mean(), abs=4 * error)

    sampler = NegativeSampler(popularity(items, 1000, 0), (users, items), seed=0)
    pairwise = metrics.sampled_rank_metrics(lambda u, i: scores[u, i], (users, items), sampler)
    assert pairwise == sampled
    constant = metrics.sampled_rank_metrics(np.zeros((200, 1000)), (users, items), sampler, k=1)
    assert constant["sampled_hit_rate@1"] == pytest.approx(1 / 101)


def test_movielens_sized_ranking_in_a_second():
    rng = np.random.default_rng(0)
    scores = rng.random((943, 1682), "float32")
    pairs = rng.integers(0, 943, 90_000), rng.integers(0, 1682, 90_000)
    start = time.perf_counter()
    metrics.rank_metrics(scores, tuple(c[:10_000] for c in pairs), tuple(c[10_000:] for c in pairs))
    assert time.perf_counter() - start < 1  # 0.1 s on two cores


SQUARE = np.ones((2, 3))
ONE = (np.array([0]), np.array([1]))
BAD_SCORES = np.array([[0, 1, np.nan]])
REFUSED = [
    (lambda: metrics.auc([1, 1], [0, 1]), r"both 0 and 1, got only 1.0 in 2 rows"),
    (lambda: metrics.auc([], []), "at least one row, got none"),
    (lambda: metrics.auc([0, 2], [0, 1]), "labels must be 0 or 1, got 2.0 in row 1"),
    (lambda: metrics.auc([0, 1], [0]), "scores must be as many as the labels, 2, got 1"),
    (lambda: metrics.auc([0, 1], [0, np.nan]), "scores must not be NaN, got one in row 1"),
    (lambda: metrics.auc([0, 1], [0, 1], [1]), "weights must be as many as the labels, 2, got 1"),
    (lambda: metrics.auc([0, 1], [0, 1], [1, -1]), "0 or more, got -1.0 in row 1"),
    (lambda: metrics.auc([0, 1], [0, 1], [1, 0]), "above 0 for some row of each label"),
    (lambda: metrics.grouped_auc([0, 1], [0, 1], [7, 8]), "some group must have both labels"),
    (lambda: metrics.grouped_auc([0, 1], [0, 1], [7]), "groups must be as many as the labels, 2"),
    (lambda: metrics.log_loss([0, 1], [0, 1], [0, 0]), "above 0 for some row, got only 0 in 2 r"),
    (lambda: metrics.log_loss([0, 1], [0.5, 1.5]), "from 0 to 1, got 1.5 in row 1"),
    (lambda: metrics.calibration([0, 1], [0, -0.1]), "from 0 to 1, got -0.1 in row 1"),
    (lambda: metrics.calibration([0, 1], [0, 1], 0), "bins must be at least 1, got 0"),
    (lambda: metrics.rmse([1, 2], [1]), "as many as the ratings, and at least one, got 1 for 2"),
    (lambda: metrics.mae([1, np.nan], [1, 2]), "must be finite, got nan and 2 in row 1"),
    (lambda: metrics.rank_metrics(SQUARE, ONE), "the catalogue's 3 items, got 10$"),
    (lambda: metrics.rank_metrics(SQUARE, ONE, k=(0, 3)), "the catalogue's 3 items, got 0"),
    (lambda: metrics.rank_metrics(SQUARE, ONE, k=()), "k must have at least one length, got none"),
    (lambda: metrics.rank_metrics(SQUARE, ([0.5], [1])), "integers, got float64 and int64"),
    (lambda: metrics.list_metrics(SQUARE, [0], ONE, 3), r"each of 1 users, .*, got \(2, 3\)"),
    (lambda: metrics.list_metrics(SQUARE[:0], [], ONE, 3), r"each of 0 users, at least one"),
    (lambda: metrics.popularity_bias([[-1]], [1, 2]), "lists and counts must have an item, got"),
    (lambda: metrics.popularity_bias([[0]], [0, 0]), "lists and counts must have an item, got"),
    (lambda: metrics.rank_metrics(SQUARE, ONE, k=0), "the catalogue's 3 items, got 0"),
    (lambda: metrics.rank_metrics(BAD_SCORES, ONE, k=(1,)), "got nan in column 2 of user 0"),
    (lambda: metrics.rank_metrics(SQUARE, ([9], [1]), k=(1,)), "from 0 to 1, got 9"),
    (lambda: metrics.rank_metrics(SQUARE, ([0], [3]), k=(1,)), "from 0 to 2, got 3"),
    (lambda: metrics.rank_metrics(SQUARE, ONE, ([0], [5]), k=(1,)), "from 0 to 2, got 5"),
    (lambda: metrics.rank_metrics(SQUARE, ([0], [-1]), k=(1,)), "must have rows from 0, got -1"),
    (lambda: metrics.rank_metrics(SQUARE, ([0, 1], [1])), "users and as many of items"),
    (lambda: metrics.rank_metrics(SQUARE, ONE, ONE), "an item that its user has not seen"),
    (
        lambda: metrics.rank_metrics(lambda users: SQUARE, ONE, k=(1,)),
        r"\(1, num_items\) for 1 users, got \(2, 3\)",
    ),
    (lambda: metrics.top_lists(SQUARE, [0], 4), "the catalogue's 3 items, got 4"),
    (lambda: metrics.top_lists(SQUARE, []), "users must have at least one row, got none"),
    (lambda: metrics.list_metrics(SQUARE, [0, 1], ONE, (4,)), "the lists' 3 items, got"),
    (lambda: metrics.list_metrics(SQUARE, [0, 1], ([5], [1]), (3,)), "user 5 must have a list"),
    (lambda: metrics.list_metrics(SQUARE, [0, 1], ONE, (3,)), "an item once, got 1.0 twice"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_bad_sampled_input_is_one_clear_line():
    sampler = NegativeSampler(np.full(3, 1 / 3), ONE)
    with pytest.raises(ValueError, match=r"k must be from 1 to negatives \+ 1, 3, got 4"):
        metrics.sampled_rank_metrics(SQUARE, ONE, sampler, negatives=2, k=4)
    with pytest.raises(ValueError, match="held_out must have at least one pair, got none"):
        metrics.sampled_rank_metrics(SQUARE, ([], []), sampler)
