"""The columns of a recommender: one list of them serves every model and every loader of data.

A category's id 0 stands for padding and for what is not known; the others are 1 to size - 1.
What a pipeline (`data.pipeline`) made is within that. In arrays made by hand `training.fit` refuses
ids out of range, and `check_batch` all that is wrong. A model itself can't stop at an id out of
range on every device: it takes it for unknown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Number:
    """A number, such as an age; missing ones are filled in before they come here.

    Attributes:
        name: Of the column.
    """

    name: str


@dataclass(frozen=True)
class Category:
    """One of a set of things, such as an item, by its id.

    Attributes:
        name: Of the column.
        size: Rows of its table: ids are 0 (padding, unknown) to size - 1.
    """

    name: str
    size: int


@dataclass(frozen=True)
class History:
    """What came before, the newest first, padded with 0 at the end.

    Attributes:
        name: Of the column.
        item: The category whose ids they are, and whose table they share.
        length: How many; older ones are forgotten.
    """

    name: str
    item: Category
    length: int


@dataclass(frozen=True)
class Cross:
    """Several categories at once, as one: hashed, since most combinations never occur.

    Attributes:
        name: Of the cross; no column has it, the model computes it from its categories.
        categories: Two or more.
        size: Rows of its table: 0 where one of the categories is unknown, else 1 to size - 1.
    """

    name: str
    categories: tuple[Category, ...]
    size: int


Feature = Number | Category | History | Cross


def check_features(features: Sequence[Feature]) -> None:
    """Refuse a list of columns that no model can be built from.

    Raises:
        ValueError: If there is none, a name is there twice, a size is too small, or a category is
            not the one that stands in the list under its name.
    """
    if not features:
        raise ValueError("features must have at least one column, got none")
    if wrong := [feature for feature in features if not isinstance(feature, Feature)]:
        raise ValueError(f"features must be of Number, Category, History, Cross, got {wrong[0]!r}")
    names = [feature.name for feature in features]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"features must have each name once, got {', '.join(twice)} twice")
    found: dict[str, Feature] = {feature.name: feature for feature in features}
    for feature in features:
        _check_sizes(feature)
        for category in categories_of(feature):
            other = found.setdefault(category.name, category)
            if other != category:
                raise ValueError(
                    f"features must have one column {category.name}, got {category} and {other}"
                )


def categories_of(feature: Feature) -> tuple[Category, ...]:
    """Return the categories whose ids a column has, or is computed from."""
    if isinstance(feature, Category):
        return (feature,)
    if isinstance(feature, History):
        return (feature.item,)
    return feature.categories if isinstance(feature, Cross) else ()


def columns(features: Sequence[Feature]) -> dict[str, Number | Category | History]:
    """Return what a batch must have, by name: the features, with the categories of the crosses."""
    found = {f.name: f for f in features if not isinstance(f, Cross)}
    for feature in features:
        if isinstance(feature, Cross):
            for category in feature.categories:
                found.setdefault(category.name, category)
    return found


def check_batch(features: Sequence[Feature], batch: Mapping[str, np.ndarray]) -> None:
    """Hold arrays against the columns that a model was built from.

    Args:
        features: The columns.
        batch: Arrays by name: numbers `(rows,)`, ids `(rows,)`, histories `(rows, length)`.

    Raises:
        ValueError: If a column is missing or has another shape, kind or number of rows, a number is
            not finite, or an id is out of range; the message names column, row and value.
    """
    rows = {}
    for name, feature in columns(features).items():
        if name not in batch:
            raise ValueError(f"column {name} is missing; there are {', '.join(sorted(batch))}")
        array = np.asarray(batch[name])
        width = (feature.length,) if isinstance(feature, History) else ()
        if array.shape[1:] != width or array.ndim == 0:
            raise ValueError(
                f"column {name} must have the shape {('rows', *width)}, got {array.shape}"
            )
        _check_values(name, feature, array)
        rows[name] = len(array)
    if len(set(rows.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in rows.items())
        raise ValueError(f"columns must be equally long, got {found}")


def _check_values(name: str, feature: Number | Category | History, array: np.ndarray) -> None:
    if not isinstance(feature, Number):
        check_ids(name, categories_of(feature)[0].size, array)
        return
    if array.dtype.kind not in "fiub":
        raise ValueError(f"column {name} must be numbers, got {array.dtype}")
    _refuse(name, ~np.isfinite(array), "must be a finite number", array)


def check_ids(name: str, size: int, array: np.ndarray) -> None:
    """Hold ids against the rows of the table that they are to be looked up in.

    Args:
        name: Of their column.
        size: How many rows there are.
        array: Ids, `(rows,)` or `(rows, length)`.

    Raises:
        ValueError: If they are no integers, or one is out of range; the message names column, row
            and value.
    """
    if array.dtype.kind not in "iu":
        raise ValueError(f"column {name} must be integers, got {array.dtype}")
    rule = f"must have ids from 0 to {size - 1}"
    _refuse(name, (array < 0) | (array >= size), rule, array)


def _refuse(name: str, bad: np.ndarray, rule: str, array: np.ndarray) -> None:
    if bad.any():
        where = np.argwhere(bad)[0]
        raise ValueError(f"column {name} {rule}, got {array[tuple(where)]} in row {where[0]}")


def _check_sizes(feature: Feature) -> None:
    for category in categories_of(feature):
        if category.size < 2:
            raise ValueError(f"{category.name}: size must be at least 2, got {category.size}")
    if isinstance(feature, History) and feature.length < 1:
        raise ValueError(f"{feature.name}: length must be at least 1, got {feature.length}")
    if isinstance(feature, Cross):
        if feature.size < 2:
            raise ValueError(f"{feature.name}: size must be at least 2, got {feature.size}")
        if len(feature.categories) < 2:
            raise ValueError(
                f"{feature.name}: a cross must have at least 2 categories, "
                f"got {len(feature.categories)}"
            )
