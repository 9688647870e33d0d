"""The encoder-decoder: counts by hand, a transposed convolution by hand, sizes, codes and noise."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcourse import training
from tfcourse.data import filters
from tfcourse.data.fashion_mnist import load_fashion_mnist
from tfcourse.training import InMemory
from tfcourse.vision import build_encoder_decoder
from tfcourse.vision.encoder_decoder import enlarge


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1, shape).astype("float32")


def conv(kernel_size: int, channels: int, filters: int) -> int:
    return (kernel_size**2 * channels + 1) * filters


ENCODERS = {"autoencoder": conv(3, 1, 32) + conv(3, 32, 64), "denoising": conv(3, 1, 48)}
CODES = {
    "autoencoder": (7 * 7 * 64 + 1) * 30 + (30 + 1) * 7 * 7 * 64,
    "denoising": conv(3, 48, 48),
}
DECODERS = {
    "autoencoder": conv(4, 64, 64) + conv(4, 64, 32) + conv(3, 32, 1),
    "denoising": conv(4, 48, 48) + conv(3, 48, 1),
}
COUNTS = {"autoencoder": 308_831, "denoising": 58_609}


@pytest.mark.parametrize("variant", COUNTS)
def test_parameter_count_by_hand(variant):
    by_hand = sum(part[variant] for part in (ENCODERS, CODES, DECODERS))
    assert build_encoder_decoder(variant).count_params() == by_hand == COUNTS[variant]


def transposed_convolution(x, kernel, bias, strides):
    """Write each pixel times the kernel into a larger image, and cut the rim ("same")."""
    height, width, _ = x.shape
    size, _, filters, _ = kernel.shape
    out = np.zeros((strides * (height - 1) + size, strides * (width - 1) + size, filters))
    for i, j in np.ndindex(height, width):
        rows, columns = (slice(strides * k, strides * k + size) for k in (i, j))
        out[rows, columns] += kernel @ x[i, j]
    rim = (size - strides) // 2
    return out[rim:, rim:][: strides * height, : strides * width] + bias


def test_a_transposed_convolution_stamps_its_kernel():
    inputs = keras.Input((3, 5, 6))
    model = keras.Model(inputs, enlarge(inputs, 4, (6, 10), name="up"))
    kernel, bias = model.get_layer("up_conv").weights
    bias.assign(images(4) - 0.5)
    x = images(1, 3, 5, 6) - 0.5
    by_hand = transposed_convolution(x[0], kernel.numpy(), bias.numpy(), 2)
    np.testing.assert_allclose(model(x)[0], np.maximum(by_hand, 0), atol=1e-6)
    assert (by_hand < 0).any()


@pytest.mark.parametrize(
    ("variant", "unfolded"), [("autoencoder", "unflatten"), ("denoising", "code")]
)
def test_no_checkerboard(variant, unfolded):
    """Equal weights make a flat image of a flat image, away from the rim."""
    model = build_encoder_decoder(variant, (40, 40, 1))
    for weight in model.weights:  # each number is a mean of those before, plus 1
        weight.assign(np.full(weight.shape, 1 / np.prod(weight.shape[:-1])))
    decoder = keras.Model(*(model.get_layer(n).output for n in (unfolded, "decode1_relu")))
    out = decoder(np.ones((1, *decoder.input.shape[1:]), "float32")).numpy()[0, 12:-12, 12:-12]
    assert out.shape[:2] == (16, 16)
    np.testing.assert_allclose(out, np.broadcast_to(out[0, 0], out.shape), rtol=1e-5)


def test_a_kernel_of_3_would_show_a_checkerboard():
    layer = keras.layers.Conv2DTranspose(1, 3, 2, padding="same", kernel_initializer="ones")
    out = layer(np.ones((1, 8, 8, 1), "float32")).numpy()[0, 4:-4, 4:-4, 0]
    assert set(np.unique(out)) == {1, 2, 4}


@pytest.mark.parametrize("variant", COUNTS)
@pytest.mark.parametrize("size", [(4, 4), (4, 7), (30, 29), (33, 64)])
def test_every_size_from_4_pixels_comes_back(variant, size):
    model = build_encoder_decoder(variant, (*size, 3))
    assert model(images(2, *size, 3)).shape == (2, *size, 3)


def test_three_stages_and_the_smallest_image():
    model = build_encoder_decoder("autoencoder", (8, 9, 1), filters=(4, 8, 16), code_units=2)
    assert model.get_layer("stage3").output.shape == (None, 1, 2, 16)
    assert model.get_layer("code").output.shape == (None, 2)
    assert model(images(2, 8, 9, 1)).shape == (2, 8, 9, 1)
    with pytest.raises(ValueError, match=r"from 8 px for 3 stages, got \(7, 9, 1\)"):
        build_encoder_decoder("autoencoder", (7, 9, 1), filters=(4, 8, 16))


def test_the_code_is_narrow_or_wider_than_the_image():
    narrow, wide = (build_encoder_decoder(v).get_layer("code").output.shape[1:] for v in COUNTS)
    assert narrow == (30,)
    assert wide == (14, 14, 48)
    assert np.prod(wide) == 12 * 28 * 28


def test_encoder_and_decoder_are_two_models_that_make_the_whole():
    model = build_encoder_decoder("autoencoder")
    code = model.get_layer("code").output
    encoder, decoder = keras.Model(model.input, code), keras.Model(code, model.output)
    x = images(3, 28, 28, 1)
    np.testing.assert_array_equal(decoder(encoder(x)), model(x))


def test_one_denoiser_serves_all_sizes():
    """No weight depends on the size of the image, so weights of small images fit large ones."""
    small, large = (build_encoder_decoder("denoising", (n, n, 1)) for n in (40, 72))
    large.set_weights(small.get_weights())
    x = images(1, 72, 72, 1)
    part, whole = small(x[:, 16:56, 16:56]).numpy(), large(x).numpy()[:, 16:56, 16:56]
    # Away from the rim, which only the small image has there, both see the same pixels.
    np.testing.assert_allclose(part[:, 16:-16, 16:-16], whole[:, 16:-16, 16:-16], atol=1e-6)
    assert np.ptp(whole) > 0.01
    assert not np.allclose(part, whole, atol=1e-3)


def test_noise_is_added_in_training_only():
    keras.utils.set_random_seed(0)
    model = build_encoder_decoder("denoising", (64, 64, 1), noise=0.4)
    x = images(4, 64, 64, 1)
    np.testing.assert_array_equal(model(x, training=False), model(x))
    noisy = keras.Model(model.input, model.get_layer("noise").output)(x, training=True)
    assert np.std(noisy - x) == pytest.approx(0.4, rel=0.02)
    assert np.mean(noisy - x) == pytest.approx(0, abs=0.01)
    assert "noise" not in {layer.name for layer in build_encoder_decoder().layers}


def test_a_denoiser_that_saw_noise_only_in_training_removes_it():
    keras.utils.set_random_seed(0)
    clean = load_fashion_mnist()[0].images[:256] / np.float32(255)
    model = build_encoder_decoder("denoising", filters=(16,))
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    training.fit(model, InMemory(clean, clean, 32), 8)
    rng = np.random.default_rng(0)
    noisy = clean + rng.normal(0, 0.25, clean.shape).astype("float32")
    restored = tf.sigmoid(training.predict(model, InMemory(noisy, None, 64, shuffle=False)))
    assert filters.psnr(clean, noisy).mean() == pytest.approx(12.04, abs=0.1)
    assert filters.psnr(clean, restored.numpy()).mean() > 18


def test_an_autoencoder_with_noise_and_a_denoiser_without():
    assert build_encoder_decoder("autoencoder", noise=0.1).get_layer("noise").stddev == 0.1
    assert build_encoder_decoder().count_params() == 308_831
    plain = build_encoder_decoder("denoising", noise=0, code_units=5)
    assert "noise" not in {layer.name for layer in plain.layers}
    assert plain.get_layer("code").units == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"variant": "u-net"},
            r"variant must be one of \['autoencoder', 'denoising'\], got 'u-net'",
        ),
        ({"input_shape": (28, 28)}, r"input_shape must be .* from 4 px .*, got \(28, 28\)"),
        (
            {"input_shape": (28, 3, 1)},
            r"input_shape must be .* from 4 px for 2 stages, got \(28, 3, 1\)",
        ),
        (
            {"input_shape": (None, 28, 1)},
            r"input_shape must be all numbers .*, got \(None, 28, 1\)",
        ),
        ({"filters": ()}, r"filters must be one number .*, got \(\)"),
        ({"filters": (8, 0)}, r"filters must be one number of at least 1 .*, got \(8, 0\)"),
        ({"code_units": 0}, "code_units must be at least 1, got 0"),
        (
            {"variant": "denoising", "input_shape": (1, 8, 1)},
            r"input_shape .* from 2 px for 1 stage, got \(1, 8, 1\)",
        ),
        ({"noise": -0.1}, "noise must be between 0 and 1, got -0.1"),
        ({"noise": 1.5}, "noise must be between 0 and 1, got 1.5"),
        ({"noise": float("nan")}, "noise must be between 0 and 1, got nan"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        build_encoder_decoder(**arguments)
