"""Optimizers that touch only those rows of an embedding table that a batch looked up.

The gradient of a look-up is a `tf.IndexedSlices`: the ids of the batch, and a gradient for each.
Adam and Adagrad of Keras read and write the whole table for it. These two read and write its rows,
so that a step costs the same for a thousand rows and for a million.
"""

import warnings

import keras
import tensorflow as tf


class _RowSparse(keras.optimizers.Optimizer):
    """Keeps sparse gradients sparse on their way through a Keras optimizer to `update_rows`."""

    def update_rows(self, ids, gradient, variable, learning_rate) -> None:
        """Update the rows `ids` of a table and of its slots.

        Args:
            ids: Row numbers `(n,)`; one that is there twice has the same gradient both times.
            gradient: The whole gradient of each of these rows, `(n, ...)`.
            variable: The table.
            learning_rate: A scalar.
        """
        raise NotImplementedError

    def apply(self, grads, trainable_variables=None):
        grads = list(grads)
        if trainable_variables is not None:
            trainable_variables = list(trainable_variables)
        for pair in zip(grads, trainable_variables or self._trainable_variables, strict=False):
            self._warn_if_dense(*pair)
        super().apply([self._prepare(gradient) for gradient in grads], trainable_variables)

    def update_step(self, gradient, variable, learning_rate):
        gradient = tf.cast(gradient, variable.dtype)
        learning_rate = tf.cast(learning_rate, variable.dtype)
        if isinstance(gradient, tf.IndexedSlices):
            ids, totals, _ = _sum_repeats(gradient)
            self.update_rows(ids, totals, variable, learning_rate)
            return
        if decay := self._decay(variable):
            self.assign_sub(variable, variable * (decay * learning_rate))
        self.update_all(gradient, variable, learning_rate)

    def update_all(self, gradient, variable, learning_rate) -> None:
        """Update all rows of a variable whose gradient is dense."""
        super().update_step(gradient, variable, learning_rate)

    def _prepare(self, gradient):
        if not isinstance(gradient, tf.IndexedSlices):
            return gradient
        if self.gradient_accumulation_steps:
            return tf.convert_to_tensor(gradient)
        if self.loss_scale_factor is not None:
            return _Divisible(gradient.values, gradient.indices, gradient.dense_shape)
        return gradient

    def _clip_gradients(self, grads):
        if not (self.clipnorm or self.clipvalue or self.global_clipnorm):
            return grads
        grads = [_sum_once(g) if isinstance(g, tf.IndexedSlices) else g for g in grads]
        clipped = super()._clip_gradients([getattr(g, "values", g) for g in grads])
        return [
            tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
            if isinstance(gradient, tf.IndexedSlices)
            else values
            for values, gradient in zip(clipped, grads, strict=True)
        ]

    def _use_weight_decay(self, variable):
        # Keras asks this to decay whole variables; here `update_step` decays, which knows the rows.
        return False

    def _decay(self, variable) -> float:
        decay = self.weight_decay or 0.0
        return decay if super()._use_weight_decay(variable) else 0.0

    def _warn_if_dense(self, gradient, variable) -> None:
        """Warn once of each table that will be read as a whole in every step."""
        name = getattr(variable, "path", variable.name)
        reason = self._dense_reason(gradient, variable, name)
        # Not `self._warned = ...`: Keras would track the set as a part of the optimizer's state.
        warned = vars(self).setdefault("_warned", set())
        if reason and name not in warned:
            warned.add(name)
            text = f"{self.name} touches every row of {name} in each step, because of {reason}"
            warnings.warn(text, UserWarning, stacklevel=3)

    def _dense_reason(self, gradient, variable, name: str) -> str | None:
        if gradient is None:
            return None
        if not isinstance(gradient, tf.IndexedSlices):
            dense = "a dense gradient: from a regularizer, or a use other than look-up"
            return dense if name.endswith("embeddings") else None
        if self.gradient_accumulation_steps:
            return "gradient_accumulation_steps"
        if self.use_ema:
            return "use_ema"
        return "its constraint" if getattr(variable, "constraint", None) is not None else None


@keras.saving.register_keras_serializable("tfcourse")
class LazyAdam(_RowSparse, keras.optimizers.Adam):
    """Adam that leaves the table rows alone that a batch did not look up.

    For rows that are looked up in every step, and for all other weights, it is Adam:

        m += (g - m) (1 - beta_1)
        v += (g^2 - v) (1 - beta_2)
        w -= learning_rate sqrt(1 - beta_2^t) / (1 - beta_1^t) m / (sqrt(v) + epsilon)

    A row that is not looked up keeps w, m and v as they are, where Adam lets m and v decay and goes
    on moving w: that is what is lazy. `t` counts all steps, not those of the row. An id that is in
    a batch several times counts once, with the sum of its gradients. `weight_decay` reaches the
    rows that are looked up. Clipping is exact and sparse. What needs the whole table in each step
    (`use_ema`, `gradient_accumulation_steps`, a regularizer or a constraint on the table) works,
    at the cost of the whole table, and warns once.

    Args: those of `keras.optimizers.Adam`.

    Reference: `LazyAdam` of TensorFlow Addons; Adam is Kingma & Ba (2015),
    https://arxiv.org/abs/1412.6980.
    """

    def update_rows(self, ids, gradient, variable, learning_rate) -> None:
        index = self._get_variable_index(variable)
        momentum, velocity = self._momentums[index], self._velocities[index]
        step = tf.cast(self.iterations + 1, gradient.dtype)
        beta_1, beta_2 = (tf.cast(beta, gradient.dtype) for beta in (self.beta_1, self.beta_2))
        rate = learning_rate * tf.sqrt(1 - beta_2**step) / (1 - beta_1**step)
        m, v, w = (_read(table, ids) for table in (momentum, velocity, variable))
        m += (gradient - m) * (1 - self.beta_1)
        v += (gradient**2 - v) * (1 - self.beta_2)
        self.assign(momentum, tf.IndexedSlices(m, ids))
        self.assign(velocity, tf.IndexedSlices(v, ids))
        if self.amsgrad:
            largest = self._velocity_hats[index]
            v = tf.maximum(_read(largest, ids), v)
            self.assign(largest, tf.IndexedSlices(v, ids))
        w -= w * (self._decay(variable) * learning_rate)
        self.assign(variable, tf.IndexedSlices(w - rate * m / (tf.sqrt(v) + self.epsilon), ids))


@keras.saving.register_keras_serializable("tfcourse")
class RowwiseAdagrad(_RowSparse, keras.optimizers.Adagrad):
    """Adagrad with one accumulator for each row of a table, which only looked-up rows touch.

    Ids that are rare keep a high learning rate, at `1 / embedding_dim` of Adagrad's memory:

        a += mean over the row of g^2
        w -= learning_rate g / sqrt(a + epsilon)

    It does so for all weights: the row of a vector is a number (for biases this is Adagrad), that
    of a dense layer's kernel is all weights of one input. Repeated ids, clipping, `weight_decay`
    and what warns are as in `LazyAdam`. The original adds epsilon outside the root, starts at
    a = 0, and has plain Adagrad for weights that are not tables; all settings here are Keras'.

    Args: those of `keras.optimizers.Adagrad`.

    Reference: `RWSAdagrad` of DLRM (Naumov et al., 2019), https://arxiv.org/abs/1906.00091,
    https://github.com/facebookresearch/dlrm/blob/main/optim/rwsadagrad.py.
    """

    def build(self, var_list):
        if self.built:
            return
        # Past Adagrad's own, which makes an accumulator for each weight.
        super(keras.optimizers.Adagrad, self).build(var_list)
        initializer = keras.initializers.Constant(self.initial_accumulator_value)
        self._accumulators = []
        for variable in var_list:
            name = getattr(variable, "path", variable.name).replace("/", "_").replace(":", "_")
            shape = tuple(variable.shape)[:1]
            accumulator = self.add_variable(
                shape, initializer, variable.dtype, name=f"{name}_accumulator"
            )
            self._accumulators.append(accumulator)

    def update_rows(self, ids, gradient, variable, learning_rate) -> None:
        accumulator = self._accumulators[self._get_variable_index(variable)]
        a = _read(accumulator, ids) + _row_means(gradient**2)
        w = _read(variable, ids)
        self.assign(accumulator, tf.IndexedSlices(a, ids))
        w -= w * (self._decay(variable) * learning_rate)
        w -= gradient * _per_row(learning_rate / tf.sqrt(a + self.epsilon), gradient)
        self.assign(variable, tf.IndexedSlices(w, ids))

    def update_all(self, gradient, variable, learning_rate) -> None:
        accumulator = self._accumulators[self._get_variable_index(variable)]
        self.assign_add(accumulator, _row_means(gradient**2))
        rate = learning_rate / tf.sqrt(accumulator + self.epsilon)
        self.assign_sub(variable, gradient * _per_row(rate, gradient))


class _Divisible(tf.IndexedSlices):
    """Slices that Keras can divide by its loss scale, which it cannot do with plain ones."""

    def __truediv__(self, scale):
        return tf.IndexedSlices(self.values / scale, self.indices, self.dense_shape)


def _sum_repeats(slices: tf.IndexedSlices) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return sorted ids, the total gradient of each, and where an id comes for the first time.

    As many rows go out as come in: XLA on TPU needs static shapes. `tf.unique` would be a third
    faster without XLA, and three times slower with it on a CPU.
    """
    order = tf.argsort(slices.indices)
    ids, values = tf.gather(slices.indices, order), tf.gather(slices.values, order)
    first = tf.concat([tf.ones_like(ids[:1], tf.bool), ids[1:] != ids[:-1]], axis=0)
    place = tf.cumsum(tf.cast(first, tf.int32)) - 1
    totals = tf.math.unsorted_segment_sum(values, place, tf.shape(ids)[0])
    return ids, tf.gather(totals, place), first


def _sum_once(slices: tf.IndexedSlices) -> tf.IndexedSlices:
    """Return slices with each id's total at its first place and zeros at its repeats."""
    ids, totals, first = _sum_repeats(slices)
    values = tf.where(_per_row(first, totals), totals, tf.zeros_like(totals))
    return tf.IndexedSlices(values, ids, slices.dense_shape)


def _read(variable, ids: tf.Tensor) -> tf.Tensor:
    """Read rows from the variable itself: as a tensor, the whole table would be copied first."""
    return tf.gather(variable.value if isinstance(variable, keras.Variable) else variable, ids)


def _row_means(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(x, axis=list(range(1, x.shape.rank)))


def _per_row(x: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Give a vector `(n,)` the axes that it takes to multiply `rows`, `(n, ...)`."""
    return tf.reshape(x, tf.concat([tf.shape(x), [1] * (rows.shape.rank - x.shape.rank)], axis=0))
