"""How much of a core's memory a training step needs, read off its graph."""

import math
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tfcourse.preflight.graph import GRADIENT, StepGraph
from tfcourse.preflight.operations import LOOPS

# Memory of a chip, which has one core: 16 and 32 GB in https://cloud.google.com/tpu/docs/v6e.
CORES = {"v5e": 16, "v6e": 32}
# What is there anyhow: weights are counted by themselves, constants are part of the program.
NOT_KEPT = ("Const", "ReadVariableOp", "ZerosLike")
LISTS = ("EmptyTensorList", "TensorListReserve")


@dataclass(frozen=True)
class Memory:
    """Bytes that one core needs.

    Attributes:
        weights: All variables of the model.
        optimizer: The variables of the optimizer.
        gradients: One gradient for each trainable weight.
        activations: What the forward pass keeps for the gradient, inputs included.
        uncounted: Layers that keep tensors whose size the graph does not tell.
    """

    weights: int
    optimizer: int
    gradients: int
    activations: int
    uncounted: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """All of them together."""
        return self.weights + self.optimizer + self.gradients + self.activations


def estimate(model: keras.Model, graph: StepGraph) -> Memory:
    """Return what a step keeps in a core's memory at once, before the compiler saves some of it.

    Args:
        model: The model of the graph, with the variables of its optimizer.
        graph: The graph of its training step, for one core's share of a batch.
    """
    activations, uncounted = _kept(graph)
    return Memory(
        _bytes(model.variables),
        _bytes(model.optimizer.variables if model.optimizer else []),
        _bytes(model.trainable_variables),
        activations,
        uncounted,
    )


def _bytes(variables: list[keras.Variable]) -> int:
    return sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in variables)


def _kept(graph: StepGraph) -> tuple[int, tuple[str, ...]]:
    """Add up the tensors that the forward pass makes and the gradient reads."""
    backward, kept = set(), {}
    for op in graph.graph.get_operations():
        if op.name.startswith(GRADIENT) or any(x.op.name in backward for x in op.inputs):
            backward.add(op.name)
            kept |= {x.name: x for x in op.inputs if x.op.name not in backward}
    total, uncounted = 0, set()
    for tensor in kept.values():
        # A list that is still empty is one that the gradient itself fills.
        if tensor.op.type in (*NOT_KEPT, *LISTS) or tensor.dtype == tf.resource:
            continue
        size = _size(graph, tensor)
        total += size or 0
        if size is None:
            uncounted.add(graph.place((tensor.op.name,)))
    return total, tuple(sorted(uncounted))


def _size(graph: StepGraph, tensor: tf.Tensor) -> int | None:
    """Return the bytes of a tensor, or of the list of tensors that a loop fills; else `None`."""
    if tensor.dtype != tf.variant:
        return _product(graph, tensor.shape, tensor.dtype)
    if tensor.op.type not in LOOPS:
        return None
    start = tensor.op.inputs[tensor.value_index].op
    if start.type == "TensorListFromTensor":
        return _product(graph, start.inputs[0].shape, start.inputs[0].dtype)
    if start.type not in LISTS:
        return None
    shape, turns = (_constant(graph, x) for x in start.inputs)
    if shape is None or turns is None or turns < 0 or (shape < 0).any():
        return None
    return int(turns) * math.prod(shape.tolist()) * start.get_attr("element_dtype").size


def _constant(graph: StepGraph, tensor: tf.Tensor) -> np.ndarray | None:
    """Return a value that is known without the batch, such as the number of steps of an RNN."""
    try:
        with tf.compat.v1.Session(graph=graph.graph) as session:
            return session.run(tensor)
    except tf.errors.OpError:
        return None


def _product(graph: StepGraph, shape: tf.TensorShape, dtype: tf.DType) -> int | None:
    sizes = list(shape) if shape.rank is not None else [None, None]
    # A function of a SavedModel does not know how many rows it is given.
    if sizes and sizes[0] is None:
        sizes[0] = graph.specs[0].shape[0]
    return None if None in sizes else math.prod(sizes) * dtype.size
