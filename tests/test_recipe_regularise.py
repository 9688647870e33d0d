"""The recipe `regularise` at smoke size, as a user starts it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfcourse import plots

ROOT = Path(__file__).parent.parent
SIZE = ["--smoke", "--pictures", "100", "--seeds", "2"]


def tfcourse(cwd, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "tfcourse", "run", "regularise", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_regularise(tmp_path):
    command = [*SIZE, "--methods", "mix-up"]
    done = tfcourse(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs/regularise"
    report = json.loads((folder / "report.json").read_text())
    assert done.stdout.splitlines()[-1] == report["line"]
    assert set(report["accuracy"]) == {"none", "mix-up"}
    for name in ("augmentation.png", "accuracy.png"):
        with Image.open(folder / name) as picture:
            assert max(picture.size) > 700
    kept = sorted(path.name for path in (folder / "trained").iterdir())
    assert kept == ["mix-up_0.4_0.json", "mix-up_0.4_1.json", "none_0_0.json", "none_0_1.json"]


@pytest.mark.slow
def test_what_is_kept_is_read_and_what_is_missing_is_trained_to_the_same_result(tmp_path):
    command = [*SIZE, "--methods", "mix-up"]
    assert tfcourse(tmp_path, *command).returncode == 0
    folder = tmp_path / "runs/regularise"
    report = json.loads((folder / "report.json").read_text())
    (folder / "report.json").unlink()
    (folder / "trained/none_0_1.json").unlink()
    again = tfcourse(tmp_path, *command)
    assert again.returncode == 0, again.stderr
    assert [line for line in again.stdout.splitlines() if ", seed " in line] == [
        f"none 0, seed 1: test accuracy {report['accuracy']['none'][1][2]:.3f}"
    ]
    assert again.stdout.splitlines()[-1] == report["line"]


@pytest.mark.slow
def test_colour_and_every_other_method_on_a_folder_of_pictures_on_two_replicas(tmp_path):
    rng = np.random.default_rng(0)
    for name, color in (("red", (200, 40, 40)), ("green", (40, 200, 40))):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(40):
            pixels = np.clip(np.array(color) + rng.normal(0, 30, (32, 30, 3)), 0, 255)
            Image.fromarray(pixels.astype("uint8")).save(tmp_path / f"pictures/{name}/{i}.png")
    arguments = ["--data-dir", "pictures", "--pictures", "30", "--seeds", "2", "--epochs", "20"]
    done = tfcourse(tmp_path, *arguments, "--strategy", "cpu:2")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "runs/regularise/report.json").read_text())
    assert len(report["accuracy"]) == 16
    assert np.mean(report["accuracy"]["mirror"]) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--methods", "L2,L3"], "--methods must be of none, L1, L2, dropout"),
        (["--methods", "colour"], "--methods must not be colour for grey pictures"),
        (["--pictures", "5000"], "--pictures must be less than 5000, what there is to learn from"),
        (
            ["--seed", "4294967295"],
            "--seed must leave room for --seeds below 2**32, got 4294967295",
        ),
        (["--seeds", "1"], "must be a whole number of at least 2, got '1'"),
    ],
)
def test_bad_flags_are_one_line(flags, message, tmp_path):
    done = tfcourse(tmp_path, *SIZE, *flags)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_the_full_recipe_keeps_its_promise(tmp_path):
    done = tfcourse(tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "runs/regularise/report.json").read_text())
    none = np.array(report["accuracy"]["none"])
    assert none[:, 0].min() > 0.95  # it knows what it learned
    assert none[:, 2].max() < 0.85  # and little else


def test_gaps_are_drawn(tmp_path):
    results = {"none": ([1.0, 1.0], [0.7, 0.72]), "L2": ([0.9, 0.91], [0.75, 0.74])}
    plots.accuracy_gaps(results, "none", tmp_path / "bars.png")
    with Image.open(tmp_path / "bars.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    colors = {tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in (plots.COLORS[1],)}
    assert colors <= {tuple(map(int, p)) for p in np.unique(pixels, axis=0)}
    with pytest.raises(KeyError, match="missing"):
        plots.accuracy_gaps(results, "missing", tmp_path / "other.png")
