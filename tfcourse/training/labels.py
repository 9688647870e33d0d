"""Labels that are all the same: binary cross-entropy refuses them, as they teach nothing.

Arrays are looked at before training. Of a stream nothing is known before it is read: its labels
are followed while they train, and judged when the first pass over it ends. Until two differ, no
checkpoint is written in the middle of an epoch, so that nothing of such a run is gone on from. Only
where a pass goes on over several epochs (`steps_per_epoch`) there are checkpoints before that, and
what goes on from one is not judged.
"""

import keras
import numpy as np
import tensorflow as tf

from tfcourse.data.in_memory import InMemory
from tfcourse.data.splits import check_not_constant
from tfcourse.training.steps import supervised_step


def judge_labels(model: keras.Model, data: tf.data.Dataset | InMemory, step) -> "Followed | None":
    """Raise ValueError if labels in memory teach nothing; return what follows those of a stream.

    Labels of a stream on a TPU are not followed: they are not seen where the loop is.
    """
    if step is not supervised_step or not _must_differ(model, data):
        return None
    if isinstance(data, InMemory):
        check_not_constant("labels", _labels(data.arrays))
        return None
    on_tpu = isinstance(model.distribute_strategy, tf.distribute.TPUStrategy)
    return None if on_tpu else Followed()


def _must_differ(model: keras.Model, data: tf.data.Dataset | InMemory) -> bool:
    """Tell whether a model is to learn one label a row by binary cross-entropy.

    Wider targets, such as pixels, may well be equal. So may the labels of a model that is marked by
    `one_label = True`, or has a layer that is.
    """
    losses = [keras.losses.get(loss) for loss in keras.tree.flatten(model.loss)]
    if len(losses) != 1 or any(getattr(x, "one_label", False) for x in model._flatten_layers()):
        return False
    (loss,) = losses
    binary = isinstance(loss, keras.losses.BinaryCrossentropy)
    if not binary and loss is not keras.losses.binary_crossentropy:
        return False
    labels = _labels(data.element_spec)
    return isinstance(labels, tf.TensorSpec) and tuple(labels.shape[1:]) in ((), (1,))


def _labels(batch: tuple):
    """Return the targets of a batch, if the model has one output; they may go by its name."""
    targets = keras.tree.flatten(keras.utils.unpack_x_y_sample_weight(batch)[1])
    return targets[0] if len(targets) == 1 else None


class Followed:
    """The least and the greatest label of a stream so far, and of how many rows."""

    def __init__(self):
        self.range = tf.Variable([np.inf, -np.inf], trainable=False)
        self.rows = tf.Variable(0, dtype=tf.int64, trainable=False)

    def add(self, batch: tuple) -> None:
        """Look at a whole batch; part of the loop's graph."""
        labels = tf.cast(_labels(batch), tf.float32)
        least = tf.minimum(self.range[0], tf.reduce_min(labels))
        greatest = tf.maximum(self.range[1], tf.reduce_max(labels))
        self.range.assign(tf.stack([least, greatest]))
        self.rows.assign_add(tf.size(labels, tf.int64))

    def differ(self) -> bool:
        """Tell whether two labels differed; NaN differs from everything."""
        least, greatest = self.range.numpy()
        return least < greatest or bool(np.isnan([least, greatest]).any())

    def check(self) -> None:
        """Raise ValueError if there was one label throughout."""
        least, greatest = self.range.numpy()
        if least == greatest:
            check_not_constant("labels", np.broadcast_to(least, int(self.rows.numpy())))
