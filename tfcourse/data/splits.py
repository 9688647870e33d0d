"""Parts of a set of ratings: to train on, to choose on, and to report on."""

from typing import Any

import numpy as np

Parts = tuple[np.ndarray, np.ndarray, np.ndarray]


def split_by_time(ratings: Any, shares: tuple[float, float, float] = (0.8, 0.1, 0.1)) -> Parts:
    """Train on the first events, validate on the next, test on the last.

    Events of one moment stay together: a cut that would part them moves to before the first of
    them, so that no part has an event that is as old as one of the part before.

    Args:
        ratings: `Ratings`, in order of time.
        shares: Of the events, for training, validation and test; they add up to 1.

    Returns:
        The numbers of the rows of the three parts, in order.

    Raises:
        ValueError: If times are missing or out of order, or a share is wrong or leaves no event.
    """
    check_shares(shares)
    times = check_order(ratings)
    cuts = np.round(np.cumsum(shares)[:2] * len(times)).astype(int)
    # The end of the data is no cut through anything.
    cuts = [np.searchsorted(times, times[cut]) if cut < len(times) else cut for cut in cuts]
    parts = tuple(np.split(np.arange(len(times)), cuts))
    _check_parts(shares, parts, f" at {len(np.unique(times))} different times")
    return parts


def leave_last_out(ratings: Any) -> Parts:
    """Test on the last event of each user, validate on the last but one, train on the others.

    All events of a user with fewer than three are for training. Of a user's events at one moment
    the one that stands later is the later one.

    Args:
        ratings: `Ratings`, in order of time.

    Returns:
        The numbers of the rows of the three parts, in order.

    Raises:
        ValueError: If times are missing or out of order, or no user has three events.
    """
    check_order(ratings)
    _, users, counts = np.unique(ratings.users, return_inverse=True, return_counts=True)
    if counts.max() < 3:
        raise ValueError(
            f"a user must have at least 3 events for this split, got {counts.max()} at most"
        )
    by_user = np.argsort(users, kind="stable")
    last = np.cumsum(counts)[counts >= 3] - 1
    test, validation = by_user[last], by_user[last - 1]
    rest = np.ones(len(users), bool)
    rest[test] = rest[validation] = False
    return np.flatnonzero(rest), np.sort(validation), np.sort(test)


def split_at_random(
    ratings: Any, shares: tuple[float, float, float] = (0.8, 0.1, 0.1), seed: int = 0
) -> Parts:
    """Deal the events out at random; what was rated later helps to predict what was earlier.

    Args:
        ratings: `Ratings`; times are not needed.
        shares: Of the events, for training, validation and test; they add up to 1.
        seed: Of the order.

    Returns:
        The numbers of the rows of the three parts, each sorted.

    Raises:
        ValueError: If a share is wrong or leaves no event.
    """
    check_shares(shares)
    rows = np.random.default_rng(seed).permutation(len(ratings))
    cuts = np.round(np.cumsum(shares)[:2] * len(rows)).astype(int)
    train, validation, test = (np.sort(part) for part in np.split(rows, cuts))
    _check_parts(shares, (train, validation, test))
    return train, validation, test


def check_order(ratings: Any) -> np.ndarray:
    """Return the times of ratings, which must have them, in order.

    Raises:
        ValueError: If times are missing or out of order.
    """
    times = ratings.timestamps
    if times is None:
        raise ValueError(
            "ratings must have timestamps to be put in order of time, got none; "
            "split_at_random does without"
        )
    if (early := times[1:] < times[:-1]).any():
        row = int(np.argmax(early)) + 1
        raise ValueError(
            f"timestamps must be in order, got {times[row]} in row {row} after {times[row - 1]}; "
            "read_ratings(..., sort=True) sorts"
        )
    return times


def check_labels(labels: np.ndarray) -> None:
    """Refuse labels that nothing can be learnt from.

    Args:
        labels: 0 or 1, of the training part.

    Raises:
        ValueError: If one of the two is missing, or there is a third.
    """
    found = np.unique(np.asarray(labels))
    if not np.isin(found, (0, 1)).all():
        raise ValueError(f"labels must be 0 or 1, got {found[~np.isin(found, (0, 1))][0]}")
    check_not_constant("labels", labels)


def check_not_constant(name: str, values: np.ndarray) -> None:
    """Refuse numbers that are all the same: to say that one number again needs no model.

    Args:
        name: What they are, for the message.
        values: Labels or ratings, of the training part.

    Raises:
        ValueError: If they are all the same, or there is none.
    """
    values = np.asarray(values)
    if not values.size:
        raise ValueError(f"{name} must have at least one row, got none")
    if (value := values.min()) == values.max():
        raise ValueError(
            f"{name} must not all be the same, got {float(value):g} for each of {len(values)} rows"
        )


def check_shares(shares: tuple[float, float, float]) -> None:
    """Refuse shares of three parts that don't add up to 1, or leave nothing for training.

    Raises:
        ValueError: If they are so.
    """
    right = len(shares) == 3 and min(shares) >= 0 and shares[0] > 0
    if not right or not abs(sum(shares) - 1) < 1e-9:
        raise ValueError(
            f"shares must be three numbers from 0 that add up to 1, the first above 0, got {shares}"
        )


def _check_parts(shares: tuple[float, float, float], parts: Parts, times: str = "") -> None:
    for name, share, part in zip(("training", "validation", "test"), shares, parts, strict=True):
        if share and not len(part):
            raise ValueError(
                f"the {name} part must have an event, got none: {sum(map(len, parts))} "
                f"events{times} can't be split into {shares}"
            )
