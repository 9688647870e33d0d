"""The wheel in an empty folder and an environment that sees no checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "hatchling" in done.stderr:
        pytest.skip("the build backend cannot be had: no package registry")
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_what_the_wheel_holds(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.split("/")[0] for n in names if ".dist-info" not in n} == {
        "tfcourse",
        "hub_models",
        "tfcourse_benchmarks",
        "tfcourse_recipes",
    }
    assert "tfcourse_recipes/fine_tune_hub_model.py" in names
    assert "hub_models/allowed_operations.txt" in names
    assert "tfcourse/data/fashion_mnist/subset.npz" in names
    assert "tfcourse/data/fashion_mnist/LICENSE" in names


@pytest.mark.slow
def test_the_wheel_runs_in_an_empty_folder(wheel, tmp_path):
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        site,
        wheel,
    ]
    subprocess.run(command, check=True, capture_output=True)
    environment = os.environ | {"PYTHONPATH": str(site)}

    def tfcourse(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "tfcourse", *arguments],
            cwd=empty,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    assert "fine_tune_hub_model" in tfcourse("list").stdout
    small = ["--smoke", "--epochs", "1", "--head-epochs", "1", "--image-size", "32"]
    done = tfcourse("run", "fine_tune_hub_model", *small)
    assert done.returncode == 0, done.stderr
    assert (empty / "runs/fine_tune_hub_model/model.keras").exists()
