"""Long texts: a novel and speeches in English, and poems in Chinese.

Herman Melville, Moby-Dick (1851), https://www.gutenberg.org/ebooks/2701, in the public domain.
State of the Union: what presidents of the United States told Congress, 1790 to 2021, public domain,
collected by the authors of stdlib, https://github.com/stdlib-js/datasets-sotu: 1.8 million words.
Three Hundred Tang Poems (about 1763), https://en.wikipedia.org/wiki/Three_Hundred_Tang_Poems.
"""

import json
import re
import tarfile

from tfcourse.data.sources import SOURCES, fetch

_CHAPTER = re.compile(r"package/data/chapter_(\d+)\.json")
_ADDRESS = re.compile(r"package/data/(\d{4}_\w+)\.json")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # fortune prints titles in green, poets in yellow
_TITLE = "\u300a"  # a title stands between these marks ...
_POET = "\u4f5c\u8005\uff1a"  # ... and a poet's name behind "author:"


def load_moby_dick() -> list[str]:
    """Load the 2,422 paragraphs of 135 chapters, without headings, front matter and epilogue.

    Returns:
        The paragraphs, in the order of the book, each without a line break.

    Raises:
        OSError: If the book can't be fetched; the message tells what to do.
    """
    chapters = _json_texts("moby-dick", _CHAPTER)
    parts = [part for name in sorted(chapters, key=int) for part in chapters[name].split("\n\n")]
    return [" ".join(part.split()) for part in parts if part.strip()]


def load_addresses() -> list[str]:
    """Load the 233 addresses to Congress.

    Returns:
        The addresses, by year.

    Raises:
        OSError: If they can't be fetched; the message tells what to do.
    """
    found = _json_texts("addresses", _ADDRESS)
    return [" ".join(found[name].split()) for name in sorted(found)]


def load_tang_poems() -> list[str]:
    """Load the 313 poems, in the order of the file.

    Returns:
        The poems, a line break after each line but the last. A poem begins with its first verse:
        title, poet and the colours that a terminal would show them in are left out.

    Raises:
        OSError: If the poems can't be fetched; the message tells what to do.
    """
    (member,) = SOURCES["tang-poems"].members
    text = _COLOUR.sub("", (fetch("tang-poems") / member).read_text("utf-8"))
    poems = []
    for entry in re.split(r"^%$", text, flags=re.MULTILINE):
        lines = [line.strip() for line in entry.split("\n")]
        poem = [line for line in lines if line and not line.startswith((_TITLE, _POET))]
        if poem:
            poems.append("\n".join(poem))
    return poems


def _json_texts(source: str, names: re.Pattern) -> dict[str, str]:
    """Return the texts of an archive of JSON files, by what the pattern finds in their names."""
    (member,) = SOURCES[source].members
    with tarfile.open(fetch(source) / member) as archive:
        return {
            name[1]: json.load(archive.extractfile(file))["text"]
            for file in archive
            if (name := names.fullmatch(file.name))
        }
