"""Other libraries, each in an environment of its own: how they get the data, and take turns."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from tfcourse.data.features import Category, Feature, History
from tfcourse.data.ratings import load_movielens
from tfcourse.recommendation.clicks import Clicks, load_clicks

SCRIPTS = Path(__file__).parent / "peers"
# The same for every side.
SETTINGS = {
    "batch_size": 256,
    "embedding_dim": 16,
    "hidden_units": [128, 64],  # of DeepFM
    "din_units": [200, 80],
    "attention_units": [80, 40],
    "learning_rate": 1e-3,
    "epochs": 30,
    "patience": 3,
}


def load(ratings: int | None = None) -> Clicks:
    """Return MovieLens-100k, split by time, as the recipe predict_clicks has it.

    Args:
        ratings: How many; by default all.
    """
    return load_clicks(load_movielens().take(slice(ratings)))


def hand_over(clicks: Clicks, path: Path) -> None:
    """Write columns and labels for scripts that know nothing of tfcourse.

    Args:
        clicks: The data.
        path: The `.npz` file.
    """
    arrays = {
        "features": np.array(json.dumps([_plain(f) for f in clicks.features])),
        "settings": np.array(json.dumps(SETTINGS)),
    }
    for name in ("train", "validation", "test"):
        part = getattr(clicks, name)
        for column in (f.name for f in clicks.features):
            arrays[f"{name}.{column}"] = part.columns[column]
        arrays[f"{name}.label"] = part.labels[:, 0]
    np.savez(path, **arrays)


def _plain(feature: Feature) -> list:
    if isinstance(feature, Category):
        return ["category", feature.name, feature.size]
    if isinstance(feature, History):
        return ["history", feature.name, feature.item.name, feature.item.size, feature.length]
    return ["number", feature.name]


def interpreter(name: str) -> str | None:
    """Return the Python of a peer's environment, or `None` where there is none.

    Args:
        name: Of the script `peers/NAME_models.py`; the variable `PEER_NAME` has the path.
    """
    ours = sys.executable if name == "torch" else None  # the extra `bench` has PyTorch
    return os.environ.get(f"PEER_{name.upper()}", ours)


def missing(name: str) -> str:
    """Say what to do about a peer without an environment."""
    return f"PEER_{name.upper()} is not set: see benchmarks/peers/README.md"


class Peer:
    """A peer that stays ready, and trains for one epoch when it is asked to.

    Attributes:
        to_last_step: Seconds of each epoch without what came after its last step.

    Raises:
        RuntimeError: If its script ends.
    """

    def __init__(self, name: str, model: str, data: Path):
        """Start the script, and wait until it has traced or compiled."""
        command = [interpreter(name), str(SCRIPTS / f"{name}_models.py"), model, str(data)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.to_last_step = []
        self._line()

    def seconds(self) -> float:
        """Let it train for an epoch; return how long that took."""
        self.process.stdin.write("epoch\n")
        self.process.stdin.flush()
        whole, to_last_step = map(float, self._line().split())
        self.to_last_step.append(to_last_step)
        return whole

    def close(self) -> None:
        """End the script."""
        self.process.stdin.close()
        self.process.wait()

    def _line(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended with status {self.process.wait()}")
        return line


def best_of(name: str, model: str, data: Path, seed: int) -> dict[str, float]:
    """Let a peer train to its best epoch on validation.

    Returns:
        The AUC of "validation" and "test" at that epoch.

    Raises:
        RuntimeError: If its script fails, with the end of what it said.
    """
    script = SCRIPTS / f"{name}_models.py"
    command = [interpreter(name), str(script), model, str(data), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])
    return json.loads(done.stdout.splitlines()[-1])
