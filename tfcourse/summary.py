"""A model stage by stage: shapes, parameters, multiply-adds, and how much of the image it sees."""

import math
import re
from typing import NamedTuple

import keras
from keras import layers

from tfcourse.receptive_field import TRANSPOSED, receptive_field

CONVOLUTIONS = (
    *(layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.DepthwiseConv2D, layers.SeparableConv2D),
    *TRANSPOSED,
)
# Weights that scale and shift, for which nobody counts multiply-adds.
UNCOUNTED = (layers.BatchNormalization, layers.LayerNormalization, layers.GroupNormalization)
HEADINGS = ("stage", "output", "layers", "parameters", "multiply-adds", "sees", "stride")
NOTE = (
    "layers: convolutions and dense ones, towers count once; multiply-adds: theirs, of one image; "
    "sees: pixels of the image behind one number"
)


class Stage(NamedTuple):
    """What `summarize` says of one stage.

    `sees` and `stride` are pixels along height and width, `inf` where it is all of any image.
    """

    name: str
    output_shape: tuple[int, ...]
    layers: int
    parameters: int
    multiply_adds: int
    sees: tuple[float, ...]
    stride: tuple[float, ...]


def summarize(model: keras.Model) -> list[Stage]:
    """Take a model apart at its layers `stage1`, `stage2`, ...; what follows is its last part.

    Args:
        model: A functional model whose input has a known size.

    Returns:
        A row for each stage; the last is "head", or "rest" if the model ends in a map.

    Raises:
        ValueError: If the size of the input is not known, or a layer with weights is of an
            unknown kind.
    """
    if None in model.input.shape[1:]:
        raise ValueError(f"the size of the input must be known, got {model.input.shape[1:]}")
    ends = [layer for layer in model.layers if re.fullmatch(r"stage\d+", layer.name)]
    rows, taken = [], set()
    for end in sorted(ends, key=lambda layer: int(layer.name.removeprefix("stage"))):
        part = _before(end.output, model) - taken
        taken |= part
        rows.append(_stage(model, end.name, end, part))
    rest = {layer for layer in model.layers if layer not in taken}
    if any(_is_counted(layer) for layer in rest) or not rows:
        names = {layer.name for layer in model.layers}
        last = model.get_layer("logits") if "logits" in names else model.layers[-1]
        rows.append(_stage(model, "head" if len(last.output.shape) == 2 else "rest", last, rest))
    return rows


def multiply_adds(model: keras.Model) -> int:
    """Count the multiplications of convolutions and dense layers for one image.

    Each comes with an addition: floating-point operations are twice as many. Nothing else is
    counted, as usual.

    Args:
        model: A functional model whose input has a known size.

    Raises:
        ValueError: If a layer with weights is of an unknown kind.
    """
    return sum(_multiply_adds(layer) for layer in model.layers)


def show(model: keras.Model) -> None:
    """Print the table of `summarize`, and the sums; without pictures the layers with weights."""
    if isinstance(model.input, dict) or len(model.input.shape) != 4:
        _show_layers(model)
        return
    stages = summarize(model)
    total = [sum(column) for column in zip(*(stage[2:5] for stage in stages), strict=True)]
    print(f"{model.name}, input {_shape(model.input.shape[1:])}")
    rows = [_words(stage) for stage in stages]
    _print_table([HEADINGS, *rows, ("total", "", *map(_number, total))])
    fixed = sum(math.prod(weight.shape) for weight in model.non_trainable_weights)
    if fixed:
        print(f"{fixed:,} of the parameters are not trained: means and variances of the data")
    print(NOTE)


def _show_layers(model: keras.Model) -> None:
    columns = isinstance(model.input, dict)
    takes = (
        f"columns {', '.join(model.input)}" if columns else f"input {_shape(model.input.shape[1:])}"
    )
    print(f"{model.name}, {takes}")
    rows = [
        (layer.name, _outputs(layer), _number(layer.count_params()))
        for layer in model.layers
        if layer.weights
    ]
    total = ("total", "", _number(model.count_params()))
    _print_table([("layer", "output", "parameters"), *rows, total])


def _outputs(layer: layers.Layer) -> str:
    """Write the shape of what a layer gives first, or how many columns it gives vectors of."""
    found = keras.tree.flatten(layer.output)
    if isinstance(layer.output, dict):
        return f"{len(found)} x {found[0].shape[-1]}"
    return _shape(found[0].shape[1:])


def _print_table(table: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[i]) for row in table if i < len(row)) for i in range(len(table[0]))]
    for row in table:
        cells = zip(row, widths, strict=False)
        print("  ".join(f"{x:{'<' if i < 2 else '>'}{w}}" for i, (x, w) in enumerate(cells)))


def _before(tensor: keras.KerasTensor, model: keras.Model) -> set[layers.Layer]:
    """Return the layers that a tensor is computed by."""
    wanted, found = {id(tensor)}, set()
    for operation in reversed(model.operations):
        if any(id(x) in wanted for x in keras.tree.flatten(operation.output)):
            found.add(operation)
            if not isinstance(operation, layers.InputLayer):
                wanted |= {id(x) for x in keras.tree.flatten(operation.input)}
    return found & set(model.layers)


def _stage(model: keras.Model, name: str, end: layers.Layer, part: set[layers.Layer]) -> Stage:
    fields = receptive_field(model, end.name)
    return Stage(
        name,
        tuple(end.output.shape[1:]),
        # Layers called conv2_tower1, conv2_tower2, ... are the paper's one layer conv2.
        len({re.sub(r"_tower\d+$", "", layer.name) for layer in part if _is_counted(layer)}),
        sum(layer.count_params() for layer in part),
        sum(map(_multiply_adds, part)),
        tuple(size for size, _ in fields),
        tuple(stride for _, stride in fields),
    )


def _is_counted(layer: layers.Layer) -> bool:
    return isinstance(layer, (*CONVOLUTIONS, layers.Dense))


def _multiply_adds(layer: layers.Layer) -> int:
    if not _is_counted(layer):
        if layer.weights and not isinstance(layer, UNCOUNTED):
            raise ValueError(
                f"multiply-adds of {layer.name} ({type(layer).__name__}) are not known"
            )
        return 0
    # Every weight of a kernel is used once at every position: of the input, where that is spread
    # over a larger map.
    tensor = layer.input if isinstance(layer, TRANSPOSED) else layer.output
    kernels = sum(math.prod(weight.shape) for weight in layer.weights if len(weight.shape) > 1)
    return math.prod(tensor.shape[1:-1]) * kernels


def _words(stage: Stage) -> tuple[str, ...]:
    counts = map(_number, stage[2:5])
    return (stage.name, _shape(stage.output_shape), *counts, _axes(stage.sees), _axes(stage.stride))


def _number(count: int) -> str:
    return f"{count:,}"


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join("any" if size is None else str(size) for size in shape)


def _axes(values: tuple[float, ...]) -> str:
    """Write one number if height and width have the same."""
    values = values if len(set(values)) > 1 else values[:1]
    return " x ".join("all" if math.isinf(value) else f"{value:g}" for value in values)
