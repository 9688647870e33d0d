"""Arrays in memory, in batches whose order is a pure function of the seed, the epoch and the step.

Nothing has to be remembered to go on in the middle of an epoch, and every worker of several knows
the order without being told.
"""

import keras
import numpy as np
import tensorflow as tf


class InMemory:
    """A data set of arrays, which training keeps on the device.

    Attributes:
        arrays: `(inputs, targets)` or `(inputs, targets, sample_weight)`.
        batch_size: Examples in a batch.
        steps: Batches in a pass over the examples.
        element_spec: Shapes and types of a batch, as a `tf.data.Dataset` has them.
    """

    def __init__(
        self,
        inputs,
        targets,
        batch_size: int,
        *,
        sample_weight=None,
        shuffle: bool = True,
        seed: int = 0,
    ):
        """Take arrays as they are; 64-bit floats become the type that Keras computes in.

        Args:
            inputs: An array, or a dict, list or tuple of arrays; the first axis is the examples.
            targets: The same for what is to be predicted; `None` if there is nothing.
            batch_size: Examples in a batch, over all replicas; the last batch has what is left.
            sample_weight: One weight for each example, or a structure as `targets`.
            shuffle: Whether every epoch comes in a new order.
            seed: Of these orders.

        Raises:
            ValueError: If the arrays are not equally long, empty, or have NaN in them.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        named = {"inputs": inputs, "targets": targets, "sample_weight": sample_weight}
        parts = {n: keras.tree.map_structure(_plain, a) for n, a in named.items() if a is not None}
        sizes = {n: [len(x) for x in keras.tree.flatten(a)] for n, a in parts.items()}
        self._rows = sizes["inputs"][0]
        if self._rows == 0 or any(size != self._rows for s in sizes.values() for size in s):
            raise ValueError(f"arrays must be equally long, at least 1, got lengths {sizes}")
        for name, structure in parts.items():
            _refuse_nan(name, structure)
        for array in keras.tree.flatten(parts.get("targets")):
            if array is not None and array.dtype.kind in "USO":
                raise ValueError(f"targets must be numbers, got texts such as {array[0]!r}")
        self.arrays = tuple(parts.values())
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.steps = -(-self._rows // batch_size)
        rows = batch_size if self._rows % batch_size == 0 else None
        self.element_spec = keras.tree.map_structure(
            lambda x: tf.TensorSpec((rows, *x.shape[1:]), x.dtype), self.arrays
        )

    def __len__(self) -> int:
        """Return the number of examples."""
        return self._rows

    def order(self, epoch: int) -> np.ndarray:
        """Return the indices of the examples in the order of an epoch, `(examples,)`."""
        index = np.int32 if self._rows < 2**31 else np.int64
        if not self.shuffle:
            return np.arange(self._rows, dtype=index)
        return np.random.default_rng([self.seed, epoch]).permutation(self._rows).astype(index)

    def batch(self, epoch: int, step: int) -> tuple:
        """Return one batch of NumPy arrays, in the structure of `arrays`."""
        first = step * self.batch_size
        rows = self.order(epoch)[first : first + self.batch_size]
        return keras.tree.map_structure(lambda x: x[rows], self.arrays)

    def dataset(self, epoch: int = 0) -> tf.data.Dataset:
        """Return the batches of an epoch as a `tf.data.Dataset`."""
        rows = tf.data.Dataset.from_tensor_slices(self.order(epoch)).batch(self.batch_size)
        tensors = keras.tree.map_structure(tf.constant, self.arrays)
        return rows.map(lambda i: keras.tree.map_structure(lambda x: tf.gather(x, i), tensors))

    def signature(self) -> dict[str, object]:
        """Return what a continued run has to have in common with the run that it continues."""
        spec = [f"{x.dtype} {x.shape}" for x in keras.tree.flatten(self.arrays)]
        order = {"batch_size": self.batch_size, "shuffle": self.shuffle, "seed": self.seed}
        return {"arrays": spec, **order}


def _plain(array) -> np.ndarray:
    array = np.asarray(array)
    if array.ndim == 0:
        raise ValueError(f"arrays must have an axis of examples, got the single value {array}")
    return array.astype(keras.config.floatx()) if array.dtype == np.float64 else array


def _refuse_nan(name: str, structure) -> None:
    for path, array in keras.tree.flatten_with_path(structure):
        # The smallest of numbers is NaN if any is: no array of flags is made.
        if np.issubdtype(array.dtype, np.floating) and array.size and np.isnan(array.min()):
            row = np.isnan(array).reshape(len(array), -1).any(axis=1).argmax()
            where = " of ".join([f"example {row}", *(str(key) for key in path[::-1])])
            raise ValueError(f"{name} must have no NaN, got one in {where}")
