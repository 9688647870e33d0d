"""A loop over places, and backpropagation through time (Werbos, 1990) written out once.

https://doi.org/10.1109/5.58337. With s_t the state after place t and x_t what is read there,

    p_t = s_(t-1) K                             s_t = step(s_(t-1), p_t, x_t, w)
    D_t = dL/ds_t + D_(t+1) ds_(t+1)/ds_t       dL/dx_t = D_t ds_t/dx_t
    dL/dK = sum_t s_(t-1)^T D_t ds_t/dp_t       dL/dw = sum_t D_t ds_t/dw

where dL/ds_t is what a loss has of s_t beside later states. Only D has to be found place by place,
from the last to the first. Once all states and all D are known no place waits for another: the rest
is one call of `step` with all places side by side. Products with K are kept, all else that a step
finds on its way is found again.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf
from keras import layers, ops


def scan(
    step: Callable,
    start: Sequence[tf.Tensor],
    kernels: Sequence[tf.Tensor],
    elements: Sequence[tf.Tensor],
    shared: Sequence[tf.Tensor] = (),
) -> list[tf.Tensor]:
    """Take one step after the other.

    A loop of the graph with a gradient by hand: it keeps no more than states and products, and
    unlike that of TensorFlow XLA compiles it on several replicas, too.

    Args:
        step: From states, their products, elements and `shared` to the next states. But for
            `shared` it gets lists of tensors `(rows, places, n)`, with one place or with all of
            them, which it has to treat alike.
        start: The states before the first place, each `(rows, n)`.
        kernels: K of the first state, of the second ..., each `(n, m)`; the last states may have
            none.
        elements: What is read, each `(rows, places, n)`.
        shared: What is the same at all places: weights, or what a row attends to. A variable has
            to be here, as a tensor.

    Returns:
        The states after each place, each `(rows, places, n)`.
    """
    ends = [len(start), len(start) + len(kernels), len(start) + len(kernels) + len(elements)]

    @tf.custom_gradient
    def run(*tensors):
        start, kernels, elements, shared = (
            tensors[i:j] for i, j in zip([0, *ends], [*ends, None], strict=True)
        )
        by_place = [_swap(x) for x in elements]

        def forward(states, here):
            products = _products(states, kernels)
            return step(states, products, here, shared), products

        shapes = [[*x.shape[:-1], k.shape[-1]] for x, k in zip(start, kernels, strict=False)]
        states, products = _walk(forward, start, by_place, shapes)

        def gradient(*upstream):
            before = [
                tf.concat([x[None], y[:-1]], axis=0) for x, y in zip(start, states, strict=True)
            ]
            kept = (before, products, by_place)
            back = _walk_back(step, kernels, kept, shared, [_swap(x) for x in upstream])
            change = [
                x + _swap(tf.concat([y[1:], tf.zeros_like(y[:1])], axis=0))
                for x, y in zip(upstream, back, strict=True)
            ]
            before, inputs = [_swap(x) for x in before], [_swap(x) for x in products]
            first, second = len(kernels), len(kernels) + len(elements)
            found = _pull(
                lambda x: step(before, x[:first], x[first:second], x[second:]),
                [*inputs, *elements, *shared],
                change,
            )
            of_kernels = [
                tf.tensordot(x, y, [[0, 1], [0, 1]])
                for x, y in zip(before, found[:first], strict=False)
            ]
            return [x[0] for x in back] + of_kernels + found[first:]

        return [_swap(x) for x in states], gradient

    tensors = (*start, *kernels, *elements, *shared)
    return list(run(*(tf.convert_to_tensor(x) for x in tensors)))


def step_once(step: Callable, start, kernels, elements, shared=()) -> list[tf.Tensor]:
    """Return what `scan` does for elements of one place, without a loop, and without its gradient.

    Returns:
        The states after it, each `(rows, 1, n)`.
    """
    states = [state[:, None] for state in start]
    return step(states, _products(states, kernels), elements, shared)


def gru_update(sums: tf.Tensor, of_state: tf.Tensor, h: tf.Tensor) -> tf.Tensor:
    """Take the steps of gated recurrent units: `cells.gru_step` for any number of places.

    Args:
        sums: x W + b, `(..., 3 n)`, which can be had for all places in one product.
        of_state: h U + d, `(..., 3 n)`.
        h: States before, `(..., n)`.

    Returns:
        The states after, `(..., n)`.
    """
    n = h.shape[-1]
    z, r = tf.split(tf.sigmoid(sums[..., : 2 * n] + of_state[..., : 2 * n]), 2, axis=-1)
    g = tf.tanh(sums[..., 2 * n :] + r * of_state[..., 2 * n :])
    return z * h + (1 - z) * g


def product(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Return x W of `(..., n)` and `(n, m)`: one product, not one for each row."""
    return tf.tensordot(x, kernel, 1)


def cast_weights(layer: layers.Layer, part: layers.Layer) -> list[tf.Tensor]:
    """Return the weights of a layer's part as tensors of the type that the layer computes in."""
    return [ops.cast(ops.convert_to_tensor(w), layer.compute_dtype) for w in part.weights]


def _products(states: Sequence, kernels: Sequence) -> list:
    return [product(x, kernel) for x, kernel in zip(states, kernels, strict=False)]


def _swap(x: tf.Tensor) -> tf.Tensor:
    """Exchange rows and places."""
    return tf.transpose(x, (1, 0, 2))


def _walk(step: Callable, start, elements, shapes=(), *, back: bool = False) -> tuple[list, list]:
    """Return the states after each place, `(places, rows, n)`, and what else a step gives.

    The step sees one place at a time, `(rows, 1, n)`, from the first or from the last.
    """
    places = elements[0].shape[0]
    places = tf.shape(elements[0])[0] if places is None else places
    kind, count = start[0].dtype, len(start)
    shapes = [*(x.shape for x in start), *shapes]
    found = [tf.TensorArray(kind, places, element_shape=shape) for shape in shapes]

    def body(i, state, found):
        place = places - 1 - i if back else i
        new, more = step([x[:, None] for x in state], [x[place][:, None] for x in elements])
        new = [x[:, 0] for x in (*new, *more)]
        found = [array.write(place, x) for array, x in zip(found, new, strict=True)]
        return i + 1, new[:count], found

    found = tf.while_loop(
        lambda i, *_: i < places, body, (0, list(start), found), maximum_iterations=places
    )[2]
    found = [x.stack() for x in found]
    return found[:count], found[count:]


def _walk_back(step: Callable, kernels, kept: tuple, shared, upstream) -> list:
    """Return what a change of the states before each place does to the loss."""
    count, first = len(upstream), len(upstream) + len(kernels)
    before, products, elements = kept

    def backward(later, here):
        direct, here = here[:count], here[count:]
        found = _pull(
            lambda x: step(x[:count], x[count:], here[first:], shared),
            here[:first],
            [x + y for x, y in zip(direct, later, strict=True)],
        )
        for i, kernel in enumerate(kernels):
            found[i] += product(found[count + i], tf.transpose(kernel))
        return found[:count], []

    start = [tf.zeros_like(x[0]) for x in before]
    return _walk(backward, start, [*upstream, *before, *products, *elements], back=True)[0]


def _pull(function: Callable, inputs: Sequence, change: Sequence) -> list:
    """Return what a change of the outputs is of the inputs; None for what is no float."""
    floats = [x for x in inputs if x.dtype.is_floating]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(floats)
        outputs = function(list(inputs))
    zero = tf.UnconnectedGradients.ZERO
    found = iter(tape.gradient(outputs, floats, change, unconnected_gradients=zero))
    return [next(found) if x.dtype.is_floating else None for x in inputs]
