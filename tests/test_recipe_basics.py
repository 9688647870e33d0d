"""The recipes train_a_neuron, solve_xor and backprop_by_hand at smoke size, and their pictures."""

import runpy

import numpy as np
import pytest
from PIL import Image
from sharing import check_pictures
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from test_recipes import ROOT

from tfcourse import plots


def test_train_a_neuron(recipe, tmp_path):
    status, report, output = recipe("train_a_neuron", "--smoke", "--steps", "60")
    assert status == 0
    assert output.out.splitlines()[-1] == report["line"]
    assert report["losses"].keys() == {"absolute_error", "squared_error", "binary_cross_entropy"}
    # Sure and wrong at first: only the cross-entropy has turned round after 60 steps.
    accuracy = {name: found["accuracy"] for name, found in report["losses"].items()}
    assert accuracy["binary_cross_entropy"] > 0.8
    assert accuracy["squared_error"] < 0.4
    assert accuracy["absolute_error"] < 0.4
    check_pictures(tmp_path / "runs/train_a_neuron", "neuron.png", "curves.png")


def test_no_rule_is_better_than_the_true_one():
    recipe = runpy.run_path(str(ROOT / "recipes/train_a_neuron.py"))
    people, male = recipe["make_people"](np.random.default_rng(0), 200_000)
    truth = recipe["true_probability"](people)
    assert ((truth > 0.5) == male).mean() == pytest.approx(recipe["best_accuracy"](), abs=3e-3)
    expected = LinearDiscriminantAnalysis().fit(people, male).predict_proba(people)[:, 1]
    np.testing.assert_allclose(truth, expected, atol=0.01)


def test_solve_xor(recipe, tmp_path):
    status, report, output = recipe("solve_xor", "--smoke", "--epochs", "150")
    assert status == 0
    assert output.out.splitlines()[-1] == report["line"]
    assert report["accuracy"]["perceptron"] < 0.78
    assert report["accuracy"]["one neuron"] < 0.78
    assert report["accuracy"]["4 hidden neurons"] > 0.95
    assert report["solved"]["1"] == 0
    assert report["solved"]["4"] == report["starts"] == 2
    check_pictures(tmp_path / "runs/solve_xor", "regions.png", "starts.png")


def test_backprop_by_hand(recipe, tmp_path):
    status, report, output = recipe("backprop_by_hand", "--smoke", "--epochs", "2")
    assert status == 0
    assert output.out.splitlines()[-1] == report["line"]
    assert report["value"] > 12
    assert report["largest difference"]["Keras, float64"] < 1e-12
    assert report["largest difference"]["Keras, float32"] > 1e-8
    assert report["accuracy"]["NumPy"] == report["accuracy"]["Keras, float64"] > 0.3
    check_pictures(tmp_path / "runs/backprop_by_hand", "curves.png")


def test_backprop_by_hand_on_a_folder_of_pictures(recipe, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 255, (8, 8, 3), "uint8")
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    flags = ["--data-dir", "photos", "--image-size", "6", "--activation", "sigmoid"]
    status, report, _ = recipe("backprop_by_hand", *flags, "--epochs", "2")
    assert status == 0
    assert report["value"] > 12


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("train_a_neuron", ["--height", "0"], "argument --height: must be a number above 0"),
        ("train_a_neuron", ["--steps", "x"], "argument --steps: must be a whole number"),
        ("solve_xor", ["--hidden", "0"], "argument --hidden: must be a whole number of at least 1"),
        ("backprop_by_hand", ["--activation", "gelu"], "argument --activation: invalid choice"),
        ("backprop_by_hand", ["--data-dir", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_bad_flags_are_one_line(name, flags, message, recipe, tmp_path):
    status, _, output = recipe(name, *flags)
    assert status == 2
    last = output.err.splitlines()[-1]
    assert message in last
    assert not (tmp_path / "runs").exists()


def test_regions_have_the_colours_of_the_answers(tmp_path):
    corners = np.array([[0.0, 0], [1, 1]])
    always = {f"always {p}": lambda x, p=p: np.full(len(x), p) for p in (0.0, 1.0)}
    plots.decision_regions(always, corners, [0, 1], tmp_path / "regions.png")
    with Image.open(tmp_path / "regions.png") as file:
        pixels = np.asarray(file.convert("RGB")).astype(int)
    middle = pixels.shape[1] // 2
    redness = pixels[..., 0] - pixels[..., 2]
    assert (redness[:, :middle] > 30).mean() > 0.4
    assert (redness[:, middle:] < -30).mean() > 0.4
    assert (redness[:, :middle] < -30).mean() < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train_a_neuron", "solve_xor", "backprop_by_hand"])
def test_the_full_recipes_keep_their_promise(name, recipe):
    status, report, output = recipe(name)
    assert status == 0, output.err
    assert not report["failed"]
    assert "(expected " in report["line"]
