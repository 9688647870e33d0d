"""Operations that XLA lacks, or whose result has a size that only the data tell."""

import functools

import tensorflow as tf

# TensorFlow shows what is registered for a compiler only here.
from tensorflow.python.framework import kernels

from tfcourse.preflight.findings import Finding
from tfcourse.preflight.graph import StepGraph

COMPILER = "XLA_CPU_JIT"
# What feeds the graph, and what the compiler drops or passes through.
DROPPED = ("Placeholder", "Assert", "Const", "IdentityN")
LOOPS = ("While", "StatelessWhile")
# XLA:CPU takes these; how many rows they give depends on the data.
DATA_DEPENDENT = (
    "Where",
    "Unique",
    "UniqueV2",
    "DynamicPartition",
    "NonMaxSuppressionV3",
    "NonMaxSuppressionV4",
)
PIPELINE = "do it in the input pipeline (Dataset.map), which runs on the host"
INSTEAD = {
    "MaxPoolWithArgmax": "use MaxPooling2D; for unpooling, repeat each value (UpSampling2D)",
    "CropAndResize": "sample with gathers and weights (RoI align by bilinear interpolation)",
    "CombinedNonMaxSuppression": "use tf.image.non_max_suppression_padded, or do it on the host",
    "LookupTable": "look up in the input pipeline (Dataset.map), and give the model the numbers",
    "String": "hash and split strings in the input pipeline, and give the model the numbers",
    "SparseCross": "cross in the input pipeline, or add up hashes of integers in the layer",
    "PyFunc": "write it in TensorFlow operations, or " + PIPELINE,
    "EagerPyFunc": "write it in TensorFlow operations, or " + PIPELINE,
    "Print": "remove tf.print, or return the value as a metric",
    "Ragged": "pad in the input pipeline (padded_batch) and hand on a mask",
    "HistogramFixedWidth": "count with tf.math.bincount, or outside the step",
    "SegmentSum": "use tf.math.unsorted_segment_sum with a fixed num_segments",
    "Decode": PIPELINE,
    "ImageProjectiveTransform": "augment in the input pipeline, or pad and RandomCrop",
    "StatelessRandomGamma": "move MixUp or CutMix to the input pipeline (Dataset.map)",
}


def unsupported(graph: StepGraph) -> list[Finding]:
    """Return the operations for which XLA has no kernel, with the layers that hold them.

    What the compiler would drop, since nothing needs it, is among them.
    """
    found = {}
    for node, path in graph.nodes():
        if node.op not in graph.library and not _has_kernel(node):
            place = graph.place(path)
            # A gradient of what is lacking is lacking, too: one line is enough.
            if "Grad" in node.op and any(where == place for where, _ in found):
                continue
            found[place, node.op] = Finding("error", node.op, place, _instead(node.op))
    return list(found.values())


def data_dependent(graph: StepGraph) -> list[Finding]:
    """Return the operations whose result has as many rows as the data make."""
    found = {}
    for node, path in graph.nodes():
        if node.op in DATA_DEPENDENT:
            place = graph.place(path)
            what = f"{node.op}, which gives a number of rows that depends on the data,"
            instead = "unknown on TPU: keep every row and multiply by a mask"
            found[node.op, place] = Finding("warning", what, place, instead)
    return list(found.values())


def growing_loops(graph: StepGraph) -> list[Finding]:
    """Return the loops that carry a tensor which changes its shape from turn to turn."""
    found = {}
    for node, path in graph.nodes():
        if node.op in LOOPS and not path[0].startswith("gradient_tape") and _grows(node):
            place = graph.place(path)
            instead = "write into a tensor of the full size (tf.TensorArray of a fixed size)"
            what = "a loop whose tensor changes its shape"
            found[place] = Finding("error", what, place, instead)
    return list(found.values())


def _has_kernel(node: tf.compat.v1.NodeDef) -> bool:
    return node.op in DROPPED or any(
        all(name not in node.attr or _types(node.attr[name]) <= types for name, types in kernel)
        for kernel in _registered(node.op)
    )


def _types(value) -> set[int]:
    return {value.type} if value.type else set(value.list.type)


@functools.cache
def _registered(op: str) -> list[list[tuple[str, set[int]]]]:
    """Return the types that each of the compiler's kernels takes, by attribute."""
    _register_all()
    return [
        [(c.name, set(c.allowed_values.list.type)) for c in k.constraint]
        for k in kernels.get_registered_kernels_for_op(op).kernel
        if k.device_type == COMPILER
    ]


@functools.cache
def _register_all() -> None:
    """Translate something: only then does TensorFlow register the kernels of the compiler."""
    function = tf.function(lambda x: -x, jit_compile=True)
    function.experimental_get_compiler_ir(tf.TensorSpec([1]))(stage="hlo", platform_name="CPU")


def _grows(node: tf.compat.v1.NodeDef) -> bool:
    shapes, types = node.attr["output_shapes"].list.shape, node.attr["T"].list.type
    opaque = (tf.variant.as_datatype_enum, tf.resource.as_datatype_enum)
    return any(
        shape.unknown_rank or any(dim.size < 0 for dim in shape.dim)
        for shape, dtype in zip(shapes, types, strict=True)
        if dtype not in opaque
    )


def _instead(op: str) -> str:
    matches = [key for key in INSTEAD if key in op]
    return INSTEAD[max(matches, key=len)] if matches else "XLA has no such operation; " + PIPELINE
