"""An epoch of the NumPy network on 4,000 digits, against scikit-learn's MLPClassifier.

    python benchmarks/numpy_mlp.py [--quick]

The same network (784, 256, 10, ReLU), Adam, batches of 50 rows in random order, 64-bit numbers:
both multiply matrices with NumPy. An epoch of ours is `tfcourse.basics.mlp.train`, one of theirs is
`partial_fit`.
"""

import sys
import time
from collections.abc import Callable

from _measuring import Benchmark

from tfcourse.basics.mlp import MLP, train
from tfcourse.basics.optimizers import Adam
from tfcourse.data.mnist import load_mnist

try:
    from sklearn.neural_network import MLPClassifier
except ImportError:
    MLPClassifier = None

UNITS = (784, 256, 10)
BATCH_SIZE = 50


def seconds_of(epoch: Callable[[], object], epochs: int) -> Callable[[], float]:
    """Return what measures an epoch, after one that is not counted."""

    def measure() -> float:
        epoch()
        start = time.perf_counter()
        for _ in range(epochs):
            epoch()
        return (time.perf_counter() - start) / epochs

    return measure


def main() -> int:
    benchmark = Benchmark(__doc__)
    name = "numpy_mlp, an epoch against scikit-learn's MLPClassifier"
    if MLPClassifier is None:
        benchmark.skip(name, "scikit-learn is missing: the extra [test]")
        return benchmark.status()
    rows, epochs = (200, 1) if benchmark.quick else (4_000, 3)
    digits, _ = load_mnist()
    x, y = digits.images[:rows].reshape(rows, -1) / 255.0, digits.labels[:rows]
    model, adam = MLP(UNITS), Adam(1e-3)
    theirs = MLPClassifier(UNITS[1:-1], batch_size=BATCH_SIZE, learning_rate_init=1e-3)
    seconds = benchmark.alternate(
        {
            "ours": seconds_of(lambda: train(model, x, y, adam, 1, batch_size=BATCH_SIZE), epochs),
            "scikit-learn": seconds_of(lambda: theirs.partial_fit(x, y, classes=range(10)), epochs),
        }
    )
    benchmark.ratio(name, seconds["ours"], seconds["scikit-learn"], at_most=1.5)
    return benchmark.status()


if __name__ == "__main__":
    sys.exit(main())
