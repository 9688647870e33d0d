"""Reusable SavedModels: what TF Hub publishes, and what `hub_models.load` can train again.

The interface is described at https://www.tensorflow.org/hub/reusable_saved_models. Keras 3's own
`model.export` writes one inference function; fine-tuning that is training without dropout, and
with the moving statistics of batch normalisation forgotten.
"""

from pathlib import Path

import keras
import tensorflow as tf
from keras import tree

from tfcourse.data.cache import atomic_folder


def export(model: keras.Model, folder: str | Path) -> Path:
    """Write a model as a SavedModel that can be called, served, and trained further.

    The object that `tf.saved_model.load` returns has `__call__(inputs, training=False)`, traced
    for both values, the lists `variables`, `trainable_variables` and `regularization_losses`, and
    the signature `serving_default`. Each weight is stored once.

    Args:
        model: A built functional or sequential model.
        folder: Where to write; an existing folder is replaced, all at once or not at all.

    Returns:
        The folder.

    Raises:
        ValueError: If the model was never built, or if `folder` holds something else.
    """
    folder = Path(folder)
    if not model.built or not getattr(model, "inputs", None):
        raise ValueError(f"export needs a built functional or sequential model, got {model.name!r}")
    if folder.exists() and any(folder.iterdir()) and not (folder / "saved_model.pb").exists():
        raise ValueError(f"{folder} holds something else than a SavedModel; name another folder")
    root = _reusable(model)
    serve = root.__call__.get_concrete_function(_signature(model), training=False)
    with atomic_folder(folder) as new:
        tf.saved_model.save(root, str(new), signatures=serve)
    return folder


def _signature(model: keras.Model) -> object:
    """Return the model's inputs as `tf.TensorSpec`, in the structure in which it takes them."""
    inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return tree.map_structure(
        lambda x: tf.TensorSpec((None, *x.shape[1:]), x.dtype, name=x.name), inputs
    )


def _reusable(model: keras.Model) -> tf.__internal__.tracking.AutoTrackable:
    root = tf.__internal__.tracking.AutoTrackable()

    def call(inputs, training=False):
        return model(inputs, training=training)

    root.__call__ = tf.function(call)
    for training in (True, False):
        root.__call__.get_concrete_function(_signature(model), training=training)
    # The variables below Keras' own: listing those too would store each weight twice.
    root.variables = [v.value for v in model.variables]
    root.trainable_variables = [v.value for v in model.trainable_variables]
    root.regularization_losses = _regularization_losses(model)
    root.resources = _resources(model)
    return root


def _regularization_losses(model: keras.Model) -> list[tf.types.experimental.GenericFunction]:
    def penalty(variable):
        return tf.function(lambda: variable.regularizer(variable), input_signature=[])

    penalties = [penalty(v) for v in model.trainable_variables if v.regularizer is not None]
    for layer in model._flatten_layers():
        penalties += getattr(layer, "hub_penalties", [])
    return penalties


def _resources(model: keras.Model) -> list[tf.saved_model.experimental.TrackableResource]:
    """Return what the layers hold besides weights: look-up tables, with their vocabularies."""
    held = tf.train.TrackableView(model).descendants()
    return [x for x in held if isinstance(x, tf.saved_model.experimental.TrackableResource)]
