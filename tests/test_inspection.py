"""Grad-CAM against the closed form and finite differences; maps, filters and hidden places."""

import functools

import keras
import numpy as np
import pytest
from keras import layers

from tfcourse.vision import build_efficientnet_lite, build_lenet, build_vgg, preprocess
from tfcourse.vision.inspection import colors, feature_maps, first_filters, grad_cam, stages
from tfcourse.vision.occlusion import hide, hottest

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(-1, 1, (3, 16, 20, 3))


def network(*head: layers.Layer, policy: str = "float64") -> keras.Model:
    """Build a small classifier whose feature map is (8, 10, 5)."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(IMAGES.shape[1:], dtype="float64" if policy == "float64" else None)
    x = layers.Conv2D(5, 3, 2, padding="same", activation="relu", dtype=policy, name="map")(inputs)
    for layer in head or (layers.GlobalAveragePooling2D(dtype=policy),):
        x = layer(x)
    return keras.Model(inputs, layers.Dense(4, dtype=policy, name="logits")(x), name="small")


def test_it_is_cam_before_a_global_average_and_one_dense_layer():
    """Zhou et al. (2016): a class's map is the sum of the maps, weighted by its dense weights."""
    model = network()
    maps = feature_maps(model, IMAGES, ["map"])["map"]
    classes = [2, 0, 3]
    weights = model.get_layer("logits").kernel.numpy()[:, classes].T
    cam = np.maximum(np.einsum("nhwk,nk->nhw", maps, weights), 0) / (8 * 10)
    assert cam.max() > 0.001
    np.testing.assert_allclose(grad_cam(model, IMAGES, "map", classes), cam, atol=1e-8)


def test_weights_are_the_mean_gradients():
    """Raising a whole channel a little raises the logit by its weight times the number of places.

    Measured by central differences on the layers behind the map.
    """
    head = [
        layers.Conv2D(6, 3, activation="tanh", dtype="float64"),
        layers.Flatten(dtype="float64"),
    ]
    model = network(*head)
    behind = keras.Model(model.get_layer("map").output, model.output)
    maps = keras.Model(model.input, model.get_layer("map").output)(IMAGES).numpy()
    step = 1e-5
    slopes = [
        (np.array(behind(maps + step * one)) - np.array(behind(maps - step * one))) / (2 * step)
        for one in np.eye(5)
    ]
    classes = [1, 1, 2]
    weights = np.stack([slope[range(3), classes] for slope in slopes], axis=-1) / (8 * 10)
    expected = np.maximum(np.einsum("nhwk,nk->nhw", maps, weights), 0)
    assert expected.max() > 0.001
    found = grad_cam(model, IMAGES, "map", classes)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)


def test_the_likeliest_class_is_the_default():
    model = network()
    classes = np.argmax(model(IMAGES), axis=-1)
    np.testing.assert_array_equal(
        grad_cam(model, IMAGES, "map"), grad_cam(model, IMAGES, "map", classes)
    )
    others = grad_cam(model, IMAGES, "map", (classes + 1) % 4)
    assert np.abs(grad_cam(model, IMAGES, "map") - others).max() > 0.001


def test_frozen_layers_and_bfloat16_make_no_difference():
    model = network()
    heat = grad_cam(model, IMAGES, "map", [0, 1, 2])
    model.trainable = False
    np.testing.assert_array_equal(grad_cam(model, IMAGES, "map", [0, 1, 2]), heat)
    rough = network(policy="mixed_bfloat16")
    rough.set_weights(model.get_weights())
    rounded = grad_cam(rough, IMAGES, "map", [0, 1, 2])
    assert rounded.dtype == "float32"
    np.testing.assert_allclose(rounded, heat, atol=0.03 * heat.max())


def test_an_image_does_not_depend_on_its_neighbours():
    model = network(layers.BatchNormalization(dtype="float64"), layers.Flatten(dtype="float64"))
    together = grad_cam(model, IMAGES, "map", [0, 1, 2])
    alone = [grad_cam(model, IMAGES[i : i + 1], "map", [i])[0] for i in range(3)]
    np.testing.assert_allclose(together, alone, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("logits",), r"layer must be one whose output is a map \(none is called stage1, stage2"),
        (("nowhere",), "layer must be .*, got 'nowhere'"),
        (("map", [0, 1]), r"classes must be one of 0 to 3 for each of 3 images, got \[0, 1\]"),
        (("map", [0, 1, 4]), r"classes must be one of 0 to 3 for each of 3 images, got"),
        (("map", [0, 1, -1]), r"classes must be one of 0 to 3 for each of 3 images, got"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        grad_cam(network(), IMAGES, *arguments)


def test_networks_that_it_does_not_fit_are_refused():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(2, 1, name="map")(inputs)
    unused = layers.Conv2D(2, 1, name="unused")(inputs)
    x = layers.Dense(4, activation="softmax", name="probabilities")(layers.Flatten()(x))
    images = np.zeros((1, 8, 8, 3))
    with pytest.raises(ValueError, match=r"must end in logits .* got layer 'probabilities'"):
        grad_cam(keras.Model(inputs, x, name="soft"), images, "map")
    logits = layers.Dense(4, name="logits")(layers.Flatten()(inputs))
    apart = keras.Model(inputs, {"logits": logits, "maps": unused}, name="apart")
    with pytest.raises(ValueError, match=r"^the logits of apart do not depend on layer 'unused'$"):
        grad_cam(apart, images, "unused")
    dense = keras.Model(inputs, logits, name="dense")
    with pytest.raises(ValueError, match=r"^the model must have a convolution, got dense$"):
        first_filters(dense)


def test_a_model_without_stages_has_no_maps_unless_they_are_named():
    with pytest.raises(ValueError, match=r"^names must be .* \(none is called .*\), got none$"):
        feature_maps(network(), IMAGES)
    images = np.zeros((1, 28, 28, 1), "float32")
    with pytest.raises(ValueError, match=r"^names must be .* \(stage1, stage2\), got none$"):
        feature_maps(build_lenet(), images, [])
    assert feature_maps(build_lenet(), images, ["c3"])["c3"].shape == (1, 10, 10, 16)


def test_stages_are_the_maps_of_a_network():
    model = build_lenet()
    images = RNG.uniform(0, 1, (2, 28, 28, 1)).astype("float32")
    maps = feature_maps(model, images)
    assert stages(model) == list(maps) == ["stage1", "stage2"]
    assert {name: x.shape for name, x in maps.items()} == {
        "stage1": (2, 14, 14, 6),
        "stage2": (2, 5, 5, 16),
    }
    # The first map by hand: 5x5 kernels over two pixels of padding, ReLU, the largest of four.
    padded = np.pad(images[0, ..., 0], 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5))
    x = np.einsum("hwij,ijf->hwf", windows, first_filters(model)[:, :, 0])
    pooled = np.maximum(x, 0).reshape(14, 2, 14, 2, 6).max(axis=(1, 3))
    np.testing.assert_allclose(maps["stage1"][0], pooled, atol=1e-5)


def test_a_fifth_of_the_places_is_hidden():
    heat = RNG.uniform(size=(7, 7))
    marked = hottest(heat, 0.2)
    assert marked.sum() == 10
    assert heat[marked].min() > heat[~marked].max()
    assert hottest(np.zeros((2, 2)), 0.1).sum() == 1
    image = RNG.uniform(size=(20, 30, 3)).astype("float32")
    hidden = hide(image, np.array([[1, 0, 0], [0, 0, 0]], bool))
    np.testing.assert_array_equal(hidden[10:], image[10:])
    np.testing.assert_array_equal(hidden[:, 10:], image[:, 10:])
    mean = np.broadcast_to(image.mean((0, 1)), (10, 10, 3))
    np.testing.assert_allclose(hidden[:10, :10], mean, rtol=1e-6)
    for fraction in (0, 1.1):
        with pytest.raises(ValueError, match=f"fraction must be above 0 .* got {fraction}"):
            hottest(heat, fraction)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (functools.partial(build_efficientnet_lite, 0), np.eye(3) * 255 / 128),
        (functools.partial(build_vgg, 16), np.eye(3)[::-1] * 255),  # blue comes first
    ],
)
def test_colors_come_back_from_what_a_network_takes(model, expected):
    model = model((32, 32, 3), 4)
    photo = RNG.integers(0, 256, (32, 32, 3), dtype="uint8")
    matrix, black = colors(model)
    again = (preprocess([photo], like=model)[0] - black) @ np.linalg.inv(matrix)
    np.testing.assert_allclose(again, photo / 255, atol=1e-5)
    np.testing.assert_allclose(matrix, expected, rtol=1e-5, atol=1e-4)
