"""From ratings to the three parts that models of clicks are trained, chosen and tested on.

A row is an event with what was known at its moment; "click" stands for a rating of `like` or more.
Whatever is learned from the data, such as vocabularies and means, is learned from the training
part.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfcourse.data.events import make_events
from tfcourse.data.features import Cross, Feature
from tfcourse.data.pipeline import Combined, Normalised, Pipeline, Sequence, Vocabulary
from tfcourse.data.preparing import Spec
from tfcourse.data.ratings import (
    Ratings,
    check_labels,
    leave_last_out,
    load_movielens,
    read_ratings,
    split_at_random,
    split_by_time,
)
from tfcourse.recommendation.metrics import auc, grouped_auc, log_loss

# The columns of an event that are of use; those that the ratings don't have are left out.
CATEGORIES = ("user", "item", "gender", "occupation", "genre1", "genre2", "genre3")
COUNTS = ("user_count", "item_count")
NUMBERS = ("user_likes", "user_mean", "user_deviation", "item_likes", "item_mean", "item_deviation")
FACTS = ("age", "year")
SPLITS = ("time", "random", "last")


@dataclass(frozen=True, eq=False)
class Part:
    """Some of the events.

    Attributes:
        rows: Which rows of the events they are.
        columns: What a model takes, by the column's name.
        labels: 0 or 1, `(rows, 1)` of float32.
        users: Whose events they are, raw ids `(rows,)`.
    """

    rows: np.ndarray
    columns: dict[str, np.ndarray]
    labels: np.ndarray
    users: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def judge(self, scores: np.ndarray, *, of: str = "probabilities") -> dict[str, float]:
        """Return AUC, grouped AUC by user, and log loss of what a model answers.

        Where no user has both labels, such as with one test event of each, there is no grouped AUC.

        Args:
            scores: One for each row.
            of: What they are: "probabilities", or "ranks", which have no log loss.
        """
        labels, scores = self.labels.ravel(), np.ravel(scores)
        found = {"auc": auc(labels, scores)}
        codes = np.unique(self.users, return_inverse=True)[1]
        share = np.bincount(codes, labels) / np.bincount(codes)
        if ((share > 0) & (share < 1)).any():
            found["gauc"] = grouped_auc(labels, scores, self.users)
        return found | ({"log loss": log_loss(labels, scores)} if of == "probabilities" else {})


@dataclass(frozen=True, eq=False)
class Clicks:
    """Events in three parts, and the columns of a model of them.

    Attributes:
        events: The raw table of all events, in order of time.
        pipeline: Fitted on the training part; it turns raw columns into a model's.
        train: To learn from.
        validation: To choose by.
        test: To report on, once.
    """

    events: dict[str, np.ndarray]
    pipeline: Pipeline
    train: Part
    validation: Part
    test: Part

    @property
    def features(self) -> list[Feature]:
        """All columns but the cross, and but what is there for the cross alone."""
        return [f for f in self.pipeline.features if f.name not in ("latest", "item_after")]

    @property
    def cross(self) -> Cross:
        """The item together with the one that the user liked last."""
        return self.pipeline.feature("item_after")

    def baselines(self, part: Part) -> dict[str, np.ndarray]:
        """Return what can be said without a model, for each event of a part.

        Returns:
            "most popular": how often the item was rated before; "user mean" and "item mean": the
            mean rating of user and item before, or that of the training part where there is none.
        """
        usual = self.events["rating"][self.train.rows].mean()
        means = {f"{of} mean": self.events[f"{of}_mean"][part.rows] for of in ("user", "item")}
        found = {name: np.where(np.isnan(mean), usual, mean) for name, mean in means.items()}
        return {"most popular": self.events["item_count"][part.rows], **found}


def load_ratings(path: Path | None = None) -> Ratings:
    """Load MovieLens-100k, or what a user has.

    Args:
        path: A CSV or TSV file with the header user, item, rating, timestamp; or a MovieLens data
            set: GroupLens' zip file, or the folder it unpacks to.
    """
    if path is not None and path.suffix in (".csv", ".tsv"):
        return read_ratings(path, separator="," if path.suffix == ".csv" else "\t")
    return load_movielens(folder=path)


def digest_of(ratings: Ratings) -> str:
    """Return what tells ratings from all others: who rated what, how, and when if that is known."""
    columns = (ratings.users, ratings.items, ratings.ratings, ratings.timestamps)
    there = [column for column in columns if column is not None]
    return hashlib.sha256(b"".join(str(column.tolist()).encode() for column in there)).hexdigest()


def load_clicks(
    ratings: Ratings,
    split: str = "time",
    *,
    like: float = 3.5,
    history_length: int = 20,
    unknown: float = 0.3,
    seed: int = 0,
) -> Clicks:
    """Make the three parts.

    Args:
        ratings: In order of time.
        split: "time": the first 80 % of the events to learn from, 10 % to choose by, the last 10 %
            to test; "random": the same shares; "last": of each user the last event to test, the
            one before it to choose by. Statistics count all earlier events: only with "time" are
            none of the test part among those of an event that is learned from.
        like: The least rating whose label is 1.
        history_length: How many liked items a history has.
        unknown: In which share of the training events the user's id is taken for unknown: users
            that come later have that one, and it is to mean something (Volkovs et al., 2017).
        seed: Of the random split and of the events with an unknown user.

    Returns:
        Events, columns and parts.

    Raises:
        ValueError: If there is no such split, ratings have no times or are out of order, they
            can't be split so, or all labels of the training or the test part are the same.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if not 0 <= unknown < 1:
        raise ValueError(f"unknown must be from 0 to below 1, got {unknown}")
    events = make_events(ratings, history_length=history_length, like=like)
    events["latest"] = events["seen"][:, 0].astype(object)
    events["latest"][events["latest"] == 0] = ""
    if split == "time":
        rows = split_by_time(ratings)
    else:
        rows = leave_last_out(ratings) if split == "last" else split_at_random(ratings, seed=seed)
    for name, part in (("training", rows[0]), ("test", rows[2])):
        try:
            check_labels(events["label"][part])
        except ValueError as error:
            raise ValueError(f"{error} of the {name} part") from None
    pipeline = Pipeline(_specs(events, rows[0], history_length))
    pipeline.fit(_rows_of(events, rows[0]))
    train, validation, test = (_part(events, pipeline, part) for part in rows)
    forgotten = np.random.default_rng([seed, 1]).uniform(size=len(train)) < unknown
    train.columns["user"][forgotten] = 0
    return Clicks(events, pipeline, train, validation, test)


def _specs(events: dict[str, np.ndarray], rows: np.ndarray, history_length: int) -> list:
    """Say what becomes of the columns that have a value in the training part."""

    specs = [
        *(Vocabulary(name) for name in CATEGORIES),
        *(Normalised(name, logarithm=True) for name in COUNTS),
        *(Normalised(name) for name in (*NUMBERS, *FACTS)),
    ]
    return [
        *with_values(events, rows, specs),
        Sequence("seen", item="item", length=history_length),
        Vocabulary("latest"),
        Combined("item_after", ("item", "latest"), size=10_000),
    ]


def with_values(
    events: Mapping[str, np.ndarray], rows: np.ndarray, specs: Iterable[Spec]
) -> list[Spec]:
    """Return those specs in whose column some of these rows of the events has a value."""

    def there(column: np.ndarray) -> np.ndarray:
        return column != "" if column.dtype.kind in "OU" else ~np.isnan(column.astype(float))

    return [s for s in specs if s.name in events and there(events[s.name][rows]).any()]


def _part(events: dict[str, np.ndarray], pipeline: Pipeline, rows: np.ndarray) -> Part:
    columns = pipeline.transform(_rows_of(events, rows))
    return Part(rows, columns, events["label"][rows][:, None], events["user"][rows])


def _rows_of(events: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: column[rows] for name, column in events.items()}


def of_one_moment(part: Part) -> np.ndarray:
    """Return rows of a part that have the same history, the longest that there is."""
    seen = part.columns["seen"]
    _, codes, counts = np.unique(seen, axis=0, return_inverse=True, return_counts=True)
    codes = codes.ravel()
    longest = np.lexsort((counts[codes], (seen > 0).sum(axis=1)))[-1]
    return np.flatnonzero(codes == codes[longest])
