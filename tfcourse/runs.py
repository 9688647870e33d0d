"""A run's folder: the flags it was started with, what it found, and whether it is finished.

flags.json     what the run was started with; the same flags continue it
report.json    what it found; written last, so a folder that has it is finished
"""

import argparse
import atexit
import json
import math
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tfcourse.cluster import read_cluster
from tfcourse.data.cache import atomic_file

# Where it runs, and what is only shown of it.
NOT_COMPARED = ("workdir", "fresh", "strategy", "user", "liked", "length")


@dataclass(frozen=True)
class Run:
    """A recipe's run: its flags and its folder.

    Attributes:
        flags: The values of the recipe's flags.
        folder: Where everything is written.
        is_full: Whether the flags are those for which the recipe states an expected result; the
            seed and the devices may differ.
        compared: The flags that have to be the same when the run is continued.
        results: Where the results are written: the folder, but of several workers only for the
            first; the others do the same to a folder that is thrown away.
    """

    flags: argparse.Namespace
    folder: Path
    is_full: bool
    compared: dict[str, object]
    results: Path

    def open(self, inputs: dict[str, str]) -> None:
        """Open the folder: what a recipe does once its data and its model are there.

        Until then nothing is written, and nothing is lost by a wrong flag.

        Args:
            inputs: Digests of what goes into the run, by name: the same flags with other data are
                another run.

        Raises:
            ValueError: If the folder holds a run with other inputs.
        """
        if self.results != self.folder:
            return
        if self.flags.fresh and self.folder.exists():
            shutil.rmtree(self.folder.resolve())
        before = _read(self.folder / "flags.json") or {"inputs": inputs}
        _compare_inputs(self.folder, before["inputs"], inputs)
        write_json(self.folder / "flags.json", {"flags": self.compared, "inputs": inputs})
        print(f"run folder: {self.folder}", flush=True)

    def report(
        self,
        figure: str,
        value: float,
        *,
        expected: float,
        tolerance: float,
        less_is_better: bool = False,
        more: dict[str, object] | None = None,
    ) -> int:
        """Print the figure beside the expected one, write the report, return the exit status.

        Args:
            figure: What was measured, such as "test accuracy".
            value: What came out.
            expected: What the recipe's docstring promises for a full run.
            tolerance: How much worse a full run may be: three standard deviations over seeds.
            less_is_better: Whether the figure is an error.
            more: Other results, for the report.

        Raises:
            ValueError: If the value is not finite; no report is written.
        """
        value = float(value)  # a number of NumPy would not go into JSON
        if not math.isfinite(value):
            raise ValueError(f"{figure} must be a number, got {value}: the run went astray")
        stated = (
            f"expected {expected:.3f}" if self.is_full else "no figure is expected for these flags"
        )
        line = f"{figure} {value:.3f} ({stated})"
        worse = value - expected if less_is_better else expected - value
        failed = self.is_full and worse > tolerance
        report = {"figure": figure, "value": value, "failed": failed, "line": line, **(more or {})}
        write_json(self.results / "report.json", report)
        print(line)
        return _status(report)


def start(parser: argparse.ArgumentParser, name: str) -> Run:
    """Read the flags and look at the run's folder; `Run.open` opens it.

    A folder with an unfinished run of the same flags is continued; a finished one is reported,
    and the program ends; `--fresh` starts over.

    Raises:
        ValueError: If the folder holds something else, or a run with other flags.
    """
    flags = parser.parse_args()
    folder = flags.workdir or Path("runs") / name
    compared = {k: _plain(v) for k, v in vars(flags).items() if k not in NOT_COMPARED}
    defaults = {k: _plain(parser.get_default(k)) for k in compared}
    is_full = all(compared[k] == defaults[k] for k in compared if k != "seed")
    _check(folder)
    before = None if flags.fresh else _read(folder / "flags.json")
    if before is not None:
        _compare(folder, before["flags"], compared)
        if (report := _read(folder / "report.json")) is not None:
            _report_again(folder, report)
    cluster = read_cluster() if flags.strategy == "multi-worker" else None
    results = folder if cluster is None or cluster.index == 0 else _passing_folder()
    return Run(flags, folder, is_full, compared, results)


def check_finished(folder: Path, flags: dict[str, object], inputs: dict[str, str]) -> None:
    """Refuse to ask a finished run about what it has not learned from.

    Args:
        folder: The run's.
        flags: Those that have to be the same, by name.
        inputs: As in `Run.open`.

    Raises:
        ValueError: If the run has other flags or other inputs.
    """
    before = _read(folder / "flags.json") or {"flags": {}, "inputs": {}}
    _compare_inputs(folder, before["inputs"], inputs)
    _compare(folder, before["flags"], flags)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file, all at once."""
    with atomic_file(path) as file:
        file.write_text(
            json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
            encoding="utf-8",
        )


def write_classifier(folder: Path, size: tuple[int, int], class_names: tuple[str, ...]) -> None:
    """Note what `tfcourse predict` has to know of a classifier of images."""
    write_json(folder / "classifier.json", {"image_size": size, "class_names": class_names})


def read_classifier(folder: Path) -> tuple[tuple[int, int], list[str]]:
    """Return the image size and the class names of a finished run.

    Raises:
        FileNotFoundError: If the folder holds no finished run of a classifier of images.
    """
    noted = _read(folder / "classifier.json")
    if noted is None or not (folder / "saved_model").is_dir():
        raise FileNotFoundError(f"{folder} holds no finished run of a classifier of images")
    return tuple(noted["image_size"]), noted["class_names"]


def _passing_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="tfcourse-worker-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


def _check(folder: Path) -> None:
    file = next((p for p in (folder, *folder.parents) if p.is_file()), None)
    if file is not None:
        raise ValueError(f"--workdir must be a folder, got the file {str(file)!r}")
    others = folder.is_dir() and any(not p.name.startswith(".") for p in folder.iterdir())
    if others and not (folder / "flags.json").exists():
        raise ValueError(
            f"--workdir must be new or hold a run, got {str(folder)!r} with other files"
        )


def _read(path: Path) -> dict | None:
    """Return what a JSON file holds, or `None` if there is none."""
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_text("utf-8"))
        if not isinstance(value, dict):
            raise ValueError("no table")
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): --fresh starts the run over") from None
    return value


def _compare(folder: Path, before: dict[str, object], compared: dict[str, object]) -> None:
    changed = [k for k in compared if before.get(k) != compared[k]]
    if changed:
        differ = ", ".join(
            f"{k.replace('_', '-')} {before.get(k)} -> {compared[k]}" for k in changed
        )
        raise ValueError(
            f"{folder} holds a run with other flags ({differ}): --fresh starts over, --workdir "
            "takes another folder"
        )


def _compare_inputs(folder: Path, before: dict[str, str], inputs: dict[str, str]) -> None:
    for name, digest in inputs.items():
        if before.get(name) != digest:
            raise ValueError(
                f"{folder} holds a run with other {name}: --fresh starts over, --workdir takes "
                "another folder"
            )


def _report_again(folder: Path, report: dict) -> None:
    print(f"this run is finished: {folder} (--fresh starts over)\n{report['line']}")
    sys.exit(_status(report))


def _status(report: dict) -> int:
    if report["failed"]:
        print(f"{report['figure']} is below what this recipe promises", file=sys.stderr)
    return int(report["failed"])
