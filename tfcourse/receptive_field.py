"""How much of the image one number of a layer sees: arithmetic on the layers, none on pixels.

Positions are followed backward, from a layer to the image, as closed intervals `[low, high]`: a
convolution of kernel k, dilation d, strides s and p pixels of padding before the image takes
`[low, high]` to `[s low - p, s high - p + d (k - 1)]`. Where paths meet again, the interval holds
them both. Borders don't cut it, and a pooling over everything makes it endless.

Dumoulin & Visin (2016), https://arxiv.org/abs/1603.07285; Araujo, Norris & Sim (2019),
https://doi.org/10.23915/distill.00021.
"""

import keras
import numpy as np
from keras import layers

Interval = tuple[np.ndarray, np.ndarray]
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
ENDLESS = (
    layers.Flatten,
    layers.Reshape,
    layers.GlobalAveragePooling2D,
    layers.GlobalMaxPooling2D,
)
# Upsampling makes what a position sees depend on the position: these many see every case of
# factors that divide 960, as 2 to 64 or 3 and 5 do.
PERIOD = 960


def receptive_field(model: keras.Model, layer: str) -> tuple[tuple[float, float], ...]:
    """Measure what a layer sees of the model's input.

    Args:
        model: A functional model whose input has a known size.
        layer: Name of the layer.

    Returns:
        For each axis of the image, how many pixels one position sees (`inf` if all of any image),
        and how many pixels lie between neighbours.

    Raises:
        ValueError: If a layer on the way is of an unknown kind, or is used more than once.
    """
    output = model.get_layer(layer).output
    found = []
    for axis in range(len(model.input.shape) - 2):
        low, high = trace(model, output, axis, np.arange(PERIOD + 1.0))
        if np.isinf(high).any():
            found.append((np.inf, np.inf))
        else:
            found.append(((high - low).max() + 1, (low[-1] - low[0]) / PERIOD))
    return tuple(found)


def trace(
    model: keras.Model, output: keras.KerasTensor, axis: int, positions: np.ndarray
) -> Interval:
    """Return the first and the last pixel that positions of a map see, along one axis.

    Args:
        model: A functional model whose input has a known size.
        output: The map, a tensor of the model.
        axis: 0 for height, 1 for width.
        positions: `(n,)`, positions in the map, which need not be inside.

    Raises:
        ValueError: If a layer on the way is of an unknown kind, or is used more than once.
    """
    positions = np.asarray(positions, float)
    seen = {id(output): (positions, positions)}
    if len(output.shape) != len(model.input.shape):
        seen[id(output)] = endless(positions)
    for operation in reversed(model.operations):
        outputs = keras.tree.flatten(operation.output)
        reached = [seen.pop(id(x)) for x in outputs if id(x) in seen and x is not model.input]
        if not reached:
            continue
        interval = union(reached)
        for tensor in keras.tree.flatten(operation.input):
            before = step(operation, tensor, outputs[0], axis, interval)
            seen[id(tensor)] = union([before, seen.get(id(tensor), before)])
    found = seen.pop(id(model.input), None)
    if seen or found is None:
        raise ValueError(f"each layer of {model.name} must be used once, between input and output")
    return found


def step(
    operation: keras.Operation,
    before: keras.KerasTensor,
    after: keras.KerasTensor,
    axis: int,
    interval: Interval,
) -> Interval:
    """Go back over one layer, from an interval of its output to one of its input `before`."""
    low, high = interval
    inner, outer = before.shape[axis + 1 : -1], after.shape[axis + 1 : -1]
    # One value for a whole map comes from a global average, or goes to every position of a map.
    if isinstance(operation, ENDLESS) or not inner or not outer or 1 == inner[0] < outer[0]:
        return endless(low)
    if isinstance(operation, (layers.ZeroPadding2D, layers.Cropping2D)):
        moved = edge(operation, axis) * (1 if isinstance(operation, layers.Cropping2D) else -1)
        return low + moved, high + moved
    if isinstance(operation, layers.UpSampling2D) and operation.interpolation == "nearest":
        return low // operation.size[axis], high // operation.size[axis]
    window = getattr(operation, "kernel_size", None) or getattr(operation, "pool_size", None)
    if window:
        return slide(operation, window[axis], (inner[0], outer[0]), axis, interval)
    if inner[0] == outer[0]:
        return interval
    raise ValueError(f"what {operation.name} ({type(operation).__name__}) sees is not known")


def slide(
    layer: layers.Layer, window: int, sizes: tuple[int, int], axis: int, interval: Interval
) -> Interval:
    """Go back over a convolution, a transposed one or a pooling, between maps of two sizes."""
    low, high = interval
    inner, outer = sizes
    strides = layer.strides[axis]
    reach = getattr(layer, "dilation_rate", (1, 1, 1))[axis] * (window - 1)
    if isinstance(layer, TRANSPOSED):
        inner, outer = outer, inner
    padding = 0
    if layer.padding == "same":  # the odd pixel of it comes after the image
        padding = max((outer - 1) * strides + reach + 1 - inner, 0) // 2
    if isinstance(layer, TRANSPOSED):
        return np.ceil((low + padding - reach) / strides), (high + padding) // strides
    return low * strides - padding, high * strides - padding + reach


def union(intervals: list[Interval]) -> Interval:
    """Return the smallest intervals that hold all of the given ones."""
    lows, highs = zip(*intervals, strict=True)
    return np.min(lows, axis=0), np.max(highs, axis=0)


def edge(layer: layers.ZeroPadding2D | layers.Cropping2D, axis: int) -> int:
    """Return how many pixels a layer adds or cuts before the first one."""
    amounts = layer.padding if isinstance(layer, layers.ZeroPadding2D) else layer.cropping
    # Its own first axis is our second when it takes channels to come first.
    own = axis - (layer.data_format == "channels_first")
    return amounts[own][0] if own >= 0 else 0


def endless(like: np.ndarray) -> Interval:
    """Return intervals without ends."""
    return np.full_like(like, -np.inf), np.full_like(like, np.inf)
