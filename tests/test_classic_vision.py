"""AlexNet of 2012 against a twin in torch, the names in VGG's files, dense heads as convolutions.

The networks with published weights meet their twins in `test_parity.py`.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from twins import import_torchvision, signs, training_gradients

from tfcourse.vision import (
    build_alexnet,
    build_efficientnet_lite,
    build_lenet,
    build_vgg,
    to_fully_convolutional,
)
from tfcourse.vision.blocks import LocalResponseNormalization
from tfcourse.vision.weight_names import torch_vgg


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def randomized(model: keras.Model) -> keras.Model:
    """Give every weight a value of its own, biases and statistics too."""
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if weight.name == "kernel":
            scale = np.sqrt(2 / np.prod(weight.shape[:-1]), dtype="float32")
            weight.assign(rng.standard_normal(weight.shape, "float32") * scale)
        else:
            weight.assign(rng.uniform(0.1, 1.0, weight.shape))
    return model


def assert_near(ours, theirs, tolerance: float, what: str = "") -> None:
    """Compare with the tolerance relative to the largest value."""
    allowed = tolerance * abs(np.asarray(theirs)).max()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=allowed, err_msg=what)


def alexnet_in_torch(torch, units: int, num_classes: int):
    """Write AlexNet of 2012 in torch, from Figure 2; its alpha is of the mean, not of the sum."""
    nn = torch.nn

    def normalization():
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)

    return nn.ModuleDict(
        {
            "conv1": nn.Conv2d(3, 96, 11, stride=4),
            "normalization1": nn.Sequential(nn.ReLU(), normalization(), nn.MaxPool2d(3, 2)),
            "conv2": nn.Conv2d(96, 256, 5, padding=2, groups=2),
            "normalization2": nn.Sequential(nn.ReLU(), normalization(), nn.MaxPool2d(3, 2)),
            "conv3": nn.Conv2d(256, 384, 3, padding=1),
            "relu3": nn.ReLU(),
            "conv4": nn.Conv2d(384, 384, 3, padding=1, groups=2),
            "relu4": nn.ReLU(),
            "conv5": nn.Conv2d(384, 256, 3, padding=1, groups=2),
            "pool5": nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten()),
            "fc1": nn.Linear(units, 4096),
            "relu6": nn.ReLU(),
            "fc2": nn.Linear(4096, 4096),
            "relu7": nn.ReLU(),
            "logits": nn.Linear(4096, num_classes),
        }
    )


def as_in_torch(model: keras.Model, values: list) -> dict[str, np.ndarray]:
    """Name and order weights (or their gradients) as torch does, the towers side by side."""
    named = {}
    for weight, value in zip(model.weights, map(np.asarray, values), strict=True):
        layer, kind = weight.path.split("/")
        name = f"{layer.split('_')[0]}.{'weight' if kind == 'kernel' else 'bias'}"
        tensor = value.T
        if value.ndim == 4:
            tensor = value.transpose(3, 2, 0, 1)
        elif name == "fc1.weight":
            maps = model.get_layer("flatten").input.shape[1:]
            tensor = value.reshape(*maps, -1).transpose(3, 2, 0, 1).reshape(tensor.shape)
        named[name] = np.concatenate([named[name], tensor]) if name in named else tensor
    return named


def test_alexnet_2012_against_torch():
    torch = pytest.importorskip("torch", reason="the twin is in torch, which is missing")
    model = randomized(build_alexnet("2012", (99, 67, 3), 10, dropout=0.0))
    twin = alexnet_in_torch(torch, 2 * 1 * 256, 10)
    weights = as_in_torch(model, model.weights)
    twin.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    # Strong enough that the sum of squares counts beside k = 2.
    batch = 100 * images(2, 99, 67, 3)
    x = torch.tensor(batch.transpose(0, 3, 1, 2))
    for part in twin.values():
        x = part(x)
    (x * torch.tensor(signs(tuple(x.shape)))).sum().backward()
    assert_near(model(batch), x.detach().numpy(), 1e-4)
    gradients = as_in_torch(model, training_gradients(model, batch))
    for name, parameter in twin.named_parameters():
        assert_near(gradients[name], parameter.grad.numpy(), 1e-3, name)


def test_local_response_normalization_is_the_formula_of_the_paper():
    x = 10 * images(2, 3, 4, 7)
    expected = np.empty_like(x)
    for i in range(7):
        near = x[..., max(0, i - 2) : i + 3]
        expected[..., i] = x[..., i] / (2 + 1e-4 * np.square(near).sum(-1)) ** 0.75
    np.testing.assert_allclose(LocalResponseNormalization()(x), expected, rtol=1e-5)
    wide = LocalResponseNormalization(radius=6, bias=1.0, alpha=0.5, beta=1.0)
    wide = LocalResponseNormalization.from_config(wide.get_config())
    expected = x / (1 + 0.5 * np.square(x).sum(-1, keepdims=True))
    np.testing.assert_allclose(wide(x), expected, rtol=1e-5)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_every_name_of_vgg_is_one_of_torchvision(depth, batch_norm):
    models = import_torchvision().models
    import torch

    with torch.device("meta"):
        twin = getattr(models, f"vgg{depth}_bn" if batch_norm else f"vgg{depth}")()
    theirs = {
        name: tuple(value.shape)
        for name, value in twin.state_dict().items()
        if name.endswith(("weight", "running_var"))
    }
    model = build_vgg(depth, (32, 32, 3), None, batch_norm=batch_norm)
    kinds = {"kernel": "weight", "gamma": "weight", "moving_variance": "running_var"}
    ours = {
        f"{torch_vgg(depth, batch_norm)(layer.name)}.{kinds[weight.name]}": weight.shape[::-1]
        for layer in model.layers
        for weight in layer.weights
        if weight.name in kinds
    }
    for layer in ("fc1", "fc2", "logits"):
        name = f"{torch_vgg(depth, batch_norm)(layer)}.weight"
        ours[name] = theirs[name]
    assert ours == theirs


@pytest.mark.parametrize(("variant", "size"), [("2012", 67), ("one-weird-trick", 63)])
def test_smallest_alexnet(variant, size):
    model = build_alexnet(variant, (None, None, 1), None)
    assert model(images(1, size, size, 1)).shape == (1, 1, 1, 256)
    with pytest.raises(tf.errors.OpError):  # the last pooling has nothing to pool
        model(images(1, size - 1, size, 1))


@pytest.mark.parametrize("build", [build_alexnet, build_vgg])
def test_dropout_rests_where_it_should(build):
    model = build("2012" if build is build_alexnet else 11, (67, 67, 3), 2, dropout=0.25)
    rates = {x.name: x.rate for x in model.layers if isinstance(x, layers.Dropout)}
    assert rates == {"fc1_dropout": 0.25, "fc2_dropout": 0.25}


def windows_through_head(model: keras.Model, batch: np.ndarray) -> np.ndarray:
    """Apply the dense head of a model to every window of the last feature map of larger images."""
    start = next(
        layer
        for layer in reversed(model.layers)
        if isinstance(layer, (layers.Flatten, layers.GlobalAveragePooling2D))
    )
    rows, columns = start.input.shape[1:3]
    body = keras.Model(model.input, start.input)
    free = keras.models.clone_model(body, input_tensors=keras.Input((None, None, batch.shape[-1])))
    free.set_weights(body.get_weights())
    head = keras.Model(start.input, model.output)
    features = np.asarray(free(batch))
    height, width = (n - k + 1 for n, k in zip(features.shape[1:3], (rows, columns), strict=True))
    places = [
        [head(features[:, i : i + rows, j : j + columns]) for j in range(width)]
        for i in range(height)
    ]
    return np.asarray(places).transpose(2, 0, 1, 3)


@pytest.mark.parametrize(
    ("model", "larger", "rows", "columns"),
    [
        (lambda: build_lenet((28, 20, 1), 10), (32, 33, 1), 2, 4),
        (lambda: build_alexnet("2012", (99, 67, 3), 5), (131, 131, 3), 2, 3),
        (lambda: build_alexnet("one-weird-trick", (63, 95, 3), 5), (127, 128, 3), 3, 2),
        (lambda: build_vgg(11, (64, 32, 3), 5, batch_norm=True), (96, 96, 3), 2, 3),
        (lambda: build_efficientnet_lite(0, (64, 64, 3), 5), (96, 128, 3), 2, 3),
    ],
    ids=["lenet", "alexnet-2012", "alexnet-one-weird-trick", "vgg11_bn", "efficientnet_lite0"],
)
def test_fully_convolutional(model, larger, rows, columns):
    model = randomized(model())
    twin = to_fully_convolutional(model)
    assert twin.name == model.name
    assert twin.count_params() == model.count_params()
    assert not any(isinstance(layer, layers.Dense) for layer in twin.layers)
    batch = images(2, *model.input_shape[1:])
    logits = np.asarray(model(batch))
    assert_near(twin(batch), logits[:, None, None], 1e-5)
    batch = images(1, *larger)
    logits = np.asarray(twin(batch))
    assert logits.shape == (1, rows, columns, model.output_shape[-1])
    assert_near(logits, windows_through_head(model, batch), 1e-5)


def without_padding(head: list[layers.Layer]) -> keras.Model:
    body = [layers.Conv2D(6, 3, 2, activation="relu"), layers.MaxPooling2D(2), layers.Conv2D(8, 2)]
    return keras.Sequential([keras.Input((22, 26, 2)), *body, *head], name="small")


@pytest.mark.parametrize("start", [layers.Flatten, layers.GlobalAveragePooling2D])
def test_without_padding_every_position_is_the_model_on_that_crop(start):
    head = [start(), layers.Dense(7, "relu", use_bias=False), layers.ReLU(), layers.Dense(3)]
    model = randomized(without_padding(head))
    twin = to_fully_convolutional(model)
    image = images(1, 34, 38, 2)
    logits = np.asarray(twin(image))
    assert logits.shape == (1, 4, 4, 3)  # every 4 pixels, the strides of the body
    for i in range(4):
        for j in range(4):
            crop = image[:, 4 * i : 4 * i + 22, 4 * j : 4 * j + 26]
            np.testing.assert_allclose(logits[:, i, j], model(crop), rtol=1e-4, atol=1e-5)


def test_global_max_pooling_becomes_windows():
    model = randomized(without_padding([layers.GlobalMaxPooling2D(), layers.Dense(3)]))
    image = images(1, 26, 26, 2)
    logits = to_fully_convolutional(model)(image)
    np.testing.assert_allclose(logits[:, 1, 0], model(image[:, 4:]), rtol=1e-4, atol=1e-5)


def test_fully_convolutional_is_a_copy_that_saves_and_trains(tmp_path):
    model = randomized(build_vgg(11, (32, 32, 3), 4, dropout=0.25))
    model.get_layer("fc1").trainable = False
    twin = to_fully_convolutional(model)
    assert twin.get_layer("fc2_dropout").rate == 0.25
    assert not twin.get_layer("fc1").trainable
    assert twin.get_layer("fc2").trainable
    batch = images(1, 64, 32, 3)
    twin.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(batch), twin(batch))
    before = model.get_layer("logits").get_weights()[0]
    twin.get_layer("logits").kernel.assign_add(tf.ones((1, 1, 4096, 4)))
    np.testing.assert_array_equal(model.get_layer("logits").get_weights()[0], before)


def test_fully_convolutional_keeps_the_precision(tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = without_padding([layers.Flatten(), layers.Dense(3)])
    finally:
        keras.config.set_dtype_policy(before)
    twin = to_fully_convolutional(model)
    twin.save(tmp_path / "model.keras")
    assert (
        keras.saving.load_model(tmp_path / "model.keras")(images(1, 22, 26, 2)).dtype == "bfloat16"
    )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: build_vgg(11, (32, 32, 3), None),
            "vgg11 must end in Flatten or global pooling, and dense layers",
        ),
        (
            lambda: build_efficientnet_lite(0, (None, None, 3), 2),
            r"efficientnet_lite0 must take images of one size, got \(None, None, None, 3\)",
        ),
        (
            lambda: keras.Sequential([keras.Input((9,)), layers.Dense(2)], name="mlp"),
            r"mlp must take images of one size, got \(None, 9\)",
        ),
        (
            lambda: without_padding([layers.GlobalAveragePooling2D()]),
            "small must end in a map of features, and dense layers",
        ),
        (
            lambda: without_padding([layers.Reshape((-1, 8)), layers.Flatten(), layers.Dense(2)]),
            "small must end in a map of features, and dense layers",
        ),
        (
            lambda: without_padding(
                [layers.Flatten(name="flat"), layers.Dense(2), layers.LayerNormalization(name="n")]
            ),
            r"small must have dense layers in a row after flat, got n \(LayerNormalization\)",
        ),
    ],
)
def test_what_cannot_be_converted_is_said(model, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        to_fully_convolutional(model())


def test_a_head_of_two_branches_cannot_be_converted():
    inputs = keras.Input((8, 8, 3))
    x = layers.Flatten(name="flatten")(inputs)
    x = layers.Add()([layers.Dense(2)(x), layers.Dense(2)(x)])
    with pytest.raises(
        ValueError, match=r"^two must have dense layers in a row after flatten, got"
    ):
        to_fully_convolutional(keras.Model(inputs, x, name="two"))


@pytest.mark.slow
def test_vgg16_at_its_native_size():
    model = build_vgg(16)
    twin = to_fully_convolutional(model)
    assert twin.count_params() == 138_357_544
    assert twin.get_layer("fc1").kernel_size == (7, 7)
    batch = images(1, 224, 224, 3)
    assert_near(twin(batch), np.asarray(model(batch))[:, None, None], 1e-4)
    assert twin(images(1, 256, 320, 3)).shape == (1, 2, 4, 1000)
