"""Each recipe at smoke size, as a user starts it."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfcourse.data.fashion_mnist import load_fashion_mnist

ROOT = Path(__file__).parent.parent
SIZE = ["--smoke", "--epochs", "1", "--head-epochs", "2", "--image-size", "32"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def tfcourse(cwd, cache, *arguments):
    environment = {"PYTHONPATH": str(ROOT), "TFCOURSE_CACHE": str(cache)}
    return subprocess.run(
        [sys.executable, "-m", "tfcourse", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_fine_tune_hub_model(tmp_path, cache):
    command = ["run", "fine_tune_hub_model", *SIZE, "--labels-per-class", "4"]
    done = tfcourse(tmp_path, cache, *command)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs/fine_tune_hub_model"
    last = done.stdout.splitlines()[-1]
    assert last.startswith("test accuracy 0.")
    report = json.loads((folder / "report.json").read_text())
    assert last == report["line"]
    assert set(report["accuracy"]) == {"raw pixels", "frozen features", "fine-tuned"}
    for name in ("confusion_matrix.png", "predictions.png", "labels.png", "fine_tuned/curves.png"):
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 200
    with open(folder / "head/metrics.csv") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    assert list((folder / "head/tensorboard").rglob("events.out.tfevents.*"))
    assert (folder / "model.keras").exists()

    again = tfcourse(tmp_path, cache, *command)
    assert again.returncode == 0
    assert again.stdout.splitlines()[-1] == last
    assert "this run is finished" in again.stdout
    other = tfcourse(tmp_path, cache, *command, "--seed", "1")
    assert other.returncode == 2
    assert "holds a run with other flags (seed 0 -> 1)" in other.stderr

    _predict_own_pictures(tmp_path, cache, folder)
    _run_without_tfcourse(tmp_path, folder)


def _predict_own_pictures(tmp_path, cache, folder):
    _, test = load_fashion_mnist()
    Image.fromarray(test.images[0, ..., 0]).save(tmp_path / "clothes.png")
    arguments = ["predict", "runs/fine_tune_hub_model", "clothes.png", "clothes.png"]
    done = tfcourse(tmp_path, cache, *arguments)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()[-2:]
    assert lines[0] == lines[1]
    assert lines[0].startswith("clothes.png: ")
    assert lines[0].count("%") == 3
    missing = tfcourse(tmp_path, cache, "predict", folder, "nowhere.png")
    assert missing.returncode == 2
    assert missing.stderr == "tfcourse: there is no file nowhere.png\n"


def _run_without_tfcourse(tmp_path, folder):
    code = """
import sys
import numpy as np
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
print(np.asarray(model(tf.zeros([2, 32, 32, 3]))).shape)
assert not {"keras", "tfcourse", "hub_models"} & set(sys.modules)
"""
    command = [sys.executable, "-c", code, str(folder / "saved_model")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "(2, 10)\n", done.stderr[-500:]


@pytest.mark.slow
def test_fine_tune_hub_model_on_a_folder_of_pictures_on_two_replicas(tmp_path, cache):
    train, _ = load_fashion_mnist()
    for label, name in ((1, "Trouser"), (8, "包")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in np.flatnonzero(train.labels == label)[:60]:
            picture = Image.fromarray(train.images[i, ..., 0]).resize((70, 60))
            picture.convert("RGB").save(tmp_path / "photos" / name / f"{i}.jpg")
    (tmp_path / "photos/包/broken.jpg").write_bytes(b"no picture")
    done = tfcourse(
        tmp_path,
        cache,
        "run",
        "fine_tune_hub_model",
        *("--data-dir", "photos", "--strategy", "cpu:2", "--workdir", "out"),
        *("--image-size", "32", "--epochs", "1", "--head-epochs", "5"),
    )
    assert done.returncode == 0, done.stderr
    assert "broken.jpg" in done.stderr
    assert "2 classes" in done.stdout
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["accuracy"]["frozen features"] > 0.8
    assert done.stdout.splitlines()[-1].endswith("(no figure is expected for these flags)")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data-dir", "nowhere"], "there is no folder nowhere"),
        (["--handle", "no/such/handle"], "no such handle: 'no/such/handle'"),
        pytest.param(
            ["--handle", "http://tfhub.dev/x/1"],
            "a handle must use https, got 'http://tfhub.dev/x/1'",
            marks=pytest.mark.slow,
        ),
        (["--strategy", "quantum"], "got 'quantum'"),
        (["--top", "nothing_is_called_so"], "trainable='nothing_is_called_so' matches none"),
    ],
)
def test_bad_flags_are_one_line(flags, message, tmp_path, cache):
    done = tfcourse(tmp_path, cache, "run", "fine_tune_hub_model", *SIZE, *flags)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("tfcourse: ")
    assert message in last
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_full_recipe_keeps_its_promise(tmp_path, cache):
    done = tfcourse(tmp_path, cache, "run", "fine_tune_hub_model")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1].split()[2]) >= 0.87
