"""Words and their vectors, from files of the usual text format, for the words of a vocabulary."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfcourse.data.cache import atomic_file
from tfcourse.data.text import PADDING, TextVocabulary
from tfcourse.data.text_files import at_least
from tfcourse.data.tokenizers import short

# Where Kim (2014) has words begin of which no vector is known.
START = 0.25


@dataclass(frozen=True, eq=False)
class WordVectors:
    """Words and their vectors, the most frequent word first where a file has them so.

    Attributes:
        words: Each once.
        vectors: float32 `(words, dim)`.
    """

    words: tuple[str, ...]
    vectors: np.ndarray

    def __post_init__(self):
        object.__setattr__(self, "words", tuple(self.words))
        object.__setattr__(self, "vectors", np.asarray(self.vectors, np.float32))
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.words) or not self.words:
            raise ValueError(
                f"vectors must be one for each of {len(self.words)} words, at least one, got the "
                f"shape {self.vectors.shape}"
            )
        if len(self.ids) < len(self.words):
            raise ValueError("words must have each word once, got one twice")

    @property
    def dim(self) -> int:
        """How many numbers a vector has."""
        return self.vectors.shape[1]

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        """The row of each word."""
        return {word: row for row, word in enumerate(self.words)}

    def vector(self, word: str) -> np.ndarray:
        """Return a word's vector, `(dim,)`.

        Raises:
            ValueError: If the word has none.
        """
        if word not in self.ids:
            raise ValueError(f"no vector of the word {word!r} among {len(self.words)}")
        return self.vectors[self.ids[word]]

    def table(self, words: Sequence[str]) -> np.ndarray:
        """Return the vectors of other words, `(words, dim)`, 0 for one that has none."""
        vectors = np.zeros((len(words), self.dim), np.float32)
        rows = [row for row, word in enumerate(words) if word in self.ids]
        vectors[rows] = self.vectors[[self.ids[words[row]] for row in rows]]
        return vectors


def read_vectors(
    path: str | Path, max_words: int | None = None, encoding: str = "utf-8"
) -> WordVectors:
    """Read a text file of vectors, a word and its numbers a line, as GloVe and word2vec write them.

    The first line may state how many words and numbers there are. Of a word that comes twice the
    first vector is taken.

    Args:
        path: Of the file, unpacked.
        max_words: How many lines to read; all if `None`.
        encoding: Of its words.

    Raises:
        ValueError: If the file is empty, cut off, or in another encoding, or a line is not as the
            first one.
    """
    if max_words is not None:
        at_least(1, max_words=max_words)
    found, dim, stated = {}, None, 0
    with open(path, "rb") as file:
        for number, raw in enumerate(file, start=1):
            line = _decode(raw, encoding, path, number).rstrip()
            fields = line.split(" ")
            if number == 1 and len(fields) == 2 and all(map(_is_count, fields)):
                stated, dim = map(int, fields)
                continue
            if dim is None:
                dim = len(fields) - 1
            word, vector = _word_and_vector(line, dim, path, number)
            found.setdefault(word, vector)
            if len(found) == max_words:
                break
        else:
            if found and number <= stated:
                raise ValueError(
                    f"{path} must have {stated} words, as its first line states, got {number - 1}"
                )
    if not found:
        raise ValueError(f"{path} must have a word and its vector a line, got an empty file")
    return WordVectors(tuple(found), np.stack(list(found.values())))


def write_vectors(known: WordVectors, path: str | Path) -> None:
    """Write a text file that `read_vectors`, gensim and others read, whole or not at all.

    Raises:
        ValueError: If a word has a space or is empty, which the format has no place for.
    """
    if wrong := [word for word in known.words if not word or word.split() != [word]]:
        raise ValueError(f"words must be without spaces, got {wrong[0]!r}")
    with atomic_file(path) as new, open(new, "w", encoding="utf-8") as file:
        file.write(f"{len(known.words)} {known.dim}\n")
        for word, vector in zip(known.words, known.vectors.tolist(), strict=True):
            file.write(f"{word} {' '.join(f'{value:.6g}' for value in vector)}\n")


def vectors_for(
    vocabulary: TextVocabulary, known: WordVectors, seed: int = 0
) -> tuple[np.ndarray, float]:
    """Return what an embedding of a vocabulary begins with, and how much of it is known.

    Args:
        vocabulary: Whose ids are the rows.
        known: Vectors of words.
        seed: Of the other words' vectors, which are uniform from -0.25 to 0.25.

    Returns:
        float32 `(vocabulary.size, known.dim)`, 0 for the padding, and the share of the
        vocabulary's words that are known.
    """
    random = np.random.default_rng(seed)
    vectors = random.uniform(-START, START, (vocabulary.size, known.dim)).astype(np.float32)
    vectors[PADDING] = 0
    found = np.array([word in known.ids for word in vocabulary.words])
    of_words = vectors[-len(found) :]
    of_words[found] = known.table(vocabulary.words)[found]
    return vectors, float(found.mean())


def _is_count(field: str) -> bool:
    return field.isascii() and field.isdecimal() and len(field) < 10


def _decode(raw: bytes, encoding: str, path: str | Path, number: int) -> str:
    try:
        return raw.decode(encoding)
    except LookupError:
        raise ValueError(f"encoding must be one that Python knows, got {encoding!r}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} must be {encoding} text, line {number} is not") from None


def _word_and_vector(line: str, dim: int, path: str | Path, number: int) -> tuple[str, np.ndarray]:
    """Read one line; a word may have spaces, as some of GloVe's have."""
    word, *values = line.rsplit(" ", dim)
    try:
        with np.errstate(over="ignore"):  # infinity is refused below
            vector = np.array(values, np.float32)
    except ValueError:
        vector = np.empty(0, np.float32)
    if not word or dim < 2 or len(vector) != dim or not np.isfinite(vector).all():
        raise ValueError(
            f"{path} must have a word and {max(dim, 2)} numbers in each line, as in the first, got "
            f"{short(line)} in line {number}"
        )
    return word, vector
