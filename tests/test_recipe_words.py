"""The recipes train_word_vectors and write_text at smoke size, and on texts of one's own."""

import keras
import numpy as np
import pytest
from sharing import check_pictures, or_skip

from tfcourse.data.books import load_moby_dick, load_tang_poems
from tfcourse.data.text import TextVocabulary
from tfcourse.data.word_questions import load_similarities
from tfcourse.data.word_vectors import read_vectors


def test_write_text_on_a_text_of_ones_own(recipe, tmp_path):
    """A text that repeats two words is learned; what is kept goes on writing it."""
    text = "the cat.\n" * 251  # of whose test part a rest is left over
    (tmp_path / "mine.txt").write_text(text)
    flags = ["--data-dir", "mine.txt", "--start", "the ", "--units", "32"]
    flags += ["--epochs", "8", "--batch-size", "4", "--learning-rate", "0.02"]
    status, report, output = recipe("write_text", *flags)
    assert status == 0
    assert output.out.splitlines()[-1] == report["line"]
    assert report["value"] < 0.2
    assert report["found"]["1-grams"] > 2.9
    assert min(report["found"].values()) < 0.1
    # At a low temperature it is the text, at a high one it is not.
    assert report["drawn"]["0.2"] < 0.3 < 3 * report["drawn"]["1.5"]
    folder = tmp_path / "runs/write_text"
    assert "the cat.\nthe cat." in (folder / "samples.txt").read_text()
    check_pictures(folder, "curves.png", "temperature.png", "surprise.png")
    vocabulary = TextVocabulary.load(folder / "vocabulary.json")
    ids = vocabulary.encode([list("the cat.\nthe ca")])
    logits = keras.saving.load_model(folder / "model.keras")(ids)
    assert vocabulary.decode([[int(np.argmax(logits[0, -1]))]]) == [["t"]]
    again, _, output = recipe("write_text", *flags)
    assert again == 0 and "this run is finished" in output.out


@pytest.mark.slow
def test_write_text_of_one_line_and_a_new_character(recipe, tmp_path):
    """No paragraph to begin with, a character that training has not, and no whole rows."""
    text = "the cat sat on mats " * 60 + "@" + "the cat sat on mats " * 5
    (tmp_path / "mine.txt").write_text(text)
    status, _, output = recipe(
        "write_text", "--smoke", "--data-dir", "mine.txt", "--units", "4", "--epochs", "1"
    )
    assert status == 0, output.err
    assert (tmp_path / "runs/write_text/samples.txt").read_text().splitlines()[1].startswith(" ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "load"), [("moby-dick", load_moby_dick), ("tang-poems", load_tang_poems)]
)
def test_write_text_smoke(recipe, tmp_path, name, load):
    or_skip(load)
    status, report, _ = recipe("write_text", "--smoke", "--text", name, "--epochs", "1")
    assert status == 0
    assert report["drawn"].keys() == {"0.5", "0.8", "1.0"}
    samples = (tmp_path / "runs/write_text/samples.txt").read_text("utf-8")
    assert samples.count("--- temperature ") == 3 and len(samples) > 1200


def test_train_word_vectors_on_a_text_of_ones_own(recipe, tmp_path):
    """Words of a pair stand together the more often, the higher their mark."""
    pairs = or_skip(load_similarities)[:12]
    lines = [f"{a} {b} {a} {b}" for a, b, mark in pairs for _ in range(int(mark))]
    (tmp_path / "mine.txt").write_text("\n".join(lines * 4))
    flags = ["--data-dir", "mine.txt", "--embedding-dim", "8", "--epochs", "2"]
    status, report, output = recipe("train_word_vectors", *flags)
    assert status == 0
    assert output.out.splitlines()[-1] == report["line"]
    assert report["found"].keys() == {"word2vec, skip_gram", "counts", "random", "GloVe"}
    assert report["found"]["word2vec, skip_gram"]["correlation"] == report["value"]
    kept = read_vectors(tmp_path / "runs/train_word_vectors/vectors.txt")
    assert {pairs[0][0], pairs[0][1]} <= set(kept.words) and kept.dim == 8


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["skip_gram", "cbow"])
def test_train_word_vectors_smoke(recipe, tmp_path, kind):
    or_skip(load_similarities)
    status, report, _ = recipe("train_word_vectors", "--smoke", "--kind", kind, "--epochs", "1")
    assert status == 0
    assert report["found"]["GloVe"]["correlation"] > 0.3
    check_pictures(tmp_path / "runs/train_word_vectors", "words.png")


@pytest.mark.parametrize(
    "case",
    [
        ("write_text", "", [], "mine.txt must have a text, got an empty file"),
        ("write_text", "a few words", [], "the text must have at least 100 characters, got 11"),
        ("write_text", "\xe9" * 300, [], "mine.txt must be utf-8 text, got the byte 0xe9"),
        ("write_text", "abc " * 99, ["--start", "X"], "known characters only, got 'X'"),
        ("write_text", "abc " * 99, ["--start", ""], "the text must have a character, got none"),
        ("write_text", "abc " * 99, ["--units", "0"], "argument --units: must be a whole number"),
        ("write_text", None, [], "there is no file mine.txt"),
        ("train_word_vectors", "", [], "mine.txt must have a text, got an empty file"),
        ("train_word_vectors", "... !", [], "texts must have a word, got none"),
        ("train_word_vectors", "one two", [], "the vocabulary must have a word, got none that"),
        ("train_word_vectors", "a b\n" * 9, [], "the text must have both words of 3 published"),
        (
            "train_word_vectors",
            "tiger cat tiger cat\nbook paper book\ncomputer keyboard\n" * 9,
            [],
            "--embedding-dim must be below the number of words, 6, got 100",
        ),
        ("train_word_vectors", "a", ["--kind", "glove"], "argument --kind: invalid choice"),
    ],
)
def test_bad_input_is_one_line(case, recipe, tmp_path):
    name, text, flags, message = case
    if "published" in message or "number of words" in message:
        or_skip(load_similarities)
    if text is not None:
        (tmp_path / "mine.txt").write_bytes(text.encode("latin-1"))
    status, _, output = recipe(name, "--data-dir", "mine.txt", *flags)
    assert status == 2
    assert message in output.err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_the_full_recipe_keeps_its_promise(recipe):
    or_skip(load_similarities)
    status, report, output = recipe("train_word_vectors")
    assert status == 0, output.err
    assert not report["failed"]
    assert "(expected " in report["line"]
