"""word2vec (Mikolov, Sutskever, Chen, Corrado & Dean, 2013), https://arxiv.org/abs/1310.4546.

A word is known by the company it keeps: its vector x is learned so that it tells the words around
it, each of which has a second vector y, from words drawn at random. For every pair of a word w and
a word c at most `window` places away, with K noise words n drawn with p(n) ~ count(n)^0.75, falls

    skip-gram:  -log sigmoid(x_w . y_c) - sum_K log sigmoid(-x_w . y_n)
    CBOW:       -log sigmoid(h . y_w) - sum_K log sigmoid(-h . y_n),    h = mean_c x_c

CBOW (https://arxiv.org/abs/1301.3781) has one such sum for each word w, h being the mean over its
neighbours. How far a word looks is drawn from 1 to `window`, so that near words count more. Of a
word with the frequency f the share 1 - sqrt(t / f) is left out anew in every epoch.

Differences from the paper, for speed: words are taken some thousand at a time, and every 32 side by
side share 16 noise words; each counts K n / 16 for a word that has n pairs, so that the expected
loss is the same, and a few matrix products do all the work. As a frequent word has many gradients
in one step, a vector's steps shrink by AdaGrad (Duchi, Hazan & Singer, 2011), with one sum of
squares for each vector.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfcourse.sequence.windows import batches, flatten, pairs_within_reach

NOISE = 16  # words drawn for a block
IDS = tf.TensorSpec((None, None), tf.int32)


@dataclasses.dataclass(frozen=True)
class Word2Vec:
    """What was learned.

    Attributes:
        vectors: x of each word, `(vocabulary_size, embedding_dim)`; 0 for one that never came with
            another, which is nobody's neighbour.
        contexts: y of each word, of the same shape.
        losses: For each epoch the mean loss of a pair (of CBOW, of a word).
    """

    vectors: np.ndarray
    contexts: np.ndarray
    losses: list[float]

    def neighbours(self, word: int, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """Return the cosines and ids of the k words that are most like a word, best first.

        Raises:
            ValueError: If there is no such word, or fewer than k others.
        """
        return self._nearest(self._directions([word])[0], [word], k)

    def analogy(self, a: int, b: int, c: int, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Return the cosines and ids of the k words that are to c as b is to a, best first.

        Raises:
            ValueError: If there is no such word, or fewer than k others.
        """
        of_a, of_b, of_c = self._directions([a, b, c])
        return self._nearest(of_b - of_a + of_c, [a, b, c], k)

    def _directions(self, words: Sequence[int]) -> np.ndarray:
        size = len(self.vectors)
        if wrong := [word for word in words if not 0 <= word < size]:
            raise ValueError(f"a word must be from 0 to {size - 1}, got {wrong[0]}")
        directions = _normalised(self.vectors[list(words)])
        if not (came := directions.any(axis=1)).all():
            raise ValueError(f"a word must have a vector, got {words[int(np.argmin(came))]}")
        return directions

    def _nearest(self, vector: np.ndarray, but: Sequence[int], k: int):
        came = self.vectors.any(axis=1)
        others = int(came.sum()) - len(set(but))
        if not 1 <= k <= others:
            raise ValueError(f"k must be from 1 to the {others} others that were learned, got {k}")
        cosines = np.where(came, _normalised(self.vectors) @ _normalised(vector), -np.inf)
        cosines[list(but)] = -np.inf
        best = np.argsort(-cosines, kind="stable")[:k]
        return cosines[best], best


def fit_word2vec(
    sentences: Sequence[Sequence[int]],
    vocabulary_size: int,
    *,
    kind: str = "skip_gram",
    embedding_dim: int = 100,
    window: int = 5,
    negatives: int = 5,
    epochs: int = 5,
    subsample: float | None = 1e-3,
    learning_rate: float = 0.1,
    shuffle: bool = False,
    seed: int = 0,
) -> Word2Vec:
    """Learn a vector for each word of a text.

    Args:
        sentences: Ids of words, from 0 to vocabulary_size - 1; no pair crosses a sentence's end.
        vocabulary_size: How many words there are.
        kind: `"skip_gram"`, which learns more from rare words, or `"cbow"`, which is faster.
        embedding_dim: Length of a vector.
        window: How many places away a neighbour may be.
        negatives: K, how many noise words stand against a true one.
        epochs: How often the text is read.
        subsample: t, the frequency above which a word is at times left out; `None` for never.
        learning_rate: Of the first step; falls to 0 in a straight line.
        shuffle: Whether each sentence is a set: its order is drawn anew in every epoch.
        seed: Of all that is drawn. The same seed gives the same vectors, but for rounding.

    Returns:
        The vectors.

    Raises:
        ValueError: If an id is out of range, no sentence has two words, or an argument is wrong.
    """
    _check(kind, embedding_dim, window, negatives, epochs)
    if subsample is not None and subsample <= 0:
        raise ValueError(f"subsample must be above 0, or None, got {subsample}")
    words, sentence = flatten(sentences, vocabulary_size)
    rng = np.random.default_rng(seed)
    counts = np.bincount(words, minlength=vocabulary_size)
    noise = np.cumsum(counts**0.75)
    keep = np.ones(vocabulary_size)
    if subsample is not None:
        keep = np.sqrt(subsample * len(words) / np.maximum(counts, 1))
    shape = (vocabulary_size, embedding_dim)
    start = rng.uniform(-0.5, 0.5, shape) / embedding_dim * (counts > 0)[:, None]
    trainer = _Trainer(kind, start.astype("float32"), window, negatives)
    losses = []
    for epoch in range(epochs):
        total = pairs = 0
        kept = rng.random(len(words)) < keep[words]
        steps = list(batches(rng, words[kept], sentence[kept], window, shuffle))
        for number, batch in enumerate(steps):
            drawn = rng.random((len(batch[0]), NOISE)) * noise[-1]
            drawn = np.searchsorted(noise, drawn, side="right")
            left = 1 - (epoch + number / len(steps)) / epochs
            loss, weight = trainer.step(*batch, drawn.astype("int32"), learning_rate * left)
            total, pairs = total + loss, pairs + weight
        losses.append(float(total / max(float(pairs), 1)))
    return Word2Vec(trainer.vectors.numpy(), trainer.contexts.numpy(), losses)


class _Trainer(tf.Module):
    """Both tables, the sum of squares of each row's gradients, and a step."""

    def __init__(self, kind: str, vectors: np.ndarray, window: int, negatives: int):
        super().__init__()
        self.kind, self.window, self.negatives = kind, window, negatives
        self.vectors, self.contexts = tf.Variable(vectors), tf.Variable(np.zeros_like(vectors))
        self.squares = [tf.Variable(tf.zeros(len(vectors))) for _ in range(2)]

    @tf.function(input_signature=[IDS, IDS, IDS, IDS, tf.TensorSpec(())])
    def step(self, ids, sentence, reach, noise, rate):
        """Learn from blocks of words with what is around them; return loss and weight."""
        pairs = pairs_within_reach(sentence, reach, self.window)
        middle = ids[:, self.window : -self.window]
        near, far = (ids, middle) if self.kind == "cbow" else (middle, ids)
        far = tf.concat([far, noise], axis=1)
        x, y = tf.gather(self.vectors, near), tf.gather(self.contexts, far)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([x, y])
            y_true, y_noise = y[:, :-NOISE], y[:, -NOISE:]
            loss = LOSSES[self.kind](x, y_true, y_noise, pairs, self.negatives)
        to_x, to_y = tape.gradient(loss, [x, y])
        _update(self.vectors, self.squares[0], near, to_x, rate)
        _update(self.contexts, self.squares[1], far, to_y, rate)
        counts = tf.reduce_sum(pairs, axis=2)
        return loss, tf.reduce_sum(tf.minimum(counts, 1) if self.kind == "cbow" else counts)


def skip_gram_loss(x, y_true, y_noise, pairs, negatives: int):
    """Return the sum of the losses of pairs.

    Args:
        x: Of words, `(blocks, words, dim)`.
        y_true: Of the words around them, `(blocks, around, dim)`.
        y_noise: Of noise words, `(blocks, noise, dim)`.
        pairs: 1 where two words are a pair, else 0, `(blocks, words, around)`.
        negatives: How many noise words a pair shall have.
    """
    true = tf.reduce_sum(pairs * tf.nn.softplus(-tf.matmul(x, y_true, transpose_b=True)))
    return true + _noise_loss(x, y_noise, tf.reduce_sum(pairs, axis=2) * negatives)


def cbow_loss(x, y_true, y_noise, pairs, negatives: int):
    """Return the sum of the losses of words: as `skip_gram_loss`, but x is of the words around."""
    counts = tf.reduce_sum(pairs, axis=2)
    means = tf.matmul(pairs / tf.maximum(counts, 1)[..., None], x)
    used = tf.minimum(counts, 1)
    true = tf.reduce_sum(used * tf.nn.softplus(-tf.reduce_sum(means * y_true, axis=2)))
    return true + _noise_loss(means, y_noise, used * negatives)


LOSSES = {"skip_gram": skip_gram_loss, "cbow": cbow_loss}


def _noise_loss(x, y_noise, weights):
    losses = tf.nn.softplus(tf.matmul(x, y_noise, transpose_b=True))
    return tf.reduce_sum(weights * tf.reduce_mean(losses, axis=2))


def _update(table, squares, rows, gradient, rate):
    rows, place = tf.unique(tf.reshape(rows, [-1]))
    gradient = tf.reshape(gradient, [-1, table.shape[1]])
    gradient = tf.math.unsorted_segment_sum(gradient, place, tf.size(rows))
    squares.scatter_add(tf.IndexedSlices(tf.reduce_mean(gradient**2, axis=1), rows))
    scale = rate * tf.math.rsqrt(tf.gather(squares, rows) + 1e-12)
    table.scatter_sub(tf.IndexedSlices(scale[:, None] * gradient, rows))


def _check(kind: str, *sizes: int) -> None:
    if kind not in LOSSES:
        raise ValueError(f"kind must be one of {list(LOSSES)}, got {kind!r}")
    names = ("embedding_dim", "window", "negatives", "epochs")
    for name, size in zip(names, sizes, strict=True):
        if size < 1:
            raise ValueError(f"{name} must be 1 or more, got {size}")


def _normalised(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
