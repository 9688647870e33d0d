"""Steps of one's own, one worked example each: a GAN, distillation, several tasks; `train_step`.

Each computes the loss over the rows of all replicas (`gather`) and adds the gradients up before
the update (`apply_gradients`): so one replica and two come to the same weights. What is random in
the steps, a GAN's noise, comes with the data here, so that the two can be compared.
"""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcourse import training
from tfcourse.training import apply_gradients, gather

ROWS, BATCH = 21, 8  # the last batch has five rows: three and two
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 4)).astype("float32")
NOISE = RNG.normal(size=(ROWS, 3)).astype("float32")
LABELS = RNG.integers(0, 3, ROWS).astype("int32")
HEIGHTS = RNG.normal(size=(ROWS, 1)).astype("float32")


def in_scope(replicas, build):
    """Build with the same seed, in the scope of so many replicas."""
    strategy = training.strategy(f"cpu:{replicas}") if replicas > 1 else None
    with strategy.scope() if strategy else contextlib.nullcontext():
        keras.utils.set_random_seed(3)
        return build()


def perceptron(inputs, outputs, name=None, norm=False):
    layers = [keras.Input((inputs,)), keras.layers.Dense(6, "tanh")]
    layers += [keras.layers.BatchNormalization()] if norm else []
    return keras.Sequential([*layers, keras.layers.Dense(outputs)], name=name)


# A GAN: two networks, each with its own optimizer.


class GAN(keras.Model):
    """A generator and a discriminator."""

    def __init__(self):
        super().__init__()
        self.generator = perceptron(3, 4, norm=True)
        self.discriminator = perceptron(4, 1)

    def compile(self, generator_optimizer, discriminator_optimizer):
        super().compile(optimizer=None)
        self.generator_optimizer = generator_optimizer
        self.discriminator_optimizer = discriminator_optimizer
        generator_optimizer.build(self.generator.trainable_variables)
        discriminator_optimizer.build(self.discriminator.trainable_variables)


def gan_step(model, batch):
    noise, real = batch
    with tf.GradientTape(persistent=True) as tape:
        fake = model.generator(noise, training=True)
        on_real = gather(model.discriminator(real, training=True))
        on_fake = gather(model.discriminator(fake, training=True))
        cross_entropy = keras.losses.BinaryCrossentropy(from_logits=True)
        seen = cross_entropy(tf.ones_like(on_real), on_real)
        seen += cross_entropy(tf.zeros_like(on_fake), on_fake)
        fooled = cross_entropy(tf.ones_like(on_fake), on_fake)
    for network, loss, optimizer in (
        (model.generator, fooled, model.generator_optimizer),
        (model.discriminator, seen, model.discriminator_optimizer),
    ):
        weights = network.trainable_variables
        apply_gradients(optimizer, tape.gradient(loss, weights), weights)
    return {"generator_loss": fooled, "discriminator_loss": seen}


def gan():
    model = GAN()
    model.compile(keras.optimizers.Adam(0.01, beta_1=0.5), keras.optimizers.Adam(0.02))
    return model, gan_step, training.InMemory(NOISE, X, BATCH, seed=1)


# Distillation: a small network learns the soft predictions of a large one, which stays as it is.


def distillation():
    teacher, student = perceptron(4, 3, name="teacher"), perceptron(4, 3, name="student")
    teacher.trainable = False
    student.compile("adam", metrics=["accuracy"])
    temperature = 3.0

    def step(model, batch):
        x, y = batch
        soft = tf.nn.softmax(gather(teacher(x, training=False)) / temperature)
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            everybody = gather(logits)
            hard = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
                gather(y), everybody
            )
            alike = keras.losses.KLDivergence()(soft, tf.nn.softmax(everybody / temperature))
            loss = 0.3 * hard + 0.7 * temperature**2 * alike
        weights = model.trainable_variables
        apply_gradients(model.optimizer, tape.gradient(loss, weights), weights)
        model.compute_metrics(x, y, logits)
        return {"loss": loss}

    return student, step, training.InMemory(X, LABELS, BATCH, seed=1)


# Two tasks, weighed by how uncertain each is (Kendall et al., 2018, https://arxiv.org/abs/1705.07115):
# the model learns a log variance for each, and a loss counts exp(-log variance).


class TwoTasks(keras.Model):
    """One body, a head for each task, and the log variances of the tasks."""

    def __init__(self):
        super().__init__()
        self.body = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, "tanh")])
        self.label = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
        self.height = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
        self.log_variances = self.add_weight(shape=(2,), initializer="zeros", name="log_variances")

    def call(self, x):
        features = self.body(x)
        # As an output of each row: what goes through `gather` is added up over the replicas once.
        variances = self.log_variances + tf.zeros_like(x[:, :1])
        outputs = {"label": self.label(features), "height": self.height(features)}
        return outputs | {"log_variances": variances}


def two_tasks_step(model, batch):
    x, y = batch
    with tf.GradientTape() as tape:
        outputs, targets = gather(model(x)), gather(y)
        label = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        losses = tf.stack(
            [
                label(targets["label"], outputs["label"]),
                keras.losses.MeanSquaredError()(targets["height"], outputs["height"]),
            ]
        )
        log_variances = tf.reduce_mean(outputs["log_variances"], axis=0)
        loss = tf.reduce_sum(tf.exp(-log_variances) * losses + log_variances)
    weights = model.trainable_variables
    apply_gradients(model.optimizer, tape.gradient(loss, weights), weights)
    return {"loss": loss, "label_loss": losses[0], "height_loss": losses[1]}


def two_tasks():
    model = TwoTasks()
    model.build((None, 4))
    model.compile(keras.optimizers.Adam(0.01, global_clipnorm=0.5))
    targets = {"label": LABELS, "height": HEIGHTS}
    return model, two_tasks_step, training.InMemory(X, targets, BATCH, seed=1)


EXAMPLES = [gan, distillation, two_tasks]


@pytest.fixture(scope="module", params=EXAMPLES, ids=lambda example: example.__name__)
def whole(request):
    """Return an example, the model after six epochs on one replica, and its history."""
    model, step, data = in_scope(1, request.param)
    before = model.get_weights()
    history = training.fit(model, data, 6, step=step).history
    assert any(not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    return request.param, model, history


def test_two_replicas_come_to_the_same(whole):
    example, one, expected = whole
    two, step, data = in_scope(2, example)
    history = training.fit(two, data, 6, step=step).history
    assert history.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, atol=2e-6)
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


class Crash(keras.callbacks.Callback):
    """Ends the run in the middle of its fourth epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (3, 1):
            raise KeyboardInterrupt


def test_a_resume_has_everything_that_the_step_changes(whole, tmp_path):
    """Also what the model does not have as its own, as the slots of a second optimizer."""
    example, expected, history = whole
    model, step, data = in_scope(1, example)
    callbacks = [training.Checkpointing(every_steps=2), Crash()]
    with pytest.raises(KeyboardInterrupt):
        training.fit(model, data, 6, step=step, workdir=tmp_path, callbacks=callbacks)
    model, step, data = in_scope(1, example)
    resumed = training.fit(model, data, 6, step=step, workdir=tmp_path, callbacks=callbacks[:1])
    assert resumed.history == history
    for a, b in zip(expected.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_tenth_optimizer_of_a_program_comes_after_the_ninth(tmp_path):
    """Keras numbers optimizers as a program makes them; the numbers are not to shift a resume."""
    keras.backend.clear_session()  # which begins the numbers anew
    model, step, data = in_scope(1, gan)
    for _ in range(5):  # so that the second GAN has the optimizers 9 and 10, or 8 and 9
        keras.optimizers.Adam().build([keras.Variable([0.0])])
    history = training.fit(model, data, 2, step=step, workdir=tmp_path).history
    for numbers in range(3):
        model, step, data = in_scope(1, gan)
        resumed = training.fit(model, data, 3 + numbers, step=step, workdir=tmp_path).history
        assert resumed["generator_loss"][:2] == history["generator_loss"]


def test_the_teacher_stays_as_it_is_and_the_student_comes_closer():
    student, step, data = in_scope(1, distillation)
    history = training.fit(student, data, 20, step=step).history
    assert history["loss"][-1] < history["loss"][0]
    assert history["accuracy"][-1] == pytest.approx(
        np.mean(student.predict(X, verbose=0).argmax(1) == LABELS), abs=0.15
    )


def test_the_uncertainties_of_the_tasks_follow_their_losses():
    """At the optimum the variance of a task is its loss; the larger loss has the larger one."""
    model, step, data = in_scope(1, two_tasks)
    model.body.trainable = model.label.trainable = model.height.trainable = False
    model.compile(keras.optimizers.Adam(0.05))
    history = training.fit(model, data, 120, step=step).history
    losses = [np.mean(history[f"{task}_loss"][-3:]) for task in ("label", "height")]
    full = [
        float(
            keras.losses.SparseCategoricalCrossentropy(from_logits=True)(LABELS, model(X)["label"])
        ),
        float(np.mean((HEIGHTS - model(X)["height"]) ** 2)),
    ]
    assert len(losses) == 2
    np.testing.assert_allclose(np.exp(model.log_variances.numpy()), full, rtol=0.25)


class OwnTrainStep(keras.Model):
    """Trains on the sum of squares, and has a metric of its own."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.seen = keras.metrics.Mean(name="error")
        self.dense.build((None, 4))

    def call(self, x):
        return self.dense(x)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            error = tf.reduce_sum((self(x, training=True) - y) ** 2)
        weights = self.trainable_variables
        self.optimizer.apply(tape.gradient(error, weights), weights)
        self.seen.update_state(error)
        return {"error": self.seen.result()}

    def test_step(self, data):
        x, y = data
        self.seen.update_state(10 * tf.reduce_sum((self(x) - y) ** 2))
        return {"error": self.seen.result()}

    @property
    def metrics(self):
        return [self.seen]


def test_a_train_step_and_a_test_step_of_the_models_own_are_run():
    def build():
        model = OwnTrainStep()
        model.compile(keras.optimizers.SGD(0.001))
        return model

    ours, theirs = in_scope(1, build), in_scope(1, build)
    data = tf.data.Dataset.from_tensor_slices((X, HEIGHTS)).batch(BATCH)
    expected = theirs.fit(data, validation_data=data, epochs=3, shuffle=False, verbose=0).history
    history = training.fit(ours, data, 3, validation_data=data).history
    assert history.keys() == expected.keys() == {"error", "val_error"}
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-6)
    np.testing.assert_allclose(ours.dense.kernel.numpy(), theirs.dense.kernel.numpy(), atol=1e-7)
