"""Questions that show what vectors of words know: analogies, and how alike people find two words.

Analogies: 19,544 of Mikolov, Chen, Corrado & Dean (2013), https://arxiv.org/abs/1301.3781, such as
"athens greece baghdad iraq". Similarities: WordSimilarity-353 of Finkelstein et al. (2002),
https://doi.org/10.1145/503104.503110, 353 pairs with the mean of 13 or more people's marks from 0
to 10. `word_evaluation` of `tfcourse.sequence` asks.
"""

from pathlib import Path

from tfcourse.data.sources import fetch
from tfcourse.data.text_files import read_texts
from tfcourse.data.tokenizers import short

FOLDER = "gensim/test/test_data"


def load_analogies() -> dict[str, list[tuple[str, str, str, str]]]:
    """Return the published analogies by category, in lower case.

    Raises:
        OSError: If they can't be fetched; the message tells what to do.
    """
    return read_analogies(fetch("word-questions") / FOLDER / "questions-words.txt")


def load_similarities() -> list[tuple[str, str, float]]:
    """Return the published pairs of words with people's mean mark, in lower case.

    Raises:
        OSError: If they can't be fetched; the message tells what to do.
    """
    return read_similarities(fetch("word-questions") / FOLDER / "wordsim353.tsv")


def read_analogies(path: str | Path) -> dict[str, list[tuple[str, str, str, str]]]:
    """Read a file of analogies: `a b c d` a line, and `: category` above each group.

    Raises:
        ValueError: If a line is neither, or there is no question.
    """
    found, category = {}, ""
    for number, line in enumerate(read_texts(path), start=1):
        if line.startswith(":"):
            category = line[1:].strip()
        elif words := line.lower().split():
            if len(words) != 4:
                raise ValueError(f"{path} must have four words a line, got {_where(line, number)}")
            found.setdefault(category, []).append(tuple(words))
    if not found:
        raise ValueError(f"{path} must have a question, got none")
    return found


def read_similarities(path: str | Path) -> list[tuple[str, str, float]]:
    """Read a file of two words and a number a line, with tabs between; `#` begins a comment.

    Raises:
        ValueError: If a line is of another form, or there is none.
    """
    found = []
    for number, line in enumerate(read_texts(path), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            a, b, mark = line.lower().split("\t")
            found.append((a.strip(), b.strip(), float(mark)))
        except ValueError:
            raise ValueError(
                f"{path} must have two words and a number a line, with tabs between, got "
                f"{_where(line, number)}"
            ) from None
    if not found:
        raise ValueError(f"{path} must have a pair of words, got none")
    return found


def _where(line: str, number: int) -> str:
    return f"{short(line)} in line {number}"
