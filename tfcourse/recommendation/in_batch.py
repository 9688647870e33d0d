"""The loss of retrieval: which item of the batch is the one of this user.

Softmax over a catalogue of millions is too much; the other rows of the batch stand in for it (Yi et
al., 2019, https://doi.org/10.1145/3298689.3346996). Row i has the user u_i, the item y_i, its
vector v_i and the probability q_i with which a row of the data has this item:

    c_ij = u_i . v_j / T - log q_j
    loss_i = -log( exp(c_ii) / (exp(c_ii) + sum_j exp(c_ij)) )    over j with y_j other than y_i

- log-Q. A popular item is a negative in most batches. Divided by q_j, each item counts as if every
  item of the catalogue were there once: the mean of the sum, over all batches of n rows, is n - 1
  times that of exp(u_i . v / T) over all items but y_i. Without it, s tends to log p(y | u) / q(y),
  and popular items are ranked too low.
- Accidental hits. A row with the same item is no negative, and is left out. Where the catalogue is
  not many times the batch, that moves the optimum a little from s = log p(y | u); with them it is
  there exactly, since a row's own item then is but one of the draws (Ma & Collins, 2018,
  https://arxiv.org/abs/1809.01812).
- Hard negatives. Of the others only the n with the largest c_ij are kept. It speeds up learning
  what is easily confused, but is no estimate of the softmax any more.
- Explicit negatives. A row whose label is 0, an item that was shown and not liked, has no loss of
  its own; its item is a candidate in all other rows.

An item that the user has liked at another time is a negative like any other: the loss does not know
histories. It costs little, since what a user has seen is not recommended again.
"""

import keras
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable("tfcourse")
class InBatchSoftmax(keras.losses.Loss):
    """Find each user's item among all items of the batch.

    `y_true` is `(batch, 3)`: the item's id, below 2 ** 24, since Keras' losses see 32-bit floats;
    the logarithm of its sampling probability q, or 0 everywhere for no correction; and the label, 1
    or 0. `y_pred` is `(batch, 2, embedding_dim)`: the vectors of user and item. Rows of the unknown
    item, 0, are no negatives of each other. All rows of a batch are candidates, on however many
    replicas they are.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        *,
        hard_negatives: int | None = None,
        remove_accidental_hits: bool = True,
        reduction: str = "sum_over_batch_size",
        name: str = "in_batch_softmax",
    ):
        """Say which negatives count, and how sharply.

        Args:
            temperature: T; small ones make the nearest negatives matter most.
            hard_negatives: How many a row has, the hardest; `None` for all.
            remove_accidental_hits: Whether rows with the same item are left out.
            reduction: Over the rows, those with label 0 included; as Keras' losses have it.
            name: Of the loss.

        Raises:
            ValueError: If `temperature` is not above 0, or `hard_negatives` is below 1.
        """
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        if hard_negatives is not None and hard_negatives < 1:
            raise ValueError(f"hard_negatives must be at least 1 or None, got {hard_negatives}")
        super().__init__(name=name, reduction=reduction)
        self.temperature, self.hard_negatives = temperature, hard_negatives
        self.remove_accidental_hits = remove_accidental_hits

    def call(self, y_true, y_pred):
        items, log_probability, label = ops.unstack(y_true, 3, axis=1)
        users, vectors = ops.unstack(y_pred, 2, axis=1)
        logits = ops.matmul(users, ops.transpose(vectors)) / self.temperature - log_probability
        own = ops.diagonal(logits)[:, None]
        if self.remove_accidental_hits:
            left_out = items[:, None] == items
        else:
            left_out = ops.eye(ops.shape(items)[0], dtype="bool")
        negatives = ops.where(left_out, -float("inf"), logits)
        if self.hard_negatives:
            count = tf.minimum(self.hard_negatives, tf.shape(negatives)[1])
            negatives = tf.math.top_k(negatives, count, sorted=False).values
        both = ops.concatenate([own, negatives], axis=1)
        return label * (ops.logsumexp(both, axis=1) - own[:, 0])

    def get_config(self):
        return super().get_config() | {
            "temperature": self.temperature,
            "hard_negatives": self.hard_negatives,
            "remove_accidental_hits": self.remove_accidental_hits,
        }
