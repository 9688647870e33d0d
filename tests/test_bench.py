"""`tfcourse bench`, and the figures that the benchmarks state."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tfcourse import bench

ROOT = Path(__file__).parent.parent
NAMES = {p.stem for p in (ROOT / "benchmarks").glob("[!_]*.py")}


def tfcourse_bench(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tfcourse", "bench", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Return what writes a benchmark into an empty folder that has the shared module."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "_measuring.py").write_bytes((ROOT / "benchmarks/_measuring.py").read_bytes())
    monkeypatch.setattr(bench, "ROOT", tmp_path)

    def write(name, body):
        lines = ["from _measuring import Benchmark", "import sys", "benchmark = Benchmark('')"]
        text = "\n".join([*lines, body, "sys.exit(benchmark.status())"])
        (folder / f"{name}.py").write_text(text)

    return write


def test_it_lists_each_with_one_line_and_without_tensorflow():
    code = "from tfcourse import bench; import sys; bench.show()"
    code += "; sys.exit('tensorflow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert {line.split()[0] for line in done.stdout.splitlines()} == NAMES
    assert all(len(line.split(maxsplit=1)[1]) > 10 for line in done.stdout.splitlines())
    assert tfcourse_bench().stdout == done.stdout


def test_a_wrong_name_is_one_line():
    done = tfcourse_bench("no_such")
    assert done.returncode == 2
    assert done.stderr.startswith("tfcourse: no benchmark 'no_such'; there are: against_peers, ")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_one_at_its_quick_size_states_a_ratio():
    done = tfcourse_bench("rows", "--quick")
    assert done.returncode == 0, done.stderr
    figure = r"^rows, .*: \d+\.\d\d times \(median of 2 alternations; \d.*-\d.*; at most 1\.1\)$"
    assert re.search(figure, done.stdout, re.MULTILINE), done.stdout
    assert "TensorFlow 2." in done.stdout.splitlines()[0]


def test_the_figure_is_the_median_of_the_turns(program, capfd):
    program("one", "benchmark.ratio('one', [4.0, 9.0, 20.0], [2.0, 3.0, 2.0], at_least=2.5)")
    assert bench.run("one") == 0
    line = "one: 3.00 times (median of 3 alternations; 2.00-10.00; at least 2.5)\n"
    assert line in capfd.readouterr().out


def test_sides_take_turns_and_every_other_turn_goes_backwards(program, capfd):
    body = "sides = {n: lambda n=n: print(n, end=' ') or 1.0 for n in 'abc'}\n"
    program("turns", body + "benchmark.alternate(sides)")
    assert bench.run("turns", ["--repeats", "3"]) == 0
    assert re.findall(r"\b([abc]) (?=[abc] |  )", capfd.readouterr().out) == list("abccbaabc")


@pytest.mark.parametrize("limit", ["at_least=4", "at_most=2"])
def test_a_missed_figure_is_status_1_except_when_quick(program, capfd, limit):
    program("slow", f"benchmark.value('slow', [3.0], 'times', {limit})")
    assert bench.run("slow") == 1
    assert "MISSED" in capfd.readouterr().out
    assert bench.run("slow", ["--quick"]) == 0
    assert "MISSED" not in capfd.readouterr().out


def test_all_of_them_end_in_a_table_even_if_some_fail(program, capfd):
    program("broken", "raise SystemExit(3)")
    program("missed", "benchmark.value('much', [3.0], '%', at_most=2)")
    program("reached", "benchmark.ratio('a|b', [3.0], [1.5], at_least=2)")
    assert bench.run("all") == 3
    lines = capfd.readouterr().out.splitlines()
    start = lines.index("| name | required | measured | date | machine | versions |")
    rows = [line.split(" | ")[:3] for line in lines[start + 2 : start + 4]]
    assert rows == [
        ["| much", "at most 2", "3.00 % (median of 1 alternations; 3.00-3.00)"],
        ["| a\\|b", "at least 2", "2.00 times (median of 1 alternations; 2.00-2.00)"],
    ]
    assert re.search(r" \| \d{4}-\d\d-\d\d \| \d+ cores, .* \| Python 3", lines[start + 2])
    assert lines[-1] == "failed: broken, missed"


def test_a_results_file_is_added_to(program, tmp_path):
    program("one", "benchmark.value('one', [1.0], 's')")
    for _ in range(2):
        bench.run("one", ["--results", str(tmp_path / "figures")])
    figures = [json.loads(line) for line in (tmp_path / "figures").read_text().splitlines()]
    assert [figure["name"] for figure in figures] == ["one", "one"]
    assert figures[0]["required"] == "nothing required"
