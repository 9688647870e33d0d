"""One contract for every builder; a new architecture is one more row of ZOO."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfcourse
from tfcourse.vision import build_efficientnet_lite, build_lenet


class Row(NamedTuple):
    builder: Callable[..., keras.Model]
    arguments: dict
    batch: object
    output_shape: tuple[int, ...]


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")


ZOO = [
    Row(
        build_efficientnet_lite,
        {"variant": 0, "input_shape": (64, 64, 3)},
        images(4, 64, 64, 3),
        (4, 1000),
    ),
    Row(
        build_efficientnet_lite,
        {"variant": 0, "input_shape": (64, 32, 3), "num_classes": None},
        images(4, 64, 32, 3),
        (4, 2, 1, 1280),
    ),
    Row(build_lenet, {}, images(4, 28, 28, 1), (4, 10)),
    Row(build_lenet, {"num_classes": None}, images(4, 28, 28, 1), (4, 5, 5, 16)),
]

# Builders that start from a file or a handle, as "module.name"; their contract is tested elsewhere.
BUILT_FROM_A_FILE = {"hub_models.image.build_image_classifier"}


def name_of(row: Row) -> str:
    words = [str(value) for value in row.arguments.values() if not isinstance(value, tuple)]
    return "-".join([row.builder.__name__.removeprefix("build_"), *words])


every_row = pytest.mark.parametrize("row", ZOO, ids=name_of)


def build(row: Row) -> keras.Model:
    keras.utils.set_random_seed(0)
    return row.builder(**row.arguments)


def gradients(model: keras.Model, batch: object) -> list:
    with tf.GradientTape() as tape:
        output = tf.cast(model(batch, training=True), "float32")
        # Each output counts differently: normalized outputs have a mean that no weight moves.
        signs = np.sin(np.arange(1.0, 1.0 + np.prod(output.shape))).reshape(output.shape)
        loss = tf.reduce_sum(output * signs.astype("float32"))
    return tape.gradient(loss, model.trainable_variables)


@every_row
def test_output_shape(row):
    assert build(row)(row.batch).shape == row.output_shape


# Keras 3 hands its variables to `np.array`, which NumPy 2 warns about.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
@every_row
def test_saving_keeps_every_bit(row, tmp_path):
    model = build(row)
    rng = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(
            weight.numpy() * rng.uniform(0.5, 1.5, weight.shape) + rng.uniform(0, 0.1, weight.shape)
        )
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.name == model.name
    for weight, restored in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), restored.numpy(), err_msg=weight.path)
    np.testing.assert_array_equal(model(row.batch), again(row.batch))


@every_row
def test_a_gradient_reaches_every_trainable_weight(row):
    model = build(row)
    for weight, gradient in zip(
        model.trainable_variables, gradients(model, row.batch), strict=True
    ):
        assert gradient is not None, weight.path
        assert np.isfinite(gradient).all(), weight.path
        assert np.any(gradient), weight.path


@every_row
def test_runs_in_bfloat16(row):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build(row)
    finally:
        keras.config.set_dtype_policy(before)
    assert {weight.dtype for weight in model.trainable_weights} == {"float32"}
    output = model(row.batch)
    assert output.dtype == "bfloat16"
    assert output.shape == row.output_shape
    assert np.isfinite(tf.cast(output, "float32")).all()


@every_row
def test_training_step_lowers_to_xla_with_static_shapes(row):
    model = build(row)
    step = tf.function(lambda batch: gradients(model, batch), jit_compile=True)
    batch = keras.tree.map_structure(tf.convert_to_tensor, row.batch)
    hlo = step.experimental_get_compiler_ir(batch)(stage="hlo", platform_name="CPU")
    assert "ENTRY" in hlo
    assert "<=" not in hlo  # that is how a dynamic dimension is printed


@pytest.mark.parametrize(
    "row", [row for row in ZOO if row.arguments.get("num_classes", 0) is not None], ids=name_of
)
def test_ends_in_logits(row):
    output = np.asarray(build(row)(row.batch))
    assert output.min() < 0 < output.max()


@every_row
def test_cites_its_paper(row):
    module = Path(row.builder.__code__.co_filename).read_text(encoding="utf-8")
    assert "https://" in ast.get_docstring(ast.parse(module))
    assert "Returns:" in row.builder.__doc__


def builders() -> set[str]:
    """Find every public `build_*` in the source, whether or not its module can be imported."""
    top = Path(tfcourse.__file__).parent
    found = set()
    for package in (top, top.parent / "hub_models"):
        for file in package.rglob("*.py"):
            module = ".".join(file.relative_to(top.parent).with_suffix("").parts)
            for node in ast.parse(file.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.FunctionDef) and node.name.startswith("build_"):
                    found.add(f"{module}.{node.name}")
    return found


def test_nothing_escapes():
    in_zoo = {f"{row.builder.__module__}.{row.builder.__name__}" for row in ZOO}
    assert builders() == in_zoo | BUILT_FROM_A_FILE
    assert not in_zoo & BUILT_FROM_A_FILE


@pytest.mark.parametrize("variant", range(5))
def test_efficientnet_lite_stages_halve_the_image(variant):
    model = build_efficientnet_lite(variant, (None, None, 3), None)
    taps = keras.Model(model.input, [model.get_layer(f"stage{n}").output for n in range(1, 6)])
    shapes = [output.shape[1:3] for output in taps(images(1, 64, 96, 3))]
    assert shapes == [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
    assert model.output is model.get_layer("stage5").output


def test_efficientnet_lite_takes_any_size_from_32_pixels():
    model = build_efficientnet_lite(0, (None, None, 3), 7)
    assert model(images(2, 32, 32, 3)).shape == (2, 7)
    assert model(images(1, 45, 77, 3)).shape == (1, 7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build_efficientnet_lite(5), "variant must be from 0 to 4, got 5"),
        (lambda: build_efficientnet_lite(-1), "variant must be from 0 to 4, got -1"),
        (
            lambda: build_efficientnet_lite(0, (31, 224, 3)),
            r"input_shape must be \(height, width, channels\) from 32 px, got \(31, 224, 3\)",
        ),
        (lambda: build_efficientnet_lite(0, (224, 224)), "input_shape must be"),
        (
            lambda: build_lenet((28, 11, 1)),
            r"input_shape must be \(height, width, channels\) from 12 px, got \(28, 11, 1\)",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_smallest_lenet():
    assert build_lenet((12, 12, 3), 2)(images(1, 12, 12, 3)).shape == (1, 2)


@pytest.mark.parametrize(("variant", "rate"), [(0, 0.2), (4, 0.3)])
def test_efficientnet_lite_dropout(variant, rate):
    assert build_efficientnet_lite(variant).get_layer("dropout").rate == rate
    assert build_efficientnet_lite(variant, dropout=0.0).get_layer("dropout").rate == 0.0
