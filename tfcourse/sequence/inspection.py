"""Which words decide: the answer with a word, and without it.

Occlusion (Zeiler & Fergus, 2014), https://arxiv.org/abs/1311.2901, on texts, by the log odds of the
answer a = argmax p, where x without token i has the unknown word in its place:

    effect_i = log(p_a(x) / (1 - p_a(x))) - log(p_a(x without i) / (1 - p_a(x without i)))
"""

import keras
import numpy as np

from tfcourse.data.text import PADDING, UNKNOWN


def word_effects(model: keras.Model, ids: np.ndarray) -> np.ndarray:
    """Return by how much each token makes a classifier surer of its answer.

    Args:
        model: From ids to logits of at least two classes.
        ids: Texts, `(rows, length)`, with 0 for padding.

    Returns:
        float32 `(rows, length)`; below 0 if the token speaks against the answer, 0 at padding.

    Raises:
        ValueError: If ids are not integers `(rows, length)`.
    """
    ids = np.asarray(ids)
    if ids.ndim != 2 or ids.dtype.kind not in "iu":
        raise ValueError(f"ids must be integers (rows, length), got {ids.dtype} {ids.shape}")
    effects = np.zeros(ids.shape, np.float32)
    if not ids.size:
        return effects
    length = ids.shape[1]
    for row, text in enumerate(ids):
        without = np.where(np.eye(length, dtype=bool), UNKNOWN, text)
        logits = np.asarray(model(np.vstack([text, without]), training=False), np.float64)
        answer = logits[0].argmax()
        others = np.logaddexp.reduce(np.delete(logits, answer, axis=1), axis=1)
        odds = logits[:, answer] - others
        effects[row] = np.where(text != PADDING, odds[0] - odds[1:], 0)
    return effects
