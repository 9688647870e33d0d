"""Pairs of texts as the ids that a translating model reads and writes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfcourse.data.in_memory import InMemory
from tfcourse.data.pairs import Pairs
from tfcourse.data.text import TextVocabulary, tokenize


@dataclass(frozen=True, eq=False)
class EncodedPairs:
    """Pairs to learn from, to choose by and to test by, with their ids.

    Attributes:
        parts: The pairs.
        vocabularies: Of source and target, learned from the first part.
        sources: Ids of each part, `(rows, source length)`, with start and end.
        targets: Ids of each part, `(rows, target length)`, with start and end.
    """

    parts: tuple[Pairs, ...]
    vocabularies: tuple[TextVocabulary, TextVocabulary]
    sources: tuple[np.ndarray, ...]
    targets: tuple[np.ndarray, ...]

    @property
    def length(self) -> int:
        """How many tokens are written at most, the end included."""
        return self.targets[0].shape[1] - 1

    def examples(self, part: int, batch_size: int, seed: int | None = None) -> InMemory:
        """Return what a translating model learns from.

        At each place of the target it reads the token before the one that it is to write; padding
        has no weight.

        Args:
            part: Number of the part.
            batch_size: Pairs in a batch.
            seed: Of the order; `None` for that of the pairs.
        """
        source, target = self.sources[part], self.targets[part]
        return InMemory(
            {"source": source, "target": target[:, :-1]},
            target[:, 1:],
            batch_size,
            sample_weight=(target[:, 1:] > 0).astype("float32"),
            shuffle=seed is not None,
            seed=seed or 0,
        )


def encode_pairs(parts: Sequence[Pairs], min_count: int = 1) -> EncodedPairs:
    """Learn the vocabularies from the first part, and encode all parts to the same length.

    Args:
        parts: Pairs to learn from first.
        min_count: Tokens that come less often in the first part are unknown.

    Raises:
        ValueError: If no token is left.
    """
    languages = ("english", parts[0].language)
    texts = ([part.sources for part in parts], [part.targets for part in parts])
    vocabularies, ids = [], []
    for language, side in zip(languages, texts, strict=True):
        tokens = [tokenize(part, language) for part in side]
        length = max(len(row) for part in tokens for row in part) + 2  # start and end
        vocabularies.append(
            TextVocabulary.fit(tokens[0], language, min_count=min_count, start_and_end=True)
        )
        ids.append(tuple(vocabularies[-1].encode(part, length) for part in tokens))
    return EncodedPairs(tuple(parts), tuple(vocabularies), *ids)
