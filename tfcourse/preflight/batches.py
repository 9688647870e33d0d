"""What is wrong with a batch, before there is a graph."""

import tensorflow as tf

from tfcourse.preflight.findings import Finding

# What stands for a size that nobody fixed: the length of a sequence, the side of a picture.
LENGTH, SIDE = 128, 64


def not_divisible(batch_size: int, replicas: int) -> list[Finding]:
    """Say so if the replicas cannot have equal shares."""
    if batch_size % replicas == 0:
        return []
    lower = batch_size - batch_size % replicas
    options = " or ".join(str(n) for n in (lower, lower + replicas) if n)
    what = f"a batch of {batch_size} does not divide by {replicas} replicas"
    return [Finding("error", what, "", f"use {options}")]


def not_tensors(batch: tuple) -> list[Finding]:
    """Return the parts that no graph of fixed shapes can be traced for."""
    findings = []
    for spec in tf.nest.flatten(batch):
        if not isinstance(spec, tf.TensorSpec):
            kind, instead = type(spec).__name__.removesuffix("Spec"), "to_tensor in the pipeline"
        elif spec.shape.rank is None:
            kind, instead = "a tensor of unknown shape", "use set_shape or tf.ensure_shape"
        else:
            continue
        findings.append(Finding("error", kind, f"input {_name(batch, spec)}", instead))
    return findings


def open_dimensions(batch: tuple) -> list[Finding]:
    """Return the dimensions, other than the first, that have no size."""
    return [
        Finding(
            "error",
            f"dimension {i} of {tuple(spec.shape)} is dynamic",
            f"input {_name(batch, spec)}",
            f"fix it in the input pipeline and in keras.Input ({_stand_in(spec)} stood in here)",
        )
        for spec in tf.nest.flatten(batch)
        for i, size in enumerate(spec.shape[1:], start=1)
        if size is None
    ]


def strings(batch: tuple) -> list[Finding]:
    """Return the parts that are text."""
    instead = "turn strings into numbers in the input pipeline (Dataset.map), and export both"
    return [
        Finding("error", "a tensor of strings", f"input {_name(batch, spec)}", instead)
        for spec in tf.nest.flatten(batch)
        if spec.dtype == tf.string
    ]


def _name(batch: tuple, spec: tf.TensorSpec) -> str:
    if getattr(spec, "name", None):
        return repr(spec.name)
    index = next(i for i, part in enumerate(batch) if any(s is spec for s in tf.nest.flatten(part)))
    return ("x", "y", "sample_weight")[index]


def fixed(batch: tuple, rows: int) -> tuple:
    """Return the batch with so many rows, and a stand-in for every other open dimension."""
    return tf.nest.map_structure(lambda spec: _fixed(spec, rows), batch)


def _fixed(spec: tf.TensorSpec, rows: int) -> tf.TensorSpec:
    sizes = [_stand_in(spec) if size is None else size for size in spec.shape[1:]]
    return tf.TensorSpec((rows, *sizes), spec.dtype)


def _stand_in(spec: tf.TensorSpec) -> int:
    return SIDE if spec.shape.rank >= 4 else LENGTH
