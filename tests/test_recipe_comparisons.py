"""The recipes that compare networks in NumPy: at smoke size, and what they rest on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.optimize import approx_fprime
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from tfcourse import plots
from tfcourse.basics.surfaces import SURFACES
from tfcourse.data.housing import load_housing

ROOT = Path(__file__).parent.parent
PICTURES = {
    "predict_house_prices": ("splits.png", "prices.png"),
    "compare_optimizers": ("paths.png", "digits.png"),
    "compare_initialisers": ("outputs.png", "gradients.png"),
}


def run(name, cwd, *flags):
    # As `tfcourse run`, but without TensorFlow, which these recipes do not need.
    return subprocess.run(
        [sys.executable, ROOT / "recipes" / f"{name}.py", *map(str, flags)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def finished(name, cwd, *flags):
    done = run(name, cwd, *flags)
    if "could not have" in done.stderr:
        pytest.skip("no package registry can be reached")
    assert done.returncode == 0, done.stderr
    report = json.loads((cwd / "runs" / name / "report.json").read_text())
    assert done.stdout.splitlines()[-1] == report["line"]
    for picture in PICTURES[name]:
        with Image.open(cwd / "runs" / name / picture) as image:
            assert max(image.size) > 700
    return report


@pytest.fixture(scope="module")
def prices(tmp_path_factory):
    return finished("predict_house_prices", tmp_path_factory.mktemp("prices"), "--smoke")


@pytest.fixture(scope="module")
def optimizers(tmp_path_factory):
    flags = ["--smoke", "--seeds", "1"]
    return finished("compare_optimizers", tmp_path_factory.mktemp("optimizers"), *flags)


@pytest.fixture(scope="module")
def initialisers(tmp_path_factory):
    flags = ["--smoke", "--seeds", "1"]
    return finished("compare_initialisers", tmp_path_factory.mktemp("initialisers"), *flags)


def test_the_linear_network_finds_what_scikit_learn_finds(prices):
    x, y = load_housing()
    expected, errors = [], []
    for split in range(2):
        order = np.random.default_rng(split).permutation(len(x))
        test, known = order[:109], order[109:]
        predicted = LinearRegression().fit(x[known], y[known]).predict(x[test])
        expected.append(r2_score(y[test], predicted))
        errors.append(np.abs(predicted - y[test]).mean())
    np.testing.assert_allclose(prices["r2"]["least squares"], expected, rtol=1e-9)
    np.testing.assert_allclose(prices["absolute_error"]["least squares"], errors, rtol=1e-9)
    np.testing.assert_allclose(prices["r2"]["linear"], expected, atol=0.01)
    assert min(prices["r2"]["one hidden layer"]) > 0.4


def test_steps_on_the_surfaces(optimizers):
    steps = optimizers["steps"]
    # Gradient descent on a ravine: the best rate leaves (50 - 1) / (50 + 1) of the way in a step.
    assert steps["ravine"]["gradient_descent"] > np.log(8 / 0.0447) / np.log(51 / 49)
    assert steps["ravine"]["momentum"] < steps["ravine"]["gradient_descent"]
    # Scaling each weight straightens the ravine along the axes only.
    assert 5 * steps["ravine"]["adagrad"] < steps["turned ravine"]["adagrad"]
    assert max(steps["saddle"].values()) < 300
    assert steps["cliff"]["with clipping"] < 0.001
    assert steps["cliff"]["gradient descent"] > 0.05


def test_zeros_learn_nothing_and_scaled_weights_do(initialisers):
    accuracy = initialisers["accuracy"]
    assert set(accuracy) == {
        f"{activation}, {name}"
        for activation in ("tanh", "relu")
        for name in ("zeros", "normal", "xavier", "he")
    }
    for activation in ("tanh", "relu"):
        assert accuracy[f"{activation}, zeros"] == [0.1]
        assert accuracy[f"{activation}, normal"] == [0.1]
    assert accuracy["tanh, he"][0] > 0.25


@pytest.mark.parametrize("name", SURFACES)
def test_surfaces_have_the_gradients_that_differences_give(name):
    height, gradient = SURFACES[name]
    rng = np.random.default_rng(0)
    # Of the cliff, a part beside the wall: on it differences are as wild as the gradient.
    low, high = ((3.0, -1.0), (6.0, 0.0)) if name == "cliff" else ((-2.0, -2.0), (2.0, 2.0))
    for point in rng.uniform(low, high, (20, 2)):
        numeric = approx_fprime(point, height, 1e-7)
        np.testing.assert_allclose(gradient(point), numeric, rtol=1e-4, atol=1e-5)


def test_surfaces_take_grids():
    points = np.random.default_rng(0).normal(size=(3, 4, 2))
    for height, _ in SURFACES.values():
        one = [[height(point) for point in row] for row in points]
        np.testing.assert_allclose(height(points), one)


def test_bottoms_and_saddle():
    height, gradient = SURFACES["saddle"]
    assert height(np.array([0.0, 1.0])) == height(np.array([0.0, -1.0])) == -0.25
    assert gradient(np.zeros(2)).tolist() == [0, 0]
    assert height(np.array([0.0, 0.5])) < height(np.zeros(2)) < height(np.array([0.5, 0.0]))


def test_the_cliff_is_steep():
    """Across the wall the gradient is a thousand times that of the plain before it."""
    _, gradient = SURFACES["cliff"]
    biases = np.linspace(-2.8, -2.0, 2001)
    sizes = [np.linalg.norm(gradient(np.array([5.0, bias]))) for bias in biases]
    assert max(sizes) > 1000 * sizes[-1]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_pictures_have_room_for_what_there_is(tmp_path, count):
    rng = np.random.default_rng(0)
    names = [f"a method with a long name {i}" for i in range(count)]
    scores = {name: rng.uniform(size=4) for name in names}
    pairs = {name: rng.uniform(size=(2, 20)) for name in names}
    lines = {name: {"a": np.array([1.0, 0, 1e-9]), "b": np.ones(3)} for name in names}
    losses = {name: {"a": rng.uniform(size=(2, 3))} for name in names}
    grid = (np.arange(3), np.arange(4), rng.uniform(size=(4, 3)))
    paths = {name: {"a": rng.uniform(0, 2, (5, 2)), "b": np.full((2, 2), 9.0)} for name in names}
    plots.split_scores(scores, "R2", tmp_path / "scores.png")
    plots.predictions(pairs, "price", tmp_path / "pairs.png")
    plots.layer_variances(lines, "outputs", tmp_path / "variances.png")
    plots.loss_by_epoch(losses, tmp_path / "losses.png")
    plots.optimizer_paths(dict.fromkeys(names, grid), paths, tmp_path / "paths.png")
    for file in ("scores", "pairs", "variances", "losses", "paths"):
        with Image.open(tmp_path / f"{file}.png") as image:
            assert image.format == "PNG"
            assert min(image.size) > 100


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("predict_house_prices", ["--splits", "1"], "must be a whole number of at least 2"),
        ("compare_optimizers", ["--seeds", "0"], "must be a whole number of at least 1"),
        ("compare_initialisers", ["--layers", "one"], "must be a whole number of at least 2"),
    ],
)
def test_bad_flags_are_one_line(name, flags, message, tmp_path):
    done = run(name, tmp_path, "--smoke", *flags)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("name", "rate"), [("predict_house_prices", "1e200"), ("compare_initialisers", "1e200")]
)
def test_leaving_the_range_of_numbers_is_one_line(name, rate, tmp_path):
    done = run(name, tmp_path, "--smoke", "--learning-rate", rate)
    if "could not have" in done.stderr:
        pytest.skip("no package registry can be reached")
    assert done.returncode == 2
    assert done.stderr.startswith("tfcourse: the training left the range of numbers")
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.rglob("report.json"))


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
def test_the_full_recipe_keeps_its_promise(name, tmp_path):
    finished(name, tmp_path)
