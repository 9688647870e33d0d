"""Words a second of `fit_word2vec`, against gensim on one thread, and whose neighbours are right.

    PEER_GENSIM=PYTHON python benchmarks/word2vec.py [--quick]

A text of two million words, 20,000 of which differ: a sentence of 20 has a topic, from whose 40
words, the first ones most often, three fifths of its words come, and the others from the words of
all topics. Vectors of 100 numbers, window 5, 5 noise words, nothing left out. The share of each
word's ten nearest that are of its topic is stated for both after the same number of epochs.
gensim, which is compiled code, runs in an environment of its own (`peers/README.md`).
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _measuring import Benchmark

from tfcourse.sequence.word2vec import fit_word2vec

SCRIPT = Path(__file__).parent / "peers" / "gensim_word2vec.py"
PER_TOPIC, LENGTH, EPOCHS = 40, 20, 2


def make_text(words: int, vocabulary: int) -> np.ndarray:
    random = np.random.default_rng(0)
    shares = 1 / np.arange(1, PER_TOPIC + 1) ** 0.8
    topics = random.integers(0, vocabulary // PER_TOPIC, (words // LENGTH, 1))
    rank = random.choice(PER_TOPIC, (len(topics), LENGTH), p=shares / shares.sum())
    other = random.random(rank.shape) < 0.4
    text = np.where(other, random.integers(0, vocabulary, rank.shape), topics * PER_TOPIC + rank)
    return text.astype(np.int32)


def of_the_topic(vectors: np.ndarray) -> float:
    """Return the share of the ten nearest of some words that are of the word's topic."""
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)
    some = np.arange(0, len(vectors), max(1, len(vectors) // 1_000))
    cosines = vectors[some] @ vectors.T
    cosines[np.arange(len(some)), some] = -1
    nearest = np.argsort(-cosines, axis=1)[:, :10]
    return float((nearest // PER_TOPIC == some[:, None] // PER_TOPIC).mean())


class Gensim:
    """gensim in its own process, which waits to be asked."""

    def __init__(self, python: str, kind: str, folder: Path):
        self.vectors = folder / f"{kind}.npy"
        command = [python, str(SCRIPT), kind, str(folder / "text.npy"), str(self.vectors)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError(f"{command} ended with status {self.process.wait()}")

    def seconds(self) -> float:
        self.process.stdin.write(f"{EPOCHS}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def end(self) -> np.ndarray:
        self.process.stdin.close()
        self.process.wait()
        return np.load(self.vectors)


def measure(benchmark: Benchmark, kind: str, text: np.ndarray, folder: Path) -> None:
    vocabulary = int(text.max()) + 1
    found = []

    def ours() -> float:
        start = time.perf_counter()
        found.append(fit_word2vec(text, vocabulary, kind=kind, epochs=EPOCHS, subsample=None))
        return time.perf_counter() - start

    sides = {"ours": ours}
    python = os.environ.get("PEER_GENSIM")
    if python:
        gensim = Gensim(python, kind, folder)
        sides["gensim"] = gensim.seconds
    seconds = benchmark.alternate(sides)
    rate = [EPOCHS * text.size / s / 1000 for s in seconds["ours"]]
    benchmark.value(f"word2vec, {kind}, thousand words a second", rate, "")
    share = of_the_topic(found[-1].vectors)
    benchmark.value(f"word2vec, {kind}, neighbours of the topic, {EPOCHS} epochs", [share], "")
    name = f"word2vec, {kind}, as fast as gensim on one thread"
    if not python:
        benchmark.skip(name, "PEER_GENSIM is not set: see benchmarks/peers/README.md")
        return
    benchmark.ratio(name, seconds["gensim"], seconds["ours"], at_least=0.5)
    epochs = EPOCHS * benchmark.repeats  # gensim goes on from turn to turn
    name = f"word2vec, {kind}, neighbours of the topic, gensim, {epochs} epochs"
    benchmark.value(name, [of_the_topic(gensim.end())], "")


def main() -> int:
    benchmark = Benchmark(__doc__)
    words, vocabulary = (40_000, 400) if benchmark.quick else (2_000_000, 20_000)
    text = make_text(words, vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "text.npy", text)
        for kind in ("skip_gram", "cbow"):
            measure(benchmark, kind, text, Path(folder))
    return benchmark.status()


if __name__ == "__main__":
    sys.exit(main())
