"""Arrays in memory as a data set of batches."""

import numpy as np
import tensorflow as tf


def batches(
    inputs: np.ndarray,
    targets: np.ndarray,
    batch_size: int,
    *,
    shuffle: bool = False,
    seed: int = 0,
    steps: int | None = None,
) -> tf.data.Dataset:
    """Return batches `(inputs, targets)`; the last one holds what is left over.

    Args:
        inputs: Array whose first axis is the examples.
        targets: Array of as many targets.
        batch_size: Examples in a batch, over all replicas.
        shuffle: Whether every epoch comes in a new order.
        seed: Of that order.
        steps: Batches in an epoch, if not one pass over the examples: they are repeated.

    Raises:
        ValueError: If there are not as many targets as inputs, or none.
    """
    if len(inputs) != len(targets) or len(inputs) == 0:
        raise ValueError(
            "inputs and targets must be equally many, at least 1, "
            f"got {len(inputs)} and {len(targets)}"
        )
    data = tf.data.Dataset.from_tensor_slices((inputs, targets))
    if shuffle:
        data = data.shuffle(len(inputs), seed=seed)
    if steps:
        data = data.repeat()
    data = data.batch(batch_size)
    return (data.take(steps) if steps else data).prefetch(tf.data.AUTOTUNE)
