"""Sentences of words, without marks: what vectors of words are learned from."""

from collections.abc import Sequence

from tfcourse.data.tokenizers import tokenize

ENDS = frozenset(".?!;:\u3002\uff1f\uff01\uff1b\uff1a")


def sentences(texts: Sequence[str], language: str = "english") -> list[list[str]]:
    """Cut texts into sentences of lower-case words; marks are left out.

    A sentence ends with a full stop, a question or exclamation mark, a colon or a semicolon, and
    where its text ends.

    Args:
        texts: As for `tokenize`.
        language: As for `tokenize`.

    Returns:
        Sentences of one word or more.

    Raises:
        ValueError: If there is no such language, or no word in all texts.
    """
    found = []
    for tokens in tokenize(texts, language):
        sentence = []
        for token in tokens:
            if token in ENDS:
                found.append(sentence)
                sentence = []
            elif any(map(str.isalnum, token)):
                sentence.append(token)
        found.append(sentence)
    if not (found := [sentence for sentence in found if sentence]):
        raise ValueError("texts must have a word, got none")
    return found
