"""ResNets and DenseNets: those for CIFAR against torch's functions, and the edges of all.

Those for ImageNet are held against keras.applications and torchvision in `test_parity.py`.
"""

import keras
import numpy as np
import pytest
from keras import layers

from tfcourse.vision import (
    build_cifar_densenet,
    build_cifar_resnet,
    build_densenet,
    build_resnet,
)
from tfcourse.vision.resnet import bottleneck, pad_channels


def photos(count: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, size, size, 3)).astype("float32")


def randomize(model: keras.Model) -> keras.Model:
    """Give every weight a value of its own, the statistics of the normalizations too."""
    rng = np.random.default_rng(2)
    for weight in model.weights:
        if weight.name == "kernel":
            scale = np.sqrt(2 / np.prod(weight.shape[:-1]))
            weight.assign(rng.normal(0, scale, weight.shape))
        else:
            low, high = (0.5, 1.5) if weight.name in {"gamma", "moving_variance"} else (-0.3, 0.3)
            weight.assign(rng.uniform(low, high, weight.shape))
    return model


def assert_near(ours: np.ndarray, theirs: np.ndarray, tolerance: float, name: str = "") -> None:
    """Compare with the tolerance relative to the largest value."""
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(
        ours, theirs, rtol=0, atol=tolerance * abs(theirs).max(), err_msg=name
    )


def to_torch(value: np.ndarray) -> np.ndarray:
    """Move `(height, width, in, out)` to torch's `(out, in, height, width)`."""
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T


class TorchNetwork:
    """What the layers of one of our models would do, in torch's functions, found by name."""

    def __init__(self, model: keras.Model):
        torch = pytest.importorskip("torch", reason="torch is no dependency of ours")
        self.functions = torch.nn.functional
        self.weights = {w.path: torch.tensor(to_torch(w.numpy())) for w in model.weights}
        self.cat = torch.cat

    def convolve(self, x, name, strides=1):
        kernel = self.weights[f"{name}_conv/kernel"]
        return self.functions.conv2d(x, kernel, None, strides, kernel.shape[-1] // 2)

    def normalize(self, x, name):
        names = ("moving_mean", "moving_variance", "gamma", "beta")
        return self.functions.batch_norm(x, *(self.weights[f"{name}_bn/{w}"] for w in names))

    def classify(self, x):
        weights = self.weights["logits/kernel"], self.weights["logits/bias"]
        return self.functions.linear(x.mean((2, 3)), *weights)

    def residual(self, x, blocks):
        relu = self.functions.relu
        x = relu(self.normalize(self.convolve(x, "stem"), "stem"))
        for stage in (1, 2, 3):
            for n in range(1, blocks + 1):
                name, strides = f"stage{stage}_block{n}", 2 if stage > 1 and n == 1 else 1
                y = self.normalize(self.convolve(x, f"{name}_1", strides), f"{name}_1")
                y = self.normalize(self.convolve(relu(y), f"{name}_2"), f"{name}_2")
                missing = y.shape[1] - x.shape[1]
                x = self.functions.pad(x[:, :, ::strides, ::strides], (0, 0, 0, 0, 0, missing))
                x = relu(x + y)
        return self.classify(x)

    def dense(self, x, layers_in_block, convolutions):
        x = self.convolve(x, "stem")
        for stage in (1, 2, 3):
            if stage > 1:
                x = self.convolve(
                    self.activate(x, f"transition{stage - 1}"), f"transition{stage - 1}"
                )
                x = self.functions.avg_pool2d(x, 2)
            for n in range(1, layers_in_block + 1):
                new = x
                for part in range(1, convolutions + 1):
                    name = f"stage{stage}_layer{n}_{part}"
                    new = self.convolve(self.activate(new, name), name)
                x = self.cat([x, new], 1)
        return self.classify(self.activate(x, "head"))

    def activate(self, x, name):
        return self.functions.relu(self.normalize(x, name))


def to_channels_first(images: np.ndarray):
    import torch

    return torch.tensor(images.transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize("size", [32, 27])
def test_cifar_resnet_is_that_of_torch(size):
    model, images = randomize(build_cifar_resnet(20, (None, None, 3))), photos(2, size)
    theirs = TorchNetwork(model).residual(to_channels_first(images), 3)
    assert_near(model(images).numpy(), theirs.numpy(), 1e-4)


@pytest.mark.parametrize(("variant", "blocks", "parts"), [("40-12", 12, 1), ("BC-100-12", 16, 2)])
def test_cifar_densenet_is_that_of_torch(variant, blocks, parts):
    model, images = randomize(build_cifar_densenet(variant)), photos(2, 32)
    theirs = TorchNetwork(model).dense(to_channels_first(images), blocks, parts)
    assert_near(model(images).numpy(), theirs.numpy(), 1e-4)


def test_variants_of_a_bottleneck_share_shapes_but_not_outputs():
    x = keras.Input((8, 8, 16))
    models = [
        randomize(keras.Model(x, bottleneck(x, 4, 2, variant=variant, name="block")))
        for variant in ("2015", "v1.5")
    ]
    images = np.random.default_rng(3).normal(size=(2, 8, 8, 16))
    old, new = (model(images) for model in models)
    assert [w.shape for w in models[0].weights] == [w.shape for w in models[1].weights]
    assert old.shape == new.shape == (2, 4, 4, 16)
    assert np.abs(old - new).max() > 0.1


def test_variants_of_shallow_resnets_are_one():
    old, new = (build_resnet(18, (32, 32, 3), 5, variant=v) for v in ("2015", "v1.5"))
    new.set_weights(old.get_weights())
    assert old.name == new.name
    np.testing.assert_array_equal(old(photos(1, 32)), new(photos(1, 32)))


def test_shortcut_without_weights_drops_pixels_and_adds_zeros():
    images = photos(2, 7)
    inputs = keras.Input((7, 7, 3))
    shortcut = keras.Model(inputs, pad_channels(inputs, 5, 2, "shortcut"))
    wanted = np.concatenate([images[:, ::2, ::2], np.zeros((2, 4, 4, 2))], axis=-1)
    np.testing.assert_array_equal(shortcut(images), wanted)


@pytest.mark.parametrize(
    ("model", "strides", "channels"),
    [
        (lambda: build_resnet(18, (64, 96, 3), None), (2, 4, 8, 16, 32), 512),
        (lambda: build_resnet(50, (64, 96, 3), None), (2, 4, 8, 16, 32), 2048),
        (lambda: build_cifar_resnet(8, (64, 96, 3), None), (1, 2, 4), 64),
        (lambda: build_densenet(121, (64, 96, 3), None), (2, 4, 8, 16, 32), 1024),
        (lambda: build_cifar_densenet("40-12", (64, 96, 3), None), (1, 2, 4), 448),
    ],
)
def test_stages_end_at_their_strides(model, strides, channels):
    model = model()
    shapes = [model.get_layer(f"stage{n}").output.shape for n in range(1, 1 + len(strides))]
    assert [shape[1:3] for shape in shapes] == [(64 // s, 96 // s) for s in strides]
    assert shapes[-1][-1] == channels
    assert model.output is model.get_layer(f"stage{len(strides)}").output


@pytest.mark.parametrize(
    ("builder", "variant", "size"),
    [
        (build_resnet, 18, 1),
        (build_resnet, 50, 28),
        (build_cifar_resnet, 8, 1),
        (build_densenet, 121, 29),
        (build_cifar_densenet, "40-12", 4),
    ],
)
def test_smallest_images(builder, variant, size):
    logits = builder(variant, (size, size, 1), 3)(photos(2, size)[..., :1])
    assert logits.shape == (2, 3)
    assert np.isfinite(logits).all()


def test_dropout_follows_every_convolution_but_the_first():
    model = build_cifar_densenet("40-12", (8, 8, 3), dropout=0.2)
    found = [layer for layer in model.layers if isinstance(layer, layers.Dropout)]
    assert len(found) == 38
    assert {layer.rate for layer in found} == {0.2}


def test_first_weights_have_the_variance_of_he():
    kernel = build_cifar_resnet(8).get_layer("stage3_block1_2_conv").kernel.numpy()
    assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.01)
