"""What vectors of words know: neighbours, analogies, and how well they agree with people.

Analogies (Mikolov, Chen, Corrado & Dean, 2013), https://arxiv.org/abs/1301.3781: a is to b as c is
to which word? To the one whose direction is nearest to b - a + c,

    d = argmax_w cos(x_w, x_b / |x_b| - x_a / |x_a| + x_c / |x_c|),    w not a, b or c

An answer counts only if it is the expected word. That a, b and c may not be the answer helps a lot:
often one of them is nearer than any other word (Linzen, 2016, https://aclanthology.org/W16-2503).
Similarity: the rank correlation (Spearman, 1904) of cosines and of people's marks.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

SCORES = 2**24  # in memory at a time


@dataclass(frozen=True)
class AnalogyScore:
    """How many questions were answered as expected.

    Attributes:
        right: How many, by category.
        asked: Of how many that have vectors of all four words.
        unknown: How many questions have a word without a vector; they are not asked.
    """

    right: dict[str, int]
    asked: dict[str, int]
    unknown: int

    @property
    def accuracy(self) -> float:
        """The share of right answers among the questions asked; 0 if there was none."""
        return sum(self.right.values()) / max(sum(self.asked.values()), 1)


@dataclass(frozen=True)
class SimilarityScore:
    """How well cosines agree with people.

    Attributes:
        correlation: Spearman's, from -1 to 1.
        pairs: Of how many pairs.
        unknown: How many pairs have a word without a vector; they are left out.
    """

    correlation: float
    pairs: int
    unknown: int


def neighbours(
    words: Sequence[str], vectors: np.ndarray, word: str, k: int = 10
) -> list[tuple[str, float]]:
    """Return the k words that are most like a word, with their cosines, best first.

    Args:
        words: Each once.
        vectors: Of each, `(words, dim)`; one that is 0 is nobody's neighbour.
        word: One of `words`.
        k: How many.

    Raises:
        ValueError: If the word has no vector, or there are fewer than k others.
    """
    return complete((words, vectors), [word], [], k)


def complete(
    known: tuple[Sequence[str], np.ndarray], plus: Sequence[str], minus: Sequence[str], k: int = 1
) -> list[tuple[str, float]]:
    """Return the k words nearest to a sum of directions, with their cosines, best first.

    `complete((words, vectors), ["king", "woman"], ["man"])` answers: man is to king as woman is to
    which word? The words of the question are no answers.

    Args:
        known: Words, each once, and the vector of each, `(words, dim)`.
        plus: Words whose directions are added.
        minus: Words whose directions are taken away.
        k: How many answers.

    Raises:
        ValueError: If a word has no vector, or there are fewer than k others.
    """
    words, vectors = known
    directions, has = _directions(words, vectors)
    ids = _ids(words, has)
    if wrong := [word for word in (*plus, *minus) if word not in ids]:
        raise ValueError(f"every word must have a vector, got {wrong[0]!r}")
    asked = [ids[word] for word in (*plus, *minus)]
    others = len(ids) - len(set(asked))
    if not 1 <= k <= others:
        raise ValueError(f"k must be from 1 to the {others} other words, got {k}")
    signs = np.array([1.0] * len(plus) + [-1.0] * len(minus), np.float32)
    cosines = directions @ _unit((signs @ directions[asked])[None])[0]
    cosines[~has] = -np.inf
    cosines[asked] = -np.inf
    best = np.argsort(-cosines, kind="stable")[:k]
    return [(words[i], float(cosines[i])) for i in best]


def analogy_accuracy(
    words: Sequence[str],
    vectors: np.ndarray,
    questions: Mapping[str, Iterable[tuple[str, str, str, str]]],
) -> AnalogyScore:
    """Ask all questions whose words have vectors.

    Args:
        words: Each once; the answers come from them, so that more words are a harder test.
        vectors: Of each, `(words, dim)`; one that is 0 is none.
        questions: By category `(a, b, c, d)`: a is to b as c is to d.
    """
    directions, has = _directions(words, vectors)
    ids = _ids(words, has)
    right, asked, unknown = {}, {}, 0
    for category, rows in {name: list(rows) for name, rows in questions.items()}.items():
        found = [[ids[w] for w in row] for row in rows if all(w in ids for w in row)]
        unknown += len(rows) - len(found)
        asked[category] = len(found)
        right[category] = _right(directions, has, np.array(found, int).reshape(-1, 4))
    return AnalogyScore(right, asked, unknown)


def similarity_correlation(
    words: Sequence[str], vectors: np.ndarray, pairs: Iterable[tuple[str, str, float]]
) -> SimilarityScore:
    """Compare the cosines of pairs of words with people's marks.

    Args:
        words: Each once.
        vectors: Of each, `(words, dim)`; one that is 0 is none.
        pairs: Two words and the mark.

    Raises:
        ValueError: If fewer than three pairs have vectors.
    """
    directions, has = _directions(words, vectors)
    ids, pairs = _ids(words, has), list(pairs)
    known = [(ids[a], ids[b], mark) for a, b, mark in pairs if a in ids and b in ids]
    if len(known) < 3:
        raise ValueError(f"at least 3 pairs must have vectors of both words, got {len(known)}")
    a, b, marks = (np.array(column) for column in zip(*known, strict=True))
    cosines = np.sum(directions[a] * directions[b], axis=1)
    correlation = np.corrcoef(rankdata(cosines), rankdata(marks))[0, 1]
    return SimilarityScore(float(correlation), len(known), len(pairs) - len(known))


def _right(directions: np.ndarray, has: np.ndarray, questions: np.ndarray) -> int:
    right, size = 0, max(1, SCORES // len(directions))
    for first in range(0, len(questions), size):
        a, b, c, d = questions[first : first + size].T
        scores = (directions[b] - directions[a] + directions[c]) @ directions.T
        scores[:, ~has] = -np.inf
        scores[np.arange(len(a))[:, None], np.stack([a, b, c], axis=1)] = -np.inf
        right += int((scores.argmax(axis=1) == d).sum())
    return right


def _directions(words: Sequence[str], vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors of length 1, and which words have one at all."""
    vectors = np.asarray(vectors, np.float32)
    if vectors.ndim != 2 or len(vectors) != len(words):
        raise ValueError(f"vectors must be one for each of {len(words)} words, got {vectors.shape}")
    return _unit(vectors), vectors.any(axis=1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _ids(words: Sequence[str], has: np.ndarray) -> dict[str, int]:
    return {word: i for i, word in enumerate(words) if has[i]}
