"""From raw texts to the ids that a network takes; the vocabulary is learned from training alone.

    vocabulary = TextVocabulary.fit(read_texts("train.txt"), "english", min_count=2)
    model = build_textcnn("rand", vocabulary.size, num_classes=2)
    ids = vocabulary.encode(read_texts("test.txt"), length=50, truncate=True)

Id 0 is padding, which comes last, and 1 any word that training did not have. In a vocabulary made
with `start_and_end=True` 2 is the start of a text and 3 its end. Then come the words, the most
frequent first. The vocabulary knows its language, so the JSON file of `save` beside a saved model
is all it takes to give raw texts to that model.
"""

import functools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tfcourse.data.cache import atomic_file
from tfcourse.data.text_files import at_least, buckets, check_labels_match, read_texts
from tfcourse.data.tokenizers import check_language, join, tokenize, tokens_of

__all__ = ["TextVocabulary", "buckets", "check_labels_match", "join", "read_texts", "tokenize"]

PADDING, UNKNOWN, START, END = range(4)
SPECIAL = ("<padding>", "<unknown>", "<start>", "<end>")
FORMAT = "tfcourse vocabulary"
VERSION = 1


@dataclass(frozen=True)
class TextVocabulary:
    """The words of a training text and their ids; nothing changes it any more.

    Attributes:
        words: The most frequent first, equally frequent ones by their characters.
        language: Of the texts, as in `tokenize`.
        start_and_end: Whether every encoded text begins with id 2 and ends with id 3.
    """

    words: tuple[str, ...]
    language: str = "english"
    start_and_end: bool = False

    def __post_init__(self):
        object.__setattr__(self, "words", tuple(self.words))
        check_language(self.language)
        if not self.words:
            raise ValueError("words must have at least one word, got none")
        if wrong := [word for word in self.words if not isinstance(word, str) or not word]:
            raise ValueError(f"words must be texts that are not empty, got {wrong[0]!r}")
        if len(self._ids) < len(self.words):
            twice = Counter(self.words).most_common(1)[0][0]
            raise ValueError(f"words must have each word once, got {twice!r} twice")

    @classmethod
    def fit(
        cls,
        texts: Sequence[str | Sequence[str]],
        language: str = "english",
        *,
        min_count: int = 1,
        max_size: int | None = None,
        start_and_end: bool = False,
    ) -> "TextVocabulary":
        """Learn the words of the training part; no other part may be given.

        Args:
            texts: Texts, or the tokens of each.
            language: As in `tokenize`.
            min_count: Words that come less often are unknown.
            max_size: The most ids there may be, those of padding, unknown words, start and end
                included; the rarest words are left out.
            start_and_end: Whether encoded texts have a start and an end, for translation.

        Raises:
            ValueError: If no word is left, or an argument is not as it should be.
        """
        special = 4 if start_and_end else 2
        at_least(1, min_count=min_count)
        if max_size is not None:
            at_least(special + 1, max_size=max_size)
        rows = tokens_of(texts, language)
        counts = Counter(token for row in rows for token in row)
        kept = [word for word, count in counts.items() if count >= min_count]
        kept.sort(key=lambda word: (-counts[word], word))
        if not kept:
            raise ValueError(
                f"the vocabulary must have a word, got none that occurs {min_count} times "
                f"in {len(rows)} texts; the most frequent occurs {max(counts.values(), default=0)}"
            )
        return cls(kept[: max_size and max_size - special], language, start_and_end)

    @property
    def size(self) -> int:
        """How many ids there are, what a model calls `vocabulary_size`."""
        return self._special + len(self.words)

    def encode(
        self,
        texts: Sequence[str | Sequence[str]],
        length: int | None = None,
        *,
        truncate: bool = False,
    ) -> np.ndarray:
        """Return the ids of texts.

        Args:
            texts: Texts, or the tokens of each.
            length: Ids in a row, start and end included; by default those of the longest text.
            truncate: Whether longer texts lose what is too much at their end, but not the end's id.

        Returns:
            int32 `(rows, length)`, padded with 0 at the end.

        Raises:
            ValueError: If a text is longer and `truncate` is false, or there is no text.
        """
        rows = [self._row(tokens) for tokens in tokens_of(texts, self.language)]
        if length is None:
            length = max(map(len, rows)) or 1
        at_least(3 if self.start_and_end else 1, length=length)
        found = np.full((len(rows), length), PADDING, np.int32)
        for i, row in enumerate(rows):
            if len(row) > length and not truncate:
                raise ValueError(
                    f"texts must have at most {length} tokens, got {len(row)} in row {i}; "
                    "truncate=True cuts them"
                )
            found[i, : len(row)] = row[:length]
            if len(row) > length and self.start_and_end:
                found[i, -1] = END
        return found

    def decode(self, ids: np.ndarray) -> list[list[str]]:
        """Return the tokens of ids, up to the first end; padding and the start are left out.

        Args:
            ids: `(rows, length)`; an unknown word is "<unknown>".

        Raises:
            ValueError: If an id is none of this vocabulary, or the array is of another shape.
        """
        ids = np.asarray(ids)
        if ids.ndim != 2 or ids.dtype.kind not in "iu":
            raise ValueError(f"ids must be integers (rows, length), got {ids.dtype} {ids.shape}")
        if (wrong := (ids < 0) | (ids >= self.size)).any():
            row, place = np.argwhere(wrong)[0]
            raise ValueError(
                f"ids must be from 0 to {self.size - 1}, got {ids[row, place]} in row {row}"
            )
        by_id = (*SPECIAL[: self._special], *self.words)
        left_out = (PADDING, START) if self.start_and_end else (PADDING,)
        found = []
        for row in ids.tolist():
            end = row.index(END) if self.start_and_end and END in row else len(row)
            found.append([by_id[i] for i in row[:end] if i not in left_out])
        return found

    def save(self, path: str | Path) -> None:
        """Write a JSON file, whole or not at all."""
        document = {"format": FORMAT, "version": VERSION, **asdict(self)}
        with atomic_file(path) as new:
            new.write_text(json.dumps(document), "utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "TextVocabulary":
        """Read what `save` wrote.

        Raises:
            ValueError: If the file is damaged, is of another version, or is something else.
        """
        try:
            document = json.loads(Path(path).read_text("utf-8"))
            if document.pop("format") != FORMAT or document.pop("version") != VERSION:
                raise ValueError(f"it is not of the format {FORMAT!r}, version {VERSION}")
            if type(document["words"]) is not list or type(document["start_and_end"]) is not bool:
                raise ValueError("words must be a list, and start_and_end true or false")
            return cls(document["words"], document["language"], document["start_and_end"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            why = f"{type(error).__name__}: {error}"
            raise ValueError(f"{path} is no vocabulary that can be read: {why}") from None

    @property
    def _special(self) -> int:
        return 4 if self.start_and_end else 2

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words, self._special)}

    def _row(self, tokens: Sequence[str]) -> list[int]:
        ids = [self._ids.get(token, UNKNOWN) for token in tokens]
        return [START, *ids, END] if self.start_and_end else ids
