"""Events: what was known at a moment, and a proof that nothing later is in it."""

import datetime
import time
from dataclasses import replace

import numpy as np
import pytest
from sharing import or_skip
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from tfcourse.data.events import make_events
from tfcourse.data.ratings import Ratings, load_movielens, split_by_time

STATISTICS = [f"{of}_{what}" for of in ("user", "item") for what in ("count", "mean", "deviation")]
STATISTICS += ["user_likes", "item_likes"]


@pytest.fixture(scope="module")
def movies():
    return or_skip(load_movielens)


def random_ratings(rows=400, seed=0, **changed):
    """Few users and items, and moments that many events share."""
    rng = np.random.default_rng(seed)
    columns = {
        "users": rng.integers(1, 8, rows),
        "items": rng.integers(1, 12, rows),
        "ratings": rng.integers(1, 11, rows) / 2,
        "timestamps": np.sort(rng.integers(0, rows // 4, rows)) * 1_000_000,
    }
    return Ratings(**(columns | changed))


def past_by_loop(ratings, row, same):
    return [
        other
        for other in range(len(ratings))
        if same[other] == same[row] and ratings.timestamps[other] < ratings.timestamps[row]
    ]


def check_row(ratings, events, row, length=20, like=3.5):
    values = ratings.ratings.astype(float)
    for name, same in (("user", ratings.users), ("item", ratings.items)):
        past = past_by_loop(ratings, row, same.tolist())
        found = [events[f"{name}_{what}"][row] for what in ("mean", "deviation", "likes")]
        assert events[f"{name}_count"][row] == len(past)
        if past:
            expected = [values[past].mean(), values[past].std(), (values[past] >= like).mean()]
            np.testing.assert_allclose(found, expected, atol=2e-6)
        else:
            assert np.isnan(found).all()
    past = past_by_loop(ratings, row, ratings.users.tolist())
    liked = [ratings.items[other] for other in past if values[other] >= like][::-1][:length]
    seen = events["seen"][row].tolist()
    assert seen[: len(liked)] == [type(seen[0])(item) for item in liked]
    assert set(seen[len(liked) :]) <= {0, ""}


def test_the_past_is_what_a_loop_finds():
    ratings = random_ratings()
    events = make_events(ratings, history_length=5, like=3)
    assert events["seen"].shape == (400, 5)
    assert events["label"].tolist() == (ratings.ratings >= 3).tolist()
    for row in range(400):
        check_row(ratings, events, row, 5, 3)


def test_the_past_in_movielens(movies):
    events = make_events(movies)
    for row in np.random.default_rng(0).integers(0, 100_000, 3):
        check_row(movies, events, row)
    assert events["label"].sum() == 34174 + 21201


def test_blocks_make_no_difference(monkeypatch):
    whole = make_events(random_ratings())["seen"]
    monkeypatch.setattr("tfcourse.data.events.BLOCK", 7)
    assert (make_events(random_ratings())["seen"] == whole).all()


def test_texts_and_zero_as_ids():
    ratings = random_ratings()
    numbers = make_events(ratings)
    names = {
        "users": np.array([f"u{u}" for u in ratings.users], object),
        "items": ratings.items.astype(str),
    }
    texts = make_events(random_ratings(**names))
    for name in STATISTICS:
        np.testing.assert_array_equal(texts[name], numbers[name])
    expected = np.where(numbers["seen"] == 0, "", numbers["seen"].astype(str))
    assert texts["seen"].tolist() == expected.tolist()
    # With an item 0 no integer could be padding.
    shifted = make_events(random_ratings(items=ratings.items - 1))["seen"]
    expected = np.where(numbers["seen"] == 0, "", (numbers["seen"] - 1).astype(str))
    assert shifted.tolist() == expected.tolist()


def test_statistics_of_large_ratings_are_exact():
    ratings = random_ratings()
    near, far = make_events(ratings), make_events(random_ratings(ratings=ratings.ratings + 1e6))
    np.testing.assert_allclose(far["item_deviation"], near["item_deviation"], atol=1e-5)


def test_hours_weekdays_and_facts():
    times = [0, 881250949, 881250949 + 86400]
    facts = {
        "item": np.array([5, 3]),
        "title": np.array(["five", "three"]),
        "year": np.array([1990, 1980]),
        "genres": np.array(["A|B|C|D", np.nan], object),
    }
    users = {"user": np.array(["x"]), "age": np.array([30.0]), "gender": np.array(["F"])}
    ratings = Ratings(["x", "y", "x"], [3, 5, 4], [1, 4, 5], times, users, facts)
    events = make_events(ratings, with_statistics=False)
    for row, moment in enumerate(times):
        then = datetime.datetime.fromtimestamp(moment, datetime.UTC)
        assert (events["hour"][row], events["weekday"][row]) == (then.hour, then.weekday())
    assert events["title"].tolist() == ["three", "five", ""]
    assert events["gender"].tolist() == ["F", "", "F"]
    np.testing.assert_array_equal(events["age"], [30, np.nan, 30])
    np.testing.assert_array_equal(events["year"], [1980, 1990, np.nan])
    genres = [events[f"genre{place}"].tolist() for place in (1, 2, 3)]
    assert genres == [["", "A", ""], ["", "B", ""], ["", "C", ""]]
    assert not set(STATISTICS) & events.keys()
    assert {len(column) for column in events.values()} == {3}


def test_a_later_label_changes_no_earlier_feature(movies):
    """Whatever happens in the test part; and, event by event, at the same moment or later."""
    _, _, test = split_by_time(movies)
    rng = np.random.default_rng(0)
    changed = movies.ratings.copy()
    changed[test] = rng.integers(1, 6, len(test))
    before = make_events(movies)
    after = make_events(Ratings(movies.users, movies.items, changed, movies.timestamps))
    assert (before["label"] != after["label"]).any()
    for name in (*STATISTICS, "seen"):
        np.testing.assert_array_equal(before[name][: test[0]], after[name][: test[0]])
    assert (before["seen"] != after["seen"])[test].any()  # they do see each other's labels

    ratings = random_ratings()
    before = make_events(ratings)
    for row in rng.integers(0, len(ratings), 40):
        changed = ratings.ratings.copy()
        changed[row] = 5 if changed[row] < 3.5 else 1
        after = make_events(random_ratings(ratings=changed))
        until_then = ratings.timestamps <= ratings.timestamps[row]
        for name in (*STATISTICS, "seen"):
            np.testing.assert_array_equal(before[name][until_then], after[name][until_then])


def auc_of_statistics(features, labels, train, test):
    features = np.column_stack(features)
    features = (features - features[train].mean(axis=0)) / features[train].std(axis=0)
    model = LogisticRegression().fit(features[train], labels[train])
    return roc_auc_score(labels[test], model.decision_function(features[test]))


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2))])
def test_permuted_labels_teach_nothing(movies, seed):
    train, _, test = split_by_time(movies)
    train = train[::4]
    shuffled = np.random.default_rng(seed).permutation(movies.ratings)
    shuffled = Ratings(movies.users, movies.items, shuffled, movies.timestamps)
    aucs = []
    for ratings in (movies, shuffled):
        events = make_events(ratings)
        columns = [np.nan_to_num(events[name]) for name in STATISTICS if "count" not in name]
        columns += [np.log1p(events["user_count"]), np.log1p(events["item_count"])]
        aucs.append(auc_of_statistics(columns, events["label"], train, test))
    assert aucs[0] > 0.68
    assert aucs[1] == pytest.approx(0.5, abs=0.02)

    # Statistics of all time, as the course computed them, do learn from the very same labels.
    users, items, _, _ = shuffled.numbered()
    labels = events["label"]
    leaking = [(np.bincount(i, labels) / np.bincount(i))[i] for i in (users, items)]
    assert auc_of_statistics(leaking, labels, train, test) > 0.55


@pytest.mark.slow
def test_permuted_labels_teach_a_deep_model_nothing(movies):
    """The same with everything that a model may see: ids, facts, statistics and histories."""
    import keras

    from tfcourse.data.in_memory import InMemory
    from tfcourse.data.pipeline import Normalised, Pipeline, Sequence, Vocabulary
    from tfcourse.recommendation import build_deepfm
    from tfcourse.training import fit, predict

    train, _, test = split_by_time(movies)
    train = train[::2]
    shuffled = np.random.default_rng(0).permutation(movies.ratings)
    specs = [Vocabulary(name) for name in ("user", "item", "genre1", "gender", "occupation")]
    specs += [Normalised(name) for name in (*STATISTICS, "year", "age")] + [Sequence("seen")]
    aucs = []
    for ratings in (movies.ratings, shuffled):
        events = make_events(replace(movies, ratings=ratings))
        parts = [{name: c[rows] for name, c in events.items()} for rows in (train, test)]
        pipeline = Pipeline(specs).fit(parts[0])
        keras.utils.set_random_seed(0)
        model = build_deepfm(pipeline.features, embedding_dim=8, hidden_units=(32,))
        model.compile(
            keras.optimizers.Adam(3e-3), keras.losses.BinaryCrossentropy(from_logits=True)
        )
        train_data, test_data = (
            InMemory(pipeline.transform(part), part["label"][:, None], 500, shuffle=shuffle)
            for part, shuffle in zip(parts, (True, False), strict=True)
        )
        fit(model, train_data, 1, jit_compile=True)
        aucs.append(roc_auc_score(parts[1]["label"], predict(model, test_data)))
    assert aucs[0] > 0.7
    assert aucs[1] == pytest.approx(0.5, abs=0.02)


def test_a_hundred_thousand_events_in_two_seconds(movies):
    start = time.perf_counter()
    make_events(movies)
    assert time.perf_counter() - start < 2  # 0.2 s on two cores


REFUSED = [
    (lambda: make_events(random_ratings(), history_length=0), "must be at least 1, got 0"),
    (lambda: make_events(random_ratings(timestamps=None)), "must have timestamps to be put in"),
    (
        lambda: make_events(Ratings([1, 1], [1, 2], [1, 2], [9, 8])),
        "timestamps must be in order, got 8 in row 1 after 9",
    ),
    (
        lambda: make_events(Ratings([1], [1], [1], [9], {"user": [1], "label": np.array([1])})),
        "a fact must not have the name of a column of events, got label",
    ),
    (
        lambda: make_events(Ratings([1], [1], [1], [9], {"user": [1], "user_mean": [3.0]})),
        "a fact must not have the name of a column of events, got user_mean",
    ),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
