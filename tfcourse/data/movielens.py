"""The files of MovieLens, in every layout that they were published in.

GroupLens' own: `u.data` (100k), `ratings.dat` with `::` (1m, 10m), `ratings.csv` (20m and later).
The 100k also comes as tables with `name:type` headers in a package of the registry.
"""

import contextlib
import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TextIO

import numpy as np

from tfcourse.data.downloads import download
from tfcourse.data.rating_files import ids, read_columns, texts
from tfcourse.data.sources import SOURCES, fetch

ADDRESS = "https://files.grouplens.org/datasets/movielens"
# MD5 as published beside each file.
DIGESTS = {
    "1m": "c4d9eecfca2ab87c1945afe126590906",
    "10m": "ce571fd55effeba0271552578f2648bd",
    "20m": "cd245b17a1ae2cc31bb14903e1204af3",
    "25m": "6b51fb2759a8657d3bfcbfc42b592ada",
}
NAMES = ("100k", *DIGESTS)
# The flags at the end of a line of u.item, in the order of u.genre.
GENRES = (  # noqa: SIM905
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy "
    "Film-Noir Horror Musical Mystery Romance Sci-Fi Thriller War Western"
).split()
NO_GENRE = ("", "unknown", "(no genres listed)")


@dataclass(frozen=True)
class Layout:
    """Where a kind of MovieLens has its columns: words of a header, or places.

    Attributes:
        ratings: The file of ratings.
        separator: Between its cells.
        columns: User, item, rating and timestamp in it.
        items: The file of items, and its separator.
        item_columns: Item, title and genres in it; where genres are flags, `None`.
        users: The file of users, and its separator; `None` where there is none.
        user_columns: The columns of the facts in it, by name.
        encoding: Of all files.
    """

    ratings: str
    separator: str
    columns: tuple[str | int, ...]
    items: tuple[str, str]
    item_columns: dict[str, str | int]
    users: tuple[str, str] | None = None
    user_columns: dict[str, str | int] | None = None
    encoding: str = "latin-1"


LAYOUTS = (
    Layout(
        "ml-100k.inter",
        "\t",
        ("user_id:token", "item_id:token", "rating:float", "timestamp:float"),
        ("ml-100k.item", "\t"),
        {
            "item": "item_id:token",
            "title": "movie_title:token_seq",
            "year": "release_year:token",
            "genres": "class:token_seq",
        },
        ("ml-100k.user", "\t"),
        {
            "user": "user_id:token",
            "age": "age:token",
            "gender": "gender:token",
            "occupation": "occupation:token",
        },
        "utf-8",
    ),
    Layout(
        "u.data",
        "\t",
        (0, 1, 2, 3),
        ("u.item", "|"),
        {"item": 0, "title": 1} | {genre: 5 + i for i, genre in enumerate(GENRES)},
        ("u.user", "|"),
        {"user": 0, "age": 1, "gender": 2, "occupation": 3},
    ),
    Layout(
        "ratings.dat",
        "::",
        (0, 1, 2, 3),
        ("movies.dat", "::"),
        {"item": 0, "title": 1, "genres": 2},
        ("users.dat", "::"),
        {"user": 0, "gender": 1, "age": 2, "occupation": 3},
    ),
    Layout(
        "ratings.csv",
        ",",
        ("userId", "movieId", "rating", "timestamp"),
        ("movies.csv", ","),
        {"item": "movieId", "title": "title", "genres": "genres"},
        encoding="utf-8-sig",
    ),
)


class Files:
    """The files of one data set, in a folder or in a zip file."""

    def __init__(self, root: Path | zipfile.ZipFile, names: dict[str, str], layout: Layout):
        self.root, self.names, self.layout = root, names, layout

    @contextlib.contextmanager
    def text(self, name: str) -> Iterator[TextIO]:
        where = self.names[name]
        zipped = isinstance(self.root, zipfile.ZipFile)
        with self.root.open(where) if zipped else open(self.root / where, "rb") as file:
            yield io.TextIOWrapper(file, self.layout.encoding, newline="")


@contextlib.contextmanager
def opened(name: str, folder: str | Path | None) -> Iterator[Files]:
    """Give the files of a data set, fetched if need be."""
    path = _path(name) if folder is None else Path(folder)
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {path}")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as root:
            yield _files(path, root, root.namelist())
    else:
        inside = [p.relative_to(path).as_posix() for p in path.glob("*")]
        inside += [p.relative_to(path).as_posix() for p in path.glob("ml-*/*")]
        yield _files(path, path, inside)


def item_facts(files: Files) -> dict[str, np.ndarray]:
    """Return the table of items: ids, titles without years, years, and genres."""
    found = _facts(files, files.layout.items, files.layout.item_columns)
    titles, years = zip(*map(_title_and_year, found["title"]), strict=True)
    if "year" in found:
        years = [float(year) if year.isdigit() else np.nan for year in found["year"]]
    if "genres" in found:
        genres = [re.split(r"[| ](?!genres|listed)", text) for text in found["genres"]]
    else:
        flags = np.array([found[genre] for genre in GENRES]).T == "1"
        genres = [[g for g, on in zip(GENRES, row, strict=True) if on] for row in flags]
    return {
        "item": found["item"],
        "title": np.array(titles, object),
        "year": np.array(years, np.float32),
        "genres": texts(["|".join(g for g in row if g not in NO_GENRE) for row in genres]),
    }


def user_facts(files: Files) -> dict[str, np.ndarray]:
    """Return the table of users, empty where nothing is known about them."""
    layout = files.layout
    if layout.users is None or layout.users[0] not in files.names:
        return {}
    found = _facts(files, layout.users, layout.user_columns)
    return found | {"age": found["age"].astype(np.float32)}


def _facts(
    files: Files, file: tuple[str, str], wanted: dict[str, str | int]
) -> dict[str, np.ndarray]:
    name, separator = file
    converters = {column: ids if column in ("user", "item") else texts for column in wanted}
    with files.text(name) as opened_file:
        return read_columns(opened_file, name, separator, wanted, converters)


def _title_and_year(title: str) -> tuple[str, float]:
    title = title.strip()
    dated = re.fullmatch(r"(.*?)\s*\((\d{4})\)(?: \(V\))?", title)  # (V): a video
    return (dated[1], float(dated[2])) if dated else (title, np.nan)


def _path(name: str) -> Path:
    if name not in NAMES:
        raise ValueError(f"a MovieLens must be one of {', '.join(NAMES)}, got {name!r}")
    if name in DIGESTS:
        return download(f"{ADDRESS}/ml-{name}.zip", f"md5:{DIGESTS[name]}")
    member = next(iter(SOURCES["movielens-100k"].members))
    return (fetch("movielens-100k") / member).parent


def _files(path: Path, root: Path | zipfile.ZipFile, inside: list[str]) -> Files:
    names = {PurePosixPath(name).name: name for name in inside}
    for layout in LAYOUTS:
        if layout.ratings in names and layout.items[0] in names:
            return Files(root, names, layout)
    pairs = " or ".join(f"{layout.ratings} and {layout.items[0]}" for layout in LAYOUTS)
    raise ValueError(f"{path} must hold {pairs}, got none of them")
