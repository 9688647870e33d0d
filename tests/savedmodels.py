"""Small SavedModels of every kind that TensorFlow writes, and one that does harm."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

# TensorFlow 1 graphs are written by a process of their own: its mode is one for a whole process.
_TF1_HUB = """
import sys
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()
folder, vocabulary = sys.argv[1:]
builder = tf.saved_model.Builder(folder)
for tags in ([], ["train"]):
    with tf.Graph().as_default(), tf.Session() as session:
        inputs = tf.placeholder(tf.float32, [None, 4], name="inputs")
        words = tf.placeholder(tf.string, [None], name="words")
        with tf.variable_scope("module", use_resource=True):
            kernel = tf.get_variable("kernel", initializer=tf.reshape(tf.range(12.0), [4, 3]))
            bias = tf.get_variable("bias", initializer=tf.ones([3]))
        outputs = tf.nn.relu(inputs @ kernel + bias)
        if tags:
            outputs = tf.nn.dropout(outputs, rate=0.5)
        asset = tf.constant(vocabulary)
        table = tf.lookup.StaticVocabularyTable(
            tf.lookup.TextFileInitializer(
                asset, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER), 1)
        signatures = {
            "default": tf.saved_model.predict_signature_def(
                {"default": inputs}, {"default": outputs}),
            "words": tf.saved_model.predict_signature_def(
                {"words": words}, {"ids": table.lookup(words)}),
        }
        session.run(tf.global_variables_initializer())
        tf.add_to_collection("files", asset)
        arguments = dict(
            signature_def_map=signatures, main_op=tf.tables_initializer(),
            assets_collection=tf.get_collection("files"))
        if tags:
            builder.add_meta_graph(tags, **arguments)
        else:
            builder.add_meta_graph_and_variables(session, tags, **arguments)
builder.save()
open(folder + "/tfhub_module.pb", "wb").write(b"\\x08\\x03")
"""


class _Network(tf.Module):
    """Dense, batch normalization and dropout, with a penalty on the first kernel."""

    def __init__(self):
        super().__init__()
        random = np.random.default_rng(0)

        def weight(name, *shape):
            value = random.normal(size=shape, scale=0.3).astype("float32")
            return tf.Variable(value, name=name)

        self.hidden, self.output = weight("hidden", 4, 8), weight("output", 8, 3)
        self.scale = tf.Variable(tf.ones(8), name="scale")
        self.offset = tf.Variable(tf.zeros(8), name="offset")
        self.mean = tf.Variable(tf.zeros(8), trainable=False, name="mean")
        self.variance = tf.Variable(tf.ones(8), trainable=False, name="variance")

    def __call__(self, x, training):
        x = x @ self.hidden
        if training:
            mean, variance = tf.nn.moments(x, axes=[0])
            self.mean.assign(0.9 * self.mean + 0.1 * mean)
            self.variance.assign(0.9 * self.variance + 0.1 * variance)
        else:
            mean, variance = self.mean, self.variance
        x = tf.nn.batch_normalization(x, mean, variance, self.offset, self.scale, 1e-3)
        x = tf.nn.relu(x)
        if training:
            x = tf.nn.dropout(x, rate=0.5)
        return x @ self.output


def write_reusable(folder: Path) -> Path:
    """Write a reusable SavedModel: `(batch, 4)` to `(batch, 3)`, 6 variables, 4 trainable."""
    network = _Network()
    root = tf.train.Checkpoint()

    @tf.function
    def call(x, training=False):
        return network(x, training)

    @tf.function(input_signature=[])
    def penalty():
        return 0.01 * tf.reduce_sum(tf.square(network.hidden))

    inputs = tf.TensorSpec([None, 4], tf.float32, name="inputs")
    for training in (False, True):
        call.get_concrete_function(inputs, training=training)
    root.__call__ = call
    root.variables = list(network.variables)
    root.trainable_variables = list(network.trainable_variables)
    root.regularization_losses = [penalty]
    serving = tf.function(lambda inputs: {"outputs": call(inputs, training=False)})
    tf.saved_model.save(root, str(folder), signatures=serving.get_concrete_function(inputs))
    return folder


def write_keras_export(folder: Path) -> Path:
    """Write what `keras.Model.export` writes: endpoints, no `__call__`; `(batch, 4)` to 3."""
    _keras_model().export(str(folder), verbose=False)
    return folder


def write_keras_saved(folder: Path) -> Path:
    """Write what `tf.saved_model.save` makes of a Keras model: a signature only."""
    tf.saved_model.save(_keras_model(), str(folder))
    return folder


def write_keras_sequences(folder: Path) -> Path:
    """Export a Keras model with an LSTM and attention: words `(batch, 6)` to `(batch, 2)`."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(20, 8)(inputs)
    x = keras.layers.LSTM(8, return_sequences=True, dropout=0.1)(x)
    x = keras.layers.MultiHeadAttention(2, 4)(x, x)
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling1D()(x))
    keras.Model(inputs, outputs).export(str(folder), verbose=False)
    return folder


def write_keras_text(folder: Path) -> Path:
    """Export a Keras model with look-up layers: strings `(batch, 1)` to `(batch, 3)`."""
    words = keras.Input((1,), dtype="string")
    vectors = keras.layers.TextVectorization(output_mode="count", vocabulary=["cat", "dog"])
    ids = keras.layers.StringLookup(vocabulary=["cat", "dog"], output_mode="one_hot")
    outputs = keras.layers.Add()([vectors(words), ids(words)])
    keras.Model(words, outputs).export(str(folder), verbose=False)
    return folder


def write_plain_module(folder: Path) -> Path:
    """Write a `tf.Module` with a `__call__` and no lists of variables: `(batch, 4)` to 2."""
    module = tf.Module()
    module.kernel = tf.Variable(tf.reshape(tf.range(8.0), [4, 2]), name="kernel")
    signature = [tf.TensorSpec([None, 4], tf.float32, name="inputs")]
    module.__call__ = tf.function(lambda x: x @ module.kernel, input_signature=signature)
    tf.saved_model.save(module, str(folder))
    return folder


def write_text_tables(folder: Path) -> Path:
    """Write a reusable embedding of words: strings `(batch,)` to `(batch, 2)`, with an asset."""
    vocabulary = folder.with_name(f"{folder.name}-words.txt")
    vocabulary.write_text("cat\ndog\nhorse\n")
    index = tf.lookup.TextFileIndex
    initializer = tf.lookup.TextFileInitializer(
        str(vocabulary), tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER
    )
    counts = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, 0)
    counts.insert(["cat"], [7])
    root = tf.train.Checkpoint(counts=counts)
    root.table = tf.lookup.StaticVocabularyTable(initializer, 1)
    root.vectors = tf.Variable(tf.reshape(tf.range(8.0), [4, 2]), name="vectors")
    signature = [tf.TensorSpec([None], tf.string, name="words")]

    @tf.function(input_signature=signature)
    def call(words):
        return tf.gather(root.vectors, root.table.lookup(words))

    root.__call__ = call
    root.count = tf.function(root.counts.lookup, input_signature=signature)
    root.variables = root.trainable_variables = [root.vectors]
    tf.saved_model.save(root, str(folder), signatures=call)
    vocabulary.unlink()
    return folder


def write_tf1_hub(folder: Path) -> Path:
    """Write a TensorFlow 1 Hub module, tags `[]` and `["train"]`: `(batch, 4)` to 3, and words."""
    vocabulary = folder.with_name(f"{folder.name}-words.txt")
    vocabulary.write_text("cat\ndog\n")
    arguments = [sys.executable, "-c", _TF1_HUB, str(folder), str(vocabulary)]
    subprocess.run(arguments, check=True, capture_output=True)
    vocabulary.unlink()
    return folder


def write_evil_init(folder: Path, target: Path) -> Path:
    """Write a SavedModel that writes the file `target` while it is being loaded."""

    class Resource(tf.saved_model.experimental.TrackableResource):
        armed = False

        def _create_resource(self):
            return tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64)

        def _initialize(self):
            if self.armed:
                tf.io.write_file(str(target), "written while loading")

    root = tf.train.Checkpoint(resource=Resource())
    root.kernel = tf.Variable(tf.ones([4, 2]))
    Resource.armed = True
    signature = [tf.TensorSpec([None, 4], tf.float32, name="inputs")]

    @tf.function(input_signature=signature)
    def call(x):
        tf.identity(root.resource.resource_handle)
        return x @ root.kernel

    root.__call__ = call
    root.variables = root.trainable_variables = [root.kernel]
    tf.saved_model.save(root, str(folder))
    return folder


def _keras_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, kernel_regularizer="l2"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dropout(0.5),
            layers.Dense(3),
        ]
    )
