"""Narrow arrays of one type lie side by side: one gather takes a batch's rows of them all."""

import keras
import numpy as np
import tensorflow as tf

NARROW = 64  # numbers in a row; a wider array is not worth copying to lay it beside others


class SideBySide:
    """Arrays on the device, in any structure, whose first axis is the examples."""

    def __init__(self, arrays):
        """Put the arrays on the device.

        Args:
            arrays: A structure of NumPy arrays of equal length.
        """
        self.structure, flat = arrays, keras.tree.flatten(arrays)
        together = {}
        for place, array in enumerate(flat):
            narrow = array.ndim == 1 or (array.ndim == 2 and array.shape[1] <= NARROW)
            together.setdefault(array.dtype if narrow else place, []).append(place)
        self.places = list(together.values())
        self.tensors = [tf.constant(_side_by_side([flat[i] for i in p])) for p in self.places]
        self.shapes = [array.shape[1:] for array in flat]

    def rows(self, index: tf.Tensor):
        """Return the rows of an index `(batch,)`, in the structure of the arrays."""
        found = {}
        for places, tensor in zip(self.places, self.tensors, strict=True):
            rows = tf.gather(tensor, index)
            if len(places) == 1:
                found[places[0]] = rows
            else:
                widths = [(*self.shapes[place], 1)[0] for place in places]
                for place, part in zip(places, tf.split(rows, widths, axis=1), strict=True):
                    found[place] = part if self.shapes[place] else part[:, 0]
        return keras.tree.pack_sequence_as(self.structure, [found[i] for i in range(len(found))])


def _side_by_side(arrays: list[np.ndarray]) -> np.ndarray:
    if len(arrays) == 1:
        return arrays[0]
    return np.concatenate([array.reshape(len(array), -1) for array in arrays], axis=1)
