"""The recipes predict_clicks, compare_recommenders and recommend_movies at smoke size."""

import os
import runpy
import subprocess
import sys

import keras
import numpy as np
import pytest
from sharing import check_pictures
from test_recipes import ROOT

from tfcourse.data.features import Number
from tfcourse.data.pipeline import Pipeline
from tfcourse.data.ratings import load_movielens
from tfcourse.recommendation.click_models import CLICK_MODELS

SERVE = """
import sys
import tensorflow as tf
served = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
raw = {}
for name, spec in served.structured_input_signature[1].items():
    text, number, word = [["50", "no such film"], ["", ""]], [float("nan")] * 2, ["never seen"] * 2
    value = text if spec.shape.rank == 2 else number if spec.dtype == tf.float32 else word
    raw[name] = tf.constant(value, spec.dtype)
assert "tfcourse" not in sys.modules
print(*served(**raw)["probability"].numpy())
"""


@pytest.fixture(autouse=True, scope="module")
def movielens():
    try:
        load_movielens()
    except OSError as error:
        pytest.skip(f"MovieLens can't be fetched: {error}")


def serve(folder, model):
    """Ask a SavedModel in a process that has nothing of this project; hold it against the model.

    Returns:
        The probability with a history, and that without one, of raw values that are unknown.
    """
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
    served = [float(word) for word in done.stdout.split()]
    pipeline = Pipeline.load(folder / "assets.extra/pipeline.json")
    raw = {name: ["never seen"] * 2 for name in pipeline.columns}
    raw |= {f.name: [np.nan] * 2 for f in pipeline.features if isinstance(f, Number)}
    columns = pipeline.transform(raw | {"seen": [["50", "no such film"], []]})
    model = keras.saving.load_model(model)
    logits = model.predict({name: columns[name] for name in model.input}, verbose=0).ravel()
    np.testing.assert_allclose(served, 1 / (1 + np.exp(-logits)), atol=1e-6)
    return served


def write_ratings(path, users=7, items=40, stars=5):
    """Write ratings without facts; of the last 80 each is of another user, who is new."""
    rng = np.random.default_rng(0)
    lines = ["user,item,rating,timestamp"]
    lines += [
        f"u{rng.integers(users) if i < 320 else i},film {rng.integers(items)},"
        f"{rng.integers(1, 1 + stars)},{i * 60}"
        for i in range(400)
    ]
    path.write_text("\n".join(lines))


@pytest.mark.slow
def test_predict_clicks(recipe, tmp_path):
    flags = ["--smoke", "--epochs", "1", "--model", "din"]
    status, report, output = recipe("predict_clicks", *flags)
    assert status == 0
    assert output.out.splitlines()[-1] == report["line"]
    assert "no figure is expected for these flags" in report["line"]
    assert {"most popular", "user mean", "item mean"} < report["found"].keys()
    folder = tmp_path / "runs/predict_clicks"
    check_pictures(folder, "calibration.png", "films.png", "curves.png", "attention.png")
    with_history, without = serve(folder / "saved_model", folder / "model.keras")
    assert 0 < with_history < 1
    assert with_history != without


@pytest.mark.slow
@pytest.mark.parametrize("model", CLICK_MODELS)
def test_every_network_beats_popularity_and_the_users_means(model, recipe):
    status, report, _ = recipe("predict_clicks", "--model", model)
    assert status == 0  # what the recipe promises
    found = {name: figures["auc"] for name, figures in report["found"].items()}
    assert report["value"] > max(found["most popular"], found["user mean"])


def test_predict_clicks_from_a_file(recipe, tmp_path):
    write_ratings(tmp_path / "mine.csv")
    flags = ["--smoke", "--epochs", "1", "--data-dir", "mine.csv", "--model", "fm"]
    status, report, _ = recipe("predict_clicks", *flags, "--split", "last")
    assert status == 0
    assert 0 < report["value"] < 1
    assert "gauc" not in report["found"]["item mean"]  # one test event of each user
    check_pictures(tmp_path / "runs/predict_clicks", "films.png")


@pytest.mark.slow
def test_no_attention_is_drawn_where_nobody_has_a_history(recipe, tmp_path):
    write_ratings(tmp_path / "mine.csv")
    flags = ["--smoke", "--epochs", "1", "--data-dir", "mine.csv", "--model", "din"]
    status, report, output = recipe("predict_clicks", *flags)
    assert status == 0
    assert "no event of the test part has a history" in output.out
    assert "gauc" not in report["found"]["din"]
    assert not (tmp_path / "runs/predict_clicks/attention.png").exists()


@pytest.mark.slow
def test_recommend_movies_from_a_file(recipe, tmp_path):
    """Nothing is known of users and films, and one user has liked nothing."""
    write_ratings(tmp_path / "mine.csv", items=90)
    with open(tmp_path / "mine.csv", "a") as file:
        file.write("\nhater,film 1,1,99999999\n")
    flags = ["--smoke", "--epochs", "1", "--data-dir", "mine.csv", "--length", "3"]
    status, _, output = recipe("recommend_movies", *flags, "--user", "hater")
    assert status == 0
    lines = output.out.splitlines()
    start = lines.index("liked: nothing yet")
    assert [("because" in line) for line in lines[start + 1 : start + 8]] == [False] * 4 + [
        True
    ] * 3
    check_pictures(tmp_path / "runs/recommend_movies", "films.png", "attention.png")


@pytest.mark.slow
def test_compare_recommenders(recipe, tmp_path):
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
    aucs = [result["auc"] for result in report["found"]["fm"]]
    assert len(set(aucs)) == 2  # two seeds
    # The line names the model whose figure it gives; DeepFM is none of the two.
    assert report["line"].startswith(f"mean test AUC of fm {np.mean(aucs):.3f} ")
    check_pictures(folder, "calibration.png")
    # What is finished is not trained again.
    (folder / "report.json").unlink()
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("fm-*")}
    _, again, _ = recipe("compare_recommenders", *flags)
    assert again["found"] == report["found"]
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.glob("fm-*")}


@pytest.mark.slow
def test_recommend_movies(recipe, tmp_path):
    flags = ["--smoke", "--epochs", "1", "--length", "5"]
    status, report, output = recipe("recommend_movies", *flags, "--user", "42")
    assert status == 0
    assert {"most popular", "two towers", "and DIN"} == report["table"].keys()
    lines = output.out.splitlines()
    assert sum("because you watched" in line for line in lines) == 10
    folder = tmp_path / "runs/recommend_movies"
    check_pictures(folder, "films.png", "towers/curves.png", "ranker/curves.png")
    with_history, without = serve(folder / "served/din", folder / "ranker.keras")
    assert with_history != without

    # The run is finished: lists for somebody new, without any training.
    write_ratings(tmp_path / "mine.csv")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    asked = [*flags, "--liked", "star wars", "--liked", "The Godfather"]
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
        (["--user", "1", "--length", "5000"], "--length must be at most the "),
        (["--user", "1", "--data-dir", "mine.csv"], "holds a run with other ratings: --fresh"),
        (["--user", "1", "--like", "4"], "holds a run with other flags (like 3.5 -> 4.0)"),
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
        ("predict_clicks", ["--like", "9"], "labels must not all be the same, got 0 for each of"),
        ("predict_clicks", ["--data-dir", "no.csv"], "No such file or directory: 'no.csv'"),
        ("compare_recommenders", ["--seeds", "0"], "argument --seeds: must be a whole number"),
        ("recommend_movies", ["--liked", "A", "--user", "1"], "not allowed with argument"),
        ("recommend_movies", ["--liked"], "argument --liked: expected at least one argument"),
        ("recommend_movies", ["--liked", "Star Warz"], "no title 'Star Warz'; near are: Star"),
        ("recommend_movies", ["--user", ""], "--user must be one of the 60 users, got ''"),
        ("recommend_movies", ["--like", "9"], "ratings must have a like, 9 or more, got 5.0"),
        ("recommend_movies", ["--data-dir", "few.csv"], "each user must have 10 films left"),
        ("retrieve_items", ["--like", "0"], "argument --like: must be a number above 0, got '0'"),
        ("retrieve_items", ["--like", "9"], "ratings must have a like, 9 or more, got 5.0"),
        ("retrieve_items", ["--data-dir", "few.csv"], "each user must have 10 films left"),
        ("recommend_movies", ["--data-dir", "."], "must hold ml-100k.inter and ml-100k.item or"),
        ("predict_clicks", ["--data-dir", "equal.csv"], "labels must not all be the same"),
        ("predict_clicks", ["--data-dir", "once.csv"], "column seen must have a value, got none"),
        (
            "compare_recommenders",
            ["--split", "last", "--data-dir", "once.csv"],
            "at least 3 events",
        ),
    ],
)
def test_bad_flags_are_one_line(name, flags, message, recipe, tmp_path):
    write_ratings(tmp_path / "equal.csv", stars=1)
    write_ratings(tmp_path / "few.csv", items=12)
    write_ratings(tmp_path / "once.csv", users=10**6)
    status, _, output = recipe(name, "--smoke", *flags)
    assert status == 2
    assert message in output.err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


def test_recipes_say_what_they_expect_of_every_model():
    found = runpy.run_path(str(ROOT / "recipes/predict_clicks.py"))
    assert found["EXPECTED"].keys() == found["CLICK_MODELS"].keys()
