"""Pairs of texts that say the same in two languages: to learn, to choose by, and to test.

No pair that is learned from comes back, with its source or with its target, in what a model is
chosen or tested by: a chapter of verses is in one part as a whole, and a verse that other chapters
have, too, in the same or nearly the same words, is left out where it would be tested.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfcourse.data.nearest_texts import nearest_texts
from tfcourse.data.number_words import number_pairs
from tfcourse.data.text import read_texts, tokenize
from tfcourse.data.verses import load_verses

SHARES = (0.8, 0.1, 0.1)
# Verses to learn from have up to so many English words; those to test by are the short ones.
LONGEST, SHORT = 20, 12
# Held-out verses have a smaller cosine with all that are learned from: the Bible tells some stories
# twice, nearly in the same words.
ALIKE = 0.8
# What the French Psalms have where their verses are counted in another way, and some at their end.
_COUNTED = re.compile(r"^\(\d+:\d+[a-z]?\)\s*|[\s-]+$")


@dataclass(frozen=True, eq=False)
class Pairs:
    """Texts and their translations, row by row.

    Attributes:
        sources: The texts.
        targets: Their translations.
        language: Of the targets, as `tokenize` calls it: "english" for all with an alphabet.
    """

    sources: list[str]
    targets: list[str]
    language: str

    def __len__(self):
        return len(self.sources)

    def take(self, rows: Sequence[int]) -> "Pairs":
        """Return some of the pairs."""
        texts = ([texts[row] for row in rows] for texts in (self.sources, self.targets))
        return Pairs(*texts, self.language)

    def shorter_than(self, tokens: int) -> "Pairs":
        """Return the pairs whose source and target both have fewer tokens than this."""
        rows = zip(tokenize(self.sources), tokenize(self.targets, self.language), strict=True)
        return self.take([i for i, row in enumerate(rows) if max(map(len, row)) < tokens])


def load_number_pairs(count: int = 6000, seed: int = 0) -> tuple[Pairs, Pairs, Pairs]:
    """Generate numbers and dates in English and Chinese words; all are different.

    Args:
        count: How many there are in all three parts.
        seed: Of what they are.

    Returns:
        Those to learn from, to choose by, and to test by.
    """
    pairs = Pairs(*number_pairs(count, seed=seed), "chinese")
    return split_pairs(pairs, np.arange(count), seed)


def load_verse_pairs(
    language: str, max_tokens: int = 28, seed: int = 0
) -> tuple[Pairs, Pairs, Pairs]:
    """Load verses in English and another language, in parts of whole chapters.

    In French a space stands after each apostrophe, so that an article is a token of its own.

    Args:
        language: "chinese" or "french".
        max_tokens: What is longer in that language is left out.
        seed: Of which chapters are in which part.

    Returns:
        Verses of up to 20 English words to learn from; of up to 12, to choose by and to test by,
        none of which is nearly the same as one to learn from.

    Raises:
        ValueError: If there is no such language.
        OSError: If the verses can't be fetched.
    """
    verses = load_verses(("english", language))
    words = np.array([len(text.split()) for text in verses.texts["english"]])
    rows = np.flatnonzero(words <= LONGEST)
    sources = [verses.texts["english"][row] for row in rows]
    pairs = _pairs(sources, [_COUNTED.sub("", verses.texts[language][r]) for r in rows], language)
    length = np.array([len(tokens) for tokens in tokenize(pairs.targets, pairs.language)])
    kept = np.flatnonzero((length > 0) & (length <= max_tokens))
    chapters = np.unique(verses.places[rows[kept], :2], axis=0, return_inverse=True)[1].ravel()
    train, *held_out = split_pairs(pairs.take(kept), chapters, seed)
    known, found = tokenize(train.sources), []
    for everything in held_out:
        short = [len(text.split()) <= SHORT for text in everything.sources]
        part = everything.take(np.flatnonzero(short))
        alike = nearest_texts(known, tokenize(part.sources))[1]
        found.append(part.take(np.flatnonzero(alike < ALIKE)))
    return train, *found


def read_pairs(path: str | Path, language: str) -> Pairs:
    """Read the user's own pairs: a line each, the source, a tab, the target; UTF-8.

    What comes after a second tab is passed over, as where sentences were collected by volunteers
    their names come there.

    Args:
        path: Of the file.
        language: Of the targets: "chinese", "french", or another that has an alphabet.

    Raises:
        ValueError: If the file is empty or no UTF-8, or a line has not two texts.
    """
    rows = [line.split("\t") for line in read_texts(path) if line.strip()]
    for number, row in enumerate(rows, 1):
        if len(row) < 2 or not row[0].strip() or not row[1].strip():
            raise ValueError(
                f"{path} must have a source, a tab and a target in each line, got {row[0][:40]!r} "
                f"in line {number} of those that are not empty"
            )
    return _pairs([row[0].strip() for row in rows], [row[1].strip() for row in rows], language)


def split_pairs(pairs: Pairs, groups: Sequence[int], seed: int = 0) -> tuple[Pairs, Pairs, Pairs]:
    """Split pairs into those to learn from, to choose by and to test by: 8, 1 and 1 of ten groups.

    Args:
        pairs: All of them.
        groups: Which belong together, `(rows,)`.
        seed: Of the order of the groups.

    Returns:
        The three parts. What has its source or its target in an earlier part is left out.

    Raises:
        ValueError: If a part is empty.
    """
    groups = np.asarray(groups)
    order = np.random.default_rng(seed).permutation(np.unique(groups))
    cuts = (np.cumsum(SHARES[:2]) * len(order)).round().astype(int)
    parts, seen = [], set()
    for names in np.split(order, cuts):
        rows = np.flatnonzero(np.isin(groups, names))
        rows = [r for r in rows if not {(0, pairs.sources[r]), (1, pairs.targets[r])} & seen]
        parts.append(pairs.take(rows))
        seen |= {(0, text) for text in parts[-1].sources} | {(1, t) for t in parts[-1].targets}
    if not all(map(len, parts)):
        raise ValueError(
            f"pairs must be enough for three parts, got {[len(part) for part in parts]} of "
            f"{len(pairs)} pairs"
        )
    return tuple(parts)


def _pairs(sources: list[str], targets: list[str], language: str) -> Pairs:
    if language == "french":
        targets = [text.replace("\u2019", "'").replace("'", "' ") for text in targets]
    return Pairs(sources, targets, "chinese" if language == "chinese" else "english")
