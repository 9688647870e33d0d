"""A text in windows: blocks of words side by side, with the words around them."""

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

BLOCK = 32  # words side by side, which share a matrix product with the words around them
WORDS = 8192  # in a step, at most
LEAST_STEPS = 50  # in an epoch: a small text has smaller steps


def flatten(
    sentences: Sequence[Sequence[int]], vocabulary_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the words of sentences that have two or more, and the number of each's sentence."""
    lengths = np.array([len(sentence) for sentence in sentences], np.int64)
    if not len(lengths) or lengths.max() < 2:
        raise ValueError("sentences must have one of two words or more, got none")
    words = np.concatenate([np.asarray(sentence) for sentence in sentences if len(sentence)])
    if words.dtype.kind not in "iu":
        raise ValueError(f"sentences must be of whole numbers, got {words.dtype}")
    wrong = (words < 0) | (words >= vocabulary_size)
    if wrong.any():
        number = int(np.searchsorted(np.cumsum(lengths), wrong.argmax(), side="right"))
        raise ValueError(
            f"ids must be from 0 to vocabulary_size - 1 = {vocabulary_size - 1}, "
            f"got {words[wrong.argmax()]} in sentence {number}"
        )
    sentence = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    paired = lengths[sentence] > 1
    return words[paired].astype(np.int32), sentence[paired]


def batches(
    rng: np.random.Generator, words: np.ndarray, sentence: np.ndarray, window: int, shuffle: bool
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield an epoch in steps: ids and sentences with the words around them, and reaches."""
    if shuffle:
        words = words[np.lexsort((rng.random(len(words)), sentence))]
    blocks = -(-len(words) // BLOCK)
    after = window + blocks * BLOCK - len(words)
    words = np.pad(words, (window, after))
    sentence = np.pad(sentence, (window, after), constant_values=-1)
    size = min(WORDS // BLOCK, max(1, blocks // LEAST_STEPS))
    order = rng.permutation(blocks)
    for first in range(0, blocks, size):
        begins = order[first : first + size, None] * BLOCK
        where = begins + np.arange(BLOCK + 2 * window)
        reach = rng.integers(1, window + 1, (len(begins), BLOCK), dtype=np.int32)
        # What fills up the last block is in no sentence, and has no reach.
        reach[sentence[where[:, window:-window]] < 0] = 0
        yield words[where], sentence[where], reach


def pairs_within_reach(sentence: tf.Tensor, reach: tf.Tensor, window: int) -> tf.Tensor:
    """Return 1 where a word of the middle has another word of its sentence within reach."""
    here, there = tf.range(tf.shape(reach)[1])[:, None] + window, tf.range(tf.shape(sentence)[1])
    distance = tf.abs(here - there)
    inside = (distance > 0) & (distance <= reach[..., None])
    same = sentence[:, window:-window, None] == sentence[:, None, :]
    return tf.cast(inside & same, tf.float32)
