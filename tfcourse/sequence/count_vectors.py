"""Vectors of words from counts alone (Levy, Goldberg & Dagan, 2015).

https://aclanthology.org/Q15-1016. How much more often a word w and a word c come near each other
than chance has it, if it is more often, is a large table; its best approximation of rank n gives
each word n numbers. Skip-gram with negative sampling factorizes such a table, too, without writing
it down (Levy & Goldberg, 2014, https://papers.nips.cc/paper/5477), so that this is its baseline.

    ppmi(w, c) = max(0, log(p(w, c) / (p(w) p'(c)))),  p'(c) ~ count(c)^0.75       table = U S V^T
    x_w = row w of U S^(1/2)

As in word2vec a pair d places apart counts (window + 1 - d) / window.
"""

from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

from tfcourse.sequence.tokens import check_counts
from tfcourse.sequence.windows import flatten


def fit_count_vectors(
    sentences: Sequence[Sequence[int]],
    vocabulary_size: int,
    *,
    embedding_dim: int = 100,
    window: int = 5,
    seed: int = 0,
) -> np.ndarray:
    """Return a vector for each word of a text, by counting and a singular value decomposition.

    Args:
        sentences: Ids of words, from 0 to vocabulary_size - 1; no pair crosses a sentence's end.
        vocabulary_size: How many words there are.
        embedding_dim: n, below vocabulary_size.
        window: How many places away a neighbour may be.
        seed: Of what the decomposition starts from; it changes rounding alone.

    Returns:
        float32 `(vocabulary_size, embedding_dim)`; 0 for a word that never came with another.

    Raises:
        ValueError: If an id is out of range, no sentence has two words, or an argument is wrong.
    """
    check_counts({"embedding_dim": embedding_dim, "window": window})
    if embedding_dim >= vocabulary_size:
        raise ValueError(
            f"embedding_dim must be below vocabulary_size = {vocabulary_size}, got {embedding_dim}"
        )
    words, sentence = flatten(sentences, vocabulary_size)
    table = ppmi(pair_counts(words, sentence, vocabulary_size, window))
    start = np.random.default_rng(seed).normal(size=vocabulary_size)
    left, sizes, _ = svds(table, embedding_dim, v0=start, tol=1e-4)
    order = np.argsort(-sizes)
    # What is 0 but for rounding shall be 0: such a word has no vector.
    vectors = left[:, order] * np.sqrt(sizes[order].clip(0))
    vectors[np.diff(table.indptr) == 0] = 0
    return vectors.astype(np.float32)


def pair_counts(
    words: np.ndarray, sentence: np.ndarray, vocabulary_size: int, window: int
) -> sparse.csr_array:
    """Return how often two words come near each other, near ones counting more; symmetric."""
    counts = sparse.csr_array((vocabulary_size, vocabulary_size))
    for apart in range(1, window + 1):
        same = sentence[apart:] == sentence[:-apart]
        weight = np.full(same.sum(), (window + 1 - apart) / window)
        pairs = (words[:-apart][same], words[apart:][same])
        counts += sparse.coo_array((weight, pairs), counts.shape).tocsr()
    return counts + counts.T


def ppmi(counts: sparse.csr_array, power: float = 0.75) -> sparse.csr_array:
    """Return positive pointwise mutual information: what is not above chance is left out.

    Args:
        counts: Of pairs, `(words, contexts)`.
        power: Makes rare contexts count as if they were less rare, as word2vec's noise does.
    """
    counts = counts.tocoo()
    rows, columns = counts.coords
    of_word, of_context = counts.sum(axis=1), counts.sum(axis=0) ** power
    chance = of_word[rows] * of_context[columns] / of_context.sum()
    values = np.log(counts.data / chance)
    above = values > 0
    pairs = (rows[above], columns[above])
    return sparse.coo_array((values[above], pairs), counts.shape).tocsr()
