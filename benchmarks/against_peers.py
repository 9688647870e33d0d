"""DeepFM and DIN: the AUC of ours, DeepCTR's and RecBole's on the same splits of MovieLens-100k.

    PEER_DEEPCTR=PYTHON PEER_RECBOLE=PYTHON python benchmarks/against_peers.py [--quick]

The same columns, tables of 16 columns, batches of 256, Adam with the same rate, hidden layers of
the same sizes, nothing but the library's own defaults besides; each side stops by its own
validation and is tested at its best epoch, for the seeds 0, 1, 2. Ours are trained twice, at that
rate and as predict_clicks does, where it falls to 0 in two epochs; what is better on validation is
tested. RecBole's DIN takes no columns but the item, its genres and the history of both; beside ours
of all columns stands ours of these alone, of which nothing is required. Each peer runs in its own
environment (`peers/README.md`).

The split of predict_clicks tests 10,000 events: there a library may be a thousandth ahead by chance
alone. So the first 60,000, 70,000, 80,000 and 90,000 ratings are split in the same way, too, but
for RecBole, which takes minutes for a seed. `--repeats` is the number of seeds.
"""

import statistics
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
from _measuring import Benchmark
from _peers import SETTINGS, best_of, hand_over, interpreter, load, missing
from recommenders import build

from tfcourse import training
from tfcourse.data.features import Feature, History
from tfcourse.recommendation.click_models import CLICK_MODELS
from tfcourse.recommendation.clicks import Clicks
from tfcourse.recommendation.learning import answers, learn, rows
from tfcourse.recommendation.metrics import auc

# Each peer's models for one of ours.
PEERS = {
    "deepfm": (("deepctr", "deepfm"), ("recbole", "deepfm")),
    "din": (("deepctr", "din"), ("deepctr", "din_as_it_comes"), ("recbole", "din")),
}
FEW = "ours of its columns"  # those that RecBole's DIN takes
ONCE = ("recbole's deepfm", "recbole's din", FEW)  # on all ratings alone
FACTS = ("genre1", "genre2", "genre3")
CUTS = (100_000, 60_000, 70_000, 80_000, 90_000)  # how many ratings; the first are all of them


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


def ours(name: str, clicks: Clicks, seed: int, side: str) -> float:
    """Train at a constant rate, and as predict_clicks does; test what validation prefers."""
    found, features = {}, few(clicks) if side == FEW else clicks.features
    for way, train in {"constant": at_a_constant_rate, "falling": as_predict_clicks_does}.items():
        keras.utils.set_random_seed(seed)
        found[way] = train(build(name, features), clicks, seed)
    said = ", ".join(
        f"{way} rate " + " and ".join(f"{value:.4f}" for value in reached.values())
        for way, reached in found.items()
    )
    print(f"  {name}, {side}, seed {seed}, AUC of validation and test: {said}", flush=True)
    return max(found.values(), key=lambda reached: reached["validation"])["test"]


def few(clicks: Clicks) -> list[Feature]:
    """Return the item, its genres and the history of all four; put the latter into the parts."""
    columns = {feature.name: feature for feature in clicks.features}
    item, seen = columns["item"], columns["seen"]
    parts, found = (clicks.train, clicks.validation, clicks.test), [item, seen]
    for fact in FACTS:
        of_item = np.zeros(item.size, "int32")
        for part in parts:
            of_item[part.columns["item"]] = part.columns[fact]
        of_item[0] = 0
        for part in parts:
            part.columns[f"seen_{fact}"] = of_item[part.columns["seen"]]
        found += [columns[fact], History(f"seen_{fact}", columns[fact], seen.length)]
    return found


def at_a_constant_rate(model: keras.Model, clicks: Clicks, seed: int) -> dict[str, float]:
    best = Best({part: rows(model, getattr(clicks, part), 4096) for part in ("validation", "test")})
    data = rows(model, clicks.train, SETTINGS["batch_size"], seed=seed)
    training.fit(model, data, SETTINGS["epochs"], callbacks=[best], jit_compile=True)
    return best.found


def as_predict_clicks_does(model: keras.Model, clicks: Clicks, seed: int) -> dict[str, float]:
    flags = SimpleNamespace(**SETTINGS)
    learn(model, clicks, flags, epochs=CLICK_MODELS[model.name].epochs, seed=seed)
    parts = {"validation": clicks.validation, "test": clicks.test}
    return {name: part.judge(answers(model, part))["auc"] for name, part in parts.items()}


def main() -> int:
    benchmark = Benchmark(__doc__, repeats=3)
    for name, peers in PEERS.items():
        compare(benchmark, name, peers, (2_500, 2_000) if benchmark.quick else CUTS)
    return benchmark.status()


def compare(benchmark: Benchmark, name: str, peers, cuts: tuple[int, ...]) -> None:
    reached = {"ours": []}  # by side: the AUC of each seed, for each cut
    for peer, model in peers:
        if interpreter(peer) is None:
            benchmark.skip(f"{name}, AUC against {peer}'s {model}", missing(peer))
        else:
            reached[f"{peer}'s {model}"] = []
    if "recbole's din" in reached:
        reached[FEW] = []
    for cut in cuts:
        sides = [s for s in reached if cut == cuts[0] or s not in ONCE]
        for side, values in on_cut(name, cut, sides, benchmark.repeats).items():
            reached[side].append(values)
    for side, values in reached.items():
        spread = statistics.stdev(values[0]) if len(values[0]) > 1 else 0.0
        print(f"{name}, test AUC of {side}: {statistics.mean(values[0]):.4f} +- {spread:.4f}")
    judge(benchmark, name, reached, f"on all {cuts[0]:,} ratings")


def judge(benchmark: Benchmark, name: str, reached: dict, on_all: str) -> None:
    """Hold ours against each peer, on all ratings and over the cuts that it was trained on."""
    for side, values in reached.items():
        if side.startswith("ours"):
            continue
        above = [
            1000 * (statistics.mean(a) - statistics.mean(b))
            for a, b in zip(reached["ours"], values, strict=False)
        ]
        for many in sorted({1, len(above)}):
            where = on_all if many == 1 else f"over {many} cuts"
            line = f"{name}, mean test AUC of ours {where} above that of {side}"
            benchmark.value(line, [statistics.mean(above[:many])], "thousandths", at_least=0)


def on_cut(name: str, cut: int, sides: list[str], seeds: int) -> dict[str, list[float]]:
    """Return the test AUC of each seed, by side, on the first ratings alone."""
    reached = {side: [] for side in sides}
    clicks = load(cut)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "clicks.npz"
        hand_over(clicks, file)
        for seed in range(seeds):
            for side, values in reached.items():
                if side.startswith("ours"):
                    values.append(ours(name, clicks, seed, side))
                else:
                    values.append(best_of(*side.split("'s "), file, seed)["test"])
            scores = ", ".join(f"{side} {values[-1]:.4f}" for side, values in reached.items())
            print(f"  {name}, {cut:,} ratings, seed {seed}: {scores}", flush=True)
    return reached


if __name__ == "__main__":
    sys.exit(main())
