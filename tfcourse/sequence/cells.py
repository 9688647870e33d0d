"""One step of each recurrent cell, written out: simple (Elman, 1990), LSTM (1997), GRU (2014).

https://doi.org/10.1207/s15516709cog1402_1, Hochreiter & Schmidhuber,
https://doi.org/10.1162/neco.1997.9.8.1735, and Cho et al., https://arxiv.org/abs/1406.1078.

A cell reads a sequence one vector x at a time and keeps a state h of n numbers: what it remembers.
The same weights serve every step, so that a sequence may have any length. These functions are for
reading; `build_rnn` has Keras' layers, whose weights fit here as they are.
"""

from keras import KerasTensor, ops


def rnn_step(
    x: KerasTensor,
    h: KerasTensor,
    kernel: KerasTensor,
    recurrent_kernel: KerasTensor,
    bias: KerasTensor,
) -> KerasTensor:
    """Take a step of a simple recurrent network.

        h <- tanh(x W + h U + b)

    Each step multiplies the gradient by U and by a slope of at most 1, so that over many steps it
    fades or grows without bound: such a network hardly learns what is far apart.

    Args:
        x: Input, `(batch, inputs)`.
        h: State before, `(batch, n)`; zeros at the start.
        kernel: W, `(inputs, n)`.
        recurrent_kernel: U, `(n, n)`.
        bias: b, `(n,)`.

    Returns:
        The state after, `(batch, n)`, which is the output, too.
    """
    return ops.tanh(ops.matmul(x, kernel) + ops.matmul(h, recurrent_kernel) + bias)


def lstm_step(
    x: KerasTensor,
    state: tuple[KerasTensor, KerasTensor],
    kernel: KerasTensor,
    recurrent_kernel: KerasTensor,
    bias: KerasTensor,
) -> tuple[KerasTensor, KerasTensor]:
    """Take a step of a network with long short-term memory.

        i = sigmoid(x W_i + h U_i + b_i)        f = sigmoid(x W_f + h U_f + b_f)
        g = tanh(x W_g + h U_g + b_g)           o = sigmoid(x W_o + h U_o + b_o)
        c <- f * c + i * g                      h <- o * tanh(c)

    The memory c is only ever scaled by f and added to: where f is near 1, a gradient comes through
    hundreds of steps. The forget gate f is of Gers, Schmidhuber & Cummins (2000); in the paper of
    1997 it is 1. Keras starts b_f at 1, to remember until told otherwise.

    Args:
        x: Input, `(batch, inputs)`.
        state: h and c before, each `(batch, n)`; zeros at the start.
        kernel: W_i, W_f, W_g, W_o side by side, `(inputs, 4 n)`.
        recurrent_kernel: U, in the same order, `(n, 4 n)`.
        bias: b, in the same order, `(4 n,)`.

    Returns:
        h and c after, each `(batch, n)`; h is the output.
    """
    h, c = state
    sums = ops.matmul(x, kernel) + ops.matmul(h, recurrent_kernel) + bias
    i, f, g, o = ops.split(sums, 4, axis=-1)
    c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
    return ops.sigmoid(o) * ops.tanh(c), c


def gru_step(
    x: KerasTensor,
    h: KerasTensor,
    kernel: KerasTensor,
    recurrent_kernel: KerasTensor,
    bias: KerasTensor,
    *,
    reset_after: bool = True,
) -> KerasTensor:
    """Take a step of a gated recurrent unit: an LSTM's gates without a second state.

        z = sigmoid(x W_z + h U_z + b_z)        r = sigmoid(x W_r + h U_r + b_r)
        of 2014:       g = tanh(x W_g + (r * h) U_g + b_g)
        reset after:   g = tanh(x W_g + r * (h U_g + d_g) + b_g)
        h <- z * h + (1 - z) * g

    What was remembered stays where z is 1; g is told of it only where r is. The paper resets h
    before the product. After it, one product does for all of U: that is what cuDNN has, and what
    Keras has unless told otherwise.

    Args:
        x: Input, `(batch, inputs)`.
        h: State before, `(batch, n)`; zeros at the start.
        kernel: W_z, W_r, W_g side by side, `(inputs, 3 n)`.
        recurrent_kernel: U, in the same order, `(n, 3 n)`.
        bias: b, in the same order, `(3 n,)`. If reset after, `(2, 3 n)`: the second row, d, is
            added to the products with U, also in z and r.
        reset_after: Whether r comes after the product with U_g.

    Returns:
        The state after, `(batch, n)`, which is the output, too.
    """
    n = h.shape[-1]
    bias, of_state = (bias[0], bias[1]) if reset_after else (bias, ops.zeros_like(bias))
    inputs = ops.matmul(x, kernel) + bias
    gates = ops.matmul(h, recurrent_kernel[:, : 2 * n]) + of_state[: 2 * n]
    z, r = ops.split(ops.sigmoid(inputs[:, : 2 * n] + gates), 2, axis=-1)
    told = h if reset_after else r * h
    told = ops.matmul(told, recurrent_kernel[:, 2 * n :]) + of_state[2 * n :]
    told = r * told if reset_after else told
    return z * h + (1 - z) * ops.tanh(inputs[:, 2 * n :] + told)
