"""The recipes pretrain_layerwise and depth_and_data at smoke size, their networks and picture."""

import runpy

import keras
import numpy as np
import pytest
from PIL import Image
from sharing import check_pictures
from test_recipes import ROOT

from tfcourse import plots
from tfcourse.basics.rbm import classifier_weights, pretrain

SMOKE = ("--smoke", "--seeds", "1")
SHAPE = (28, 28, 1)


def names_of(recipe):
    return runpy.run_path(str(ROOT / f"recipes/{recipe}.py"))


def test_pretrain_layerwise(recipe, tmp_path):
    flags = (*SMOKE, "--layers", "2")
    status, report, output = recipe("pretrain_layerwise", *flags)
    assert status == 0
    assert output.out.splitlines()[-1] == report["line"]
    accuracy = report["accuracy"]
    assert list(accuracy) == list(names_of("pretrain_layerwise")["STARTS"])
    assert all(list(points) == ["10"] for points in accuracy.values())
    assert accuracy["ReLU, He"]["10"][0] > 0.4
    gain = accuracy["sigmoids, pretrained"]["10"][0] - accuracy["ReLU, He"]["10"][0]
    assert report["value"] == pytest.approx(gain)
    folder = tmp_path / "runs/pretrain_layerwise"
    with np.load(folder / "machines/0.npz") as machines:
        shapes = [machines[name].shape for name in machines.files]
    assert shapes == [(784, 200), (200,), (200, 200), (200,), (200, 10), (10,)]
    check_pictures(folder, "labels.png", "filters.png")

    # Without the report and one result, only that one is trained again, to the same bits.
    (folder / "report.json").unlink()
    kept = sorted((folder / "trained").iterdir())
    times = {path: path.stat().st_mtime_ns for path in kept[1:]}
    kept[0].unlink()
    status, again, _ = recipe("pretrain_layerwise", *flags)
    assert status == 0
    assert again == report
    assert kept[0].exists()
    assert times == {path: path.stat().st_mtime_ns for path in kept[1:]}


@pytest.mark.slow
def test_depth_and_data(recipe, tmp_path):
    status, report, output = recipe("depth_and_data", *SMOKE)
    assert status == 0
    assert output.out.splitlines()[-1] == report["line"]
    accuracy = report["accuracy"]
    assert list(accuracy) == ["softmax regression", "six convolutions"]
    assert all(list(points) == ["50", "150"] for points in accuracy.values())
    assert report["depth"].keys() == {"training", "test"}
    assert report["depth"]["test"]["plain"].keys() == {"10"}
    ends = [accuracy[name] for name in ("six convolutions", "softmax regression")]
    gains = [points["150"][0] - points["50"][0] for points in ends]
    assert report["value"] == pytest.approx(gains[0] - gains[1])
    check_pictures(tmp_path / "runs/depth_and_data", "data.png", "depth.png")


def test_the_network_computes_what_the_machines_do():
    x = np.random.default_rng(0).uniform(0, 1, (5, 784))
    machines = pretrain((784, 200, 200), x, epochs=1)
    weights = classifier_weights(machines, 10)
    names = names_of("pretrain_layerwise")
    model = names["build"](names["STARTS"]["sigmoids, pretrained"], 784, 2, 10)
    model.set_weights(weights)
    hidden = machines[1].probabilities_hidden(machines[0].probabilities_hidden(x))
    np.testing.assert_allclose(model(x), hidden @ weights[-2], atol=1e-5)


def test_the_first_weights_are_as_wide_as_their_names_say():
    names = names_of("pretrain_layerwise")
    keras.utils.set_random_seed(0)
    found = {}
    for name, start in names["STARTS"].items():
        model = names["build"](start, 784, 3, 10)
        second, third = (model.get_layer(f"hidden{n}").kernel for n in (2, 3))
        assert not np.array_equal(second, third)
        found[name] = float(np.std(second))
    # Variances of 1 / fan and 2 / fan; 200 neurons on either side.
    assert found["sigmoids, Xavier"] == pytest.approx(200**-0.5, rel=0.02)
    assert found["sigmoids, 4 x Xavier"] == pytest.approx(4 * 200**-0.5, rel=0.02)
    assert found["ReLU, He"] == pytest.approx((2 / 200) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("softmax regression", 784 * 10 + 10),
        ("one hidden layer", 784 * 512 + 512 + 512 * 10 + 10),
        ("LeNet-5", 61_706),
        (
            "six convolutions",
            9 * (16 + 16 * 16 * 3 + 32 * 32 * 3 + 64 * 64) + 4 * 224 + 64 * 10 + 10,
        ),
    ],
)
def test_sizes_of_the_networks(name, parameters):
    model = names_of("depth_and_data")["NETWORKS"][name].build(SHAPE, 10)
    assert model.count_params() == parameters
    assert model.layers[-1].name == "logits"


def test_deeper_networks_begin_as_the_shallow_one_if_residual():
    stack = names_of("depth_and_data")["stack"]
    x = np.random.default_rng(0).uniform(0, 1, (3, *SHAPE)).astype("float32")
    shallow = stack(2, False, SHAPE, 10)
    for depth in (10, 30):
        deep = stack(depth, True, SHAPE, 10)
        plain = stack(depth, False, SHAPE, 10)
        dense = [layer for layer in deep.layers if isinstance(layer, keras.layers.Dense)]
        assert len(dense) == depth
        assert plain.count_params() == deep.count_params()
        for model in (deep, plain):
            for name in ("hidden1", "logits"):
                model.get_layer(name).set_weights(shallow.get_layer(name).get_weights())
        np.testing.assert_allclose(deep(x), shallow(x), atol=1e-6)
        assert np.abs(plain(x) - shallow(x)).max() > 0.1


def test_the_table_finds_the_law_that_an_error_follows():
    sizes = (50, 150, 450)
    errors = {"a": 0.6 * np.array([1, 0.9]), "b": 0.5 * np.array([1, 1])}
    accuracy = {
        name: {size: (1 - error * (size / 50) ** power).tolist() for size in sizes}
        for (name, error), power in zip(errors.items(), (-0.3, 0), strict=True)
    }
    head, *lines = names_of("depth_and_data")["table"](accuracy)
    assert head.split()[3:6] == ["50", "150", "450"]
    assert lines[0].endswith(f"{2**-0.3:.3f} (0.000)")
    assert lines[1].endswith("0.000 (0.000)  1.000 (0.000)")
    assert f"{1 - 0.57:.3f} ({0.06 / 2**0.5:.3f})" in lines[0]


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("pretrain_layerwise", ["--layers", "0"], "--layers: must be a whole number of at least 1"),
        ("pretrain_layerwise", ["--steps", "x"], "--steps: must be a whole number of at least 1"),
        ("pretrain_layerwise", ["--seed", "4294967295"], "--seed must leave room for --seeds"),
        ("depth_and_data", ["--steps", "9"], "--steps: must be a whole number of at least 10"),
        ("depth_and_data", ["--data", "cifar"], "--data: invalid choice: 'cifar'"),
        ("depth_and_data", ["--seed", "4294967295"], "--seed must leave room for --seeds"),
    ],
)
def test_bad_flags_are_one_line(name, flags, message, recipe, tmp_path):
    status, _, output = recipe(name, *flags)
    assert status == 2
    assert message in output.err.splitlines()[-1]
    assert "Traceback" not in output.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("panels", [1, 2])
def test_the_picture_has_a_line_and_a_band_for_each(panels, tmp_path):
    lines = {"up": {50: [0.4, 0.6], 5000: [0.8, 0.9]}, "flat": {50: [0.2], 5000: [0.2]}}
    path = tmp_path / "size.png"
    plots.accuracy_against_size(dict(zip("ab"[:panels], [lines] * panels, strict=True)), "n", path)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape[1] > 500 * panels
    for color in plots.COLORS[:2]:
        rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(pixels - rgb).max(axis=-1) < 4).sum() > 200 * panels
    # A band of a fifth of blue on white, as wide as the spread.
    band = np.round(255 + (np.array([0x2A, 0x6F, 0xB0]) - 255) * 0.2)
    assert (np.abs(pixels - band).max(axis=-1) < 4).sum() > 2000 * panels


@pytest.mark.slow
def test_digits_without_labels_help_where_labels_are_few(recipe):
    flags = ["--seeds", "1", "--layers", "2", "--epochs", "2", "--steps", "100"]
    status, report, _ = recipe("pretrain_layerwise", *flags)
    assert status == 0
    accuracy = report["accuracy"]
    assert "no figure is expected" in report["line"]
    for labels in ("3", "10"):
        assert accuracy["sigmoids, pretrained"][labels][0] > accuracy["ReLU, He"][labels][0]
    assert min(points["300"][0] for points in accuracy.values()) > 0.7


@pytest.mark.slow
def test_thirty_layers_are_learned_if_residual():
    names = names_of("depth_and_data")
    train, test = names["load_fashion_mnist"]()
    train = names["subset_per_class"](train, 100, 0)
    x, x_test = (names["pixels_of"](part) for part in (train, test))
    accuracy = {}
    for residual in (False, True):
        keras.utils.set_random_seed(0)
        model = names["stack"](30, residual, SHAPE, 10)
        names["training"].compile_classifier(model, 1e-3)
        model.fit(x, train.labels, 32, epochs=6, verbose=0)
        accuracy[residual] = (model.predict(x_test, verbose=0).argmax(1) == test.labels).mean()
    assert accuracy[True] > 0.7
    assert accuracy[True] > accuracy[False] + 0.05
