"""Fine-tuning a pretrained model: a rate of its own for each layer, and layers that wake up later.

Howard & Ruder (2018), https://arxiv.org/abs/1801.06146, have both: "discriminative fine-tuning",
where early layers, which see the general, learn slower than late ones, and "gradual unfreezing".
"""

import functools
import re

import keras
import numpy as np
from keras import ops

from tfcourse.training.snapshots import with_built_optimizer

BASES = (
    *(keras.optimizers.SGD, keras.optimizers.Adam, keras.optimizers.AdamW),
    *(keras.optimizers.RMSprop, keras.optimizers.Nadam, keras.optimizers.Adagrad),
    *(keras.optimizers.Lion, keras.optimizers.Lamb),
)


class LayerRates:
    """Added to a Keras optimizer by `layer_rates`: a factor on the rate of each weight.

    The update of a weight, and its weight decay, use `factor * learning_rate`. Moments are kept
    as ever, at factor 0 too: a weight that wakes up has them already. Factors are a variable of the
    optimizer: they are saved with it, and may change between steps without a new graph.
    """

    def build(self, variables):
        super().build(variables)
        paths = [variable.path for variable in variables]
        for pattern in self.rates:
            if not any(re.search(pattern, path) for path in paths):
                known = ", ".join(paths[:3])
                raise ValueError(f"rates must match weights such as {known}; {pattern!r} does not")
        factors = [self._factor(path) for path in paths]
        self.factors = self.add_variable(
            (len(paths),),
            initializer=lambda shape, dtype=None: ops.convert_to_tensor(factors, dtype),
            name="factors",
        )
        self._paths = paths

    def set_rate(self, pattern: str, factor: float) -> None:
        """Change the factor of all weights whose path the pattern is found in."""
        factors = self.factors.numpy()
        chosen = np.array([bool(re.search(pattern, path)) for path in self._paths])
        if not chosen.any():
            known = ", ".join(self._paths[:3])
            raise ValueError(f"layers must match weights such as {known}; {pattern!r} does not")
        self.factors.assign(np.where(chosen, np.float32(factor), factors))

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        rate = ops.cast(learning_rate, "float32") * ops.cast(self.factors[index], "float32")
        if self.weight_decay is not None and self._use_weight_decay(variable):
            decay = ops.cast(rate * self.weight_decay, variable.dtype)
            self.assign_sub(variable, variable * decay)
        super().update_step(gradient, variable, rate)

    def get_config(self):
        return {**super().get_config(), "rates": self.rates}

    def _apply_weight_decay(self, variables):
        """Decay nothing here: Keras would not know the factors; `update_step` does it."""

    def _factor(self, path: str) -> float:
        found = (factor for pattern, factor in self.rates.items() if re.search(pattern, path))
        return float(next(found, 1.0))


def layer_rates(
    optimizer: keras.optimizers.Optimizer, rates: dict[str, float]
) -> keras.optimizers.Optimizer:
    """Return the optimizer with factors on the learning rate, by weight.

    When to use it: to fine-tune a pretrained network with few examples:
    `layer_rates(Adam(1e-3), {"stage[12]/": 0.01, "stage": 0.1})` lets the head learn at full rate,
    the backbone at a tenth, its first stages at a hundredth. Use `UnfreezeAt` to let layers sleep
    at first.

    A factor of 0 keeps weights as they are, but not the layer frozen in every sense: its gradient
    is still computed, and BatchNorm still uses and updates the statistics of the batch unless the
    layers were called with `training=False` when the model was built.

    Args:
        optimizer: A Keras optimizer, not yet built; to use a loss scale, wrap the result.
        rates: Factors by regular expressions, which are searched in the path of a weight, such as
            `stage1/conv/kernel`. The first that is found counts, 1 where none is.

    Returns:
        An optimizer of a class made from that of `optimizer`. Its own class is registered for
        loading when its base is one of Keras'; for others, call this before loading.

    Raises:
        ValueError: If the optimizer is built, or a factor is negative.
    """
    if optimizer.built:
        raise ValueError("optimizer must not be built before it gets rates: compile with it")
    for pattern, factor in rates.items():
        if not factor >= 0:
            raise ValueError(f"rates must be at least 0, got {factor} for {pattern!r}")
    kind = _with_rates(type(optimizer))
    return kind.from_config({**optimizer.get_config(), "rates": dict(rates)})


class UnfreezeAt(keras.callbacks.Callback):
    """Lets some layers sleep until an epoch, by the factors of an optimizer from `layer_rates`.

    When to use it: a new head on a pretrained backbone sends large random gradients through it in
    the first epochs; they spoil what it knows. One run with one schedule and one optimizer
    replaces "train the head, set `trainable`, compile again, train". If the backbone is to sleep
    all the time, `layer.trainable = False` is better: it saves the time of the gradients.

    What is done depends on the epoch alone, so that a resumed training is right by itself. Works
    in `Model.fit`, too.

    Args:
        epoch: The first epoch, counted from 0, in which the layers learn.
        layers: Regular expression that is searched in the paths of the weights.
        factor: Their factor of the learning rate from then on.
    """

    def __init__(self, epoch: int, layers: str, factor: float = 1.0):
        super().__init__()
        if epoch < 0:
            raise ValueError(f"epoch must be at least 0, got {epoch}")
        self.epoch, self.layers, self.factor = epoch, layers, factor

    def on_epoch_begin(self, epoch, logs=None):
        optimizer = self.model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        if not isinstance(optimizer, LayerRates):
            raise ValueError(
                f"optimizer must be one from layer_rates, got {type(optimizer).__name__}"
            )
        with_built_optimizer(self.model)
        optimizer.set_rate(self.layers, self.factor if epoch >= self.epoch else 0.0)


@functools.cache
def _with_rates(base: type) -> type:
    """Make and register the class of a Keras optimizer with factors."""

    def init(self, *arguments, rates: dict[str, float], **settings):
        base.__init__(self, *arguments, **settings)
        self.rates = rates

    name = f"LayerRates{base.__name__}"
    kind = type(name, (LayerRates, base), {"__init__": init, "__module__": __name__})
    return keras.saving.register_keras_serializable("tfcourse")(kind)


for _base in BASES:
    _with_rates(_base)
