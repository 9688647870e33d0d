"""DeepFM and DIN: the AUC of ours, DeepCTR's and RecBole's on the same split of MovieLens-100k.

    PEER_DEEPCTR=PYTHON PEER_RECBOLE=PYTHON python benchmarks/against_peers.py [--quick]

The same columns, tables of 16 columns, batches of 256, Adam with the same rate, hidden layers of
the same sizes, nothing but the library's own defaults besides; each side stops by its own
validation and is tested at its best epoch, for the seeds 0, 1, 2. Ours are trained twice, at that
rate and as predict_clicks does, where it falls to 0 in two epochs; what is better on validation is
tested. RecBole's DIN takes no columns but the item, its genres and the history. Each peer runs in
its own environment (`peers/README.md`).
"""

import statistics
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import keras
from _measuring import Benchmark
from _peers import SETTINGS, best_of, hand_over, interpreter, load, missing
from recommenders import build

from tfcourse import training
from tfcourse.recommendation.click_models import CLICK_MODELS
from tfcourse.recommendation.clicks import Clicks
from tfcourse.recommendation.learning import answers, learn, rows
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


def ours(name: str, clicks: Clicks, seed: int) -> float:
    """Train at a constant rate, and as predict_clicks does; test what validation prefers."""
    found = {}
    for way, train in {"constant": at_a_constant_rate, "falling": as_predict_clicks_does}.items():
        keras.utils.set_random_seed(seed)
        found[way] = train(build(name, clicks.features), clicks, seed)
    said = ", ".join(
        f"{way} rate " + " and ".join(f"{value:.4f}" for value in reached.values())
        for way, reached in found.items()
    )
    print(f"  {name} of ours, seed {seed}, AUC of validation and test: {said}", flush=True)
    return max(found.values(), key=lambda reached: reached["validation"])["test"]


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
    clicks = load(2_500 if benchmark.quick else None)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "clicks.npz"
        hand_over(clicks, file)
        for name, peers in PEERS.items():
            compare(benchmark, name, peers, clicks, file)
    return benchmark.status()


def compare(benchmark: Benchmark, name: str, peers, clicks: Clicks, file: Path) -> None:
    reached = {"ours": []}
    for peer, model in peers:
        if interpreter(peer) is None:
            benchmark.skip(f"{name}, AUC against {peer}'s {model}", missing(peer))
        else:
            reached[f"{peer}'s {model}"] = []
    for seed in range(benchmark.repeats):
        for side, values in reached.items():
            if side == "ours":
                values.append(ours(name, clicks, seed))
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
