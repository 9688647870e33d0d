"""The recipe classify_text at smoke size, its pictures, and what speaks for an answer."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from sharing import check_pictures, or_skip
from test_recipes import ROOT

from tfcourse import plots
from tfcourse.data.corpora import load_chinese_reviews
from tfcourse.data.glove import load_glove
from tfcourse.data.text import TextVocabulary
from tfcourse.sequence.inspection import word_effects

KINDS = {
    "cat": [f"the {colour} cat says miao{mark}" for colour in "abcdefghij" for mark in ".!?"],
    "dog": [f"a {colour} dog says wuff{mark}" for colour in "abcdefghij" for mark in ".!?"],
}


def write(folder):
    folder.mkdir()
    for name, lines in KINDS.items():
        # Texts that differ in their marks alone would be one.
        numbered = [f"{line} {number}" for number, line in enumerate(lines)]
        folder.joinpath(f"{name}.txt").write_text("\n".join(numbered), "utf-8")
    return str(folder)


def test_your_own_texts_and_what_is_kept_of_them(recipe, tmp_path):
    folder = write(tmp_path / "texts")
    flags = ["--data-dir", folder, "--variant", "rand", "--epochs", "5"]
    status, report, output = recipe("classify_text", *flags)
    assert status == 0 and output.out.splitlines()[-1] == report["line"]
    assert report["value"] == 1.0 and report["classes"] == ["cat", "dog"]
    assert report["others"] == {"the most frequent class": 0.5, "naive Bayes": 1.0}
    run = tmp_path / "runs/classify_text"
    check_pictures(run, "confusion_matrix.png", "words.png", "curves.png")
    # Raw texts, with words that are new, to the model that was saved.
    vocabulary = TextVocabulary.load(run / "vocabulary.json")
    model = keras.saving.load_model(run / "model.keras")
    logits = model(vocabulary.encode(["My dog says wuff", "Miao, says the cat of my neighbour!"]))
    assert np.asarray(logits).argmax(axis=-1).tolist() == [1, 0]
    again, _, output = recipe("classify_text", *flags)
    assert again == 0 and "this run is finished" in output.out
    status, _, output = recipe("classify_text", *flags, "--max-tokens", "3")
    assert status == 2 and "a run with other flags (max-tokens None -> 3)" in output.err


@pytest.mark.slow
def test_what_is_kept_is_read_by_a_new_process_as_is_said(recipe, tmp_path):
    """The lines of the docstring: there nothing is imported by chance, as it is in this process."""
    flags = ["--data-dir", write(tmp_path / "texts"), "--variant", "rand", "--epochs", "5"]
    assert recipe("classify_text", *flags)[0] == 0
    text = (ROOT / "recipes/classify_text.py").read_text("utf-8").partition("whatever the")[2]
    lines = [line.strip() for line in text.partition('"""')[0].splitlines()[2:]]
    head = ["import keras", "from tfcourse.data.text import TextVocabulary"]
    code = "\n".join(
        [*head, "texts = ['My dog says wuff']", *lines, "print(logits.numpy().argmax())"]
    )
    command = [sys.executable, "-c", code]
    found = subprocess.run(
        command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == ["1"]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["textcnn", "rnn", "tdnn"])
def test_each_model_begins_with_glove(recipe, model):
    or_skip(load_glove, 1)
    status, report, output = recipe("classify_text", "--smoke", "--epochs", "1", "--model", model)
    assert status == 0
    assert list(report["others"]) == ["the most frequent class", "naive Bayes", "mean of vectors"]
    assert "GloVe knows 9" in output.out and report["seconds of training"] > 0


@pytest.mark.slow
def test_chinese_by_words(recipe, tmp_path):
    pytest.importorskip("jieba")
    or_skip(load_chinese_reviews)
    flags = ["--smoke", "--epochs", "1", "--data", "chinese", "--language", "chinese_words"]
    status, report, _ = recipe("classify_text", *flags)
    assert status == 0 and report["classes"] == ["negative", "positive"]
    kept = json.loads((tmp_path / "runs/classify_text/vocabulary.json").read_text("utf-8"))
    assert kept["language"] == "chinese_words" and max(map(len, kept["words"])) > 1


BAD_FLAGS = [
    (["--data", "spam", "--data-dir", "."], "--data spam must be left out where --data-dir is"),
    (["--model", "rnn", "--variant", "rand"], "--variant must be left out for --model rnn"),
    (["--language", "chinese"], "--language must be left out for --data snippets: it is English"),
    (["--data", "chinese", "--language", "x"], "one of english, chinese, chinese_words, got 'x'"),
    (["--data", "chinese", "--language", "english"], "chinese or chinese_words, got 'english'"),
    (["--data", "chinese", "--variant", "static"], "words are known, in chinese, got 'static'"),
    (["--data-dir", "nowhere"], "a corpus must be a folder of text files, got 'nowhere'"),
    (["--min-count", "0"], "argument --min-count: must be a whole number of at least 1, got '0'"),
]


@pytest.mark.parametrize(("flags", "message"), BAD_FLAGS)
def test_a_bad_flag_is_one_line(recipe, tmp_path, flags, message):
    status, report, output = recipe("classify_text", *flags)
    assert (status, report) == (2, None)
    assert message in output.err.splitlines()[-1] and "Traceback" not in output.err
    assert not (tmp_path / "runs").exists()


BAD_TEXTS = [
    ({"a.txt": b"x\ny\n", "b.txt": b""}, [], "b.txt must have a text, got an empty file"),
    ({"a.txt": b"x\ny\n", "b.txt": b"\xff\xfe\n"}, [], "b.txt must be utf-8 text, got the byte"),
    ({"a.txt": b"x\ny\n"}, [], "must have texts of at least two classes, got a"),
    (
        {"texts.txt": b"x\ny\nz\n", "labels.txt": b"1\n2\n"},
        [],
        "labels must be as many as the 3 texts, got 2",
    ),
    ({"a.txt": b"x\n", "b.txt": b"y\n"}, [], "part must have a text, got none: 2 texts"),
    (
        {n: "".join(f"{n[0]}{i}\n" for i in range(20)).encode() for n in ("a.txt", "b.txt")},
        ["--min-count", "2"],
        "the vocabulary must have a word, got none that occurs 2 times in 32 texts",
    ),
]


@pytest.mark.parametrize(("files", "flags", "message"), BAD_TEXTS)
def test_bad_texts_are_one_line(recipe, tmp_path, files, flags, message):
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, data in files.items():
        folder.joinpath(name).write_bytes(data)
    status, report, output = recipe("classify_text", "--data-dir", str(folder), *flags)
    assert (status, report) == (2, None)
    (line,) = [line for line in output.err.splitlines() if line.startswith("tfcourse:")]
    assert message in line and "Traceback" not in output.err
    assert not (tmp_path / "runs").exists()


@pytest.fixture(scope="module")
def bag():
    """A model whose logits are sums of what each of five tokens has for three classes."""
    ids = keras.Input((None,), dtype="int32")
    table = keras.layers.Embedding(6, 3, name="table")
    model = keras.Model(ids, keras.ops.sum(table(ids), axis=1))
    weights = np.random.default_rng(0).normal(size=(6, 3))
    weights[:2] = 0
    table.set_weights([weights])
    return model, weights


def test_effects_are_what_the_answer_loses(bag):
    model, weights = bag
    ids = np.array([[2, 3, 0], [5, 4, 2], [0, 0, 0]])
    found = word_effects(model, ids)
    for text, effects in zip(ids, found, strict=True):
        for place, token in enumerate(text):
            with_it = np.exp(weights[text].sum(axis=0))
            without = with_it / np.exp(weights[token])  # an unknown word adds nothing here
            answer = with_it.argmax()
            odds = [p[answer] / (p.sum() - p[answer]) for p in (with_it, without)]
            np.testing.assert_allclose(effects[place], np.log(odds[0] / odds[1]), atol=1e-5)
    assert (found[ids == 0] == 0).all() and found.dtype == np.float32
    assert word_effects(model, np.zeros((0, 4), int)).shape == (0, 4)
    with pytest.raises(ValueError, match=r"ids must be integers \(rows, length\), got float64 \("):
        word_effects(model, ids / 2)


def test_words_are_drawn_before_their_colours(tmp_path):
    texts = [["good", "film"], ["\u597d\u770b"] * 90, []]
    effects = [np.array([2.0, -1.0]), np.zeros(90), np.array([])]
    plots.word_effects(texts, effects, ["a", "$b$", "c"], tmp_path / "words.png")
    check_pictures(tmp_path, "words.png")
    from PIL import Image

    with Image.open(tmp_path / "words.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    blue = (pixels == [95, 147, 196]).all(axis=1).sum()  # 3 / 4 of the blue on white
    assert blue > 500
    orange = ((pixels[:, 0] > 230) & (pixels[:, 2] < 180)).sum()
    assert orange > 200
    with pytest.raises(ValueError, match=r"got \[2\] tokens, \[1\] effects and 1 titles"):
        plots.word_effects([["a", "b"]], [np.zeros(1)], ["c"], tmp_path / "no.png")
