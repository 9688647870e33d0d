"""What `fit` takes as `Model.fit` does, what callbacks see, and what is refused in one line."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcourse import training
from tfcourse.training import InMemory
from tfcourse.training.inner import ArrayLoop

ROWS, BATCH = 23, 8
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 5)).astype("float32")
Y = RNG.integers(0, 3, ROWS).astype("int32")
WEIGHTS = RNG.uniform(0.2, 2.0, ROWS).astype("float32")


def net(optimizer="adam", units=3, **settings):
    keras.utils.set_random_seed(7)
    layers = [keras.Input((5,)), keras.layers.Dense(6, "tanh"), keras.layers.Dense(units)]
    model = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, **({"loss": loss, "metrics": ["accuracy"]} | settings))
    return model


def batches(size=BATCH, rows=ROWS):
    return tf.data.Dataset.from_tensor_slices((X[:rows], Y[:rows])).batch(size)


def refused(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


# Bad input.


@pytest.mark.parametrize(
    ("loss", "targets", "message"),
    [
        ("mse", np.zeros((ROWS, 4)), r"targets must have the shape \(None, 3\).*'mse'.*got \("),
        (
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            np.eye(3)[Y],
            r"targets must have the shape \(None,\) for the loss 'sparse_categorical_crossentropy'",
        ),
        (
            keras.losses.CategoricalCrossentropy(from_logits=True),
            Y,
            r"targets must have the shape \(None, 3\) for the loss 'categorical_crossentropy'",
        ),
        ("binary_crossentropy", np.zeros((ROWS, 2)), r"targets must have the shape \(None, 3\)"),
    ],
)
@pytest.mark.parametrize("kind", ["in memory", "tf.data"])
def test_targets_of_the_wrong_shape(loss, targets, message, kind):
    data = InMemory(X, targets, BATCH)
    data = data if kind == "in memory" else data.dataset()
    refused(lambda: training.fit(net(loss=loss), data, 1), message)


def test_targets_of_one_output_of_two():
    inputs = keras.Input((5,))
    outputs = {name: keras.layers.Dense(n, name=name)(inputs) for name, n in (("a", 1), ("b", 2))}
    model = keras.Model(inputs, outputs)
    model.compile("sgd", {"a": "mse", "b": "mse"})
    data = InMemory(X, {"a": X[:, :1], "b": X[:, :3]}, BATCH)
    refused(lambda: training.fit(model, data, 1), r"targets must have the shape \(None, 2\)")


@pytest.mark.parametrize("loss", ["binary_crossentropy", keras.losses.BinaryCrossentropy(True)])
@pytest.mark.parametrize("labels", [np.ones(ROWS), np.zeros((ROWS, 1), "int32")])
def test_labels_that_are_all_the_same(loss, labels):
    message = f"labels must not all be the same, got {labels.max():g} for each of 23 rows"
    refused(lambda: training.fit(net(units=1, loss=loss), InMemory(X, labels, BATCH), 1), message)


LAST_DIFFERS = np.arange(ROWS) == ROWS - 1


def stream(labels):
    return tf.data.Dataset.from_tensor_slices((X, labels.astype("float32"))).batch(BATCH)


def labelled(loss="binary_crossentropy", **settings):
    return net(units=1, loss=loss, **settings)


@pytest.mark.parametrize(("device", "eager"), [("cpu", False), ("cpu", True), ("cpu:2", False)])
def test_labels_of_a_stream_that_are_all_the_same(device, eager, tmp_path):
    message = "labels must not all be the same, got 0 for each of 23 rows"
    often = training.Checkpointing(every_steps=1)
    for _ in range(2):  # nothing is written down that a second run would go on from
        with training.strategy(device).scope():
            model = labelled(run_eagerly=eager)
            data = stream(np.zeros(ROWS))
            refused(
                lambda m=model, d=data: training.fit(m, d, 2, workdir=tmp_path, callbacks=[often]),
                message,
            )
        assert model.optimizer.iterations == 3
    with training.strategy(device).scope():
        model = labelled(run_eagerly=eager)
    data = stream(np.arange(ROWS) % 2)
    training.fit(model, data, 1, workdir=tmp_path, callbacks=[often])
    assert model.optimizer.iterations == 3


def named(labels):
    return stream(labels).map(lambda x, y: (x, {"logits": y}))


def test_labels_that_go_by_the_name_of_the_output():
    inputs = keras.Input((5,))
    outputs = {"logits": keras.layers.Dense(1, "sigmoid", name="logits")(inputs)}
    model = keras.Model(inputs, outputs)
    model.compile("sgd", {"logits": "binary_crossentropy"})
    training.fit(model, named(LAST_DIFFERS), 1)
    same = {"logits": np.ones(ROWS, "float32")}
    for data in (named(np.ones(ROWS)), InMemory(X, same, BATCH)):
        refused(lambda d=data: training.fit(model, d, 1), "labels must not all be the same, got 1")


class OfFour(keras.Model):
    """Its own step takes batches of four, and needs no compiled loss."""

    def train_step(self, data):
        x, *three = data
        with tf.GradientTape() as tape:
            loss = sum(tf.reduce_mean((self(x)[:, 0] - y) ** 2) for y in three)
        weights = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


def test_batches_of_a_models_own_step_have_any_form():
    inputs = keras.Input((5,))
    model = OfFour(inputs, keras.layers.Dense(1, "sigmoid")(inputs))
    model.compile("sgd")
    data = stream(np.ones(ROWS)).map(lambda x, y: (x, y, y, y))
    training.fit(model, data, 1)
    assert model.optimizer.iterations == 3


def test_a_later_pass_may_have_one_label():
    """Each pass is of six rows; the one positive is in the first pass."""
    passes = iter([slice(-6, None), slice(6), slice(6)])

    def rows():
        chosen = next(passes)
        yield from zip(X[chosen], LAST_DIFFERS[chosen], strict=True)

    signature = (tf.TensorSpec((5,)), tf.TensorSpec(()))
    drawn = tf.data.Dataset.from_generator(rows, output_signature=signature).batch(3)
    history = training.fit(labelled(), drawn, 3)
    assert history.epoch == [0, 1, 2]


def test_labels_of_a_stream_of_unknown_length_are_judged_when_it_ends():
    rows = stream(np.ones(ROWS)).filter(lambda x, y: True)
    message = "labels must not all be the same, got 1 for each of 23 rows"
    refused(lambda: training.fit(labelled(), rows, 2), message)
    refused(lambda: training.fit(labelled(), rows, 4, steps_per_epoch=2), message)


@pytest.mark.parametrize(
    ("labels", "settings"),
    [
        (LAST_DIFFERS, {}),
        # Each epoch is a part of a pass, and the first two have one label.
        (LAST_DIFFERS, {"steps_per_epoch": 1}),
        (np.ones(ROWS), {"steps_per_epoch": 1, "epochs": 2}),
        (np.ones(ROWS), {"loss": "mse"}),
    ],
)
def test_streams_whose_labels_differ_or_may_not(labels, settings):
    model, epochs = labelled(settings.pop("loss", "binary_crossentropy")), settings.pop("epochs", 3)
    history = training.fit(model, stream(labels), epochs, **settings)
    assert history.epoch == list(range(epochs))


@pytest.mark.parametrize("goes_on", [False, True])
def test_the_rest_of_a_pass_after_a_resume_may_have_one_label(goes_on, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                raise KeyboardInterrupt

    labels = np.arange(ROWS) == 0
    settings = {"steps_per_epoch": 3} if goes_on else {}
    run = functools.partial(
        training.fit, data=stream(labels), epochs=2, workdir=tmp_path, **settings
    )
    with pytest.raises(KeyboardInterrupt):
        run(labelled(), callbacks=[Stop(), training.Checkpointing(every_steps=1)])
    model = labelled()
    run(model)
    assert model.optimizer.iterations == 6


@pytest.mark.parametrize(
    ("units", "targets", "settings"),
    [
        (1, np.arange(ROWS) % 2, {}),
        (1, np.ones(ROWS), {"loss": "mse"}),
        (3, np.zeros((ROWS, 3)), {}),  # such as the pixels of a black border
        (1, np.ones(ROWS), {"one_label": True}),
        (1, np.ones(ROWS), {"step": training.weight_noise(0.1)}),
    ],
)
def test_targets_that_may_be_all_the_same(units, targets, settings):
    model = net(units=units, loss=settings.get("loss", keras.losses.BinaryCrossentropy(True)))
    model.one_label = settings.get("one_label", False)
    training.fit(model, InMemory(X, targets, BATCH), 1, step=settings.get("step"))
    assert model.optimizer.iterations == -(-ROWS // BATCH)


def test_inputs_of_the_wrong_shape():
    with pytest.raises(ValueError, match=r"expected shape=\(None, 5\), found shape=\(None, 4\)"):
        training.fit(net(), InMemory(X[:, :4], Y, BATCH), 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"steps_per_call": 0}, "steps_per_call must be at least 1, got 0"),
        ({"steps_per_epoch": 0}, "steps_per_epoch must be at least 1, got 0"),
        ({"jit_compile": "yes"}, "jit_compile must be True, False or 'auto', got 'yes'"),
        ({"data": (X, Y)}, "data must be a tf.data.Dataset or InMemory, got tuple"),
        ({"validation_data": (X, Y)}, "validation_data must be a tf.data.Dataset or InMemory, got"),
        ({"data": batches().take(0)}, "^data must have at least one batch, got none"),
        ({"data": batches().filter(lambda x, y: False)}, "^data must have at least one batch"),
        ({"validation_data": batches().take(0)}, "^validation_data must have at least one batch"),
        (
            {"validation_data": batches().filter(lambda x, y: False)},
            "data must have at least one batch, got none",
        ),
        ({"data": batches().repeat()}, "data must end, got an endless data set"),
        ({"validation_data": batches().repeat()}, "validation_data must end"),
    ],
)
def test_arguments_of_fit(settings, message):
    settings = {"data": batches(), "epochs": 1} | settings
    refused(
        lambda: training.fit(net(), settings.pop("data"), settings.pop("epochs"), **settings),
        message,
    )


def test_models_that_cannot_be_trained():
    bare = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)], name="bare")
    refused(lambda: training.fit(bare, batches(), 1), "must be compiled before training, bare is")
    refused(lambda: training.evaluate(bare, batches()), "must be compiled")
    strategy = training.strategy("cpu:2")
    with strategy.scope():
        bare.compile("sgd", "mse")
    refused(lambda: training.fit(bare, batches(), 1), "built and compiled in its strategy's scope")
    with strategy.scope():
        refused(lambda: training.fit(net(), batches(1), 1), "number of replicas, 2, got 1")
        refused(lambda: training.fit(net(), InMemory(X, Y, 1), 1), "number of replicas, 2, got 1")
    refused(lambda: training.strategy("gpus"), "strategy must be one of .*, got 'gpus'")


def test_a_workdir_of_another_model(tmp_path):
    training.fit(net(), batches(), 1, workdir=tmp_path)
    other = net(units=4)
    message = r"is of another model: it has kernel \(6, 3\) float32 where this model has.*\(6, 4\)"
    refused(lambda: training.fit(other, batches(), 2, workdir=tmp_path), message)


def test_a_short_last_batch_is_no_small_batch():
    with training.strategy("cpu:4").scope():
        model = net()
    assert len(training.fit(model, batches(8, 9), 1).history["loss"]) == 1


# What works as in `Model.fit`.


def compare(build, data, length=None, **settings):
    """Train by `fit` and by `Model.fit`; return the history, after comparing all.

    Keras is told the length: where it does not know it, it makes one more step at the end of each
    epoch, with gradients of zero.
    """
    ours, theirs = build(), build()
    history = training.fit(ours, data, 3, **settings).history
    if length:
        data = data.apply(tf.data.experimental.assert_cardinality(length))
    expected = theirs.fit(data, epochs=3, shuffle=False, verbose=0, **settings).history
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert history.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=2e-6)
    return history


def two_inputs():
    keras.utils.set_random_seed(3)
    inputs = {name: keras.Input((5,), name=name) for name in ("left", "right")}
    both = keras.layers.Concatenate()([inputs["left"], inputs["right"]])
    outputs = {
        "a": keras.layers.Dense(1, name="a")(both),
        "b": keras.layers.Dense(3, name="b")(both),
    }
    model = keras.Model(inputs, outputs)
    losses = {"a": "mse", "b": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
    model.compile(
        "adam",
        losses,
        loss_weights={"a": 0.2, "b": 3.0},
        metrics={"a": ["mae"]},
        weighted_metrics={"b": ["accuracy"]},
    )
    return model


def test_dicts_with_weights_of_losses_and_of_rows():
    inputs, targets = {"left": X, "right": X[::-1]}, {"a": X[:, :1], "b": Y}
    weights = {"a": WEIGHTS, "b": WEIGHTS[::-1]}
    data = tf.data.Dataset.from_tensor_slices((inputs, targets, weights)).batch(BATCH)
    history = compare(two_inputs, data, validation_data=data)
    assert {"a_loss", "b_loss", "a_mae", "b_accuracy", "val_loss"} <= set(history)


def test_steps_per_epoch_of_an_endless_pipeline():
    data = batches(5).repeat()  # five batches a pass: an epoch of seven begins anywhere
    history = compare(net, data, steps_per_epoch=7, validation_data=batches())
    assert len(history["loss"]) == 3


def test_a_pipeline_of_unknown_length():
    data = batches().filter(lambda x, y: tf.reduce_sum(y) >= 0)
    assert data.cardinality() == tf.data.UNKNOWN_CARDINALITY
    compare(net, data, 3, validation_data=batches())


def test_a_model_that_runs_eagerly():
    calls = []

    class Counts(keras.layers.Layer):
        def call(self, x):
            calls.append(x.shape)
            return x

    def build():
        keras.utils.set_random_seed(7)
        model = keras.Sequential([keras.Input((5,)), Counts(), keras.layers.Dense(3)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, run_eagerly=True)
        return model

    compare(build, batches())
    calls.clear()
    training.fit(build(), batches(), 2)
    assert calls.count((8, 5)) >= 4  # every batch goes through Python
    assert calls.count((7, 5)) == 2


def test_sequences_of_unknown_length():
    """A batch is as long as its longest row: one graph for all lengths."""

    def build():
        keras.utils.set_random_seed(7)
        layers = [keras.Input((None,), dtype="int32"), keras.layers.Embedding(9, 4, mask_zero=True)]
        layers += [keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(1)]
        model = keras.Sequential(layers)
        model.compile("adam", "mse")
        return model

    rows = [(RNG.integers(1, 9, n).astype("int32"), float(n)) for n in (3, 7, 1, 4, 5, 2, 6)]
    spec = (tf.TensorSpec((None,), tf.int32), tf.TensorSpec(()))
    data = tf.data.Dataset.from_generator(lambda: iter(rows), output_signature=spec)
    compare(build, data.padded_batch(3), 3)


# Callbacks.


class Ends(keras.callbacks.Callback):
    """Notes the batches whose end it is told of."""

    def __init__(self):
        super().__init__()
        self.seen, self.logs, self.iterations = [], [], []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(batch)
        self.logs.append(logs)
        self.iterations.append(int(self.model.optimizer.iterations.numpy()))


class Rhythmic(Ends):
    reads_batches = False


def test_a_callback_that_reads_batches_gets_every_one_at_its_time():
    ends = Ends()
    training.fit(net(), InMemory(X, Y, 2), 2, callbacks=[ends])
    assert ends.seen == [*range(12), *range(12)]
    assert ends.iterations == list(range(1, 25))
    assert all(set(logs) == {"loss", "accuracy"} for logs in ends.logs)


def test_others_hear_of_many_at_once():
    rhythmic, rows = Rhythmic(), 4000
    x, y = np.zeros((rows, 5)), np.zeros(rows, int)
    training.fit(net(), InMemory(x, y, 2), 1, callbacks=[rhythmic])
    assert rhythmic.seen == sorted(rhythmic.seen)
    assert rhythmic.seen[-1] == 1999
    assert len(rhythmic.seen) < 200
    assert rhythmic.iterations == [batch + 1 for batch in rhythmic.seen]


@pytest.mark.parametrize("data", [InMemory(X, Y, 2), batches(2)], ids=["in memory", "tf.data"])
def test_a_number_of_steps_in_a_call(data):
    rhythmic = Rhythmic()
    training.fit(net(), data, 1, callbacks=[rhythmic], steps_per_call=5)
    # The last batch has one row; arrays go there by a call of its own.
    assert rhythmic.seen in ([4, 9, 11], [4, 9, 10, 11])


def test_training_may_stop_in_the_middle_of_an_epoch():
    class Stop(Ends):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            self.model.stop_training = (len(self.seen)) == 15

    ours, theirs = Stop(), Stop()
    data = batches(2)
    history = training.fit(net(), data, 5, callbacks=[ours], validation_data=data).history
    expected = net().fit(
        data, epochs=5, callbacks=[theirs], validation_data=data, shuffle=False, verbose=0
    )
    assert ours.seen == [*range(12), *range(3)]
    assert len(history["loss"]) == len(history["val_loss"]) == 2
    assert history["loss"][0] == pytest.approx(expected.history["loss"][0], rel=1e-6)


def test_a_learning_rate_set_between_calls_counts_from_the_next_step():
    class Halve(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.optimizer.learning_rate = 0.5 / (batch + 1)

    ours, theirs = net("sgd"), net("sgd")
    training.fit(ours, batches(), 2, callbacks=[Halve()])
    theirs.fit(batches(), epochs=2, callbacks=[Halve()], shuffle=False, verbose=0)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_callbacks_are_closed_when_training_raises():
    class Closes(keras.callbacks.Callback):
        closed = False

        def on_epoch_begin(self, epoch, logs=None):
            raise RuntimeError("stop here")

        def close(self):
            self.closed = True

    callback = Closes()
    with pytest.raises(RuntimeError, match="stop here"):
        training.fit(net(), batches(), 1, callbacks=[callback])
    assert callback.closed


def memory():
    return InMemory(X, Y, BATCH)


@pytest.mark.parametrize(
    "weights", [{}, {0.5: 1.0}, "balanced", {-1: 1.0}], ids=["none", "float", "text", "below 0"]
)
def test_class_weights_that_cannot_be(weights):
    with pytest.raises(ValueError, match=r"^class_weight must be a weight"):
        training.fit(net(), memory(), 1, class_weight=weights)


def test_class_weights_by_numbers_of_numpy(tmp_path):
    weights = dict(zip(np.arange(2), np.array([0.5, 2.0]), strict=True))
    plain = training.fit(net(), memory(), 1, class_weight={0: 0.5, 1: 2.0}).history
    assert training.fit(net(), memory(), 1, class_weight=weights, workdir=tmp_path).history == plain


def test_what_resumes_by_itself_is_refused(tmp_path):
    backup = keras.callbacks.BackupAndRestore(str(tmp_path))
    with pytest.raises(ValueError, match="callbacks must not have BackupAndRestore"):
        training.fit(net(), memory(), 1, callbacks=[backup])


def test_keras_own_progress_bar_runs():
    bar = keras.callbacks.ProgbarLogger()
    assert len(training.fit(net(), memory(), 2, callbacks=[bar]).history["loss"]) == 2
    assert (bar.verbose, bar.epochs) == (0, 2)


def test_callbacks_for_epochs_do_not_slow_the_steps(tmp_path, monkeypatch):
    calls = []
    run = ArrayLoop.run
    monkeypatch.setattr(ArrayLoop, "run", lambda self, n: calls.append(n) or run(self, n))
    callbacks = [
        keras.callbacks.ModelCheckpoint(str(tmp_path / "m.keras")),
        keras.callbacks.TensorBoard(str(tmp_path / "logs")),
    ]
    training.fit(net(), memory(), 8, callbacks=callbacks)
    assert max(calls) > 1


@pytest.mark.parametrize("name", ["cpu", "cpu:2"])
def test_columns_that_a_model_does_not_have_are_left_out(name):
    """Keras would give the first column in the alphabet to the first input, and so on."""
    rng = np.random.default_rng(0)
    columns = {column: rng.normal(size=(24, 1)).astype("float32") for column in ("b", "c")}
    more = {"a": np.zeros((24, 1), "float32"), **columns, "z": np.ones((24, 1), "float32")}
    found = []
    for given in (columns, more):
        keras.utils.set_random_seed(0)
        with training.strategy(name).scope():
            inputs = {column: keras.Input((1,), name=column) for column in columns}
            x = keras.layers.Concatenate()([inputs["b"], 2 * inputs["c"]])
            model = keras.Model(inputs, keras.layers.Dense(1)(x))
            model.compile("sgd", "mse")
        data = training.InMemory(given, columns["c"], 8, shuffle=False)
        loss = training.fit(model, data, 2).history["loss"]
        found.append((loss, training.evaluate(model, data)["loss"], training.predict(model, data)))
    for without, with_more in zip(*found, strict=True):
        np.testing.assert_array_equal(without, with_more)
