"""The checks of one model and one kind of batch, in the order in which a TPU would meet them."""

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import keras
import tensorflow as tf

from tfcourse.preflight.batches import fixed, not_divisible, not_tensors, open_dimensions, strings
from tfcourse.preflight.findings import Finding
from tfcourse.preflight.graph import StepGraph
from tfcourse.preflight.memory import CORES, Memory, estimate
from tfcourse.preflight.operations import data_dependent, growing_loops, unsupported

GIB = 2**30


@dataclass
class Report:
    """What was found about one training step.

    Attributes:
        name: What was checked.
        batch_size: Examples in a batch, over all replicas.
        replicas: Cores that share a batch.
        findings: What was found.
        memory: What one core needs; `None` if the step could not be traced.
    """

    name: str
    batch_size: int
    replicas: int
    findings: list[Finding] = field(default_factory=list)
    memory: Memory | None = None

    @property
    def ready(self) -> bool:
        """Whether nothing was found that is known to fail."""
        return all(finding.level != "error" for finding in self.findings)


def train_step(model: keras.Model, batch: tuple) -> dict[str, tf.Tensor]:
    """Do what Keras does in a step: forward, loss, gradient, optimizer, metrics."""
    return model.train_step(batch)


def check(
    model: keras.Model,
    batch: tuple,
    *,
    batch_size: int,
    replicas: int = 1,
    step: Callable = train_step,
    name: str = "",
    compiles: bool = True,
) -> Report:
    """Check a compiled model whose variables exist, those of optimizer and metrics included.

    Nothing is run: the step is traced for one core's share of a batch, and compiled.

    Args:
        model: The model.
        batch: `(x,)`, `(x, y)` or `(x, y, sample_weight)` as `tf.TensorSpec`s; their first
            dimension is the batch, of any size.
        batch_size: Examples in a batch, over all replicas.
        replicas: Cores that share a batch.
        step: What one core does with its share: `step(model, batch)`.
        name: What the report calls it; the model's name by default.
        compiles: Whether XLA compiles the step; if not, it only translates it, which takes less
            time and finds nearly all that there is to find.

    Returns:
        The report.
    """
    report = Report(name or model.name, batch_size, replicas)
    report.findings += not_divisible(batch_size, replicas) + (unknown := not_tensors(batch))
    if unknown:
        return report
    report.findings += open_dimensions(batch) + strings(batch)
    batch = fixed(batch, -(-batch_size // replicas))
    graph, failures = _trace(model, step, batch)
    report.findings += failures
    if graph is not None:
        report.findings += _compile(graph, compiles)
        if not failures:
            report.memory = estimate(model, graph)
            report.findings += _memory(report.memory)
    return report


def _trace(model, step, batch) -> tuple[StepGraph | None, list[Finding]]:
    """Trace the step; if that fails, the forward pass alone."""

    def forward(model, batch):
        return model(batch[0], training=True)

    findings = []
    for function, what in ((step, "the training step"), (forward, "the forward pass")):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # weights without a gradient are another matter
                return StepGraph(model, function, batch), findings
        except Exception as error:  # a model may raise anything
            reason = f"{what} cannot be traced with shapes {_shapes(batch)}"
            findings.append(Finding("error", reason, "", _first_line(error)))
    return None, findings


def _compile(graph: StepGraph, compiles: bool) -> list[Finding]:
    try:
        text = graph.hlo("hlo")
        if compiles:
            graph.hlo("optimized_hlo")
    except Exception as error:  # the compiler raises most kinds of error
        # Only now: what nothing needs, XLA drops, and then it may hold anything.
        known = unsupported(graph) + growing_loops(graph)
        return (known or [_refusal(graph, error)]) + data_dependent(graph)
    # That is how XLA writes a size that is only bounded.
    return data_dependent(graph) if "<=" in text else []


def _refusal(graph: StepGraph, error: Exception) -> Finding:
    """Turn the compiler's complaint into a finding, at the node that it names."""
    text = str(error).removeprefix("Failed getting HLO text: ")
    node = re.search(r"\{\{node ([^}]+)\}\}", text)
    where = graph.place((node[1],)) if node else ""
    return Finding("error", "XLA refuses the step", where, _first_line(text.strip("'\" ")))


def _memory(memory: Memory) -> list[Finding]:
    findings = []
    fits = [kind for kind, size in CORES.items() if memory.total <= size * GIB]
    if len(fits) < len(CORES):
        level = "warning" if fits else "error"
        instead = f"it fits {', '.join(fits) or 'neither kind of core'}: use a smaller batch"
        what = f"a core needs about {memory.total / GIB:.1f} GiB"
        findings.append(Finding(level, what, "", instead + ", bfloat16, or more replicas"))
    for place in memory.uncounted:
        what = "tensors of unknown size, which the estimate of memory leaves out,"
        findings.append(Finding("note", what, place, "a core needs more than is said"))
    return findings


def _shapes(batch: tuple) -> str:
    return ", ".join(str(tuple(spec.shape)) for spec in tf.nest.flatten(batch))


def _first_line(error: Exception | str) -> str:
    lines: Sequence[str] = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
