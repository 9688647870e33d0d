"""A model and its pipeline as one SavedModel that takes raw values: texts, gaps, ids never seen.

What the pipeline does in NumPy is done here by TensorFlow's operations, so that whoever loads the
folder needs no line of ours: TensorFlow Serving, or

    served = tf.saved_model.load("exported").signatures["serving_default"]
    served(user=tf.constant(["7"]), seen=tf.constant([["318", "50"]]))["probability"]

A user's history is an input: what happened a minute ago counts without training anew.
"""

import re
import zlib
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from tfcourse.data.cache import atomic_folder
from tfcourse.data.pipeline import (
    Bucketed,
    Combined,
    Hashed,
    Normalised,
    Pipeline,
    Sequence,
    Vocabulary,
)
from tfcourse.data.raw_columns import check_names
from tfcourse.recommendation.embedding import Embedding

CRC_TABLE = [zlib.crc32(bytes([255 ^ i])) ^ 0xFF000000 for i in range(256)]


def export(model: keras.Model, pipeline: Pipeline, folder: str | Path) -> Path:
    """Write a SavedModel that takes raw columns.

    Its signatures `serving_default` and `serve` take those columns that the model needs, by name:
    ids as texts `(rows,)`, numbers as float32 `(rows,)` with NaN for what is missing, histories as
    texts `(rows, any width)`, the newest first, "" where there is nothing. In a name, what is no
    letter of A to Z, digit or _ becomes _; one that begins with no letter gets `column_` before it.
    They return `logit` and `probability`, both `(rows,)`; for a model
    that ends in vectors, such as a tower, `vector`. The pipeline itself is beside it, in
    `assets.extra/pipeline.json`.

    Args:
        model: Built from the features of the pipeline.
        pipeline: Fitted.
        folder: Is there whole or not at all. A SavedModel that is there is replaced.

    Returns:
        The folder.

    Raises:
        ValueError: If the model has a column that the pipeline does not make, or makes in another
            size, or the folder holds something else than a SavedModel.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / "saved_model.pb").exists() and not _empty(folder):
        raise ValueError(f"folder must be new, empty or a SavedModel, got {folder}")
    _check_sizes(model, pipeline)
    module = Served(model, pipeline)
    with atomic_folder(folder) as new:
        signature = module.serve.get_concrete_function()
        signatures = {"serving_default": signature, "serve": signature}
        tf.saved_model.save(module, str(new), signatures=signatures)
        pipeline.save(new / "assets.extra" / "pipeline.json")
    return folder


class Served(tf.Module):
    """From raw columns to scores, in one graph.

    Attributes:
        serve: Takes a dict of raw columns, returns a dict of scores.
    """

    def __init__(self, model: keras.Model, pipeline: Pipeline):
        """Make the tables of the vocabularies and the graph."""
        super().__init__()
        self.weights = [variable.value for variable in model.variables]
        self.tables = {}
        inputs = {tensor.name for tensor in model.inputs}
        specs = [s for s in pipeline.specs if s.name in inputs]
        used = {s.item if isinstance(s, Sequence) else s.name for s in specs}
        look_up = {s.name: self._look_up(s, pipeline) for s in pipeline.specs if s.name in used}
        signature = {_plain(s.name): _raw_spec(s) for s in specs}

        @tf.function(input_signature=[signature])
        def serve(raw):
            columns = {}
            for spec in specs:
                item = spec.item if isinstance(spec, Sequence) else spec.name
                columns[spec.name] = _ids(spec, look_up[item], raw[_plain(spec.name)])
            output = tf.cast(model(columns, training=False), "float32")
            if output.shape.rank == 2 and output.shape[1] == 1:
                logit = output[:, 0]
                return {"logit": logit, "probability": tf.sigmoid(logit)}
            return {"vector": output}

        self.serve = serve

    def _look_up(self, spec, pipeline: Pipeline) -> Callable[[tf.Tensor], tf.Tensor]:
        """Return what maps the raw values of a category or a number, of any shape."""
        learned = pipeline.learned[spec.name]
        if isinstance(spec, Vocabulary):
            ids = tf.range(1, 1 + len(learned), dtype="int32")
            pairs = tf.lookup.KeyValueTensorInitializer(tf.constant(learned), ids)
            self.tables[spec.name] = tf.lookup.StaticHashTable(pairs, 0)
            return self.tables[spec.name].lookup
        if isinstance(spec, Hashed):
            return lambda raw: hash_texts(raw, spec.size)
        if isinstance(spec, Bucketed):
            return lambda raw: _bucket(raw, tf.constant(learned, "float32"))
        return lambda raw: _normalise(raw, tf.constant(learned, "float32"), spec.logarithm)


def hash_texts(texts: tf.Tensor, size: int) -> tf.Tensor:
    """Return 1 + CRC-32 of each text modulo (size - 1), and 0 for "": the ids of `Hashed`."""
    flat = tf.reshape(texts, [-1])
    lengths = tf.strings.length(flat)
    width = tf.maximum(tf.reduce_max(lengths), 1)
    letters = tf.cast(tf.io.decode_raw(flat, tf.uint8, fixed_length=width), "int64")
    table = tf.constant(CRC_TABLE, "int64")

    def step(i, crc):
        byte = tf.bitwise.bitwise_and(tf.bitwise.bitwise_xor(crc, letters[:, i]), 255)
        mixed = tf.bitwise.bitwise_xor(tf.gather(table, byte), tf.bitwise.right_shift(crc, 8))
        return i + 1, tf.where(i < lengths, mixed, crc)

    start = tf.fill(tf.shape(flat), tf.constant(0xFFFFFFFF, "int64"))
    _, crc = tf.while_loop(lambda i, _: i < width, step, [0, start])
    ids = 1 + tf.cast(tf.bitwise.bitwise_xor(crc, 0xFFFFFFFF) % (size - 1), "int32")
    return tf.reshape(tf.where(lengths > 0, ids, 0), tf.shape(texts))


def _plain(name: str) -> str:
    """Return a name that a signature can have."""
    plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return plain if plain[:1].isalpha() else f"column_{plain}"


def _raw_spec(spec) -> tf.TensorSpec:
    number = isinstance(spec, (Normalised, Bucketed))
    shape = (None, None) if isinstance(spec, Sequence) else (None,)
    return tf.TensorSpec(shape, "float32" if number else "string", name=_plain(spec.name))


def _ids(spec, look_up: Callable[[tf.Tensor], tf.Tensor], raw: tf.Tensor) -> tf.Tensor:
    found = look_up(raw)
    if isinstance(spec, Sequence):
        # Unknown ones drop out, the rest moves up and is cut or filled up to the length.
        return tf.ragged.boolean_mask(found, found > 0).to_tensor(shape=[None, spec.length])
    return found


def _bucket(raw: tf.Tensor, limits: tf.Tensor) -> tf.Tensor:
    place = 1 + tf.searchsorted(limits, raw, side="right")
    return tf.where(tf.math.is_finite(raw), place, 0)


def _normalise(raw: tf.Tensor, learned: tf.Tensor, logarithm: bool) -> tf.Tensor:
    x = tf.sign(raw) * tf.math.log1p(tf.abs(raw)) if logarithm else raw
    return tf.where(tf.math.is_finite(raw), (x - learned[0]) / learned[1], 0.0)


def _empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _check_sizes(model: keras.Model, pipeline: Pipeline) -> None:
    """Hold the model's inputs and tables against what the pipeline makes."""
    features = {feature.name: feature for feature in pipeline.features}
    made = {spec.name for spec in pipeline.specs if not isinstance(spec, Combined)}
    check_names([_plain(tensor.name) for tensor in model.inputs], "the signature")
    for tensor in model.inputs:
        if tensor.name not in made:
            there = ", ".join(sorted(made))
            raise ValueError(f"the model's columns must be among {there}, got {tensor.name}")
        length = getattr(features[tensor.name], "length", None)
        if length != (tensor.shape[1] if len(tensor.shape) > 1 else None):
            raise ValueError(
                f"{tensor.name} must have the length {length} of the pipeline, got {tensor.shape}"
            )
    for layer in model._flatten_layers():
        for name, size in layer.tables.items() if isinstance(layer, Embedding) else ():
            made_size = getattr(features.get(name), "size", size)
            if made_size != size:
                raise ValueError(f"{name} must have the pipeline's size {made_size}, got {size}")
