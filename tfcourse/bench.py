"""`tfcourse bench`: the programs of `benchmarks`, each in a process of its own.

This module imports no TensorFlow: the benchmarks do that themselves.
"""

import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import tfcourse

ROOT = Path(tfcourse.__file__).parent.parent
COLUMNS = ("name", "required", "measured", "date", "machine", "versions")


def benchmarks() -> dict[str, Path]:
    """Return the benchmarks by name: those of the checkout, or those that the wheel installed."""
    installed = ROOT / "tfcourse_benchmarks"
    folder = installed if installed.is_dir() else ROOT / "benchmarks"
    return {path.stem: path for path in sorted(folder.glob("[!_]*.py"))}


def show() -> None:
    """Print what there is, one line each."""
    for name, path in benchmarks().items():
        summary = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").splitlines()
        print(f"{name:24} {summary[0] if summary else ''}")


def run(name: str, flags: Sequence[str] = ()) -> int:
    """Run one benchmark, or all of them and print a table in Markdown at the end.

    Args:
        name: Of a benchmark, or `all`.
        flags: Passed on to each.

    Returns:
        The exit status: that of the first one that failed, or 0.

    Raises:
        ValueError: If there is no such benchmark.
    """
    there_are = benchmarks()
    if name == "all":
        return _run_all(list(there_are.values()), flags)
    if name not in there_are:
        raise ValueError(f"no benchmark {name!r}; there are: {', '.join(there_are)} and all")
    return _start(there_are[name], flags)


def table(figures: Sequence[dict[str, str]]) -> str:
    """Return a table in Markdown, one row for each figure."""
    rows = [COLUMNS, ["---"] * len(COLUMNS)]
    rows += [[figure[column].replace("|", "\\|") for column in COLUMNS] for figure in figures]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _run_all(paths: Sequence[Path], flags: Sequence[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "figures.jsonl"
        statuses = []
        for path in paths:
            print(f"\n{path.stem}", flush=True)
            statuses.append(_start(path, [*flags, "--results", str(results)]))
        lines = results.read_text("utf-8").splitlines() if results.exists() else []
    print("\n" + table([json.loads(line) for line in lines]))
    if failed := [path.stem for path, status in zip(paths, statuses, strict=True) if status]:
        print(f"\nfailed: {', '.join(failed)}")
    return next(filter(None, statuses), 0)


def _start(path: Path, flags: Sequence[str]) -> int:
    search = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3"} | os.environ
    environment |= {"PYTHONPATH": os.pathsep.join(search)}
    return subprocess.run([sys.executable, path, *flags], env=environment, check=False).returncode
