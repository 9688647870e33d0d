"""What `tf.saved_model.load` gives: what to call in it, and which variables it has."""

import re
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf


def load(folder: Path) -> object:
    """Load a SavedModel; the caller has to keep the object, or its variables are deleted.

    Raises:
        ValueError: If an operation is missing that another library brings.
    """
    # A TF1 Hub module keeps its inference graph under no tag at all.
    tags = [] if (folder / "tfhub_module.pb").exists() else None
    try:
        return tf.saved_model.load(str(folder), tags=tags)
    except RuntimeError as error:
        missing = re.search(r"Op type not registered '(\w+)'", str(error))
        if not missing:
            raise
        raise ValueError(
            f"{folder} needs the operation {missing[1]}: import the library that brings it first "
            "(tensorflow_text for text)"
        ) from None


def endpoint(loaded: object, signature: str | None) -> tuple[Callable, str]:
    """Choose what a call runs.

    Returns:
        The function, and its kind: "object" for the object's own `__call__`, "serve" for the
        inference function that Keras 3 exports, "signature" for a serving signature.

    Raises:
        ValueError: If there is no such signature, or nothing to call.
    """
    if signature is None and callable(loaded):
        return loaded.__call__, "object"
    if signature is None and hasattr(loaded, "serve"):
        return loaded.serve, "serve"
    signatures = getattr(loaded, "signatures", {})
    for name in [signature] if signature else ["serving_default", "default"]:
        if name in signatures:
            return signatures[name], "signature"
    raise ValueError(f"signature must be one of {sorted(signatures)}, got {signature!r}")


def traces(function: Callable) -> list[tf.types.experimental.ConcreteFunction]:
    """Return the graphs that a function was saved with."""
    return list(getattr(function, "concrete_functions", [function]))


def argument_names(function: Callable) -> list[str]:
    """Return the names of a function's arguments."""
    if isinstance(function, tf.types.experimental.ConcreteFunction):
        return list(function.structured_input_signature[1])
    return list(function.function_spec.arg_names)


def trainings(function: Callable) -> set[bool]:
    """Return the values of `training` that a function was traced for; empty if it takes none."""
    names = argument_names(function)
    if "training" not in names or isinstance(function, tf.types.experimental.ConcreteFunction):
        return set()
    index, values = names.index("training"), set()
    for trace in traces(function):
        positional, named = trace.structured_input_signature
        value = positional[index] if index < len(positional) else named.get("training")
        if isinstance(value, bool):
            values.add(value)
    return values


def variables(
    loaded: object, function: Callable, kind: str
) -> tuple[list[tf.Variable], list[tf.Variable]]:
    """Return the variables that may train, and the others."""
    everything = list(getattr(loaded, "variables", None) or [])
    if not everything:  # a module without lists: what its function uses
        everything = list({id(v): v for t in traces(function) for v in t.variables}.values())
    listed = getattr(loaded, "trainable_variables", None)
    trained = [v for v in everything if v.trainable] if listed is None else list(listed)
    # A signature is inference only. And Keras cannot hold a variable whose shape is unknown;
    # checkpoints see it through the object.
    trained = [v for v in trained if kind != "signature" and v.shape.is_fully_defined()]
    ids = {id(v) for v in trained}
    return trained, [v for v in everything if id(v) not in ids and v.shape.is_fully_defined()]
