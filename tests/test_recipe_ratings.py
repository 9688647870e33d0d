"""The recipe predict_ratings at smoke size, its figures, and what it refuses."""

import zipfile

import numpy as np
import pytest
from PIL import Image
from sharing import or_skip

from tfcourse.data import ratings


@pytest.fixture(scope="module")
def movies():
    return or_skip(ratings.load_movielens)


@pytest.fixture
def table(tmp_path):
    """A file of ratings in which users of two kinds like films of two kinds."""
    rng = np.random.default_rng(0)
    users, films = np.divmod(np.arange(40 * 30), 30)
    stars = np.where((users < 20) == (films < 15), 4, 2) + rng.integers(0, 2, len(users))
    path = tmp_path / "ratings.csv"
    rows = zip(users, films, stars, rng.permutation(len(users)), strict=True)
    lines = [f"u{u},film {f},{r},{t}" for u, f, r, t in rows if (u * 7 + f * 3) % 5]
    path.write_text("\n".join(["user,item,rating,timestamp", *lines]) + "\n")
    return path


def check_picture(path):
    with Image.open(path) as picture:
        assert min(picture.size) > 150


@pytest.mark.parametrize("model", ["user_cf", "item_cf"])
def test_neighbours_on_a_file_of_ones_own(model, recipe, table, tmp_path):
    status, report, output = recipe("predict_ratings", "--model", model, "--data-dir", str(table))
    assert status == 0, output.err
    assert output.out.splitlines()[-1] == report["line"]
    assert "no figure is expected" in report["line"]
    rmse = report["rmse"]
    assert len(rmse[model]) == 5
    # Within a kind the stars are 4 or 5, or 2 or 3: 0.5 is the best, and means know no kinds.
    assert np.mean(rmse[model]) < 0.75
    assert np.mean(rmse["item means"]) > 1
    assert report["value"] == pytest.approx(np.mean(rmse[model]))
    check_picture(tmp_path / "runs/predict_ratings/errors.png")


def test_files_of_other_kinds(recipe, table, tmp_path):
    """A file with tabs, and the zip file of a MovieLens, hold the same ratings."""
    rows = [line.split(",") for line in table.read_text().splitlines()]
    (tmp_path / "mine.tsv").write_text("\n".join("\t".join(row) for row in rows))
    plain = ["::".join([row[0][1:], row[1][5:], *row[2:]]) for row in rows[1:]]
    films = sorted({line.split("::")[1] for line in plain})
    with zipfile.ZipFile(tmp_path / "ml-1m.zip", "w") as archive:
        archive.writestr("ml-1m/ratings.dat", "\n".join(plain))
        text = "\n".join(f"{film}::Am\u00e9lie {film}::Drama" for film in films)
        archive.writestr("ml-1m/movies.dat", text.encode("latin-1"))
    found = []
    for name in (str(table), "mine.tsv", "ml-1m.zip"):
        flags = ("--model", "item_cf", "--data-dir", name, "--fresh")
        status, report, output = recipe("predict_ratings", *flags)
        assert status == 0, output.err
        found.append(report["value"])
    assert found[0] == found[1]
    assert found[2] == pytest.approx(found[0], abs=0.01)  # other ids are in another order


@pytest.mark.parametrize("model", ["user_cf", "item_cf"])
def test_of_an_item_rated_twice_the_later_rating_counts(model, recipe, table):
    once = recipe("predict_ratings", "--model", model, "--data-dir", str(table))[1]
    header, *lines = table.read_text().splitlines()
    again = [line.rsplit(",", 2)[0] + ",1,-5" for line in lines[::100]]
    table.write_text("\n".join([header, *again, *lines]) + "\n")
    flags = ("--model", model, "--data-dir", str(table), "--fresh")
    status, report, output = recipe("predict_ratings", *flags)
    assert status == 0, output.err
    assert f"{len(again)} ratings are left out: the user rated the item again later" in output.out
    assert report["rmse"] == once["rmse"]


@pytest.mark.parametrize("model", ["mf", "user_cf", "item_cf"])
def test_ratings_that_are_all_the_same_are_refused(model, recipe, table, tmp_path):
    header, *lines = table.read_text().splitlines()
    equal = [line.rsplit(",", 2)[0] + ",5,1" for line in lines]
    table.write_text("\n".join([header, *equal]) + "\n")
    status, _, output = recipe("predict_ratings", "--model", model, "--data-dir", str(table))
    assert status == 2
    assert "ratings must not all be the same, got 5 for each of" in output.err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


def test_factorisation_of_what_came_later(recipe, table, tmp_path):
    flags = ("--data-dir", str(table), "--split", "time", "--batch-size", "32", "--epochs", "6")
    status, report, output = recipe("predict_ratings", *flags, "--learning-rate", "0.03")
    assert status == 0, output.err
    assert len(report["rmse"]["mf"]) == 1
    assert report["rmse"]["mf"][0] < 0.75 < report["rmse"]["item means"][0]
    folder = tmp_path / "runs/predict_ratings"
    check_picture(folder / "errors.png")
    assert (folder / "later/model.keras").exists()
    assert (folder / "later/metrics.csv").exists()


def test_smoke_run_and_a_finished_one(recipe, movies):
    status, report, output = recipe("predict_ratings", "--smoke", "--model", "item_cf")
    assert status == 0, output.err
    assert len(report["rmse"]["item_cf"]) == 2
    again = recipe("predict_ratings", "--smoke", "--model", "item_cf")
    assert again[0] == 0
    assert "this run is finished" in again[2].out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "svd"], "argument --model: invalid choice: 'svd'"),
        (["--split", "users"], "argument --split: invalid choice: 'users'"),
        (["--embedding-dim", "0"], "argument --embedding-dim: must be a whole number of at least"),
        (["--data-dir", "nowhere"], "nowhere"),
    ],
)
def test_bad_flags_are_one_line(flags, message, recipe, tmp_path):
    status, _, output = recipe("predict_ratings", *flags)
    assert status == 2
    assert message in output.err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("model", "most"), [("mf", 0.935), ("item_cf", 0.92), ("user_cf", 0.93)])
def test_the_full_recipe_keeps_its_promise(model, most, recipe, movies):
    status, report, output = recipe("predict_ratings", "--model", model)
    assert status == 0, output.err
    assert "(expected " in report["line"]
    assert np.mean(report["rmse"][model]) <= most
