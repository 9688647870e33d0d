"""Preflight: what a TPU cannot run is found, and named with the layer that holds it."""

import io
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import savedmodels
import tensorflow as tf
from keras import layers
from rich.console import Console
from test_zoo import ZOO, build, name_of

import hub_models
from tfcourse import preflight

ROOT = Path(__file__).parent.parent
CLASSES = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@keras.saving.register_keras_serializable("test_preflight")
class Argmax(layers.Layer):
    """A planted fault: pooling that also says where each maximum was."""

    def call(self, x):
        return tf.nn.max_pool_with_argmax(x, 2, 2, "SAME")[0]


class Odd(layers.Layer):
    """A layer of one function."""

    def __init__(self, function, name="odd"):
        super().__init__(name=name)
        self.function = function

    def call(self, x):
        return self.function(x)

    def compute_output_spec(self, x):
        return keras.KerasTensor(keras.tree.flatten(x)[0].shape)


def same(function):
    """Return a function whose result is a tensor of the shape of its argument."""

    def call(x):
        y = function(x)
        y.set_shape(x.shape)
        return y

    return call


def count(x):
    return tf.reduce_sum(tf.cast(x, "float32"))


def combined(x):
    boxes, scores = tf.tile(x[:, None, None, :4], (1, 5, 1, 1)), tf.tile(x[:, None, :2], (1, 5, 1))
    return x + count(tf.image.combined_non_max_suppression(boxes, scores, 3, 3)[1])


def printed(x):
    tf.print("sum", tf.reduce_sum(x))
    return x


def ragged(x):
    rows = tf.RaggedTensor.from_row_lengths(tf.reshape(x, [-1]), [6] * x.shape[0])
    return rows.to_tensor(shape=x.shape)


def decoded(x):
    picture = tf.io.decode_jpeg(tf.io.encode_jpeg(tf.zeros((8, 8, 3), "uint8")))
    return x + count(picture)


def in_a_loop(x):
    return tf.map_fn(lambda v: v + count(tf.histogram_fixed_width(v, [0.0, 1.0])), x)


def growing(x):
    _, y = tf.while_loop(
        lambda i, y: i < 3,
        lambda i, y: (i + 1, tf.concat([y, x], 0)),
        (0, x),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, 6])),
    )
    return x + tf.reduce_mean(y)


VECTORS = {
    "CombinedNonMaxSuppression": combined,
    "EagerPyFunc": same(lambda x: tf.py_function(lambda v: 2 * v, [x], "float32")),
    "PyFunc": same(lambda x: tf.numpy_function(lambda v: 2 * v, [x], "float32")),
    "PrintV2": printed,
    "RaggedTensorToTensor": ragged,
    "HistogramFixedWidth": lambda x: x + count(tf.histogram_fixed_width(x, [0.0, 1.0])),
    "SegmentSum": lambda x: x + count(tf.math.segment_sum(x, [0, 0, 1, 1])),
    "DecodeJpeg": decoded,
    "AsString": lambda x: x + count(tf.strings.to_hash_bucket_fast(tf.strings.as_string(x), 7)),
}


def vectors(odd):
    x = keras.Input((6,), name="numbers")
    model = keras.Model(x, layers.Dense(3)(odd(layers.Dense(6)(x))))
    return model, (tf.TensorSpec((None, 6)), tf.TensorSpec((None,), "int32"))


def pictures(odd):
    x = keras.Input((16, 16, 3))
    y = odd(layers.Conv2D(4, 3, padding="same")(x))
    model = keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(y)))
    return model, (tf.TensorSpec((None, 16, 16, 3)), tf.TensorSpec((None,), "int32"))


def words(odd, dtype="string", count=1):
    x = [keras.Input((1,), dtype=dtype) for _ in range(count)]
    y = keras.ops.cast(odd(x if count > 1 else x[0]), "float32")
    model = keras.Model(x, layers.Dense(3)(y))
    batch = [tf.TensorSpec((None, 1), dtype)] * count
    return model, (batch, tf.TensorSpec((None,), "int32"))


def mixed(odd):
    x, y = keras.Input((16, 16, 3)), keras.Input((3,))
    z = odd({"images": x, "labels": y})["images"]
    model = keras.Model([x, y], layers.Dense(3)(layers.Flatten()(z)))
    batch = [tf.TensorSpec((None, 16, 16, 3)), tf.TensorSpec((None, 3))]
    return model, (batch, tf.TensorSpec((None,), "int32"))


def cropped(x):
    return tf.image.crop_and_resize(x, tf.fill((4, 4), 0.5), tf.range(4), (16, 16))


BLOCKED = {
    **{op: (vectors, lambda f=f: Odd(f), op) for op, f in VECTORS.items()},
    "in a loop": (vectors, lambda: Odd(in_a_loop), "HistogramFixedWidth"),
    "argmax": (pictures, lambda: Argmax(name="odd"), "MaxPoolWithArgmax"),
    "crop": (pictures, lambda: Odd(cropped), "CropAndResize"),
    "string look-up": (
        words,
        lambda: layers.StringLookup(vocabulary=["a", "b"], name="odd"),
        "LookupTableFindV2",
    ),
    "integer look-up": (
        lambda odd: words(odd, "int64"),
        lambda: layers.IntegerLookup(vocabulary=[3, 4], name="odd"),
        "LookupTableFindV2",
    ),
    "hashing": (words, lambda: layers.Hashing(5, name="odd"), "StringToHashBucketFast"),
    "crossing": (
        lambda odd: words(odd, count=2),
        lambda: layers.HashedCrossing(7, name="odd", output_mode="one_hot"),
        "SparseCross",
    ),
    "mix-up": (mixed, lambda: layers.MixUp(name="odd"), "StatelessRandomGammaV3"),
    "cut-mix": (mixed, lambda: layers.CutMix(name="odd"), "StatelessRandomGammaV3"),
    "rotation": (
        pictures,
        lambda: layers.RandomRotation(0.1, name="odd"),
        "ImageProjectiveTransformV3",
    ),
}


def ready(model, outputs=3, optimizer="adam", loss=CLASSES):
    """Compile a model and make its variables."""
    model.compile(optimizer, loss, metrics=["accuracy"] if loss is CLASSES else None)
    model.optimizer.build(model.trainable_variables)
    y_pred = np.zeros((1, outputs), "float32")
    y = np.zeros(1, "int32") if loss is CLASSES else y_pred
    model.compute_loss(None, y, y_pred)
    model.compute_metrics(None, y, y_pred)
    return model


def check(model, batch, **options):
    options = {"batch_size": 4, "compiles": False} | options
    return preflight.check(model, batch, **options)


def texts(report, level):
    return [str(finding) for finding in report.findings if finding.level == level]


@pytest.mark.parametrize("case", BLOCKED)
def test_a_blocked_operation_is_named_with_its_layer(case):
    make, odd, op = BLOCKED[case]
    model, batch = make(odd())
    report = check(ready(model), batch)
    assert not report.ready
    found = [f for f in report.findings if f.what == op]
    assert len(found) == 1, report.findings
    assert found[0].where.startswith("layer 'odd' (")
    assert found[0].instead
    # Nothing is put down to a layer that has no fault.
    assert {f.where for f in report.findings if f.where.startswith("layer")} == {found[0].where}


@pytest.mark.parametrize("op", VECTORS)
def test_xla_itself_refuses_what_the_report_calls_blocked(op):
    function = tf.function(VECTORS[op], jit_compile=True)
    with pytest.raises((tf.errors.OpError, ValueError), match="unsupported operations"):
        function(tf.ones((4, 6)))


def test_a_sound_step_compiles():
    model, batch = vectors(Odd(tf.nn.relu))
    assert check(ready(model), batch, compiles=True).findings == []


def test_a_growing_loop_is_named_with_its_layer():
    model, batch = vectors(Odd(growing))
    report = check(ready(model), batch)
    (line,) = texts(report, "error")
    assert line.startswith("error: a loop whose tensor changes its shape in layer 'odd' (Odd): ")


def test_what_only_the_compiler_finds_is_put_down_to_its_layer():
    """The gradient of a loop without a limit needs a list that can grow."""

    def endless(x):
        return tf.while_loop(lambda y: tf.reduce_sum(y) < 9, lambda y: (y * y + 1,), (x,))[0]

    model, batch = vectors(Odd(endless))
    (line,) = texts(check(ready(model), batch), "error")
    where = "error: XLA refuses the step in layer 'odd' (Odd): "
    assert line.startswith(where + "XLA compilation requires a fixed tensor list size")


@pytest.mark.parametrize(
    ("op", "function"),
    [
        ("Where", lambda x: x + count(tf.where(x > 0))),
        ("Where", lambda x: x + count(tf.boolean_mask(x, x > 0))),
        ("Unique", lambda x: x + count(tf.unique(tf.cast(x[:, 0], "int32"))[0])),
    ],
)
def test_a_size_that_depends_on_the_data_is_unknown_on_tpu(op, function):
    model, batch = vectors(Odd(function))
    report = check(ready(model), batch)
    assert report.ready
    (line,) = texts(report, "warning")
    assert line.startswith(f"warning: {op}, which gives")
    assert "in layer 'odd' (Odd): unknown on TPU" in line


def test_layers_whose_names_differ_by_a_number_are_told_apart():
    x = keras.Input((16, 16, 3))
    faults = {"pool": Odd(tf.nn.relu, "pool"), "pool_1": Argmax(name="pool_1")}
    inner = keras.Sequential([keras.Input((16, 16, 3)), Argmax(name="pool")], name="part_1")
    y = inner(layers.Conv2D(3, 1, name="part")(x))
    y = layers.UpSampling2D()(y)
    for layer in faults.values():
        y = layer(y)
    model = keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(y)))
    report = check(ready(model), (tf.TensorSpec(x.shape), tf.TensorSpec((None,), "int32")))
    places = {f.where for f in report.findings if f.level == "error"}
    assert places == {"layer 'part_1/pool' (Argmax)", "layer 'pool_1' (Argmax)"}


def test_a_fault_outside_the_layers_is_said_to_be_there():
    def loss(y_true, y_pred):
        return count(tf.histogram_fixed_width(y_pred, [0.0, 1.0])) + keras.ops.mean(y_pred)

    model = ready(keras.Sequential([keras.Input((6,)), layers.Dense(3)], name="net"), loss=loss)
    report = check(model, (tf.TensorSpec((None, 6)), tf.TensorSpec((None, 3))))
    (line,) = texts(report, "error")
    assert line.startswith("error: HistogramFixedWidth in net, outside its layers: ")


@pytest.mark.slow
@pytest.mark.parametrize("row", ZOO, ids=name_of)
def test_every_builder_passes(row):
    model = build(row)
    model.compile("adam", lambda y, y_pred: keras.ops.mean(keras.ops.square(y - y_pred)))
    model.optimizer.build(model.trainable_variables)
    y = np.zeros(row.output_shape, "float32")
    model.compute_loss(None, y, y)
    specs = keras.tree.map_structure(lambda a: tf.TensorSpec(a.shape, a.dtype), row.batch)
    report = check(model, (specs, tf.TensorSpec(row.output_shape)))
    assert [f for f in report.findings if f.level != "note"] == []
    assert report.memory.uncounted == ()


def test_a_check_changes_nothing():
    model, batch = pictures(Argmax(name="odd"))
    ready(model)
    before = [v.numpy() for v in [*model.variables, *model.optimizer.variables]]
    check(model, batch)
    for old, variable in zip(before, [*model.variables, *model.optimizer.variables], strict=True):
        np.testing.assert_array_equal(old, variable.numpy())
    assert not any("call" in vars(layer) for layer in model.layers)


def test_memory_of_a_perceptron_is_what_one_counts_by_hand():
    hidden = layers.Dense(128, "relu")
    model = keras.Sequential([keras.Input((64,)), hidden, layers.Dense(10)])
    ready(model, outputs=10, loss="mse")
    batch = (tf.TensorSpec((None, 64)), tf.TensorSpec((None, 10)))
    memory = check(model, batch, batch_size=64, replicas=2).memory
    weights = 4 * (64 * 128 + 128 + 128 * 10 + 10)
    assert memory.gradients == weights
    assert weights <= memory.weights < weights + 100  # metrics and seeds are a few numbers
    assert 2 * weights <= memory.optimizer < 2 * weights + 100
    # A core's 32 rows: inputs, hidden units after ReLU, and the differences of the loss.
    kept = 4 * 32 * (64 + 128 + 10)
    assert kept <= memory.activations < kept + 100


def test_a_recurrent_layer_keeps_every_step():
    def activations(length, units):
        model = keras.Sequential([keras.Input((length, 4)), layers.SimpleRNN(units)])
        ready(model, outputs=units, loss="mse")
        batch = (tf.TensorSpec((None, length, 4)), tf.TensorSpec((None, units)))
        report = check(model, batch, batch_size=8)
        assert report.memory.uncounted == ()
        return report.memory.activations

    steps = activations(30, 16) - activations(10, 16)
    # Twenty more steps keep at least their inputs and their states, 8 rows each.
    assert 20 * 4 * 8 * (4 + 16) <= steps <= 4 * 20 * 4 * 8 * (4 + 16)


@pytest.mark.parametrize(("rows", "level"), [(2**16, None), (2**19, "warning"), (2**20, "error")])
def test_memory_is_held_against_what_a_core_has(rows, level):
    model = ready(keras.Sequential([keras.Input((8192,)), layers.Dense(3)]))
    batch = (tf.TensorSpec((None, 8192)), tf.TensorSpec((None,), "int32"))
    report = check(model, batch, batch_size=rows)  # 2 GiB, a little over 16 and over 32
    assert [f.level for f in report.findings] == ([level] if level else [])
    assert report.ready == (level != "error")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            tf.TensorSpec((None, None, 6), name="clip"),
            "dimension 1 of (None, None, 6) is dynamic in",
        ),
        (tf.TensorSpec((None, 6), "string"), "a tensor of strings in input x: turn strings into"),
        (tf.RaggedTensorSpec((None, None)), "RaggedTensor in input x: to_tensor in the pipeline"),
        (tf.TensorSpec(None), "a tensor of unknown shape in input x: use set_shape"),
    ],
)
def test_a_batch_that_no_tpu_takes(spec, message):
    model = ready(keras.Sequential([keras.Input((None, 6)), layers.Dense(3)]))
    report = check(model, (spec, tf.TensorSpec((None,), "int32")))
    assert texts(report, "error")[0].startswith(f"error: {message}")


@pytest.mark.parametrize(("size", "advice"), [(30, "24 or 32"), (5, "8")])
def test_a_batch_that_does_not_divide(size, advice):
    model, batch = vectors(Odd(tf.nn.relu))
    report = check(ready(model), batch, batch_size=size, replicas=8)
    line = f"error: a batch of {size} does not divide by 8 replicas: use {advice}"
    assert texts(report, "error") == [line]


def saved(tmp_path, model):
    model.save(tmp_path / "model.keras")
    return preflight.check_file(tmp_path / "model.keras", replicas=2, compiles=False)[0]


def test_a_file_that_was_not_compiled(tmp_path):
    model = keras.Sequential([keras.Input((16, 16, 3)), Argmax(name="odd"), layers.Conv2D(2, 3)])
    report = saved(tmp_path, model)
    assert report.batch_size == 16
    assert texts(report, "note")[0].startswith("note: not compiled: Adam and the mean of squares")
    assert [f.what for f in report.findings if f.level == "error"] == ["MaxPoolWithArgmax"]


def test_a_compiled_file_with_two_outputs(tmp_path):
    x = keras.Input((None,), dtype="int32", name="tokens")
    y = layers.GRU(8)(layers.Embedding(50, 8, mask_zero=True)(x))
    outputs = {"class": layers.Dense(3, name="class")(y), "value": layers.Dense(1, name="value")(y)}
    model = keras.Model(x, outputs)
    losses = {"class": CLASSES, "value": "mse"}
    model.compile("adam", losses, metrics={"class": ["accuracy"]})
    report = saved(tmp_path, model)
    (line,) = texts(report, "error")
    assert "dimension 1 of (None, None) is dynamic in input 'tokens'" in line
    assert report.memory.optimizer > 2 * report.memory.gradients


def test_a_file_for_one_size_of_batch(tmp_path):
    model = keras.Sequential([keras.Input(batch_shape=(6, 4)), layers.Dense(3)])
    model.compile("sgd", "mse")
    report = saved(tmp_path, model)
    assert (report.ready, report.batch_size) == (True, 12)
    report = preflight.check_file(tmp_path / "model.keras", replicas=2, batch_size=8)[0]
    wrong = "error: the model takes 6 examples, and a core's share is 4: use --batch-size 12"
    assert wrong in texts(report, "error")


def test_a_file_without_a_model(tmp_path):
    (tmp_path / "model.keras").write_text("nothing")
    with pytest.raises(ValueError, match=r"model\.keras cannot be loaded as a Keras model: "):
        preflight.check_file(tmp_path / "model.keras")


RECIPE = """
import sys
import keras, numpy as np, tensorflow as tf
from tfcourse import training

@keras.saving.register_keras_serializable("test_preflight_recipe")
class Hash(keras.layers.Layer):
    def call(self, x):
        hashes = tf.strings.to_hash_bucket_fast(tf.strings.as_string(x), 7)
        return x + tf.cast(hashes, "float32")

def step(model, batch):
    x, y = batch
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(x, training=True) - y))
        loss += tf.cast(tf.histogram_fixed_width(y, [0.0, 1.0])[0], "float32")
    weights = model.trainable_variables
    model.optimizer.apply(tape.gradient(loss, weights), weights)
    return {"loss": loss}

def main():
    assert "--smoke" in sys.argv
    x = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((x, x[:, :3])).batch(16)
    data = data.map(lambda x, y: (tf.ensure_shape(tf.py_function(abs, [x], "float32"), x.shape), y))
    for name, layer, own in (("sound", None, None), ("hashed", Hash(), None), ("own", None, step)):
        with training.strategy("cpu").scope():
            parts = [keras.layers.Dense(6), *([layer] if layer else []), keras.layers.Dense(3)]
            model = keras.Sequential([keras.Input((6,)), *parts], name=name)
            model.compile("adam", "mse")
        for _ in range(2):
            training.fit(model, data, 1, **({"step": own} if own else {}))
    print("done")

main()
"""


def recipe(tmp_path, text):
    path = tmp_path / "try_it.py"
    path.write_text(text)
    return path


def test_each_training_of_a_recipe_is_checked(tmp_path):
    from tfcourse import training

    fit, arguments = training.fit, list(sys.argv)
    reports = preflight.check_recipe(recipe(tmp_path, RECIPE), replicas=4, compiles=False)
    assert training.fit is fit
    assert sys.argv == arguments
    assert [r.name for r in reports] == [f"try_it, {name}" for name in ("sound", "hashed", "own")]
    assert [r.ready for r in reports] == [True, False, False]
    assert all(r.batch_size == 16 for r in reports)
    (line,) = texts(reports[1], "error")[:1]
    assert line.startswith("error: AsString in layer 'hash' (Hash): ")
    (line,) = texts(reports[2], "error")
    assert line.startswith("error: HistogramFixedWidth in own, outside its layers: ")
    (line,) = texts(reports[0], "warning")
    assert line.startswith("warning: the last batch may be smaller than the others in the input pi")
    (line,) = texts(reports[0], "note")
    assert line == "note: EagerPyFunc in the input pipeline: fine: it runs on the host"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("print('hello')", "recipe try_it trains nothing with training.fit"),
        ("import sys; sys.exit('bad flag')", "recipe try_it --smoke failed: bad flag"),
    ],
)
def test_a_recipe_that_does_not_get_there(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        preflight.check_recipe(recipe(tmp_path, text))


def test_the_report_of_a_planted_fault():
    model, batch = pictures(Argmax(name="pool"))
    report = check(ready(model), batch, batch_size=30, replicas=8)
    text = io.StringIO()
    status = preflight.say([report], Console(file=text, width=80))
    assert status == 1
    lines = text.getvalue().splitlines()
    assert lines[0].endswith(": batch 30 over 8 replica(s), 4 on a core")
    assert lines[1] == "  error: a batch of 30 does not divide by 8 replicas: use 24 or 32"
    assert lines[2] == (
        "  error: MaxPoolWithArgmax in layer 'pool' (Argmax): use MaxPooling2D; for unpooling, "
        "repeat each value (UpSampling2D)"
    )
    assert "16 GiB (v5e) or 32 GiB (v6e)" in lines[3]
    assert lines[4] == "  not ready"
    assert any(f"tensorflow   {tf.__version__}" in line for line in lines)
    assert "necessary, not sufficient" in lines[-1]


def tfcourse(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tfcourse", "preflight", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such_recipe"], "tfcourse: no recipe 'no_such_recipe'; there are: backprop"),
        (["nowhere.keras"], "tfcourse: nowhere.keras is not a file"),
        (["x.keras", "--replicas", "0"], "tfcourse preflight: argument --replicas: must be a who"),
    ],
)
def test_bad_input_is_one_line(arguments, message):
    done = tfcourse(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_command_on_a_model_with_a_hub_layer(tmp_path, monkeypatch):
    """A saved model names the module of its layers; the command imports it by itself."""
    monkeypatch.setenv("TFCOURSE_CACHE", str(tmp_path / "cache"))
    hub = hub_models.load(savedmodels.write_reusable(tmp_path / "reusable"), trainable=True)
    x = keras.Input((8, 8, 3))
    y = layers.Dense(4)(layers.GlobalAveragePooling2D()(Argmax(name="pool")(x)))
    model = keras.Model(x, layers.Dense(2)(hub(y)))
    model.compile("adam", CLASSES, metrics=["accuracy"])
    model.save(tmp_path / "model.keras")
    sound = keras.Sequential([keras.Input((4,)), hub, layers.Dense(2)])
    sound.save(tmp_path / "sound.keras")
    assert tfcourse(tmp_path / "sound.keras").returncode == 0
    done = tfcourse(tmp_path / "model.keras")
    # The command knows our layers, and says so in one line when it meets another's.
    assert done.returncode == 2
    assert "cannot be loaded as a Keras model" in done.stderr
