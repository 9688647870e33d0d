"""Compare seven recommenders, and three baselines, on who will like which film.

    tfcourse run compare_recommenders
    tfcourse run compare_recommenders --split last --workdir runs/last

All learn the same events of MovieLens-100k from the same columns, but for NeuralCF, which has the
ids of user and item alone; `predict_clicks` says which columns and events. Each is trained three
times. `table.txt` holds the result, `calibration.png` whether the
probabilities are right.

Expected: a mean test AUC of DeepFM of 0.751 (standard deviation 0.0002 over three seeds; a full
run fails below 0.748). On two cores it took three minutes; seconds are those of one training:

                              auc             gauc         log loss  parameters  seconds
    wide_and_deep  0.7509 +-0.0002  0.7094 +-0.0022  0.5834 +-0.0002      75,249      5.7
    deepfm         0.7505 +-0.0002  0.7088 +-0.0023  0.5837 +-0.0007      67,865      6.1
    din            0.7500 +-0.0008  0.7058 +-0.0017  0.5842 +-0.0005      67,938      8.9
    embedding_mlp  0.7498 +-0.0004  0.7085 +-0.0021  0.5840 +-0.0006      65,249      4.7
    fm             0.7491 +-0.0016  0.7063 +-0.0009  0.5838 +-0.0017      41,753      4.0
    dien           0.7480 +-0.0010  0.7060 +-0.0031  0.5890 +-0.0010      69,249     20.0
    neural_cf      0.7147 +-0.0032  0.7104 +-0.0013  0.6119 +-0.0024      80,561      5.2
    item mean      0.7069           0.7158
    user mean      0.6452           0.5194
    most popular   0.6033           0.5941

Four networks are equal within the noise: six of seven test users are new, and of them little but
the statistics is known. Within one user's films no network orders better than the mean rating.

After an interruption the same command continues; trainings that are finished are not repeated.
"""

import json
import time
from pathlib import Path

import keras
import numpy as np

from tfcourse import cli, plots, runs, training
from tfcourse.data.cache import atomic_file
from tfcourse.recommendation.click_models import CLICK_MODELS
from tfcourse.recommendation.clicks import SPLITS, Clicks, digest_of, load_clicks, load_ratings
from tfcourse.recommendation.learning import answers, learn

EXPECTED, TOLERANCE = 0.751, 0.003
FIGURES = ("auc", "gauc", "log loss")
SMOKE = 4000  # ratings
SMOKE_MODELS = ("fm", "neural_cf")


def parse() -> runs.Run:
    parser = cli.flags(__doc__, batch_size=256, learning_rate=1e-3)
    add = parser.add_argument
    add("--data-dir", type=Path, help="your own data instead of MovieLens-100k")
    add("--split", choices=SPLITS, default="time", help="default time")
    add("--like", type=cli.positive, default=3.5, help="the least rating that is a like")
    add("--seeds", type=cli.at_least(1), default=3, help="trainings of each; default 3")
    return runs.start(parser, "compare_recommenders")


def measure(flags, strategy, name: str, clicks: Clicks, seed: int) -> tuple[dict, np.ndarray]:
    """Train one network; return what it reaches and costs, and what it answers."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    with strategy.scope():
        model = CLICK_MODELS[name].build(clicks)
    start = time.perf_counter()
    epochs = 1 if flags.smoke else CLICK_MODELS[name].epochs
    history = learn(
        model, clicks, flags, epochs=epochs, seed=seed, jit_compile=not flags.smoke
    ).history
    seconds = time.perf_counter() - start
    predicted = answers(model, clicks.test)
    chosen = {
        "epoch": 1 + int(np.argmin(history["val_loss"])),
        "val_loss": min(history["val_loss"]),
    }
    costs = {"parameters": model.count_params(), "seconds": seconds}
    return clicks.test.judge(predicted) | costs | chosen, predicted


def measure_all(run, strategy, ratings) -> tuple[dict[str, list[dict]], dict[str, np.ndarray]]:
    """Measure each network with each seed, but for what the run's folder has already."""
    flags, found, predicted = run.flags, {}, {}
    for seed in range(flags.seeds * flags.seed, flags.seeds * (flags.seed + 1)):
        clicks = load_clicks(ratings, flags.split, like=flags.like, seed=seed)
        for name, scores in clicks.baselines(clicks.test).items():
            found.setdefault(name, []).append(clicks.test.judge(scores, of="ranks"))
        for name in SMOKE_MODELS if flags.smoke else CLICK_MODELS:
            file, array = (run.results / f"{name}-{seed}{end}" for end in (".json", ".npy"))
            if not file.exists():
                figures, probabilities = measure(flags, strategy, name, clicks, seed)
                with atomic_file(array) as staging, open(staging, "wb") as stream:
                    np.save(stream, probabilities)
                runs.write_json(file, figures)
            found.setdefault(name, []).append(json.loads(file.read_text("utf-8")))
            predicted.setdefault(name, np.load(array))
            last = found[name][-1]
            print(
                f"{name}, seed {seed}: AUC {last['auc']:.4f} ({last['seconds']:.1f} s)", flush=True
            )
    return found, predicted


def table_of(found: dict[str, list[dict]]) -> str:
    """Return the means, with standard deviations over the seeds, the best AUC first."""

    def cell(results: list[dict], figure: str) -> str:
        values = [result[figure] for result in results if figure in result]
        if not values:
            return ""
        if figure == "parameters":
            return f"{values[0]:,}"
        if figure == "seconds":
            return f"{np.median(values):.1f}"
        return f"{np.mean(values):.4f} +-{np.std(values):.4f}"

    columns = (*FIGURES, "parameters", "seconds")
    rows = [("", *columns)]
    for name in sorted(found, key=lambda name: -mean_auc(found[name])):
        rows.append((name, *(cell(found[name], column) for column in columns)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        row[0].ljust(widths[0])
        + "".join(f"  {text:>{width}}" for text, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )
    return "\n".join(lines)


def mean_auc(results: list[dict]) -> float:
    return float(np.mean([result["auc"] for result in results]))


def main() -> int:
    run = parse()
    flags = run.flags
    strategy = training.strategy(flags.strategy)
    ratings = load_ratings(flags.data_dir)
    if flags.smoke:
        ratings = ratings.take(slice(SMOKE))
    first = flags.seeds * flags.seed
    labels = load_clicks(ratings, flags.split, like=flags.like, seed=first).test.labels
    run.open({"ratings": digest_of(ratings)})
    found, predicted = measure_all(run, strategy, ratings)
    table = table_of(found)
    print(table)
    with atomic_file(run.results / "table.txt") as file:
        file.write_text(table + "\n", encoding="utf-8")
    plots.calibration_curve(labels, predicted, run.results / "calibration.png")
    judged = "deepfm" if "deepfm" in found else SMOKE_MODELS[0]
    return run.report(
        f"mean test AUC of {judged}",
        mean_auc(found[judged]),
        expected=EXPECTED,
        tolerance=TOLERANCE,
        more={"found": found},
    )


if __name__ == "__main__":
    cli.execute(main)
