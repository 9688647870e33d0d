"""The recipes predict_clicks, compare_recommenders and recommend_movies at smoke size."""

import os
import runpy
import subprocess
import sys

import pytest
from test_recipe_basics import check_pictures, recipe  # noqa: F401
from test_recipes import ROOT

from tfcourse.data.ratings import load_movielens

SERVE = """
import sys
import tensorflow as tf
served = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
columns = {name: spec for name, spec in served.structured_input_signature[1].items()}
def raw(history):
    found = {}
    for name, spec in columns.items():
        text = [["50", "no such film"]] if history else [[""]]
        number, word = [float("nan")], ["never seen"]
        value = text if spec.shape.rank == 2 else number if spec.dtype == tf.float32 else word
        found[name] = tf.constant(value, spec.dtype)
    return float(served(**found)["probability"][0])
assert "tfcourse" not in sys.modules
print(raw(True), raw(False))
"""


@pytest.fixture(autouse=True, scope="module")
def movielens():
    try:
        load_movielens()
    except OSError as error:
        pytest.skip(f"MovieLens can't be fetched: {error}")


def serve(folder):
    """Ask a SavedModel about raw values in a process that has nothing of this project."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(folder)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-500:]
    return [float(word) for word in done.stdout.split()]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["din", "neural_cf"])
def test_predict_clicks(model, recipe, tmp_path):  # noqa: F811
    flags = ["--smoke", "--epochs", "1", "--model", model]
    status, report, output = recipe("predict_clicks", *flags)
    assert status == 0
    assert output.out.splitlines()[-1] == report["line"]
    assert "no figure is expected for these flags" in report["line"]
    assert {"most popular", "user mean", "item mean"} < report["found"].keys()
    folder = tmp_path / "runs/predict_clicks"
    check_pictures(folder, "calibration.png", "films.png", "curves.png")
    assert (folder / "attention.png").exists() == (model == "din")
    with_history, without = serve(folder / "saved_model")
    assert 0 < with_history < 1
    assert (with_history == without) == (model == "neural_cf")


def test_predict_clicks_from_a_file(recipe, tmp_path):  # noqa: F811
    lines = ["user,item,rating,timestamp"]
    lines += [f"u{i % 7},film {i * i % 11},{1 + (i * 7 + i // 5) % 5},{i * 60}" for i in range(400)]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    flags = ["--smoke", "--epochs", "1", "--data-dir", "mine.csv", "--model", "fm"]
    status, report, _ = recipe("predict_clicks", *flags, "--split", "random")
    assert status == 0
    assert 0 < report["value"] < 1
    check_pictures(tmp_path / "runs/predict_clicks", "films.png")


@pytest.mark.slow
def test_compare_recommenders(recipe, tmp_path):  # noqa: F811
    flags = ["--smoke", "--seeds", "2"]
    status, report, output = recipe("compare_recommenders", *flags)
    assert status == 0
    folder = tmp_path / "runs/compare_recommenders"
    table = (folder / "table.txt").read_text()
    assert table in output.out
    lines = table.splitlines()
    assert lines[0].split() == ["auc", "gauc", "log", "loss", "parameters", "seconds"]
    assert {line.split("  ")[0] for line in lines[1:]} == report["found"].keys()
    assert {"fm", "neural_cf", "most popular", "user mean", "item mean"} == report["found"].keys()
    assert len({result["auc"] for result in report["found"]["fm"]}) == 2  # two seeds
    check_pictures(folder, "calibration.png")
    # What is finished is not trained again.
    (folder / "report.json").unlink()
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("fm-*")}
    _, again, _ = recipe("compare_recommenders", *flags)
    assert again["found"] == report["found"]
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.glob("fm-*")}


@pytest.mark.slow
def test_recommend_movies(recipe, tmp_path):  # noqa: F811
    flags = ["--smoke", "--epochs", "1", "--length", "5"]
    status, report, output = recipe("recommend_movies", *flags, "--user", "42")
    assert status == 0
    assert {"most popular", "two towers", "and DIN"} == report["table"].keys()
    lines = output.out.splitlines()
    assert sum("because you watched" in line for line in lines) == 10
    folder = tmp_path / "runs/recommend_movies"
    check_pictures(folder, "films.png", "towers/curves.png", "ranker/curves.png")
    with_history, without = serve(folder / "served/din")
    assert with_history != without

    # The run is finished: lists for somebody new, without any training.
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    asked = [*flags, "--liked", "star wars", "The Godfather"]
    status, _, output = recipe("recommend_movies", *asked)
    assert status == 0
    lines = output.out.splitlines()
    assert lines[0] == "liked: Star Wars (1977); Godfather, The (1972)"
    after = next(i for i, line in enumerate(lines) if line.startswith("and after "))
    first, second = lines[1:after], lines[after + 1 :]
    assert len(first) == len(second) == 5
    assert [line[8:] for line in first] != [line[8:] for line in second]
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for wrong, message in (
        (["--liked", "Star Warz"], "no title 'Star Warz'; near are: Star Wars (1977)"),
        (["--user", "x"], "--user must be one of the 60 users, got 'x'"),
        (["--user", "1", "--length", "5000"], "k must be from 1 to the 100 candidates, got 5000"),
    ):
        status, _, output = recipe("recommend_movies", *flags, *wrong)
        assert status == 2
        assert message in output.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("predict_clicks", ["--model", "svd"], "argument --model: invalid choice: 'svd'"),
        ("predict_clicks", ["--split", "future"], "argument --split: invalid choice: 'future'"),
        ("predict_clicks", ["--like", "0"], "argument --like: must be a number above 0, got '0'"),
        ("predict_clicks", ["--like", "9"], "labels must have both 0 and 1, got only 0.0 in"),
        ("predict_clicks", ["--data-dir", "no.csv"], "No such file or directory: 'no.csv'"),
        ("compare_recommenders", ["--seeds", "0"], "argument --seeds: must be a whole number"),
        ("recommend_movies", ["--liked", "A", "--user", "1"], "not allowed with argument"),
    ],
)
def test_bad_flags_are_one_line(name, flags, message, recipe, tmp_path):  # noqa: F811
    status, _, output = recipe(name, "--smoke", *flags)
    assert status == 2
    assert message in output.err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


def test_recipes_say_what_they_expect_of_every_model():
    found = runpy.run_path(str(ROOT / "recipes/predict_clicks.py"))
    assert found["EXPECTED"].keys() == found["CLICK_MODELS"].keys()
