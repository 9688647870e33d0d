"""Texts with labels: none of them twice, and split so that what belongs together stays together."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfcourse.data.splits import check_shares
from tfcourse.data.text_files import check_labels_match
from tfcourse.data.tokenizers import check_language

PARTS = ("training", "validation", "test")
_MARKS = re.compile(r"[\W_]+")


@dataclass(frozen=True, eq=False)
class Corpus:
    """Texts, each of one class; nothing changes them.

    Attributes:
        texts: Without line breaks.
        labels: Class of each text, int32 `(texts,)`.
        class_names: Of class 0, 1, ...
        groups: Which texts belong together, as those about one film: a number for each text,
            int32 `(texts,)`; or `None`, if none do.
        language: As in `tokenize`.
    """

    texts: list[str]
    labels: np.ndarray
    class_names: tuple[str, ...]
    groups: np.ndarray | None = None
    language: str = "english"

    def __post_init__(self):
        check_language(self.language)
        check_labels_match(self.texts, self.labels)
        labels, most = np.asarray(self.labels), len(self.class_names) - 1
        if labels.dtype.kind not in "iu":
            raise ValueError(f"labels must be whole numbers from 0 to {most}, got {labels.dtype}")
        if (wrong := (labels < 0) | (labels > most)).any():
            got = f"{labels[wrong][0]} in row {wrong.argmax()}"
            raise ValueError(f"labels must be whole numbers from 0 to {most}, got {got}")
        object.__setattr__(self, "labels", labels.astype(np.int32))
        if self.groups is not None and len(self.groups) != len(self.texts):
            count = len(self.texts)
            raise ValueError(f"groups must be as many as the {count} texts, got {len(self.groups)}")

    def __len__(self):
        return len(self.texts)

    def take(self, rows: Sequence[int]) -> "Corpus":
        """Return the corpus of these rows."""
        rows = np.asarray(rows, int)
        groups = None if self.groups is None else self.groups[rows]
        texts = [self.texts[row] for row in rows]
        return Corpus(texts, self.labels[rows], self.class_names, groups, self.language)


def deduplicate(corpus: Corpus) -> Corpus:
    """Keep the first of the texts that are the same, and none of those that have two labels.

    Only letters and digits count, unless there are none. An empty text is dropped, too.
    """
    first, labels = {}, {}
    for row, (text, label) in enumerate(zip(corpus.texts, corpus.labels.tolist(), strict=True)):
        key = _MARKS.sub("", text.lower()) or "".join(text.split())
        first.setdefault(key, row)
        labels.setdefault(key, set()).add(label)
    return corpus.take([row for key, row in first.items() if key and len(labels[key]) == 1])


def join_groups(keys: Sequence[Sequence[str]]) -> np.ndarray:
    """Number the groups of rows that share a key, or share one with a row that does.

    Args:
        keys: Some for each row; the first ones are compared with first ones, and so on. An empty
            one is like no other.

    Returns:
        A number for each row, int32 `(rows,)`.
    """
    parents, first = list(range(len(keys))), {}

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = row = parents[parents[row]]
        return row

    for row, values in enumerate(keys):
        for key in enumerate(values):
            if key[1]:
                parents[root(row)] = root(first.setdefault(key, row))
    return np.array([root(row) for row in range(len(keys))], np.int32)


def split_corpus(
    corpus: Corpus, shares: tuple[float, float, float] = (0.8, 0.1, 0.1), seed: int = 0
) -> tuple[Corpus, Corpus, Corpus]:
    """Split into training, validation and test part; texts of one group stay together.

    Group by group, the greatest first and else at random, goes to the part that lacks most of its
    classes: each class has about the same share in all parts.

    Args:
        corpus: What to split.
        shares: Of the texts, for training, validation and test; they add up to 1.
        seed: Of the order of groups.

    Returns:
        The three parts, each in the corpus' order.

    Raises:
        ValueError: If a share is wrong or leaves no text, or training would lack a class.
    """
    check_shares(shares)
    groups = np.arange(len(corpus)) if corpus.groups is None else corpus.groups
    _, groups = np.unique(groups, return_inverse=True)
    counts = np.zeros((groups.max(initial=-1) + 1, len(corpus.class_names)))
    np.add.at(counts, (groups, corpus.labels), 1)
    order = np.random.default_rng(seed).permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    wanted = np.maximum(np.outer(shares, counts.sum(axis=0)), 1e-9)
    found, part_of = np.zeros_like(wanted), np.zeros(len(counts), int)
    for group in order:
        # What it adds to chi-square, the sum of (found - wanted)^2 / wanted.
        added = counts[group] * (2 * (found - wanted) + counts[group]) / wanted
        part_of[group] = part = added.sum(axis=1).argmin()
        found[part] += counts[group]
    parts = [corpus.take(np.flatnonzero(part_of[groups] == part)) for part in range(3)]
    for name, share, part in zip(PARTS, shares, parts, strict=True):
        if share and not len(part):
            got = f"{len(corpus)} texts in {len(counts)} groups can't be split into {shares}"
            raise ValueError(f"the {name} part must have a text, got none: {got}")
    if (missing := np.setdiff1d(corpus.labels, parts[0].labels)).size:
        name = corpus.class_names[missing[0]]
        raise ValueError(f"the training part must have every class, got no text of {name!r}")
    return tuple(parts)
