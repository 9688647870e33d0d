"""The loops of greedy search and beam search, in a graph: `decoding` says what they do."""

from typing import NamedTuple

import tensorflow as tf

IMPOSSIBLE = -float("inf")


class Ways(NamedTuple):
    """How to search; for each of them a graph of its own is made."""

    length: int
    special_ids: tuple[int, int, int]
    never: tuple[int, ...]
    width: int = 1
    penalty: float = 0.0


@tf.function(autograph=False)
def greedy(model, source, ways):
    """Return ids `(rows, length)` and their log p, `(rows,)`."""
    padding, start, end = ways.special_ids
    decoder, rows = model.get_layer("decoder"), _rows(source)
    state = decoder.start(*model.get_layer("encoder")(source), ways.length)

    def body(now):
        logits, state = decoder.step(now["tokens"], now["place"], now["state"])
        logs = _log_probabilities(logits, ways)
        tokens = tf.where(now["done"], padding, tf.argmax(logs, axis=-1, output_type=tf.int32))
        after = {
            "place": now["place"] + 1,
            "tokens": tokens,
            "ids": _write(now["ids"], now["place"], tokens),
            "scores": now["scores"] + tf.where(now["done"], 0.0, tf.reduce_max(logs, axis=-1)),
            "done": now["done"] | (tokens == end),
            "state": state,
        }
        return [after]

    scores, tokens = tf.zeros([rows]), tf.fill([rows], start)
    return _loop(body, tokens, scores, state, ways)


@tf.function(autograph=False)
def beam(model, source, ways):
    """Return ids `(rows, width, length)`, the best first, and their log p, `(rows, width)`."""
    padding, start, end = ways.special_ids
    decoder, rows, width = model.get_layer("decoder"), _rows(source), ways.width
    state = decoder.start(*model.get_layer("encoder")(source), ways.length)
    state = {name: tf.repeat(x, width, axis=0) for name, x in state.items()}

    def body(now):
        logits, state = decoder.step(tf.reshape(now["tokens"], [-1]), now["place"], now["state"])
        origin, tokens, scores = _best(logits, now, ways)
        ids = tf.gather(now["ids"], origin, batch_dims=1)
        done = tf.gather(now["done"], origin, batch_dims=1) | (tokens == end)
        row = tf.reshape(tf.range(rows)[:, None] * width + origin, [-1])
        after = {
            "place": now["place"] + 1,
            "tokens": tokens,
            "ids": _write(ids, now["place"], tokens),
            "scores": scores,
            "done": done,
            "state": {
                name: x if name.startswith("memory") else tf.gather(x, row)
                for name, x in state.items()
            },
        }
        return [after]

    # All beams begin alike: the first alone counts, else each would find what the others find.
    scores = tf.tile(tf.where(tf.range(width) == 0, 0.0, IMPOSSIBLE)[None], [rows, 1])
    ids, scores = _loop(body, tf.fill([rows, width], start), scores, state, ways)
    return tf.where((scores == IMPOSSIBLE)[..., None], padding, ids), scores


def _best(logits, now, ways):
    """Return the best ways to go on: the beam that each comes from, its token, and its log p."""
    padding, size = ways.special_ids[0], logits.shape[-1]
    logs = tf.reshape(_log_probabilities(logits, ways), [-1, ways.width, size])
    # What is finished has one way to go on: as it is.
    stays = tf.where(tf.range(size) == padding, 0.0, IMPOSSIBLE)
    scores = now["scores"][..., None] + tf.where(now["done"][..., None], stays, logs)
    lengths = tf.math.count_nonzero(now["ids"] != padding, axis=-1, dtype=tf.int32)
    lengths = tf.where(now["done"], lengths, now["place"] + 1)
    ranked = scores / ((5 + tf.cast(lengths, tf.float32)) / 6)[..., None] ** ways.penalty
    best = tf.math.top_k(tf.reshape(ranked, [-1, ways.width * size]), ways.width).indices
    scores = tf.gather(tf.reshape(scores, [-1, ways.width * size]), best, batch_dims=1)
    return best // size, best % size, scores


def _loop(body, tokens, scores, state, ways):
    """Go on until the sequences are long enough, or all of them are finished."""
    begin = {
        "place": 0,
        "tokens": tokens,
        "ids": tf.fill([ways.length], ways.special_ids[0]) + tf.zeros_like(tokens)[..., None],
        "scores": scores,
        "done": tf.zeros_like(tokens, tf.bool),
        "state": state,
    }

    def goes_on(now):
        return ~tf.reduce_all(now["done"] | (now["scores"] == IMPOSSIBLE))

    now = tf.while_loop(goes_on, body, [begin], maximum_iterations=ways.length)[0]
    return now["ids"], now["scores"]


def _log_probabilities(logits, ways):
    """Return those of all tokens; what is never written is impossible."""
    padding, start, _ = ways.special_ids
    never = tf.constant([padding, start, *ways.never])
    forbidden = tf.reduce_any(tf.range(logits.shape[-1])[:, None] == never, axis=1)
    return tf.where(forbidden, IMPOSSIBLE, tf.nn.log_softmax(tf.cast(logits, tf.float32)))


def _write(ids, place, tokens):
    return tf.where(tf.range(ids.shape[-1]) == place, tokens[..., None], ids)


def _rows(source):
    return source.shape[0] or tf.shape(source)[0]
