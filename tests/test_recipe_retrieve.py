"""The recipe retrieve_items at smoke size, and the task it sets."""

import json
import runpy
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from test_recipes import ROOT

from tfcourse.data.last_likes import hold_out_last_likes
from tfcourse.data.pipeline import Pipeline
from tfcourse.data.ratings import Ratings, load_movielens
from tfcourse.recommendation import vectors_of
from tfcourse.recommendation.clicks import load_ratings
from tfcourse.recommendation.index import TopK
from tfcourse.recommendation.titles import titles_of

RECIPE = ROOT / "recipes/retrieve_items.py"


def ratings() -> Ratings:
    """Two users, who rate in turn; the second likes two films only."""
    users = np.array([1, 2] * 6)
    items = np.array([10, 10, 20, 20, 30, 30, 40, 40, 50, 50, 60, 60])
    stars = np.array([5, 5, 1, 4, 4, 1, 5, 1, 2, 1, 4, 1])
    return Ratings(users, items, stars, np.arange(12) * 60)


def test_the_last_likes_are_held_out():
    task = hold_out_last_likes(ratings(), history_length=3)
    assert task.shape == (2, 6)
    assert task.train.tolist() == [0, 1, 3, 4]
    assert task.disliked.tolist() == [2, 5, 7, 9, 11]  # the second user has nothing held out
    assert task.validation.tolist() == [6]
    assert task.test.tolist() == [10]
    # Before the test's event: all that was rated, liked or not, by this user alone.
    place, items = task.seen(task.test)
    assert place.tolist() == [0] * 5
    assert items.tolist() == [0, 1, 2, 3, 4]
    assert task.seen(task.validation)[1].tolist() == [0, 1, 2]
    assert task.rows(task.test)["seen"].tolist() == [[40, 30, 10]]
    assert task.catalogue["item"].tolist() == [10, 20, 30, 40, 50, 60]


def test_the_first_rating_of_a_film_by_a_user():
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 5, 60), rng.integers(0, 9, 60)
    stars = np.where(np.arange(60) % 2, 5, 1)
    task = hold_out_last_likes(Ratings(users, items, stars, np.arange(60)))
    expected = np.full((5, 9), 60)
    for event in reversed(range(60)):  # some pairs come twice, some never
        expected[users[event], items[event]] = event
    found = task.first_rating(np.arange(5)[:, None], np.arange(9))
    np.testing.assert_array_equal(found, expected)
    assert (found == 60).any()
    assert (found < 60).sum() < 60


def test_what_is_a_like_can_be_said():
    task = hold_out_last_likes(ratings(), like=2)
    assert task.train.tolist() == [0, 1, 3, 4, 6]
    assert task.validation.tolist() == [8]
    with pytest.raises(ValueError, match=r"^ratings must have a like, 6 or more, got 5.0$"):
        hold_out_last_likes(ratings(), like=6)


def test_a_user_as_of_now_has_all_that_he_liked():
    task = hold_out_last_likes(ratings(), history_length=3)
    assert task.now(1)["seen"] == [[60, 40, 30, 10]]
    assert task.now(2)["seen"] == [[20, 10]]
    with pytest.raises(ValueError, match=r"^user must be one of the data, got 3$"):
        task.now(3)


def test_ratings_without_likes_are_one_clear_line():
    few = ratings()
    with pytest.raises(ValueError, match=r"^ratings must have a like, 3.5 or more, got 1.0$"):
        hold_out_last_likes(few.take(np.flatnonzero(few.ratings < 2)))
    with pytest.raises(ValueError, match="a user must have at least 3 events for this split"):
        hold_out_last_likes(few.take(np.flatnonzero(few.users == 2)))


@pytest.fixture(scope="module")
def movielens():
    try:
        return load_movielens()
    except OSError as error:
        pytest.skip(f"MovieLens can't be fetched: {error}")


@pytest.fixture
def recipe(offline, movielens):
    return offline


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """Run the recipe in this process, in an empty folder; gives the exit status."""

    def run(*flags):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(RECIPE), "--smoke", *flags])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(RECIPE), run_name="__main__")
        return end.value.code

    return run


@pytest.mark.slow
def test_a_run_leaves_what_serves(recipe, tmp_path, capsys):
    assert recipe("--epochs", "2") == 0
    folder = tmp_path / "runs/retrieve_items"
    report = json.loads((folder / "report.json").read_text())
    assert capsys.readouterr().out.splitlines()[-1] == report["line"]
    table = report["table"]
    assert list(table)[:3] == ["most popular", "item-CF", "ALS"]
    assert report["value"] == table["two towers"]["recall@100"]
    for row in table.values():
        assert 0 <= row["recall@10"] <= row["recall@100"] <= 1
        assert 0 < row["coverage@10"] < 1
    with Image.open(folder / "films.png") as picture:
        assert min(picture.size) > 200
    pipeline = Pipeline.load(folder / "pipeline.json")
    towers = [keras.saving.load_model(folder / f"{name}_tower.keras") for name in ("user", "item")]

    # A finished run serves: the titles are those that the loaded parts give.
    assert recipe("--user", "3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-11].startswith("user 3 liked ")
    data = load_movielens()
    data = data.take(np.flatnonzero(data.users <= 60))
    task = hold_out_last_likes(data)
    vectors = vectors_of(towers[1], pipeline.transform(task.catalogue))
    user = vectors_of(towers[0], pipeline.transform(task.now(3)))
    rated = data.items[data.users == 3]
    _, expected = TopK(vectors, task.catalogue["item"]).search(user, 10, exclude=[rated])
    titles = titles_of(data)
    assert [line.split("  ", 1)[1] for line in lines[-10:]] == [titles[str(i)] for i in expected[0]]
    assert not set(expected[0]) & set(rated)

    assert recipe("--user", "99") == 2
    message = "tfcourse: --user must be one of the 60 users, got '99'\n"
    assert capsys.readouterr().err == message
    assert recipe("--user", "99", "--workdir", "other") == 2  # before anything is trained
    assert capsys.readouterr().err == message
    assert not (tmp_path / "other").exists()
    assert recipe("--user", "3", "--like", "4") == 2
    assert "holds a run with other flags (like 3.5 -> 4.0)" in capsys.readouterr().err


def write_folder(folder, header="userId,movieId,rating,timestamp", prefix=""):
    """Write a small MovieLens as it is from 20m on: no facts of users, two genres at most."""
    rng = np.random.default_rng(0)
    films = [f"{i},Film {i} (1999),{('Drama', 'Comedy|War')[i % 2]}" for i in range(1, 61)]
    rows = [
        f"{prefix}{1 + i % 8},{prefix}{rng.integers(1, 61)},{rng.integers(1, 6)},{i * 60}"
        for i in range(320)
    ]
    (folder / "ratings.csv").write_text("\n".join([header, *rows]))
    (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *films]))


@pytest.mark.slow
def test_a_movielens_that_knows_less(offline, tmp_path, capsys):
    write_folder(tmp_path)
    assert offline("--epochs", "1", "--data-dir", ".", "--user", "3") == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("user 3 liked Film "))
    assert all(line.endswith(" (1999)") for line in lines[start + 1 : start + 11])
    folder = tmp_path / "runs/retrieve_items"
    names = Pipeline.load(folder / "pipeline.json").columns
    assert names == ["user", "seen", "item", "genre1", "genre2", "year"]


def test_a_file_of_ones_own_with_ids_that_are_texts(offline, tmp_path, capsys):
    write_folder(tmp_path, "user,item,rating,timestamp", "x")
    flags = ["--data-dir", "ratings.csv", "--like", "4", "--user"]
    assert offline(*flags, "x3", "--epochs", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    data = load_ratings(tmp_path / "ratings.csv")
    liked = data.items[(data.users == "x3") & (data.ratings >= 4)][::-1]
    line = "user x3 liked " + ", ".join(liked[:5])
    start = lines.index(line)
    offers = [line.split("  ", 1)[1] for line in lines[start + 1 : start + 11]]
    assert len(set(offers)) == 10
    assert set(offers) <= set(data.items) - set(data.items[data.users == "x3"])
    # The finished run answers from what it has written, and to the same ratings alone.
    assert offline(*flags, "x3") == 0
    assert capsys.readouterr().out.splitlines() == lines[start : start + 11]
    write_folder(tmp_path, "user,item,rating,timestamp", "y")
    assert offline(*flags, "y3") == 2
    assert "holds a run with other ratings: --fresh starts over" in capsys.readouterr().err
