"""From ratings to parts, titles, and what learns on them."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from tfcourse import training
from tfcourse.data.features import Category, Cross, History, Number
from tfcourse.data.ratings import Ratings
from tfcourse.recommendation.click_models import CLICK_MODELS
from tfcourse.recommendation.clicks import digest_of, load_clicks, load_ratings, of_one_moment
from tfcourse.recommendation.learning import answers, learn, vectors_by_id
from tfcourse.recommendation.titles import find_title, genres_of, titles_of

ROWS, USERS, ITEMS = 1200, 40, 60


def make_ratings(seed=0, rows=ROWS):
    """Users like what has the parity of their number, mostly."""
    rng = np.random.default_rng(seed)
    users, items = rng.integers(1, USERS + 1, rows), rng.integers(1, ITEMS + 1, rows)
    liked = (users + items) % 2 == 0
    liked ^= rng.uniform(size=rows) < 0.1
    stars = np.where(liked, rng.integers(4, 6, rows), rng.integers(1, 4, rows))
    facts = {
        "item": np.arange(1, ITEMS + 1),
        "title": np.array([f"Film {i}" for i in range(1, ITEMS)] + [""], object),
        "year": np.where(np.arange(ITEMS) % 7 == 0, np.nan, 1950.0 + np.arange(ITEMS)),
        "genres": np.array([("Drama", "Comedy|War")[i % 2] for i in range(ITEMS)], object),
    }
    of_users = {"user": np.arange(1, USERS + 1), "age": 20 + np.arange(USERS)}
    return Ratings(users, items, stars, np.sort(rng.integers(0, 10**6, rows)), of_users, facts)


@pytest.fixture(scope="module")
def clicks():
    return load_clicks(make_ratings(), history_length=5)


def test_parts_follow_each_other_in_time(clicks):
    times = clicks.events["timestamp"]
    parts = (clicks.train, clicks.validation, clicks.test)
    assert [len(part) for part in parts] == pytest.approx([960, 120, 120], abs=2)
    assert times[clicks.train.rows].max() < times[clicks.validation.rows].min()
    assert times[clicks.validation.rows].max() < times[clicks.test.rows].min()
    for part in parts:
        np.testing.assert_array_equal(part.labels.ravel(), clicks.events["rating"][part.rows] > 3.5)


def test_columns_are_those_that_the_ratings_have(clicks):
    kinds = {f.name: type(f) for f in clicks.features}
    assert kinds["user"] is kinds["item"] is kinds["genre2"] is Category
    assert kinds["age"] is kinds["year"] is kinds["item_count"] is Number
    assert kinds["seen"] is History
    assert "genre3" not in kinds  # no film has three
    assert "gender" not in kinds
    assert "latest" not in kinds
    assert isinstance(clicks.cross, Cross)
    bare = make_ratings()
    bare = load_clicks(Ratings(bare.users, bare.items, bare.ratings, bare.timestamps))
    assert [f.name for f in bare.features][:3] == ["user", "item", "user_count"]


def test_some_training_events_have_an_unknown_user_and_no_other_part_has(clicks):
    everything = load_clicks(make_ratings(), history_length=5, unknown=0.0)
    forgotten = clicks.train.columns["user"] == 0
    assert not (everything.train.columns["user"] == 0).any()
    assert forgotten.mean() == pytest.approx(0.3, abs=0.05)
    kept = clicks.train.columns["user"][~forgotten]
    np.testing.assert_array_equal(kept, everything.train.columns["user"][~forgotten])
    np.testing.assert_array_equal(clicks.test.columns["user"], everything.test.columns["user"])
    again = load_clicks(make_ratings(), history_length=5)
    np.testing.assert_array_equal(clicks.train.columns["user"], again.train.columns["user"])


def test_labels_of_the_test_part_change_nothing_that_is_learned_from(clicks):
    ratings = make_ratings()
    ratings.ratings[clicks.test.rows] = 6 - ratings.ratings[clicks.test.rows]
    other = load_clicks(ratings, history_length=5)
    for part in ("train", "validation"):
        for name, column in getattr(clicks, part).columns.items():
            np.testing.assert_array_equal(column, getattr(other, part).columns[name], err_msg=name)
    assert (other.test.labels != clicks.test.labels).mean() > 0.75  # three stars stay three


def test_judged_as_scikit_learn_does(clicks):
    test, rng = clicks.test, np.random.default_rng(0)
    answers = rng.uniform(0.05, 0.95, len(test))
    found = test.judge(answers)
    assert found["auc"] == pytest.approx(roc_auc_score(test.labels.ravel(), answers))
    assert found["log loss"] == pytest.approx(log_loss(test.labels.ravel(), answers), rel=1e-5)
    assert found.keys() - test.judge(answers, of="ranks").keys() == {"log loss"}
    # A user's own level says nothing about which of his films he likes.
    level = test.users.astype(float)
    assert test.judge(level, of="ranks")["gauc"] == 0.5


def test_baselines_know_the_past_alone(clicks):
    part, events = clicks.test, clicks.events
    found = clicks.baselines(part)
    for place in (0, 50, len(part) - 1):
        row = part.rows[place]
        before = events["timestamp"] < events["timestamp"][row]
        same_item = before & (events["item"] == events["item"][row])
        same_user = before & (events["user"] == events["user"][row])
        assert found["most popular"][place] == same_item.sum()
        assert found["user mean"][place] == pytest.approx(events["rating"][same_user].mean())
        assert found["item mean"][place] == pytest.approx(events["rating"][same_item].mean())
    first = clicks.baselines(clicks.train)["user mean"][0]
    assert first == pytest.approx(events["rating"][clicks.train.rows].mean())


@pytest.mark.parametrize("split", ["random", "last"])
def test_other_splits_share_no_event(split):
    found = load_clicks(make_ratings(), split, history_length=5, seed=3)
    rows = np.concatenate([found.train.rows, found.validation.rows, found.test.rows])
    assert len(np.unique(rows)) == len(rows) == ROWS
    if split == "last":
        assert len(np.unique(found.test.users)) == len(found.test) == USERS
        # One event of each user: there is no order within a user to judge.
        assert found.test.judge(np.full(USERS, 0.5)).keys() == {"auc", "log loss"}
    else:
        other = load_clicks(make_ratings(), split, history_length=5, seed=4)
        assert (other.test.rows != found.test.rows).any()


def test_events_of_one_moment_share_the_longest_history(clicks):
    rows = of_one_moment(clicks.test)
    seen = clicks.test.columns["seen"]
    assert (seen[rows] == seen[rows[0]]).all()
    assert (seen[rows[0]] > 0).sum() == (seen > 0).sum(axis=1).max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "future"}, "split must be one of time, random, last, got 'future'"),
        ({"unknown": 1.0}, "unknown must be from 0 to below 1, got 1.0"),
        (
            {"like": 0.5},
            "labels must not all be the same, got 1 for each of 960 rows of the training part",
        ),
        (
            {"like": 6.0},
            "labels must not all be the same, got 0 for each of 960 rows of the training part",
        ),
        ({"history_length": 0}, "history_length must be at least 1, got 0"),
    ],
)
def test_bad_input_is_one_line(change, message):
    with pytest.raises(ValueError) as error:
        load_clicks(make_ratings(), **change)
    assert str(error.value) == message


def test_a_test_part_of_one_label_is_refused_before_anything_is_learned():
    ratings = make_ratings()
    ratings.ratings[-200:] = 5
    with pytest.raises(ValueError, match=r"got 1 for each of 120 rows of the test part$"):
        load_clicks(ratings)


def test_a_digest_tells_who_rated_what_and_when():
    good = make_ratings()
    changed = [good.users[::-1], good.items[::-1], 6 - good.ratings, good.timestamps + 1]
    columns = [good.users, good.items, good.ratings, good.timestamps]
    others = [Ratings(*columns[:i], changed[i], *columns[i + 1 :]) for i in range(4)]
    assert digest_of(make_ratings()) == digest_of(good)
    timeless = Ratings(*columns[:3])
    assert len({digest_of(ratings) for ratings in (good, *others, timeless)}) == 6


def test_ratings_without_times_or_order_are_refused():
    good = make_ratings()
    with pytest.raises(ValueError, match="ratings must have timestamps to be put in order of time"):
        load_clicks(Ratings(good.users, good.items, good.ratings))
    with pytest.raises(ValueError, match=r"timestamps must be in order, got .* in row 1 after"):
        load_clicks(good.take(np.arange(ROWS)[::-1]))


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_file_of_ratings_is_read(tmp_path, suffix):
    mark = "," if suffix == ".csv" else "\t"
    lines = [("user", "item", "rating", "timestamp"), ("a", "x", "5", "20"), ("b", "y", "1", "10")]
    path = tmp_path / f"mine{suffix}"
    path.write_text("\n".join(mark.join(line) for line in lines) + "\n")
    ratings = load_ratings(path)
    assert ratings.users.tolist() == ["b", "a"]
    assert ratings.ratings.tolist() == [1, 5]


FAST = ("din",)
FLAGS = SimpleNamespace(epochs=3, batch_size=64, learning_rate=1e-2, seed=0)


@pytest.mark.slow
def test_what_is_known_by_heart_is_not_kept(clicks):
    """An early epoch is the best, and its weights come back."""
    keras.utils.set_random_seed(0)
    model = CLICK_MODELS["embedding_mlp"].build(clicks)
    history = learn(model, clicks, FLAGS, epochs=12, jit_compile=False).history
    best = int(np.argmin(history["val_loss"]))
    assert len(history["loss"]) == best + 3
    reached = log_loss(clicks.validation.labels.ravel(), answers(model, clicks.validation))
    assert reached == pytest.approx(history["val_loss"][best], rel=1e-4)


@pytest.mark.parametrize(
    "name",
    [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in CLICK_MODELS],
)
def test_each_network_learns_from_the_columns(clicks, name):
    keras.utils.set_random_seed(0)
    model = CLICK_MODELS[name].build(clicks)
    losses = learn(model, clicks, FLAGS, jit_compile=name == "deepfm").history["loss"]
    assert losses[-1] < losses[0] - 0.005
    assert vectors_by_id(model, "item").shape[0] == clicks.pipeline.feature("item").size


@pytest.mark.slow
def test_two_replicas_learn_what_xla_does_not_compile_there(clicks):
    with training.strategy("cpu:2").scope():
        model = CLICK_MODELS["din"].build(clicks)  # Dice takes statistics of the batch
    losses = learn(model, clicks, FLAGS, epochs=2).history["loss"]
    assert losses[1] < losses[0]


def test_vectors_are_rows_of_the_table(clicks):
    model = CLICK_MODELS["din"].build(clicks)
    layer = model.get_layer("embedding")
    found = layer(
        {name: column[:9] for name, column in clicks.test.columns.items() if name in layer.columns}
    )
    items = clicks.test.columns["item"][:9]
    np.testing.assert_array_equal(vectors_by_id(model, "item")[items], found["item"])
    with pytest.raises(ValueError) as error:
        vectors_by_id(model, "planet")
    assert str(error.value) == "din has no table of planet"


FILMS = {"1": "Toy Story (1995)", "2": "Godfather, The (1972)", "3": "Alien (1979)", "9": "9"}
FILMS |= {"4": "Aliens (1986)", "5": "Alien 3 (1992)", "6": "Bonheur, Le (1965)"}


@pytest.mark.parametrize(
    ("wanted", "item"),
    [
        ("Toy Story (1995)", "1"),
        ("toy  STORY", "1"),
        ("The Godfather", "2"),
        ("godfather, the (1972)", "2"),
        ("alien", "3"),
        ("Le Bonheur", "6"),
        ("9", "9"),
    ],
)
def test_titles_are_found_as_people_write_them(wanted, item):
    assert find_title(FILMS, wanted) == item


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("story", "no title 'story'; near are: Toy Story (1995)"),
        ("Alein", "no title 'Alein'; near are: Alien (1979); Aliens (1986); Alien 3 (1992)"),
        ("zzzzzz", "no title 'zzzzzz'; none is near"),
        ("", "no title ''; none is near"),
    ],
)
def test_an_unknown_title_is_one_line_with_near_ones(wanted, message):
    with pytest.raises(ValueError) as error:
        find_title(FILMS, wanted)
    assert str(error.value) == message


def test_titles_have_years_where_these_are_known():
    ratings = make_ratings()
    titles, genres = titles_of(ratings), genres_of(ratings)
    assert titles["2"] == "Film 2 (1951)"
    assert titles["1"] == "Film 1"
    assert titles[str(ITEMS)] == str(ITEMS)
    assert (genres["1"], genres["2"]) == ("Drama", "Comedy")
    bare = Ratings(["a"], ["x"], [1.0])
    assert titles_of(bare) == {"x": "x"}
    assert genres_of(bare) == {}
