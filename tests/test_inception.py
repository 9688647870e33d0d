"""GoogLeNet against torchvision's, Inception v3 against Keras', with the same random weights."""

import contextlib
import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from twins import import_torchvision, policy

from tfcourse import training
from tfcourse.vision import build_googlenet, build_inception_v3
from tfcourse.vision.googlenet import LOSS_WEIGHTS, VARIANTS, auxiliary_head, halve
from tfcourse.vision.weight_names import torch_googlenet

TORCH = {"kernel": "weight", "gamma": "weight", "bias": "bias", "beta": "bias"}
TORCH |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
CLASSES = 10


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="the twin is torchvision's; torch is missing")


@pytest.fixture(scope="module")
def models():
    return import_torchvision().models


def images(*shape):
    return np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")


def randomized(model):
    """Give every weight a value of its own; activations keep their size from layer to layer."""
    rng = np.random.default_rng(1)
    for weight in model.weights:
        scale = np.sqrt(2 / np.prod(weight.shape[:-1])) if weight.name == "kernel" else 0.1
        positive = weight.name in {"gamma", "moving_variance"}
        value = rng.uniform(0.5, 1.5, weight.shape) if positive else rng.normal(size=weight.shape)
        weight.assign(value if positive else value * scale)
    return model


def without_dropout(model):
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    return model


def to_torch(name, value):
    """Turn an array of ours into torch's order; after a Flatten of 4x4 maps too."""
    if name == "kernel" and value.ndim == 4:
        return value.transpose(3, 2, 0, 1)
    if name == "kernel" and value.shape == (2048, 1024):
        return value.reshape(4, 4, 128, -1).transpose(3, 2, 0, 1).reshape(-1, 2048)
    return value.T if name == "kernel" else value


def named(model, variables, values):
    """Key values that belong to variables by the names of torch's parameters."""
    owner = {id(weight): layer.name for layer in model.layers for weight in layer.weights}
    return {
        f"{torch_googlenet(owner[id(v)])}.{TORCH[v.name]}": to_torch(v.name, np.asarray(value))
        for v, value in zip(variables, values, strict=True)
    }


def twin_of(torch, model, twin):
    """Load our weights; `strict` refuses a name too many or too few."""
    state = named(model, model.weights, [weight.numpy() for weight in model.weights])
    state = {name: torch.tensor(np.ascontiguousarray(value)) for name, value in state.items()}
    state |= {name: x for name, x in twin.state_dict().items() if "num_batches" in name}
    twin.to(state["fc.weight"].dtype).load_state_dict(state, strict=True)
    return twin.eval()


def torch_logits(torch, twin, batch):
    outputs = twin(torch.tensor(batch.transpose(0, 3, 1, 2)))
    if isinstance(outputs, torch.Tensor):
        return {"logits": outputs}
    names = {"logits": "logits", "auxiliary1": "aux_logits1", "auxiliary2": "aux_logits2"}
    return {ours: getattr(outputs, theirs) for ours, theirs in names.items()}


def assert_close(ours, theirs, tolerance):
    """Compare with the largest value as the measure."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


def googlenets(torch, models, size, auxiliary):
    shape = (size, size, 3)
    model = build_googlenet("torchvision", shape, CLASSES, auxiliary=auxiliary, dropout=0.0)
    randomized(without_dropout(model))
    settings = {"num_classes": CLASSES, "aux_logits": auxiliary, "init_weights": False}
    twin = models.GoogLeNet(**settings, dropout=0.0, dropout_aux=0.0)
    return model, twin_of(torch, model, twin)


def assert_same_logits(torch, model, twin, batch):
    with torch.no_grad():
        theirs = torch_logits(torch, twin, batch)
    ours = model(batch)
    ours = ours if isinstance(ours, dict) else {"logits": ours}
    assert set(ours) == set(theirs)
    for name, logits in ours.items():
        assert_close(logits, theirs[name].numpy(), 1e-4)


def test_googlenet_equals_torchvision_at_any_size(torch, models):
    model, twin = googlenets(torch, models, None, auxiliary=False)
    for height, width in [(15, 15), (33, 64), (97, 50)]:
        assert_same_logits(torch, model, twin, images(2, height, width, 3))


@pytest.mark.slow
def test_googlenet_equals_torchvision_at_its_own_size(torch, models):
    model, twin = googlenets(torch, models, 224, auxiliary=True)
    twin.training = True
    assert_same_logits(torch, model, twin, images(2, 224, 224, 3))


def test_heads_and_gradients_of_googlenet_equal_torchvisions(torch, models):
    # In float32 a ReLU may flip by rounding, and its gradient with it.
    with policy("float64"):
        model, twin = googlenets(torch, models, 64, auxiliary=True)
    batch, signs = (images(*shape).astype("float64") for shape in [(4, 64, 64, 3), (4, CLASSES)])
    # Only the outermost module looks at this flag for the heads; its layers still infer.
    twin.training = True
    assert_same_logits(torch, model, twin, batch)
    with tf.GradientTape() as tape:
        outputs = model(batch, training=True)
        loss = sum(w * tf.reduce_sum(outputs[name] * signs) for name, w in LOSS_WEIGHTS.items())
    gradients = tape.gradient(loss, model.trainable_variables)
    theirs = torch_logits(torch, twin.train(), batch)
    loss = sum(w * theirs[name] * torch.tensor(signs) for name, w in LOSS_WEIGHTS.items()).sum()
    loss.backward()
    expected = {name: weight.grad.numpy() for name, weight in twin.named_parameters()}
    found = named(model, model.trainable_variables, gradients)
    assert set(found) == set(expected)
    for name, gradient in found.items():
        assert_close(gradient, expected[name], 1e-6)


def table_1(torch, batch_norm):
    """Turn torchvision's network into the paper's: 5x5 kernels, 3x3 pooling, biases and LRN."""
    nn, port = torch.nn, importlib.import_module("torchvision.models.googlenet")

    class Biased(nn.Module):
        def __init__(self, *channels, **settings):
            super().__init__()
            self.conv = nn.Conv2d(*channels, **settings)

        def forward(self, x):
            return self.conv(x).relu()

    block = port.BasicConv2d if batch_norm else Biased

    def inception(channels, *filters):
        module = port.Inception(channels, *filters, conv_block=block)
        module.branch3[1] = block(filters[3], filters[4], kernel_size=5, padding=2)
        return module

    twin = port.GoogLeNet(CLASSES, False, init_weights=False, blocks=[block, inception, None])
    twin.maxpool4 = nn.MaxPool2d(3, 2, ceil_mode=True)
    if not batch_norm:
        # Torch divides alpha by the number of maps.
        normalize = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
        twin.maxpool1 = nn.Sequential(twin.maxpool1, normalize)
        twin.maxpool2 = nn.Sequential(normalize, twin.maxpool2)
    return twin


@pytest.mark.parametrize("variant", ["2014", pytest.param("batch-norm", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("models")
def test_googlenet_of_the_paper_equals_an_altered_twin(torch, variant):
    model = randomized(build_googlenet(variant, (64, 96, 3), CLASSES))
    twin = twin_of(torch, model, table_1(torch, variant == "batch-norm"))
    # Large pixels: else dividing by the neighbours would hardly show.
    batch = 100 * images(2, 64, 96, 3)
    with torch.no_grad():
        theirs = torch_logits(torch, twin, batch)["logits"].numpy()
    assert_close(model(batch), theirs, 1e-4)


@pytest.mark.parametrize("pool_size", [2, 3])
def test_pooling_rounds_up_as_torch_does(torch, pool_size):
    inputs = keras.Input((None, None, 3))
    pool = keras.Model(inputs, halve(inputs, pool_size, VARIANTS["torchvision"], "pool"))
    for height, width in [(2, 2), (2, 7), (4, 5), (5, 4), (7, 7), (14, 13), (112, 49)]:
        batch = np.abs(images(2, height, width, 3))
        theirs = torch.nn.functional.max_pool2d(
            torch.tensor(batch.transpose(0, 3, 1, 2)), pool_size, 2, ceil_mode=True
        )
        np.testing.assert_array_equal(pool(batch), theirs.numpy().transpose(0, 2, 3, 1))


@pytest.mark.parametrize(("variant", "size"), [("2014", 1), ("batch-norm", 1), ("torchvision", 15)])
def test_smallest_googlenet(models, variant, size):
    assert models.GoogLeNet_Weights.IMAGENET1K_V1.meta["min_size"] == (15, 15)
    features = build_googlenet(variant, (size, size, 1), None)(images(2, size, size, 1))
    assert features.shape == (2, 1, 1, 1024)
    assert np.isfinite(features).all()
    with pytest.raises(ValueError, match=rf"from {size} px, got \({size - 1}, 15, 3\)$"):
        build_googlenet(variant, (size - 1, 15, 3))


def test_loss_weights_are_where_the_docstring_says():
    line = next(x for x in build_googlenet.__doc__.splitlines() if "import" in x)
    found = {}
    exec(line.strip(), found)
    assert found["LOSS_WEIGHTS"] is LOSS_WEIGHTS


def test_stages_of_googlenet_are_those_of_table_1():
    model = build_googlenet("2014", num_classes=None)
    shapes = [model.get_layer(f"stage{n}").output.shape[1:] for n in range(1, 6)]
    assert shapes == [
        (112, 112, 64),
        (56, 56, 192),
        (28, 28, 480),
        (14, 14, 832),
        (7, 7, 1024),
    ]
    assert model.output is model.get_layer("stage5").output


def with_heads(strategy=None, **settings):
    """Build the paper's network with its heads, at its smallest."""
    with strategy.scope() if strategy else contextlib.nullcontext():
        keras.utils.set_random_seed(0)
        model = build_googlenet("2014", (65, 65, 1), 3, auxiliary=True, dropout=0.0)
        losses = dict.fromkeys(
            LOSS_WEIGHTS, keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        model.compile("sgd", losses, loss_weights=LOSS_WEIGHTS, **settings)
    return without_dropout(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cpu", "cpu:2"])
def test_heads_train_as_in_model_fit(name):
    labels = dict.fromkeys(LOSS_WEIGHTS, np.array([0, 2, 1, 2]))
    data = tf.data.Dataset.from_tensor_slices((images(4, 65, 65, 1), labels)).batch(4)
    model, reference = with_heads(training.strategy(name)), with_heads(run_eagerly=True)
    start = reference.get_weights()
    outputs = reference(images(4, 65, 65, 1))
    loss = sum(
        weight * reference.loss[output](labels[output], outputs[output]).numpy()
        for output, weight in {"logits": 1, "auxiliary1": 0.3, "auxiliary2": 0.3}.items()
    )
    expected = reference.fit(data, verbose=0, shuffle=False).history
    assert expected["loss"][0] == pytest.approx(loss, rel=1e-5)
    history = training.fit(model, data, 1).history
    assert {name: pytest.approx(values) for name, values in expected.items()} == history
    for ours, theirs, old in zip(model.get_weights(), reference.get_weights(), start, strict=True):
        assert np.abs(ours - theirs).max() <= 1e-3 * np.abs(theirs - old).max() + 1e-8


def test_heads_are_saved_and_left_away_after_training(tmp_path):
    model = randomized(build_googlenet("2014", (65, 81, 3), 4, auxiliary=True))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    batch = images(2, 65, 81, 3)
    outputs = model(batch)
    assert list(outputs) == list(LOSS_WEIGHTS)
    for name, logits in again(batch).items():
        np.testing.assert_array_equal(logits, outputs[name])
    classifier = keras.Model(model.input, model.output["logits"])
    np.testing.assert_array_equal(classifier(batch), outputs["logits"])
    assert not any(layer.name.startswith("auxiliary") for layer in classifier.layers)


def lowered(model, batch):
    @tf.function(jit_compile=True)
    def gradients(batch):
        with tf.GradientTape() as tape:
            outputs = keras.tree.flatten(model(batch, training=True))
            loss = sum(tf.reduce_sum(x) for x in outputs)
        return tape.gradient(loss, model.trainable_variables)

    batch = tf.constant(batch)
    return gradients.experimental_get_compiler_ir(batch)(stage="hlo", platform_name="CPU")


@pytest.mark.parametrize(("variant", "size"), [("torchvision", 2), ("2014", 5)])
def test_a_head_lowers_to_xla(variant, size):
    inputs = keras.Input((size, size, 8))
    model = keras.Model(inputs, auxiliary_head(inputs, 4, VARIANTS[variant], "auxiliary1"))
    hlo = lowered(model, images(2, size, size, 8))
    assert "ENTRY" in hlo
    assert "<=" not in hlo


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "size"), [("torchvision", 31), ("2014", 65)])
def test_smallest_network_with_heads_in_bfloat16(variant, size):
    with policy("mixed_bfloat16"):
        model = build_googlenet(variant, (size, size, 3), 4, auxiliary=True)
    batch = images(2, size, size, 3)
    assert all(np.isfinite(tf.cast(x, "float32")).all() for x in model(batch).values())
    assert "ENTRY" in lowered(model, batch)


def test_smallest_inception_v3_is_that_of_keras():
    assert build_inception_v3((75, 75, 1), None).output_shape == (None, 1, 1, 2048)
    with pytest.raises(ValueError, match=r"from 75 px, got \(74, 75, 3\)$"):
        build_inception_v3((74, 75, 3))
    with pytest.raises(ValueError, match="at least 75x75"):
        keras.applications.InceptionV3(weights=None, include_top=False, input_shape=(74, 75, 3))


def test_stages_of_inception_v3_are_those_of_table_1():
    model = build_inception_v3(num_classes=None)
    shapes = [model.get_layer(f"stage{n}").output.shape[1:] for n in range(1, 6)]
    assert shapes == [
        (147, 147, 64),
        (71, 71, 192),
        (35, 35, 288),
        (17, 17, 768),
        (8, 8, 2048),
    ]
    assert model.output is model.get_layer("stage5").output


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: build_googlenet("2015"),
            r"variant must be one of \['2014', 'batch-norm', 'torchvision'\], got '2015'",
        ),
        (
            lambda: build_googlenet(auxiliary=True, num_classes=None),
            "auxiliary must be False where num_classes is None, got True",
        ),
        (
            lambda: build_googlenet("2014", (65, 64, 3), auxiliary=True),
            r"input_shape must be .* from 65 px with auxiliary heads, got \(65, 64, 3\)",
        ),
        (
            lambda: build_googlenet("torchvision", (30, 31, 3), auxiliary=True),
            r"input_shape must be .* from 31 px with auxiliary heads, got \(30, 31, 3\)",
        ),
        (
            lambda: build_googlenet("2014", (None, 224, 3), auxiliary=True),
            r"input_shape must be .* with auxiliary heads, got \(None, 224, 3\)",
        ),
        (lambda: build_googlenet("2014", (224, 224)), "input_shape must be"),
        (lambda: build_inception_v3((299, 299)), "input_shape must be"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()
