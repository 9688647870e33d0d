"""The recipes `classify_images` and `compare_architectures`, at smoke size, and their picture."""

import itertools
import json
import runpy
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from hub_models.image import top_classes
from tfcourse import plots, runs
from tfcourse.data.fashion_mnist import load_fashion_mnist
from tfcourse.plots import comparison

RECIPES = Path(__file__).parent.parent / "recipes"
SMOKE = ("--smoke", "--epochs", "1", "--strategy", "cpu")


def start(recipe, monkeypatch, *flags, name="__main__"):
    """Run a recipe as its command does; without its name nothing but its functions comes back."""
    monkeypatch.setattr(sys, "argv", [f"tfcourse run {recipe}", *map(str, flags)])
    return runpy.run_path(str(RECIPES / f"{recipe}.py"), run_name=name)


def status_of(recipe, monkeypatch, *flags):
    with pytest.raises(SystemExit) as end:
        start(recipe, monkeypatch, *flags)
    return end.value.code


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFCOURSE_CACHE", str(tmp_path / "cache"))


def test_classify_images(tmp_path, monkeypatch, capsys):
    flags = (*SMOKE, "--model", "lenet", "--augment", "both")
    assert status_of("classify_images", monkeypatch, *flags) == 0
    folder = tmp_path / "runs/classify_images"
    line = capsys.readouterr().out.splitlines()[-1]
    report = json.loads((folder / "report.json").read_text())
    assert line == report["line"]
    assert line.startswith("test accuracy 0.")
    assert line.endswith("(no figure is expected for these flags)")
    # 61,706 of a grey LeNet-5, and 2 * 25 * 6 more weights of the first layer for three colours.
    assert (report["network"], report["parameters"]) == ("lenet5", 62_006)
    for name in ("confusion_matrix.png", "predictions.png", "curves.png"):
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 200
    assert status_of("classify_images", monkeypatch, *flags) == 0
    assert "this run is finished" in capsys.readouterr().out

    _, test = load_fashion_mnist()
    Image.fromarray(test.images[0, ..., 0]).save("clothes.png")
    size, class_names = runs.read_classifier(folder)
    assert (size, tuple(class_names)) == ((28, 28), test.class_names)
    (best,) = top_classes(folder / "saved_model", ["clothes.png"], size)
    saved = keras.saving.load_model(folder / "model.keras")
    pixels = np.repeat(test.images[:1], 3, axis=-1).astype("float32")
    # Keras' layers of augmentation take a call that does not say so for training.
    logits = np.asarray(saved(pixels, training=False))[0]
    assert best[0][0] == logits.argmax()
    assert best[0][1] == pytest.approx(np.exp(logits.max()) / np.exp(logits).sum(), rel=1e-4)


@pytest.mark.slow
def test_classify_the_users_own_pictures(tmp_path, monkeypatch, capsys):
    train, _ = load_fashion_mnist()
    for label, name in ((1, "Trouser"), (8, "包")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in np.flatnonzero(train.labels == label)[:40]:
            picture = Image.fromarray(train.images[i, ..., 0]).resize((40, 30))
            picture.convert("RGB").save(tmp_path / "photos" / name / f"{i}.png")
    flags = ("--data-dir", "photos", "--model", "lenet", "--epochs", 15, "--batch-size", 16)
    assert status_of("classify_images", monkeypatch, *flags, "--strategy", "cpu") == 0
    report = json.loads((tmp_path / "runs/classify_images/report.json").read_text())
    assert report["value"] > 0.8
    assert "2 classes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "perceptron"], "argument --model: invalid choice: 'perceptron'"),
        (["--depth", "21"], "depth must be 6 n + 2, as the paper's 20, 32, 44, 56, 110, 1202"),
        (["--model", "vgg", "--depth", "12"], "depth must be one of [11, 13, 16, 19], got 12"),
        (["--model", "vgg", "--image-size", "28"], "from 32 px, got (28, 28, 3)"),
        (["--model", "alexnet", "--variant", "2013"], "got '2013'"),
        (
            ["--model", "efficientnet_lite", "--variant", "b0"],
            "variant must be one of [0, 1, 2, 3, 4], got 'b0'",
        ),
        (["--variant", "2012"], "--variant must be left out for --model resnet: it has --depth"),
        (
            ["--model", "lenet", "--depth", "5"],
            "--depth must be left out for --model lenet: there is only one",
        ),
        (
            ["--data", "mnist", "--data-dir", "photos"],
            "--data mnist must be left out where --data-dir is given",
        ),
        (["--data-dir", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_bad_flags_are_one_line(flags, message, tmp_path, monkeypatch, capsys):
    assert status_of("classify_images", monkeypatch, *SMOKE, *flags) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "runs").exists()


def test_data_of_two_kinds_are_refused(monkeypatch, capsys, tmp_path):
    flags = ["--data", "mnist", "--data-dir", "photos"]
    assert status_of("compare_architectures", monkeypatch, "--smoke", *flags) == 2
    message = "tfcourse: --data mnist must be left out where --data-dir is given\n"
    assert capsys.readouterr().err == message


@pytest.mark.parametrize(
    ("flags", "is_full"),
    [
        ((), True),
        (("--model", "resnet", "--depth", "20", "--seed", "7"), True),
        (("--depth", "32"), False),
        (("--augment", "mirror"), False),
        (("--model", "lenet"), True),
        (("--model", "vgg"), False),
    ],
)
def test_which_flags_have_an_expected_figure(flags, is_full, monkeypatch):
    recipe = start("classify_images", monkeypatch, *flags, name="recipe")
    assert recipe["parse"]().is_full == is_full


@pytest.mark.parametrize(
    ("name", "network", "trainable"),
    [
        ("resnet", "cifar_resnet20", 269_722),
        ("lenet", "lenet5", 62_006),
        *[
            pytest.param(name, network, None, marks=pytest.mark.slow)
            for name, network in (
                ("alexnet", "alexnet_one_weird_trick"),
                ("cifar_densenet", "cifar_densenet_40_12"),
                ("densenet", "densenet121"),
                ("efficientnet_lite", "efficientnet_lite0"),
                ("googlenet", "googlenet_batch_norm"),
                ("inception_v3", "inception_v3"),
                ("vgg", "vgg11"),
                ("vgg_bn", "vgg11_bn"),
            )
        ],
    ],
)
def test_models_take_pixels_at_their_own_size(name, network, trainable, monkeypatch):
    recipe = start("classify_images", monkeypatch, "--model", name, "--smoke", name="recipe")
    assert name in recipe["MODELS"]
    flags = recipe["parse"]().flags
    train, _, test = recipe["load_data"](flags)
    model = recipe["build_classifier"](flags, train)
    assert model.layers[-1].name == network
    assert test.images.shape[1:3] == (flags.image_size,) * 2
    logits = np.asarray(model(test.images[:2].astype("float32"), training=False))
    assert logits.shape == (2, 10)
    assert np.isfinite(logits).all()
    if trainable:
        assert sum(np.prod(w.shape) for w in model.trainable_weights) == trainable
    scaled = np.asarray(model.get_layer("standardize")(train.images.astype("float32")))
    assert scaled.mean() == pytest.approx(0, abs=1e-3)
    assert scaled.std() == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_compare_architectures(tmp_path, monkeypatch, capsys):
    assert status_of("compare_architectures", monkeypatch, *SMOKE) == 0
    folder = tmp_path / "runs/compare_architectures"
    lines = capsys.readouterr().out.splitlines()
    report = json.loads((folder / "report.json").read_text())
    assert lines[-1] == report["line"]
    assert set(report["table"]) == {"linear", "LeNet-5", "AlexNet"}
    assert [report["table"][name]["parameters"] for name in ("linear", "LeNet-5")] == [7850, 61706]
    assert report["table"]["linear"]["multiply-adds"] == 7840
    best = max(report["table"].values(), key=lambda row: row["validation accuracy"])
    assert report["value"] == best["test accuracy"]
    table = (folder / "table.txt").read_text().splitlines()
    assert table == lines[-5:-1]
    assert len({len(line) for line in table}) == 1
    with Image.open(folder / "comparison.png") as picture:
        assert picture.size[0] > 2 * picture.size[1]

    # Interrupted after two of three: they are not trained again, the third goes on.
    (folder / "report.json").unlink()
    kept = {**report["table"]["LeNet-5"], "test accuracy": 0.123}
    (folder / "lenet_5/result.json").write_text(json.dumps(kept))
    (folder / "linear/result.json").unlink()
    assert status_of("compare_architectures", monkeypatch, *SMOKE) == 0
    again = json.loads((folder / "report.json").read_text())["table"]
    assert again == report["table"] | {"LeNet-5": kept}


@pytest.mark.slow
def test_compared_networks_have_the_size_that_arithmetic_says(monkeypatch):
    recipe = start("compare_architectures", monkeypatch, name="recipe")
    counts = {}
    for name, entry in recipe["ARCHITECTURES"].items():
        network = entry.build((entry.image_size, entry.image_size, 1), 10)
        assert network.output_shape == (None, 10)
        counts[name] = sum(np.prod(w.shape) for w in network.trainable_weights)
    assert counts["MLP"] == 203_530
    assert counts["ResNet-20"] == 269_722 - 2 * 9 * 16  # grey
    chain = ((1, 64), (64, 128), (128, 256), (256, 256))  # Table 1 of the paper, column A
    vgg = sum((9 * before + 1) * after for before, after in chain) + 257 * 10
    assert counts["VGG-11"] == vgg


def test_names_in_a_crowd_do_not_cover_each_other(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(comparison, "save", lambda figure, path: figures.append(figure))
    names = [f"network {i}" for i in range(10)]
    accuracy = {name: 0.880 + 0.001 * (i % 3) for i, name in enumerate(names)}
    cost = {name: 1e6 * (1 + 0.03 * i) for i, name in enumerate(names)}
    plots.accuracy_against_cost(accuracy, {"parameters": cost, "seconds": cost}, tmp_path / "x.png")
    (figure,) = figures
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    for axes in figure.axes:
        assert sorted(text.get_text() for text in axes.texts) == names
        # Without its line to the point, which belongs to an annotation's own extent.
        boxes = [super(type(t), t).get_window_extent(renderer) for t in axes.texts]
        assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
        inside = axes.get_window_extent(renderer)
        assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in boxes)


def test_a_cost_of_nothing_has_no_place_on_a_logarithmic_axis(tmp_path):
    message = r"^seconds of a must be above 0, got 0$"
    with pytest.raises(ValueError, match=message):
        plots.accuracy_against_cost({"a": 0.5}, {"seconds": {"a": 0}}, tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"^seconds of a must be above 0, got None$"):
        plots.accuracy_against_cost({"a": 0.5}, {"seconds": {}}, tmp_path / "x.png")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["classify_images", "compare_architectures"])
def test_the_full_recipe_keeps_its_promise(recipe, monkeypatch):
    assert status_of(recipe, monkeypatch) == 0
