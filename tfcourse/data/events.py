"""Events: ratings with what was known at their moment, and nothing that came later.

    count_t     = number of events of the same user (or item) at times < t
    mean_t      = their mean rating
    deviation_t = sqrt(their mean squared rating - mean_t^2)
    likes_t     = share of them with a rating >= like
    seen_t      = the items of the user's last liked ones among them, the newest first

Events of the same moment don't see each other: their order in a file is an accident.
"""

import datetime

import numpy as np

from tfcourse.data.ratings import Ratings, check_order

BLOCK = 2**16  # events whose histories are put together at a time
GENRES = 3
DAY = 24 * 60 * 60
NO_TEXT = np.array([""], object)


def make_events(
    ratings: Ratings,
    *,
    history_length: int = 20,
    like: float = 3.5,
    with_statistics: bool = True,
) -> dict[str, np.ndarray]:
    """Make the raw table of events from ratings: one row each, in order of time.

    Args:
        ratings: In order of time.
        history_length: How many liked items before an event are kept.
        like: The least rating whose label is 1.
        with_statistics: Whether to add the eight columns of counts, means, deviations and likes.

    Returns:
        Columns by name: `user`, `item`, `label`, `rating`, `timestamp`, `hour` and `weekday` (UTC,
        0 is Monday); the facts of the user, and of the item `title`, `year` and the first genres
        as `genre1` to `genre3`, where the ratings have them: "" or NaN where there is none; the
        statistics, `user_count` to `item_likes`: without any past, counts are 0 and the others
        NaN; and `seen` `(rows, history_length)`: raw ids of items, the newest first, as integers
        padded with 0 or, if ids are texts or not all from 1, as texts padded with "". `label` and
        `rating` are what is to be told: no model may see them.

    Raises:
        ValueError: If times are missing or out of order, `history_length` is below 1, or a fact
            has the name of a column.
    """
    times = check_order(ratings)
    if history_length < 1:
        raise ValueError(f"history_length must be at least 1, got {history_length}")
    label = (ratings.ratings >= like).astype(np.float32)
    events = {
        "user": ratings.users,
        "item": ratings.items,
        "label": label,
        "rating": ratings.ratings,
        "timestamp": times,
        "hour": (times % DAY // 3600).astype(np.int32),
        "weekday": ((times // DAY + datetime.date(1970, 1, 1).weekday()) % 7).astype(np.int32),
    }
    user_past = _Past(ratings.users, times)
    if with_statistics:
        events |= _statistics("user", user_past, ratings.ratings, label)
        events |= _statistics("item", _Past(ratings.items, times), ratings.ratings, label)
    events["seen"] = _histories(user_past, ratings.items, label > 0, history_length)
    for facts in (_user_facts(ratings), _item_facts(ratings)):
        if taken := sorted(facts.keys() & events.keys()):
            raise ValueError(f"a fact must not have the name of a column of events, got {taken[0]}")
        events |= facts
    return events


class _Past:
    """What came before each event among those with the same id.

    All arrays are in the order of `rows`, that is by id and then by time: an event's past are the
    events `start` up to but without `now`.
    """

    def __init__(self, ids: np.ndarray, times: np.ndarray):
        _, codes = np.unique(ids, return_inverse=True)
        codes = codes.astype(np.int32)
        self.rows = np.argsort(codes, kind="stable").astype(np.int32)
        codes, times = codes[self.rows], times[self.rows]
        other = np.ones(len(ids), bool)
        other[1:] = codes[1:] != codes[:-1]
        self.start = _first_of_run(other)
        other[1:] |= times[1:] != times[:-1]
        self.now = _first_of_run(other)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of the values over each event's past."""
        running = np.zeros(len(values) + 1)
        np.cumsum(values[self.rows], dtype=np.float64, out=running[1:])
        return running[self.now] - running[self.start]

    def scattered(self, values: np.ndarray) -> np.ndarray:
        """Return values that are in the order of `rows` in the order of the events."""
        found = np.empty(len(values), np.float32)
        found[self.rows] = values
        return found


def _first_of_run(begins: np.ndarray) -> np.ndarray:
    """Return for each place where the run it belongs to begins."""
    return np.maximum.accumulate(np.where(begins, np.arange(len(begins), dtype=np.int32), 0))


def _statistics(
    name: str, past: _Past, ratings: np.ndarray, label: np.ndarray
) -> dict[str, np.ndarray]:
    count = (past.now - past.start).astype(np.float64)
    known = np.where(count > 0, count, np.nan)
    # Around any constant the deviation is the same; around 0 much of a large rating is lost. The
    # first rating of all is in nobody's future.
    around = float(ratings[0])
    mean = past.sums(ratings - around) / known
    variance = past.sums(np.square(ratings - around, dtype=np.float64)) / known - mean**2
    return {
        f"{name}_count": past.scattered(count),
        f"{name}_mean": past.scattered(mean + around),
        f"{name}_deviation": past.scattered(np.sqrt(np.maximum(variance, 0))),
        f"{name}_likes": past.scattered(past.sums(label) / known),
    }


def _histories(past: _Past, items: np.ndarray, liked: np.ndarray, length: int) -> np.ndarray:
    liked = liked[past.rows]
    ids = items[past.rows][liked]  # of the liked ones alone, by user and then by time
    before = np.concatenate([[0], np.cumsum(liked, dtype=np.int32)])
    newest, oldest = before[past.now] - 1, before[past.start]
    ids, padding = _with_padding(ids, items)
    seen = np.full((len(items), length), padding, ids.dtype)
    back = np.arange(length, dtype=np.int32)
    for first in range(0, len(items), BLOCK):
        block = slice(first, first + BLOCK)
        place = newest[block, None] - back
        there = place >= oldest[block, None]
        # The last of the ids, at place -1, is the padding.
        seen[past.rows[block]] = ids[np.where(there, place, -1)]
    return seen


def _with_padding(ids: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, int | str]:
    # An item whose id is 0 would be taken for padding.
    if items.dtype.kind == "U" or items.min() < 1:
        return np.concatenate([ids.astype(str).astype(object), NO_TEXT]), ""
    small = items.max() < 2**31
    return np.append(ids, 0).astype(np.int32 if small else np.int64), 0


def _user_facts(ratings: Ratings) -> dict[str, np.ndarray]:
    facts = {name: column for name, column in ratings.user_facts.items() if name != "user"}
    return _joined(facts, ratings.user_facts.get("user"), ratings.users)


def _item_facts(ratings: Ratings) -> dict[str, np.ndarray]:
    facts = {name: column for name, column in ratings.item_facts.items() if name != "item"}
    if "genres" in facts:
        genres = [g.split("|") if isinstance(g, str) else [] for g in facts.pop("genres")]
        for place in range(GENRES):
            column = [row[place] if place < len(row) else "" for row in genres]
            facts[f"genre{place + 1}"] = np.array(column, object)
    return _joined(facts, ratings.item_facts.get("item"), ratings.items)


def _joined(
    facts: dict[str, np.ndarray], ids: np.ndarray | None, wanted: np.ndarray
) -> dict[str, np.ndarray]:
    """Look up the facts about each of the wanted ids."""
    if ids is None:
        return {}
    known, where = np.unique(wanted, return_inverse=True)
    order = np.argsort(ids, kind="stable")
    place = np.minimum(np.searchsorted(ids[order], known), len(ids) - 1)
    # What has no facts gets the row that is added to the end.
    place = np.where(ids[order][place] == known, order[place], len(ids))
    return {name: _filled(column)[place][where] for name, column in facts.items()}


def _filled(column: np.ndarray) -> np.ndarray:
    """Add the row of what is missing; texts become objects: a row holds a pointer, not a copy."""
    if column.dtype.kind in "fiu":
        return np.append(column, np.nan).astype(np.float32)
    return np.concatenate([column.astype(object), NO_TEXT])
