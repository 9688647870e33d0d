"""Preflight of a recipe: each training of its smallest run is looked at."""

import contextlib
import io
import runpy
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import tensorflow as tf

from tfcourse import training
from tfcourse.preflight.checks import Report, check, train_step
from tfcourse.preflight.findings import Finding

# Operations of a pipeline that a TPU could not run; it need not.
HOST = ("PyFunc", "Decode", "ReadFile", "LookupTable", "String", "Regex", "Parse")


def check_recipe(
    path: Path, *, batch_size: int | None = None, replicas: int = 8, compiles: bool = True
) -> list[Report]:
    """Check each training of a recipe: it is run with `--smoke`, and looked at after each `fit`.

    Args:
        path: The recipe.
        batch_size: Examples in a batch, over all replicas; the recipe's own by default.
        replicas: Cores that share a batch.
        compiles: As in `check`.

    Returns:
        A report for each kind of model and batch that the recipe trains.

    Raises:
        ValueError: If the recipe fails, or trains nothing.
    """
    reports, seen = [], set()

    def look(model, data, step):
        batch, size = _batch_of_data(data)
        key = (model.name, str(batch), len(model.trainable_variables))
        if key in seen:
            return
        seen.add(key)
        report = check(
            model,
            batch,
            batch_size=batch_size or size,
            replicas=replicas,
            step=step or _step_of(model),
            name=f"{path.stem}, {model.name}",
            compiles=compiles,
        )
        report.findings += _pipeline(data)
        reports.append(report)

    arguments = ["--smoke", "--strategy", "cpu"]
    if batch_size:
        arguments += ["--batch-size", str(batch_size)]
    with tempfile.TemporaryDirectory() as folder, _watched_fit(look):
        _run(path, [*arguments, "--workdir", str(Path(folder) / "run")])
    if not reports:
        raise ValueError(f"recipe {path.stem} trains nothing with training.fit")
    return reports


def _step_of(model: keras.Model) -> Callable:
    own = type(model).train_step is not keras.Model.train_step
    return train_step if own else training.supervised_step


def _batch_of_data(data) -> tuple[tuple, int]:
    """Return the batch of a data set as specs, and how many examples it has."""
    spec = data.element_spec
    size = getattr(data, "batch_size", None) or tf.nest.flatten(spec)[0].shape[0]
    if size is None:
        size = tf.nest.flatten(next(iter(data)))[0].shape[0]
    return spec if isinstance(spec, tuple) else (spec,), int(size)


def _pipeline(data) -> list[Finding]:
    """Return what is to be said of the data, which the host reads."""
    findings, where = [], "the input pipeline"
    if any(
        spec.shape.rank and spec.shape[0] is None for spec in tf.nest.flatten(data.element_spec)
    ):
        what = "the last batch may be smaller than the others"
        instead = "unknown on TPU, which wants one size: batch(..., drop_remainder=True)"
        if not isinstance(data, tf.data.Dataset):
            instead = "unknown on TPU, which wants one size: let the batch size divide the examples"
        findings.append(Finding("warning", what, where, instead))
    operations = sorted(op for op in _pipeline_operations(data) if any(x in op for x in HOST))
    if operations:
        findings.append(Finding("note", ", ".join(operations), where, "fine: it runs on the host"))
    return findings


def _pipeline_operations(data) -> set[str]:
    if not isinstance(data, tf.data.Dataset):
        return set()
    try:
        text = tf.raw_ops.DatasetToGraphV2(
            input_dataset=tf.data.experimental.to_variant(data), external_state_policy=1
        )
    except tf.errors.OpError:  # such as arrays of more than 2 GB, which no graph can hold
        return set()
    graph = tf.compat.v1.GraphDef.FromString(text.numpy())
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    return {node.op for node in nodes}


@contextlib.contextmanager
def _watched_fit(look) -> Iterator[None]:
    """Put a `fit` in the place of `training.fit` that trains and then looks at what it trained."""
    fit = training.fit

    def watched(model, data, epochs, *, step=None, **options):
        history = fit(model, data, epochs, **options, **({"step": step} if step else {}))
        look(model, data, step)
        return history

    training.fit = watched
    try:
        yield
    finally:
        training.fit = fit


def _run(path: Path, arguments: list[str]) -> None:
    before, sys.argv = sys.argv, [str(path), *arguments]
    output = io.StringIO()
    status = 0
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            runpy.run_path(str(path), run_name="__main__")
    except SystemExit as end:
        status = end.code
    finally:
        sys.argv = before
    if status:
        lines = output.getvalue().strip().splitlines() or [str(status)]
        raise ValueError(f"recipe {path.stem} {' '.join(arguments[:1])} failed: {lines[-1]}")
