"""`tfcourse summary`: multiply-adds and receptive fields, held against others' figures."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfcourse import summary
from tfcourse.receptive_field import receptive_field, trace
from tfcourse.summary import multiply_adds, summarize
from tfcourse.vision import (
    build_alexnet,
    build_densenet,
    build_efficientnet_lite,
    build_encoder_decoder,
    build_googlenet,
    build_inception_v3,
    build_lenet,
    build_resnet,
    build_vgg,
)

V1_5 = functools.partial(build_resnet, variant="v1.5")
large = pytest.mark.slow  # half a gigabyte of weights, or a graph of 500 layers


@pytest.mark.parametrize(
    ("build", "variant", "published"),
    [
        # `meta["_ops"]` of torchvision 0.28's weights: billions of multiply-adds at 224 pixels.
        (build_alexnet, "one-weird-trick", 0.714),
        (build_resnet, 18, 1.814),
        (V1_5, 50, 4.089),
        (build_densenet, 121, 2.834),
        (build_googlenet, "torchvision", 1.498),
        pytest.param(build_vgg, 16, 15.47, marks=large),
        pytest.param(build_densenet, 161, 7.728, marks=large),
    ],
)
def test_multiply_adds_are_the_published_ones(build, variant, published):
    count = multiply_adds(build(variant, (224, 224, 3)))
    assert count / 1e9 == pytest.approx(published, abs=0.0005)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        # Positions of the output, times the weights of a kernel.
        (layers.Conv2D(6, (3, 5), padding="same"), 8 * 8 * 3 * 5 * 4 * 6),
        (layers.Conv2D(6, 3, 2), 3 * 3 * 3 * 3 * 4 * 6),
        (layers.Conv2D(6, 3, groups=2), 6 * 6 * 3 * 3 * 2 * 6),
        (layers.Conv2D(6, 3, dilation_rate=2), 4 * 4 * 3 * 3 * 4 * 6),
        (layers.DepthwiseConv2D(3, depth_multiplier=2), 6 * 6 * 3 * 3 * 4 * 2),
        (layers.SeparableConv2D(6, 3), 6 * 6 * (3 * 3 * 4 + 4 * 6)),
        # Each value of the input is spread over a kernel.
        (layers.Conv2DTranspose(6, 4, 2, padding="same"), 8 * 8 * 4 * 4 * 4 * 6),
        (layers.Dense(7), 8 * 8 * 4 * 7),
        (layers.BatchNormalization(), 0),
        (layers.MaxPooling2D(), 0),
    ],
)
def test_multiply_adds_of_one_layer(layer, expected):
    inputs = keras.Input((8, 8, 4))
    assert multiply_adds(keras.Model(inputs, layer(inputs))) == expected


@pytest.mark.parametrize(
    ("build", "layer", "size", "stride"),
    [
        # https://distill.pub/2019/computing-receptive-fields: the table of popular networks.
        (functools.partial(build_alexnet, "one-weird-trick", (224, 224, 3)), "stage3", 195, 32),
        (functools.partial(build_vgg, 16), "stage5", 212, 32),
        (functools.partial(build_resnet, 50), "stage5", 483, 32),
        (build_inception_v3, "stage5", 1311, 32),
        # 7, 11, then 8 for each 3x3 convolution at stride 4, 16 at 8, 32 at 16, 64 at 32; a 3x3
        # that halves the image still counts at the stride before: 35, 91, 267, 427.
        (functools.partial(V1_5, 50), "stage5", 427, 32),
    ],
)
def test_receptive_fields_are_the_known_ones(build, layer, size, stride):
    assert receptive_field(build(num_classes=None), layer) == ((size, stride),) * 2


def ones(kind, *arguments, **more):
    """Make a layer whose gradients can't cancel."""
    kernel = "depthwise_initializer" if kind is layers.DepthwiseConv2D else "kernel_initializer"
    return kind(*arguments, **more, **{kernel: "ones"})


def branches(x):
    wide = ones(layers.Conv2D, 2, (1, 7), 2, padding="same")(x)
    tall = ones(layers.Conv2D, 2, (4, 1), padding="same")(layers.AveragePooling2D(2, 2, "same")(x))
    joined = layers.Concatenate()([wide, tall])
    return layers.Add()([joined, ones(layers.Conv2D, 4, 3, padding="same")(joined)])


def padded(x):
    x = layers.ZeroPadding2D(((2, 1), (0, 3)))(x)
    x = ones(layers.DepthwiseConv2D, 3, 2)(x)
    return layers.Cropping2D(((1, 0), (0, 2)))(x)


def enlarged(x):
    x = ones(layers.Conv2D, 2, 3, 2, padding="same")(x)
    x = ones(layers.Conv2DTranspose, 2, (4, 3), 2, padding="same")(x)
    return ones(layers.Conv2D, 2, 3, padding="same")(x)


def repeated(x):
    x = layers.UpSampling2D((2, 3))(layers.AveragePooling2D(3, 2, padding="same")(x))
    return ones(layers.Conv2D, 1, (4, 3), dilation_rate=(1, 2))(x)


def transposed(x):
    return ones(layers.Conv2DTranspose, 1, 5, 3)(ones(layers.Conv2D, 1, 2, 2)(x))


def towers(x):
    first, second = keras.ops.split(x, 2, axis=-1)
    second = ones(layers.Conv2D, 1, (5, 2), padding="same")(second)
    return layers.Concatenate()([ones(layers.Conv2D, 1, 3, padding="same")(first), second])


@pytest.mark.parametrize("size", [32, 33])
@pytest.mark.parametrize("build", [branches, padded, enlarged, repeated, transposed, towers])
def test_gradients_reach_what_a_layer_sees_and_nothing_else(build, size):
    inputs = keras.Input((size, size, 2))
    model = keras.Model(inputs, build(inputs))
    image = tf.ones((1, size, size, 2))
    middle = model.output.shape[1] // 2
    for position in range(middle - 3, middle + 4):
        with tf.GradientTape() as tape:
            tape.watch(image)
            value = tf.reduce_sum(model(image)[:, position, position])
        reached = np.abs(tape.gradient(value, image)[0]).sum(-1) > 0
        for axis in (0, 1):
            (low,), (high,) = trace(model, model.output, axis, [position])
            seen = np.flatnonzero(reached.any(1 - axis))
            assert 0 < seen[0] == low, (axis, position)
            assert size - 1 > seen[-1] == high, (axis, position)


def test_a_field_is_the_largest_over_the_positions():
    """Behind an upsampling by 2 a 3x3 kernel reaches two values before it, or as few as two."""
    inputs = keras.Input((32, 32, 1))
    x = layers.UpSampling2D(2)(inputs)
    model = keras.Model(inputs, layers.Conv2D(1, (3, 4), padding="same", name="last")(x))
    assert receptive_field(model, "last") == ((2, 0.5), (3, 0.5))


@pytest.mark.parametrize(
    ("build", "arguments"),
    [
        (build_lenet, {}),
        (build_alexnet, {"variant": "2012", "num_classes": None}),
        (build_googlenet, {"input_shape": (80, 80, 3), "num_classes": 10, "auxiliary": True}),
        (build_encoder_decoder, {"variant": "denoising"}),
    ],
)
def test_every_layer_is_in_one_stage(build, arguments):
    model = build(**arguments)
    rows = summarize(model)
    assert sum(row.parameters for row in rows) == model.count_params()
    assert sum(row.multiply_adds for row in rows) == multiply_adds(model)
    stages = [layer.name for layer in model.layers if layer.name.startswith("stage")]
    assert [row.name for row in rows if row.name not in {"head", "rest"}] == stages
    for row in rows[: len(stages)]:
        assert row.output_shape == model.get_layer(row.name).output.shape[1:]


def test_what_is_printed(capsys):
    summary.show(build_lenet())
    assert capsys.readouterr().out.splitlines()[:6] == [
        "lenet5, input 28 x 28 x 1",
        "stage   output       layers  parameters  multiply-adds  sees  stride",
        # C1: 156 weights at 28 x 28 places but the biases; C3: 2,400 at 10 x 10.
        "stage1  14 x 14 x 6       1         156        117,600     6       2",
        "stage2  5 x 5 x 16        1       2,416        240,000    16       4",
        "head    10                3      59,134         58,920   all     all",
        "total                     5      61,706        416,520",
    ]


@pytest.mark.parametrize("variant", ["2012", "one-weird-trick"])
def test_towers_are_one_layer(variant):
    """The paper has eight layers, five of them convolutions; three of these are in two towers."""
    rows = summarize(build_alexnet(variant, (67, 67, 3), None))
    assert [row.layers for row in rows] == [1, 1, 3]


def test_statistics_are_told_apart(capsys):
    summary.show(build_resnet(18, (32, 32, 3)))
    # 11,699,112 in all, of which torch counts 11,689,512.
    assert "\n9,600 of the parameters are not trained" in capsys.readouterr().out


def test_what_is_not_known_is_said():
    with pytest.raises(ValueError, match=r"^the size of the input must be known, got \(None, 32,"):
        summarize(build_efficientnet_lite(0, (None, 32, 3)))
    inputs = keras.Input((8, 8, 4))
    attention = keras.Model(inputs, layers.Attention(use_scale=True, name="look")([inputs, inputs]))
    with pytest.raises(ValueError, match=r"^multiply-adds of look \(Attention\) are not known"):
        multiply_adds(attention)
    inputs = keras.Input((8, 6, 4))
    turned = keras.Model(inputs, layers.Permute((2, 1, 3), name="turn")(inputs))
    with pytest.raises(ValueError, match=r"^what turn \(Permute\) sees is not known"):
        receptive_field(turned, "turn")
    inputs = keras.Input((8, 8, 4))
    shared = layers.Conv2D(4, 3, padding="same")
    twice = keras.Model(inputs, layers.Add(name="sum")([inputs, shared(shared(inputs))]), name="z")
    with pytest.raises(ValueError, match=r"^each layer of z must be used once"):
        receptive_field(twice, "sum")
