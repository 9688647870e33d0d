"""One device against many: what `fit` computes with each feature, alone, in pairs, all together.

    python tests/parity.py            the table: 1, 2 and 4 logical devices, two processes
    python tests/parity.py --pairs    every pair of features on two devices

A cell is the largest difference of any weight and any figure of the last epoch.
"""

import itertools
import json
import math
import os
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from tfcourse import training, workers
from tfcourse.training.strategies import is_chief

ROWS, BATCH, EPOCHS = 41, 8, 3  # five full batches, and one row that leaves replicas empty
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 5)).astype("float32")
IDS = RNG.integers(0, 6, (ROWS, 4)).astype("int32")
IDS[::3, 2:] = 0
Y = RNG.integers(0, 3, ROWS).astype("int32")
WEIGHTS = RNG.uniform(0.2, 2.0, ROWS).astype("float32")

# What a feature changes: the model, the optimizer, the loss, the data, or the call of `fit`.
FEATURES = {
    "plain": {},
    "sample weights": {"weighted": True},
    "mean by weight": {"weighted": True, "reduction": "mean_with_sample_weight"},
    "sum reduction": {"reduction": "sum"},
    "class weight": {"fit": {"class_weight": {0: 0.5, 2: 2.0}}},
    "L1, L2": {"penalties": True},
    "BatchNorm": {"norm": True},
    "dropout of 0": {"dropout": 0.0},
    "masked embedding": {"masked": True},
    "clip by value": {"optimizer": {"clipvalue": 0.01}},
    "clip by norm": {"optimizer": {"clipnorm": 0.02}},
    "clip by global norm": {"optimizer": {"global_clipnorm": 0.05}},
    "accumulation": {"optimizer": {"gradient_accumulation_steps": 2}},
    "weight decay": {"optimizer": {"weight_decay": 0.1}},
    "EMA": {"optimizer": {"use_ema": True, "ema_momentum": 0.9}},
    "EMA, overwriting": {
        "optimizer": {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 3}
    },
    "loss scale": {"optimizer": {"loss_scale_factor": 64.0}},
    "LazyAdam": {"lazy": True, "masked": True},
    "4 steps a call": {"fit": {"steps_per_call": 4}},
    "XLA": {"fit": {"jit_compile": True}},
    "bfloat16": {"policy": "mixed_bfloat16"},
    "float16": {"policy": "mixed_float16"},
}
HALF = {"bfloat16": 3e-2, "float16": 4e-3}
TOLERANCE = 2e-5
# Each excludes the other, or has no meaning beside it.
EXCLUSIVE = (
    ("clip by value", "clip by norm", "clip by global norm"),
    ("EMA", "EMA, overwriting"),
    ("bfloat16", "float16"),
    ("mean by weight", "sum reduction"),
    ("float16", "loss scale"),
    # A sum overflows float16 at first, for all rows sooner than for a share.
    ("float16", "sum reduction"),
    # Keras cannot add penalties of 16 bits to those of 32: `Model.fit` raises, too.
    ("L1, L2", "bfloat16"),
    ("L1, L2", "float16"),
)
# Refused with one line, on several replicas on CPUs.
REFUSED = {frozenset(("XLA", "BatchNorm"))}


def merged(names):
    """Return the settings of several features together."""
    result = {}
    for name in names:
        for key, value in FEATURES[name].items():
            result[key] = result.get(key, {}) | value if isinstance(value, dict) else value
    return result


def build(settings, strategy=None):
    """Build and compile the model that the features ask for."""
    keras.config.set_dtype_policy(settings.get("policy", "float32"))
    try:
        with (strategy or tf.distribute.get_strategy()).scope():
            keras.utils.set_random_seed(7)
            return _compiled(_layers(settings), settings)
    finally:
        keras.config.set_dtype_policy("float32")


def _layers(settings):
    dense = {"activation": "tanh"}
    if settings.get("penalties"):
        dense |= {"kernel_regularizer": "l2", "activity_regularizer": "l1"}
    if settings.get("masked"):
        inputs = keras.Input((4,), dtype="int32")
        x = keras.layers.Embedding(6, 5, mask_zero=True)(inputs)
        x = keras.layers.GlobalAveragePooling1D()(x)
    else:
        x = inputs = keras.Input((5,))
    x = keras.layers.Dense(8, **dense)(x)
    if settings.get("norm"):
        x = keras.layers.BatchNormalization()(x)
    if "dropout" in settings:
        x = keras.layers.Dropout(settings["dropout"])(x)
    return keras.Model(inputs, keras.layers.Dense(3, dtype="float32")(x))


def _compiled(model, settings):
    kind = training.LazyAdam if settings.get("lazy") else keras.optimizers.Adam
    reduction = settings.get("reduction", "sum_over_batch_size")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
    optimizer = kind(0.01, epsilon=1e-3, **settings.get("optimizer", {}))
    model.compile(optimizer, loss, metrics=["accuracy"], weighted_metrics=["accuracy"])
    return model


def data(settings):
    """Return the batches, in a fixed order."""
    x = IDS if settings.get("masked") else X
    weights = WEIGHTS if settings.get("weighted") else None
    return training.InMemory(x, Y, BATCH, sample_weight=weights, shuffle=False)


def train(names, replicas=1):
    """Train with these features on so many logical devices; return weights and last logs."""
    settings = merged(names)
    model = build(settings, training.strategy(f"cpu:{replicas}") if replicas > 1 else None)
    return _results(model, training.fit(model, data(settings), EPOCHS, **settings.get("fit", {})))


def keras_train(names):
    """Train the same by `Model.fit` on one device."""
    settings = merged(names)
    model = build(settings)
    weight = settings.get("fit", {}).get("class_weight")
    batches = data(settings).dataset()
    if weight:  # Keras takes no class weights beside sample weights
        x, y, *w = data(settings).arrays
        own = np.vectorize(lambda label: weight.get(label, 1.0))(y) * (w[0] if w else 1.0)
        batches = tf.data.Dataset.from_tensor_slices((x, y, own.astype("float32"))).batch(BATCH)
    return _results(model, model.fit(batches, epochs=EPOCHS, verbose=0, shuffle=False))


def _results(model, history):
    return model.get_weights(), {n: v[-1] for n, v in history.history.items()}


def difference(one, other):
    """Return the largest difference of two results' weights and of their logs."""
    pairs = zip(one[0], other[0], strict=True)
    weights = max(float(np.abs(a - b).max()) for a, b in pairs if a.dtype.kind == "f")
    logs = max(abs(one[1][name] - other[1][name]) for name in one[1])
    return max(weights, logs)


def allowed(names):
    """Return whether these features go together."""
    return not any(len(set(group) & set(names)) > 1 for group in EXCLUSIVE)


def tolerance(names):
    return max([TOLERANCE, *(HALF.get(name, 0.0) for name in names)])


def everything():
    """Return as many features as go together."""
    names = []
    for name in FEATURES:
        if allowed([*names, name]) and name not in ("XLA", "bfloat16", "float16"):
            names.append(name)
    return names


def in_processes(rows, count):
    """Train each row's features in so many worker processes; return the results by row."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "rows.json").write_text(json.dumps(rows))
        if workers.launch([sys.executable, __file__, "--worker", folder], count) != 0:
            raise SystemExit("a worker failed")
        return [
            ([*np.load(Path(folder) / f"{i}.npz").values()], json.loads(logs))
            for i, logs in enumerate((Path(folder) / "logs.txt").read_text().splitlines())
        ]


def work(folder):
    """Be one of several workers: train each row, and let the first of them write."""
    strategy = training.strategy("multi-worker")
    for i, names in enumerate(json.loads((folder / "rows.json").read_text())):
        settings = merged(names)
        model = build(settings, strategy)
        fit = training.fit(model, data(settings), EPOCHS, **settings.get("fit", {}))
        weights, logs = _results(model, fit)
        if is_chief(strategy):
            np.savez(folder / f"{i}.npz", *weights)
            with open(folder / "logs.txt", "a") as file:
                file.write(json.dumps(logs) + "\n")


def is_refused(names):
    return any(pair <= set(names) for pair in REFUSED)


def row_of(names, counts, elsewhere=None):
    """Return the differences from one device: Keras', those of several devices and processes."""
    one = train(names)
    try:
        cells = [difference(keras_train(names), one)]
    except TypeError:  # Keras cannot divide the gradient of an embedding by a loss scale
        cells = [float("nan")]
    cells += [
        float("nan") if is_refused(names) else difference(train(names, n), one) for n in counts
    ]
    return cells + ([] if elsewhere is None else [difference(elsewhere, one)])


def main():
    if "--worker" in sys.argv:
        work(Path(sys.argv[-1]))
        return
    pairs = "--pairs" in sys.argv
    if pairs:
        rows, counts = [list(p) for p in itertools.combinations(FEATURES, 2) if allowed(p)], (2,)
        elsewhere = [None] * len(rows)
    else:
        rows, counts = [*([name] for name in FEATURES), everything()], (2, 4)
        elsewhere = in_processes(rows, 2)
    devices = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        devices, [tf.config.LogicalDeviceConfiguration()] * 4
    )
    warnings.simplefilter("ignore")  # LazyAdam says what touches every row
    heads = ["Model.fit", *(f"{n} devices" for n in counts), *([] if pairs else ["2 processes"])]
    print(f"{'largest difference from one device':40} " + " ".join(f"{h:>11}" for h in heads))
    worst = {}
    for names, other in zip(rows, elsewhere, strict=True):
        cells = row_of(names, counts, other)
        label = "all of these but XLA and 16 bits" if len(names) > 2 else " + ".join(names)
        print(f"{label:40} " + " ".join(f"{c:11.1e}" for c in cells), flush=True)
        kind = next((name for name in HALF if name in names), "32 bits")
        worst[kind] = max(worst.get(kind, 0.0), *(c for c in cells if not math.isnan(c)))
    print(", ".join(f"{kind}: {value:.1e} at most" for kind, value in worst.items()))
    if any(value > HALF.get(kind, TOLERANCE) for kind, value in worst.items()):
        sys.exit("some difference is larger than rounding explains")


if __name__ == "__main__":
    main()
