"""The same verses in several languages, to learn to translate from.

From one file with 31 translations of the Bible, numbered alike. The language is that of its time:
English is the King James Version (1611, spelled as of 1769), French is Louis Segond's (1910),
Chinese the New Chinese Version in simplified characters, which is of our time.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from tfcourse.data.sources import SOURCES, fetch

# By which letter the file calls a translation.
TRANSLATIONS = {"chinese": "c", "english": "k", "french": "l"}


@dataclass(frozen=True, eq=False)
class Verses:
    """Verses that say the same, row by row.

    Attributes:
        texts: By language, the verses of each, without a line break.
        places: Book from 1 to 66, chapter and verse of each row, int32 `(rows, 3)`, in order.
    """

    texts: dict[str, list[str]]
    places: np.ndarray

    def __len__(self):
        return len(self.places)


def load_verses(languages: Sequence[str] = ("english", "chinese")) -> Verses:
    """Load the verses that all of these languages have.

    Chinese has no spaces: the file has some after its punctuation.

    Args:
        languages: Of "chinese", "english" and "french".

    Raises:
        ValueError: If there is no such language, or one is named twice or none.
        OSError: If the verses can't be fetched; the message tells what to do.
    """
    wrong = [name for name in languages if name not in TRANSLATIONS]
    if isinstance(languages, str) or wrong:
        got = repr(languages) if isinstance(languages, str) else repr(wrong[0])
        raise ValueError(f"languages must be of {', '.join(TRANSLATIONS)}, got {got}")
    if not languages or len(set(languages)) < len(languages):
        raise ValueError(f"languages must be one or more different, got {tuple(languages)}")
    (member,) = SOURCES["verses"].members
    path = (fetch("verses") / member).resolve().as_uri()
    # Only to be read, even by SQLite, which would else leave files beside it.
    with closing(sqlite3.connect(f"{path}?mode=ro&immutable=1", uri=True)) as file:
        found = {name: _read(file, name) for name in languages}
    first, *others = found.values()
    places = sorted(set(first).intersection(*others))
    texts = {name: [verses[place] for place in places] for name, verses in found.items()}
    return Verses(texts, np.array(places, np.int32).reshape(-1, 3))


def _read(file: sqlite3.Connection, language: str) -> dict[tuple[int, int, int], str]:
    """Return the verses of a translation that are not empty, by their places."""
    query = "SELECT bNumber, cNumber, vNumber, vText FROM bible WHERE bbName = ?"
    space = "" if language == "chinese" else " "
    found = {}
    for *place, text in file.execute(query, (TRANSLATIONS[language],)):
        if text := space.join(text.split()):
            found[tuple(place)] = text
    return found
