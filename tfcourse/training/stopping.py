"""Early stopping that a lucky or unlucky epoch does not decide."""

import keras


class MovingAverageStopping(keras.callbacks.EarlyStopping):
    """Keras' EarlyStopping on a running mean of the metric.

    After epoch `t` it watches `sum_i decay^(t - i) * value_i / sum_i decay^(t - i)`: about
    `1 / (1 - decay)` epochs count, and the first value counts as itself.

    When to use it: where the metric is noisy from epoch to epoch, as with few validation examples;
    plain early stopping then keeps an epoch that was lucky, or gives up after an unlucky one. The
    mean lags behind, so let `patience` be longer than the epochs that count.

    Works in `Model.fit`, too.

    Args:
        monitor: Name of the metric, such as `val_loss`.
        decay: Weight of the past, from 0 (plain early stopping) to below 1.
        settings: The other arguments of EarlyStopping: `patience`, `min_delta`, `mode`,
            `restore_best_weights`, `baseline`, `start_from_epoch`, `verbose`.
    """

    STATE = ("wait", "best", "best_epoch", "best_weights", "stopped_epoch", "total", "weight")

    def __init__(self, monitor: str = "val_loss", *, decay: float = 0.7, **settings):
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be from 0 to below 1, got {decay}")
        super().__init__(monitor, **settings)
        self.decay = decay

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self.total = self.weight = 0.0

    def get_monitor_value(self, logs):
        """Return the mean with the newest value in it; Keras asks once an epoch."""
        value = super().get_monitor_value(logs)
        if value is None:
            return None
        self.total = self.decay * self.total + float(value)
        self.weight = self.decay * self.weight + 1.0
        return self.total / self.weight

    def get_state(self) -> dict:
        """Return what a resumed training needs."""
        return {name: getattr(self, name) for name in self.STATE}

    def set_state(self, state: dict) -> None:
        """Go on as the training that was interrupted."""
        for name in self.STATE:
            setattr(self, name, state[name])
