"""DeepFM and DIN: the AUC of ours, DeepCTR's and RecBole's on the same split of MovieLens-100k.

    PEER_DEEPCTR=PYTHON PEER_RECBOLE=PYTHON python benchmarks/against_peers.py [--quick]

The same columns, tables of 16 columns, batches of 256, Adam with the same rate, hidden layers of
the same sizes, nothing but the library's own defaults besides; each side stops by its own
validation and is tested at its best epoch, for the seeds 0, 1, 2. RecBole's DIN takes no columns
but the item, its genres and the history. Each peer runs in its own environment
(`peers/README.md`).
"""

import statistics
import sys
import tempfile
from pathlib import Path

import keras
from _measuring import Benchmark
from _peers import SETTINGS, best_of, hand_over, interpreter, load, missing
from recommenders import build

from tfcourse import training
from tfcourse.data.in_memory import InMemory
from tfcourse.recommendation.metrics import auc

# Each peer's models for one of ours.
PEERS = {
    "deepfm": (("deepctr", "deepfm"), ("recbole", "deepfm")),
    "din": (("deepctr", "din"), ("deepctr", "din_as_it_comes"), ("recbole", "din")),
}


class Best(keras.callbacks.Callback):
    """Keeps the test scores of the epoch that is best on validation; stops when it gets worse."""

    def __init__(self, parts):
        super().__init__()
        self.parts = parts
        self.found, self.worse = {"validation": -1.0}, 0

    def on_epoch_end(self, epoch, logs=None):
        reached = {}
        for name, data in self.parts.items():
            logits = training.predict(self.model, data)
            reached[name] = auc(data.arrays[1].ravel(), logits.ravel())
        if reached["validation"] > self.found["validation"]:
            self.found, self.worse = reached, 0
            return
        self.worse += 1
        self.model.stop_training = self.worse == SETTINGS["patience"]


def ours(name, clicks, rows, seed):
    keras.utils.set_random_seed(seed)

    def data(part, shuffle):
        columns = {f.name: part.columns[f.name][:rows] for f in clicks.features}
        size = SETTINGS["batch_size"] if shuffle else 4096
        return InMemory(columns, part.labels[:rows], size, shuffle=shuffle, seed=seed)

    rows_of = {part: data(getattr(clicks, part), False) for part in ("validation", "test")}
    best = Best(rows_of)
    training.fit(
        build(name, clicks.features),
        data(clicks.train, True),
        SETTINGS["epochs"],
        callbacks=[best],
        jit_compile=True,
    )
    return best.found


def main() -> int:
    benchmark = Benchmark(__doc__, repeats=3)
    clicks = load()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "clicks.npz"
        rows = 2_000 if benchmark.quick else None
        hand_over(clicks, file, rows=rows)
        for name, peers in PEERS.items():
            compare(benchmark, name, peers, clicks, file, rows=rows)
    return benchmark.status()


def compare(benchmark: Benchmark, name: str, peers, clicks, file: Path, *, rows) -> None:
    reached = {"ours": []}
    for peer, model in peers:
        if interpreter(peer) is None:
            benchmark.skip(f"{name}, AUC against {peer}'s {model}", missing(peer))
        else:
            reached[f"{peer}'s {model}"] = []
    for seed in range(benchmark.repeats):
        for side, values in reached.items():
            if side == "ours":
                values.append(ours(name, clicks, rows, seed)["test"])
            else:
                values.append(best_of(*side.split("'s "), file, seed)["test"])
        scores = ", ".join(f"{side} {values[-1]:.4f}" for side, values in reached.items())
        print(f"  {name}, seed {seed}: {scores}", flush=True)
    for side, values in reached.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{name}, test AUC of {side}: {statistics.mean(values):.4f} +- {spread:.4f}")
        if side != "ours":
            more = 1000 * (statistics.mean(reached["ours"]) - statistics.mean(values))
            line = f"{name}, mean test AUC above that of {side}"
            benchmark.value(line, [more], "thousandths", at_least=0)


if __name__ == "__main__":
    sys.exit(main())
