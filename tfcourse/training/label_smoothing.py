"""Label smoothing (Szegedy et al., 2016), https://arxiv.org/abs/1512.00567, for tokens."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfcourse")
class SmoothedCrossEntropy(keras.losses.Loss):
    """Cross-entropy with classes that are numbered, and targets that are not quite sure.

    With a smoothing s and V classes the target is 1 - s + s / V for the label and s / V for the
    others, so that no logit gains by growing for ever:

        loss = -log p_label + s (logit_label - mean of all logits)

    It is that of `keras.losses.CategoricalCrossentropy(label_smoothing=s)`, which would need a
    one-hot target as large as the logits. Of sequences only the tokens count if `sample_weight` is
    1 there and 0 at padding: the loss is the mean over what has a weight.
    """

    def __init__(
        self,
        smoothing: float = 0.1,
        reduction: str = "mean_with_sample_weight",
        name: str = "smoothed_cross_entropy",
        **kwargs,
    ):
        """Take how much of the target is spread over all classes, from 0 to below 1.

        Raises:
            ValueError: If it is not.
        """
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must be from 0 to below 1, got {smoothing!r}")
        super().__init__(name=name, reduction=reduction, **kwargs)
        self.smoothing = smoothing

    def call(self, y_true, y_pred):
        """Return the loss at each place, of labels `(...)` and logits `(..., classes)`."""
        labels = ops.cast(y_true, "int32")
        losses = ops.sparse_categorical_crossentropy(labels, y_pred, from_logits=True)
        if not self.smoothing:
            return losses
        own = ops.take_along_axis(y_pred, labels[..., None], axis=-1)[..., 0]
        return losses + self.smoothing * (own - ops.mean(y_pred, axis=-1))

    def get_config(self):
        """Return the arguments."""
        return super().get_config() | {"smoothing": self.smoothing}
