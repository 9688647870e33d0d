"""Labels that are all the same: binary cross-entropy refuses them, as they teach nothing.

Arrays are looked at before training. Of a stream nothing is known before it is read: its labels
are followed while they train, and judged when a pass over it ends.
"""

import keras
import numpy as np
import tensorflow as tf

from tfcourse.data.in_memory import InMemory
from tfcourse.data.splits import check_not_constant
from tfcourse.training.steps import supervised_step


def judge_labels(model: keras.Model, data: tf.data.Dataset | InMemory, step) -> "Followed | None":
    """Raise ValueError if labels in memory teach nothing; return what follows those of a stream."""
    if not _must_differ(model, data, step):
        return None
    if not isinstance(data, InMemory):
        return Followed()
    check_not_constant("labels", keras.utils.unpack_x_y_sample_weight(data.arrays)[1])
    return None


def _must_differ(model: keras.Model, data: tf.data.Dataset | InMemory, step) -> bool:
    """Tell whether a model is to learn one label a row by binary cross-entropy.

    Wider targets, such as pixels, may well be equal. So may the labels of an own step, and of a
    model that is marked by `one_label = True`, or has a layer that is.
    """
    targets = keras.tree.flatten(keras.utils.unpack_x_y_sample_weight(data.element_spec)[1])
    losses = [keras.losses.get(loss) for loss in keras.tree.flatten(model.loss)]
    if step is not supervised_step or len(targets) != 1 or len(losses) != 1:
        return False
    if any(getattr(layer, "one_label", False) for layer in model._flatten_layers()):
        return False
    (labels,), (loss,) = targets, losses
    binary = isinstance(loss, keras.losses.BinaryCrossentropy)
    if not binary and loss is not keras.losses.binary_crossentropy:
        return False
    return isinstance(labels, tf.TensorSpec) and tuple(labels.shape[1:]) in ((), (1,))


class Followed:
    """The least and the greatest label of a pass over a stream, and of how many rows.

    A pass that was begun elsewhere, before a resume, is not judged.
    """

    def __init__(self):
        self.range = tf.Variable([np.inf, -np.inf], trainable=False)
        self.rows = tf.Variable(0, dtype=tf.int64, trainable=False)

    def begin(self, *, midway: bool = False) -> None:
        """Forget what was seen: a pass begins, or goes on midway."""
        self.range.assign([-np.inf, np.inf] if midway else [np.inf, -np.inf])
        self.rows.assign(0)

    def add(self, batch: tuple) -> None:
        """Look at a whole batch; part of the loop's graph."""
        labels = tf.cast(keras.utils.unpack_x_y_sample_weight(batch)[1], tf.float32)
        least = tf.minimum(self.range[0], tf.reduce_min(labels))
        greatest = tf.maximum(self.range[1], tf.reduce_max(labels))
        self.range.assign(tf.stack([least, greatest]))
        self.rows.assign_add(tf.size(labels, tf.int64))

    def check(self) -> None:
        """Raise ValueError if a whole pass had one label throughout."""
        least, greatest = self.range.numpy()
        if least == greatest:
            check_not_constant("labels", np.broadcast_to(least, int(self.rows)))
