"""The Hub layer against what TensorFlow's own loader gives, and against what Keras promises."""

import keras
import numpy as np
import pytest
import savedmodels
import tensorflow as tf

import hub_models
from tfcourse import training

X = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
Y = np.arange(12) % 3


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TFCOURSE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def reusable(tmp_path_factory):
    return savedmodels.write_reusable(tmp_path_factory.mktemp("models") / "reusable")


def classifier(layer, **compile_arguments):
    model = keras.Sequential([keras.Input((4,)), layer])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], **compile_arguments)
    return model


def values(layer):
    return [w.numpy().copy() for w in layer.weights]


def moved(before, layer):
    after = zip(layer.weights, before, strict=True)
    return {w.path.split("/", 1)[1] for w, b in after if not np.array_equal(w, b)}


def test_weights_are_the_saved_models_variables(reusable):
    layer = hub_models.load(reusable, trainable=True)
    loaded = layer.resolved_object
    assert [w.value for w in layer.trainable_weights] == list(loaded.trainable_variables)
    assert {id(w.value) for w in layer.weights} == {id(v) for v in loaded.variables}
    assert layer.count_params() == 4 * 8 + 8 * 3 + 4 * 8
    np.testing.assert_array_equal(layer(X), tf.saved_model.load(str(reusable))(X))


def test_fit_moves_every_variable_and_a_frozen_layer_none(reusable):
    layer = hub_models.load(reusable, trainable=True)
    model, before = classifier(layer), values(layer)
    model.fit(X, Y, verbose=0)
    assert len(moved(before, layer)) == 6
    frozen = hub_models.load(reusable)
    model, before = classifier(frozen), values(frozen)
    assert not model.trainable_variables
    np.testing.assert_array_equal(frozen(X, training=True), frozen(X, training=False))
    assert not moved(before, frozen)


def test_our_loop_moves_every_variable(reusable):
    layer = hub_models.load(reusable, trainable=True)
    model, before = classifier(layer), values(layer)
    training.fit(model, tf.data.Dataset.from_tensor_slices((X, Y)).batch(4), 1)
    assert len(moved(before, layer)) == 6


def test_it_trains_on_two_replicas(reusable):
    with training.strategy("cpu:2").scope():
        layer = hub_models.load(reusable, trainable=True, arguments={"training": False})
        model = classifier(layer)
    before = [w.value.values[0].numpy() for w in layer.weights]
    training.fit(model, tf.data.Dataset.from_tensor_slices((X, Y)).batch(4), 2)
    alone = hub_models.load(reusable, trainable=True, arguments={"training": False})
    training.fit(classifier(alone), tf.data.Dataset.from_tensor_slices((X, Y)).batch(4), 2)
    changed = 0
    for one, many, old in zip(alone.weights, layer.weights, before, strict=True):
        replicas = [v.numpy() for v in many.value.values]
        np.testing.assert_array_equal(replicas[0], replicas[1])
        np.testing.assert_allclose(replicas[0], one.numpy(), atol=1e-5)
        changed += not np.array_equal(replicas[0], old)
    assert changed == 4


def test_freeze_and_unfreeze(reusable):
    layer = hub_models.load(reusable)
    model = classifier(layer)
    counts = []
    for value in (True, False, "hidden|output", "hidden", True):
        layer.trainable = value
        counts.append(len(model.trainable_variables))
    assert counts == [4, 0, 2, 1, 4]
    model.trainable = False
    assert not model.trainable_variables
    model.trainable = True
    assert len(model.trainable_variables) == 4


def test_a_model_around_a_signature_can_be_frozen_and_unfrozen(reusable):
    layer = hub_models.load(reusable, signature="serving_default")
    model = keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(2)])
    for value, count in ((False, 0), (True, 2)):
        model.trainable = value
        assert len(model.trainable_variables) == count


def test_unfreezing_asks_for_another_compile(reusable):
    layer = hub_models.load(reusable, trainable="output")
    model, data = classifier(layer), tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    training.fit(model, data, 1)
    layer.trainable = True
    with pytest.raises(ValueError, match="must be compiled again after its trainable variables"):
        training.fit(model, data, 1)


def test_a_function_traced_only_with_its_default(tmp_path):
    root = tf.train.Checkpoint(scale=tf.Variable(2.0, name="scale"))
    root.__call__ = tf.function(lambda x, training=None: x * root.scale)
    root.__call__.get_concrete_function(tf.TensorSpec([None, 4]))
    tf.saved_model.save(root, str(tmp_path / "model"))
    layer = hub_models.load(tmp_path / "model", trainable=True)
    np.testing.assert_array_equal(layer(X, training=True), 2 * X)


def test_only_what_the_expression_names_moves(reusable):
    layer = hub_models.load(reusable, trainable="output", arguments={"training": False})
    before = values(layer)
    classifier(layer).fit(X, Y, verbose=0)
    assert moved(before, layer) == {"output"}


def test_training_is_routed_and_can_be_pinned(reusable):
    layer = hub_models.load(reusable, trainable=True)
    before = values(layer)
    layer(X, training=False)
    assert not moved(before, layer)
    layer(X, training=True)
    assert moved(before, layer) == {"mean", "variance"}
    pinned = hub_models.load(reusable, trainable=True, arguments={"training": False})
    before = values(pinned)
    np.testing.assert_array_equal(pinned(X, training=True), pinned(X, training=False))
    assert not moved(before, pinned)
    classifier(pinned).fit(X, Y, verbose=0)
    assert "mean" not in moved(before, pinned)
    assert "hidden" in moved(before, pinned)


def test_regularisation_losses_are_added(reusable):
    layer = hub_models.load(reusable, trainable=True)
    layer(X)
    kernel = next(w for w in layer.weights if w.path.endswith("hidden"))
    assert float(layer.losses[0]) == pytest.approx(0.01 * float((kernel.numpy() ** 2).sum()))
    layer.trainable = False
    layer(X)
    assert not layer.losses


def test_functional_sequential_and_subclassed(reusable):
    class Subclassed(keras.Model):
        def __init__(self, hub):
            super().__init__()
            self.hub = hub

        def call(self, inputs, training=None):
            return self.hub(inputs, training=training)

    layer = hub_models.load(reusable, trainable=True)
    inputs = keras.Input((4,))
    models = [
        keras.Model(inputs, layer(inputs)),
        keras.Sequential([layer]),
        Subclassed(layer),
    ]
    for model in models:
        np.testing.assert_array_equal(model(X), layer(X))
        assert len(model.trainable_variables) == 4


def test_mixed_precision(reusable):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = hub_models.load(reusable, trainable=True)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), layer])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        before = values(layer)
        model.fit(X, Y, verbose=0)
    finally:
        keras.config.set_dtype_policy("float32")
    assert len(moved(before, layer)) == 6
    assert layer(X).dtype == "float32"


def test_xla(reusable):
    layer = hub_models.load(reusable, trainable=True, arguments={"training": False})
    before = values(layer)
    classifier(layer, jit_compile=True).fit(X, Y, verbose=0)
    assert len(moved(before, layer)) == 4


def test_clone_checkpoint_weights_and_export(reusable, tmp_path):
    layer = hub_models.load(reusable, trainable="hidden|output")
    model = classifier(layer)
    model.fit(X, Y, verbose=0)
    clone = keras.models.clone_model(model)
    assert len(clone.trainable_variables) == 2
    assert not np.array_equal(clone(X), model(X))  # a clone starts from the SavedModel again

    tf.train.Checkpoint(model=model).write(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(model=clone).read(str(tmp_path / "checkpoint")).assert_consumed()
    np.testing.assert_array_equal(clone(X), model(X))

    clone = keras.models.clone_model(model)
    model.save_weights(tmp_path / "model.weights.h5")
    clone.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(clone(X), model(X))

    model.export(str(tmp_path / "exported"), verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(exported.serve(X), model(X), atol=1e-6)


def test_strings_and_their_tables(tmp_path):
    folder = savedmodels.write_text_tables(tmp_path / "text")
    layer = hub_models.load(folder, trainable=True)
    words = tf.constant(["cat", "horse", "unicorn"])
    np.testing.assert_array_equal(layer(words), [[0, 1], [4, 5], [6, 7]])
    inputs = keras.Input((), dtype="string")
    model = keras.Model(inputs, keras.layers.Dense(1)(layer(inputs)))
    model.compile("adam", "mse")
    before = values(layer)
    model.fit(words, np.ones((3, 1)), verbose=0)
    assert moved(before, layer) == {"vectors"}
    hub_models.export(model, tmp_path / "again")
    again = hub_models.load(tmp_path / "again")
    np.testing.assert_allclose(again(words), model(words), atol=1e-6)


def test_dicts_go_in_and_out(tmp_path):
    root = tf.train.Checkpoint()
    root.scale = tf.Variable(2.0, name="scale")
    spec = {"ids": tf.TensorSpec([None, 3], tf.int32), "mask": tf.TensorSpec([None, 3], tf.int32)}

    @tf.function(input_signature=[spec])
    def call(inputs):
        numbers = tf.cast(inputs["ids"] * inputs["mask"], tf.float32) * root.scale
        return {"sum": tf.reduce_sum(numbers, -1), "sequence": numbers}

    root.__call__ = call
    root.variables = root.trainable_variables = [root.scale]
    tf.saved_model.save(root, str(tmp_path / "dicts"))
    layer = hub_models.load(tmp_path / "dicts", trainable=True)
    inputs = {name: keras.Input((3,), dtype="int32", name=name) for name in ("ids", "mask")}
    outputs = layer(inputs)
    assert outputs["sequence"].shape == (None, 3)
    model = keras.Model(inputs, outputs["sum"])
    batch = {"ids": np.array([[1, 2, 3]]), "mask": np.array([[1, 0, 1]])}
    np.testing.assert_array_equal(model(batch), [8.0])


KINDS = {
    # writer: (variables, of which trainable, what a call runs)
    "write_reusable": (6, 4, "object"),
    "write_plain_module": (1, 1, "object"),
    "write_keras_export": (7, 6, "serve"),
    "write_keras_saved": (7, 0, "signature"),
    "write_tf1_hub": (2, 0, "signature"),
}


@pytest.mark.parametrize("writer", KINDS)
def test_every_kind_of_saved_model(writer, tmp_path):
    folder = getattr(savedmodels, writer)(tmp_path / "model")
    count, trainable, endpoint = KINDS[writer]
    layer = hub_models.load(folder)
    assert (layer.endpoint, len(layer.hub_trainable)) == (endpoint, trainable)
    assert layer(X).shape[0] == len(X)
    assert not layer.trainable_weights
    if endpoint != "signature":
        assert len(layer.weights) >= count
    if not trainable:
        with pytest.raises(ValueError, match="cannot be trained: use trainable=False"):
            hub_models.load(folder, trainable=True)
        return
    layer.trainable = True
    before = values(layer)
    model = keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(3)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(X, Y, verbose=0)
    assert len(moved(before, layer)) >= trainable


def test_nothing_to_train_is_an_error(tmp_path):
    root = tf.Module()
    root.__call__ = tf.function(lambda x: x + 1, input_signature=[tf.TensorSpec([None, 4])])
    tf.saved_model.save(root, str(tmp_path / "constant"))
    with pytest.raises(ValueError, match="has no trainable variables: use trainable=False"):
        hub_models.load(tmp_path / "constant", trainable=True)
    assert hub_models.load(tmp_path / "constant")(X).shape == X.shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trainable": "nowhere"}, r"trainable='nowhere' matches none of the 4 variables \(hidden"),
        ({"trainable": "("}, r"trainable must be a bool or a regular expression, got '\('"),
        ({"signature": "nope"}, r"signature must be one of \['serving_default'\], got 'nope'"),
        ({"signature": "serving_default", "trainable": True}, "cannot be trained"),
        (
            {"arguments": {"momentum": 1}},
            r"arguments must be among \['training'\], got \['momentum'\]",
        ),
    ],
)
def test_bad_arguments(reusable, arguments, message):
    with pytest.raises(ValueError, match=message):
        hub_models.load(reusable, **arguments)


def test_signature_by_name(reusable):
    layer = hub_models.load(reusable, signature="serving_default")
    np.testing.assert_array_equal(layer(X), hub_models.load(reusable)(X))


@pytest.mark.slow
def test_basic_pitch_which_we_did_not_make(tmp_path):
    try:
        layer = hub_models.load("basic-pitch", trainable=True)
    except OSError as error:
        pytest.skip(f"no package registry: {error}")
    seconds = np.arange(43844) / 22050
    tone = np.sin(2 * np.pi * 440 * seconds).astype("float32")[None, :, None]
    assert (len(layer.weights), len(layer.trainable_weights)) == (24, 18)
    assert sum(int(np.prod(w.shape)) for w in layer.weights) == 16_864
    notes = layer(tone)["note"].numpy()
    assert notes.shape == (1, 172, 88)
    assert 21 + notes[0].mean(0).argmax() == 69  # the keys of a piano begin with MIDI 21

    inputs = keras.Input((43844, 1))
    outputs = keras.layers.Concatenate()([layer(inputs)[k] for k in ("note", "onset", "contour")])
    model = keras.Model(inputs, outputs)
    model.compile("adam", "mse")
    before = values(layer)
    model.fit(tone, np.zeros((1, 172, 88 + 88 + 264)), epochs=2, verbose=0)
    trainable = {w.path.split("/", 1)[1] for w in layer.trainable_weights}
    assert trainable <= moved(before, layer)
    model.save(tmp_path / "model.keras")
    again = hub_models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(tone, verbose=0), model.predict(tone, verbose=0))
    layer.trainable = False
    assert not model.trainable_variables
