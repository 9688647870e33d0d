"""The task of retrieval: which item will a user like next, of all that there are?"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tfcourse.data.events import make_events
from tfcourse.data.ratings import Ratings, leave_last_out


@dataclass(frozen=True, eq=False)
class LastLikes:
    """Events in order of time, of which each user's last two liked ones are held out.

    Attributes:
        ratings: What the events are made from.
        events: The raw table of `make_events`.
        users: The number of the user of each event, from 0, `(events,)`.
        items: The number of its item, from 0, `(events,)`.
        train: Numbers of the liked events to learn from.
        disliked: Those of the events before the ones held out that were not liked.
        validation: Those of each user's last liked event but one.
        test: Those of each user's last liked event.
    """

    ratings: Ratings
    events: dict[str, np.ndarray]
    users: np.ndarray
    items: np.ndarray
    train: np.ndarray
    disliked: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """How many users and items there are."""
        return int(self.users.max()) + 1, int(self.items.max()) + 1

    @property
    def catalogue(self) -> dict[str, np.ndarray]:
        """An event of each item, by the item's number: its facts."""
        return self.rows(np.unique(self.items, return_index=True)[1])

    def rows(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Return some of the events."""
        return {name: column[numbers] for name, column in self.events.items()}

    def seen(self, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what users had rated, liked or not, before some events.

        Args:
            asked: Numbers of events, one of a user at most.

        Returns:
            Pairs of a place in `asked` and the number of an item, `(pairs,)` each.
        """
        place = np.full(self.shape[0], -1)
        place[self.users[asked]] = np.arange(len(asked))
        row = place[self.users]
        before = (row >= 0) & (np.arange(len(row)) < np.asarray(asked)[row])
        return row[before], self.items[before]

    @cached_property
    def _first_ratings(self) -> tuple[np.ndarray, np.ndarray]:
        """Each pair of a user and an item as one number, in order, and its first event."""
        return np.unique(self.users * np.int64(self.shape[1]) + self.items, return_index=True)

    def first_rating(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return the number of the event at which each user first rated an item.

        Args:
            users: Numbers of users.
            items: Numbers of items, of a shape that goes with that of `users`.

        Returns:
            Numbers in the shape of both; where he never did, how many events there are.
        """
        pairs, first = self._first_ratings
        asked = users * np.int64(self.shape[1]) + items
        place = np.minimum(np.searchsorted(pairs, asked), len(pairs) - 1)
        return np.where(pairs[place] == asked, first[place], len(self.items))

    @cached_property
    def seen_before_test(self) -> list[np.ndarray]:
        """The numbers of the items that each user of the test part had rated before."""
        row, item = self.seen(self.test)
        row, item = np.divmod(np.unique(row * self.shape[1] + item), self.shape[1])
        return np.split(item, np.searchsorted(row, np.arange(1, len(self.test))))

    def check_left(self, least: int) -> int:
        """Return how many items each user of the test part has left for a list, at least.

        Raises:
            ValueError: If there are too few.
        """
        left = self.shape[1] - max(map(len, self.seen_before_test))
        if left < least:
            raise ValueError(f"each user must have {least} films left for a list, got {left}")
        return left

    def now(self, user: int | str) -> dict[str, np.ndarray | list]:
        """Return one row of raw columns: a user with all that he liked, the newest first.

        Raises:
            ValueError: If the data have no such user.
        """
        mine = np.flatnonzero(self.ratings.users == user)
        if not len(mine):
            raise ValueError(f"user must be one of the data, got {user!r}")
        liked = mine[self.events["label"][mine] > 0]
        return self.rows(mine[-1:]) | {"seen": [self.ratings.items[liked][::-1].tolist()]}


def hold_out_last_likes(
    ratings: Ratings, *, history_length: int = 20, like: float = 3.5
) -> LastLikes:
    """Hold out the last item that each user liked for testing, the one before for validation.

    Args:
        ratings: In order of time.
        history_length: How many liked items before an event are kept.
        like: The least rating that is a like.

    Returns:
        Events and parts. A user with fewer than three likes is in the training part alone.

    Raises:
        ValueError: If times are missing or out of order, or no user has three likes.
    """
    events = make_events(ratings, history_length=history_length, like=like, with_statistics=False)
    liked = np.flatnonzero(events["label"])
    if not len(liked):
        raise ValueError(f"ratings must have a like, {like:g} or more, got {ratings.ratings.max()}")
    train, *held_out = (liked[part] for part in leave_last_out(ratings.take(liked)))
    users, items, user_ids, _ = ratings.numbered()
    end = np.full(len(user_ids), len(users))
    end[users[held_out[0]]] = held_out[0]
    disliked = np.flatnonzero((events["label"] == 0) & (np.arange(len(users)) < end[users]))
    return LastLikes(ratings, events, users, items, train, disliked, *held_out)
