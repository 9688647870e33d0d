"""Ratings: MovieLens in every layout, files of anybody's, and splits that cut where they say."""

import hashlib
import http.server
import threading
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from sharing import or_skip

from tfcourse.data import movielens, rating_files
from tfcourse.data.cache import sha256
from tfcourse.data.ratings import (
    Ratings,
    check_labels,
    check_not_constant,
    latest_of_each_pair,
    leave_last_out,
    load_movielens,
    read_ratings,
    split_at_random,
    split_by_time,
)
from tfcourse.data.sources import SOURCES


@pytest.fixture(scope="module")
def movies():
    return or_skip(load_movielens)


def make(times, users=None, items=None, ratings=None):
    n = 1 if times is None else len(times)
    users = np.zeros(n, int) if users is None else np.array(users)
    items = np.arange(n) if items is None else np.array(items)
    return Ratings(users, items, np.ones(n) if ratings is None else ratings, times)


def test_movielens_100k_is_what_was_published(movies):
    assert len(movies) == 100_000
    assert np.bincount(movies.ratings.astype(int))[1:].tolist() == [
        6110,
        11370,
        27145,
        34174,
        21201,
    ]
    users, items, user_ids, item_ids = movies.numbered()
    assert (len(user_ids), len(item_ids)) == (943, 1682)
    assert np.bincount(users).min() == 20  # its README: each user rated at least 20 films
    assert (user_ids[users] == movies.users).all() and (item_ids[items] == movies.items).all()
    assert (np.diff(movies.timestamps) >= 0).all()
    facts = {name: column[0] for name, column in movies.user_facts.items()}
    assert facts == {"user": 1, "age": 24, "gender": "M", "occupation": "technician"}
    facts = {name: column[0] for name, column in movies.item_facts.items()}
    assert facts["title"] == "Toy Story" and facts["year"] == 1995
    assert facts["genres"] == "Animation|Children's|Comedy"
    # The film that nothing is known about, and a year that is none.
    assert np.isnan(movies.item_facts["year"]).sum() == 2
    assert movies.item_facts["genres"][266] == ""


RATED = [(196, 242, 3, 881250949), (186, 302, 5, 891717742), (196, 377, 1, 878887116)]
TITLES = {242: "Kolya (1996)", 302: "Am\u00e9lie, le (2001)", 377: "Nobody knows when"}


def write_100k(folder):
    folder.joinpath("u.data").write_text("".join("\t".join(map(str, r)) + "\n" for r in RATED))
    flags = {242: [5], 302: [5, 14], 377: []}
    lines = [
        "|".join([str(i), TITLES[i], "", "", ""] + [str(int(g in flags[i])) for g in range(19)])
        for i in TITLES
    ]
    folder.joinpath("u.item").write_text("\n".join(lines) + "\n", "latin-1")
    folder.joinpath("u.user").write_text("186|39|F|executive|00000\n196|49|M|writer|55105\n")


def write_1m(folder):
    folder.joinpath("ratings.dat").write_text("".join("::".join(map(str, r)) + "\n" for r in RATED))
    genres = {242: "Comedy", 302: "Comedy|Romance", 377: "(no genres listed)"}
    lines = [f"{i}::{TITLES[i]}::{genres[i]}\n" for i in TITLES]
    folder.joinpath("movies.dat").write_text("".join(lines), "latin-1")
    folder.joinpath("users.dat").write_text("186::F::39::executive::0\n196::M::49::writer::5\n")


def write_20m(folder):
    rows = "".join(",".join(map(str, r)) + "\n" for r in RATED)
    folder.joinpath("ratings.csv").write_text("userId,movieId,rating,timestamp\n" + rows)
    genres = {242: "Comedy", 302: "Comedy|Romance", 377: "(no genres listed)"}
    lines = [f'{i},"{TITLES[i]}",{genres[i]}\n' for i in TITLES]
    text = "movieId,title,genres\n" + "".join(lines)
    folder.joinpath("movies.csv").write_text(text, "utf-8")


@pytest.mark.parametrize("write", [write_100k, write_1m, write_20m])
@pytest.mark.parametrize("zipped", [False, True])
def test_every_layout_of_grouplens_reads_alike(tmp_path, write, zipped):
    folder = tmp_path / "download/ml-some"
    folder.mkdir(parents=True)
    write(folder)
    where = folder.parent
    if zipped:
        where = tmp_path / "ml-some.zip"
        with zipfile.ZipFile(where, "w") as archive:
            for file in folder.iterdir():
                archive.write(file, f"ml-some/{file.name}")
    found = load_movielens(folder=where)
    assert found.users.tolist() == [196, 196, 186]  # by time
    assert found.items.tolist() == [377, 242, 302]
    assert found.ratings.tolist() == [1, 3, 5]
    facts = {name: column.tolist() for name, column in found.item_facts.items()}
    assert facts["item"] == [242, 302, 377]
    assert facts["title"] == ["Kolya", "Am\u00e9lie, le", "Nobody knows when"]
    assert facts["genres"] == ["Comedy", "Comedy|Romance", ""]
    np.testing.assert_array_equal(facts["year"], [1996, 2001, np.nan])
    facts = {name: column.tolist() for name, column in found.user_facts.items()}
    whole = {"user": [186, 196], "age": [39, 49], "gender": ["F", "M"]}
    whole["occupation"] = ["executive", "writer"]
    assert facts == ({} if write is write_20m else whole)


@pytest.fixture
def server(tmp_path):
    """A publisher on this machine."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_the_publishers_file_is_fetched_once_and_checked(server, tmp_path, monkeypatch):
    folder, address = server
    write_1m(tmp_path)
    with zipfile.ZipFile(folder / "ml-1m.zip", "w") as archive:
        for name in ("ratings.dat", "movies.dat", "users.dat"):
            archive.write(tmp_path / name, f"ml-1m/{name}")
    monkeypatch.setenv("TFCOURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(movielens, "ADDRESS", address)
    with pytest.raises(ValueError, match=r"ml-1m\.zip must have the digest md5:c4d9eecf"):
        load_movielens("1m")
    monkeypatch.setitem(movielens.DIGESTS, "1m", hexdigest(folder / "ml-1m.zip"))
    assert len(load_movielens("1m")) == 3
    folder.joinpath("ml-1m.zip").unlink()
    assert len(load_movielens("1m")) == 3


def hexdigest(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_what_is_no_movielens_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="one of 100k, 1m, 10m, 20m, 25m, got '2m'"):
        load_movielens("2m")
    with pytest.raises(ValueError, match=r"must hold ml-100k\.inter and .*, got none of them"):
        load_movielens(folder=tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("TFCOURSE_CACHE", str(tmp_path))
    absent = replace(SOURCES["movielens-100k"], package="there-is-no-such-package")
    monkeypatch.setitem(SOURCES, "movielens-100k", absent)
    with pytest.raises(OSError, match="could not have 'movielens-100k'") as caught:
        load_movielens()
    assert "\n" not in str(caught.value)


def test_only_three_files_of_the_package_are_kept(movies):
    from tfcourse.data.sources import fetch

    folder = fetch("movielens-100k")
    if (folder / "recbole/__init__.py").exists():
        pytest.skip("the package is installed here")
    kept = [path for path in folder.rglob("*") if path.is_file()]
    assert sorted(path.suffix for path in kept) == [".inter", ".item", ".user"]
    for path in kept:
        assert sha256(path) in SOURCES["movielens-100k"].members.values()


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "mine.csv"
    path.write_bytes(text.encode(encoding))
    return path


HEADER = "user,item,rating,timestamp\n"


def test_ratings_of_anybody(tmp_path, monkeypatch):
    monkeypatch.setattr(rating_files, "CHUNK", 2)  # the ids turn out to be texts in the second
    text = '\ufeff"item","user",rating,more,timestamp\n'
    text += '7,1, 4.5,x,30\n"b, c",2,1,y,10.7\n\n007,3,2,z,10\nd,1,5,,30\n'
    found = read_ratings(write(tmp_path, text))
    assert found.items.tolist() == ["b, c", "007", "7", "d"]
    assert found.users.tolist() == [2, 3, 1, 1] and found.users.dtype == np.int64
    assert found.timestamps.tolist() == [10, 10, 30, 30]
    assert found.ratings.tolist() == [1, 2, 4.5, 5]
    spaces = read_ratings(write(tmp_path, "user, item, rating, timestamp\n1, 7, 3, 4\n"))
    assert spaces.items.tolist() == [7]
    huge = read_ratings(write(tmp_path, HEADER + "1,9223372036854775808,3,4\n\n\n\n"))
    assert huge.items.tolist() == ["9223372036854775808"]
    unsorted = read_ratings(write(tmp_path, text), sort=False)
    assert unsorted.timestamps.tolist() == [30, 10, 10, 30]


def test_clicks_without_ratings_or_times(tmp_path):
    found = read_ratings(
        write(tmp_path, "5\tx\n3\ty\n"), columns=(0, 1, None, None), separator="\t"
    )
    assert found.ratings.tolist() == [1, 1] and found.timestamps is None
    assert found.users.tolist() == [5, 3]
    parts = split_at_random(found, (0.5, 0, 0.5))
    assert sorted(np.concatenate(parts)) == [0, 1]


BAD_FILES = [
    ("", r"mine.csv must have the column user, its header has nothing"),
    (HEADER, "mine.csv must have at least one row, got none"),
    ("user,item,rating\n1,2,3\n", "the column timestamp, its header has user, item, rating"),
    (
        "user,item,rating,timestamp,user\n",
        "must have the column user once, its header has it twice",
    ),
    (HEADER + "1,2,3,4\n1,2,good,4\n", r"mine.csv, line 3: rating must be a number, got 'good'"),
    (HEADER + "1,2,3,4\n\n1,2,nan,4\n", r"mine.csv, line 4: rating must be a number, got 'nan'"),
    (HEADER + '1,2,3,4\n1,"2,3,4\n' + 99_999 * "12", r"mine.csv, line 4: field larger than"),
    (HEADER + "1,2,3,\n", r"mine.csv, line 2: timestamp must be a number, got ''"),
    (HEADER + "1,,3,4\n", r"mine.csv, line 2: item must not be empty, got ''"),
    (HEADER + "1,2,3\n", r"mine.csv, line 2: there must be at least 4 cells, got 3"),
    ("user,item,rating,timestamp\n\u00e9,2,3,4\n", "mine.csv must be text in utf-8"),
]


@pytest.mark.parametrize(("text", "message"), BAD_FILES)
def test_a_bad_file_is_one_clear_line(tmp_path, text, message):
    path = write(tmp_path, text, "latin-1")
    with pytest.raises(ValueError, match=message) as caught:
        read_ratings(path)
    assert "\n" not in str(caught.value)


def rated(**changed):
    columns = {"users": [1, 2], "items": [1, 2], "ratings": [3, 4], "timestamps": [5, 6]}
    return Ratings(**{name: np.array(v) for name, v in (columns | changed).items()})


REFUSED = [
    (
        lambda: rated(ratings=[3, np.nan]),
        r"ratings must be from -3e\+38 to 3e\+38, got nan in row 1",
    ),
    (lambda: rated(ratings=[1e39, 1]), r"to 3e\+38, got 1e\+39 in row 0"),
    (lambda: rated(timestamps=[np.inf, 1]), r"-9e\+15 to 9e\+15, got inf in row 0"),
    (lambda: rated(timestamps=[1, 1e30]), r"9e\+15, got 1e\+30 in row 1"),
    (lambda: rated(users=["a", ""]), "users must not be empty, got '' in row 1"),
    (lambda: rated(items=7), r"items must be integers or texts \(rows,\), got int64 \(\)"),
    (lambda: rated(ratings=["a", "b"]), "ratings must be numbers, got <U1"),
    (lambda: rated(users=[1.0, 2.0]), r"users must be integers or texts \(rows,\), got float64"),
    (lambda: rated(items=[1]), "items must be as many as the ratings, 2, got 1"),
    (lambda: rated(users=[], items=[], ratings=[], timestamps=[]), "at least one row, got none"),
    (lambda: rated(ratings=[[1, 2]]), r"ratings must have the shape \(rows,\), got \(1, 2\)"),
    (
        lambda: Ratings([1], [1], [1], user_facts={"age": [3]}),
        "user_facts must have a column user with each id once",
    ),
    (
        lambda: Ratings([1], [1], [1], item_facts={"item": [3, 3]}),
        "item_facts must have a column item with each id once",
    ),
    (
        lambda: Ratings([1], [1], [1], item_facts={"item": ["3"]}),
        "item_facts must have the ids of the ratings, of int64, got <U1",
    ),
    (
        lambda: Ratings([1], [1], [1], item_facts={"item": [3], "year": [1, 2]}),
        "columns of one length, got 2 of year and 1 of item",
    ),
    (lambda: split_by_time(make(None)), "must have timestamps to be put in order of time"),
    (lambda: leave_last_out(make(None)), "split_at_random does without"),
    (
        lambda: split_by_time(make([3, 5, 4, 1])),
        r"timestamps must be in order, got 4 in row 2 after 5; read_ratings\(..., sort=True\)",
    ),
    (lambda: split_by_time(make([1, 2]), (0.5, 0.5)), "three numbers from 0 that add up to 1"),
    (lambda: split_at_random(make([1]), (0.5, 0.5, 0.5)), r"got \(0.5, 0.5, 0.5\)"),
    (lambda: split_at_random(make([1]), (1.5, -0.5, 0)), r"got \(1.5, -0.5, 0\)"),
    (lambda: split_by_time(make([1, 2]), (0.5, np.nan, 0.5)), r"got \(0.5, nan, 0.5\)"),
    (lambda: split_at_random(make([1, 2, 3])), "test part must have an event, got none: 3 events"),
    (lambda: split_by_time(make([1] * 9)), "the training part must have an event, got none: 9"),
    (lambda: split_by_time(make([1, 2, 2, 2])), "test part must have .*at 2 different times"),
    (lambda: leave_last_out(make([1, 2])), "must have at least 3 events for this split, got 2"),
    (lambda: check_labels(np.ones(7)), "labels must not all be the same, got 1 for each of 7 rows"),
    (lambda: check_labels(np.zeros((3, 1))), "got 0 for each of 3 rows"),
    (lambda: check_labels([]), "labels must have at least one row, got none"),
    (lambda: check_labels([0, 1, 3]), "labels must be 0 or 1, got 3"),
    (
        lambda: check_not_constant("ratings", [4.5, 4.5]),
        "ratings must not all be the same, got 4.5 for each of 2 rows",
    ),
    (lambda: read_ratings("x", columns=("a", None, "b", "c")), "columns must name user, item"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_both_labels_pass():
    check_labels(np.array([[0.0], [1.0]]))


@pytest.mark.parametrize(
    ("times", "kept"),
    [([5, 4, 3, 2, 6], [0, 2, 4]), ([3, 3, 3, 3, 3], [2, 3, 4]), (None, [2, 3, 4])],
)
def test_of_a_pair_rated_again_the_latest_is_kept(times, kept):
    # User 7 rates item 1 in rows 0, 1 and 3; user 8 does once.
    users, items = np.array([7, 7, 7, 7, 8]), np.array([1, 1, 2, 1, 1])
    found = latest_of_each_pair(Ratings(users, items, [1, 2, 3, 4, 5], times))
    assert (found.ratings - 1).tolist() == kept
    assert found.users.tolist() == users[kept].tolist()
    assert len(latest_of_each_pair(found)) == len(found)


def test_a_split_by_time_parts_no_moment(movies):
    for times in (movies.timestamps, np.repeat(np.arange(20), 5)):
        train, validation, test = split_by_time(make(times))
        assert np.concatenate([train, validation, test]).tolist() == list(range(len(times)))
        assert times[train[-1]] < times[validation[0]]
        assert times[validation[-1]] < times[test[0]]
        assert abs(len(train) / len(times) - 0.8) < 0.051
    # The cuts, after 8 and 9 of 10, would part the events at 4.
    parts = split_by_time(make([0, 1, 2, 3, 3, 3, 3, 4, 4, 9]), (0.8, 0.1, 0.1))
    assert [len(part) for part in parts] == [7, 2, 1]
    assert [len(p) for p in split_by_time(make([1, 2, 3, 4]), (0.75, 0, 0.25))] == [3, 0, 1]


def test_leave_last_out_takes_each_users_last(movies):
    train, validation, test = leave_last_out(movies)
    assert (len(train), len(validation), len(test)) == (98_114, 943, 943)
    assert len(np.unique(np.concatenate([train, validation, test]))) == 100_000
    last = {}
    for row, user in enumerate(movies.users.tolist()):
        last.setdefault(user, []).append(row)
    assert sorted(test) == sorted(rows[-1] for rows in last.values())
    assert sorted(validation) == sorted(rows[-2] for rows in last.values())
    few = make([1, 1, 2, 3, 3], users=["a", "b", "a", "a", "b"])
    assert [p.tolist() for p in leave_last_out(few)] == [[0, 1, 4], [2], [3]]


def test_a_random_split_is_of_its_seed():
    ratings = make(np.arange(1000))
    first, again, other = (split_at_random(ratings, seed=seed) for seed in (0, 0, 1))
    assert [len(part) for part in first] == [800, 100, 100]
    assert np.unique(np.concatenate(first)).size == 1000
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert first[2].tolist() != other[2].tolist()
    # Not the last ones: the mean row of the test part is near the middle, 4 standard errors.
    assert abs(first[2].mean() - 499.5) < 4 * 289 / 10


def test_a_part_keeps_facts_and_repeated_ratings():
    ratings = Ratings([1, 1, 2], [5, 5, 6], [1, 2, 3], [1, 2, 3], {"user": np.array([1, 2])})
    part = ratings.take(np.array([1, 0]))
    assert part.ratings.tolist() == [2, 1] and part.timestamps.tolist() == [2, 1]
    assert part.user_facts["user"].tolist() == [1, 2]
    assert len(ratings) == 3
