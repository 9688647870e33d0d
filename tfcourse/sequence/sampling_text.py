"""Text drawn from a language model, a token at a time, at any temperature.

Of the logits z of what may come next, a token is drawn with the probability

    p(w) = exp(z_w / T) / sum_v exp(z_v / T)

At the temperature T = 1 that is what the model says; a lower one prefers what is likely already,
down to T = 0, which takes the likeliest; a higher one is bolder. With g = -log(-log u) of uniform u
the largest z_w + T g_w has just this probability (Yellott, 1977,
https://doi.org/10.1016/0022-2496(77)90026-8), so that one formula serves every temperature.
"""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfcourse.sequence.tokens import check_counts


def sample_tokens(
    model: keras.Model,
    start: np.ndarray,
    length: int,
    *,
    temperature: float = 1.0,
    never: Sequence[int] = (0, 1),
    seed: int = 0,
) -> np.ndarray:
    """Continue texts.

    The model's cells are called with one token after the other and keep their state, so that a
    token costs the same wherever it stands; the whole loop is compiled, with static shapes.

    Args:
        model: Of `build_language_model`.
        start: Ids that are there already, `(rows, tokens)`, one token or more, none of padding.
        length: How many tokens to add.
        temperature: T, from 0.
        never: Ids that are not drawn: padding and unknown words.
        seed: The same seed gives the same tokens.

    Returns:
        int32 `(rows, length)`, without the start.

    Raises:
        ValueError: If the model is another, the start is empty, or a number makes no sense.
    """
    start = np.asarray(start)
    _check(model, start, length, temperature, never)
    ids = np.zeros((len(start), start.shape[1] + length), np.int32)
    ids[:, : start.shape[1]] = start
    allowed = np.zeros(model.output.shape[-1], np.float32)
    allowed[list(never)] = -np.inf
    run = _sampler(model)
    # A seed may have 32 bits, as everywhere; they are an int32 with a sign here.
    bits = tf.constant(np.uint32(int(seed) % 2**32).astype(np.int32))
    numbers = tf.constant(start.shape[1]), bits, tf.constant(temperature, tf.float32)
    found = run(tf.constant(ids), *numbers, tf.constant(allowed))
    return found.numpy()[:, start.shape[1] :]


def _sampler(model: keras.Model):
    """Return the model's compiled loop, made when it is first wanted."""
    if not hasattr(model, "_tfcourse_sampler"):
        cells = [layer.cell for layer in model.layers if layer.name.startswith("recurrent")]
        embedding, logits = model.get_layer("embedding"), model.get_layer("logits")

        @tf.function(jit_compile=True)
        def run(ids, given, seed, temperature, allowed):
            rows, total = ids.shape
            columns = tf.TensorArray(tf.int32, total, element_shape=(rows,))
            given_ids = tf.transpose(ids)

            def step(place, token, states, columns):
                x, new = embedding(token), []
                for cell, state in zip(cells, states, strict=True):
                    x, after = cell(x, state)
                    new.append(after)
                z = tf.cast(logits(x), tf.float32) + allowed
                u = tf.random.stateless_uniform(z.shape, tf.stack([seed, place]), minval=1e-30)
                drawn = tf.argmax(z - temperature * tf.math.log(-tf.math.log(u)), 1, tf.int32)
                place += 1
                token = tf.where(place < given, given_ids[place], drawn)
                return place, token, new, columns.write(place, token)

            states = [cell.get_initial_state(batch_size=rows) for cell in cells]
            loop = (0, given_ids[0], states, columns)
            loop = tf.while_loop(lambda place, *_: place < total - 1, step, loop)
            return tf.transpose(loop[-1].stack())

        model._tfcourse_sampler = run
    return model._tfcourse_sampler


def _check(
    model: keras.Model, start: np.ndarray, length: int, temperature: float, never: Sequence[int]
) -> None:
    names = [layer.name for layer in model.layers]
    if not {"embedding", "recurrent1", "logits"} <= set(names) or len(model.output.shape) != 3:
        raise ValueError(f"model must be of build_language_model, got {model.name!r}")
    check_counts({"length": length})
    size = model.output.shape[-1]
    if start.ndim != 2 or not start.size or start.dtype.kind not in "iu":
        raise ValueError(f"start must be ids (rows, tokens), at least (1, 1), got {start.shape}")
    if start.min() < 1 or start.max() >= size:
        wrong = start[(start < 1) | (start >= size)][0]
        raise ValueError(f"start must have ids from 1 to {size - 1}, got {wrong}")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be a number from 0, got {temperature!r}")
    if not set(never) < set(range(size)):
        raise ValueError(f"never must be some ids from 0 to {size - 1}, got {tuple(never)}")
