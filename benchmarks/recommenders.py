"""DeepFM and DIN: an epoch of `training.fit` against DeepCTR's `fit` and a PyTorch loop by hand.

    PEER_DEEPCTR=PYTHON python benchmarks/recommenders.py [--quick]

The 80,000 training events of MovieLens-100k with the columns of predict_clicks, in batches of 256,
tables of 16 columns, Adam; arrays in memory on all sides. DeepCTR runs in its own environment
(`peers/README.md`), with the layers and sizes that it has for these models; the PyTorch networks
are ours written down plainly. Tracing and compiling are not counted; as an epoch of ours is short,
it is the mean of three. Of DeepCTR's `fit` there are two figures: whole, and without its wait for
tf.data after the last step. What is required holds for the whole, and for `jit_compile=True`.
"""

import functools
import sys
import tempfile
from pathlib import Path

import keras
from _measuring import Benchmark
from _peers import SETTINGS, Peer, hand_over, interpreter, load, missing
from _shared import epoch_seconds

from tfcourse import recommendation, training
from tfcourse.data.in_memory import InMemory

# What the peers' models are called in their scripts, and how many times as fast ours must be.
REQUIRED = {
    "deepfm": {("deepctr", "deepfm"): 3, ("torch", "deepfm"): 2},
    "din": {("deepctr", "din_as_it_comes"): 4, ("deepctr", "din"): None, ("torch", "din"): 1.5},
}


def build(name: str, features) -> keras.Model:
    if name == "deepfm":
        hidden = tuple(SETTINGS["hidden_units"])
        model = recommendation.build_deepfm(features, hidden_units=hidden)
    else:
        model = recommendation.build_din(
            features,
            hidden_units=tuple(SETTINGS["din_units"]),
            attention_units=tuple(SETTINGS["attention_units"]),
        )
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(SETTINGS["learning_rate"]), loss)
    return model


def ours(name: str, features, data: InMemory, jit_compile: bool):
    fit = functools.partial(training.fit, build(name, features), data, jit_compile=jit_compile)
    return lambda: epoch_seconds(fit, 3)


def main() -> int:
    benchmark = Benchmark(__doc__)
    clicks = load(2_500 if benchmark.quick else None)
    columns = {f.name: clicks.train.columns[f.name] for f in clicks.features}
    data = InMemory(columns, clicks.train.labels, SETTINGS["batch_size"])
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "clicks.npz"
        hand_over(clicks, file)
        for name in REQUIRED:
            compare(benchmark, name, clicks.features, data, file)
    return benchmark.status()


def compare(benchmark: Benchmark, name: str, features, data: InMemory, file: Path) -> None:
    sides = {
        "with XLA": ours(name, features, data, True),
        "training.fit": ours(name, features, data, False),
    }
    peers = {}
    for (peer, model), at_least in REQUIRED[name].items():
        line = f"{name}, with XLA, as fast as {peer}'s {model}"
        try:
            if interpreter(peer) is None:
                raise RuntimeError(missing(peer))
            peers[line] = Peer(peer, model, file), at_least
        except RuntimeError as error:
            benchmark.skip(line, str(error))
            continue
        sides[line] = peers[line][0].seconds
    seconds = benchmark.alternate(sides)
    for line, (peer, at_least) in peers.items():
        peer.close()
        benchmark.ratio(line, seconds[line], seconds["with XLA"], at_least=at_least)
        if peer.to_last_step != seconds[line]:
            steps = f"{line}, to its last step"
            benchmark.ratio(steps, peer.to_last_step, seconds["with XLA"])
        benchmark.ratio(line.replace("with", "without"), seconds[line], seconds["training.fit"])


if __name__ == "__main__":
    sys.exit(main())
