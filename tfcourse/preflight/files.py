"""Preflight of a saved model: which batch and which targets it would be trained with."""

import contextlib
import importlib
import re
import warnings
import zipfile
from pathlib import Path

import keras
import tensorflow as tf

from tfcourse.preflight.checks import Report, check
from tfcourse.preflight.findings import Finding

# Examples on each core, if nothing says otherwise; a TPU works in multiples of eight rows.
ROWS = 8
OURS = re.compile(r'"module": "((?:tfcourse|hub_models)(?:\.[a-z]\w*)*)"')


def check_file(
    path: Path, *, batch_size: int | None = None, replicas: int = 8, compiles: bool = True
) -> list[Report]:
    """Check a model that was saved as `.keras`.

    Args:
        path: The file. A model that was not compiled gets Adam, and the mean of squares of its
            outputs stands in for a loss.
        batch_size: Examples in a batch, over all replicas; by default 8 on each.
        replicas: Cores that share a batch.
        compiles: As in `check`.

    Returns:
        One report.

    Raises:
        ValueError: If the file holds no model that can be loaded safely.
    """
    model = _load(path)
    if not getattr(model, "inputs", None):
        raise ValueError(f"{path} does not say its inputs: it must hold a functional model")
    findings = []
    if not model.compiled or model.loss is None:
        model.compile("adam", _mean_square)
        what = "not compiled: Adam and the mean of squares of the outputs stood in"
        findings.append(Finding("note", what, "", "compile it as you train it"))
    if not model.trainable_variables:
        what = "no trainable weights: there was no gradient to check"
        findings.append(Finding("note", what, "", "set trainable before saving"))
    batch = _batch_of(model)
    fixed = model.inputs[0].shape[0]
    size = batch_size or (fixed or ROWS) * replicas
    if fixed and size != fixed * replicas:
        what = f"the model takes {fixed} examples, and a core's share is {-(-size // replicas)}"
        findings.append(Finding("error", what, "", f"use --batch-size {fixed * replicas}"))
    report = check(
        model, batch, batch_size=size, replicas=replicas, name=path.name, compiles=compiles
    )
    report.findings[:0] = findings
    return [report]


def _load(path: Path) -> keras.Model:
    try:
        with zipfile.ZipFile(path) as archive:
            config = archive.read("config.json").decode()
        # Our layers are known by name once their modules are imported.
        for module in sorted(set(OURS.findall(config))):
            importlib.import_module(module)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an optimizer that was never used has no variables
            return keras.saving.load_model(path)
    except Exception as error:  # a damaged file makes Keras raise almost anything
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{path} cannot be loaded as a Keras model: {reason}") from error


def _mean_square(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(keras.ops.cast(y_pred, "float32")))


def _batch_of(model: keras.Model) -> tuple:
    """Return the batch that a functional model takes, and make the variables that it lacks."""

    def spec(tensor):
        return tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype, name=tensor.name)

    x = keras.tree.map_structure(spec, _end(model, "input"))
    y = _targets(model)
    _build(model, x, y)
    return x, y


def _end(model: keras.Model, name: str):
    """Return the symbolic `input` or `output` in the structure that the model was built with."""
    sequential = isinstance(model, keras.Sequential)
    return getattr(model, f"{name}s")[0] if sequential else getattr(model, name)


def _targets(model: keras.Model):
    """Return targets to fit the loss of each output: class numbers for a sparse one."""

    def target(loss, output):
        name = loss if isinstance(loss, str) else getattr(loss, "name", None)
        sparse = "sparse" in (name or getattr(loss, "__name__", ""))
        shape = output.shape[1:-1] if sparse else output.shape[1:]
        return tf.TensorSpec((None, *shape), tf.int32 if sparse else tf.float32, name=output.name)

    outputs, losses = _end(model, "output"), model.loss
    if isinstance(losses, dict) and not isinstance(outputs, dict):
        losses = [losses.get(name) for name in model.output_names]
    if not isinstance(losses, dict | list | tuple):
        return keras.tree.map_structure(lambda output: target(losses, output), outputs)
    if isinstance(outputs, dict):
        return {name: target(losses.get(name), output) for name, output in outputs.items()}
    outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
    return [target(loss, output) for loss, output in zip(losses, outputs, strict=True)]


def _build(model: keras.Model, x, y) -> None:
    """Make the variables of optimizer, loss and metrics: a graph cannot make them."""

    def zeros(spec):
        size = [size or 1 for size in (1, *spec.shape[1:])]
        return tf.fill(size, "") if spec.dtype == tf.string else tf.zeros(size, spec.dtype)

    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    x, y = keras.tree.map_structure(zeros, (x, y))
    outputs = keras.tree.map_structure(
        lambda t: tf.zeros([size or 1 for size in (1, *t.shape[1:])], t.dtype),
        _end(model, "output"),
    )
    with contextlib.suppress(ValueError, TypeError):  # said when the step is traced
        model.compute_loss(x, y, outputs)
        model.compute_metrics(x, y, outputs)
        model.reset_metrics()
