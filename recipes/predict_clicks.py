"""Predict who will like which film, with any of seven recommenders.

    tfcourse run predict_clicks
    tfcourse run predict_clicks --model din --workdir runs/din
    tfcourse run predict_clicks --split random --workdir runs/random
    tfcourse run predict_clicks --data-dir ml-1m.zip --workdir runs/1m
    tfcourse run predict_clicks --data-dir ratings.csv --like 4 --workdir runs/mine

DeepFM learns from the first 80,000 ratings of MovieLens-100k, 10,000 choose the epoch, and the
last 10,000 test it: what is predicted lies in the future, and six of seven test users are new.
Known are user and item, age, gender, occupation, year, genres, the last 20 films that the user
liked, and what the user and others had thought up to that moment: counts, means, deviations.
A rating of 3.5 or more is a "like".

Expected, by three seeds: a test AUC of 0.751 (Wide & Deep, DeepFM), 0.750 (Embedding+MLP, DIN),
0.749 (FM), 0.748 (DIEN) or 0.715 (NeuralCF, which has the ids alone); `compare_recommenders` has
the table. A full run fails three standard deviations below, or 0.003 where that is more. For
comparison: the film's mean rating so far 0.707, the user's 0.645, how often the film was rated
0.603. Within one user's films (grouped AUC) the film's mean is the best order that there is: 0.716
against 0.709.

In `attention.png` DIN gives all films of a history nearly the same weight, 1.8 to 1.95: after two
epochs its gain over a plain mean is nil here. DIEN looks less at the oldest films. The vectors in
`films.png` show no genres, which have tables of their own.
"""

import keras
import numpy as np

from tfcourse import cli, plots, runs, training
from tfcourse.data.cache import atomic_file
from tfcourse.data.ratings import Ratings
from tfcourse.recommendation import attention_of, metrics, serving
from tfcourse.recommendation.click_models import CLICK_MODELS
from tfcourse.recommendation.clicks import (
    SPLITS,
    Clicks,
    digest_of,
    load_clicks,
    load_ratings,
    of_one_moment,
)
from tfcourse.recommendation.learning import answers, learn, vectors_by_id
from tfcourse.recommendation.titles import genres_of, titles_of

# Test AUC: the mean of three seeds, and three of their standard deviations or 0.003.
EXPECTED = {
    "fm": (0.749, 0.005),
    "neural_cf": (0.715, 0.010),
    "embedding_mlp": (0.750, 0.003),
    "wide_and_deep": (0.751, 0.003),
    "deepfm": (0.751, 0.003),
    "din": (0.750, 0.003),
    "dien": (0.748, 0.003),
}
DRAWN, NAMED, CANDIDATES = 300, 40, 6
SMOKE = 4000  # ratings


def parse() -> runs.Run:
    parser = cli.flags(__doc__, epochs=2, batch_size=256, learning_rate=1e-3)
    add = parser.add_argument
    add(
        "--model",
        choices=CLICK_MODELS,
        default="deepfm",
        help="default deepfm; fm and neural_cf learn for 5 epochs",
    )
    add("--split", choices=SPLITS, default="time", help="default time")
    add("--like", type=cli.positive, default=3.5, help="the least rating that is a like")
    # How long it learns, and what is expected, depend on the model, which is therefore read first.
    name = parser.parse_known_args()[0].model
    parser.set_defaults(model=name, epochs=CLICK_MODELS[name].epochs)
    return runs.start(parser, "predict_clicks")


def draw_films(run, model: keras.Model, ratings: Ratings, clicks: Clicks) -> None:
    """Draw a map of the films that are rated most often; ids go by how often they are."""
    items = clicks.pipeline.vocabulary("item")[1 : 1 + DRAWN]
    titles, genres = titles_of(ratings), genres_of(ratings)
    plots.embedding_map(
        vectors_by_id(model, "item")[1 : 1 + DRAWN],
        [genres.get(item, "") for item in items],
        run.results / "films.png",
        names={row: titles[item] for row, item in enumerate(items[:NAMED])},
        title=f"The films that are rated most often, as {model.name} sees them",
    )


def draw_attention(run, model: keras.Model, ratings: Ratings, clicks: Clicks) -> None:
    """Draw what a network looks at in one user's history when it judges several films."""
    shown = of_one_moment(clicks.test)[:CANDIDATES]
    columns = {name: clicks.test.columns[name][shown] for name in model.input}
    history = columns["seen"][0][columns["seen"][0] > 0]
    if not len(history):
        print("no event of the test part has a history: there is no attention to draw")
        return
    weights = np.asarray(attention_of(model, "seen")(columns))
    names = np.array([titles_of(ratings).get(i, "?") for i in clicks.pipeline.vocabulary("item")])
    candidates = names[columns["item"]]
    path = run.results / "attention.png"
    plots.attention_map(weights[:, : len(history)], names[history], candidates, path)


def report(run, model: keras.Model, ratings: Ratings, clicks: Clicks) -> int:
    """Test once, print what is found beside the baselines, and keep model and pictures."""
    test, folder = clicks.test, run.results
    predicted = answers(model, test)
    found = {model.name: test.judge(predicted)}
    for name, scores in clicks.baselines(test).items():
        found[name] = test.judge(scores, of="ranks")
    for name, figures in found.items():
        print(f"{name:20}", "  ".join(f"{figure} {value:.4f}" for figure, value in figures.items()))
    error = metrics.calibration(test.labels, predicted).error
    print(f"predicted and true probabilities differ by {error:.3f} on average")
    plots.calibration_curve(test.labels, {model.name: predicted}, folder / "calibration.png")
    draw_films(run, model, ratings, clicks)
    if "seen_attention" in [layer.name for layer in model.layers]:
        draw_attention(run, model, ratings, clicks)
    with atomic_file(folder / "model.keras") as file:
        model.save(file)
    serving.export(model, clicks.pipeline, folder / "saved_model")
    expected, tolerance = EXPECTED[run.flags.model]
    more = {"found": found, "calibration error": error, "parameters": model.count_params()}
    return run.report(
        "test AUC", found[model.name]["auc"], expected=expected, tolerance=tolerance, more=more
    )


def main() -> int:
    run = parse()
    flags = run.flags
    strategy = training.strategy(flags.strategy)
    keras.utils.set_random_seed(flags.seed)
    ratings = load_ratings(flags.data_dir)
    if flags.smoke:
        ratings = ratings.take(slice(SMOKE))
    clicks = load_clicks(ratings, flags.split, like=flags.like, seed=flags.seed)
    with strategy.scope():
        model = CLICK_MODELS[flags.model].build(clicks)
    run.open({"ratings": digest_of(ratings)})
    parts = [len(part) for part in (clicks.train, clicks.validation, clicks.test)]
    print(
        f"{model.name}, {model.count_params():,} parameters; {parts} events (train, choose, test)"
    )
    callbacks = training.standard_callbacks(run.folder, monitor="val_loss")
    compiled = not flags.smoke  # compiling takes longer than a tiny run
    learn(model, clicks, flags, callbacks=callbacks, workdir=run.folder, jit_compile=compiled)
    return report(run, model, ratings, clicks)


if __name__ == "__main__":
    cli.execute(main)
