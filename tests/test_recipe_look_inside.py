"""The recipe `look_inside`, as a user starts it."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfcourse.vision import published

ROOT = Path(__file__).parent.parent


def tfcourse(cwd, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "tfcourse", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("look_inside", ROOT / "recipes/look_inside.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_look_inside(tmp_path):
    """EfficientNet-Lite0 with its real weights knows the uniform, and where it is."""
    done = tfcourse(tmp_path, "run", "look_inside", "--smoke")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs/look_inside"
    report = json.loads((folder / "report.json").read_text())
    assert "military uniform 39." in done.stdout
    assert report["without_hottest"] < 0.1
    assert report["whole"] == pytest.approx(0.391, abs=0.01)
    assert len(report["without_others"]) == 4
    for name in ("filters", "feature_maps", "grad_cam"):
        with Image.open(folder / f"{name}.png") as picture:
            assert min(picture.size) > 200, name
            assert np.asarray(picture.convert("RGB")).std() > 20, name


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--image", "nowhere.png"], "there is no file nowhere.png"),
        (["--image", "text.png"], "text.png is not an image of a known format"),
        (["--weights-file", "nowhere.pth"], "nowhere.pth"),
        (["--layer", "logits"], r"layer must be one whose output is a map \(stage1, .*'logits'"),
        (["--strategy", "quantum"], "got 'quantum'"),
    ],
)
def test_bad_flags_are_named(recipe, flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("no picture")
    monkeypatch.setattr(sys, "argv", ["look_inside", *flags])
    with pytest.raises((ValueError, OSError), match=message):
        recipe.main()
    assert not Path("runs").exists()


def test_every_model_with_published_weights_can_be_chosen(recipe):
    assert set(recipe.MODELS) == set(published.IMAGENET)
    assert recipe.MODELS["googlenet_torchvision"]().name == "googlenet_torchvision"


@pytest.mark.slow
@pytest.mark.parametrize("name", published.IMAGENET)
def test_every_model_is_what_it_is_called(recipe, name):
    assert recipe.MODELS[name]().name == name


def test_other_places_have_the_same_shape_and_come_once(recipe):
    marked = np.zeros((7, 7), bool)
    marked[3:5, 2:4] = True
    others = recipe.elsewhere(marked, 100, 0)
    assert len({other.tobytes() for other in [marked, *others]}) == 49
    assert {int(other.sum()) for other in others} == {4}
    assert len(recipe.elsewhere(marked, 5, 0)) == 5
    first, second = (np.stack(recipe.elsewhere(marked, 5, seed)) for seed in (0, 1))
    assert np.any(first != second)


@pytest.mark.slow
def test_the_full_recipe_keeps_its_promise(tmp_path):
    done = tfcourse(tmp_path, "run", "look_inside", "--seed", "1")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "runs/look_inside/report.json").read_text())
    assert len(report["without_others"]) == 48
    assert report["value"] == pytest.approx(0.244, abs=0.02)
