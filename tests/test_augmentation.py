"""Augmentation, penalties, noise in the weights and mixed examples, against NumPy and others."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from twins import policy

from tfcourse import training
from tfcourse.training import InMemory
from tfcourse.training.noise import beta_quantiles
from tfcourse.vision import (
    PrincipalColors,
    RandomWindow,
    alexnet_augmentation,
    augment,
    build_lenet,
    principal_colors,
    ten_windows,
)

RNG = np.random.default_rng(0)
# Colours that go together, as those of photos do.
MIXING = np.array([[0.6, 0.1, 0.0], [0.5, 0.3, 0.1], [0.4, -0.2, 0.3]], "float32")
IMAGES = (RNG.normal(0.5, 0.3, (8, 12, 12, 3)) @ MIXING).astype("float32")
X = RNG.normal(size=(21, 6)).astype("float32")
LABELS = RNG.integers(0, 3, 21)
ONE_HOT = np.eye(3, dtype="float32")[LABELS]


def hlo(function, x):
    compiled = tf.function(function, jit_compile=True, autograph=False)
    argument = keras.tree.map_structure(tf.constant, x)
    return compiled.experimental_get_compiler_ir(argument)(stage="hlo", platform_name="CPU")


def again(layer):
    """Return a layer as a file would bring it back."""
    return keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))


# Windows, colours and the layers of Keras.


def places_of(windows, image):
    """Return where a window was cut out of an image: where it is equal."""
    height, width = windows.shape[:2]
    rows, columns = image.shape[0] - height + 1, image.shape[1] - width + 1
    return [
        (y, x)
        for y in range(rows)
        for x in range(columns)
        if np.array_equal(windows, image[y : y + height, x : x + width])
    ]


def test_each_image_has_a_window_of_its_own_and_every_place_occurs():
    layer = again(RandomWindow((9, 10), seed=1))
    found = [
        places_of(window, image)
        for _ in range(20)
        for window, image in zip(layer(IMAGES, training=True).numpy(), IMAGES, strict=True)
    ]
    assert all(len(places) == 1 for places in found)
    assert {places[0] for places in found} == {(y, x) for y in range(4) for x in range(3)}
    one_batch = {places[0] for places in found[:8]}
    assert len(one_batch) > 2


def test_windows_come_from_the_middle_out_of_training():
    np.testing.assert_array_equal(RandomWindow((8, 9))(IMAGES), IMAGES[:, 2:10, 1:10])
    np.testing.assert_array_equal(RandomWindow((12, 12), padding=2)(IMAGES), IMAGES)
    padded = np.pad(IMAGES, [(0, 0), (3, 3), (3, 3), (0, 0)])
    shifted = RandomWindow((12, 12), padding=3, seed=0)(IMAGES, training=True).numpy()
    assert all(places_of(a, b) for a, b in zip(shifted, padded, strict=True))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: RandomWindow((3,)),
            r"window must be \(height, width\), whole numbers from 1 up, got",
        ),
        (
            lambda: RandomWindow((2.5, 3)),
            r"window must be .*, whole numbers from 1 up, got \(2.5, 3",
        ),
        (lambda: RandomWindow((3, 3), padding=-1), "padding must be at least 0, got -1"),
        (lambda: RandomWindow((13, 3))(IMAGES), r"window \(13, 3\) must fit into pictures of a k"),
        (lambda: PrincipalColors([1, 1], np.eye(3)), r"directions must be \(2, 2\), got \(3, 3\)"),
        (
            lambda: PrincipalColors([1], [[1]], stddev=-1),
            "stddev must be at least 0 and finite, got -1",
        ),
        (lambda: PrincipalColors([1], [[1]], stddev=float("nan")), "stddev must be .* got nan"),
        (lambda: principal_colors(IMAGES[0]), r"images must be \(n, height, width, channels\)"),
        (lambda: ten_windows(IMAGES, (12, 13)), r"window must fit into \(12, 12\), got \(12, 13\)"),
        (lambda: ten_windows(IMAGES, (0, -1)), r"window must fit into \(12, 12\), got \(0, -1\)"),
        (
            lambda: ten_windows(IMAGES[0, ..., 0], (2, 2)),
            r"images must be \(n, height, width, chan",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_principal_colors_are_those_of_the_covariance():
    deviations, directions = principal_colors(IMAGES)
    covariance = np.cov(IMAGES.reshape(-1, 3).astype("float64"), rowvar=False, bias=True)
    np.testing.assert_allclose(directions @ directions.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(
        directions.T @ np.diag(deviations**2) @ directions, covariance, atol=1e-12
    )
    assert deviations[0] > deviations[1] > deviations[2] > 0
    pixels = np.round(IMAGES * 100 + 100).clip(0, 255).astype("uint8")
    decomposition = pytest.importorskip("sklearn.decomposition")
    theirs = decomposition.PCA().fit(pixels.reshape(-1, 3))
    ours = principal_colors(pixels)
    np.testing.assert_allclose(ours[0] ** 2, theirs.explained_variance_, rtol=1e-3)
    np.testing.assert_allclose(np.abs(ours[1]), np.abs(theirs.components_), atol=1e-6)


def test_colours_change_alike_over_an_image_and_as_the_pixels_vary():
    """The changes are normal along the components: their covariance is 0.01 times the pixels'."""
    layer = again(PrincipalColors(*principal_colors(IMAGES), seed=0))
    np.testing.assert_array_equal(layer(IMAGES, training=False), IMAGES)
    change = layer(IMAGES, training=True).numpy() - IMAGES
    np.testing.assert_allclose(change, np.broadcast_to(change[:, :1, :1], change.shape), atol=1e-6)
    changes = layer(np.zeros((20_000, 1, 1, 3), "float32"), training=True).numpy().reshape(-1, 3)
    covariance = np.cov(IMAGES.reshape(-1, 3), rowvar=False, bias=True)
    scale = 0.01 * np.abs(covariance).max()
    np.testing.assert_allclose(np.cov(changes, rowvar=False), 0.01 * covariance, atol=0.05 * scale)
    deviations, directions = principal_colors(IMAGES)
    a = changes @ directions.T / deviations
    np.testing.assert_allclose(a.std(0), 0.1, rtol=0.03)
    np.testing.assert_allclose(np.mean((a / 0.1) ** 4, axis=0), 3, rtol=0.1)  # a normal's kurtosis


def test_ten_windows_are_the_corners_and_the_middle_and_those_of_the_mirror():
    ten = ten_windows(IMAGES, (8, 6))
    assert ten.shape == (8, 10, 8, 6, 3)
    expected = [(0, 0), (0, 6), (4, 0), (4, 6), (2, 3)]
    mirrored = IMAGES[:, :, ::-1]
    for windows, image, mirror in zip(ten, IMAGES, mirrored, strict=True):
        assert [places_of(window, image) for window in windows[:5]] == [[p] for p in expected]
        assert [places_of(window, mirror) for window in windows[5:]] == [[p] for p in expected]


@pytest.mark.slow  # importing torchvision takes seconds
def test_ten_windows_are_those_of_torchvision():
    torch = pytest.importorskip("torch")
    for operator in ("nms", "qnms"):  # builds without their operators can't be imported otherwise
        with contextlib.suppress(RuntimeError):
            torch.library.define(
                f"torchvision::{operator}", "(Tensor dets, Tensor scores, float t) -> Tensor"
            )
    transforms = pytest.importorskip("torchvision.transforms.functional")
    theirs = transforms.ten_crop(torch.tensor(IMAGES).permute(0, 3, 1, 2), [8, 6])
    expected = np.stack([crop.permute(0, 2, 3, 1).numpy() for crop in theirs], axis=1)
    np.testing.assert_array_equal(ten_windows(IMAGES, (8, 6)), expected)


COMPILED = {
    "mirror": lambda: layers.RandomFlip("horizontal"),
    "brightness": lambda: layers.RandomBrightness(0.2, value_range=(0, 1)),
    "contrast": lambda: layers.RandomContrast(0.2, value_range=(0, 1)),
    "saturation": lambda: layers.RandomSaturation((0.3, 0.7), value_range=(0, 1)),
    "hue": lambda: layers.RandomHue(0.1, value_range=(0, 1)),
    "cut-out": lambda: layers.RandomErasing((1, 1), (0.25, 0.25), 0.0),
    "noise": lambda: layers.GaussianNoise(0.1),
    "window": lambda: RandomWindow((12, 12), padding=2),
    "colours": lambda: PrincipalColors(*principal_colors(IMAGES)),
}
NOT_COMPILED = {
    "rotation": lambda: layers.RandomRotation(0.1),
    "shift": lambda: layers.RandomTranslation(0.1, 0.1),
    "zoom": lambda: layers.RandomZoom(0.1),
}


def of(table):
    return pytest.mark.parametrize("build", table.values(), ids=table.keys())


@of(COMPILED)
def test_lowers_to_xla_with_static_shapes(build):
    layer = build()
    layer(IMAGES, training=True)
    text = hlo(lambda x: layer(x, training=True), IMAGES)
    assert "ENTRY" in text
    assert "<=" not in text


@of(NOT_COMPILED)
def test_what_the_docstring_keeps_from_xla_does_not_lower(build):
    layer = build()
    layer(IMAGES, training=True)
    with pytest.raises(ValueError, match="ImageProjectiveTransformV3"):
        hlo(lambda x: layer(x, training=True), IMAGES)


@pytest.mark.parametrize("name", ["float32", "mixed_bfloat16"])
@of(COMPILED | NOT_COMPILED)
def test_changes_images_in_training_alone(build, name):
    with policy(name):
        layer = build()
        out, same = (tf.cast(layer(IMAGES, training=t), "float32") for t in (True, False))
    tolerance = 1e-6 if name == "float32" else 0.02
    np.testing.assert_allclose(same, IMAGES, atol=tolerance)
    assert np.abs(out - IMAGES).max() > 0.03


def test_what_the_docstring_says_of_keras():
    """One window for a batch and none out of training; half the erasing; the neutral saturation."""
    crop = layers.RandomCrop(9, 9, seed=0)
    assert crop(IMAGES, training=False).shape == IMAGES.shape
    windows = np.asarray(crop(IMAGES, training=True))
    assert len({places_of(w, i)[0] for w, i in zip(windows, IMAGES, strict=True)}) == 1
    ones = np.ones((2_000, 8, 8, 3), "float32")

    def erased(factor):
        out = layers.RandomErasing(factor, (0.25, 0.25), 0.0, seed=0)(ones, training=True)
        return np.mean(np.asarray(out) == 0, axis=(1, 2, 3))

    np.testing.assert_allclose(erased((1, 1)), 0.25)
    assert np.mean(erased(1.0) > 0) == pytest.approx(0.5, abs=0.05)
    picture = IMAGES.clip(0, 1)
    neutral = layers.RandomSaturation((0.5, 0.5), value_range=(0, 1))
    np.testing.assert_allclose(neutral(picture, training=True), picture, atol=1e-5)


def test_a_model_learns_through_augmentation_and_stays_as_it_was_built():
    keras.utils.set_random_seed(0)
    model = build_lenet((12, 12, 3), 3)
    larger = RNG.uniform(0, 1, (8, 16, 16, 3)).astype("float32")
    network = augment(model, alexnet_augmentation(larger, (12, 12)), (16, 16, 3))
    np.testing.assert_allclose(
        network(larger, training=False), model(larger[:, 2:14, 2:14]), atol=1e-6
    )
    before = [w.numpy() for w in model.weights]
    training.compile_classifier(network, 0.01)
    training.fit(network, InMemory(larger, LABELS[:8], 5), 2)
    for weight, old in zip(model.weights, before, strict=True):
        assert np.any(weight.numpy() != old)
    assert model.input_shape == (None, 12, 12, 3)


# Penalties.


def every_kernel():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(3, 3)(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.DepthwiseConv2D(2)(x)
    x = layers.SeparableConv2D(4, 2)(x)
    x = layers.Reshape((16, 4))(x)
    x = layers.MultiHeadAttention(2, 3)(x, x)
    x = layers.Bidirectional(layers.LSTM(3))(x)
    return keras.Model(inputs, layers.Dense(3)(x))


def test_the_penalty_is_that_of_all_kernels_and_is_kept_in_a_file(tmp_path):
    model = training.penalise(every_kernel(), l1=0.01, l2=0.02)
    kernels = [w.numpy() for w in model.weights if "kernel" in w.name]
    assert len(kernels) == 13
    expected = sum(0.01 * np.abs(k).sum() + 0.02 * (k**2).sum() for k in kernels)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert float(sum(loaded.losses)) == pytest.approx(expected, rel=1e-5)
    assert training.penalise(loaded).losses == []


@pytest.mark.parametrize(("replicas", "name"), [(1, "float32"), (2, "mixed_bfloat16")])
def test_a_penalised_step_is_the_plain_one_and_the_derivative(replicas, name):
    """SGD at rate 0.1: `w - 0.1 (g + l1 sign(w) + 2 l2 w)`."""
    ends = []
    for l1, l2 in ((0.0, 0.0), (0.03, 0.05)):
        strategy = training.strategy(f"cpu:{replicas}")
        with strategy.scope(), policy(name):
            keras.utils.set_random_seed(2)
            model = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
            start = model.layers[0].kernel.numpy()
            training.penalise(model, l1=l1, l2=l2)
            loss = keras.losses.CategoricalCrossentropy(from_logits=True)
            model.compile(keras.optimizers.SGD(0.1), loss)
        training.fit(model, InMemory(X, ONE_HOT, 21, shuffle=False), 1)
        ends.append([w.numpy() for w in model.weights])
    derivative = 0.03 * np.sign(start) + 0.1 * start
    np.testing.assert_allclose(ends[1][0], ends[0][0] - 0.1 * derivative, atol=1e-6)
    np.testing.assert_allclose(ends[1][1], ends[0][1], atol=1e-6)  # a bias is not penalised


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: training.penalise(build_lenet(), l2=-1.0), "l2 must be at least 0 and finite, go"),
        (lambda: training.penalise(build_lenet(), l1=np.nan), "l1 must be at least 0 and finite"),
        (
            lambda: training.penalise(keras.Sequential(name="empty")),
            "model must be built and have a kernel, empty has none",
        ),
        (lambda: training.weight_noise(-0.1), "stddev must be at least 0 and finite, got -0.1"),
        (lambda: training.mix_up(0.0), "alpha must be above 0 and finite, got 0.0"),
    ],
)
def test_bad_strengths_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


# Noise in the weights.


def linear(inputs, outputs, rate, loss="mse", replicas=1):
    with training.strategy(f"cpu:{replicas}").scope():
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.Input((inputs,)), layers.Dense(outputs)])
        model.compile(keras.optimizers.SGD(rate), loss)
    return model


def test_the_gradient_is_that_at_noisy_weights_and_the_update_that_of_clean_ones():
    """Of one dense layer, where the noise can be computed back from the update of the kernel."""
    rows, inputs, outputs, rate = 60, 40, 30, 0.5
    x, y = RNG.normal(size=(rows, inputs)), RNG.normal(size=(rows, outputs))
    model = linear(inputs, outputs, rate)
    kernel, bias = (w.numpy().astype("float64") for w in model.weights)
    step, noises = training.weight_noise(0.2, seed=5), []
    for _ in range(2):
        training.fit(model, InMemory(x, y, rows, shuffle=False), 1, step=step)
        new_kernel, new_bias = (w.numpy().astype("float64") for w in model.weights)
        residual_of = rows * outputs / 2 / rate  # d mean(r^2) = 2 x' r / (rows outputs)
        clean = x.T @ (x @ kernel + bias - y)
        noise = np.linalg.solve(x.T @ x, (kernel - new_kernel) * residual_of - clean)
        residual = x @ (kernel + noise) + bias - y
        np.testing.assert_allclose(
            new_bias, bias - residual.sum(0) / residual_of, atol=2e-6
        )  # an equation that the noise was not computed from
        assert noise.std() == pytest.approx(0.2, rel=0.08)
        assert abs(noise.mean()) < 0.03
        noises.append(noise)
        kernel, bias = new_kernel, new_bias
    assert abs(np.corrcoef(noises[0].ravel(), noises[1].ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("jit_compile", [False, True])
def test_noise_leaves_no_trace_in_the_weights(jit_compile):
    model = linear(6, 3, rate=0.0)
    before = [w.numpy() for w in model.weights]
    data = InMemory(X, ONE_HOT, 21)
    clean = training.evaluate(model, data)["loss"]
    step = training.mix_up(0.4, step=training.weight_noise(0.5))
    losses = training.fit(model, data, 3, step=step, jit_compile=jit_compile).history["loss"]
    assert all(abs(loss - clean) > 1e-3 for loss in losses)
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), old)


def test_no_noise_is_the_usual_step():
    ends = []
    for step in (None, training.weight_noise(0.0)):
        model = linear(6, 3, 0.1)
        history = training.fit(model, InMemory(X, ONE_HOT, 8), 3, step=step).history
        ends.append([history["loss"], *model.get_weights()])
    for plain, noisy in zip(*ends, strict=True):
        np.testing.assert_array_equal(plain, noisy)


def test_two_replicas_have_the_same_noise():
    ends = []
    for replicas in (1, 2):
        model = linear(6, 3, 0.1, replicas=replicas)
        step = training.weight_noise(0.3, seed=1)
        training.fit(model, InMemory(X, ONE_HOT, 8, seed=1), 4, step=step)
        ends.append(model.get_weights())
    for one, two in zip(*ends, strict=True):
        np.testing.assert_allclose(one, two, atol=2e-6)


# Mixed examples.


def mixed(alpha, x, y, seed=0):
    """Return a mixed batch and the shares, read off from it."""
    model = linear(x.shape[-1], 3, 0.1)
    training.fit(model, InMemory(X, ONE_HOT, 8), 1) if x.shape[-1] == 6 else None
    step = training.mix_up(alpha, seed=seed, step=lambda model, batch: batch)
    mixed_x, mixed_y = (np.asarray(part) for part in step(model, (tf.constant(x), tf.constant(y))))
    other = x[::-1]
    return mixed_x, mixed_y, (mixed_x[:, 0] - other[:, 0]) / (x[:, 0] - other[:, 0])


def test_a_mixture_is_the_same_of_images_and_targets():
    x, y = X[:20], ONE_HOT[:20]
    mixed_x, mixed_y, t = mixed(1.0, x, y)
    t = t[:, None]
    assert t.min() >= 0
    assert t.max() <= 1
    assert len(set(t.ravel())) == 20
    np.testing.assert_allclose(mixed_x, t * x + (1 - t) * x[::-1], atol=1e-5)
    np.testing.assert_allclose(mixed_y, t * y + (1 - t) * y[::-1], atol=1e-5)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, reduction=None)
    logits = RNG.normal(size=(20, 3)).astype("float32")
    parts = t[:, 0] * loss(y, logits) + (1 - t[:, 0]) * loss(y[::-1], logits)
    np.testing.assert_allclose(loss(mixed_y, logits), parts, rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 3.0, 32.0, 1000.0])
def test_shares_are_beta_distributed(alpha):
    stats = pytest.importorskip("scipy.stats")
    quantiles = beta_quantiles(alpha)
    levels = np.linspace(0, 1, len(quantiles))[1:-1]
    np.testing.assert_allclose(quantiles[1:-1], stats.beta(alpha, alpha).ppf(levels), atol=1e-4)
    x = np.linspace(0, 1, 5_000, dtype="float32")[:, None]
    *_, t = mixed(alpha, x, np.zeros((5_000, 3), "float32"))
    edges = np.linspace(0, 1, 41)
    empirical = np.array([np.mean(t <= edge + 1e-4) for edge in edges])
    assert np.abs(empirical - stats.beta(alpha, alpha).cdf(edges + 1e-4)).max() < 0.025


def test_mixing_and_noise_go_together_and_a_resume_draws_the_same(tmp_path):
    class Crash(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.optimizer.iterations == 5:
                raise KeyboardInterrupt

    def run(**arguments):
        model = linear(6, 3, 0.1, keras.losses.CategoricalCrossentropy(from_logits=True), 2)
        step = training.mix_up(0.4, step=training.weight_noise(0.1))
        training.fit(model, InMemory(X, ONE_HOT, 8), 4, step=step, **arguments)
        return model.get_weights()

    expected = run()
    saving = training.Checkpointing(every_steps=2)
    with pytest.raises(KeyboardInterrupt):
        run(workdir=tmp_path, callbacks=[saving, Crash()])
    for one, two in zip(expected, run(workdir=tmp_path, callbacks=[saving]), strict=True):
        np.testing.assert_array_equal(one, two)


def test_noise_needs_an_optimizer_and_takes_large_seeds():
    model = linear(6, 3, 0.1)
    training.fit(
        model, InMemory(X, ONE_HOT, 21), 1, step=training.weight_noise(0.1, seed=2**32 - 1)
    )
    model.compile(optimizer=None, loss="mse")
    with pytest.raises(ValueError, match=r"^model must be compiled with an optimizer"):
        training.fit(model, InMemory(X, ONE_HOT, 21), 1, step=training.weight_noise(0.1))


@pytest.mark.parametrize(
    ("targets", "weights", "message"),
    [
        (LABELS, None, r"mix_up must have one-hot targets \(rows, classes\) of float, got int64"),
        (ONE_HOT, np.ones(21), r"mix_up must have batches \(x, y\), got sample weights or class"),
    ],
)
def test_what_cannot_be_mixed_is_refused(targets, weights, message):
    loss = "sparse_categorical_crossentropy" if targets is LABELS else "mse"
    data = InMemory(X, targets, 8, sample_weight=weights)
    with pytest.raises(ValueError, match=message):
        training.fit(linear(6, 3, 0.1, loss), data, 1, step=training.mix_up())
