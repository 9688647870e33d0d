"""Vectors of words: as published and as others read them, and what they know, as gensim finds."""

import hashlib
import itertools
import re

import numpy as np
import pytest
from scipy.stats import spearmanr
from sharing import or_skip

from tfcourse.data import glove, word_questions
from tfcourse.data.books import load_addresses
from tfcourse.data.parquet_strings import decompress, read_strings
from tfcourse.data.sentences import sentences
from tfcourse.data.text import TextVocabulary
from tfcourse.data.word_vectors import WordVectors, read_vectors, vectors_for, write_vectors
from tfcourse.sequence.count_vectors import fit_count_vectors, pair_counts, ppmi
from tfcourse.sequence.windows import flatten
from tfcourse.sequence.word_evaluation import (
    analogy_accuracy,
    complete,
    neighbours,
    similarity_correlation,
)


@pytest.fixture(scope="module")
def published():
    return or_skip(glove.load_glove)


def refusal(call, *arguments, **named):
    with pytest.raises(ValueError) as error:
        call(*arguments, **named)
    assert "\n" not in str(error.value)
    return str(error.value)


def some_vectors(words=40, dim=7, seed=0):
    names = [f"w{i}" for i in range(words)]
    return names, np.random.default_rng(seed).normal(size=(words, dim)).astype(np.float32)


def test_glove_is_as_published(published):
    """The first line of glove.6B.50d.txt, and the words as pyarrow 25 reads the same file:
    hashlib.sha256("\\n".join(pq.read_table(file).column(0).to_pylist()).encode()).hexdigest()
    """
    assert published.vectors.shape == (400_000, 50)
    np.testing.assert_array_equal(
        published.vector("the")[:5], np.float32([0.418, 0.24968, -0.41242, 0.1217, 0.34527])
    )
    assert published.words[:6] == ("the", ",", ".", "of", "to", "and")
    digest = hashlib.sha256("\n".join(published.words).encode()).hexdigest()
    assert digest == "029a7168ebc71f71e23e1f6ae94967234a13dcd64717754746c171be20d31a77"
    few = glove.load_glove(3)
    assert few.words == ("the", ",", ".")
    np.testing.assert_array_equal(few.vectors, published.vectors[:3])
    assert refusal(glove.load_glove, 0) == "max_words must be a whole number of at least 1, got 0"
    assert refusal(few.vector, "whale") == "no vector of the word 'whale' among 3"


# gensim 4.4.0 on the same vectors, KeyedVectors(50).add_vectors(words, vectors):
# evaluate_word_analogies("questions-words.txt", restrict_vocab=30000): right and asked, and
# evaluate_word_pairs("wordsim353.tsv", restrict_vocab=n)[1].statistic.
GENSIM_ANALOGIES = {
    "capital-common-countries": (403, 506),
    "capital-world": (2006, 2715),
    "currency": (31, 236),
    "city-in-state": (354, 2203),
    "family": (259, 342),
    "gram1-adjective-to-adverb": (127, 870),
    "gram2-opposite": (45, 380),
    "gram3-comparative": (699, 1332),
    "gram4-superlative": (202, 600),
    "gram5-present-participle": (397, 930),
    "gram6-nationality-adjective": (1362, 1445),
    "gram7-past-tense": (586, 1560),
    "gram8-plural": (680, 1056),
    "gram9-plural-verbs": (242, 702),
}
GENSIM_PAIRS = {30_000: 0.538271182853815, 400_000: 0.503319577396603}


def test_glove_knows_what_gensim_finds_that_it_knows(published):
    questions = or_skip(word_questions.load_analogies)
    assert sum(map(len, questions.values())) == 19_544
    words, vectors = published.words[:30_000], published.vectors[:30_000]
    found = analogy_accuracy(words, vectors, questions)
    assert {k: (found.right[k], found.asked[k]) for k in found.asked} == GENSIM_ANALOGIES
    assert found.unknown == 19_544 - 14_877
    assert found.accuracy == pytest.approx(0.4969415876856893)
    pairs = or_skip(word_questions.load_similarities)
    assert len(pairs) == 353
    for size, expected in GENSIM_PAIRS.items():
        found = similarity_correlation(published.words[:size], published.vectors[:size], pairs)
        assert found.correlation == pytest.approx(expected, abs=1e-6)
        assert found.pairs + found.unknown == 353
    assert complete((words, vectors), ["king", "woman"], ["man"])[0][0] == "queen"


def test_analogies_are_the_best_of_all_words_but_the_three_asked():
    words, vectors = some_vectors()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    random = np.random.default_rng(1)
    questions, right = [], 0
    for _ in range(60):
        a, b, c, d = random.choice(len(words), 4, replace=False)
        target = unit[b] - unit[a] + unit[c]
        best = max(
            (i for i in range(len(words)) if i not in (a, b, c)), key=lambda i: unit[i] @ target
        )
        d = best if random.random() < 0.5 else d
        right += d == best
        questions.append(tuple(words[i] for i in (a, b, c, d)))
        (answer, cosine), *_ = complete((words, vectors), [words[b], words[c]], [words[a]], 3)
        assert answer == words[best]
        assert cosine == pytest.approx(unit[best] @ target / np.linalg.norm(target), abs=1e-6)
    found = analogy_accuracy(words, vectors, {"all": [*questions, ("w1", "w2", "w3", "?")]})
    assert found.right == {"all": right} and found.asked == {"all": 60} and found.unknown == 1
    assert found.accuracy == right / 60
    near = neighbours(words, vectors, "w5", len(words) - 1)
    cosines = unit @ unit[5]
    assert [w for w, _ in near] == [words[i] for i in np.argsort(-cosines) if i != 5]


def test_the_rank_correlation_is_scipys_and_ties_share_a_rank():
    words, vectors = some_vectors(30)
    vectors[20:] = vectors[:10]  # equal cosines
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    random = np.random.default_rng(2)
    pairs = [
        (*random.choice(words, 2, replace=False), float(random.integers(5))) for _ in range(50)
    ]
    cosines = [round(float(unit[int(a[1:])] @ unit[int(b[1:])]), 6) for a, b, _ in pairs]
    expected = spearmanr(cosines, [mark for *_, mark in pairs]).statistic
    found = similarity_correlation(words, vectors, pairs)
    assert found.correlation == pytest.approx(expected, abs=5e-3)
    assert (found.pairs, found.unknown) == (50, 0)


def test_a_word_without_a_vector_is_neither_asked_nor_an_answer():
    words, vectors = some_vectors(6)
    vectors[2] = 0
    assert "w2" not in [word for word, _ in neighbours(words, vectors, "w0", 4)]
    assert refusal(neighbours, words, vectors, "w2", 1) == "every word must have a vector, got 'w2'"
    assert refusal(neighbours, words, vectors, "w0", 5) == (
        "k must be from 1 to the 4 other words, got 5"
    )
    assert analogy_accuracy(words, vectors, {"": [("w0", "w1", "w2", "w3")]}).unknown == 1
    assert refusal(similarity_correlation, words, vectors, [("w0", "w1", 1.0)] * 2) == (
        "at least 3 pairs must have vectors of both words, got 2"
    )
    assert refusal(neighbours, words, vectors[:5], "w0") == (
        "vectors must be one for each of 6 words, got (5, 7)"
    )


def test_vectors_of_a_vocabulary():
    known = WordVectors(("a", "b", "c"), np.arange(6).reshape(3, 2))
    vocabulary = TextVocabulary(("c", "x", "a"), start_and_end=True)
    vectors, share = vectors_for(vocabulary, known, seed=1)
    assert vectors.shape == (7, 2) and vectors.dtype == np.float32 and share == 2 / 3
    np.testing.assert_array_equal(vectors[[0, 4, 6]], [[0, 0], [4, 5], [0, 1]])
    others = vectors[[1, 2, 3, 5]]
    assert np.abs(others).max() <= 0.25 and np.unique(others).size == 8
    assert (vectors_for(vocabulary, known, seed=1)[0] == vectors).all()
    assert (vectors_for(vocabulary, known, seed=2)[0][1] != vectors[1]).all()
    many = TextVocabulary(tuple(f"x{i}" for i in range(4000)))
    random = vectors_for(many, known)[0][1:]
    assert random.std() == pytest.approx(0.25 / 3**0.5, rel=0.02)


def test_files_of_vectors(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("the 1 2.5 -3e-1\n. . . 4 5 6\nthe 7 8 9\n\u4e2d\u6587 1 1 1\n", "utf-8")
    found = read_vectors(path)
    assert found.words == ("the", ". . .", "\u4e2d\u6587") and found.dim == 3
    np.testing.assert_array_equal(found.vectors[:2], np.float32([[1, 2.5, -0.3], [4, 5, 6]]))
    assert read_vectors(path, max_words=2).words == ("the", ". . .")
    words, vectors = some_vectors(5)
    write_vectors(WordVectors(words, vectors), path)
    assert path.read_text().startswith("5 7\nw0 ")
    again = read_vectors(path)
    assert again.words == tuple(words)
    np.testing.assert_allclose(again.vectors, vectors, rtol=1e-5)
    assert refusal(write_vectors, WordVectors(["a b"], [[1, 2]]), path) == (
        "words must be without spaces, got 'a b'"
    )
    assert read_vectors(path).words == again.words


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "must have a word and its vector a line, got an empty file"),
        (b"a 1 2\nb 1\n", "2 numbers in each line, as in the first, got 'b 1' in line 2"),
        (b"a 1 2\nb 1 x\n", "2 numbers in each line, as in the first, got 'b 1 x' in line 2"),
        (b"a 1 2\nb 1 nan\n", "2 numbers in each line, as in the first, got 'b 1 nan' in line 2"),
        (b"2 3\na 1 2\n", "3 numbers in each line, as in the first, got 'a 1 2' in line 2"),
        (b"3 2\na 1 2\nb 1 2\n", "must have 3 words, as its first line states, got 2"),
        (b"2 99999999999999999999\na 1 2\n", "got '2 99999999999999999999' in line 1"),
        ("\u00b2 \u00b2\n".encode(), "as in the first, got '\u00b2 \u00b2' in line 1"),
        (b"a 1 1e40\n", "2 numbers in each line, as in the first, got 'a 1 1e40' in line 1"),
        (b"word\n", "2 numbers in each line, as in the first, got 'word' in line 1"),
        (b"a 1 2\n\xff 1 2\n", "must be utf-8 text, line 2 is not"),
    ],
)
def test_a_wrong_file_of_vectors_is_one_line(tmp_path, text, message):
    path = tmp_path / "vectors.txt"
    path.write_bytes(text)
    said = refusal(read_vectors, path)
    assert said.startswith(str(path)) and said.endswith(message)


def test_wrong_vectors_and_encodings(tmp_path):
    path = tmp_path / "v.txt"
    path.write_bytes(b"a 1 2\n")
    assert refusal(read_vectors, path, encoding="utf-9") == (
        "encoding must be one that Python knows, got 'utf-9'"
    )
    assert refusal(WordVectors, ("a", "a"), np.ones((2, 2))).startswith("words must have each word")
    assert refusal(WordVectors, ("a",), np.ones((2, 2))) == (
        "vectors must be one for each of 1 words, at least one, got the shape (2, 2)"
    )


def test_files_of_questions(tmp_path):
    path = tmp_path / "questions.txt"
    path.write_text(": capitals\nAthens Greece Oslo Norway\n\n: family\nboy girl man woman\n")
    assert word_questions.read_analogies(path) == {
        "capitals": [("athens", "greece", "oslo", "norway")],
        "family": [("boy", "girl", "man", "woman")],
    }
    path.write_text(": capitals\nAthens Greece Oslo\n")
    said = refusal(word_questions.read_analogies, path)
    assert said.endswith("must have four words a line, got 'Athens Greece Oslo' in line 2")
    path.write_text(": capitals\n")
    assert refusal(word_questions.read_analogies, path).endswith("must have a question, got none")
    path.write_text("# of 2002\nTiger\tcat\t7.35\n")
    assert word_questions.read_similarities(path) == [("tiger", "cat", 7.35)]
    path.write_text("tiger cat 7.35\n")
    assert refusal(word_questions.read_similarities, path).endswith(
        "must have two words and a number a line, with tabs between, got 'tiger cat 7.35' in line 1"
    )
    path.write_text("# nothing\n")
    assert refusal(word_questions.read_similarities, path).endswith(
        "must have a pair of words, got none"
    )


def literal(data):
    """Write raw Snappy that copies nothing, by the format's description."""
    parts = [data[i : i + 60] for i in range(0, len(data), 60)]
    body = b"".join(bytes([len(part) - 1 << 2]) + part for part in parts)
    return varint(len(data)) + body


def varint(value):
    found = b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


@pytest.mark.parametrize(
    ("packed", "expected"),
    [
        (literal(b"abc" * 70), b"abc" * 70),
        (b"\x09\x08abc\x09\x03", b"abcabcabc"),  # six bytes from three back, by one byte
        (b"\x08\x00a\x1a\x01\x00", b"aaaaaaaa"),  # seven from one back, by two
        (b"\x06\x08abc\x0b\x03\x00\x00\x00", b"abcabc"),  # three from three back, by four
        (varint(300) + b"\xf4\x2b\x01" + b"x" * 300, b"x" * 300),  # its length in two bytes
    ],
)
def test_snappy(packed, expected):
    assert decompress(packed) == expected


def test_broken_snappy_is_refused():
    assert refusal(decompress, b"\x09\x08abc\x09\x04") == "a copy begins before the start"
    assert refusal(decompress, b"\x04\x08abc") == "4 bytes were announced, got 3"


def make_parquet(words, kind=0, encoding=0):
    """Write what `read_strings` reads of a file: a page's header by Thrift, and a page."""
    page = b"".join(len(w.encode()).to_bytes(4, "little") + w.encode() for w in words)
    page = (2).to_bytes(4, "little") + b"\x04\x01" + page
    packed = literal(page)
    numbers = [varint(value << 1) for value in (kind, len(page), len(packed))]
    header = b"".join(b"\x15" + number for number in numbers)
    header += b"\x2c\x15" + varint(len(words) << 1) + b"\x15" + varint(encoding << 1) + b"\x00\x00"
    return b"PAR1" + header + packed + b"\x00" + (1).to_bytes(4, "little") + b"PAR1"


def test_a_parquet_file_of_strings(tmp_path):
    path = tmp_path / "words.parquet"
    words = ["the", "\u4e2d\u6587", *map(str, range(50))]
    path.write_bytes(make_parquet(words))
    assert read_strings(path) == words
    for data, message in (
        (make_parquet(["a", "a"]), "a string comes twice"),
        (make_parquet(["a", "b"], kind=3), "a page of the type 3 is unknown"),
        (make_parquet(["a", "b"], encoding=2), "a string comes twice"),
        (b"PAR2" + make_parquet(["a"])[4:], "it must begin and end with PAR1"),
    ):
        path.write_bytes(data)
        said = refusal(read_strings, path)
        assert said == f"{path} must be a Parquet file of distinct strings: {message}"


END = b"\x00" + (1).to_bytes(4, "little") + b"PAR1"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x1c" * 5000, r"\(RecursionError: "),
        (b"\x15" + b"\x80" * 2_000_000, ": a number has more than 64 bits"),
        (b"\x15\x00\x15\x02\x18\x01a\x00", r"\(TypeError: "),
        (
            b"\x15\x00\x15\x02\x15" + varint(41) + b"\x00",
            ": a page must have a byte or more, got -21",
        ),
        (
            make_parquet(["a", "b"]).replace(b"\x15\x04\x15\x00\x00", b"\x15\x06\x15\x00\x00")[
                4:-9
            ],
            ": a page must have 3 strings, got 2",
        ),
    ],
)
def test_a_hostile_parquet_file_is_one_line(tmp_path, data, message):
    path = tmp_path / "words.parquet"
    path.write_bytes(b"PAR1" + data + END)
    assert re.search(
        f"must be a Parquet file of distinct strings ?{message}", refusal(read_strings, path)
    )


def test_a_damaged_parquet_file_is_one_line(tmp_path):
    whole = make_parquet([f"word{i}" for i in range(9)])
    path = tmp_path / "words.parquet"
    for cut in range(12, len(whole) - 8):
        path.write_bytes(whole[:cut] + whole[-8:])
        assert refusal(read_strings, path).startswith(f"{path} must be a Parquet file of distinct")


def test_sentences_have_words_alone():
    assert sentences(["It isn't so; 'tis 1,000 -- or not! Yes", "End."]) == [
        ["it", "is", "n't", "so"],
        ["tis", "1,000", "or", "not"],
        ["yes"],
        ["end"],
    ]
    assert refusal(sentences, ["...", ""]) == "texts must have a word, got none"


def test_the_addresses_are_those_of_the_presidents():
    """The American Presidency Project counts 1,401 words of Washington's in December 1790, and
    has Carter's of 1981, "The State of the Union is sound", as the longest of all.
    """
    texts = or_skip(load_addresses)
    lengths = [len(text.split()) for text in texts]
    assert len(texts) == 233 and sum(lengths) == 1_794_884
    assert lengths[0] == 1_401 and "In meeting you again I feel much satisfaction" in texts[0]
    assert "The State of the Union is sound" in texts[int(np.argmax(lengths))]


def test_count_vectors_are_numpys():
    random = np.random.default_rng(0)
    text = [random.choice(12, size=random.integers(1, 9)).tolist() for _ in range(60)]
    window, size = 3, 14  # two words never come
    table = np.zeros((size, size))
    for row in text:
        for i, j in itertools.permutations(range(len(row)), 2):
            table[row[i], row[j]] += max(0, window + 1 - abs(i - j)) / window
    counts = pair_counts(*flatten(text, size), size, window)
    np.testing.assert_allclose(counts.toarray(), table, atol=1e-12)
    smooth = table.sum(0) ** 0.75
    with np.errstate(divide="ignore", invalid="ignore"):
        chance = np.outer(table.sum(1), smooth / smooth.sum())
        information = np.nan_to_num(np.maximum(np.log(table / chance), 0))
    np.testing.assert_allclose(ppmi(counts).toarray(), information, atol=1e-12)
    vectors = fit_count_vectors(text, size, embedding_dim=5, window=window)
    left, sizes, _ = np.linalg.svd(information)
    expected = left[:, :5] * np.sqrt(sizes[:5])
    np.testing.assert_allclose(vectors @ vectors.T, expected @ expected.T, atol=1e-5)
    assert not vectors[12:].any() and vectors[:12].any(axis=1).all()


def test_wrong_arguments_of_counts():
    assert refusal(fit_count_vectors, [[0, 1]], 2, embedding_dim=2) == (
        "embedding_dim must be below vocabulary_size = 2, got 2"
    )
    assert refusal(fit_count_vectors, [[0, 1]], 9, embedding_dim=2, window=0) == (
        "window must be a whole number of at least 1, got 0"
    )
    assert "ids must be from 0" in refusal(fit_count_vectors, [[0, 9]], 9, embedding_dim=2)
