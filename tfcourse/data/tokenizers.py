"""Texts cut into tokens: English by words, Chinese by characters or by words."""

import functools
import logging
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Sequence

from tfcourse.data.cache import cache_folder

_NUMBER = r"\d+(?:[.,]\d+)+"
_ENDING = r"'(?:s|re|ve|ll|d|m)(?![^\W_])"  # of it's, you're ..., which becomes a token
_NOT = r"n't(?![^\W_])"
_ENGLISH = re.compile(
    rf"{_NUMBER}|[^\W_]+?(?={_NOT})|{_ENDING}|[^\W_]+(?:(?!{_ENDING})'[^\W_]+)*|\S"
)
_LATIN = "0-9A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f"
_CHARACTERS = re.compile(rf"{_NUMBER}|[{_LATIN}]+|\S")
_BETWEEN_LATIN = re.compile(rf"(?<=[{_LATIN}])\n(?=[{_LATIN}])")
_APOSTROPHES = dict.fromkeys(map(ord, "\u2019\u02bc\uff07"), "'")
# Chinese texts also have letters and digits as wide as a character; they are the same words.
_WIDE = {ord(c) + 0xFEE0: c for c in map(chr, range(128)) if c.isalnum()}


def tokenize(texts: Sequence[str], language: str = "english") -> list[list[str]]:
    """Cut texts into lower-case tokens, each text by itself.

    English: words, numbers and every other mark apart. A contraction is cut where the Penn Treebank
    cuts it, as in GloVe's vocabulary: "don't" is `do n't`, "it's" is `it 's`; other apostrophes
    within a word stay ("o'clock"). "1,000.5" is one number.
    Chinese: every character is a token; a run of Latin letters and digits is one.
    Chinese words: as jieba finds them; what it does not know it guesses by its hidden Markov model.

    Args:
        texts: In any normal form of Unicode.
        language: "english", "chinese" (characters) or "chinese_words", which needs jieba.

    Returns:
        The tokens of each text; none of a text that is empty.

    Raises:
        ValueError: If there is no such language, or `texts` is not a list of texts.
        ImportError: If jieba is needed and missing.
    """
    return tokens_of(texts, language, tokens_too=False)


def join(tokens: Sequence[str], language: str = "english") -> str:
    """Return the text of tokens; English, cut again, gives the same ones.

    Args:
        tokens: Of one text.
        language: As in `tokenize`: English has spaces, Chinese only between Latin words.

    Raises:
        ValueError: If there is no such language.
    """
    check_language(language)
    if language == "english":
        return " ".join(tokens)
    return _BETWEEN_LATIN.sub(" ", "\n".join(tokens)).replace("\n", "")


def tokens_of(texts: Iterable, language: str, tokens_too: bool = True) -> list[list[str]]:
    """Return the tokens of texts; a row that is cut already stays, if `tokens_too`."""
    check_language(language)
    if isinstance(texts, str):
        raise ValueError(f"texts must be a list of texts, got the text {short(texts)}")
    if not (rows := list(texts)):
        raise ValueError("texts must have at least one text, got none")
    cut, found = CUTTERS[language](), []
    for i, row in enumerate(rows):
        if isinstance(row, str):
            found.append(cut(unicodedata.normalize("NFC", row.lower())))
        elif tokens_too and isinstance(row, (list, tuple)) and all(type(t) is str for t in row):
            found.append(list(row))
        else:
            raise ValueError(f"texts must be texts, got {short(row)} in row {i}")
    return found


def _english() -> Callable[[str], list[str]]:
    return lambda text: _ENGLISH.findall(text.translate(_APOSTROPHES))


def _characters() -> Callable[[str], list[str]]:
    return lambda text: _CHARACTERS.findall(text.translate(_WIDE))


@functools.cache
def _chinese_words() -> Callable[[str], list[str]]:
    # jieba 0.42.1 is of 2020: Python has come to warn of its regular expressions and imports.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import jieba
        except ImportError as error:
            raise ImportError(
                "chinese_words needs jieba: pip install 'tfcourse[chinese]'"
            ) from error
        jieba.setLogLevel(logging.WARNING)
        segmenter = jieba.Tokenizer()
        # Its own place is the folder that all users share, where anybody may leave a file to load.
        segmenter.tmp_dir = str(cache_folder("jieba"))
        segmenter.initialize()
    return lambda text: [w for w in segmenter.cut(text.translate(_WIDE)) if not w.isspace()]


CUTTERS = {"english": _english, "chinese": _characters, "chinese_words": _chinese_words}


def check_language(language: str) -> None:
    """Raise ValueError if there is no such language."""
    if language not in CUTTERS:
        raise ValueError(f"language must be one of {', '.join(CUTTERS)}, got {language!r}")


def short(value: object) -> str:
    """Write a value for the line of an error, cut where it is long."""
    return f"{text[:40]}..." if len(text := repr(value)) > 43 else text
