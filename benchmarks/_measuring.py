"""What all benchmarks share: flags, sides that alternate, and the line that states a figure.

This module imports no TensorFlow: a benchmark may measure other processes.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Callable
from pathlib import Path

PACKAGES = {"tensorflow": "TensorFlow", "keras": "Keras", "numpy": "NumPy", "torch": "PyTorch"}


class Benchmark:
    """A program that measures figures, states each in a line, and fails if one is missed.

    Attributes:
        quick: Whether sizes are to be tiny: a try whose figures are held against nothing.
        repeats: How often the sides take turns.
    """

    def __init__(self, doc: str, repeats: int = 5):
        """Read the command line.

        Args:
            doc: The program's docstring.
            repeats: How often the sides take turns, unless the command line says otherwise.
        """
        parser = argparse.ArgumentParser(
            description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument("--quick", action="store_true", help="tiny sizes, two repeats")
        parser.add_argument("--repeats", type=int, help=f"default {repeats}")
        parser.add_argument("--results", type=Path, help="file to add each figure to, as JSON")
        flags = parser.parse_args()
        self.quick, self.results = flags.quick, flags.results
        self.repeats = max(1, flags.repeats or (2 if flags.quick else repeats))
        self.missed = []
        about = machine()
        print(f"{about['date']}; {about['machine']}; {about['versions']}", flush=True)
        if self.quick:
            print("quick: the sizes are too small for the figures to mean much", flush=True)

    def alternate(self, sides: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
        """Let sides take turns, and return what each measured every time.

        Every other turn goes backwards, so that none always comes after the same other one.

        Args:
            sides: Functions that do the work and return its seconds, by name.
        """
        seconds = {name: [] for name in sides}
        for turn in range(self.repeats):
            for name in list(sides)[:: -1 if turn % 2 else 1]:
                seconds[name].append(sides[name]())
            last = ", ".join(f"{name} {values[-1]:.4g} s" for name, values in seconds.items())
            print(f"  {turn + 1}/{self.repeats}: {last}", flush=True)
        return seconds

    def ratio(
        self,
        name: str,
        above: list[float],
        below: list[float],
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> float:
        """State how many times `below` goes into `above`, turn by turn, as `value` does."""
        ratios = [a / b for a, b in zip(above, below, strict=True)]
        return self.value(name, ratios, "times", at_least=at_least, at_most=at_most)

    def value(
        self,
        name: str,
        values: list[float],
        unit: str,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> float:
        """State a figure: the median of the turns, the least and the greatest.

        Args:
            name: What was measured.
            values: One for each turn.
            unit: Of the values.
            at_least: What the median must reach, if anything.
            at_most: What it must not exceed, if anything.

        Returns:
            The median.
        """
        middle = statistics.median(values)
        required = "nothing required"
        if at_least is not None:
            required = f"at least {at_least:g}"
        elif at_most is not None:
            required = f"at most {at_most:g}"
        below = at_least is not None and middle < at_least
        above = at_most is not None and middle > at_most
        missed = (below or above) and not self.quick
        measured = f"{middle:.2f} {unit}"
        spread = f"median of {len(values)} alternations; {min(values):.2f}-{max(values):.2f}"
        print(f"{name}: {measured} ({spread}; {required}){' MISSED' * missed}", flush=True)
        if missed:
            self.missed.append(name)
        if self.results:
            figure = {"name": name, "required": required, "measured": f"{measured} ({spread})"}
            with open(self.results, "a", encoding="utf-8") as file:
                file.write(json.dumps(figure | machine()) + "\n")
        return middle

    def skip(self, name: str, reason: str) -> None:
        """Say that a figure is left out, and why."""
        print(f"{name}: skipped, {reason}", flush=True)

    def status(self) -> int:
        """Return the exit status: 1 if a figure was missed."""
        return int(bool(self.missed))


def machine() -> dict[str, str]:
    """Return the date, what the machine is, and the versions of what is measured."""
    packages = {title: _version(name) for name, title in PACKAGES.items()}
    versions = [f"{title} {version}" for title, version in packages.items() if version]
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{len(cores())} cores, {_processor()}",
        "versions": ", ".join([f"Python {platform.python_version()}", *versions]),
    }


def cores() -> list[int]:
    """Return the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
