"""Neurons and networks in NumPy: against Keras, finite differences, every state of a machine."""

import doctest
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import linprog
from sklearn.linear_model import LinearRegression, LogisticRegression

from tfcourse.basics import neuron as neuron_module
from tfcourse.basics.losses import LOSSES, binary_cross_entropy
from tfcourse.basics.mlp import MLP, numeric_gradients, train
from tfcourse.basics.neuron import Neuron, train_neuron
from tfcourse.basics.optimizers import Adam, GradientDescent
from tfcourse.basics.perceptron import INPUTS, TRUTH_TABLES, Perceptron
from tfcourse.basics.rbm import RBM, classifier_weights, pretrain, to_mlp, train_rbm

DEPTHS = ((5, 3), (5, 4, 3), (5, 7, 6, 3), (5, 6, 6, 6, 6, 3))
KERAS_LOSSES = {
    "absolute_error": keras.losses.MeanAbsoluteError(dtype="float64"),
    "squared_error": keras.losses.MeanSquaredError(dtype="float64"),
    "cross_entropy": keras.losses.SparseCategoricalCrossentropy(True, dtype="float64"),
    "binary_cross_entropy": keras.losses.BinaryCrossentropy(True, dtype="float64"),
}
KERAS_ACTIVATIONS = {
    "identity": "linear",
    "leaky_relu": lambda x: keras.ops.leaky_relu(x, 0.01),
    "gelu": lambda x: keras.ops.gelu(x, approximate=False),
}


def batch(loss: str, rows: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(rows, 5))
    if loss == "cross_entropy":
        return x, rng.integers(0, 3, rows)
    return x, rng.uniform(0, 1, (rows, 3))


def network(units, activation: str, seed: int = 0) -> MLP:
    """Return a network whose biases are not zero: a wrong one would show."""
    model = MLP(units, activation, "xavier", seed)
    rng = np.random.default_rng(seed)
    for bias in model.weights[1::2]:
        bias[:] = rng.normal(size=bias.shape)
    return model


def twin(model: MLP, units, activation: str) -> keras.Model:
    """Return the same network in Keras, with the same weights, in 64-bit floats."""
    activation = KERAS_ACTIVATIONS.get(activation, activation)
    layers = [
        keras.layers.Dense(size, activation, dtype="float64", name=f"dense{i}")
        for i, size in enumerate(units[1:-1])
    ]
    last = keras.layers.Dense(units[-1], dtype="float64", name="logits")
    copy = keras.Sequential([keras.Input((units[0],), dtype="float64"), *layers, last])
    copy.set_weights(model.weights)
    return copy


@pytest.mark.parametrize(
    ("units", "activation", "loss"),
    [
        *((units, "relu", "cross_entropy") for units in DEPTHS),
        *(
            ((5, 7, 6, 3), activation, "cross_entropy")
            for activation in ("identity", "sigmoid", "tanh", "leaky_relu", "gelu")
        ),
        *(((5, 7, 6, 3), "tanh", loss) for loss in LOSSES),
    ],
)
def test_backpropagation_is_gradient_tape(units, activation, loss):
    model = network(units, activation)
    x, targets = batch(loss)
    copy = twin(model, units, activation)
    with tf.GradientTape() as tape:
        logits = copy(x)
        value = KERAS_LOSSES[loss](targets, logits)
    expected = tape.gradient(value, copy.trainable_variables)
    ours, gradients = model.loss_and_gradients(x, targets, loss)
    # TensorFlow takes the slope of the one and the root of 2 in the other in 32 bits.
    atol = 1e-6 if activation in ("leaky_relu", "gelu") else 1e-12
    np.testing.assert_allclose(model.predict(x), logits, atol=atol)
    assert ours == pytest.approx(float(value), abs=atol)
    for gradient, theirs in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, theirs, atol=atol)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "gelu", "relu"])
def test_backpropagation_is_finite_differences(activation, loss):
    model = network((5, 4, 4, 3), activation)
    x, targets = batch(loss)
    value, _ = LOSSES[loss]
    before = [weight.copy() for weight in model.weights]
    expected = numeric_gradients(lambda: value(model.predict(x), targets), model.weights)
    for gradient, numeric in zip(model.gradients(x, targets, loss), expected, strict=True):
        np.testing.assert_allclose(gradient, numeric, atol=1e-8)
    for weight, kept in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, kept)


def test_without_an_activation_layers_collapse_into_one():
    model = network((5, 7, 6, 3), "identity")
    x, _ = batch("cross_entropy")
    matrix = np.linalg.multi_dot(model.weights[::2])
    offset = model.predict(np.zeros((1, 5)))
    np.testing.assert_allclose(model.predict(x), x @ matrix + offset, atol=1e-12)


def test_weights_that_begin_at_zero_stay_equal():
    model = MLP((5, 4, 3), "sigmoid", "zeros")
    x, y = batch("cross_entropy")
    train(model, x, y, GradientDescent(1.0), 20, batch_size=4)
    hidden = model.weights[0]
    assert np.abs(hidden).max() > 1e-3
    np.testing.assert_array_equal(hidden, np.repeat(hidden[:, :1], 4, axis=1))


def test_training_is_that_of_keras():
    """The same weights, batches and optimizer: the same losses, and the same weights at last."""
    units = (5, 8, 3)
    model = network(units, "tanh")
    copy = twin(model, units, "tanh")
    copy.compile(keras.optimizers.Adam(0.01), KERAS_LOSSES["cross_entropy"])
    x, y = batch("cross_entropy", 24)
    # One batch an epoch: its order does not matter.
    expected = copy.fit(x, y, batch_size=24, epochs=15, shuffle=False, verbose=0)
    seen = []
    losses = train(
        model, x, y, Adam(0.01), 15, batch_size=24, on_epoch=lambda *news: seen.append(news)
    )
    assert seen == list(enumerate(losses, 1))
    np.testing.assert_allclose(losses, expected.history["loss"], atol=1e-6)
    for weight, theirs in zip(model.weights, copy.get_weights(), strict=True):
        np.testing.assert_allclose(weight, theirs, atol=1e-5)


def test_the_loss_of_an_epoch_is_the_mean_over_rows():
    model = network((5, 3), "relu")
    x, y = batch("cross_entropy", 10)
    value, _ = LOSSES["cross_entropy"]
    expected = value(model.predict(x), y)
    # The last of the three batches is smaller; a rate of almost nothing leaves the weights alone.
    (loss,) = train(model, x, y, GradientDescent(1e-12), 1, batch_size=4)
    assert loss == pytest.approx(expected, rel=1e-9)


def test_seeds_decide_weights_and_order():
    x, y = batch("cross_entropy", 20)

    def run(seed, order):
        model = MLP((5, 6, 3), seed=seed)
        return train(model, x, y, Adam(), 2, batch_size=4, seed=order)

    assert run(0, 0) == run(0, 0)
    assert run(0, 0) != run(1, 0)
    assert run(0, 0) != run(0, 1)


def test_one_hidden_layer_solves_xor():
    model = MLP((2, 4, 1), "tanh", "xavier")
    train(
        model,
        INPUTS,
        TRUTH_TABLES["xor"][:, None],
        Adam(0.1),
        200,
        batch_size=4,
        loss="binary_cross_entropy",
    )
    assert ((model.predict(INPUTS)[:, 0] > 0) == TRUTH_TABLES["xor"]).all()


@pytest.mark.parametrize("name", ["and", "or"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_a_perceptron_learns_and_and_or_in_any_order(name, order):
    perceptron = Perceptron(2)
    rows = list(order)
    mistakes = perceptron.train(INPUTS[rows], TRUTH_TABLES[name][rows])
    assert mistakes[-1] == 0
    assert (perceptron.predict(INPUTS) == TRUTH_TABLES[name]).all()
    # Novikoff's bound, the bias being a weight: R^2 = 3, and 2 x + 2 y = 3, which separates AND,
    # keeps all rows 1 / sqrt(2^2 + 2^2 + 3^2) away; OR has more room.
    assert sum(mistakes) <= 3 * 17


@pytest.mark.parametrize(("name", "separable"), [("and", True), ("or", True), ("xor", False)])
def test_a_line_exists_just_where_the_perceptron_ends(name, separable):
    """A linear program asks for w and b with sign (w x + b) >= 1 in every row."""
    signs = 2 * TRUTH_TABLES[name] - 1
    rows = -signs[:, None] * np.column_stack([INPUTS, np.ones(4)])
    program = linprog(np.zeros(3), rows, -np.ones(4), bounds=(None, None))
    assert (program.status == 0) == separable
    perceptron = Perceptron(2)
    mistakes = perceptron.train(INPUTS, TRUTH_TABLES[name], epochs=1000)
    assert (mistakes[-1] == 0) == separable
    assert (len(mistakes) < 1000) == separable
    right = (perceptron.predict(INPUTS) == TRUTH_TABLES[name]).sum()
    assert right == 4 if separable else right <= 3


def test_the_examples_of_the_neuron():
    assert doctest.testmod(neuron_module).failed == 0
    person = Neuron([0.02, 0.1], -17.32)
    loss, _ = person.loss_and_gradients([[71, 178]], [1], "absolute_error")
    assert loss == pytest.approx(0.13, abs=0.005)


@pytest.mark.parametrize(
    ("activation", "loss"),
    [
        ("sigmoid", "binary_cross_entropy"),
        *itertools.product(["identity", "sigmoid", "tanh"], ["absolute_error", "squared_error"]),
    ],
)
def test_a_neurons_gradients_are_finite_differences(activation, loss):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 3)), rng.integers(0, 2, 6)
    neuron = Neuron(rng.normal(size=3), 0.3, activation)
    numeric = numeric_gradients(lambda: neuron.loss_and_gradients(x, y, loss)[0], neuron.weights)
    for ours, expected in zip(neuron.loss_and_gradients(x, y, loss)[1], numeric, strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-8)


def test_a_neurons_cross_entropy_is_that_of_its_answer():
    neuron = Neuron([2.0, -1.0], 0.5)
    x, y = [[1.0, 3.0], [0.2, 0.1]], np.array([0.0, 1.0])
    a = neuron(x)
    expected = -np.mean(y * np.log(a) + (1 - y) * np.log(1 - a))
    loss, _ = neuron.loss_and_gradients(x, y, "binary_cross_entropy")
    assert loss == pytest.approx(expected, rel=1e-12)
    assert loss == pytest.approx(binary_cross_entropy(np.log(a / (1 - a)), y), rel=1e-9)


def test_a_neuron_without_activation_is_linear_regression():
    rng = np.random.default_rng(0)
    area = rng.uniform(-1, 1, (50, 1))
    price = 3 * area[:, 0] + 40 + rng.normal(0, 0.1, 50)
    neuron = Neuron([0.0], activation="identity")
    losses = train_neuron(neuron, area, price, rate=0.3, steps=400)
    expected = LinearRegression().fit(area, price)
    np.testing.assert_allclose(neuron.weights[0][:, 0], expected.coef_, atol=1e-6)
    np.testing.assert_allclose(neuron.weights[1], expected.intercept_, atol=1e-6)
    assert losses[-1] < 0.02 < losses[0]


def test_a_sigmoid_neuron_is_logistic_regression():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    y = (x @ [2.0, -1.0] + rng.logistic(size=200) > 0).astype(int)
    neuron = Neuron([0.0, 0.0])
    train_neuron(neuron, x, y, rate=3.0, steps=500, loss="binary_cross_entropy")
    expected = LogisticRegression(C=1e9, tol=1e-8).fit(x, y)
    np.testing.assert_allclose(neuron.weights[0].T, expected.coef_, atol=1e-3)
    np.testing.assert_allclose(neuron(x), expected.predict_proba(x)[:, 1], atol=1e-3)


def states(units: int) -> np.ndarray:
    return np.array(list(itertools.product([0.0, 1.0], repeat=units)))


def tiny_machine(seed: int = 0) -> RBM:
    machine = RBM(4, 3, seed)
    rng = np.random.default_rng(seed)
    for weight in machine.weights:
        weight[...] = rng.normal(size=weight.shape)
    return machine


def joint(machine: RBM) -> np.ndarray:
    """Return exp(-E(v, h)) of every state, `(2^visible, 2^hidden)`, from the definition of E."""
    matrix, a, c = machine.weights
    v, h = states(len(a)), states(len(c))
    return np.exp((v @ a)[:, None] + h @ c + v @ matrix @ h.T)


def test_free_energy_sums_the_hidden_units_out():
    machine = tiny_machine()
    energy = machine.free_energy(states(4))
    np.testing.assert_allclose(np.exp(-energy), joint(machine).sum(axis=1), rtol=1e-12)


def test_layers_given_each_other_are_those_of_every_state():
    machine = tiny_machine()
    table = joint(machine)
    hidden = table @ states(3) / table.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(machine.probabilities_hidden(states(4)), hidden, atol=1e-12)
    visible = table.T @ states(4) / table.sum(axis=0)[:, None]
    np.testing.assert_allclose(machine.probabilities_visible(states(3)), visible, atol=1e-12)


def exact_loss(machine: RBM, x: np.ndarray) -> float:
    """Return the mean of -log p(v) over rows, with Z summed over every state."""
    partition = np.log(joint(machine).sum())
    return float(np.mean(machine.free_energy(x)) + partition)


def test_contrastive_divergence_nears_the_gradient_of_the_likelihood():
    machine = tiny_machine()
    x = states(4)[np.random.default_rng(5).choice(16, 40_000, p=np.arange(16) / 120)]
    rows, counts = np.unique(x, axis=0, return_counts=True)

    def loss():
        partition = np.log(joint(machine).sum())
        return float(counts @ machine.free_energy(rows) / counts.sum() + partition)

    exact = np.concatenate([g.ravel() for g in numeric_gradients(loss, machine.weights)])
    found = {k: np.concatenate([g.ravel() for g in machine.gradients(x, k)]) for k in (1, 50)}
    large = np.abs(exact) > 0.1
    assert large.sum() >= 8
    assert (np.sign(found[1][large]) == np.sign(exact[large])).all()
    # After 50 steps the data is forgotten, and only the noise of 40,000 samples is left.
    np.testing.assert_allclose(found[50], exact, atol=0.015)
    assert np.abs(found[1] - exact).max() > 2 * np.abs(found[50] - exact).max()


def test_samples_come_with_the_machines_probabilities():
    machine = tiny_machine(3)
    probabilities = joint(machine).sum(axis=1)
    sampled = machine.sample(np.zeros((20_000, 4)), 30)
    counts = np.bincount((sampled @ [8, 4, 2, 1]).astype(int), minlength=16) / len(sampled)
    np.testing.assert_allclose(counts, probabilities / probabilities.sum(), atol=0.015)


def test_training_a_machine_raises_the_likelihood():
    x = np.repeat([[1.0, 1, 0, 0], [0, 0, 1, 1]], 50, axis=0)
    machine = RBM(4, 3)
    before = exact_loss(machine, x)
    errors = train_rbm(machine, x, GradientDescent(0.1), 100, batch_size=10)
    after = exact_loss(machine, x)
    assert before == pytest.approx(4 * np.log(2), abs=0.01)  # nothing known: four coins
    assert np.log(2) < after < 0.6 * before  # one coin is the best there is
    assert errors[-1] < errors[0] / 2


def test_a_machine_of_784_and_500_units_has_393284_numbers():
    assert sum(weight.size for weight in RBM(784, 500).weights) == 393_284


def test_a_stack_becomes_a_network_here_and_in_keras():
    x = np.random.default_rng(0).uniform(0, 1, (30, 6))
    machines = pretrain((6, 5, 4), x, epochs=2, batch_size=10)
    assert [m.weights[0].shape for m in machines] == [(6, 5), (5, 4)]
    hidden = machines[1].probabilities_hidden(machines[0].probabilities_hidden(x))
    model = to_mlp(machines, 3, seed=1)
    matrix, bias = model.weights[-2:]
    np.testing.assert_allclose(model.predict(x), hidden @ matrix + bias, atol=1e-12)
    copy = twin(model, (6, 5, 4, 3), "sigmoid")
    copy.set_weights(classifier_weights(machines, 3, seed=1))
    np.testing.assert_allclose(copy(x), model.predict(x), atol=1e-12)
    model.weights[0][:] = 0  # copies: the machine keeps its own
    assert machines[0].weights[0].any()


X = np.zeros((4, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MLP((3,)), "units must be at least two numbers from 1 up, got (3,)"),
        (lambda: MLP((3, 0, 1)), "units must be at least two numbers from 1 up, got (3, 0, 1)"),
        (
            lambda: MLP((2, 1), "swish"),
            "activation must be one of ['gelu', 'identity', 'leaky_relu', 'relu', 'sigmoid', "
            "'tanh'], got 'swish'",
        ),
        (
            lambda: MLP((2, 1), initializer="ones"),
            "initializer must be one of ['he', 'normal', 'xavier', 'zeros'], got 'ones'",
        ),
        (lambda: MLP((3, 1)).predict(X), "x must have the shape (rows, 3), got (4, 2)"),
        (lambda: MLP((3, 1)).predict(X[0]), "x must have the shape (rows, 3), got (2,)"),
        (
            lambda: MLP((2, 1)).gradients(X, X, "hinge"),
            "loss must be one of ['absolute_error', 'binary_cross_entropy', 'cross_entropy', "
            "'squared_error'], got 'hinge'",
        ),
        (
            lambda: train(MLP((2, 1)), X, X[:3], Adam(), 1),
            "x and y must have equally many rows from 1 up, got 4 and 3",
        ),
        (
            lambda: train(MLP((2, 1)), X[:0], X[:0], Adam(), 1),
            "x and y must have equally many rows from 1 up, got 0 and 0",
        ),
        (lambda: train(MLP((2, 1)), X, X, Adam(), 0), "epochs must be at least 1, got 0"),
        (lambda: Perceptron(2).train(INPUTS, [0, 1, 1, 0], 0), "epochs must be at least 1, got 0"),
        (
            lambda: train_neuron(Neuron([1.0, 1.0]), INPUTS, [0, 1, 1, 0], rate=1.0, steps=0),
            "steps must be at least 1, got 0",
        ),
        (lambda: Neuron([]), "weights must be at least one number, got none"),
        (
            lambda: Neuron([1, 1]).loss_and_gradients(X, [1] * 4, "cross_entropy"),
            "loss must be one of ['absolute_error', 'binary_cross_entropy', 'squared_error'], "
            "got 'cross_entropy'",
        ),
        (
            lambda: Neuron([1, 1], activation="tanh").loss_and_gradients(
                X, [1] * 4, "binary_cross_entropy"
            ),
            "binary_cross_entropy contains a sigmoid: activation must be 'sigmoid', got 'tanh'",
        ),
        (
            lambda: train_neuron(Neuron([1, 1]), X, [1], rate=1, steps=1),
            "x and y must have equally many rows from 1 up, got 4 and 1",
        ),
        (lambda: Perceptron(0), "inputs must be at least 1, got 0"),
        (
            lambda: Perceptron(2).train(X, [0, 1, 2, 1]),
            "y must be 4 targets of 0 or 1, got [0, 1, 2, 1]",
        ),
        (lambda: Perceptron(2).train(X, [0, 1]), "y must be 4 targets of 0 or 1, got [0, 1]"),
        (lambda: RBM(3, 0), "visible and hidden must be 1 or more, got 3 and 0"),
        (lambda: RBM(2, 3).sample(X, 0), "steps must be at least 1, got 0"),
        (
            lambda: train_rbm(RBM(2, 3), X + 255, Adam(), 1),
            "x must be rows of numbers from 0 to 1, got 255.0 to 255.0",
        ),
        (lambda: train_rbm(RBM(2, 3), X, Adam(), 0), "epochs must be at least 1, got 0"),
        (lambda: pretrain((2,), X), "units must be at least two numbers from 1 up, got (2,)"),
        (lambda: classifier_weights([], 2), "machines must be at least one, got none"),
        (
            lambda: classifier_weights([RBM(4, 3), RBM(2, 5)], 2),
            "each machine must fit on the one below, got [(4, 3), (2, 5)]",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == message
