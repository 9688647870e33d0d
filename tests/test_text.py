"""Texts to ids and back: what a token is, what each id means, and what is refused in one line."""

import dataclasses
import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest

from tfcourse.data import tokenizers
from tfcourse.data.text import (
    TextVocabulary,
    buckets,
    check_labels_match,
    join,
    read_texts,
    tokenize,
)

TRAINING = ["the cat sat on the mat .", "The dog sat.", "a cat!"]
needs_jieba = pytest.mark.skipif(
    importlib.util.find_spec("jieba") is None,
    reason="jieba is missing: pip install 'tfcourse[chinese]'",
)


def refusal(call, *arguments, **named):
    with pytest.raises(ValueError) as error:
        call(*arguments, **named)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "raw, tokens",
    [
        ("The cat, THE dog!", "the cat , the dog !"),
        ("I don't think it's you're", "i do n't think it 's you 're"),
        ("Can\u2019t we\u2019ll I'd they've I'm", "ca n't we 'll i 'd they 've i 'm"),
        ("shouldn't've", "should n't 've"),
        ("O'Clock rock'n'roll", "o'clock rock'n'roll"),
        ("the dogs' 'tails'", "the dogs ' ' tails '"),
        ("$1,000.50 in 1980s, 3.5mm; mp3 x.y", "$ 1,000.50 in 1980s , 3.5 mm ; mp3 x . y"),
        ("well-known snake_case ...", "well - known snake _ case . . ."),
        ("Cafe\u0301 caf\u00e9", "caf\u00e9 caf\u00e9"),
        (" \t ", ""),
    ],
)
def test_english_tokens_and_cutting_them_again(raw, tokens):
    assert tokenize([raw]) == [tokens.split()]
    assert tokenize([join(tokens.split())]) == [tokens.split()]


@pytest.mark.parametrize(
    "raw, tokens, joined",
    [
        ("床前明月光。", "床 前 明 月 光 。", "床前明月光。"),
        ("我爱Deep Learning 2.0!", "我 爱 deep learning 2.0 !", "我爱deep learning 2.0!"),
        ("\uff21\uff22\uff11\uff12 a b c", "ab12 a b c", "ab12 a b c"),
        ("\U00020000字", "\U00020000 字", "\U00020000字"),
    ],
)
def test_chinese_characters(raw, tokens, joined):
    assert tokenize([raw], "chinese") == [tokens.split()]
    assert join(tokens.split(), "chinese") == joined


@needs_jieba
def test_chinese_words_and_the_private_cache_of_their_dictionary(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("TFCOURSE_CACHE", str(tmp_path))
    tokenizers._chinese_words.cache_clear()
    raw = ["我来到北京清华大学。", "", "买了3.5斤 Apple \uff30\uff49\uff45"]
    words = tokenize(raw, "chinese_words")
    expected = ["我 来到 北京 清华大学 。", "", "买 了 3.5 斤 apple pie"]
    assert words == [row.split() for row in expected]
    assert join(words[2], "chinese_words") == "买了3.5斤apple pie"
    assert [file.name for file in (tmp_path / "jieba").iterdir()] == ["jieba.cache"]
    assert capfd.readouterr() == ("", "")


def test_a_missing_segmenter_is_one_line_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "jieba", None)
    tokenizers._chinese_words.cache_clear()
    with pytest.raises(ImportError) as error:
        tokenize(["我"], "chinese_words")
    assert str(error.value) == "chinese_words needs jieba: pip install 'tfcourse[chinese]'"
    assert tokenize(["我"], "chinese") == [["我"]]


def test_ids_by_hand():
    # the 3; . cat sat 2; ! a dog mat on 1
    vocabulary = TextVocabulary.fit(TRAINING)
    assert " ".join(vocabulary.words) == "the . cat sat ! a dog mat on"
    assert vocabulary.size == 11
    ids = vocabulary.encode(["The bird sat!", "", "a cat"])
    assert ids.dtype == np.int32
    assert ids.tolist() == [[2, 1, 5, 6], [0, 0, 0, 0], [7, 4, 0, 0]]
    assert vocabulary.decode(ids) == [["the", "<unknown>", "sat", "!"], [], ["a", "cat"]]
    assert vocabulary.encode(["a cat"], length=4).tolist() == [[7, 4, 0, 0]]
    np.testing.assert_array_equal(
        vocabulary.encode(tokenize(TRAINING)), vocabulary.encode(TRAINING)
    )


def test_rare_words_are_cut():
    assert TextVocabulary.fit(TRAINING, min_count=2).words == ("the", ".", "cat", "sat")
    assert TextVocabulary.fit(TRAINING, min_count=3).words == ("the",)
    small = TextVocabulary.fit(TRAINING, max_size=5)
    assert (small.words, small.size) == (("the", ".", "cat"), 5)
    assert TextVocabulary.fit(TRAINING, max_size=5, start_and_end=True).words == ("the",)
    assert TextVocabulary.fit(TRAINING, max_size=100) == TextVocabulary.fit(TRAINING)


def test_start_and_end():
    vocabulary = TextVocabulary.fit(["b a b"], start_and_end=True)
    assert (vocabulary.words, vocabulary.size) == (("b", "a"), 6)
    ids = vocabulary.encode(["a b", "", "a x a b"])
    assert ids.tolist() == [[2, 5, 4, 3, 0, 0], [2, 3, 0, 0, 0, 0], [2, 5, 1, 5, 4, 3]]
    assert vocabulary.decode(ids) == [["a", "b"], [], ["a", "<unknown>", "a", "b"]]
    # What a decoder says after the end is nothing.
    assert vocabulary.decode(np.array([[5, 3, 4, 4], [5, 5, 5, 5]])) == [["a"], ["a"] * 4]
    cut = vocabulary.encode(["a", "a b a b"], length=4, truncate=True)
    assert cut.tolist() == [[2, 5, 3, 0], [2, 5, 4, 3]]


def test_known_texts_come_back():
    random = np.random.default_rng(0)
    words = np.array(["it's", "don't", "3.5", "o'clock", "--", "Cats", "end."])
    texts = [" ".join(random.choice(words, n)) for n in random.integers(1, 20, 50)]
    vocabulary = TextVocabulary.fit(texts)
    assert vocabulary.decode(vocabulary.encode(texts)) == tokenize(texts)


def test_nothing_changes_a_vocabulary():
    vocabulary = TextVocabulary.fit(TRAINING)
    with pytest.raises(dataclasses.FrozenInstanceError):
        vocabulary.words = ("other",)
    vocabulary.encode(["words that nobody saw"])
    assert vocabulary == TextVocabulary.fit(TRAINING)


def test_too_long_a_text_is_named_or_cut():
    vocabulary = TextVocabulary.fit(TRAINING)
    message = "texts must have at most 3 tokens, got 4 in row 1; truncate=True cuts them"
    assert refusal(vocabulary.encode, ["a cat", "the cat sat ."], 3) == message
    ids = vocabulary.encode(["a cat", "the cat sat ."], 3, truncate=True)
    assert ids.tolist() == [[7, 4, 0], [2, 4, 5]]
    assert vocabulary.encode(["the cat sat"], 3).tolist() == [[2, 4, 5]]


@pytest.mark.parametrize("start_and_end", [False, True])
def test_save_and_load(tmp_path, start_and_end):
    path = tmp_path / "folder" / "vocabulary.json"
    texts = ["我爱 deep learning", "爱\U00020000"]
    saved = TextVocabulary.fit(texts, "chinese", start_and_end=start_and_end)
    saved.save(path)
    loaded = TextVocabulary.load(path)
    assert loaded == saved
    np.testing.assert_array_equal(loaded.encode(["我x爱"]), saved.encode(["我x爱"]))
    assert [file.name for file in path.parent.iterdir()] == ["vocabulary.json"]


@pytest.mark.parametrize(
    "change, why",
    [
        (lambda d: d | {"version": 2}, "it is not of the format 'tfcourse vocabulary', version 1"),
        (lambda d: d | {"format": "?"}, "it is not of the format 'tfcourse vocabulary', version 1"),
        (lambda d: d | {"words": "abc"}, "words must be a list, and start_and_end true or false"),
        (lambda d: d | {"start_and_end": 1}, "words must be a list, and start_and_end true or"),
        (lambda d: d | {"words": []}, "words must have at least one word, got none"),
        (lambda d: d | {"words": ["a", 3]}, "words must be texts that are not empty, got 3"),
        (lambda d: d | {"words": ["a", "b", "a"]}, "words must have each word once, got 'a' twice"),
        (lambda d: d | {"language": "klingon"}, "language must be one of english, chinese, chi"),
        (lambda d: {name: d[name] for name in d if name != "language"}, "KeyError: 'language'"),
        (lambda d: [d], "TypeError"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, change, why):
    path = tmp_path / "vocabulary.json"
    TextVocabulary.fit(TRAINING).save(path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    message = refusal(TextVocabulary.load, path)
    assert message.startswith(f"{path} is no vocabulary that can be read: ")
    assert why in message


@pytest.mark.parametrize("data", [b"", b'{"format": "tfcou', b"\xff" * 500, b"[" * 200_000])
def test_half_a_file_is_one_short_line(tmp_path, data):
    path = tmp_path / "vocabulary.json"
    path.write_bytes(data)
    message = refusal(TextVocabulary.load, path)
    assert message.startswith(f"{path} is no vocabulary that can be read: ")
    assert len(message) < len(str(path)) + 200


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: tokenize(["a"], "klingon"),
            "language must be one of english, chinese, chinese_words, got 'klingon'",
        ),
        (
            lambda: TextVocabulary.fit(["a"], "klingon"),
            "language must be one of english, chinese, chinese_words, got 'klingon'",
        ),
        (
            lambda: join(["a"], "klingon"),
            "language must be one of english, chinese, chinese_words, got 'klingon'",
        ),
        (lambda: tokenize("a text"), "texts must be a list of texts, got the text 'a text'"),
        (lambda: tokenize([]), "texts must have at least one text, got none"),
        (lambda: tokenize(["a", None]), "texts must be texts, got None in row 1"),
        (lambda: tokenize([["a"]]), "texts must be texts, got ['a'] in row 0"),
        (lambda: TextVocabulary.fit([["a", 1]]), "texts must be texts, got ['a', 1] in row 0"),
        (
            lambda: TextVocabulary.fit(TRAINING, min_count=9),
            "the vocabulary must have a word, got none that occurs 9 times in 3 texts; "
            "the most frequent occurs 3",
        ),
        (
            lambda: TextVocabulary.fit(["", " "]),
            "the vocabulary must have a word, got none that occurs 1 times in 2 texts; "
            "the most frequent occurs 0",
        ),
        (
            lambda: TextVocabulary.fit(TRAINING, max_size=2),
            "max_size must be a whole number of at least 3, got 2",
        ),
        (
            lambda: TextVocabulary.fit(TRAINING, max_size=4, start_and_end=True),
            "max_size must be a whole number of at least 5, got 4",
        ),
        (
            lambda: TextVocabulary.fit(TRAINING, min_count=0),
            "min_count must be a whole number of at least 1, got 0",
        ),
        (
            lambda: TextVocabulary(("a",)).encode(["a"], length=0),
            "length must be a whole number of at least 1, got 0",
        ),
        (
            lambda: TextVocabulary(("a",)).decode(np.array([[0, 1], [2, 3]])),
            "ids must be from 0 to 2, got 3 in row 1",
        ),
        (
            lambda: TextVocabulary(("a",)).decode(np.array([2.0])),
            "ids must be integers (rows, length), got float64 (1,)",
        ),
        (
            lambda: check_labels_match(["a", "b", "c"], [0, 1]),
            "labels must be as many as the 3 texts, got 2",
        ),
        (lambda: buckets([], 2), "lengths must be whole numbers from 0, got []"),
        (lambda: buckets([1.5], 2), "lengths must be whole numbers from 0, got [1.5]"),
        (lambda: buckets([1, -2], 2), "lengths must be whole numbers from 0, got [1, -2]"),
        (lambda: buckets([1], 0), "batch_size must be a whole number of at least 1, got 0"),
        (lambda: buckets([1], 2, 0), "boundaries must be a whole number of at least 1, got 0"),
        (lambda: buckets([1], 2, (5, 5)), "boundaries must rise, got [5, 5]"),
    ],
)
def test_bad_input_is_one_line(call, message):
    assert refusal(call) == message


def test_as_many_labels_as_texts_pass():
    assert check_labels_match(["a", "b"], np.zeros((2, 1))) is None


def test_buckets_with_given_boundaries():
    lengths = [5, 1, 9, 2, 5, 30, 3, 5, 2]
    batches = buckets(lengths, 2, (2, 5))
    assert sorted(np.concatenate(batches)) == list(range(9))
    by_bucket = [sorted({int(np.searchsorted((2, 5), lengths[i])) for i in b}) for b in batches]
    # 3 rows up to 2, 4 rows up to 5, 2 rows above, in batches of at most 2.
    assert sorted(by_bucket) == [[0], [0], [1], [1], [2]]
    assert sorted(map(len, batches)) == [1, 2, 2, 2, 2]


def test_buckets_of_a_number_save_padding_and_follow_the_seed():
    lengths = np.random.default_rng(0).integers(1, 101, 1000)
    batches = buckets(lengths, 32, 5, seed=3)
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(1000))
    # Of uniform lengths, a fifth of the range is left within a batch.
    assert max(np.ptp(lengths[b]) for b in batches) <= 22
    assert [b.tolist() for b in batches] == [b.tolist() for b in buckets(lengths, 32, 5, seed=3)]
    other = buckets(lengths, 32, 5, seed=4)
    assert not {frozenset(b.tolist()) for b in batches} & {frozenset(b.tolist()) for b in other}
    # Long and short batches take turns: the order is not that of the lengths.
    means = [lengths[b].mean() for b in batches]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5
    assert len(buckets([4] * 7, 3, 5)) == 3


@pytest.mark.parametrize(
    "data, encoding, texts",
    [
        (b"one\n\ntwo\n", "utf-8", ["one", "", "two"]),
        (b"one\r\ntwo", "utf-8", ["one", "two"]),
        (b"\xef\xbb\xbfone\x0ctwo\n", "utf-8", ["one\x0ctwo"]),
        ("好\n书\n".encode("gb18030"), "gb18030", ["好", "书"]),
        ("好\n".encode("utf-16"), "utf-16", ["好"]),
    ],
)
def test_a_text_a_line(tmp_path, data, encoding, texts):
    (tmp_path / "texts").write_bytes(data)
    assert read_texts(tmp_path / "texts", encoding) == texts


@pytest.mark.parametrize(
    "data, encoding, message",
    [
        (b"", "utf-8", "{} must have a text, got an empty file"),
        (b"\xef\xbb\xbf \n\n", "utf-8", "{} must have a text, got an empty file"),
        (b"good\nca\xe9\n", "utf-8", "{} must be utf-8 text, got the byte 0xe9 at position 7"),
        ("好".encode(), "ascii", "{} must be ascii text, got the byte 0xe5 at position 0"),
        (
            "é ab".encode("utf-16-le"),
            "latin-1",
            "{} must be latin-1 text, got the byte 0x00 at position 1",
        ),
        (b"a", "utf-9", "encoding must be one that Python knows, got 'utf-9'"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, data, encoding, message):
    path = tmp_path / "texts"
    path.write_bytes(data)
    assert refusal(read_texts, path, encoding) == message.format(path)


def test_no_tensorflow_is_imported():
    code = "import sys, tfcourse.data.text; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_saved_model_and_its_vocabulary_take_raw_texts(tmp_path):
    import keras

    vocabulary = TextVocabulary.fit(TRAINING)
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            keras.layers.Embedding(vocabulary.size, 2),
            keras.layers.Flatten(),
            keras.layers.Dense(1, name="logits"),
        ]
    )
    model.save(tmp_path / "model.keras")
    vocabulary.save(tmp_path / "vocabulary.json")
    texts = ["the dog sat", "a bird!"]
    expected = model(vocabulary.encode(texts, 6)).numpy()
    loaded = keras.models.load_model(tmp_path / "model.keras")
    ids = TextVocabulary.load(tmp_path / "vocabulary.json").encode(texts, 6)
    np.testing.assert_array_equal(loaded(ids).numpy(), expected)
    assert expected[0] != expected[1]
