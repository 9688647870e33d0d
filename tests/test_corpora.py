"""Labelled texts, books and verses: what the files hold, without repeats, split by what belongs."""

import bz2
import collections
import sqlite3

import numpy as np
import pandas as pd
import pytest
from sharing import or_skip
from sklearn.naive_bayes import MultinomialNB

from tfcourse.data import books, corpora, verses
from tfcourse.data.corpora import Corpus, deduplicate, read_corpus, split_corpus
from tfcourse.data.labelled import join_groups
from tfcourse.data.mails import read_mail, thread_of, visible_text
from tfcourse.data.sources import SOURCES, fetch
from tfcourse.sequence.bag_of_words import fit_mean_vectors, fit_naive_bayes, mean_vectors


def member_of(name, which=0):
    return or_skip(fetch, name) / sorted(SOURCES[name].members)[which]


@pytest.fixture(scope="module")
def snippets():
    return or_skip(corpora.load_movie_snippets)


@pytest.fixture(scope="module")
def reviews():
    return or_skip(corpora.load_chinese_reviews)


def squeezed(text):
    return "".join(filter(str.isalnum, text.lower()))


def test_movie_snippets_are_those_of_the_file(snippets):
    with bz2.open(member_of("movie-snippets")) as file:
        table = pd.read_csv(file, keep_default_na=False)
    table = table[table["category"] != "plot"]
    assert table["category"].value_counts().to_dict() == {"fresh": 7403, "rotten": 5405}
    assert len(snippets) == 12_749 and snippets.class_names == ("rotten", "fresh")
    table = table[table["text"].map(squeezed) != ""]
    wanted = {(squeezed(t), c) for t, c in zip(table["text"], table["category"], strict=True)}
    names = [snippets.class_names[label] for label in snippets.labels]
    found = list(zip(map(squeezed, snippets.texts), names, strict=True))
    assert len(set(found)) == len(found) and set(found) <= wanted
    # What is missing has both labels: nothing, but for marks.
    assert len({text for text, _ in wanted}) == len(found)
    film = table["movie_name"].to_numpy()[:3]
    assert len(set(film)) == 1 and len(set(snippets.groups[:3].tolist())) == 1


def test_a_film_is_on_one_side_and_classes_are_even(snippets):
    parts = split_corpus(snippets)
    assert [len(part) for part in parts] == pytest.approx([10199, 1275, 1275], abs=3)
    films = [set(part.groups.tolist()) for part in parts]
    assert not films[0] & films[1] and not films[0] & films[2] and not films[1] & films[2]
    shares = [part.labels.mean() for part in parts]
    assert np.ptp(shares) < 0.003  # at random a tenth would differ by 0.02
    again, other = split_corpus(snippets), split_corpus(snippets, seed=1)
    assert again[2].texts == parts[2].texts
    assert len(set(other[2].texts) & set(parts[2].texts)) < 400


def test_the_split_is_of_all_and_keeps_the_order(reviews):
    parts = split_corpus(reviews, (0.5, 0.2, 0.3), seed=3)
    assert sorted(t for part in parts for t in part.texts) == sorted(reviews.texts)
    place = {text: row for row, text in enumerate(reviews.texts)}
    for part, share in zip(parts, (0.5, 0.2, 0.3), strict=True):
        rows = [place[text] for text in part.texts]
        assert rows == sorted(rows) and len(rows) == pytest.approx(share * len(reviews), abs=2)
        assert (part.labels == reviews.labels[rows]).all() and part.language == "chinese"
        assert part.labels.mean() == pytest.approx(reviews.labels.mean(), abs=1e-3)


def test_chinese_reviews_are_there_once(reviews):
    lines = {}
    for which, name in enumerate(("negative", "positive")):
        text = member_of("chinese-reviews", which).read_text("utf-8")
        lines[name] = text.removesuffix("\n").split("\n")
    assert sum(map(len, lines.values())) == 35_124
    sides = [set(map(squeezed, lines[name])) for name in ("negative", "positive")]
    once = (sides[0] ^ sides[1]) - {""}
    texts = [text for text in map(squeezed, reviews.texts) if text]
    assert sorted(texts) == sorted(once)
    assert len(reviews) - len(texts) < 10  # of marks alone
    assert len(reviews) == 17_326 and np.bincount(reviews.labels).tolist() == [9023, 8303]


@pytest.mark.slow
def test_mails_have_their_published_numbers_and_threads():
    mails = or_skip(corpora.load_spam)
    # The corpus' readme: 6,047 messages, 31 % of them spam. The package has one less.
    assert len(mails) == 5_912 and np.bincount(mails.labels).tolist() == [4108, 1804]
    assert not any(text.startswith(("Return-Path", "Received")) for text in mails.texts)
    "".join(mails.texts).encode("utf-8")  # no halves of letters
    parts = split_corpus(mails)
    threads = [set(part.groups.tolist()) for part in parts]
    assert not threads[0] & (threads[1] | threads[2])
    beginnings = [{squeezed(t)[:60] for t in part.texts} for part in parts]
    assert len(beginnings[0] & beginnings[2]) < 10
    words = collections.Counter(w for t in mails.texts for w in t.lower().split())
    assert words["<br>"] + words["<td>"] < 0.01 * words["the"]  # HTML is gone


MAIL = b"""From: a@b
Subject: =?utf-8?q?Caf=C3=A9?= =?iso-8859-1?q?_cr=E8me?=
MIME-Version: 1.0
Content-Type: multipart/alternative; boundary="x"

--x
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

gar=E7on!
--x
Content-Type: text/html

<p>other</p>
--x--
"""


def test_a_mail_is_decoded():
    assert read_mail(MAIL) == ("Caf\u00e9 cr\u00e8me", "gar\u00e7on!")
    plain = b"Subject: =?nonsense?q?hi?=\nContent-Type: text/html; charset=nonsense\n\n"
    html = b"<html><title>no</title><style>b{}</style>A<br>b &amp; <!-- c --><![if x]>d\xe9"
    subject, text = read_mail(plain + html)
    assert subject == "=?nonsense?q?hi?=" and text.split() == ["A", "b", "&", "d\u00e9"]
    image = b"Subject: look\nContent-Type: image/png\nContent-Transfer-Encoding: base64\n\nAAAA\n"
    assert read_mail(image) == ("look", "")
    assert read_mail(b"") == ("", "")
    assert visible_text("a<script>b</script>c").split() == ["a", "c"]
    for subject in ("Re: [ILUG] Fwd: Java 1.4 is for kiddies!", "java is FOR kiddies 77"):
        assert thread_of(subject) == "java is for kiddies"
    assert thread_of("RE: [list] 2002-10-08") == ""


@pytest.mark.parametrize(
    ("head", "body", "expected"),
    [
        (b"Content-Type: text/plain; charset=idna", b"a\xe9", ("", "a\u00e9")),
        (b"Content-Type: text/plain; charset=punycode", b"\xe9", ("", "\u00e9")),
        (b'Content-Type: text/plain; charset="a\0b"', b"a", ("", "a")),
        (b"Subject: =?utf-8?b?abcde?=", b"a", ("=?utf-8?b?abcde?=", "a")),
        (b"Subject: =?iso-8859-\xff?q?a?=", b"a", ("=?iso-8859-\ufffd?q?a?=", "a")),
        (b"Content-Type: text/html", b"a<![foo]>b<![endif]>c<![ d", ("", "abc")),
    ],
)
def test_a_hostile_mail_is_read(head, body, expected):
    subject, text = read_mail(head + b"\n\n" + body)
    # Where one Python cannot decode a letter another one leaves it out.
    assert (subject, text) == expected or (subject, text) == (expected[0], expected[1][:-1])


def test_groups_are_joined():
    keys = [("a", "1"), ("b", "1"), ("c", "2"), ("b", "3"), ("", ""), ("", ""), ("1", "a")]
    groups = join_groups(keys)
    assert groups[0] == groups[1] == groups[3]
    assert len({groups[0], *groups[2:3], *groups[4:].tolist()}) == 5


def test_the_same_text_twice_and_with_two_labels():
    texts = ["Good.", "bad", "good", "so  so", "So so!", "", "!?", "..", "!?"]
    found = deduplicate(Corpus(texts, np.array([1, 0, 1, 0, 1, 0, 1, 0, 1]), ("no", "yes")))
    assert found.texts == ["Good.", "bad", "!?", ".."] and found.labels.tolist() == [1, 0, 1, 0]


def test_a_split_of_groups_that_hold_everything():
    corpus = Corpus([str(i) for i in range(20)], np.arange(20) % 2, ("a", "b"), np.arange(20) // 4)
    sizes = sorted(len(part) for part in split_corpus(corpus, (0.6, 0.2, 0.2)))
    assert sizes == [4, 4, 12]
    train, none, test = split_corpus(corpus, (0.8, 0, 0.2))
    assert (len(train), len(none), len(test)) == (16, 0, 4)


def test_your_own_texts(tmp_path):
    tmp_path.joinpath("cat.txt").write_text("\ufeffmiao\npurr purr\n\nmiao\n", "utf-8")
    tmp_path.joinpath("dog.txt").write_bytes("wuff\r\nba\u00f1a\r\n".encode())
    tmp_path.joinpath("notes.md").write_text("nothing")
    found = read_corpus(tmp_path)
    assert found.texts == ["miao", "purr purr", "wuff", "ba\u00f1a"]
    assert found.labels.tolist() == [0, 0, 1, 1] and found.class_names == ("cat", "dog")
    other = tmp_path / "other"
    other.mkdir()
    other.joinpath("texts.txt").write_text("miao\nwuff\npurr\n")
    other.joinpath("labels.txt").write_text("cat\ndog\ncat\n")
    found = read_corpus(str(other), "chinese")
    assert found.labels.tolist() == [0, 1, 0] and found.class_names == ("cat", "dog")
    assert found.language == "chinese"


def write(folder, **files):
    for name, text in files.items():
        folder.joinpath(f"{name}.txt").write_bytes(text)
    return folder


def make(labels, **more):
    return Corpus(["a", "b"], np.array(labels), ("x", "y"), **more)


REFUSED = [
    (lambda p: read_corpus(p / "none"), r"must be a folder of text files, got '.*none'"),
    (read_corpus, "must have texts of at least two classes, got none"),
    (lambda p: read_corpus(write(p, a=b"x\n")), "at least two classes, got a$"),
    (lambda p: read_corpus(write(p, a=b"x\n", b=b" \n")), "b.txt must have a text, got an empty"),
    (
        lambda p: read_corpus(write(p, a=b"x\n", b="\u00e9".encode("latin-1"))),
        r"b.txt must be utf-8 text, got the byte 0xe9 at position 0",
    ),
    (
        lambda p: read_corpus(write(p, texts=b"x\ny\n", labels=b"1\n")),
        "labels must be as many as the 2 texts, got 1",
    ),
    (
        lambda p: read_corpus(write(p, texts=b"x\ny\nz\n", labels=b"1\n\n2\n")),
        "labels must be names, got an empty one in row 1",
    ),
    (
        lambda p: read_corpus(write(p, texts=b"x\ny\n", labels=b"1\n1 \n")),
        "at least two classes, got 1$",
    ),
    (
        lambda p: read_corpus(write(p, texts=b"x\ny\n", labels=b"1\n2\n", readme=b"z\n")),
        "must have texts.txt and labels.txt alone, got labels.txt, readme.txt, texts.txt$",
    ),
    (
        lambda p: read_corpus(write(p, a=b"x\ny\n", b=b"x!\n...\n", c=b"X\n\n")),
        "must have a text of each class that no other has, got none of 'c'$",
    ),
    (
        lambda p: read_corpus(write(p, a=b"x\n", b=b"y\n"), "klingon"),
        "language must be one of english, chinese, chinese_words, got 'klingon'",
    ),
    (lambda p: make([0]), "labels must be as many as the 2 texts, got 1"),
    (lambda p: make([0, 2]), "labels must be whole numbers from 0 to 1, got 2 in row 1"),
    (lambda p: make([0.0, 1.0]), "labels must be whole numbers from 0 to 1, got float64"),
    (lambda p: make([0, 1], groups=np.zeros(3)), "groups must be as many as the 2 texts, got 3"),
    (lambda p: split_corpus(make([0, 1])), "test part must have a text|validation part must have"),
    (
        lambda p: split_corpus(
            Corpus(["a"] * 6, [0, 0, 0, 1, 1, 0], ("x", "y"), np.array([0, 0, 0, 1, 1, 2])),
            (0.2, 0, 0.8),
        ),
        "the training part must have every class, got no text of 'y'",
    ),
    (lambda p: split_corpus(make([0, 1]), (0.5, 0.6, 0)), r"add up to 1, .* got \(0.5, 0.6, 0\)"),
    (lambda p: verses.load_verses(["english", "latin"]), "chinese, english, french, got 'latin'"),
    (lambda p: verses.load_verses("english"), "chinese, english, french, got 'english'"),
    (lambda p: verses.load_verses(["french"] * 2), r"different, got \('french', 'french'\)"),
    (lambda p: verses.load_verses([]), r"one or more different, got \(\)"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_bad_input_is_one_clear_line(call, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        call(tmp_path)
    assert "\n" not in str(caught.value)


def test_moby_dick_is_whole():
    paragraphs = or_skip(books.load_moby_dick)
    # The archive alone vouches for its many files, and is kept as it came.
    kept = [path.name for path in fetch("moby-dick").iterdir()]
    assert kept == list(SOURCES["moby-dick"].members)
    assert len(paragraphs) == 2_422
    assert paragraphs[0].startswith("Call me Ishmael. Some years ago")
    assert paragraphs[-1].endswith("rolled on as it rolled five thousand years ago.")
    assert not any("\n" in text or not text or text.startswith("CHAPTER") for text in paragraphs)
    # In order: a sentence of chapter 36 of 135.
    place = [i for i, text in enumerate(paragraphs) if "white-headed whale" in text]
    assert 0.2 < place[0] / len(paragraphs) < 0.4


def test_three_hundred_tang_poems():
    poems = or_skip(books.load_tang_poems)
    assert len(poems) == 313
    assert not any(set("\x1b%\r") & set(poem) for poem in poems)
    # Li Bai's thoughts in a silent night, without its title and his name.
    night = "\u5e8a\u524d\u660e\u6708\u5149\uff0c\u7591\u662f\u5730\u4e0a\u971c\u3002\n"
    assert [poem.count("\n") for poem in poems if poem.startswith(night)] == [1]
    assert not any("\u4f5c\u8005" in poem for poem in poems)


def test_verses_stand_beside_each_other():
    found = or_skip(verses.load_verses, ("english", "chinese", "french"))
    assert len(found) == 31_102  # of the King James Version
    assert {len(texts) for texts in found.texts.values()} == {31_102}
    books_, chapters = found.places[:, 0], {(b, c) for b, c, _ in found.places.tolist()}
    assert (len(set(books_.tolist())), len(chapters)) == (66, 1189)
    assert found.places[-1].tolist() == [66, 22, 21]
    row = found.places.tolist().index([43, 11, 35])
    assert [found.texts[k][row] for k in found.texts] == [
        "Jesus wept.",
        "\u8036\u7a23\u54ed\u4e86\u3002",
        "J\u00e9sus pleura.",
    ]
    assert not any(" " in text for text in found.texts["chinese"])
    assert all(text == text.strip() for texts in found.texts.values() for text in texts)


def test_verses_without_a_side_are_left_out(tmp_path, monkeypatch):
    rows = [("k", 1, 1, 1, "a  b"), ("k", 1, 1, 2, "c"), ("k", 1, 1, 3, "d"), ("k", 2, 1, 1, "e")]
    rows += [("c", 2, 1, 1, "\u4e00 \u4e8c"), ("c", 1, 1, 1, "\u4e09"), ("c", 1, 1, 2, "  ")]
    (member,) = SOURCES["verses"].members
    path = tmp_path / member
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE bible (bbName, bNumber, cNumber, vNumber, vText)")
        file.executemany("INSERT INTO bible VALUES (?, ?, ?, ?, ?)", rows)
    file.close()
    monkeypatch.setattr(verses, "fetch", lambda name: tmp_path)
    found = verses.load_verses()
    assert found.texts == {"english": ["a b", "e"], "chinese": ["\u4e09", "\u4e00\u4e8c"]}
    assert found.places.tolist() == [[1, 1, 1], [2, 1, 1]]


def test_bags_of_words_are_scikit_learns():
    random = np.random.default_rng(0)
    ids = np.sort(random.integers(0, 9, (40, 6)), axis=1)[:, ::-1]
    labels = np.arange(40) % 3
    weights, bias = fit_naive_bayes(ids, labels, 9, 3)
    counts = np.stack([np.bincount(row, minlength=9)[1:] for row in ids])
    peer = MultinomialNB().fit(counts, labels)
    np.testing.assert_allclose(
        weights[ids].sum(axis=1) + bias, peer.predict_joint_log_proba(counts), rtol=1e-12
    )
    vectors = random.normal(size=(9, 4))
    means = mean_vectors(ids, vectors)
    np.testing.assert_allclose(means[7], vectors[ids[7][ids[7] > 0]].mean(axis=0))
    assert (mean_vectors(np.zeros((1, 3), int), vectors) == 0).all()
    slope, start = fit_mean_vectors(ids, labels, vectors, 3)
    error = means @ slope + start - np.eye(3)[labels]
    # At the least sum of squares the errors are orthogonal to what they are explained by.
    np.testing.assert_allclose(means.T @ error, 0, atol=1e-10)
    np.testing.assert_allclose(error.sum(axis=0), 0, atol=1e-10)
