"""A GRU with attention: AUGRU of DIEN (Zhou et al., 2019), https://arxiv.org/abs/1809.03672.

With x_t the input of a step, h the state and a_t in 0 .. 1 how much the step counts:

    u = a_t sigmoid(W_u x_t + U_u h + b_u)      r = sigmoid(W_r x_t + U_r h + b_r)
    c = tanh(W_c x_t + r * (U_c h) + b_c)       h <- (1 - u) h + u c

A step with a_t = 0 leaves the state as it was, bit for bit; a_t = 1 throughout is a GRU. The gate u
says how much is new, as in the paper. Keras' `GRU` has z = 1 - u, how much stays: with the weights
of its first gate negated and no recurrent bias it is this one.
"""

import keras
import tensorflow as tf
from keras import layers, ops


@keras.saving.register_keras_serializable("tfcourse")
class AUGRU(layers.Layer):
    """Read a history from its end, the oldest, to its beginning, the newest.

    Input: vectors `(batch, length, n)`, the newest first, and how much each counts,
    `(batch, length)`: attention, or 1 and 0 for padding.
    Output: the states after each, `(batch, length, units)`, in the order of the input: the state
    at place 0 is the last. Where nothing counts, it is zeros.
    """

    def __init__(self, units: int, **kwargs):
        """Say how long the state is.

        Args:
            units: Length of the state.
            **kwargs: What every layer takes.
        """
        super().__init__(**kwargs)
        self.units = units

    def build(self, vectors_shape, counts_shape):
        # Columns: update gate, reset gate, candidate.
        self.kernel = self.add_weight(name="kernel", shape=(vectors_shape[-1], 3 * self.units))
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel", shape=(self.units, 3 * self.units), initializer="orthogonal"
        )
        self.bias = self.add_weight(name="bias", shape=(3 * self.units,), initializer="zeros")

    def call(self, vectors, counts):
        # What the inputs add is one product for all steps; only the state's is one for each.
        of_inputs = ops.transpose(ops.matmul(vectors, self.kernel) + self.bias, (1, 0, 2))
        counts = ops.transpose(counts)[..., None]
        kernel = tf.identity(ops.convert_to_tensor(self.recurrent_kernel))
        states = _oldest_first(of_inputs[::-1], counts[::-1], kernel)
        return ops.transpose(states[::-1], (1, 0, 2))

    def compute_output_shape(self, vectors_shape, counts_shape):
        return (*vectors_shape[:-1], self.units)

    def get_config(self):
        return super().get_config() | {"units": self.units}


def _gates(state, of_input, kernel):
    """Return the update gate, the reset gate, the candidate, and what it has of the state."""
    of_state, units = ops.matmul(state, kernel), kernel.shape[0]
    gates = ops.sigmoid(of_input[..., :-units] + of_state[..., :-units])
    update, reset = ops.split(gates, 2, axis=-1)
    own = of_state[..., -units:]
    return update, reset, ops.tanh(of_input[..., -units:] + reset * own), own


def _scan(step, start, elements):
    """Return `(length, ...)`: the states after each step, from the first to the last."""
    # A loop of the graph, since XLA takes half a minute for one written out; it has to know the
    # length of it, which `ops.scan` does not tell it.
    length = elements[0].shape[0]
    states = tf.TensorArray(start.dtype, length, element_shape=start.shape)

    def body(i, state, states):
        state = step(state, *(element[i] for element in elements))
        return i + 1, state, states.write(i, state)

    return tf.while_loop(
        lambda i, *_: i < length, body, (0, start, states), maximum_iterations=length
    )[2].stack()


@tf.custom_gradient
def _oldest_first(of_inputs, counts, kernel):
    """Return all states and their gradient, backpropagation through time.

    Written by hand, because all but the chain from state to state is here one product for all
    steps, and TensorFlow's own cannot be compiled by XLA on several replicas.
    """
    start = ops.zeros_like(of_inputs[0, :, : kernel.shape[0]])

    def forward(state, of_input, count):
        update, _, new, _ = _gates(state, of_input, kernel)
        return state + count * update * (new - state)

    states = _scan(forward, start, (of_inputs, counts))

    def gradient(upstream):
        before = ops.concatenate([start[None], states[:-1]])
        update, reset, new, own = _gates(before, of_inputs, kernel)
        # By how much a change of a state changes the sums in the gates and in the candidate.
        of_update = counts * (new - before) * update * (1 - update)
        of_new = counts * update * (1 - new * new)
        of_reset = of_new * own * reset * (1 - reset)
        of_state = ops.concatenate([of_update, of_reset, of_new * reset], axis=-1)
        keeps, back = 1 - counts * update, ops.transpose(kernel)

        def backward(later, upstream, keep, of_state):
            change = upstream + later
            return change * keep + ops.matmul(ops.tile(change, (1, 3)) * of_state, back)

        reverse = [x[::-1] for x in (upstream, keeps, of_state)]
        later = _scan(backward, start, reverse)[::-1]
        change = upstream + ops.concatenate([later[1:], start[None]])
        thrice = ops.tile(change, (1, 1, 3))
        return (
            thrice * ops.concatenate([of_update, of_reset, of_new], axis=-1),
            ops.sum(change * update * (new - before), axis=-1, keepdims=True),
            tf.tensordot(before, thrice * of_state, [[0, 1], [0, 1]]),
        )

    return states, gradient
