"""The row-sparse optimizers against NumPy, and against Keras on the dense gradient."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcourse import training
from tfcourse.training.optimizers import LazyAdam, RowwiseAdagrad

ROWS, WIDTH, STEPS = 7, 3, 5
RNG = np.random.default_rng(0)
START = RNG.normal(size=(ROWS, WIDTH)).astype("float32")
# Every row in every step, some of them several times.
ALL_IDS = np.stack([RNG.permutation([*range(ROWS), 2, 2, 5]) for _ in range(STEPS)])
SOME_IDS = np.array([[4, 1, 4], [1, 1, 1], [0, 4, 1], [6, 6, 0], [4, 0, 4]])
BOTH = pytest.mark.parametrize("optimizer", [LazyAdam, RowwiseAdagrad])
MODES = pytest.mark.parametrize(
    "jit_compile", [pytest.param(None, marks=pytest.mark.slow), False, True]
)


def table(value=START):
    return keras.Variable(value, name="embeddings")


def gradients(ids, width=(WIDTH,)):
    return np.random.default_rng(1).normal(size=(*ids.shape, *width)).astype("float32")


def dense(ids, values):
    total = np.zeros((ROWS, *values.shape[1:]), values.dtype)
    np.add.at(total, ids, values)
    return total


def train(optimizer, variable, ids, values, *, sparse=True, jit_compile=None):
    """Apply one gradient for each row of `ids`; `jit_compile=None` is eager."""

    def step(ids, values):
        gradient = tf.IndexedSlices(values, ids, tf.constant(tuple(variable.shape)))
        optimizer.apply([gradient if sparse else tf.convert_to_tensor(gradient)], [variable])

    optimizer.build([variable])
    if jit_compile is not None:
        step = tf.function(step, autograph=False, jit_compile=jit_compile)
    for batch in zip(ids, values, strict=True):
        step(*map(tf.constant, batch))
    return variable.numpy()


def numpy_lazy_adam(ids, values):
    rate, beta_1, beta_2, epsilon = 0.1, 0.9, 0.999, 1e-7
    w, m, v = START.astype("float64"), np.zeros(START.shape), np.zeros(START.shape)
    for t, (batch, gradient) in enumerate(zip(ids, values, strict=True), start=1):
        rows = np.unique(batch)
        g = dense(batch, gradient.astype("float64"))[rows]
        m[rows] = beta_1 * m[rows] + (1 - beta_1) * g
        v[rows] = beta_2 * v[rows] + (1 - beta_2) * g**2
        size = rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        w[rows] -= size * m[rows] / (np.sqrt(v[rows]) + epsilon)
    return w, m, v


def numpy_rowwise_adagrad(ids, values):
    rate, epsilon = 0.1, 1e-7
    w, a = START.astype("float64"), np.full(ROWS, 0.1)
    for batch, gradient in zip(ids, values, strict=True):
        g = dense(batch, gradient.astype("float64"))
        a += (g**2).mean(axis=1)
        w -= rate * g / np.sqrt(a + epsilon)[:, None]
    return w, a


@MODES
@pytest.mark.parametrize("ids", [ALL_IDS, SOME_IDS], ids=["all", "some"])
def test_lazy_adam_is_adam_on_the_rows_of_each_batch(ids, jit_compile):
    optimizer, values = LazyAdam(0.1), gradients(ids)
    w = train(optimizer, table(), ids, values, jit_compile=jit_compile)
    expected = numpy_lazy_adam(ids, values)
    slots = (optimizer._momentums[0].numpy(), optimizer._velocities[0].numpy())
    for value, truth in zip((w, *slots), expected, strict=True):
        np.testing.assert_allclose(value, truth, rtol=1e-5, atol=1e-6)
    untouched = np.setdiff1d(np.arange(ROWS), ids)
    np.testing.assert_array_equal(w[untouched], START[untouched])


@MODES
@pytest.mark.parametrize("amsgrad", [False, True])
def test_lazy_adam_is_keras_adam_on_the_dense_gradient(amsgrad, jit_compile):
    values = gradients(ALL_IDS)
    w = train(LazyAdam(0.1, amsgrad=amsgrad), table(), ALL_IDS, values, jit_compile=jit_compile)
    adam = keras.optimizers.Adam(0.1, amsgrad=amsgrad)
    expected = train(adam, table(), ALL_IDS, values, sparse=False)
    np.testing.assert_allclose(w, expected, rtol=1e-5, atol=1e-6)


@MODES
@pytest.mark.parametrize("ids", [ALL_IDS, SOME_IDS], ids=["all", "some"])
def test_rowwise_adagrad_has_one_accumulator_per_row(ids, jit_compile):
    optimizer, values = RowwiseAdagrad(0.1), gradients(ids)
    w = train(optimizer, table(), ids, values, jit_compile=jit_compile)
    expected, accumulators = numpy_rowwise_adagrad(ids, values)
    np.testing.assert_allclose(w, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(optimizer._accumulators[0].numpy(), accumulators, rtol=1e-5)
    untouched = np.setdiff1d(np.arange(ROWS), ids)
    np.testing.assert_array_equal(w[untouched], START[untouched])


@pytest.mark.parametrize("width", [(), (1,)])
def test_rowwise_adagrad_is_adagrad_where_a_row_is_a_number(width):
    values, start = gradients(ALL_IDS, width), np.ones((ROWS, *width), "float32")
    w = train(RowwiseAdagrad(0.1), table(start), ALL_IDS, values)
    adagrad = keras.optimizers.Adagrad(0.1)
    expected = train(adagrad, table(start), ALL_IDS, values, sparse=False)
    np.testing.assert_allclose(w, expected, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*dense gradient")
@BOTH
@pytest.mark.parametrize("shape", [(ROWS,), (ROWS, WIDTH), (ROWS, 2, WIDTH)])
@pytest.mark.parametrize(
    "settings",
    [{}, {"clipnorm": 0.7}, {"clipvalue": 0.3}, {"global_clipnorm": 0.7}, {"weight_decay": 0.5}],
    ids=str,
)
def test_a_sparse_gradient_does_what_the_same_dense_one_does(optimizer, shape, settings):
    values, start = gradients(ALL_IDS, shape[1:]), RNG.normal(size=shape).astype("float32")
    results = [
        train(optimizer(0.1, **settings), table(start), ALL_IDS, values, sparse=sparse)
        for sparse in (True, False)
    ]
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-6)


@BOTH
@pytest.mark.parametrize(
    ("settings", "factor"), [({"clipnorm": 1.0}, 1 / 5), ({"global_clipnorm": 1.0}, 1 / 13)]
)
def test_clipping_reads_the_sum_of_repeated_ids(optimizer, settings, factor):
    ids, values = np.array([2, 2]), np.float32([[1.0, 0, 0], [4.0, 0, 0]])
    other = keras.Variable(np.zeros(1, "float32"), name="bias")
    clipped, plain = table(), table()
    for variable, scale, kwargs in ((clipped, 1, settings), (plain, factor, {})):
        updates = optimizer(0.1, **kwargs)
        gradient = tf.IndexedSlices(tf.constant(values * np.float32(scale)), tf.constant(ids))
        updates.apply([gradient, tf.constant([12.0])], [variable, other])
    np.testing.assert_allclose(clipped.numpy(), plain.numpy(), rtol=1e-5, atol=1e-6)


@BOTH
def test_weight_decay_reaches_only_the_rows_of_the_batch(optimizer):
    ids, values = np.array([[3, 3]]), np.zeros((1, 2, WIDTH), "float32")
    w = train(optimizer(0.1, weight_decay=0.5), table(), ids, values)
    expected = START.copy()
    expected[3] *= 1 - 0.1 * 0.5
    np.testing.assert_allclose(w, expected, rtol=1e-6)
    excluding = optimizer(0.1, weight_decay=0.5)
    excluding.exclude_from_weight_decay(var_names=["embeddings"])
    np.testing.assert_array_equal(train(excluding, table(), ids, values), START)


@BOTH
@MODES
def test_a_batch_without_rows_changes_nothing(optimizer, jit_compile):
    ids, values = np.zeros((1, 0), "int64"), np.zeros((1, 0, WIDTH), "float32")
    updates = optimizer(0.1, global_clipnorm=1.0, weight_decay=0.1)
    w = train(updates, table(), ids, values, jit_compile=jit_compile)
    np.testing.assert_array_equal(w, START)


@BOTH
def test_loss_scale_is_divided_out(optimizer):
    ids, values = SOME_IDS, gradients(SOME_IDS)
    w = train(optimizer(0.1, loss_scale_factor=8.0), table(), ids, 8 * values)
    np.testing.assert_array_equal(w, train(optimizer(0.1), table(), ids, values))


@BOTH
@pytest.mark.parametrize(
    "settings",
    [{}, {"clipnorm": 1.0}, {"clipvalue": 1.0}, {"global_clipnorm": 1.0}, {"weight_decay": 0.1}],
    ids=str,
)
def test_no_operation_of_a_step_sees_the_whole_table(optimizer, settings):
    rows = 12_347
    variable, updates = table(np.zeros((rows, WIDTH), "float32")), optimizer(0.1, **settings)
    updates.build([variable])

    @tf.function(autograph=False)
    def step(ids):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((tf.gather(variable.value, ids) - 1) ** 2)
        updates.apply(tape.gradient(loss, [variable.value]), [variable])

    graph = step.get_concrete_function(tf.TensorSpec((None,), tf.int32)).graph
    shapes = [output.shape for operation in graph.get_operations() for output in operation.outputs]
    assert not [s for s in shapes if s.rank and s[0] == rows]
    reads = [op for op in graph.get_operations() if op.type == "ReadVariableOp"]
    assert all(op.outputs[0].shape.rank == 0 for op in reads)
    step(tf.constant([5, 5, 9]))
    assert np.flatnonzero(variable.numpy().any(axis=1)).tolist() == [5, 9]


X = RNG.integers(0, 50, size=(32, 4)).astype("int32")
Y = (X.sum(axis=1) > 100).astype("float32")[:, None]


def net(optimizer, *, jit_compile=False, regularizer=None, constraint=None):
    keras.utils.set_random_seed(3)
    embedding = keras.layers.Embedding(
        50, 4, embeddings_regularizer=regularizer, embeddings_constraint=constraint, name="items"
    )
    layers = [keras.Input((4,), dtype="int32"), embedding, keras.layers.Flatten()]
    model = keras.Sequential([*layers, keras.layers.Dense(1)])
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=jit_compile)
    return model


def fit(model, epochs=2):
    model.fit(X, Y, batch_size=16, epochs=epochs, shuffle=False, verbose=0)
    return model.get_weights()


def assert_close(weights, others):
    for weight, other in zip(weights, others, strict=True):
        np.testing.assert_allclose(weight, other, rtol=1e-4, atol=1e-6)


@BOTH
def test_model_fit_with_xla_trains_as_without(optimizer):
    plain, jitted = (fit(net(optimizer(0.05, clipnorm=0.1), jit_compile=j)) for j in (False, True))
    assert_close(plain, jitted)
    assert np.abs(plain[0] - net(optimizer()).get_weights()[0]).max() > 0.01


@BOTH
@pytest.mark.parametrize("replicas", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_replicas_train_as_one_device_does(optimizer, replicas):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(12)
    one = net(optimizer(0.05, weight_decay=0.1))
    one.fit(data, epochs=2, shuffle=False, verbose=0)
    with training.strategy(f"cpu:{replicas}").scope():
        many = net(optimizer(0.05, weight_decay=0.1))
    training.fit(many, data, 2)
    assert_close(one.get_weights(), many.get_weights())


@BOTH
def test_replicas_of_a_hand_written_loop_sum_their_rows(optimizer):
    ids, values = SOME_IDS[:, :2], gradients(SOME_IDS[:, :2])
    strategy = training.strategy("cpu:2")
    with strategy.scope():
        variable, updates = table(), optimizer(0.1)
        updates.build([variable])

    @tf.function(autograph=False)
    def step(ids, values):
        def on_replica():
            mine = tf.distribute.get_replica_context().replica_id_in_sync_group
            gradient = tf.IndexedSlices(values[mine, None], ids[mine, None])
            updates.apply([gradient], [variable])

        strategy.run(on_replica)

    for batch in zip(ids, values, strict=True):
        step(*map(tf.constant, batch))
    expected = train(optimizer(0.1), table(), ids, values)
    for copy in strategy.experimental_local_results(variable.value):
        np.testing.assert_allclose(copy.numpy(), expected, rtol=1e-6)


@BOTH
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_the_table_in_float32(optimizer, policy):
    exact = fit(net(optimizer(0.05)))
    keras.config.set_dtype_policy(policy)
    try:
        model = net(optimizer(0.05))
        weights = fit(model)
    finally:
        keras.config.set_dtype_policy("float32")
    assert (type(model.optimizer) is not optimizer) == (policy == "mixed_float16")
    assert weights[0].dtype == "float32"
    np.testing.assert_allclose(weights[0], exact[0], atol=0.02)


@pytest.mark.parametrize(
    ("settings", "layer", "reason"),
    [
        ({"gradient_accumulation_steps": 2}, {}, "gradient_accumulation_steps"),
        ({"use_ema": True}, {}, "use_ema"),
        ({}, {"regularizer": keras.regularizers.L2(0.1)}, "a dense gradient"),
        ({}, {"constraint": "non_neg"}, "its constraint"),
    ],
)
@BOTH
def test_what_reads_the_whole_table_warns_once(optimizer, settings, layer, reason):
    model = net(optimizer(0.05, **settings), **layer)
    with pytest.warns(UserWarning, match=f"every row of .*items/embeddings .*{reason}") as caught:
        fit(model, epochs=1)
    assert sum("every row of" in str(warning.message) for warning in caught) == 1
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*every row of")
        model.make_train_function(force=True)
        fit(model, epochs=1)


@pytest.mark.filterwarnings("ignore:.*touches every row")
@pytest.mark.parametrize(
    "settings",
    [{"gradient_accumulation_steps": 2}, {"gradient_accumulation_steps": 2, "clipnorm": 0.5}],
)
def test_accumulated_gradients_are_those_of_keras_adam(settings):
    values, variable = gradients(SOME_IDS), table()
    w = train(LazyAdam(0.1, **settings), variable, SOME_IDS, values)
    adam = keras.optimizers.Adam(0.1, **settings)
    expected = train(adam, table(), SOME_IDS, values, sparse=False)
    np.testing.assert_allclose(w, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "optimizer",
    [
        LazyAdam(keras.optimizers.schedules.CosineDecay(0.1, 9), beta_1=0.8, weight_decay=0.1),
        RowwiseAdagrad(0.2, initial_accumulator_value=0.3, epsilon=1e-5, global_clipnorm=2.0),
    ],
    ids=["adam", "adagrad"],
)
def test_a_saved_model_goes_on_as_if_it_had_not_been_saved(optimizer, tmp_path):
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(copy) is type(optimizer)
    assert copy.get_config() == optimizer.get_config()
    model = net(optimizer)
    fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for weight, other in zip(fit(model), fit(loaded), strict=True):
        np.testing.assert_array_equal(weight, other)
