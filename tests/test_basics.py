"""The foundations in NumPy against TensorFlow, Keras and finite differences."""

import ast
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcourse.basics import activations, initializers, losses, optimizers, regularizers
from tfcourse.basics.activations import ACTIVATIONS
from tfcourse.basics.initializers import INITIALIZERS
from tfcourse.basics.losses import LOSSES
from tfcourse.basics.optimizers import OPTIMIZERS, clip, minibatches
from tfcourse.basics.regularizers import REGULARIZERS

BASICS = Path(activations.__file__).parent
X = np.array([[-1000.0, -40.0, -3.0, -0.5, -1e-3], [0.0, 1e-3, 0.7, 5.0, 1000.0]])
SMOOTH = np.random.default_rng(0).normal(0, 2, (4, 3))  # none of these is near a corner
KERAS_ACTIVATIONS = {
    "identity": keras.activations.linear,
    "sigmoid": keras.activations.sigmoid,
    "tanh": keras.activations.tanh,
    "relu": keras.activations.relu,
    "leaky_relu": lambda x: keras.activations.leaky_relu(x, negative_slope=0.01),
    "gelu": lambda x: keras.activations.gelu(x, approximate=False),
}
KERAS_LOSSES = {
    "absolute_error": keras.losses.MeanAbsoluteError(dtype="float64"),
    "squared_error": keras.losses.MeanSquaredError(dtype="float64"),
    "cross_entropy": keras.losses.CategoricalCrossentropy(from_logits=True, dtype="float64"),
    "binary_cross_entropy": keras.losses.BinaryCrossentropy(from_logits=True, dtype="float64"),
}
TARGETS = {
    "absolute_error": SMOOTH[::-1] + 0.3,
    "squared_error": SMOOTH[::-1],
    "cross_entropy": activations.softmax(SMOOTH[::-1]),
    "binary_cross_entropy": activations.sigmoid(SMOOTH[::-1]),
}
KERAS_OPTIMIZERS = [
    ("gradient_descent", {}, keras.optimizers.SGD, {}),
    ("gradient_descent", {"rate": 0.1}, keras.optimizers.SGD, {"learning_rate": 0.1}),
    ("momentum", {}, keras.optimizers.SGD, {"momentum": 0.9}),
    ("nesterov", {}, keras.optimizers.SGD, {"momentum": 0.9, "nesterov": True}),
    ("adagrad", {}, keras.optimizers.Adagrad, {}),
    ("adagrad", {"rate": 0.5}, keras.optimizers.Adagrad, {"learning_rate": 0.5}),
    ("rmsprop", {}, keras.optimizers.RMSprop, {}),
    ("rmsprop", {"rate": 0.1, "decay": 0.7}, keras.optimizers.RMSprop, {"rho": 0.7}),
    ("adam", {}, keras.optimizers.Adam, {}),
    ("adam", {"rate": 0.1, "beta_1": 0.8, "beta_2": 0.9}, keras.optimizers.Adam, {"beta_1": 0.8}),
]


def close(ours, theirs, tolerance=1e-6):
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def gradient_in_tensorflow(function, x):
    x = tf.Variable(x)
    with tf.GradientTape() as tape:
        y = function(x)
    return tape.gradient(y, x).numpy()


def numeric_gradient(function, x, step=1e-5):
    """Central differences of a function from an array to one number."""
    gradient = np.empty_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        gradient[i] = (function(up) - function(down)) / (2 * step)
    return gradient


def test_they_import_nothing_but_numpy():
    allowed = {*sys.stdlib_module_names, "numpy", "tfcourse"}
    for path in BASICS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= allowed, path
            assert all(n.startswith("tfcourse.basics") for n in names if n[:8] == "tfcourse"), path


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_and_derivative_as_in_keras(name):
    function, derivative = ACTIVATIONS[name]
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        ours, slopes = function(X), derivative(X)
    close(ours, KERAS_ACTIVATIONS[name](tf.constant(X)).numpy())
    close(slopes, gradient_in_tensorflow(KERAS_ACTIVATIONS[name], X))
    assert ours.dtype == slopes.dtype == "float64"


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivative_as_finite_differences(name):
    function, derivative = ACTIVATIONS[name]
    close(derivative(SMOOTH), numeric_gradient(lambda x: function(x).sum(), SMOOTH))


def test_softmax_and_jacobian_as_in_keras():
    for x in (X, SMOOTH):
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            ours, jacobian = activations.softmax(x), activations.softmax_jacobian(x)
        variable = tf.Variable(x)
        with tf.GradientTape() as tape:
            theirs = keras.activations.softmax(variable)
        close(ours, theirs.numpy())
        close(jacobian, tape.batch_jacobian(theirs, variable).numpy())
        close(ours.sum(axis=1), 1, 1e-12)


def test_the_claims_of_the_course_that_are_wrong():
    ends = activations.sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    assert ends.tolist() == [0.0, 0.5, 1.0]  # "tends to 0.5"
    assert activations.sigmoid_derivative(np.linspace(-9, 9, 1001)).max() == 0.25
    assert activations.sigmoid(np.array(-700.0)) == pytest.approx(np.exp(-700.0), rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("scale", [1, 500])
def test_loss_and_gradient_as_in_keras(name, scale):
    loss, gradient = LOSSES[name]
    outputs, targets = SMOOTH * scale, TARGETS[name]
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        value, slopes = loss(outputs, targets), gradient(outputs, targets)
    assert isinstance(value, float)
    theirs = KERAS_LOSSES[name]
    assert value == pytest.approx(float(theirs(targets, outputs)), rel=1e-6)
    close(slopes, gradient_in_tensorflow(lambda y: theirs(targets, y), outputs))


@pytest.mark.parametrize("name", LOSSES)
def test_loss_gradient_as_finite_differences(name):
    loss, gradient = LOSSES[name]
    numbers = numeric_gradient(lambda y: loss(y, TARGETS[name]), SMOOTH)
    close(gradient(SMOOTH, TARGETS[name]), numbers)


def test_integer_labels_as_in_keras():
    labels = np.array([2, 0, 1, 2])
    theirs = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
    value = losses.cross_entropy(SMOOTH, labels)
    assert value == pytest.approx(float(theirs(labels, SMOOTH)), rel=1e-6)
    slopes = gradient_in_tensorflow(lambda y: theirs(labels, y), SMOOTH)
    close(losses.cross_entropy_gradient(SMOOTH, labels), slopes)
    assert losses.cross_entropy(np.zeros((5, 10)), np.arange(5)) == pytest.approx(np.log(10))


def test_cross_entropy_gradient_by_the_chain_rule_through_softmax():
    labels = np.array([1, 1, 0, 2])
    y = activations.softmax(SMOOTH)
    outer = -np.eye(3)[labels] / y / len(y)
    chained = np.einsum("ri,rij->rj", outer, activations.softmax_jacobian(SMOOTH))
    close(losses.cross_entropy_gradient(SMOOTH, labels), chained, 1e-12)


def bowl(matrix, vector):
    """Something to go down on: not round, and the two weights depend on each other."""
    return ((matrix - 2) ** 4 / 8).sum() + ((matrix @ vector - 1) ** 2).sum()


def bowl_gradients(matrix, vector):
    rest = 2 * (matrix @ vector - 1)
    return [(matrix - 2) ** 3 / 2 + np.outer(rest, vector), matrix.T @ rest]


def keras_bowl_gradients(matrix, vector):
    with tf.GradientTape() as tape:
        rest = tf.linalg.matvec(matrix.value, vector.value) - 1
        value = tf.reduce_sum((matrix.value - 2) ** 4 / 8) + tf.reduce_sum(rest**2)
    return tape.gradient(value, [matrix.value, vector.value])


@pytest.mark.parametrize("norm", [None, 0.5])
@pytest.mark.parametrize(("name", "arguments", "twin", "its_arguments"), KERAS_OPTIMIZERS)
def test_twenty_steps_as_in_keras(name, arguments, twin, its_arguments, norm):
    optimizer = OPTIMIZERS[name](**arguments)
    renamed = {"rate": "learning_rate", "decay": "rho"}
    its_arguments = its_arguments | {renamed.get(k, k): v for k, v in arguments.items()}
    theirs = twin(**its_arguments, global_clipnorm=norm)
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(3, 2)), rng.normal(size=2)]
    start = bowl(*weights)
    variables = [keras.Variable(w, dtype="float64") for w in weights]
    for _ in range(20):
        gradients = bowl_gradients(*weights)
        optimizer.update(weights, gradients if norm is None else clip(gradients, norm))
        theirs.apply(keras_bowl_gradients(*variables), variables)
        for ours, variable in zip(weights, variables, strict=True):
            close(ours, variable.numpy())
    assert bowl(*weights) < start


def test_every_optimizer_has_a_twin():
    assert {row[0] for row in KERAS_OPTIMIZERS} == OPTIMIZERS.keys()
    assert KERAS_ACTIVATIONS.keys() == ACTIVATIONS.keys()
    assert KERAS_LOSSES.keys() == LOSSES.keys()


def test_weights_change_in_place_and_gradients_do_not():
    for build in OPTIMIZERS.values():
        weights, gradients = [np.ones(3), np.array(1.0)], [np.full(3, 2.0), np.array(-2.0)]
        kept = weights[0]
        build(0.1).update(weights, gradients)
        assert weights[0] is kept
        assert (kept < 1).all() and weights[1] > 1
        assert (gradients[0] == 2).all()


def test_clipping_keeps_the_direction():
    gradients = [np.array([[3.0, 0.0]]), np.array([-4.0, 0.0])]
    clipped = clip(gradients, 1.0)
    close(np.concatenate([g.ravel() for g in clipped]), [0.6, 0, -0.8, 0], 1e-15)
    for kept, gradient in zip(clip(gradients, 5.0), gradients, strict=True):
        assert kept.tolist() == gradient.tolist()
    assert clip([np.zeros(2)], 1.0)[0].tolist() == [0, 0]
    theirs, _ = tf.clip_by_global_norm([tf.constant(g) for g in gradients], 2.0)
    for ours, tensor in zip(clip(gradients, 2.0), theirs, strict=True):
        close(ours, tensor.numpy())


def test_minibatches_deal_out_each_row_once_in_a_new_order():
    rng = np.random.default_rng(0)
    first, second = list(minibatches(rng, 10, 4)), list(minibatches(rng, 10, 4))
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert sorted(np.concatenate(first)) == sorted(np.concatenate(second)) == list(range(10))
    assert np.concatenate(first).tolist() != np.concatenate(second).tolist()


@pytest.mark.parametrize(
    ("name", "variance", "beyond_two_deviations"),
    [
        ("zeros", 0.0, 0.0),
        ("normal", 1e-4, 0.0455),
        ("xavier", 2 / (400 + 600), 0.0),
        ("he", 2 / 400, 0.0455),
    ],
)
def test_initial_variance_and_distribution(name, variance, beyond_two_deviations):
    weights = INITIALIZERS[name](np.random.default_rng(0), 400, 600)
    assert weights.shape == (400, 600)
    assert weights.dtype == "float64"
    # 240,000 draws: the standard error of the variance is 0.3 %.
    assert weights.var() == pytest.approx(variance, rel=0.015)
    assert abs(weights.mean()) <= 5 * np.sqrt(variance / weights.size)
    far = np.mean(np.abs(weights) > 2 * np.sqrt(variance))
    assert far == pytest.approx(beyond_two_deviations, abs=0.003)


@pytest.mark.parametrize(
    ("name", "twin"),
    [("xavier", keras.initializers.GlorotUniform(0)), ("he", keras.initializers.HeNormal(0))],
)
def test_initial_variance_as_in_keras(name, twin):
    ours = INITIALIZERS[name](np.random.default_rng(0), 300, 500)
    theirs = np.asarray(twin((300, 500)))
    assert ours.var() == pytest.approx(theirs.var(), rel=0.02)
    if name == "xavier":
        assert np.abs(ours).max() == pytest.approx(np.abs(theirs).max(), rel=1e-3)


def signal_after_ten_layers(initializer, activation):
    """Return the mean square of the signal behind ten layers, for one of 1 at the input."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 256))
    for _ in range(10):
        x = activation(x @ initializer(rng, 256, 256))
    return np.square(x).mean()


def test_the_variance_argument_over_ten_layers():
    identity, relu = activations.identity, activations.relu
    assert 0.7 < signal_after_ten_layers(initializers.xavier, identity) < 1.4
    assert 0.5 < signal_after_ten_layers(initializers.he, relu) < 2
    halved = signal_after_ten_layers(initializers.xavier, relu)
    assert 0.5 < halved / 2**-10 < 2
    dying = signal_after_ten_layers(initializers.normal, identity)
    assert 0.7 < dying / (256 * 1e-4) ** 10 < 1.4
    assert signal_after_ten_layers(initializers.zeros, activations.tanh) == 0


@pytest.mark.parametrize(("name", "twin"), [("l1", "L1"), ("l2", "L2")])
def test_penalty_and_gradient_as_in_keras(name, twin):
    penalty, gradient = REGULARIZERS[name]
    weights = np.concatenate([SMOOTH, np.zeros((1, 3))])
    theirs = getattr(keras.regularizers, twin)(0.01)
    single = weights.astype("float32")  # Keras 3.13 has no L1 of float64
    assert penalty(weights, 0.01) == pytest.approx(float(theirs(tf.constant(single))), rel=1e-6)
    close(gradient(weights, 0.01), gradient_in_tensorflow(theirs, single))
    close(gradient(SMOOTH, 0.1), numeric_gradient(lambda w: penalty(w, 0.1), SMOOTH))


def test_l2_shrinks_the_weights_before_each_step():
    rate, strength, gradient = 0.1, 0.5, SMOOTH[::-1]
    weights = [SMOOTH.copy()]
    penalised = gradient + regularizers.l2_gradient(weights[0], strength)
    optimizers.GradientDescent(rate).update(weights, [penalised])
    close(weights[0], SMOOTH * (1 - 2 * rate * strength) - rate * gradient, 1e-12)


def test_dropout_as_in_keras():
    x = np.random.default_rng(1).normal(size=(200, 300))
    y, mask = regularizers.dropout(np.random.default_rng(0), x, 0.3)
    theirs = keras.layers.Dropout(0.3, seed=0, dtype="float64")(x, training=True).numpy()
    for dropped in (y, theirs):
        assert np.mean(dropped == 0) == pytest.approx(0.3, abs=0.01)
        close(dropped[dropped != 0], x[dropped != 0] / 0.7)
    close(mask * x, y, 1e-15)
    assert mask.mean() == pytest.approx(1, abs=0.015)
    assert regularizers.dropout(np.random.default_rng(0), x, 0.0)[0].tolist() == x.tolist()


def test_label_smoothing_as_in_keras():
    targets = np.eye(3)[[2, 0, 1, 2]]
    theirs = keras.losses.CategoricalCrossentropy(True, label_smoothing=0.1, dtype="float64")
    ours = losses.cross_entropy(SMOOTH, regularizers.label_smoothing(targets, 0.1))
    assert ours == pytest.approx(float(theirs(targets, SMOOTH)), rel=1e-6)


def test_noise_has_the_deviation_asked_for():
    x = np.full((200, 300), 5.0)
    added = regularizers.noise(np.random.default_rng(0), x, 0.5) - x
    assert added.std() == pytest.approx(0.5, rel=0.02)
    assert abs(added.mean()) < 0.01
    assert np.unique(added).size == added.size


def rng():
    return np.random.default_rng(0)


def two_updates(*rows):
    adam = optimizers.Adam()
    for size in rows:
        adam.update([np.zeros(size)], [np.zeros(size)])


ONES = np.ones((2, 3))
REFUSED = [
    (lambda: losses.squared_error(np.ones((2, 1)), np.ones(2)), r"outputs, \(2, 1\), got \(2,\)"),
    (lambda: losses.absolute_error_gradient(ONES, np.ones((3, 2))), "shape of the outputs"),
    (lambda: losses.absolute_error(np.ones(0), np.ones(0)), r"not be empty, got shape \(0,\)"),
    (lambda: losses.binary_cross_entropy(ONES, 2 * ONES), "from 0 to 1, got 2.0 to 2.0"),
    (lambda: losses.cross_entropy(ONES[0], [1]), r"\(rows, classes\), got \(3,\)"),
    (lambda: losses.cross_entropy(ONES, [0, 3]), "from 0 to 2, got 0 to 3"),
    (lambda: losses.cross_entropy(ONES, [0, -1]), "from 0 to 2, got -1 to 0"),
    (lambda: losses.cross_entropy(ONES, [0.0, 1.0]), r"integers of shape \(2,\).*got float64"),
    (lambda: losses.cross_entropy_gradient(ONES, [0, 1, 2]), r"got int64 of shape \(3,\)"),
    (lambda: losses.cross_entropy(ONES, ONES), "sum to 1 in each row"),
    (lambda: initializers.he(rng(), 0, 3), "1 or more, got 0 and 3"),
    (lambda: optimizers.Adam(0), "rate must be a number above 0, got 0"),
    (lambda: optimizers.GradientDescent(float("nan")), "rate must be a number above 0, got nan"),
    (lambda: optimizers.Momentum(momentum=1.0), "momentum must be from 0 to below 1, got 1.0"),
    (lambda: optimizers.RMSProp(decay=-0.1), "decay must be from 0 to below 1, got -0.1"),
    (lambda: optimizers.Adam(beta_2=2), "beta_2 must be from 0 to below 1, got 2"),
    (lambda: optimizers.Adagrad(epsilon=0), "epsilon must be a number above 0, got 0"),
    (lambda: optimizers.Adam().update([ONES], []), r"weights, \[\(2, 3\)\], got \[\]"),
    (lambda: optimizers.Adam().update([ONES], [ONES.T]), r"got \[\(3, 2\)\]"),
    (lambda: optimizers.Adam().update([np.array([1])], [np.ones(1)]), "NumPy arrays of floats"),
    (lambda: two_updates(2, 3), "belongs to the weights of its first update"),
    (lambda: clip([ONES], 0), "norm must be a number above 0, got 0"),
    (lambda: clip([np.array([np.inf])], 1), "finite length, got inf"),
    (lambda: minibatches(rng(), 5, 0), "1 or more, got 5 and 0"),
    (lambda: regularizers.l2(ONES, -1), "rate must be 0 or more, got -1"),
    (lambda: regularizers.l1_gradient(ONES, -1), "rate must be 0 or more, got -1"),
    (lambda: regularizers.dropout(rng(), ONES, 1), "rate must be from 0 to below 1, got 1"),
    (lambda: regularizers.label_smoothing(np.array([1, 0]), 0.1), r"classes\), got \(2,\)"),
    (lambda: regularizers.label_smoothing(ONES, 1.5), "rate must be from 0 to 1, got 1.5"),
    (lambda: regularizers.noise(rng(), ONES, -1), "stddev must be 0 or more, got -1"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
