"""Image classifiers on backbones of several kinds."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import hub_models


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TFCOURSE_CACHE", str(tmp_path / "cache"))


def backbone(folder, shape, function, dtype=tf.float32):
    root = tf.train.Checkpoint(scale=tf.Variable(1.0, name="scale"))
    signature = [tf.TensorSpec([None, *shape], dtype)]
    root.__call__ = tf.function(lambda x: function(x) * root.scale, input_signature=signature)
    root.variables = root.trainable_variables = [root.scale]
    tf.saved_model.save(root, str(folder))
    return folder


def averages(x):
    return tf.reduce_mean(x, [1, 2])


def test_pixels_are_scaled_coloured_and_resized_to_what_the_backbone_takes(tmp_path):
    folder = backbone(tmp_path / "fixed", (16, 16, 3), averages)
    model = hub_models.build_image_classifier(folder, (8, 8, 1), 4)
    features = keras.Model(model.input, model.get_layer("dropout").input)
    np.testing.assert_allclose(features(np.full((2, 8, 8, 1), 255.0)), np.ones((2, 3)), atol=1e-6)
    assert model(np.zeros((2, 8, 8, 1))).shape == (2, 4)
    assert {layer.name for layer in model.layers} >= {"grey_to_colour", "resize", "rescale"}


def test_any_size_is_left_as_it_is_and_grey_stays_grey(tmp_path):
    folder = backbone(tmp_path / "grey", (None, None, 1), averages)
    model = hub_models.build_image_classifier(folder, (8, 8, 1), 4)
    names = {layer.name for layer in model.layers}
    assert not names & {"grey_to_colour", "resize"}


def test_a_feature_map_is_averaged(tmp_path):
    folder = backbone(tmp_path / "map", (None, None, 3), lambda x: tf.concat([x, x], -1))
    model = hub_models.build_image_classifier(folder, (8, 8, 3), 4)
    assert model.get_layer("dropout").input.shape == (None, 6)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((100, 1), tf.float32), ((8, 8, 3), tf.uint8), ((3, 8, 8), tf.float32)]
)
def test_what_takes_no_images_is_refused(shape, dtype, tmp_path):
    def function(x):
        return tf.reduce_mean(tf.cast(x, tf.float32), list(range(1, len(shape))))[:, None]

    folder = backbone(tmp_path / "other", shape, function, dtype)
    with pytest.raises(ValueError, match="must take images, floats") as refusal:
        hub_models.build_image_classifier(folder, (8, 8, 3), 4)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((8, 8), 4), r"input_shape must be \(height, width, channels\)"),
        (((8, 8, 4), 4), "with 1 or 3 channels"),
        (((8, 8, 3), 1), "num_classes must be at least 2, got 1"),
    ],
)
def test_bad_arguments(arguments, message, tmp_path):
    folder = backbone(tmp_path / "fixed", (16, 16, 3), averages)
    with pytest.raises(ValueError, match=message):
        hub_models.build_image_classifier(folder, *arguments)


def test_augmentation_is_for_training_only(tmp_path):
    folder = backbone(
        tmp_path / "left", (None, None, 3), lambda x: tf.reduce_mean(x[:, :, :4], [1, 2])
    )
    model = hub_models.build_image_classifier(folder, (8, 8, 3), 4, augment=True, dropout=0.0)
    ramp = np.tile(np.linspace(0, 255, 8)[None, None, :, None], (16, 8, 1, 3))
    still = model(ramp, training=False).numpy()
    assert np.ptp(still, axis=0).max() < 1e-6
    assert np.ptp(model(ramp, training=True).numpy(), axis=0).max() > 1e-3
