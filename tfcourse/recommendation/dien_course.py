"""The course's network after DIEN, kept for comparison (SparrowRecSys).

https://github.com/wzhe06/SparrowRecSys. Its states h_1 ... h_T are those of Keras' GRU. Attention
to the target t is a small network, whose weights need not add up to one, and in every gate of the
second GRU, of update u, reset r and candidate c, one more dense layer follows the sum:

    a_j = sigmoid(MLP(h_j * t))
    u = sigmoid(D_u(W_u h_j + U_u s + b_u))     r = sigmoid(D_r(W_r h_j + U_r s + b_r))
    c = tanh(D_c(W_c h_j + U_c (r * s) + b_c))  s <- (1 - a_j u) s + a_j u c

The auxiliary loss has a network for what came next, and another one for what did not. Not kept is
what is wrong there: the label is one of the inputs, padding counts, the history is read from its
newest end, the state s begins at random numbers, and the auxiliary loss is minus the sum of both
probabilities, so that what did not come is to be likely, too. Here it is their log loss, the mean
over a history and not the sum, with the same weight.
"""

import keras
from keras import layers, ops

from tfcourse.recommendation.auxiliary import AuxiliaryLoss, mean_of_pairs

UNITS = 32  # of the hidden layer of attention, and of both networks of the auxiliary loss


@keras.saving.register_keras_serializable("tfcourse")
class CourseCell(layers.Layer):
    """One step of the second GRU, for `keras.layers.RNN`.

    Input: `(batch, n + 1)`, the last being how much the step counts; the state `(batch, units)`.
    Output: the next state, twice.
    """

    def __init__(self, units: int, **kwargs):
        """Say how long the state is.

        Args:
            units: Length of the state.
            **kwargs: What every layer takes.
        """
        super().__init__(**kwargs)
        self.units = self.state_size = self.output_size = units

    def build(self, input_shape, state_shape=None):
        # Columns, or for `after` matrices: update gate, reset gate, candidate.
        n, units = input_shape[-1] - 1, self.units
        self.kernel = self.add_weight(name="kernel", shape=(n, 3 * units))
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel", shape=(units, 3 * units), initializer="orthogonal"
        )
        self.bias = self.add_weight(name="bias", shape=(3 * units,), initializer="zeros")
        self.after = self.add_weight(
            name="after", shape=(3, units, units), initializer="glorot_uniform"
        )
        self.after_bias = self.add_weight(name="after_bias", shape=(3, units), initializer="zeros")

    def call(self, inputs, states):
        (state,), vector, counts = states, inputs[:, :-1], inputs[:, -1:]
        of_input = ops.split(ops.matmul(vector, self.kernel) + self.bias, 3, axis=-1)
        of_state = ops.split(self.recurrent_kernel, 3, axis=-1)

        def gate(i, state):
            before = of_input[i] + ops.matmul(state, of_state[i])
            return ops.matmul(before, self.after[i]) + self.after_bias[i]

        update, reset = ops.sigmoid(gate(0, state)), ops.sigmoid(gate(1, state))
        new = ops.tanh(gate(2, reset * state))
        state = state + counts * update * (new - state)
        return state, [state]

    def get_config(self):
        return super().get_config() | {"units": self.units}


@keras.saving.register_keras_serializable("tfcourse")
class CourseAuxiliaryLoss(AuxiliaryLoss):
    """Add the loss of telling what came next, in training; return the states as they are.

    Input and output: as of `auxiliary.AuxiliaryLoss`.
    """

    def __init__(self, weight: float, **kwargs):
        """Say how much it counts.

        Args:
            weight: Of this loss beside the model's own.
            **kwargs: What every layer takes.
        """
        super().__init__(weight, **kwargs)
        self.real, self.drawn = (
            [
                layers.Dense(UNITS, "sigmoid", name=f"{kind}_hidden", dtype=self.dtype_policy),
                layers.Dense(1, name=kind, dtype=self.dtype_policy),
            ]
            for kind in ("real", "drawn")
        )

    def build(self, states_shape, vectors_shape, negatives_shape, ids_shape):
        width = states_shape[-1] + vectors_shape[-1]
        for hidden, last in (self.real, self.drawn):
            hidden.build((None, None, width))
            last.build((None, None, UNITS))

    def call(self, states, vectors, negatives, ids, training=False):
        if training:
            logits = []
            for (hidden, last), came in ((self.real, vectors), (self.drawn, negatives)):
                pairs = ops.concatenate([states[:, 1:], came[:, :-1]], axis=-1)
                logits.append(ops.cast(last(hidden(pairs))[..., 0], "float32"))
            self.add_loss(self.weight * mean_of_pairs(*logits, ids))
        return states


def evolved_in_course(
    vectors: keras.KerasTensor,
    negatives: keras.KerasTensor | None,
    target: keras.KerasTensor,
    ids: keras.KerasTensor,
    *,
    auxiliary_weight: float,
    name: str,
) -> keras.KerasTensor:
    """Return what a history says of the target, `(batch, n)`; as `dien.evolved`."""
    units, present = vectors.shape[-1], ops.cast(ids > 0, vectors.dtype)
    gru = layers.RNN(
        layers.GRUCell(units), return_sequences=True, go_backwards=True, name=f"{name}_interest"
    )
    states = gru(vectors, mask=ids > 0)[:, ::-1]
    if negatives is not None:
        loss = CourseAuxiliaryLoss(auxiliary_weight, name=f"{name}_auxiliary")
        states = loss(states, vectors, negatives, ids)
    x = layers.Dense(UNITS, "sigmoid", name=f"{name}_unit")(states * target[:, None])
    scores = layers.Dense(1, "sigmoid", name=f"{name}_score")(x)[..., 0]
    attention = layers.Multiply(name=f"{name}_attention")([scores, present])
    steps = ops.concatenate([states, attention[..., None]], axis=-1)
    return layers.RNN(CourseCell(units), go_backwards=True, name=f"{name}_evolution")(steps)
