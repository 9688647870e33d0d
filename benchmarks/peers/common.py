"""What the peers share: the clicks that they are given, and the talk with the benchmark.

A peer runs in an environment of its own, where there is no tfcourse: this needs NumPy alone.

    python PEER.py MODEL CLICKS.npz              one epoch for each line on standard input
    python PEER.py MODEL CLICKS.npz --seed 0     to the best epoch on validation, then the test
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

# What a library prints, at import or later, must not come between the numbers: it goes elsewhere.
ANSWERS, sys.stdout = sys.stdout, sys.stderr


class Clicks:
    """Columns and labels of the parts train, validation and test.

    Attributes:
        features: The columns in order: `["number", name]`, `["category", name, size]` or
            `["history", name, item, size, length]`.
        settings: Sizes of the networks, and how they are trained.
        parts: The arrays of each part, by name of the column; `label` is one of them.
    """

    def __init__(self, path: Path):
        """Read what the benchmark wrote."""
        with np.load(path) as file:
            self.features = json.loads(str(file["features"]))
            self.settings = json.loads(str(file["settings"]))
            self.parts: dict[str, dict[str, np.ndarray]] = {}
            for key in file.files:
                part, _, column = key.partition(".")
                if column:
                    self.parts.setdefault(part, {})[column] = file[key]

    def of(self, kind: str) -> list[list]:
        """Return the columns of a kind, without the word for it."""
        return [rest for word, *rest in self.features if word == kind]


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the ROC curve: by the sum of ranks, ties counting half."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    positive = labels > 0.5
    n = positive.sum()
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(labels) - n)))


def best_epoch(epoch: Callable, score: Callable, clicks: Clicks) -> dict[str, float]:
    """Train until the validation part gets worse, and return what the best epoch has.

    Args:
        epoch: Trains once through the training part.
        score: Returns the scores of a part, by its name.
        clicks: The data; `settings` says how many epochs at most, and after how many worse ones
            to stop.
    """
    best = {"validation": -1.0}
    worse = 0
    for number in range(clicks.settings["epochs"]):
        epoch()
        reached = {
            part: auc(clicks.parts[part]["label"], score(part)) for part in ("validation", "test")
        }
        worse = 0 if reached["validation"] > best["validation"] else worse + 1
        if not worse:
            best = {**reached, "epochs": number + 1}
        elif worse == clicks.settings["patience"]:
            break
    return best


def main(build: Callable, models: tuple[str, ...]) -> None:
    """Read the command line, and train as it says.

    Args:
        build: From the model's name, the clicks and a seed to the functions `epoch` and `score`.
            An epoch returns nothing, or at which `time.perf_counter()` its last step was done.
        models: The names that there are.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=models)
    parser.add_argument("clicks", type=Path)
    parser.add_argument("--seed", type=int)
    flags = parser.parse_args()
    clicks = Clicks(flags.clicks)
    epoch, score = build(flags.model, clicks, flags.seed or 0)
    if flags.seed is not None:
        start = time.perf_counter()
        found = best_epoch(epoch, score, clicks)
        print(json.dumps({**found, "seconds": time.perf_counter() - start}), file=ANSWERS)
        return
    epoch()  # traces or compiles; not counted
    print("ready", file=ANSWERS, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        last_step, end = epoch(), time.perf_counter()
        print(end - start, (last_step or end) - start, file=ANSWERS, flush=True)
