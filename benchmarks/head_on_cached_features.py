"""How much faster is an epoch of the head on cached features than through the frozen backbone?

    python benchmarks/head_on_cached_features.py

Both sides train the same linear layer on the same pictures with `training.fit`, in turn, in one
process; the first epoch of each (tracing) is not counted.
"""

import sys
import time

import keras
from _measuring import Benchmark

import hub_models
from tfcourse import training
from tfcourse.data import images
from tfcourse.data.fashion_mnist import load_fashion_mnist
from tfcourse.training import InMemory

PICTURES_PER_CLASS, BATCH_SIZE = 50, 64


class EpochTimes(keras.callbacks.Callback):
    """Seconds of each epoch."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self.start)


def seconds_of_an_epoch(model: keras.Model, inputs, labels) -> float:
    times = EpochTimes()
    data = InMemory(inputs, labels, BATCH_SIZE)
    training.fit(model, data, 2, callbacks=[times])
    return times.seconds[1]


def main() -> int:
    benchmark = Benchmark(__doc__)
    train, _ = load_fashion_mnist()
    train = images.subset_per_class(train, PICTURES_PER_CLASS, seed=0)
    train = images.to_rgb(images.resize(train, (96, 96)))
    whole = hub_models.build_image_classifier("efficientnet-lite0", (96, 96, 3), 10)
    extractor = keras.Model(whole.input, whole.get_layer("backbone").output)
    pictures = InMemory(train.images, train.labels, BATCH_SIZE, shuffle=False)
    features = training.predict(extractor, pictures)
    head = keras.Sequential(
        [keras.Input((1280,)), keras.layers.Dropout(0.2), keras.layers.Dense(10)]
    )
    for model in (whole, head):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    turns = benchmark.alternate(
        {
            "backbone": lambda: seconds_of_an_epoch(whole, train.images, train.labels),
            "cached": lambda: seconds_of_an_epoch(head, features, train.labels),
        }
    )
    benchmark.ratio(
        "head on cached features, as fast as through the frozen backbone",
        turns["backbone"],
        turns["cached"],
        at_least=10,
    )
    return benchmark.status()


if __name__ == "__main__":
    sys.exit(main())
