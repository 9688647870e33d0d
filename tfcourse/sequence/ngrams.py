"""A language model of counts: interpolated Kneser-Ney (Kneser & Ney, 1995; Chen & Goodman, 1999).

https://doi.org/10.1109/ICASSP.1995.479394, https://doi.org/10.1006/csla.1999.0128. What comes after
the last n - 1 tokens h is what came after them in training; a discount D is taken from each count,
and goes to what the shorter history h' says:

    p(w | h) = max(c(h w) - D, 0) / c(h) + D m(h) / c(h) p(w | h')          c(h) = sum_w c(h w)

m(h) is how many different tokens came after h. c counts occurrences for the longest n alone; below
it counts how many different tokens stood before: "francisco" is frequent, but only after "san". D
is n1 / (n1 + 2 n2), where n1 n-grams have a count of 1 and n2 of 2; 1/2 if n1 is 0. Below single
tokens all are equally likely. It is what a network has to beat, and hard to beat with little text.
"""

from dataclasses import dataclass

import numpy as np

from tfcourse.sequence.tokens import check_counts, check_vocabulary


@dataclass(frozen=True)
class _Counts:
    """The n-grams of one n: sorted codes and, for each, what it adds and what it leaves."""

    grams: np.ndarray
    shares: np.ndarray
    histories: np.ndarray
    left: np.ndarray


@dataclass(frozen=True)
class NGrams:
    """What was counted.

    Attributes:
        vocabulary_size: Number of tokens, with the padding.
        order: n, how many tokens an n-gram has.
    """

    vocabulary_size: int
    order: int
    _counts: tuple[_Counts, ...]

    def log_probabilities(self, ids: np.ndarray) -> np.ndarray:
        """Return log p, to the base e, of each token of a text after those before it.

        Args:
            ids: `(tokens,)`; the first ones have shorter histories.

        Returns:
            float64 `(tokens,)`.

        Raises:
            ValueError: If an id is no token.
        """
        ids = _tokens(ids, self.vocabulary_size)
        found = np.full(len(ids), 1.0 / (self.vocabulary_size - 1))
        for n, counts in enumerate(self._counts, start=1):
            grams = _codes(ids, n, self.vocabulary_size)
            shares = _look_up(counts.grams, counts.shares, grams, missing=0.0)
            histories = grams // self.vocabulary_size
            left = _look_up(counts.histories, counts.left, histories, missing=1.0)
            found[n - 1 :] = shares + left * found[n - 1 :]
        return np.log(found)

    def bits(self, ids: np.ndarray) -> float:
        """Return the mean of -log2 p over a text, `(tokens,)`; 2 to its power is the perplexity."""
        return float(-self.log_probabilities(ids).mean() / np.log(2))


def fit_ngrams(ids: np.ndarray, vocabulary_size: int, order: int = 5) -> NGrams:
    """Count the n-grams of a text.

    Args:
        ids: `(tokens,)`, from 1 to vocabulary_size - 1.
        vocabulary_size: Number of tokens, with the padding.
        order: n, how many tokens an n-gram has.

    Raises:
        ValueError: If an id is no token, the text is shorter than an n-gram, or n-grams are too
            many to number.
    """
    most = longest(vocabulary_size)
    check_counts({"order": order})
    ids = _tokens(ids, vocabulary_size)
    if len(ids) < order:
        raise ValueError(f"ids must be at least {order}, as many as an n-gram, got {len(ids)}")
    if order > most:
        raise ValueError(f"order must be at most {most} for {vocabulary_size} ids, got {order}")
    grams, counts = np.unique(_codes(ids, order, vocabulary_size), return_counts=True)
    levels = []
    for n in range(order, 0, -1):
        levels.append(_level(grams, counts, vocabulary_size))
        grams, counts = np.unique(grams % vocabulary_size ** (n - 1), return_counts=True)
    return NGrams(vocabulary_size, order, tuple(reversed(levels)))


def mixed_bits(a: np.ndarray, b: np.ndarray, weight: float) -> np.ndarray:
    """Return -log2 of the mean of two models' probabilities of each token.

    Args:
        a: -log2 p by the first.
        b: -log2 p by the second.
        weight: How much the first one counts, from 0 to 1; the second has the rest.
    """
    return -np.log2(weight * 2.0**-a + (1 - weight) * 2.0**-b)


def longest(vocabulary_size: int) -> int:
    """Return the greatest order whose n-grams can be numbered in 63 bits.

    Raises:
        ValueError: If the vocabulary has no token besides padding.
    """
    check_vocabulary(vocabulary_size)
    order = 1
    while vocabulary_size ** (order + 1) < 2**63:
        order += 1
    return order


def _level(grams: np.ndarray, counts: np.ndarray, vocabulary_size: int) -> _Counts:
    once, twice = (counts == 1).sum(), (counts == 2).sum()
    discount = once / (once + 2 * twice) if once else 0.5
    histories, which, different = np.unique(
        grams // vocabulary_size, return_inverse=True, return_counts=True
    )
    totals = np.bincount(which, counts)
    # With D = 1 what came once would count as if it had not come at all.
    discount = min(discount, 0.95)
    return _Counts(
        grams, (counts - discount) / totals[which], histories, discount * different / totals
    )


def _codes(ids: np.ndarray, n: int, vocabulary_size: int) -> np.ndarray:
    """Return a number for each n-gram, whose last digit to this base is its last token."""
    codes = np.zeros(len(ids) - n + 1, np.int64)
    for first in range(n):
        codes = codes * vocabulary_size + ids[first : first + len(codes)]
    return codes


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray, missing: float):
    place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], missing)


def _tokens(ids: np.ndarray, vocabulary_size: int) -> np.ndarray:
    ids = np.asarray(ids)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise ValueError(f"ids must be whole numbers (tokens,), got {ids.dtype} {ids.shape}")
    if ids.size and not 1 <= ids.min() <= ids.max() < vocabulary_size:
        wrong = ids[(ids < 1) | (ids >= vocabulary_size)][0]
        raise ValueError(f"ids must be from 1 to {vocabulary_size - 1}, got {wrong}")
    return ids.astype(np.int64)
