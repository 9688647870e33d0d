"""Replicas against one device: every feature alone, in pairs, together; and what replicas share."""

import contextlib
import functools
import itertools
import json
import os
import sys
from pathlib import Path

import keras
import numpy as np
import parity
import pytest
import tensorflow as tf

from tfcourse import training
from tfcourse.workers import launch

TINY = 2e-6
# Where two of the changes to what Keras does meet; all pairs are slow.
SOME_PAIRS = [
    ("mean by weight", "masked embedding"),
    ("L1, L2", "XLA"),
    ("clip by norm", "accumulation"),
    ("float16", "clip by value"),
]


def refused(names):
    return any(pair <= set(names) for pair in parity.REFUSED)


def pairs():
    names = [n for n in parity.FEATURES if n not in ("plain", "4 steps a call")]
    return [p for p in itertools.combinations(names, 2) if parity.allowed(p)]


@functools.cache
def one_device(*names):
    return parity.train(names)


@functools.cache
def model_fit(*names):
    return parity.keras_train(names)


def quiet(names):
    """Return what expects the warning that a table becomes dense, where it does."""
    dense = {"accumulation", "EMA", "EMA, overwriting"}
    if "LazyAdam" in names and dense & set(names):
        return pytest.warns(UserWarning, match="touches every row")
    return contextlib.nullcontext()


FAST = ("class weight", "L1, L2", "BatchNorm", "masked embedding", "accumulation", "XLA", "float16")


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in parity.FEATURES]
)
def test_a_feature_on_two_replicas_is_that_of_model_fit(name):
    two = parity.train([name], 2)
    assert parity.difference(model_fit(name), two) <= parity.tolerance([name])


@pytest.mark.parametrize(
    "replicas", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 4))]
)
def test_everything_together(replicas):
    names = parity.everything()
    assert len(names) >= 12
    with quiet(names):
        expected, result = model_fit(*names), parity.train(names, replicas)
    assert parity.difference(expected, result) <= parity.tolerance(names)


@pytest.mark.slow
@pytest.mark.parametrize("name", parity.FEATURES)
def test_a_feature_on_one_device_and_on_four(name):
    for replicas in (1, 4):
        result = parity.train([name], replicas)
        assert parity.difference(model_fit(name), result) <= parity.tolerance([name])


@pytest.mark.parametrize("names", SOME_PAIRS, ids=" + ".join)
def test_a_pair_on_two_replicas(names):
    with quiet(names):
        assert parity.difference(one_device(*names), parity.train(names, 2)) <= (
            parity.tolerance(names)
        )


@pytest.mark.slow
@pytest.mark.parametrize("names", pairs(), ids=" + ".join)
def test_every_pair_on_two_replicas(names):
    if refused(names):
        with pytest.raises(ValueError, match="jit_compile must be False"):
            parity.train(names, 2)
        return
    with quiet(names):
        expected, result = parity.train(names), parity.train(names, 2)
    assert parity.difference(expected, result) <= parity.tolerance(names)


def test_xla_with_batch_norm_is_refused_on_several_replicas():
    with pytest.raises(ValueError, match="jit_compile must be False for BatchNorm") as error:
        parity.train(["XLA", "BatchNorm"], 2)
    assert "\n" not in str(error.value)


def test_every_replica_has_the_same_variables():
    """Not only the first, whose copy Keras saves: statistics, slots and averages too."""
    names = ["BatchNorm", "EMA", "accumulation"]
    model = parity.build(parity.merged(names), training.strategy("cpu:4"))
    training.fit(model, parity.data({}), 2)
    copies = [v.value.values for v in [*model.variables, *model.optimizer.variables]]
    assert len(copies) > 20
    for first, *others in copies:
        for other in others:
            np.testing.assert_array_equal(first.numpy(), other.numpy())


# Dropout: the same rate, other masks.


def masks(replicas, rows=8, steps=2):
    """Return which units dropout left, `(steps, rows, 50)`, of a model that only has dropout."""
    strategy = training.strategy(f"cpu:{replicas}") if replicas > 1 else None
    with strategy.scope() if strategy else contextlib.nullcontext():
        layers = [keras.Input((50,)), keras.layers.Dropout(0.5, seed=3)]
        model = keras.Sequential([*layers, keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        seen = tf.Variable(tf.zeros((steps, rows, 50)), aggregation=tf.VariableAggregation.MEAN)
        step_number = tf.Variable(0, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)

    def step(model, batch):
        dropped = training.gather(model.layers[0](batch[0], training=True))
        seen.assign(tf.tensor_scatter_nd_update(seen, [[step_number]], [dropped]))
        step_number.assign_add(1)
        return {}

    ones = training.InMemory(np.ones((rows, 50)), np.ones((rows, 1)), rows, shuffle=False)
    training.fit(model, ones, steps, step=step)
    return seen.numpy() > 0


def test_dropout_masks_differ_between_replicas_and_steps():
    one, two, four = masks(1), masks(2), masks(4)
    for kept in (one, two, four):
        assert 0.4 < kept.mean() < 0.6
        assert (kept[0] != kept[1]).mean() > 0.3  # from step to step
    for left, right in itertools.combinations(np.split(four[0], 4), 2):
        assert 0.3 < (left != right).mean() < 0.7
    # The seed of the first replica is that of one device, but its mask has another shape.
    assert np.array_equal(two[0, :4], masks(1, rows=4)[0])


# Metrics: every example counts once.


@pytest.mark.parametrize("replicas", [2, 4])
def test_metrics_count_every_example_once(replicas):
    rng = np.random.default_rng(4)
    rows = 25  # three batches of eight, and one row: the others have none
    x, y = rng.normal(size=(rows, 3)).astype("float32"), rng.integers(0, 2, (rows, 1))
    weights = rng.uniform(0.1, 3.0, rows).astype("float32")
    with training.strategy(f"cpu:{replicas}").scope():
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        metrics = [keras.metrics.AUC(from_logits=True, name="auc")]
        metrics += [keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy")]
        weighted = [keras.metrics.BinaryAccuracy(threshold=0.0, name="weighted")]
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        model.compile("sgd", loss, metrics=metrics, weighted_metrics=weighted)
    data = training.InMemory(x, y, 8, sample_weight=weights)
    figures = training.evaluate(model, data)
    logits = training.predict(model, training.InMemory(x, y, 8, shuffle=False))
    right = (logits > 0) == y
    auc = keras.metrics.AUC(from_logits=True)
    auc.update_state(y, logits)
    terms = np.log1p(np.exp(-logits * (2 * y - 1)))[:, 0] * weights
    assert figures["accuracy"] == pytest.approx(right.mean())
    assert figures["weighted"] == pytest.approx((right[:, 0] * weights).sum() / weights.sum())
    assert figures["auc"] == pytest.approx(float(auc.result()))
    assert figures["loss"] == pytest.approx(terms.mean(), rel=1e-5)


@pytest.mark.parametrize(("replicas", "rows"), [(2, 5), (4, 3)])
def test_batch_norm_learns_the_moments_of_the_whole_batch(replicas, rows):
    """From the formula: the variance over all rows; a replica without any adds nothing."""
    x = np.array([[0.0], [1.0], [10.0], [12.0], [5.0]], "float32")[:rows]
    with training.strategy(f"cpu:{replicas}").scope():
        layers = [keras.Input((1,)), keras.layers.BatchNormalization(momentum=0.9)]
        model = keras.Sequential(layers)
        model.compile(keras.optimizers.SGD(0.0), "mse")
    training.fit(model, training.InMemory(x, x, 5, shuffle=False), 1)
    norm = model.layers[0]
    np.testing.assert_allclose(norm.moving_mean.numpy(), 0.1 * x.mean(0), rtol=1e-6)
    np.testing.assert_allclose(norm.moving_variance.numpy(), 0.9 + 0.1 * x.var(0), rtol=1e-6)


def test_global_clipping_acts_on_the_gradient_of_the_whole_batch():
    """A step of SGD at rate 1 is the gradient of all rows, shortened to 0.01."""
    with training.strategy("cpu:2").scope():
        keras.utils.set_random_seed(2)
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, use_bias=False)])
        model.compile(keras.optimizers.SGD(1.0, global_clipnorm=0.01), "mse")
    x, y = parity.X[:8], 9 * np.eye(3, dtype="float32")[parity.Y[:8]]
    (before,) = model.get_weights()
    training.fit(model, training.InMemory(x, y, 8), 1)
    gradient = 2 * x.T @ (x @ before - y) / y.size
    expected = -0.01 * gradient / np.linalg.norm(gradient)
    np.testing.assert_allclose(model.get_weights()[0] - before, expected, atol=1e-6)


# Losses that the rows of a batch share, own formulas, several outputs.


def in_batch_softmax(targets, logits):
    """Each row's right answer is its own; all other rows of the batch are the wrong ones."""
    scores = tf.matmul(targets, logits, transpose_b=True)
    return keras.losses.sparse_categorical_crossentropy(
        tf.range(tf.shape(scores)[0]), scores, from_logits=True
    )


def adam():
    """Return Adam that leaves weights without a gradient, but for rounding, where they are."""
    return keras.optimizers.Adam(0.01, epsilon=1e-3)


class OwnLoss(keras.Model):
    """Its loss is the largest error in the batch, times the largest input."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return tf.reduce_max(tf.abs(y - y_pred)) * tf.reduce_max(x)


def coupled_rows():
    inputs = keras.Input((5,))
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    model.compile(adam(), in_batch_softmax)
    return model, training.InMemory(parity.X, parity.X[:, :3], 8, shuffle=False)


def masked_outputs():
    inputs = keras.Input((4,), dtype="int32")
    x = keras.layers.Embedding(6, 5, mask_zero=True)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(adam(), loss, metrics=["accuracy"], weighted_metrics=["accuracy"])
    return model, training.InMemory(parity.IDS, parity.IDS % 3, 8, shuffle=False)


def dicts_in_and_out():
    inputs = {"x": keras.Input((5,), name="x"), "ids": keras.Input((4,), name="ids")}
    both = keras.layers.Concatenate()([inputs["x"], inputs["ids"]])
    outputs = {name: keras.layers.Dense(n, name=name)(both) for name, n in (("a", 1), ("b", 3))}
    model = keras.Model(inputs, outputs)
    losses = {"a": "mae", "b": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
    weights = {"a": 0.3, "b": 2.0}
    model.compile(adam(), losses, loss_weights=weights, metrics={"b": ["accuracy"]})
    inputs = {"x": parity.X, "ids": parity.IDS.astype("float32")}
    return model, training.InMemory(inputs, {"a": parity.X[:, :1], "b": parity.Y}, 8, shuffle=False)


def own_formula():
    inputs = keras.Input((5,))
    model = OwnLoss(inputs, keras.layers.Dense(3)(inputs))
    model.compile(adam())
    return model, training.InMemory(parity.X, parity.X[:, :3], 8, shuffle=False)


def without_a_reduction():
    inputs = keras.Input((5,))
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    model.compile(adam(), lambda y, y_pred: tf.reduce_sum(tf.abs(y - y_pred) ** 1.5))
    return model, training.InMemory(parity.X, parity.X[:, :3], 8, shuffle=False)


def convolutions():
    inputs = keras.Input((5, 1))
    x = keras.layers.MaxPooling1D(2)(keras.layers.Conv1D(4, 2)(inputs))
    x = keras.layers.BatchNormalization()(x)
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    model.compile(adam(), "mse")
    return model, training.InMemory(parity.X[..., None], parity.X[:, :3], 8, shuffle=False)


MODELS = [
    coupled_rows,
    masked_outputs,
    dicts_in_and_out,
    own_formula,
    without_a_reduction,
    convolutions,
]


@pytest.mark.parametrize("build", MODELS)
def test_kinds_of_losses_and_models_on_three_replicas(build):
    """Against `Model.fit` on one device."""
    keras.utils.set_random_seed(5)
    model, data = build()
    expected = model.fit(data.dataset(), epochs=3, shuffle=False, verbose=0).history
    with training.strategy("cpu:3").scope():
        keras.utils.set_random_seed(5)
        three, data = build()
    history = training.fit(three, data, 3).history
    assert history.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-5, atol=TINY)
    for a, b in zip(model.get_weights(), three.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_gather_has_all_rows_and_the_gradient_of_its_own():
    strategy = training.strategy("cpu:2")
    with strategy.scope():
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
        model.layers[0].kernel.assign([[2.0]])
        model.compile(keras.optimizers.SGD(1.0))

    def step(model, batch):
        (x,) = batch
        with tf.GradientTape() as tape:
            everybody = training.gather({"y": model(x), "nothing": None})
            loss = tf.reduce_sum(everybody["y"]) ** 2
        weights = model.trainable_variables
        gradients = tape.gradient(loss, weights)  # of the rows of this replica
        training.apply_gradients(model.optimizer, gradients, weights)
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        mine = tf.where(index == 0, gradients[0][0, 0], 0.0)
        return {"first": 2 * mine, "objective": loss}

    x = np.array([[1.0], [2.0], [3.0]], "float32")  # two rows and one
    history = training.fit(
        model, training.InMemory(x, None, 3, shuffle=False), 1, step=step
    ).history
    # loss (2 * 6)^2, gradient 2 * 12 * the sum of the rows: 3 of them here, 6 in all.
    assert history["objective"] == [144.0]
    assert history["first"] == [2 * 12.0 * 3.0]
    assert model.layers[0].kernel.numpy()[0, 0] == 2.0 - 2 * 12.0 * 6.0


# Worker processes over loopback.


def train_in_processes(folder, count, names, capfd, monkeypatch):
    tests = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tests.parent), str(tests)]))
    monkeypatch.delenv("TF_CONFIG", raising=False)
    command = [sys.executable, str(tests / "several_processes.py"), str(folder), *names]
    status = launch(command, count, restarts=0)
    assert status == 0, capfd.readouterr().err
    for index in range(count):
        arrays = np.load(folder / f"{index}.npz")
        history, figures = json.loads((folder / f"{index}.json").read_text())
        yield [arrays[name] for name in arrays.files], history, figures


def check_processes(folder, count, names, capfd, monkeypatch):
    settings = parity.merged(names)
    model, data = parity.build(settings), parity.data(settings)
    expected = training.fit(model, data, parity.EPOCHS, validation_data=data).history
    figures, outputs = training.evaluate(model, data), training.predict(model, data)
    for arrays, history, evaluated in train_in_processes(folder, count, names, capfd, monkeypatch):
        for a, b in zip(arrays, [*model.get_weights(), outputs], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
        assert history.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(history[name], values, atol=1e-5)
        assert evaluated == pytest.approx(figures, abs=1e-5)


PROCESS_FEATURES = ["BatchNorm", "mean by weight", "clip by global norm", "L1, L2", "accumulation"]


@pytest.mark.slow
def test_two_processes_are_one_device(tmp_path, capfd, monkeypatch):
    check_processes(tmp_path, 2, PROCESS_FEATURES, capfd, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("names", [PROCESS_FEATURES, ["masked embedding", "EMA", "sum reduction"]])
@pytest.mark.parametrize("count", [2, 3])
def test_processes_are_one_device(count, names, tmp_path, capfd, monkeypatch):
    check_processes(tmp_path, count, names, capfd, monkeypatch)
