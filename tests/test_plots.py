"""The pictures: whole PNG files, readable at any number of classes, without a warning."""

import subprocess
import sys
import threading

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from tfcourse import plots
from tfcourse.plots import _drawing

RNG = np.random.default_rng(0)
LONG = "a class whose name is really quite long, number"


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def count(image, color):
    return int((image == np.round(np.multiply(to_rgb(color), 255))).all(axis=-1).sum())


def near(image, color):
    return int((np.abs(image - np.multiply(to_rgb(color), 255)) < 2).all(axis=-1).sum())


def history(epochs, names=("loss", "val_loss", "accuracy", "val_accuracy")):
    return {name: list(np.linspace(0.1, 0.9, epochs)) for name in names}


@pytest.mark.parametrize("epochs", [1, 2, 200])
def test_learning_curves_show_training_and_validation(tmp_path, epochs):
    plots.learning_curves(history(epochs), tmp_path / "a.png", title="head")
    plots.learning_curves(history(epochs, ["loss", "accuracy"]), tmp_path / "b.png")
    both, alone = pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png")
    assert count(both, plots.COLORS[0]) > 20
    assert count(both, plots.COLORS[1]) > 20
    assert count(alone, plots.COLORS[0]) > 20
    assert count(alone, plots.COLORS[1]) == 0


def test_learning_curves_make_room_for_many_metrics_and_for_none(tmp_path):
    plots.learning_curves(history(3, ["loss"]), tmp_path / "one.png")
    plots.learning_curves(history(3, ["loss", *"abcd"]), tmp_path / "five.png")
    plots.learning_curves({}, tmp_path / "none.png")
    one, five = pixels(tmp_path / "one.png"), pixels(tmp_path / "five.png")
    assert five.shape[0] > 1.8 * one.shape[0]
    assert five.shape[1] > 2.5 * one.shape[1]


@pytest.mark.parametrize("classes", [2, 10, 50])
@pytest.mark.parametrize("prefix", ["c", LONG, "很长很长很长很长很长很长的类别"])
def test_confusion_matrix_fits_its_names(tmp_path, classes, prefix):
    labels = np.arange(classes)
    names = [f"{prefix} {i}" for i in range(classes)]
    plots.confusion_matrix(labels, labels, names, tmp_path / "a.png")
    image = pixels(tmp_path / "a.png")
    # Cells of at least 0.3 inches, and a white rim: nothing was cut off.
    assert min(image.shape[:2]) >= classes * 0.3 * 120
    rim = [image[:8], image[-8:], image[:, :8], image[:, -8:]]
    assert all((side == 255).all() for side in rim)


def test_confusion_matrix_colours_shares_of_a_row(tmp_path):
    """All right: two cells in the darkest blue, however few examples the second class has."""
    darkest = "#08306b"
    plots.confusion_matrix([0] * 900 + [1], [0] * 900 + [1], ["a", "b"], tmp_path / "right.png")
    plots.confusion_matrix([0, 0, 1, 1], [0, 1, 0, 1], ["a", "b"], tmp_path / "half.png")
    right, half = pixels(tmp_path / "right.png"), pixels(tmp_path / "half.png")
    cell = (0.95 * 120) ** 2
    assert count(right, darkest) > 1.6 * cell
    assert count(half, darkest) < 0.2 * cell


def test_long_names_keep_both_ends():
    assert _drawing.short("Trouser") == "Trouser"
    short = _drawing.short(f"{LONG} 17")
    assert short.startswith("a class")
    assert short.endswith("17")
    assert _drawing.width_of(short) <= 22


def test_predictions_are_green_when_right_and_red_when_wrong(tmp_path):
    for name, images in (
        ("grey", RNG.integers(0, 255, (8, 28, 28, 1), dtype="uint8")),
        ("colour", RNG.integers(0, 255, (8, 20, 32, 3), dtype="uint8")),
        ("one", RNG.integers(0, 255, (1, 28, 28, 1), dtype="uint8")),
    ):
        labels = np.zeros(len(images), int)
        for predicted, color, other in (
            (0, plots.RIGHT, plots.WRONG),
            (1, plots.WRONG, plots.RIGHT),
        ):
            path = tmp_path / f"{name}{predicted}.png"
            logits = np.tile(np.eye(2)[predicted], (len(images), 1))
            plots.prediction_grid(images, labels, logits, ["a猫", LONG], path)
            image = pixels(path)
            assert count(image, color) > 0
            assert count(image, other) == 0


def test_an_image_is_drawn_with_its_own_grey_values(tmp_path):
    images = np.full((1, 8, 8, 1), 100, "uint8")
    plots.prediction_grid(images, [0], [[1.0]], ["a"], tmp_path / "a.png")
    assert count(pixels(tmp_path / "a.png"), (100 / 255,) * 3) > 10_000


def test_accuracy_against_labels_has_a_line_per_method(tmp_path):
    curves = {"transfer": {1: 0.5, 10: 0.8}, "从头开始": {1: 0.2, 10: 0.6, 100: 0.9}}
    plots.accuracy_against_labels(curves, tmp_path / "a.png")
    image = pixels(tmp_path / "a.png")
    assert count(image, plots.COLORS[0]) > 200
    assert count(image, plots.COLORS[1]) > 200
    assert count(image, plots.COLORS[2]) == 0


def test_letters_without_a_font_become_boxes():
    assert _drawing.printable("a\U000f0000b") == "a□b"
    assert _drawing.printable("Größe é 1") == "Größe é 1"


def test_a_failed_picture_leaves_the_old_one(tmp_path, monkeypatch):
    def full_disk(figure, path, **settings):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    path = tmp_path / "a.png"
    plots.learning_curves(history(2), path)
    before = path.read_bytes()
    monkeypatch.setattr(_drawing.Figure, "savefig", full_disk)
    with pytest.raises(OSError, match="no space left"):
        plots.learning_curves(history(3), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_filters_are_drawn_around_grey(tmp_path):
    """A red weight and none; each filter by its own largest, so that weak ones show too."""
    kernels = np.zeros((1, 2, 3, 2))
    kernels[0, 0, 0] = [1, 0.001]
    plots.filter_grid(kernels, tmp_path / "a.png")
    image = pixels(tmp_path / "a.png")
    pink, grey = (1, 0.5, 0.5), (0.5, 0.5, 0.5)
    assert near(image, pink) == pytest.approx(near(image, grey), rel=0.1)
    assert near(image, pink) > 1000
    plots.filter_grid(RNG.normal(size=(5, 5, 1, 6)), tmp_path / "b.png")
    assert pixels(tmp_path / "b.png").shape[1] > 300


def test_the_most_uneven_maps_are_drawn_lowest_dark_highest_yellow(tmp_path):
    maps = np.zeros((4, 4, 10))
    maps[0] = np.arange(10)
    plots.feature_maps(np.full((8, 8, 3), 0.2), {"stage1": maps}, tmp_path / "a.png")
    image = pixels(tmp_path / "a.png")
    yellow, violet = near(image, "#fde725"), near(image, "#440154")
    assert yellow > 8 * 1000
    assert violet == pytest.approx(3 * yellow, rel=0.1)
    assert near(image, (0.2, 0.2, 0.2)) > 4000  # the photo


def test_heat_maps_lie_over_the_photo(tmp_path):
    photo = np.ones((40, 40, 3))
    heat = np.array([[0.0, 0.0], [0.0, 3.0]])
    panels = {"photo": (photo, None), f"{LONG} 39.1%": (photo, heat)}
    plots.heat_maps(panels, tmp_path / "a.png")
    image = pixels(tmp_path / "a.png").astype(int)
    red = np.argwhere((image[..., 0] > image[..., 2] + 80) & (image[..., 1] < 160))
    blue = np.argwhere(image[..., 2] > image[..., 0] + 50)
    assert len(red) > 1000
    assert (red.mean(axis=0) > blue.mean(axis=0)).all()  # below and to the right
    assert red[:, 1].min() > image.shape[1] // 2
    plots.heat_maps({"cold": (photo, np.zeros((2, 2)))}, tmp_path / "b.png")


def test_threads_may_draw_at_the_same_time(tmp_path):
    threads = [
        threading.Thread(target=plots.learning_curves, args=(history(5), tmp_path / f"{i}.png"))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    images = [pixels(tmp_path / f"{i}.png") for i in range(4)]
    assert all(np.array_equal(images[0], image) for image in images)


def test_drawing_needs_neither_tensorflow_nor_pyplot():
    names = {"tensorflow", "matplotlib.pyplot"}
    script = f"import sys, tfcourse.plots; print({names} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.strip() == b"set()"
