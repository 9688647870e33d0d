"""Find the films that a user will like, among all of them: two towers and an index.

    tfcourse run retrieve_items
    tfcourse run retrieve_items --user 42
    tfcourse run retrieve_items --data-dir ratings.csv --like 4 --workdir runs/mine

MovieLens-100k: 943 users, 1,682 films, 100,000 ratings; a film is liked from 3.5 stars on. Of each
user's liked films the last is for testing, the one before it chooses the epoch, and the others are
learned from. (A split by time would leave 166 users for testing, 97 of them without a rating to
learn from: two thirds of all users rated their films within a day. This split lets a model know
what others liked later.) The user's tower has the user's number and facts and the last 20 liked
films, the film's tower its number, genres and year. They learn by `InBatchSoftmax`. All films are
ranked but those that the user had rated before.

Expected: of 942 users the liked film is among 100 for a share (recall@100) of 0.576 (standard
deviation 0.010 over three seeds; a full run fails below 0.546). All figures, of three seeds:

                  recall@10  recall@100  ndcg@10  ndcg@100  coverage@10  popularity@10
    most popular      0.093       0.373    0.049     0.102        0.057          1.409
    item-CF           0.160       0.561    0.089     0.168        0.278          0.353
    ALS               0.179       0.599    0.097     0.178        0.300          0.405
    two towers        0.177       0.576    0.099     0.177        0.485          0.020
    to new users      0.117       0.432    0.061     0.122        0.354          0.155
    of new films      0.085       0.372    0.046     0.101        0.484         -0.373

Item-CF has 50 neighbours by cosine, without shrinkage: on the validation part its recall@100 is
0.593 so, 0.516 by the defaults. ALS, which knows a user's likes alone, finds 0.023 more than the
towers (a standard error of 942 users is 0.016), but cannot serve a film without likes. "To new
users" are the same users known by their history alone, "of new films" the same films by genres and
year alone. Coverage is the share of films in some list, popularity how much more popular those are
than what people like. Without log-Q (zeros for log q) recall@100 on the validation part fell from
0.69 to 0.45, as popular films came too low.
Disliked films as negatives (`--dislikes`) changed nothing there (one seed each, none forgotten).

A finished run is in the folder: both towers, the index, a map of the films. `--user` reads them and
prints a list of titles for the user as of now.
"""

import argparse
from pathlib import Path

import keras
import numpy as np

from tfcourse import cli, plots, runs, training
from tfcourse.data import cache
from tfcourse.data.last_likes import LastLikes, hold_out_last_likes
from tfcourse.data.pipeline import Bucketed, Normalised, Pipeline, Sequence, Vocabulary
from tfcourse.recommendation import (
    InBatchSoftmax,
    build_two_tower,
    fit_als,
    fit_item_cf,
    rating_matrix,
    vectors_of,
)
from tfcourse.recommendation.approximate_index import ApproximateIndex
from tfcourse.recommendation.clicks import digest_of, load_ratings, with_values
from tfcourse.recommendation.index import TopK
from tfcourse.recommendation.metrics import coverage, list_metrics, popularity_bias, top_lists
from tfcourse.recommendation.sampling import in_batch_log_q
from tfcourse.recommendation.titles import find_user, genres_of, titles_of
from tfcourse.training import InMemory

EXPECTED, TOLERANCE = 0.576, 0.03
FORGETTING = {"user": 0.1, "item": 0.1}  # so that new ones, without a number, can be served
HISTORY = 20
LISTED, LONGEST = 10, 100  # of the lists
USER = [Vocabulary("user"), Sequence("seen", length=HISTORY)]
USER += [Normalised("age"), Vocabulary("gender"), Vocabulary("occupation")]
FILM = [Vocabulary("item"), Vocabulary("genre1"), Vocabulary("genre2"), Vocabulary("genre3")]
FILM += [Bucketed("year")]


def flags_of() -> argparse.ArgumentParser:
    parser = cli.flags(__doc__, epochs=12, batch_size=512, learning_rate=2e-3)
    add = parser.add_argument
    add("--temperature", type=cli.positive, default=0.15, help="of the softmax; default 0.15")
    add("--hard-negatives", type=cli.at_least(1), help="how many of a batch count; default all")
    add("--dislikes", action="store_true", help="take what was not liked for negatives")
    add("--like", type=cli.positive, default=3.5, help="the least rating that is a like")
    add("--user", metavar="ID", help="whose list is printed")
    return parser


def load(flags) -> LastLikes:
    ratings = load_ratings(flags.data_dir)
    if flags.smoke:
        ratings = ratings.take(np.flatnonzero(ratings.numbered()[0] < 60))
    films = hold_out_last_likes(ratings, history_length=HISTORY, like=flags.like)
    films.check_left(LISTED)
    return films


def learn(run, films: LastLikes, pipeline: Pipeline) -> keras.Model:
    """Train both towers; end with the epoch that is best on the validation part."""
    flags, of_user = run.flags, {spec.name for spec in USER}
    user = [feature for feature in pipeline.features if feature.name in of_user]
    film = [feature for feature in pipeline.features if feature.name not in of_user]
    rows = np.concatenate([films.train, films.disliked]) if flags.dislikes else films.train
    log_q = in_batch_log_q(films.items[rows], films.shape[1])

    def batches(rows: np.ndarray, **more) -> InMemory:
        film = films.items[rows]
        targets = np.stack([1 + film, log_q[film], films.events["label"][rows]], axis=1)
        return InMemory(pipeline.transform(films.rows(rows)), targets.astype("float32"), **more)

    with training.strategy(flags.strategy).scope():
        model = build_two_tower(user, film, forgetting=FORGETTING)
        model.compile(
            keras.optimizers.Adam(flags.learning_rate),
            InBatchSoftmax(flags.temperature, hard_negatives=flags.hard_negatives),
        )
    print(f"{model.count_params():,} parameters; {len(rows):,} ratings to learn from")
    training.fit(
        model,
        batches(rows, batch_size=flags.batch_size, seed=flags.seed),
        flags.epochs,
        validation_data=batches(films.validation, batch_size=len(films.validation), shuffle=False),
        callbacks=training.standard_callbacks(run.folder, monitor="val_loss"),
        workdir=run.folder,
        jit_compile=not flags.smoke,  # compiling takes longer than a tiny run
    )
    return model


def two_towers(films: LastLikes, pipeline: Pipeline, model: keras.Model) -> dict[str, np.ndarray]:
    """Return the lists of the users of the test part, three ways: how much is known of whom."""
    users, items = (model.get_layer(name) for name in ("user_tower", "item_tower"))
    asked = pipeline.transform(films.rows(films.test))
    catalogue = pipeline.transform(films.catalogue)
    nameless = {name: 0 * column for name, column in asked.items() if name != "seen"}
    vectors, queries = vectors_of(items, catalogue), vectors_of(users, asked)
    new_users = vectors_of(users, asked | nameless)
    new_films = vectors_of(items, catalogue | {"item": 0 * catalogue["item"]})
    seen, longest = films.seen_before_test, min(LONGEST, films.check_left(LISTED))

    def lists(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        return TopK(vectors).search(queries, longest, exclude=seen)[1]

    return {
        "two towers": lists(queries, vectors),
        "to new users": lists(new_users, vectors),
        "of new films": lists(queries, new_films),
    }


def baselines(films: LastLikes) -> dict[str, np.ndarray]:
    """Return the lists of the same users by popularity, item-CF and ALS."""
    known = np.sort(np.concatenate([films.train, films.validation]))
    users, items = films.users[known], films.items[known]
    counts = np.bincount(items, minlength=films.shape[1]).astype("float64")
    asked = films.users[films.test]
    # Some like a film twice; a matrix has it once.
    once = np.sort(np.unique(users * films.shape[1] + items, return_index=True)[1])
    likes = rating_matrix(users[once], items[once], np.ones(len(once)), *films.shape)
    item_cf = fit_item_cf(likes, similarity="cosine", num_neighbours=50, shrinkage=0)
    als = fit_als(likes)
    scores = {  # of some places, not of all users at once
        "most popular": lambda places: np.tile(counts, (len(places), 1)),
        "item-CF": lambda places: item_cf.scores(asked[places]),
        "ALS": lambda places: als.scores(asked[places]),
    }
    places, seen = np.arange(len(asked)), films.seen(films.test)
    longest = min(LONGEST, films.shape[1])
    return {name: top_lists(score, places, longest, seen) for name, score in scores.items()}


def compare(films: LastLikes, lists: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Print and return how good the lists are, how many films they show, and how popular ones."""
    places, wanted = np.arange(len(films.test)), films.items[films.test]
    counts = np.bincount(films.items[films.train], minlength=films.shape[1])
    columns = ("recall@10", "recall@100", "ndcg@10", "ndcg@100", "coverage@10", "popularity@10")
    print(f"{'':14}" + "".join(f"{name:>14}" for name in columns))
    table = {}
    for name, few in lists.items():
        # Where few films are left, lists end early.
        found = np.pad(few, ((0, 0), (0, LONGEST - few.shape[1])), constant_values=-1)
        figures = list_metrics(found, places, (places, wanted), k=(LISTED, LONGEST))
        figures["coverage@10"] = coverage(found[:, :LISTED], len(counts))
        figures["popularity@10"] = popularity_bias(found[:, :LISTED], counts)
        table[name] = {column: figures[column] for column in columns}
        print(f"{name:14}" + "".join(f"{value:14.3f}" for value in table[name].values()))
    return table


def keep(run, films: LastLikes, pipeline: Pipeline, model: keras.Model) -> None:
    """Write the towers, the pipeline, the index of all films, and a map of them."""
    for name in ("user_tower", "item_tower"):
        with cache.atomic_file(run.results / f"{name}.keras") as file:
            model.get_layer(name).save(file)
    pipeline.save(run.results / "pipeline.json")
    catalogue = films.catalogue
    vectors = vectors_of(model.get_layer("item_tower"), pipeline.transform(catalogue))
    index = TopK(vectors, catalogue["item"])
    index.save(run.results / "index.npz")
    users = pipeline.transform(films.rows(films.test))
    say_recall(index, vectors, vectors_of(model.get_layer("user_tower"), users))
    known = np.argsort(-np.bincount(films.items))[:40]
    names, titles, genres = catalogue["item"], titles_of(films.ratings), genres_of(films.ratings)
    plots.embedding_map(
        vectors,
        [genres.get(str(name), "") for name in names],
        run.results / "films.png",
        names={int(film): titles[str(names[film])] for film in known},
        title="Films by the item tower",
    )


def say_recall(exact: TopK, vectors: np.ndarray, queries: np.ndarray) -> None:
    """Print how much of the exact lists an approximate index finds, if faiss is there."""
    try:
        index = ApproximateIndex(vectors, exact.ids)
    except ImportError as error:
        print(f"no approximate index: {error}")
        return
    recall = index.recall(queries, min(LONGEST, len(vectors)), exact)
    print(f"recall of the approximate index: {recall:.3f}")


def show(folder: Path, flags, films: LastLikes) -> None:
    """Print what the towers and the index in a folder recommend to a user."""
    titles, user = titles_of(films.ratings), find_user(films.ratings, flags.user)
    row, rated = films.now(user), np.unique(films.ratings.items[films.ratings.users == user])
    liked = [titles[str(item)] for item in row["seen"][0][:5]]
    print(f"user {user} liked " + (", ".join(liked) or "nothing yet"))
    tower = keras.saving.load_model(folder / "user_tower.keras")
    vector = vectors_of(tower, Pipeline.load(folder / "pipeline.json").transform(row))
    if not (length := min(LISTED, films.shape[1] - len(rated))):
        print("and has rated all films")
        return
    scores, items = TopK.load(folder / "index.npz").search(vector, length, exclude=[rated])
    for score, item in zip(scores[0], items[0], strict=True):
        print(f"{score:6.3f}  {titles[str(item)]}")


def main() -> int:
    parser = flags_of()
    given = parser.parse_args()
    folder = given.workdir or Path("runs/retrieve_items")
    asks, finished = given.user is not None, (folder / "report.json").exists()
    if asks and finished and not given.fresh:
        films = load(given)
        runs.check_finished(folder, {"like": given.like}, {"ratings": digest_of(films.ratings)})
        show(folder, given, films)
        return 0
    run = runs.start(parser, "retrieve_items")
    keras.utils.set_random_seed(run.flags.seed)
    films = load(run.flags)
    if asks:
        find_user(films.ratings, given.user)  # before anything is trained
    specs = with_values(films.events, films.train, [*USER, *FILM])
    pipeline = Pipeline(specs).fit(films.rows(films.train))
    run.open({"ratings": digest_of(films.ratings)})
    model = learn(run, films, pipeline)
    table = compare(films, baselines(films) | two_towers(films, pipeline, model))
    keep(run, films, pipeline, model)
    if asks:
        show(run.results, run.flags, films)
    value = table["two towers"]["recall@100"]
    return run.report(
        "recall@100", value, expected=EXPECTED, tolerance=TOLERANCE, more={"table": table}
    )


if __name__ == "__main__":
    cli.execute(main)
