"""From raw tables to ids and numbers: what is learned, what is refused, and files of any size."""

import csv
import json
import random
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from sklearn.preprocessing import KBinsDiscretizer, StandardScaler

from tfcourse import training
from tfcourse.data import csv_files, learning
from tfcourse.data.features import Category, Cross, History, Number, check_batch, check_features
from tfcourse.data.pipeline import (
    Bucketed,
    Combined,
    Hashed,
    Normalised,
    Pipeline,
    Sequence,
    Vocabulary,
)
from tfcourse.recommendation.embedding import embed, make_inputs

RNG = np.random.default_rng(0)
ROWS = 300
TABLE = {
    "user": RNG.integers(1, 30, ROWS),
    "item": RNG.choice(["Alien", "Brazil, 1985", 'The "Thing"', "Amélie", "千と千尋"], ROWS),
    "age": np.where(RNG.random(ROWS) < 0.1, np.nan, RNG.integers(15, 70, ROWS)),
    "price": RNG.exponential(100, ROWS).astype("float32"),
    "year": RNG.integers(1930, 2000, ROWS),
    "job": RNG.choice(["writer", "none", ""], ROWS),
    "seen": [" ".join(RNG.choice(["a", "b", "c"], n)) for n in RNG.integers(0, 5, ROWS)],
    "label": RNG.integers(0, 2, ROWS),
}
WORDS = Vocabulary("word")
SPECS = [
    Combined("both", ("user", "year"), 77),
    Sequence("seen", "word", 3),
    Vocabulary("user"),
    Vocabulary("item", min_count=60),
    WORDS,
    Normalised("age"),
    Normalised("price", logarithm=True),
    Bucketed("year", 7),
    Hashed("job", 12),
]
TABLE["word"] = RNG.choice(["a", "b"], ROWS)


def frame():
    return pd.DataFrame(TABLE)


def equal(arrays, others):
    assert list(arrays) == list(others)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, others[name])
        assert array.dtype == others[name].dtype


def refused(message, function, *arguments):
    with pytest.raises(ValueError) as error:
        function(*arguments)
    assert str(error.value) == message


def test_columns_of_the_model_come_in_the_order_of_the_specs():
    pipeline = Pipeline(SPECS).fit(TABLE)
    features = pipeline.features
    assert [feature.name for feature in features] == [spec.name for spec in SPECS]
    user, word = Category("user", 1 + len(set(TABLE["user"]))), Category("word", 3)
    year = Category("year", 8)
    assert features[0] == Cross("both", (user, year), 77)
    assert features[1] == History("seen", word, 3)
    assert features[2:5:2] == [user, word]
    assert features[5:] == [Number("age"), Number("price"), year, Category("job", 12)]
    assert pipeline.feature("user") == user
    check_features(features)
    check_batch(features, pipeline.transform(TABLE))


def test_vocabulary_goes_by_frequency_and_leaves_out_the_rare():
    pipeline = Pipeline([Vocabulary("item", min_count=60)]).fit(TABLE)
    counts = Counter(TABLE["item"].tolist())
    terms = pipeline.vocabulary("item").tolist()
    assert terms[0] == ""
    assert sorted(terms[1:]) == sorted(t for t, n in counts.items() if n >= 60)
    assert 2 <= len(terms) < 6  # some are rare, some are not
    found = [counts[term] for term in terms[1:]]
    assert found == sorted(found, reverse=True)
    ids = pipeline.transform(TABLE)["item"]
    for raw, one in zip(TABLE["item"], ids, strict=True):
        assert terms[one] == (raw if raw in terms else "")


def test_equally_frequent_ones_do_not_depend_on_the_order_of_rows():
    rows = ["d", "a", "c", "b"]
    for _ in range(3):
        random.Random(0).shuffle(rows)
        terms = Pipeline([WORDS]).fit({"word": rows}).vocabulary("word").tolist()
        assert terms == ["", "a", "b", "c", "d"]


def test_numbers_are_scaled_as_by_scikit_learn():
    arrays = Pipeline(SPECS).fit(TABLE).transform(TABLE)
    ages = StandardScaler().fit_transform(TABLE["age"][:, None])[:, 0]
    np.testing.assert_allclose(arrays["age"], np.nan_to_num(ages, nan=0), atol=1e-6)
    prices = StandardScaler().fit_transform(np.log1p(np.float64(TABLE["price"]))[:, None])[:, 0]
    np.testing.assert_allclose(arrays["price"], prices, atol=1e-5)


def test_moments_of_large_numbers_and_of_many_chunks():
    times = 880_000_000 + RNG.integers(0, 20_000_000, 5000)
    whole = Pipeline([Normalised("t")]).fit({"t": times})
    cut = Pipeline([Normalised("t")]).fit({"t": part} for part in np.array_split(times, 13))
    floats = times.astype(np.float32).astype(np.float64)
    for pipeline in (whole, cut):
        np.testing.assert_allclose(pipeline.learned["t"], [floats.mean(), floats.std()], rtol=1e-9)
    scaled = whole.transform({"t": times})["t"]
    np.testing.assert_allclose(scaled, (times - times.mean()) / times.std(), atol=1e-4)


def test_constant_numbers_become_zero_and_logarithms_have_a_sign():
    assert not Pipeline([Normalised("x")]).fit({"x": [3, 3]}).transform({"x": [3, None]})["x"].any()
    pipeline = Pipeline([Normalised("x", logarithm=True)]).fit({"x": [-np.e + 1, np.e - 1, 0]})
    assert pipeline.learned["x"][0] == pytest.approx(0, abs=1e-7)
    assert pipeline.learned["x"][1] == pytest.approx((2 / 3) ** 0.5)


def test_ranges_are_equally_full_as_in_scikit_learn():
    x = RNG.normal(size=1000).astype("float32")
    ids = Pipeline([Bucketed("x", 8)]).fit({"x": x}).transform({"x": [*x, np.nan, -99, 99]})["x"]
    settings = {"encode": "ordinal", "strategy": "quantile", "quantile_method": "linear"}
    theirs = KBinsDiscretizer(8, **settings).fit_transform(x[:, None])[:, 0]
    np.testing.assert_array_equal(ids[:-3], 1 + theirs)
    assert np.bincount(ids[:-3]).tolist() == [0] + [125] * 8
    assert ids[-3:].tolist() == [0, 1, 8]


def test_ranges_of_few_values_are_fewer():
    pipeline = Pipeline([Bucketed("x", 10)]).fit({"x": [1, 1, 1, 1, 2, 2, 3]})
    assert pipeline.features == [Category("x", 4)]
    assert pipeline.transform({"x": [0, 1, 1.5, 2, 3, 9]})["x"].tolist() == [1, 1, 1, 2, 3, 3]
    assert Pipeline([Bucketed("x")]).fit({"x": [5, 5]}).features == [Category("x", 2)]


def test_quantiles_of_a_long_stream_are_those_of_a_sample(monkeypatch):
    monkeypatch.setattr(learning, "SAMPLE", 2000)
    x = np.sort(RNG.exponential(size=40_000))  # a stream that is sorted would fool a prefix
    pipeline = Pipeline([Bucketed("x", 4)]).fit({"x": part} for part in np.array_split(x, 50))
    shares = np.searchsorted(x, pipeline.learned["x"]) / len(x)
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.75], atol=0.04)


def test_hashing_is_crc32_and_spreads():
    raw = [str(n) for n in range(20_000)] + ["千と千尋", "", None]
    ids = Pipeline([Hashed("x", 102)]).fit({"x": raw}).transform({"x": raw})["x"]
    assert ids[-3:].tolist() == [1 + zlib.crc32("千と千尋".encode()) % 101, 0, 0]
    assert ids[:3].tolist() == [1 + zlib.crc32(b"%d" % n) % 101 for n in range(3)]
    counts = np.bincount(ids[:-3], minlength=102)[1:]
    assert len(counts) == 101
    chi_square = np.sum((counts - 20_000 / 101) ** 2) / (20_000 / 101)
    assert chi_square < 149  # 1 in 1,000 of 100 degrees of freedom


def test_hashing_is_the_same_in_another_process():
    code = """
from tfcourse.data.pipeline import Hashed, Pipeline
x = {"x": ["Alien", "7", "千"]}
print(Pipeline([Hashed("x", 10**6)]).fit(x).transform(x)["x"].tolist())
"""
    x = {"x": ["Alien", 7, "千"]}
    ours = Pipeline([Hashed("x", 10**6)]).fit(x).transform(x)["x"].tolist()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ours


@pytest.mark.parametrize(
    "raw",
    [
        [["a", "b", "zz", "c"], [], None, ["zz", "", "b"], ["c"]],
        ["a b zz c", "", np.nan, "zz  b", "c"],
        np.array(
            [[*"ab", "zz", "c"], 4 * [None], 4 * [""], ["zz", None, "b", ""], ["c", *3 * [""]]]
        ),
    ],
)
def test_histories_drop_what_is_unknown_and_forget_the_oldest(raw):
    pipeline = Pipeline([WORDS, Sequence("seen", "word", 2)])
    pipeline.fit({"word": [*"aaabbc"], "seen": ["a"] * 6})
    arrays = pipeline.transform({"word": ["b"] * 5, "seen": raw})
    assert arrays["seen"].tolist() == [[1, 2], [0, 0], [0, 0], [2, 0], [3, 0]]


def test_a_rectangle_of_numbers_has_0_for_nothing():
    pipeline = Pipeline([Vocabulary("item"), Sequence("seen", length=3)])
    table = {"item": [50, 50, 50, 7, 7, 318], "seen": np.zeros((6, 2), int)}
    table["seen"][0, 0] = 7
    pipeline.fit(table)
    wide = np.array([[318, 0, 7, 50, 50], [0, 0, 0, 0, 0]])
    rows = {"item": np.array([7, 9]), "seen": wide}
    assert pipeline.transform(rows)["seen"].tolist() == [[3, 2, 1], [0, 0, 0]]
    # The same ids as texts, floats with gaps, and through a DataFrame.
    for seen in (wide.astype(object), np.where(wide == 0, np.nan, wide), wide.tolist()):
        equal(pipeline.transform(rows | {"seen": seen}), pipeline.transform(rows))


def test_a_raw_id_is_the_same_in_every_type():
    pipeline = Pipeline([Vocabulary("x"), Vocabulary("flag")])
    pipeline.fit({"x": [7, 7, 12345678901], "flag": [True, True, False]})
    kinds = [
        np.array([7, 12345678901, 8]),
        [7.0, 12345678901.0, 8.5],
        ["7", "12345678901", "7.0"],  # a text is left as it is
        np.array([b"7", b"12345678901", b"?"]),
        pd.Series([7, 12345678901, pd.NA], dtype="Int64"),
        pd.Series(["7", "12345678901", None], dtype="category"),
        np.array(["7", "12345678901", None], object),
        [np.int32(7), np.str_("12345678901"), np.float32("nan")],
        (7, 12345678901, pd.NaT),
    ]
    for kind in kinds:
        arrays = pipeline.transform({"x": kind, "flag": [np.True_, "True", 1]})
        assert arrays["x"].tolist() == [1, 2, 0]
        assert arrays["flag"].tolist() == [1, 1, 0]


def write(path, table, separator=",", *, end="\n", quoting=csv.QUOTE_MINIMAL, start=""):
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(start)
        writer = csv.writer(file, delimiter=separator, lineterminator=end, quoting=quoting)
        writer.writerow(table)
        for row in zip(*table.values(), strict=True):
            writer.writerow(["" if pd.isna(x) else x for x in row])
    return path


@pytest.mark.parametrize("form", ["plain", "tabs", "windows", "quoted", "cut", "frame", "parts"])
def test_every_form_of_a_table_gives_the_same(form, tmp_path, monkeypatch):
    table = TABLE if form != "plain" else TABLE | {"item": np.char.replace(TABLE["item"], '"', "")}
    table = table if form != "plain" else table | {"item": np.char.replace(table["item"], ",", "")}
    expected = Pipeline(SPECS).fit(table)
    monkeypatch.setattr(csv_files, "ROWS", 64)
    path = tmp_path / "table.csv"
    if form == "parts":
        half = [{n: v[i : i + 150] for n, v in table.items()} for i in (0, 150)]
        other = [pd.DataFrame(half[0]), write(path, half[1], "\t")]
    elif form == "frame":
        other = frame()
    elif form == "cut":
        other = [{n: v[i : i + 70] for n, v in table.items()} for i in range(0, ROWS, 70)]
    else:
        settings = {
            "plain": {"end": "\n"},
            "tabs": {"separator": "\t"},
            "windows": {"end": "\r\n", "start": "\ufeff"},
            "quoted": {"quoting": csv.QUOTE_ALL},
        }
        other = write(path, table, **settings[form])
    pipeline = Pipeline(SPECS).fit(other)
    for name, learned in expected.learned.items():
        assert pipeline.learned[name] == pytest.approx(learned) if learned else not learned
    equal(pipeline.transform(other), pipeline.transform(table))
    np.testing.assert_array_equal(
        expected.transform(table)["item"], pipeline.transform(other)["item"]
    )


def test_quotes_hold_line_ends_and_empty_lines_are_nothing(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'word,x\n\n"a\nb",1\n\nc,2\n"d""e",\n\n')
    pipeline = Pipeline([WORDS, Normalised("x")]).fit(path)
    assert pipeline.vocabulary("word").tolist() == ["", "a\nb", "c", 'd"e']
    assert pipeline.transform(str(path))["x"].tolist() == [-1, 1, 0]


def test_nothing_is_learned_from_other_columns_or_by_transforming():
    pipeline = Pipeline([WORDS, Normalised("age")]).fit(TABLE)
    before = json.dumps(pipeline.learned)
    pipeline.transform({"word": ["new"], "age": [1000]})
    assert json.dumps(pipeline.learned) == before
    assert Pipeline([WORDS, Normalised("age")]).fit(TABLE | {"label": ROWS * [5]}).learned == (
        pipeline.learned
    )
    assert pipeline.transform({"word": [], "age": []})["age"].shape == (0,)


def test_fitting_again_forgets():
    pipeline = Pipeline([WORDS]).fit({"word": ["a"]}).fit({"word": ["b"]})
    assert pipeline.vocabulary("word").tolist() == ["", "b"]


@pytest.mark.parametrize(
    "specs, message",
    [
        ([], "specs must have at least one column, got none"),
        ([WORDS, Normalised("word")], "specs must have each column once, got word twice"),
        ([WORDS, Sequence("seen")], "seen: item must be among word, got item"),
        ([Normalised("x"), Sequence("seen", "x")], "seen: item must be among none, got x"),
        (
            [WORDS, Bucketed("x"), Combined("both", ("word", "y"))],
            "both: parts must be among word, x, got y",
        ),
        (
            ["user"],
            "specs must be of Vocabulary, Hashed, Normalised, Bucketed, Sequence, Combined, "
            "got 'user'",
        ),
    ],
)
def test_a_pipeline_that_cannot_be(specs, message):
    refused(message, Pipeline, specs)


@pytest.mark.parametrize(
    "spec, message",
    [
        (lambda: Vocabulary("x", 0), "x: min_count must be at least 1, got 0"),
        (lambda: Hashed("x", 1), "x: size must be at least 2, got 1"),
        (lambda: Bucketed("x", 1), "x: buckets must be at least 2, got 1"),
        (lambda: Sequence("x", length=0), "x: length must be at least 1, got 0"),
        (lambda: Sequence("x", separator=""), "x: separator must have a character, got ''"),
        (lambda: Combined("x", size=1), "x: size must be at least 2, got 1"),
        (lambda: Combined("x", ("a",)), "x: parts must be two or more names, got ('a',)"),
    ],
)
def test_a_spec_that_cannot_be(spec, message):
    refused(message, spec)


PAIR = [WORDS, Normalised("x")]


@pytest.mark.parametrize(
    "table, message",
    [
        ({"word": ["a"]}, "column x is missing; there are word"),
        ({"word": ["a", "b"], "x": [1, "many"]}, "column x must be a number, got 'many' in row 1"),
        (
            [{"word": ["a"], "x": [1]}, {"word": ["a"], "x": ["?"]}],
            "column x must be a number, got '?' in row 1",
        ),
        ({"word": ["a"], "x": [np.inf]}, "column x must be finite in 32 bits, got inf in row 0"),
        (
            {"word": ["a"], "x": [10**309]},
            f"column x must be a number, got {10**309} in row 0",
        ),
        ({"word": ["a"], "x": [1e300]}, "column x must be finite in 32 bits, got 1e+300 in row 0"),
        (
            {"word": ["a", {}], "x": [1, 2]},
            "column word must be a text or a number, got {} in row 1",
        ),
        ({"word": [b"\xff"], "x": [1]}, r"column word must be UTF-8, got b'\xff' in row 0"),
        ({"word": ["a", "b"], "x": [1]}, "columns must be equally long, got word 2, x 1"),
        ({"word": "a", "x": [1]}, "column word must be an array or a list, got 'a'"),
        (
            {"word": ["a"], "x": np.ones((1, 2))},
            "column x must have the shape ('rows',), got (1, 2)",
        ),
        (
            {"word": np.array([["a"]]), "x": [1]},
            "column word must have the shape ('rows',), got (1, 1)",
        ),
        ({"word": [], "x": []}, "table must have at least one row, got none"),
        ([], "table must have at least one row, got none"),
        ({"word": ["", None], "x": [1, 2]}, "column word must have a value, got none in 2 rows"),
        ({"word": ["a"], "x": [None]}, "column x must have a value, got none in 1 rows"),
        (7, "table must be arrays by name, a DataFrame, a path or several of these, got int"),
        ([7], "table must be made of tables, got int"),
    ],
)
def test_a_bad_table_is_one_line_with_column_row_and_value(table, message):
    refused(message, Pipeline(PAIR).fit, table)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "{path} must have a header and rows, got an empty file"),
        (b"word,x\n", "table must have at least one row, got none"),
        (b"word,y\na,1\n", "column x is missing in {path}; there are word, y"),
        (b"word;x\na;1\n", "column word is missing in {path}; there are word;x"),
        (b"word,x,x\na,1,2\n", "{path} must have each column once, got x twice"),
        (b"word,x\na,1\nb,zwei\n", "column x must be a number, got 'zwei' in line 3 of {path}"),
        (
            b"word,x\n" + 99 * b"a,1\n" + b"b\n",
            "{path} must have 2 fields in a line as its header has, got 1 in line 101",
        ),
        (
            b'word,x\n"a",1\n"b,c",1,2\n',
            "{path} must have 2 fields in a line as its header has, got 3 in line 3",
        ),
        (b"word,x\n" + 70 * b"a,1\n" + b'"b,1\nc,2\n', "{path} can't be read as CSV in line 73: "),
        (b"word,x\na,1\nAm\xe9lie,2\n", "{path} must be utf-8 text, got the byte 0xe9 in line 3"),
        (
            b'word,x\n"a",1\n' + 60 * b"a,1\n" + b"\xff,1\n",
            "{path} must be utf-8 text, got the byte 0xff in line 63",
        ),
        (b"\xff\xfew\x00", "{path} must be utf-8 text, got the byte 0xff in line 1"),
    ],
)
def test_a_bad_file_is_one_line_with_its_place(content, message, tmp_path, monkeypatch):
    monkeypatch.setattr(csv_files, "ROWS", 50)
    path = tmp_path / "ratings.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        Pipeline(PAIR).fit(path)
    assert str(error.value).startswith(message.format(path=path))
    assert "\n" not in str(error.value)


def test_other_encodings_can_be_said(tmp_path):
    from tfcourse.data.tables import read_chunks

    path = tmp_path / "latin.csv"
    path.write_bytes("word\nAmélie\n".encode("latin-1"))
    pipeline = Pipeline([WORDS]).fit(read_chunks(path, encoding="latin-1"))
    assert pipeline.vocabulary("word").tolist() == ["", "Amélie"]


def test_duplicate_columns_of_a_frame_and_rare_values():
    table = pd.DataFrame([["a", 1, 2]], columns=["word", "x", "x"])
    refused("the table must have each column once, got x twice", Pipeline(PAIR).fit, table)
    message = "column word must have a value that occurs 3 times, got none in 4 rows"
    refused(message, Pipeline([Vocabulary("word", 3)]).fit, {"word": [*"aabb"]})


def test_empty_histories_everywhere():
    specs = [WORDS, Sequence("seen", "word")]
    message = "column seen must have a value, got none in 2 rows"
    for seen in ([[], None], ["", " "], np.zeros((2, 5), int)):
        refused(message, Pipeline(specs).fit, {"word": ["a", "b"], "seen": seen})


def test_what_is_not_fitted_or_not_there():
    message = "the pipeline must be fitted first, got none: call fit or load"
    pipeline = Pipeline(PAIR)
    for function in (pipeline.transform, pipeline.save, pipeline.vocabulary, pipeline.feature):
        refused(message, function, "word")
    refused(message, pipeline.dataset, "x", 1)
    refused(message, lambda: pipeline.features)
    pipeline.fit({"word": ["a"], "x": [1]})
    refused("name must be a vocabulary: word, got x", pipeline.vocabulary, "x")
    refused("name must be one of word, x, got y", pipeline.feature, "y")


def test_saved_and_loaded_is_the_same(tmp_path):
    specs = [*SPECS, Sequence("told", "job", 2, "|")]
    table = TABLE | {"told": ["x|y|z"] * ROWS}
    pipeline = Pipeline(specs).fit(table)
    pipeline.save(tmp_path / "a.json")
    loaded = Pipeline.load(tmp_path / "a.json")
    assert (loaded.specs, loaded.learned) == (pipeline.specs, pipeline.learned)
    assert loaded.features == pipeline.features
    equal(loaded.transform(table), pipeline.transform(table))
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda text: text[:-40], "JSONDecodeError"),
        (lambda text: "7", "not subscriptable"),
        (lambda text: text.replace("tfcourse pipeline", "model"), "its format is 'model'"),
        (lambda text: text.replace('"version": 1', '"version": 9'), "its version is 9, known is 1"),
        (lambda text: text.replace('"Vocabulary"', '"Vocabularies"'), "KeyError('Vocabularies')"),
        (
            lambda text: text.replace('"min_count"', '"least"'),
            "unexpected keyword argument 'least'",
        ),
        (lambda text: text.replace('"a"', "12"), "what word has learned is not made of str"),
        (lambda text: text.replace('"learned": [', '"learned": [0.5,'), "word has learned is not"),
        (lambda text: text.replace('"word"', '"x"'), "must have each column once, got x twice"),
    ],
)
def test_a_damaged_file_is_one_line(change, reason, tmp_path):
    path = tmp_path / "a.json"
    Pipeline(PAIR).fit({"word": ["a"], "x": [1]}).save(path)
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError) as error:
        Pipeline.load(path)
    assert str(error.value).startswith(f"{path} is no pipeline that can be read: ")
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def rows_of(data):
    batches = [(batch, labels) for batch, labels in data.as_numpy_iterator()]
    sizes = [len(labels) for _, labels in batches]
    arrays = {n: np.concatenate([batch[n] for batch, _ in batches]) for n in batches[0][0]}
    return sizes, arrays, np.concatenate([labels for _, labels in batches])


def test_a_data_set_of_files_is_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_files, "ROWS", 64)
    pipeline = Pipeline(SPECS).fit(TABLE)
    paths = [write(tmp_path / "1.csv", TABLE), write(tmp_path / "2.tsv", TABLE, "\t")]
    sizes, arrays, labels = rows_of(pipeline.dataset(paths, 128))
    assert sizes == [128] * 4 + [88]
    equal(arrays, pipeline.transform([TABLE, TABLE]))
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(labels[:, 0], np.tile(TABLE["label"], 2))
    data = Pipeline([WORDS]).fit(TABLE).dataset(paths, 100, label="year", threshold=1960)
    np.testing.assert_array_equal(rows_of(data)[2][:ROWS, 0], TABLE["year"] >= 1960)


def test_a_data_set_is_mixed_anew_in_every_epoch(monkeypatch):
    monkeypatch.setattr(csv_files, "ROWS", 64)
    table = {"x": np.arange(1000), "label": np.arange(1000)}
    pipeline = Pipeline([Normalised("x")]).fit(table)

    def epochs(seed):
        data = pipeline.dataset(table, 100, shuffle_buffer=200, seed=seed)
        return [rows_of(data)[2][:, 0] for _ in range(2)]

    first, second = epochs(0)
    assert sorted(first) == sorted(second) == list(range(1000))
    assert not np.array_equal(first, second)
    for again, order in zip(epochs(0), (first, second), strict=True):
        np.testing.assert_array_equal(again, order)
    assert not np.array_equal(epochs(1)[0], first)
    assert np.mean(np.diff(first) == 1) < 0.05  # hardly a row has its old neighbour
    moved = np.argsort(first) - np.arange(1000)
    assert moved.max() > 264  # further than the pool and a chunk: rows of far apart chunks meet


def test_what_a_data_set_refuses():
    pipeline = Pipeline([WORDS]).fit(TABLE)
    rows = {"word": ["a", "b"], "label": [1, None]}
    refused("column label must have every label, got '' in row 1", pipeline.dataset, rows, 2)
    refused("column label is missing; there are word", pipeline.dataset, {"word": ["a"]}, 2)
    refused("batch_size must be at least 1, got 0", pipeline.dataset, TABLE, 0)
    with pytest.raises(ValueError, match="label must not be a column of the model, got word"):
        pipeline.dataset(TABLE, 2, label="word")
    message = "paths must be readable in every epoch, got an iterator"
    refused(message, pipeline.dataset, iter([TABLE]), 2)
    with pytest.raises(ValueError, match="shuffle_buffer must be at least 0, got -1"):
        pipeline.dataset(TABLE, 2, shuffle_buffer=-1)


def test_an_error_far_down_a_file_keeps_its_line(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_files, "ROWS", 50)
    path = tmp_path / "a.csv"
    path.write_text("word,label\n" + 120 * "a,1\n" + "a,yes\n")
    data = Pipeline([WORDS]).fit(path).dataset(path, 10)
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        list(data)
    message = f"ValueError: column label must be a number, got 'yes' in line 122 of {path}"
    assert message in str(error.value)


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_training_on_a_file_with_a_bad_row_ends_with_its_line(jit_compile, tmp_path, monkeypatch):
    monkeypatch.setattr(csv_files, "ROWS", 50)
    path = tmp_path / "a.csv"
    path.write_text("user,age,label\n" + 120 * "a,1,1\n" + "b,old,1\n")
    pipeline = Pipeline([Vocabulary("user"), Normalised("age")]).fit(TABLE)
    with pytest.raises(ValueError, match=r"got .old. in line 122") as e:
        training.fit(
            small_model(pipeline.features), pipeline.dataset(path, 10), 1, jit_compile=jit_compile
        )
    assert "\n" not in str(e.value)


def small_model(features):
    keras.utils.set_random_seed(0)
    inputs = make_inputs(features)
    vectors = embed(features, inputs, 4, "embedding")
    parts = [vectors["user"], inputs["age"][:, None]]
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.ops.concatenate(parts, axis=1)))
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    return model


def test_training_from_a_file_is_training_from_arrays(tmp_path):
    pipeline = Pipeline([Vocabulary("user"), Normalised("age")]).fit(TABLE)
    data = pipeline.dataset(write(tmp_path / "a.csv", TABLE), 50)
    labels = TABLE["label"][:, None].astype("float32")
    in_memory = training.InMemory(pipeline.transform(TABLE), labels, 50, shuffle=False)
    losses = [
        training.fit(small_model(pipeline.features), source, 2).history["loss"]
        for source in (data, in_memory)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert losses[0][1] < losses[0][0]


READ = """
import resource, sys
import keras
from tfcourse import recommendation, training
from tfcourse.data.pipeline import *
path, steps = sys.argv[1], int(sys.argv[2])
pipeline = Pipeline([Vocabulary("user"), Hashed("item", 1000), Normalised("age"),
                     Bucketed("year"), Sequence("seen", "item", 20)]).fit(path)
model = recommendation.build_embedding_mlp(pipeline.features, embedding_dim=4)
model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
training.fit(model, pipeline.dataset(path, 4096, shuffle_buffer=20_000), 1)
assert model.optimizer.iterations == steps, model.optimizer.iterations
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_of_training_does_not_grow_with_the_file(tmp_path):
    block, peaks = "", []
    for n in range(20_000):
        seen = " ".join(str(n * k % 997) for k in range(1, 9))
        block += f"{n % 5000},{n * 7919 % 20_011},{n % 60},{1900 + n % 100},{seen},{n % 2}\n"
    for blocks in (2, 18):
        path = Path(tmp_path / f"{blocks}.csv")
        with open(path, "w") as file:
            file.write("user,item,age,year,seen,label\n")
            file.writelines([block] * blocks)
        command = [sys.executable, "-c", READ, str(path), str(-(-blocks * 20_000 // 4096))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    assert path.stat().st_size > 15e6
    assert peaks[1] - peaks[0] < 40, peaks
