"""One long text by its characters, in three parts, as a language model reads it.

    text = split_text(load_text("moby-dick"))
    data = InMemory(*excerpts(text.train, 64), batch_size=16)

A character that training has but once is as unknown as one that it does not have.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfcourse.data.books import load_moby_dick, load_tang_poems
from tfcourse.data.text import SPECIAL, UNKNOWN, TextVocabulary, read_texts
from tfcourse.data.text_files import at_least

SHARES = (0.8, 0.1, 0.1)
LEAST = 100  # characters: ten of validation, ten of test
SQUARE = "\u25a1"  # stands for a character that training does not have


@dataclass(frozen=True)
class RunningText:
    """A text's parts as ids, in the order of the text.

    Attributes:
        vocabulary: The characters that the training part has twice or more; the others are unknown.
        train: int32 `(characters,)`.
        validation: What comes after.
        test: The end.
    """

    vocabulary: TextVocabulary
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def encode(self, text: str) -> np.ndarray:
        """Return the ids of a text's characters, `(characters,)`.

        Raises:
            ValueError: If the text is empty, or training has no such character.
        """
        if not text:
            raise ValueError("the text must have a character, got none")
        ids = self.vocabulary.encode([list(text)])[0]
        if (ids == UNKNOWN).any():
            character = text[int((ids == UNKNOWN).argmax())]
            raise ValueError(f"the text must have known characters only, got {character!r}")
        return ids

    def decode(self, ids: np.ndarray) -> str:
        """Return the text of ids, `(characters,)`: as many, a square for one that is unknown."""
        characters = self.vocabulary.decode(ids[None])[0]
        return "".join(SQUARE if one == SPECIAL[UNKNOWN] else one for one in characters)


def load_text(name: str | Path) -> str:
    """Return a text: "moby-dick", "tang-poems", or a file of one's own in UTF-8.

    Raises:
        ValueError: If the file is empty or no text.
        OSError: If it is not there, or can't be fetched.
    """
    if name == "moby-dick":
        return "\n".join(load_moby_dick())
    if name != "tang-poems":
        return "\n".join(read_texts(name))
    # The file has them by form: the last tenth would be of another kind than the others.
    poems = load_tang_poems()
    return "\n\n".join(poems[i] for i in np.random.default_rng(0).permutation(len(poems)))


def split_text(text: str) -> RunningText:
    """Cut a text into its first 80 % to learn, 10 % to choose and the last 10 % to test.

    Args:
        text: Upper and lower case, spaces and line breaks count as they are.

    Raises:
        ValueError: If the text is too short.
    """
    if len(text) < LEAST:
        raise ValueError(f"the text must have at least {LEAST} characters, got {len(text)}")
    first = round(SHARES[0] * len(text))
    second = first + round(SHARES[1] * len(text))
    vocabulary = TextVocabulary.fit([list(text[:first])], min_count=2)
    ids = vocabulary.encode([list(text)])[0]
    return RunningText(vocabulary, ids[:first], ids[first:second], ids[second:])


def excerpts(ids: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a text cut into rows, and for each character the next one.

    Args:
        ids: `(characters,)`.
        length: Of a row; what is left at the end is not used.

    Returns:
        Twice `(rows, length)`.

    Raises:
        ValueError: If the text is not longer than a row.
    """
    at_least(1, length=length)
    rows = (len(ids) - 1) // length
    if rows < 1:
        raise ValueError(f"the text must have more than {length} characters, got {len(ids)}")
    used = rows * length
    return ids[:used].reshape(rows, length), ids[1 : used + 1].reshape(rows, length)


def long_rows(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a text as `excerpts` does, in rows of a thousand characters or more, from 8 to 32.

    A model that starts anew in each row then has read next to all that comes before a character.
    """
    rows = min(max(len(ids) // 1000, 8), 32)
    return excerpts(ids, max(1, (len(ids) - 1) // rows))
