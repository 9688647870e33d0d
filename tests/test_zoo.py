"""One contract for every builder; a new architecture is one more row of ZOO."""

import ast
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfcourse
from tfcourse.data.features import Category, Cross, History, Number
from tfcourse.recommendation import (
    build_deepfm,
    build_dien,
    build_din,
    build_embedding_mlp,
    build_factorization_machine,
    build_matrix_factorization,
    build_neural_cf,
    build_two_tower,
    build_wide_and_deep,
)
from tfcourse.sequence import (
    build_language_model,
    build_rnn,
    build_seq2seq,
    build_tdnn,
    build_textcnn,
    build_transformer,
)
from tfcourse.vision import (
    build_alexnet,
    build_cifar_densenet,
    build_cifar_resnet,
    build_densenet,
    build_efficientnet_lite,
    build_encoder_decoder,
    build_googlenet,
    build_inception_v3,
    build_lenet,
    build_resnet,
    build_vgg,
)


class Row(NamedTuple):
    builder: Callable[..., keras.Model]
    arguments: dict
    batch: object
    output_shape: tuple[int, ...]


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")


USER, ITEM = Category("user", 9), Category("item", 10)
COLUMNS = (USER, History("seen", ITEM, 3), Number("hour"), ITEM, Number("age"))
PAIRS = (("item", "user"), ("seen", "item"))
EVENTS = {
    "user": np.array([1, 8, 0, 3, 5, 1]),
    "seen": np.array([[4, 2, 0], [5, 0, 0], [0, 0, 0], [9, 5, 4], [1, 0, 0], [3, 3, 7]]),
    "hour": np.array([5, -9, 0, 8, -1, -20], "float32"),
    "item": np.array([3, 0, 4, 9, 8, 2]),
    "age": np.array([-7, 9, 1, 3, 20, -5], "float32"),
}
EVENT_IDS = {name: EVENTS[name] for name in ("user", "item")}
TOKENS = np.array([[3, 8, 1, 4, 0], [5, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 2, 3, 7, 6]])

ZOO = [
    Row(
        build_alexnet,
        {"variant": "2012", "input_shape": (67, 67, 3), "num_classes": None},
        images(4, 67, 67, 3),
        (4, 1, 1, 256),
    ),
    Row(
        build_alexnet,
        {"variant": "one-weird-trick", "input_shape": (63, 95, 3), "num_classes": None},
        images(4, 63, 95, 3),
        (4, 1, 2, 256),
    ),
    Row(
        build_vgg,
        {"depth": 11, "input_shape": (32, 32, 3), "num_classes": 10},
        images(4, 32, 32, 3),
        (4, 10),
    ),
    Row(
        build_vgg,
        {"depth": 11, "input_shape": (64, 32, 3), "num_classes": None, "batch_norm": True},
        images(4, 64, 32, 3),
        (4, 2, 1, 512),
    ),
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
    Row(build_encoder_decoder, {}, images(4, 28, 28, 1), (4, 28, 28, 1)),
    Row(
        build_encoder_decoder,
        {"variant": "denoising", "input_shape": (30, 17, 3)},
        images(4, 30, 17, 3),
        (4, 30, 17, 3),
    ),
    Row(
        build_googlenet,
        {"variant": "2014", "input_shape": (28, 28, 1), "num_classes": 10},
        images(4, 28, 28, 1),
        (4, 10),
    ),
    Row(
        build_googlenet,
        {"variant": "torchvision", "input_shape": (33, 47, 3), "num_classes": None},
        images(4, 33, 47, 3),
        (4, 1, 2, 1024),
    ),
    Row(
        build_inception_v3,
        {"input_shape": (75, 75, 3), "num_classes": 10},
        images(4, 75, 75, 3),
        (4, 10),
    ),
    Row(build_lenet, {}, images(4, 28, 28, 1), (4, 10)),
    Row(build_lenet, {"num_classes": None}, images(4, 28, 28, 1), (4, 5, 5, 16)),
    Row(
        build_resnet,
        {"depth": 18, "input_shape": (28, 28, 1), "num_classes": 10},
        images(4, 28, 28, 1),
        (4, 10),
    ),
    Row(
        build_resnet,
        {"depth": 50, "input_shape": (64, 33, 3), "num_classes": None, "variant": "v1.5"},
        images(4, 64, 33, 3),
        (4, 2, 2, 2048),
    ),
    Row(build_cifar_resnet, {"depth": 8}, images(4, 32, 32, 3), (4, 10)),
    Row(
        build_densenet,
        {"depth": 121, "input_shape": (32, 32, 1), "num_classes": 10},
        images(4, 32, 32, 1),
        (4, 10),
    ),
    Row(
        build_cifar_densenet,
        {"variant": "40-12", "input_shape": (16, 13, 3), "num_classes": None, "dropout": 0.2},
        images(4, 16, 13, 3),
        (4, 4, 3, 448),
    ),
    Row(
        build_embedding_mlp,
        {"features": COLUMNS, "hidden_units": (32,), "dropout": 0.2},
        EVENTS,
        (6, 1),
    ),
    Row(
        build_wide_and_deep,
        {"features": (*COLUMNS, Cross("pair", (USER, ITEM), 20)), "variant": "paper"},
        EVENTS,
        (6, 1),
    ),
    Row(build_factorization_machine, {"features": COLUMNS}, EVENTS, (6, 1)),
    Row(build_deepfm, {"features": COLUMNS}, EVENTS, (6, 1)),
    Row(
        build_deepfm,
        {"features": COLUMNS, "variant": "course", "pairs": PAIRS},
        EVENTS,
        (6, 1),
    ),
    Row(build_din, {"features": COLUMNS, "variant": "paper", "dropout": 0.2}, EVENTS, (6, 1)),
    Row(
        build_din,
        {"features": COLUMNS, "variant": "course", "hidden_units": (32,)},
        EVENTS,
        (6, 1),
    ),
    Row(build_dien, {"features": COLUMNS}, EVENTS, (6, 1)),
    Row(build_matrix_factorization, {"user": USER, "item": ITEM}, EVENT_IDS, (6, 1)),
    Row(build_neural_cf, {"kind": "neumf", "user": USER, "item": ITEM}, EVENT_IDS, (6, 1)),
    Row(
        build_two_tower,
        {
            "user_features": (USER, History("seen", ITEM, 3), Number("hour")),
            "item_features": (ITEM, Category("genre", 5)),
            "forgetting": {"user": 0.2},
        },
        {
            "user": np.array([1, 8, 0, 3]),
            "seen": np.array([[4, 2, 0], [5, 0, 0], [0, 0, 0], [9, 5, 4]]),
            "hour": np.array([0.5, -1.0, 0.0, 2.0], "float32"),
            "item": np.array([3, 0, 4, 9]),
            "genre": np.array([1, 2, 2, 4]),
        },
        (4, 2, 32),
    ),
    Row(
        build_rnn,
        {"cell": "lstm", "vocabulary_size": 9, "num_classes": 3, "units": 8, "dropout": 0.2},
        TOKENS,
        (4, 3),
    ),
    Row(
        build_rnn,
        {
            "cell": "gru",
            "vocabulary_size": 9,
            "num_classes": None,
            "units": 8,
            "num_layers": 2,
            "bidirectional": True,
        },
        TOKENS,
        (4, 5, 16),
    ),
    Row(build_language_model, {"cell": "rnn", "vocabulary_size": 9, "units": 8}, TOKENS, (4, 5, 9)),
    Row(
        build_textcnn,
        {"variant": "rand", "vocabulary_size": 9, "num_classes": 3, "embedding_dim": 8},
        TOKENS,
        (4, 3),
    ),
    Row(
        build_textcnn,
        {
            "variant": "multichannel",
            "vocabulary_size": 9,
            "num_classes": None,
            "embedding_dim": 4,
            "kernel_sizes": (2, 7),
            "vectors": images(9, 4),
        },
        TOKENS,
        (4, 200),
    ),
    Row(build_tdnn, {"num_classes": 9}, images(4, 15, 16), (4, 9)),
    Row(
        build_tdnn,
        {"input_shape": (5, 8), "num_classes": 9, "vocabulary_size": 9, "evidence": "squares"},
        TOKENS,
        (4, 9),
    ),
    Row(
        build_tdnn,
        {"input_shape": (None, 5), "num_classes": None},
        images(4, 9, 5),
        (4, 7, 8),
    ),
    *(
        Row(
            build_seq2seq,
            {
                "attention": attention,
                "source_vocabulary_size": 9,
                "target_vocabulary_size": 7,
                "embedding_dim": 4,
                "units": 5,
            },
            {"source": TOKENS, "target": np.array([[2, 4, 1, 6], [2, 5, 0, 0]] * 2)},
            (4, 4, 7),
        )
        for attention in ("none", "bahdanau", "luong")
    ),
    Row(
        build_transformer,
        {
            "source_vocabulary_size": 9,
            "model_dim": 8,
            "num_heads": 2,
            "hidden_units": 16,
            "num_layers": 2,
        },
        {"source": TOKENS, "target": TOKENS[:, :4]},
        (4, 4, 9),
    ),
]

# Builders that start from a file or a handle, as "module.name"; their contract is tested elsewhere.
BUILT_FROM_A_FILE = {"hub_models.image.build_image_classifier"}


def name_of(row: Row) -> str:
    plain = str | int | float | None
    words = [str(value) for value in row.arguments.values() if isinstance(value, plain)]
    return "-".join([row.builder.__name__.removeprefix("build_"), *words])


# Their families have smaller networks in the table; a densenet takes 20 s of every run.
LARGE = (build_densenet, build_inception_v3)


def parameter_of(row: Row):
    marks = [pytest.mark.slow] if row.builder in LARGE else []
    return pytest.param(row, id=name_of(row), marks=marks)


every_row = pytest.mark.parametrize("row", [parameter_of(row) for row in ZOO])


def build(row: Row) -> keras.Model:
    keras.utils.set_random_seed(0)
    return row.builder(**row.arguments)


def gradients(model: keras.Model, batch: object) -> list:
    with tf.GradientTape() as tape:
        output = tf.cast(model(batch, training=True), "float32")
        # Each output counts differently: normalized outputs have a mean that no weight moves.
        signs = np.sin(np.arange(1.0, 1.0 + np.prod(output.shape))).reshape(output.shape)
        loss = tf.reduce_sum(output * signs.astype("float32"))
    # Dense, because the gradient of a look-up is that of its rows alone.
    return [
        gradient if gradient is None else tf.convert_to_tensor(gradient)
        for gradient in tape.gradient(loss, model.trainable_variables)
    ]


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
    "row", [parameter_of(r) for r in ZOO if r.arguments.get("num_classes", 0) is not None]
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


def test_efficientnet_lite_takes_any_size():
    model = build_efficientnet_lite(0, (None, None, 3), 7)
    assert np.isfinite(model(images(2, 1, 1, 3))).all()
    assert model(images(2, 32, 32, 3)).shape == (2, 7)
    assert model(images(1, 45, 77, 3)).shape == (1, 7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: build_efficientnet_lite(5),
            r"variant must be one of \[0, 1, 2, 3, 4\], got 5",
        ),
        (lambda: build_efficientnet_lite(-1), "variant must be one of .*, got -1"),
        (
            lambda: build_efficientnet_lite(0, (0, 224, 3)),
            r"input_shape must be \(height, width, channels\) from 1 px, got \(0, 224, 3\)",
        ),
        (
            lambda: build_lenet((28, 11, 1)),
            r"input_shape must be \(height, width, channels\) from 12 px, got \(28, 11, 1\)",
        ),
        (
            lambda: build_alexnet("2014"),
            r"variant must be one of \['2012', 'one-weird-trick'\], got '2014'",
        ),
        (
            lambda: build_alexnet("2012", (66, 227, 3)),
            r"input_shape must be \(height, width, channels\) from 67 px, got \(66, 227, 3\)",
        ),
        (
            lambda: build_alexnet("one-weird-trick", (224, 62, 3)),
            r"input_shape must be \(height, width, channels\) from 63 px, got \(224, 62, 3\)",
        ),
        (lambda: build_vgg(12), r"depth must be one of \[11, 13, 16, 19\], got 12"),
        (lambda: build_resnet(20), r"depth must be one of \[18, 34, 50, 101, 152\], got 20"),
        (
            lambda: build_resnet(50, variant="v2"),
            r"variant must be one of \['2015', 'v1.5'\], got 'v2'",
        ),
        (
            lambda: build_resnet(18, (96, 96, None), None),
            r"input_shape must end in a number of channels, got \(96, 96, None\)",
        ),
        (
            lambda: build_cifar_resnet(18),
            r"depth must be 6 n \+ 2, as the paper's 20, 32, 44, 56, 110, 1202, got 18",
        ),
        (lambda: build_cifar_resnet(2), r"depth must be 6 n \+ 2, as .* got 2"),
        (lambda: build_densenet(40), r"depth must be one of \[121, 161, 169, 201\], got 40"),
        (
            lambda: build_densenet(121, (28, 28, 1)),
            r"input_shape must be \(height, width, channels\) from 29 px, got \(28, 28, 1\)",
        ),
        (
            lambda: build_cifar_densenet("BC-40-12"),
            r"variant must be one of \['40-12', '100-12', .*'BC-190-40'\], got 'BC-40-12'",
        ),
        (
            lambda: build_cifar_densenet("40-12", (3, 32, 3)),
            r"input_shape must be \(height, width, channels\) from 4 px, got \(3, 32, 3\)",
        ),
        (
            lambda: build_vgg(11, (28, 28, 1)),
            r"input_shape must be \(height, width, channels\) from 32 px, got \(28, 28, 1\)",
        ),
        (
            lambda: build_vgg(11, (None, None, 3)),
            r"input_shape must be all numbers unless num_classes is None, got \(None, None, 3\)",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


ONE_ROW_EACH = {row.builder: row for row in ZOO}.values()
BUILDERS_OF = {
    word: [
        row
        for row in ONE_ROW_EACH
        # Frames are no images: test_sequence has the shapes that a TDNN refuses.
        if word in inspect.signature(row.builder).parameters and row.builder is not build_tdnn
    ]
    for word in ("input_shape", "features")
}
BAD_SHAPES = [
    *(None, 96, "96", (), (96, 96), (1, 96, 96, 3)),
    *(("96", 96, 3), (96, 96.0, 3), (0, 96, 3), (96, -96, 3)),
    *((96, 96, None), (96, 96, 0), (96, 96, -1), (96, 96, 3.0), (96, 96, "3")),
]


@pytest.mark.parametrize("num_classes", [10, None])
@pytest.mark.parametrize("input_shape", BAD_SHAPES, ids=repr)
@pytest.mark.parametrize("row", BUILDERS_OF["input_shape"], ids=name_of)
def test_every_builder_refuses_what_is_no_shape_of_an_image(row, input_shape, num_classes):
    arguments = row.arguments | {"input_shape": input_shape, "num_classes": num_classes}
    if row.builder is build_encoder_decoder:
        del arguments["num_classes"]
    with pytest.raises(ValueError, match=r"^input_shape must .*, got ") as refusal:
        row.builder(**arguments)
    assert str(refusal.value).endswith(f", got {input_shape!r}")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "build",
    [
        build_lenet,
        build_alexnet,
        lambda **arguments: build_vgg(11, **arguments),
        lambda **arguments: build_googlenet(auxiliary=True, **arguments),
        build_encoder_decoder,
    ],
)
def test_sizes_that_a_dense_layer_counts_must_be_known(build):
    for input_shape in ((None, None, 3), (96, None, 3)):
        with pytest.raises(ValueError, match=r"^input_shape must be all numbers .*,") as refusal:
            build(input_shape=input_shape)
        assert str(refusal.value).endswith(f", got {input_shape}")


@pytest.mark.parametrize(
    ("row", "word"),
    [
        (row, word)
        for row in ONE_ROW_EACH
        for word in ("depth", "variant", "kind")
        if word in row.arguments
    ],
    ids=lambda x: name_of(x) if isinstance(x, Row) else x,
)
def test_every_builder_refuses_what_is_no_depth_or_variant(row, word):
    right = row.arguments[word]
    others = [] if isinstance(right, str) else [str(right), float(right)]
    for wrong in (*others, None, [right], "nothing", 1000, -1):
        with pytest.raises(ValueError, match=rf"^{word} must be .*, got {re.escape(repr(wrong))}$"):
            row.builder(**row.arguments | {word: wrong})


@pytest.mark.parametrize("row", BUILDERS_OF["features"], ids=name_of)
def test_every_recommender_refuses_columns_that_cannot_be(row):
    for features, message in (
        ([], "features must have at least one column, got none"),
        ([*COLUMNS, Number("seen")], "features must have each name once, got seen twice"),
        ([*COLUMNS, Category("hour of day", 1)], "hour of day: size must be at least 2, got 1"),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            row.builder(**row.arguments | {"features": features})


def test_smallest_lenet():
    assert build_lenet((None, None, 1), None)(images(1, 12, 14, 1)).shape == (1, 1, 1, 16)
    assert build_lenet((12, 12, 3), 2)(images(1, 12, 12, 3)).shape == (1, 2)


@pytest.mark.parametrize(("variant", "rate"), [(0, 0.2), (4, 0.3)])
def test_efficientnet_lite_dropout(variant, rate):
    assert build_efficientnet_lite(variant).get_layer("dropout").rate == rate
    assert build_efficientnet_lite(variant, dropout=0.0).get_layer("dropout").rate == 0.0
