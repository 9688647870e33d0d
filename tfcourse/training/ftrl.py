"""The two optimizers of Wide & Deep in one: FTRL for the wide part, Adagrad for the rest.

FTRL-Proximal is McMahan et al. (2013), https://doi.org/10.1145/2487575.2488200.
"""

import re

import keras
import tensorflow as tf
from keras import ops

from tfcourse.training.optimizers import _read, _RowSparse


@keras.saving.register_keras_serializable("tfcourse")
class FtrlAdagrad(_RowSparse, keras.optimizers.Adagrad):
    """FTRL for the weights whose path matches a pattern, Adagrad for all others.

    When to use it: for `build_wide_and_deep`. A cross has a row for each pair of ids, and L1 in
    FTRL sets those to exactly 0 that say nothing; a plain gradient step would never get there. For
    each number w of a matched weight, with alpha the learning rate times `ftrl_factor`:

        n' = n + g^2                z += g - (sqrt(n') - sqrt(n)) / alpha w
        w = 0 where |z| <= l1, else -(z - sign(z) l1) / (sqrt(n') / alpha + 2 l2)

    and Adagrad is n' = n + g^2, w -= alpha g / sqrt(n' + epsilon). Both leave alone the rows of a
    table that a batch did not look up, which are neither read nor written: it is exact, not lazy,
    for weights of FTRL that begin at 0, as those of the wide part do. Clipping, accumulation and
    what warns are as in `LazyAdam`; it is saved, resumed and spread over replicas like any other.

    Args:
        learning_rate: Of Adagrad.
        ftrl: Regular expression that is searched in the path of a weight, such as `wide/table`.
        ftrl_factor: What the learning rate is multiplied by in FTRL.
        l1: Below which z makes no weight.
        l2: Of FTRL, how much weights are shrunk.
        **settings: Those of `keras.optimizers.Adagrad`. `initial_accumulator_value`, where n
            begins, is both parts'; `weight_decay` is Adagrad's, and of tables reaches the rows
            that are looked up.
    """

    def __init__(
        self,
        learning_rate=0.05,
        ftrl: str = "wide/",
        *,
        ftrl_factor: float = 1.0,
        l1: float = 0.0,
        l2: float = 0.0,
        **settings,
    ):
        if not (ftrl_factor > 0 and l1 >= 0 and l2 >= 0):
            raise ValueError(
                f"ftrl_factor must be above 0, l1 and l2 at least 0, got {ftrl_factor}, {l1}, {l2}"
            )
        super().__init__(learning_rate, **settings)
        self.ftrl, self.ftrl_factor, self.l1, self.l2 = ftrl, ftrl_factor, l1, l2

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        paths = [variable.path for variable in variables]
        if not any(re.search(self.ftrl, path) for path in paths):
            known = ", ".join(paths[:3])
            raise ValueError(f"ftrl must match weights such as {known}; {self.ftrl!r} does not")
        self._sums = [
            self.add_variable_from_reference(variable, name="z")
            if re.search(self.ftrl, variable.path)
            else None
            for variable in variables
        ]

    def update_rows(self, ids, gradient, variable, learning_rate) -> None:
        index = self._get_variable_index(variable)
        n, z = self._accumulators[index], self._sums[index]
        parts = [None if table is None else _read(table, ids) for table in (n, z, variable)]
        parts[2] -= parts[2] * (self._decay(variable) * learning_rate)
        self._assign_all((n, z, variable), self._updated(*parts, gradient, learning_rate), ids)

    def update_all(self, gradient, variable, learning_rate) -> None:
        index = self._get_variable_index(variable)
        slots = (self._accumulators[index], self._sums[index], variable)
        parts = [None if slot is None else ops.convert_to_tensor(slot) for slot in slots]
        self._assign_all(slots, self._updated(*parts, gradient, learning_rate))

    def _decay(self, variable) -> float:
        matched = self._sums[self._get_variable_index(variable)] is not None
        return 0.0 if matched else super()._decay(variable)

    def get_config(self):
        own = {"ftrl": self.ftrl, "ftrl_factor": self.ftrl_factor, "l1": self.l1, "l2": self.l2}
        return super().get_config() | own

    def _updated(self, n, z, w, gradient, rate):
        """Return the new n, z and w; Adagrad has no z."""
        total = n + gradient**2
        if z is None:
            return total, None, w - rate * gradient / ops.sqrt(total + self.epsilon)
        rate = rate * self.ftrl_factor
        z += gradient - (ops.sqrt(total) - ops.sqrt(n)) / rate * w
        beyond = z - ops.clip(z, -self.l1, self.l1)
        return total, z, -beyond / (ops.sqrt(total) / rate + 2 * self.l2)

    def _assign_all(self, slots, values, ids=None) -> None:
        for slot, value in zip(slots, values, strict=True):
            if slot is not None:
                self.assign(slot, value if ids is None else tf.IndexedSlices(value, ids))
