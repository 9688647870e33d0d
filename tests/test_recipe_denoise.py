"""The recipe denoise_images at smoke size, its filters against SciPy's, its pictures."""

import csv
import json
import runpy
import sys

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from test_recipes import ROOT, cache, tfcourse  # noqa: F401

from tfcourse import plots
from tfcourse.data import filters
from tfcourse.data.fashion_mnist import load_fashion_mnist

RECIPE = ROOT / "recipes/denoise_images.py"
SMOKE = ["--smoke", "--epochs", "1"]


@pytest.fixture
def denoise(tmp_path, monkeypatch):
    """Run the recipe in this process, in an empty folder; gives the exit status."""

    def run(*flags):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(RECIPE), *SMOKE, *flags])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(RECIPE), run_name="__main__")
        return end.value.code

    return run


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1, shape).astype("float32")


@pytest.mark.parametrize("size", [1, 3, 5])
def test_median_filter_is_scipys(size):
    x = images(3, 9, 7, 2)
    # What SciPy calls mirror is a reflection that does not repeat the pixel of the rim.
    expected = ndimage.median_filter(x, (1, size, size, 1), mode="mirror")
    np.testing.assert_array_equal(filters.median_filter(x, size), expected)


@pytest.mark.parametrize("width", [0.3, 0.8, 1.0])
def test_mean_filter_is_scipys_gaussian(width):
    x = images(3, 12, 9, 2)
    expected = ndimage.gaussian_filter(x, (0, width, width, 0), mode="mirror", radius=(0, 4, 4, 0))
    out = filters.mean_filter(x, width)
    assert out.dtype == "float32"
    np.testing.assert_allclose(out, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: filters.mean_filter(x, 0.0), "width must be above 0, got 0.0"),
        (lambda x: filters.median_filter(x, 4), "size must be an odd number from 1 up, got 4"),
        (lambda x: filters.median_filter(x, -1), "size must be an odd number from 1 up, got -1"),
    ],
)
def test_bad_strengths_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        call(images(1, 8, 8, 1))


def test_psnr_is_scikit_images_and_that_of_the_noise():
    x, y = np.split(images(6, 9, 7, 2), 2)
    expected = [peak_signal_noise_ratio(a, b, data_range=1) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(filters.psnr(x, y), expected, rtol=1e-6)
    noise = np.random.default_rng(1).normal(0, 0.1, (1, 200, 200, 1))
    assert filters.psnr(np.zeros_like(noise), noise)[0] == pytest.approx(20, abs=0.1)


def test_the_best_strength_grows_with_the_noise():
    clean = load_fashion_mnist()[1].images[:50] / np.float32(255)
    noise = np.random.default_rng(0).normal(0, 1, clean.shape).astype("float32")
    widths = (0.4, 0.6, 0.8, 1.0, 1.2)
    best = [
        filters.best_strength(filters.mean_filter, widths, clean, clean + sigma * noise)
        for sigma in (0.05, 0.25, 0.5)
    ]
    assert best == sorted(best)
    assert best[0] < best[2]


def test_principal_components_are_scikit_learns():
    train, test = images(40, 6, 5, 1), images(7, 6, 5, 1)
    pca = PCA(4).fit(train.reshape(40, -1))
    expected = pca.inverse_transform(pca.transform(test.reshape(7, -1))).reshape(test.shape)
    restored = filters.principal_components(train, test, 4)
    np.testing.assert_allclose(restored, expected, atol=1e-5)


def test_the_linear_map_is_a_ridge_regression():
    rng = np.random.default_rng(5)
    train, test = (rng.random((rows, 3, 2, 1)) @ np.ones((1, 1)) for rows in (40, 5))
    x, mean = train.reshape(40, 6), train.reshape(40, 6).mean(axis=0)
    ridge = Ridge(alpha=40 * 0.3**2, fit_intercept=False).fit(x - mean, x - mean)
    expected = ridge.predict(test.reshape(5, 6) - mean) + mean
    np.testing.assert_allclose(filters.linear_map(train, test, 0.3).reshape(5, 6), expected)


def test_an_exact_picture_has_a_finite_psnr():
    assert filters.psnr(np.ones((1, 2, 2, 1)), np.ones((1, 2, 2, 1))).tolist() == [100.0]


def test_image_rows_show_every_row(tmp_path):
    rows = {"grey": np.full((3, 8, 8, 1), 0.2), "colour": np.tile([1.0, 0, 0], (3, 8, 8, 1))}
    plots.image_rows(rows, tmp_path / "rows.png", notes={"colour": ["1 dB", "2 dB", "衣服"]})
    with Image.open(tmp_path / "rows.png") as file:
        pixels = np.asarray(file.convert("RGB"))
    for colour in ((51, 51, 51), (255, 0, 0)):
        assert (pixels == colour).all(-1).sum() > 3 * 80**2


@pytest.mark.slow
def test_denoise_images(tmp_path, cache):  # noqa: F811
    done = tfcourse(tmp_path, cache, "run", "denoise_images", *SMOKE)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs/denoise_images"
    report = json.loads((folder / "report.json").read_text())
    assert done.stdout.splitlines()[-1] == report["line"]
    assert report["line"].startswith("test PSNR in dB ")
    noisy, mean, median, linear, network = report["psnr"].values()
    # Noise of 0.25 is 20 log10(4) = 12.04 dB below white; cutting it off at black and white helps.
    assert 13 < noisy < 15
    assert mean > noisy + 3
    assert median > noisy + 2
    assert linear > noisy + 3
    assert network == report["value"]
    for name in ("images.png", "curves.png"):
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 200
    with open(folder / "metrics.csv") as file:
        (row,) = csv.DictReader(file)
    assert float(row["val_psnr"]) > 0
    assert (folder / "model.keras").exists()


@pytest.mark.slow
def test_the_autoencoder_on_a_folder_of_pictures(tmp_path, denoise):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 255, (3, 4, 3), "uint8")
            Image.fromarray(pixels).resize((40, 30)).save(tmp_path / "photos" / name / f"{i}.png")
    flags = ["--variant", "autoencoder", "--data-dir", "photos", "--image-size", "18"]
    assert denoise(*flags) == 0
    folder = tmp_path / "runs/denoise_images"
    report = json.loads((folder / "report.json").read_text())
    assert set(report["psnr"]) == {"30 principal components", "network"}
    with Image.open(folder / "between.png") as picture:
        assert min(picture.size) > 200


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--variant", "unet"], "argument --variant: invalid choice: 'unet'"),
        (["--noise", "-1"], "noise must be between 0 and 1, got -1.0"),
        (["--image-size", "7"], "argument --image-size: must be a whole number of at least 8"),
        (["--data-dir", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_bad_flags_are_one_line(flags, message, tmp_path, denoise, capsys):
    assert denoise(*flags) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert message in last
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_the_full_recipe_keeps_its_promise(tmp_path, cache):  # noqa: F811
    done = tfcourse(tmp_path, cache, "run", "denoise_images")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "runs/denoise_images/report.json").read_text())
    noisy, mean, median, linear, network = report["psnr"].values()
    assert noisy < median < mean < linear < network - 0.5
