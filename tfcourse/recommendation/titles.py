"""Items by their titles, and users by their ids, as people write them."""

import difflib
import math
import re

import numpy as np

from tfcourse.data.ratings import Ratings

ARTICLES = "the|a|an|la|le|les|il|el|das|der|die"
NEAR = 4  # titles that are named where none is the one


def titles_of(ratings: Ratings) -> dict[str, str]:
    """Return the title of every item, such as "Toy Story (1995)", by its raw id as a text.

    An item without a title is called by its id.
    """
    facts = ratings.item_facts
    names = {str(item): str(item) for item in np.unique(ratings.items).tolist()}
    if "title" not in facts:
        return names
    years = facts.get("year", [math.nan] * len(facts["item"]))
    for item, title, year in zip(facts["item"].tolist(), facts["title"], years, strict=True):
        if title:
            names[str(item)] = str(title) if math.isnan(year) else f"{title} ({year:.0f})"
    return names


def genres_of(ratings: Ratings) -> dict[str, str]:
    """Return the first genre of every item that has one, by its raw id as a text."""
    facts = ratings.item_facts
    pairs = zip(facts.get("item", ()), facts.get("genres", ()), strict=True)
    return {str(item): genres.split("|")[0] for item, genres in pairs}


def find_user(ratings: Ratings, wanted: str) -> int | str:
    """Return the raw id of a user from its text, such as 42 for "42".

    Raises:
        ValueError: If the ratings have no such user.
    """
    users = {str(user): user for user in np.unique(ratings.users).tolist()}
    if wanted not in users:
        raise ValueError(f"--user must be one of the {len(users)} users, got {wanted!r}")
    return users[wanted]


def find_title(titles: dict[str, str], wanted: str) -> str:
    """Return the raw id of a title, with or without its year, "The" in front or behind a comma.

    Args:
        titles: What `titles_of` returned.
        wanted: The title.

    Raises:
        ValueError: If there is none; the message names titles that are near.
    """
    known: dict[str, str] = {}
    for item, title in titles.items():
        for form in (title, _without_year(title)):
            known.setdefault(_plain(form), item)
    plain = _plain(wanted)
    if plain in known:
        return known[plain]
    containing = sorted((form for form in known if plain and plain in form), key=len)
    near = [*containing, *difflib.get_close_matches(plain, known, NEAR, cutoff=0.5)]
    found = list(dict.fromkeys(titles[known[form]] for form in near))[:NEAR]
    there = f"near are: {'; '.join(found)}" if found else "none is near"
    raise ValueError(f"no title {wanted!r}; {there}")


def _without_year(title: str) -> str:
    return re.sub(r" \(\d{4}\)$", "", title)


def _plain(title: str) -> str:
    """Write "Godfather, The (1972)" and "the godfather (1972)" alike."""
    title = " ".join(title.casefold().split())
    return re.sub(rf"^(.*), ({ARTICLES})(?= \(\d{{4}}\)$|$)", r"\2 \1", title)
