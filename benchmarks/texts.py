"""TextCNN and GRU: texts a second of `training.fit`, against `Model.fit` and against each other.

    python benchmarks/texts.py [--quick]

Batches of 50 texts of 20, 50 and 200 tokens, padding included, from a vocabulary of 20,000; two
classes. TextCNN has the paper's 300 features, the GRU a state of 300 numbers, and, with nothing
required, of 128. Vectors have 50 numbers as the smallest of GloVe, once more 300 as in the paper.
`Model.fit` has plain Keras layers: Embedding, Conv1D, GlobalMaxPooling1D, Dropout, GRU, Dense; all
have `LazyAdam`. A GRU of ours counts with XLA or without, whichever is faster. Tracing and
compiling do not count.

A forward pass multiplies and adds for each token, with vectors of n numbers and a state of u,
(3 + 4 + 5) 100 n times in the TextCNN and 3 u (n + u) times in the GRU, one token after the other:
60,000 against 315,000 for n = 50 and u = 300, 360,000 against 540,000 for n = 300, and 60,000
against 68,000 for n = 50 and u = 128: there only the GRU's waiting is left to be gained.
"""

import functools
import sys
from collections.abc import Callable

import keras
import numpy as np
from _measuring import Benchmark
from _shared import epoch_seconds
from keras import layers

from tfcourse import training
from tfcourse.data.in_memory import InMemory
from tfcourse.sequence import build_rnn, build_textcnn

VOCABULARY, BATCH_SIZE, UNITS = 20_000, 50, 300
SIZES = ((20, 50), (50, 50), (200, 50), (50, 300))  # tokens, and numbers of a vector


def make_texts(rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ids that are as frequent as words are, and labels at random."""
    random = np.random.default_rng(0)
    shares = 1 / np.arange(1, VOCABULARY)
    ids = random.choice(VOCABULARY - 1, (rows, length), p=shares / shares.sum()) + 1
    lengths = random.integers(length // 2, length + 1, (rows, 1))
    ids = np.where(np.arange(length) < lengths, ids, 0).astype("int32")
    return ids, random.integers(0, 2, rows)


def keras_textcnn(embedding_dim: int) -> keras.Model:
    ids = keras.Input((None,), dtype="int32")
    words = layers.Embedding(VOCABULARY, embedding_dim)(ids)
    windows = [layers.Conv1D(100, size, padding="same", activation="relu") for size in (3, 4, 5)]
    x = layers.Concatenate()([layers.GlobalMaxPooling1D()(layer(words)) for layer in windows])
    x = layers.Dropout(0.5)(x)
    return keras.Model(ids, layers.Dense(2, kernel_constraint=keras.constraints.MaxNorm(3))(x))


def keras_gru(embedding_dim: int) -> keras.Model:
    ids = keras.Input((None,), dtype="int32")
    x = layers.Embedding(VOCABULARY, embedding_dim, mask_zero=True)(ids)
    return keras.Model(ids, layers.Dense(2)(layers.GRU(UNITS)(x)))


def textcnn(embedding_dim: int) -> keras.Model:
    return build_textcnn("rand", VOCABULARY, 2, embedding_dim=embedding_dim)


def gru(embedding_dim: int, units: int = UNITS) -> keras.Model:
    return build_rnn("gru", VOCABULARY, 2, embedding_dim=embedding_dim, units=units)


def compiled(model: keras.Model) -> keras.Model:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(training.LazyAdam(1e-3), loss)
    return model


def ours(model: keras.Model, x, y, jit_compile: bool = False) -> Callable[[], float]:
    data = InMemory(x, y, BATCH_SIZE)
    fit = functools.partial(training.fit, compiled(model), data, jit_compile=jit_compile)
    return lambda: epoch_seconds(fit)


def theirs(model: keras.Model, x, y) -> Callable[[], float]:
    fit = functools.partial(compiled(model).fit, x, y, batch_size=BATCH_SIZE, verbose=0)
    return lambda: epoch_seconds(fit)


def compare(benchmark: Benchmark, length: int, embedding_dim: int) -> None:
    rows = 100 if benchmark.quick else 40_000 // length
    x, y = make_texts(rows, length)
    small = functools.partial(gru, units=128)
    seconds = benchmark.alternate(
        {
            "TextCNN": ours(textcnn(embedding_dim), x, y),
            "TextCNN, Model.fit": theirs(keras_textcnn(embedding_dim), x, y),
            "GRU": ours(gru(embedding_dim), x, y),
            "GRU, XLA": ours(gru(embedding_dim), x, y, jit_compile=True),
            "GRU, Model.fit": theirs(keras_gru(embedding_dim), x, y),
            "GRU-128": ours(small(embedding_dim), x, y),
            "GRU-128, XLA": ours(small(embedding_dim), x, y, jit_compile=True),
        }
    )
    sizes = f"{length} tokens, vectors of {embedding_dim}"
    cnn, best = seconds["TextCNN"], faster(seconds, "GRU")
    for name, times in (("TextCNN", cnn), ("GRU", best)):
        benchmark.value(f"{name}, {sizes}, texts a second", [rows / s for s in times], "")
        line = f"{name}, {sizes}, as fast as Model.fit"
        benchmark.ratio(line, seconds[f"{name}, Model.fit"], times, at_least=1)
    # Of vectors of 300 the paper's filters multiply nearly as much as the GRU does.
    at_least = 3 if embedding_dim == 50 else None
    benchmark.ratio(f"TextCNN, {sizes}, as fast as a GRU of {UNITS}", best, cnn, at_least=at_least)
    best = faster(seconds, "GRU-128")
    benchmark.ratio(f"TextCNN, {sizes}, as fast as a GRU of 128", best, cnn)


def faster(seconds: dict[str, list[float]], name: str) -> list[float]:
    """Return the seconds of the way that took less in most turns."""
    return min(seconds[name], seconds[f"{name}, XLA"], key=np.median)


def main() -> int:
    benchmark = Benchmark(__doc__, repeats=3)
    for length, embedding_dim in SIZES[:1] if benchmark.quick else SIZES:
        compare(benchmark, length, embedding_dim)
    return benchmark.status()


if __name__ == "__main__":
    sys.exit(main())
