"""The recipe translate at smoke size, what it leaves, its picture, and what it refuses."""

import keras
import numpy as np
import pytest
from PIL import Image
from sharing import check_pictures, or_skip

from tfcourse import plots
from tfcourse.data.text import TextVocabulary
from tfcourse.data.verses import load_verses
from tfcourse.sequence import beam_search


@pytest.fixture
def translate(recipe):
    return lambda *flags: recipe("translate", *flags)


@pytest.fixture(scope="module")
def verses():
    or_skip(load_verses)


# Keras 3 hands its variables to `np.array`, which NumPy 2 warns about.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
@pytest.mark.slow
def test_numbers(translate, tmp_path):
    status, report, output = translate("--smoke", "--epochs", "12", "--learning-rate", "0.01")
    assert status == 0
    lines = output.out.splitlines()
    assert lines[-1] == report["line"]
    assert "share right of generated numbers and dates" in report["line"]
    assert "(no figure is expected for these flags)" in report["line"]
    # No number is there twice.
    assert report["nearest"] == 0
    assert report["test pairs"] == 25
    folder = tmp_path / "runs/translate"
    check_pictures(folder, "attention.png", "curves.png")
    names, *rows = (
        line.split("\t") for line in (folder / "translations.tsv").read_text("utf-8").splitlines()
    )
    assert names == ["source", "reference", "ours", "nearest"]
    assert len(rows) == 25
    assert report["value"] == np.mean([row[1] == row[2] for row in rows])
    # As the docstring says how to use it: from raw texts the model gives the same.
    source, target = (TextVocabulary.load(folder / f"{side}.json") for side in ("source", "target"))
    model = keras.saving.load_model(folder / "model.keras")
    ids = source.encode([row[0] for row in rows], 20)
    how = {"length": 13, "length_penalty": 1.7, "never": (1,)}
    written = target.decode(beam_search(model, ids, **how)[0][:, 0])
    assert ["".join(tokens) for tokens in written] == [row[2] for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["luong", "bahdanau", "none"])
def test_every_model(model, translate, tmp_path):
    status, report, _ = translate("--smoke", "--epochs", "2", "--model", model)
    assert status == 0
    assert report["parameters"] > 10_000
    assert (tmp_path / "runs/translate/model.keras").exists()


@pytest.mark.slow
@pytest.mark.parametrize("pair", ["chinese", "french"])
def test_verses(pair, translate, verses):
    pytest.importorskip("sacrebleu", reason="it is sacrebleu that BLEU is of")
    status, report, output = translate("--smoke", "--epochs", "2", "--pair", pair)
    assert status == 0
    assert output.out.splitlines()[-1] == report["line"]
    assert report["line"].startswith("test BLEU ")
    assert 0 <= report["value"] < 100
    assert 0 < report["nearest"] < 100


def own_file(tmp_path, count=60):
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    rng = np.random.default_rng(0)
    rows = {tuple(rng.choice(words, rng.integers(2, 6))) for _ in range(count)}
    lines = [f"{' '.join(row)}\tl'{' '.join(reversed(row))}\tsomebody\n" for row in sorted(rows)]
    lines.append(f"{'long ' * 30}\tlong\n")
    (tmp_path / "own.txt").write_text("".join(lines), "utf-8")
    return len(lines)


def test_own_pairs(translate, tmp_path):
    pytest.importorskip("sacrebleu", reason="it is sacrebleu that BLEU is of")
    count = own_file(tmp_path)
    flags = ["--pair", "french", "--data-dir", "own.txt", "--epochs", "2", "--model", "none"]
    status, report, output = translate(*flags)
    assert status == 0
    assert f"1 of {count} pairs are longer than --max-tokens" in output.out
    # BLEU of the nearest pairs, as sacrebleu counts it in the file that is left.
    import sacrebleu

    text = (tmp_path / "runs/translate/translations.tsv").read_text("utf-8")
    _, truth, ours, nearest = zip(*(row.split("\t") for row in text.splitlines()[1:]), strict=True)
    assert all(line.startswith("l'") for line in truth)
    for value, lines in ((report["value"], ours), (report["nearest"], nearest)):
        assert value == sacrebleu.corpus_bleu(list(lines), [list(truth)], force=True).score


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "own.txt must have a text, got an empty file"),
        ("one\n", "own.txt must have a source, a tab and a target in each line, got 'one' in line"),
        ("one\tun\n", "pairs must be enough for three parts, got [1, 0, 0] of 1 pairs"),
        (f"{'one ' * 29}\tun\n", "pairs must be enough for three parts, got [0, 0, 0] of 0 pairs"),
        ("\udcff\tun\n", "own.txt must be utf-8 text, got the byte 0xff at position 0"),
    ],
)
def test_bad_files_are_one_line(text, message, translate, tmp_path):
    pytest.importorskip("sacrebleu", reason="without it another line is said")
    (tmp_path / "own.txt").write_bytes(text.encode("utf-8", "surrogateescape"))
    status, _, output = translate("--pair", "french", "--data-dir", "own.txt")
    assert status == 2
    assert message in output.err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--pair", "latin"], "argument --pair: invalid choice: 'latin'"),
        (["--model", "rnn"], "argument --model: invalid choice: 'rnn'"),
        (["--beam-width", "0"], "argument --beam-width: must be a whole number of at least 1"),
        (["--data-dir", "own.txt"], "--data-dir needs --pair chinese or french"),
        (["--pair", "french", "--data-dir", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_bad_flags_are_one_line(flags, message, translate, tmp_path):
    status, _, output = translate(*flags)
    assert status == 2
    assert message in output.err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


def test_without_sacrebleu_it_is_said_what_is_missing(translate, tmp_path, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    hidden = lambda name, *rest: None if name == "sacrebleu" else find(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", hidden)
    status, _, output = translate("--pair", "chinese")
    assert status == 2
    assert output.err.splitlines()[-1] == (
        "tfcourse: translate needs sacrebleu: pip install 'tfcourse[recipes]'"
    )
    assert not (tmp_path / "runs").exists()


def test_map_of_attention(tmp_path):
    weights = [np.eye(3, 4), np.full((1, 2), 0.5)]
    path = tmp_path / "map.png"
    read, written = [list("abcd"), list("ef")], [["\u4e00", "x", "$y$"], ["z"]]
    plots.alignment_maps(weights, read, written, path, title="Two sentences")
    with Image.open(path) as file:
        pixels = np.asarray(file.convert("RGB")).astype(int)
    blue = pixels[..., 2] - pixels[..., 0] > 40
    # The squares that are looked at, and the scale beside the maps.
    assert 0.01 < blue.mean() < 0.3
    with pytest.raises(ValueError, match=r"^weights must have the shapes .* = \[\(1, 4\)\], at l"):
        plots.alignment_maps([np.eye(3, 4)], [list("abcd")], [["x"]], path)
    with pytest.raises(ValueError, match="at least one and none empty, got"):
        plots.alignment_maps([], [], [], path)


@pytest.mark.slow
def test_the_full_recipe_keeps_its_promise(translate):
    status, report, output = translate()
    assert status == 0, output.err
    assert not report["failed"]
    assert "(expected " in report["line"]
