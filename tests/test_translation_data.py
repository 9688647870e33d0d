"""Pairs of texts: numbers in words, verses, the user's own; what is near, and what is held out."""

import datetime
import re

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from tfcourse.data import number_words
from tfcourse.data.encoded_pairs import encode_pairs
from tfcourse.data.nearest_texts import nearest_texts
from tfcourse.data.number_words import (
    chinese_date,
    chinese_number,
    english_date,
    english_number,
    number_pairs,
)
from tfcourse.data.pairs import Pairs, load_number_pairs, load_verse_pairs, read_pairs, split_pairs
from tfcourse.data.text import tokenize

CHINESE = {
    0: "零",
    10: "十",
    15: "十五",
    20: "二十",
    101: "一百零一",
    110: "一百一十",
    115: "一百一十五",
    1001: "一千零一",
    1010: "一千零一十",
    1100: "一千一百",
    4072: "四千零七十二",
    10_000: "一万",
    10_001: "一万零一",
    10_100: "一万零一百",
    35_000: "三万五千",
    100_001: "十万零一",
    110_000: "十一万",
    120_305: "十二万零三百零五",
    999_999: "九十九万九千九百九十九",
}
ENGLISH = {
    0: "zero",
    13: "thirteen",
    40: "forty",
    72: "seventy-two",
    100: "one hundred",
    101: "one hundred and one",
    1000: "one thousand",
    4072: "four thousand and seventy-two",
    35_100: "thirty-five thousand one hundred",
    100_001: "one hundred thousand and one",
    999_999: "nine hundred and ninety-nine thousand nine hundred and ninety-nine",
}
DATES = {
    datetime.date(1984, 3, 9): ("the ninth of march nineteen eighty-four", "一九八四年三月九日"),
    datetime.date(1900, 1, 1): ("the first of january nineteen hundred", "一九〇〇年一月一日"),
    datetime.date(1905, 5, 12): ("the twelfth of may nineteen oh five", "一九〇五年五月十二日"),
    datetime.date(2000, 6, 20): ("the twentieth of june two thousand", "二〇〇〇年六月二十日"),
    datetime.date(2009, 8, 23): (
        "the twenty-third of august two thousand and nine",
        "二〇〇九年八月二十三日",
    ),
    datetime.date(2010, 10, 30): ("the thirtieth of october twenty ten", "二〇一〇年十月三十日"),
    datetime.date(2031, 12, 31): (
        "the thirty-first of december twenty thirty-one",
        "二〇三一年十二月三十一日",
    ),
}


def value_of_chinese(text: str) -> int:
    """Read a number from left to right, as a child would."""
    digits = {c: i for i, c in enumerate("零一二三四五六七八九")}
    units = {"十": 10, "百": 100, "千": 1000}
    total, part, digit = 0, 0, None
    for character in text:
        if character in digits:
            digit = digits[character]
        elif character in units:
            part += (1 if digit is None else digit) * units[character]
            digit = None
        else:
            total, part, digit = (part + (digit or 0)) * 10_000, 0, None
    return total + part + (digit or 0)


def value_of_english(text: str) -> int:
    small = {word: i for i, word in enumerate(number_words.ONES)}
    small |= {word: 10 * i for i, word in enumerate(number_words.TENS) if i > 1}
    total = part = 0
    for word in re.split(r"[ -]", text.replace(" and ", " ")):
        if word == "hundred":
            part *= 100
        elif word == "thousand":
            total, part = part * 1000, 0
        else:
            part += small[word]
    return total + part


def test_numbers_as_people_write_them():
    assert {number: chinese_number(number) for number in CHINESE} == CHINESE
    assert {number: english_number(number) for number in ENGLISH} == ENGLISH
    assert {date: (english_date(date), chinese_date(date)) for date in DATES} == DATES


def test_every_number_can_be_read_back():
    numbers = [*range(12_000), *range(12_000, 1_000_000, 997)]
    for number in numbers:
        assert value_of_english(english_number(number)) == number
        assert value_of_chinese(chinese_number(number)) == number
    assert len({chinese_number(number) for number in numbers}) == len(numbers)


def test_pairs_of_numbers_are_different_and_say_the_same():
    digits, chinese = number_pairs(1000, "digits", "chinese", seed=3)
    english, again = number_pairs(1000, "english", "chinese", seed=3)
    assert chinese == again
    assert len(set(english)) == len(set(chinese)) == len(set(digits)) == 1000
    dates = [text for text in digits if "-" in text]
    assert len(dates) == 300
    for figures, words, characters in zip(digits, english, chinese, strict=True):
        plain = figures.replace(" ", "")
        if "-" in plain:
            date = datetime.date.fromisoformat(plain)
            assert (words, characters) == (english_date(date), chinese_date(date))
        else:
            assert value_of_english(words) == value_of_chinese(characters) == int(plain)
    assert number_pairs(1000, seed=4) != (english, chinese)


def test_numbers_that_are_tested_were_not_learned():
    parts = load_number_pairs(500, seed=1)
    assert [len(part) for part in parts] == [400, 50, 50]
    for side in ("sources", "targets"):
        texts = [text for part in parts for text in getattr(part, side)]
        assert len(set(texts)) == 500


def test_parts_share_no_text():
    # Group 2 has a source, group 3 a target of group 0.
    others = [f"e{i}" for i in range(40)]
    sources = ["a", "b", "a", "c", *others]
    targets = ["A", "B", "X", "A", *map(str.upper, others)]
    groups = [0, 0, 2, 3, *range(4, 44)]
    for seed in range(20):
        parts = split_pairs(Pairs(sources, targets, "english"), groups, seed)
        rows = [set(zip(p.sources, p.targets, strict=True)) for p in parts]
        assert sum(map(len, rows)) in (42, 43, 44)
        for one, other in ((0, 1), (0, 2), (1, 2)):
            for side in ("sources", "targets"):
                assert not set(getattr(parts[one], side)) & set(getattr(parts[other], side))
        together = [("a", "A") in r for r in rows] == [("b", "B") in r for r in rows]
        assert together or ("a", "A") not in set().union(*rows)


@pytest.mark.parametrize("language", ["chinese", pytest.param("french", marks=pytest.mark.slow)])
def test_verses_that_are_tested_are_of_other_chapters(language):
    try:
        parts = load_verse_pairs(language, seed=1)
    except OSError as error:
        pytest.skip(f"the verses can't be fetched: {error}")
    train, *held_out = parts
    assert len(train) > 7000
    assert max(len(text.split()) for text in train.sources) == 20
    known = tokenize(train.sources)
    for part in held_out:
        assert len(part) > 150
        assert max(len(text.split()) for text in part.sources) <= 12
        assert not set(part.sources) & set(train.sources)
        assert not set(part.targets) & set(train.targets)
        assert nearest_texts(known, tokenize(part.sources))[1].max() < 0.8
    assert max(map(len, tokenize(train.targets, train.language))) <= 28
    assert not any(re.search(r"^\(\d|-\s*$", text) for text in train.targets)
    verse = {"chinese": "耶稣哭了。", "french": "Jésus pleura."}[language]
    everything = {s: t for part in parts for s, t in zip(part.sources, part.targets, strict=True)}
    assert everything["Jesus wept."] == verse


def test_nearest_texts_against_scikit_learn():
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(30)])
    texts, queries = (
        [list(rng.choice(words, rng.integers(1, 12), p=np.arange(1, 31) / 465)) for _ in range(n)]
        for n in (80, 40)
    )
    vectorizer = TfidfVectorizer(analyzer=lambda tokens: tokens, sublinear_tf=True)
    known = vectorizer.fit_transform(texts)
    cosines = (vectorizer.transform(queries) @ known.T).toarray()
    rows, found = nearest_texts(texts, queries)
    np.testing.assert_allclose(found, cosines.max(axis=1), atol=1e-9)
    np.testing.assert_allclose(cosines[np.arange(40), rows], cosines.max(axis=1), atol=1e-9)
    rows, found = nearest_texts(texts, [texts[7], ["never seen"], []])
    np.testing.assert_allclose(found, [1, 0, 0], atol=1e-9)
    # A word that no text has makes a query less like any.
    assert nearest_texts(texts, [[*texts[7], "new"]])[1] < 0.95


def test_ids_of_pairs():
    parts = (
        Pairs(["one two two", "two"], ["A B", "B"], "english"),
        Pairs(["two three one one one"], ["C"], "english"),
    )
    data = encode_pairs(parts)
    assert [v.words for v in data.vocabularies] == [("two", "one"), ("b", "a")]
    np.testing.assert_array_equal(data.sources[0], [[2, 5, 4, 4, 3, 0, 0], [2, 4, 3, 0, 0, 0, 0]])
    np.testing.assert_array_equal(data.sources[1], [[2, 4, 1, 5, 5, 5, 3]])
    np.testing.assert_array_equal(data.targets[0], [[2, 5, 4, 3], [2, 4, 3, 0]])
    assert data.length == 3
    inputs, labels, weight = data.examples(0, 2).batch(0, 0)
    np.testing.assert_array_equal(inputs["source"], data.sources[0])
    np.testing.assert_array_equal(inputs["target"], [[2, 5, 4], [2, 4, 3]])
    np.testing.assert_array_equal(labels, [[5, 4, 3], [4, 3, 0]])
    np.testing.assert_array_equal(weight, [[1, 1, 1], [1, 1, 0]])


def test_own_pairs(tmp_path):
    path = tmp_path / "fra.txt"
    path.write_text("Hi.\tSalut !\tCC-BY 2.0\n\nThe man.\tL\u2019homme.\n", "utf-8")
    pairs = read_pairs(path, "french")
    assert pairs.sources == ["Hi.", "The man."]
    assert tokenize(pairs.targets, pairs.language) == [["salut", "!"], ["l", "'", "homme", "."]]
    assert read_pairs(path, "chinese").language == "chinese"
    assert pairs.shorter_than(3).sources == ["Hi."]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: english_number(1_000_000), "number must be from 0 to 999999, got 1000000"),
        (
            lambda: english_date(datetime.date(2100, 1, 1)),
            "date must be of 1900 to 2099, got 2100-01-01",
        ),
        (lambda: chinese_number(-1), "number must be from 0 to 999999, got -1"),
        (
            lambda: number_pairs(9, "english", "english"),
            "source and target must be two of digits, english, chinese, got 'english', 'english'",
        ),
        (
            lambda: number_pairs(9, "latin"),
            "source and target must be two of digits, english, chinese, got 'latin', 'chinese'",
        ),
        (lambda: number_pairs(0), "count must be from 1 to 243496, got 0"),
        (
            lambda: split_pairs(Pairs(["a", "b"], ["a", "b"], "english"), [0, 1]),
            r"pairs must be enough for three parts, got \[2, 0, 0\] of 2 pairs",
        ),
        (
            lambda: load_verse_pairs("latin"),
            "languages must be of chinese, english, french, got 'latin'",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        call()


def test_a_bad_file_of_pairs_is_named(tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_text("one\tun\ntwo deux\n", "utf-8")
    with pytest.raises(ValueError, match=r"pairs.txt must have a source, a tab and a target in "):
        read_pairs(path, "french")
    path.write_text("\n", "utf-8")
    with pytest.raises(ValueError, match=r"pairs.txt must have a text, got an empty file"):
        read_pairs(path, "french")
