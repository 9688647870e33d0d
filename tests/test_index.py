"""The index of vectors: exactly what NumPy's sort gives, and how near the approximate one comes."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from tfcourse.recommendation import catalogue, index
from tfcourse.recommendation.approximate_index import ApproximateIndex
from tfcourse.recommendation.index import TopK


def whole(*shape, seed=0, most=3):
    """Vectors of small whole numbers: their products are exact, and many are equal."""
    return np.random.default_rng(seed).integers(-most, most + 1, shape).astype("float32")


def sorted_by_numpy(vectors, queries, k):
    scores = queries @ vectors.T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), order


@pytest.mark.parametrize("items", [1, 33, 1_500, 9_999])
@pytest.mark.parametrize("k", [1, 10, 1_200])
def test_as_numpy_sorts_ties_and_all(items, k):
    vectors, queries, k = whole(items, 6), whole(37, 6, seed=1), min(k, items)
    scores, ids = TopK(vectors).search(queries, k)
    expected, order = sorted_by_numpy(vectors, queries, k)
    np.testing.assert_array_equal(scores, expected)
    np.testing.assert_array_equal(ids, order)


@pytest.mark.parametrize("order", ["ascending", "descending", "equal"])
def test_catalogues_that_are_in_the_worst_order(order, monkeypatch):
    monkeypatch.setattr(index, "SCORES", 2**12)
    sign = {"ascending": 1, "descending": -1, "equal": 0}[order]
    vectors = sign * np.arange(5_000, dtype="float32")[:, None]
    _, ids = TopK(vectors).search(np.ones((5, 1)), 7)
    expected = np.arange(4_999, 4_992, -1) if sign == 1 else np.arange(7)
    np.testing.assert_array_equal(ids, np.tile(expected, (5, 1)))


def test_many_blocks_of_queries_and_items(monkeypatch):
    monkeypatch.setattr(index, "QUERIES", 16)
    monkeypatch.setattr(index, "SCORES", 2**12)
    random = np.random.default_rng(0)
    vectors, queries = random.normal(size=(8_000, 16)), random.normal(size=(50, 16))
    scores, ids = TopK(vectors).search(queries, 20)
    expected, order = sorted_by_numpy(vectors, queries, 20)
    np.testing.assert_array_equal(ids, order)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_twins_have_one_score_wherever_they_lie():
    vectors = np.random.default_rng(0).normal(size=(300, 24)).astype("float32")
    scores, ids = TopK(np.tile(vectors, (10, 1)), similarity="cosine").search(vectors[:40], 30)
    assert (ids[:, :10] % 300 == np.arange(40)[:, None]).all()
    assert (np.diff(ids[:, :10], axis=1) == 300).all()
    assert (scores[:, :10] == scores[:, :1]).all()


def test_cosine_and_ids_of_ones_own():
    vectors = np.array([[0.0, 0], [3, 3], [0, 2], [6, 6]])
    names = ["nothing", "near", "up", "far"]
    scores, ids = TopK(vectors, names, "cosine").search(np.array([[1.0, 1], [0, 9]]), 3)
    assert ids.tolist() == [["far", "near", "up"], ["up", "far", "near"]]
    np.testing.assert_allclose(scores, [[1, 1, 0.5**0.5], [1, 0.5**0.5, 0.5**0.5]], rtol=1e-6)
    scores, ids = TopK(vectors, [40, 30, 20, 10]).search(np.array([[0.0, 0]]), 4)
    assert ids.tolist() == [[10, 20, 30, 40]] and not scores.any()


def test_excluded_items_are_left_out_of_every_block(monkeypatch):
    monkeypatch.setattr(index, "SCORES", 2**12)
    vectors, queries = whole(4_000, 5), whole(9, 5, seed=1)
    exclude = np.random.default_rng(2).integers(0, 4_300, (9, 300))  # some there are not
    exclude[0] = np.argsort(-(vectors @ queries[0]), kind="stable")[:300]
    scores = queries @ vectors.T
    for row, ids in enumerate(exclude):
        scores[row, ids[ids < 4_000]] = -np.inf
    _, found = TopK(vectors).search(queries, 25, exclude.tolist())
    np.testing.assert_array_equal(found, np.argsort(-scores, axis=1, kind="stable")[:, :25])
    _, found = TopK(vectors[:3]).search(queries[:2], 1, [[], [0, 2, 0, 0]])
    assert found[1] == 1
    # Numbers that the bits of the ids can't hold are ids that the catalogue lacks.
    for dtype in (np.int32, np.uint64):
        short = TopK(np.eye(3), np.arange(3, dtype=dtype))
        for far in ([2**40, -1], np.array([2**32, 2**32 + 1])):
            assert short.search([[3, 2, 1]], 1, [far])[1] == 0
    names = np.array(["a", "b", "c"], object)
    _, found = TopK(np.eye(3), names).search([[3, 2, 1]] * 2, 1, [["a"], ["ab", "bc"]])
    assert found.tolist() == [["b"], ["a"]]


def peak():
    """The most memory that the process has had since it was last reset, in MB."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux resets the peak")
def test_memory_is_that_of_a_block():
    random = np.random.default_rng(0)
    kept = TopK(random.normal(size=(100_000, 8)).astype("float32"))
    queries = random.normal(size=(3_000, 8))
    kept.search(queries[:1], 10)
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    kept.search(queries, 10)
    assert peak() - before < 300  # all scores together would have 1,144


def test_saved_and_loaded(tmp_path):
    vectors, queries = whole(200, 4), whole(3, 4, seed=1)
    kept = TopK(vectors, [f"film {i:03}" for i in range(200)], "cosine")
    kept.save(tmp_path / "films.index")
    again = TopK.load(tmp_path / "films.index")
    for ours, theirs in zip(kept.search(queries, 5), again.search(queries, 5), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert again.similarity == "cosine"
    assert [path.name for path in tmp_path.iterdir()] == ["films.index"]


def test_bad_input_is_one_line(tmp_path):
    vectors, kept = whole(20, 4), TopK(whole(20, 4))
    bad = [
        (lambda: TopK(vectors[0]), r"vectors must be a matrix \(items, dim\), got shape \(4,\)"),
        (lambda: TopK(vectors[:0]), r"vectors must be a matrix .* got shape \(0, 4\)"),
        (lambda: TopK([[0, 1], [np.nan, 2]]), r"vectors must be finite, got \[nan  2.\] in row 1"),
        (lambda: TopK(vectors, [1, 2]), r"one for each of 20 vectors, got int64 of shape \(2,\)"),
        (lambda: TopK(vectors, np.arange(20.0)), "ids must be whole numbers or texts, .* float64"),
        (lambda: TopK(vectors[:2], np.array(["a", None])), "ids must be whole .* got object"),
        (lambda: TopK(vectors, [7] * 20), "ids must differ, got 7 twice"),
        (lambda: TopK(vectors, similarity="l2"), r"similarity must be one of \('dot', 'cosine'\)"),
        (lambda: kept.search(vectors, 21), "k must be from 1 to the 20 items that can be had, got"),
        (lambda: kept.search(vectors, 0), "k must be from 1 to the 20 items .* got 0"),
        (lambda: kept.search(vectors[:1], 19, [[1, 2]]), "k must be from 1 to the 18 items"),
        (lambda: kept.search(vectors, 1, [[1]]), "exclude must have a row for each of 20 queries"),
        (
            lambda: kept.search(vectors[:2], 1, [1, 2]),
            "lists of ids, whole numbers, got 1 in row 0",
        ),
        (lambda: kept.search(vectors[:1], 1, [[1.5]]), r"whole numbers, got \[1.5\] in row 0"),
        (lambda: kept.search(vectors[:2], 1, [[], ["a"]]), r"numbers, got \['a'\] in row 1"),
        (lambda: TopK(vectors[:1], np.array([2**63], np.uint64)), "ids must be .* got uint64"),
        (lambda: kept.search(vectors[:, :3], 1), r"shape \(rows, 4\), got \(20, 3\)"),
        (lambda: kept.search([[np.inf] * 4], 1), "queries must be finite"),
        (lambda: ApproximateIndex(vectors, kind="lsh"), "kind must be 'hnsw' or 'ivf', got 'lsh'"),
        (lambda: ApproximateIndex(vectors, effort=0), "effort must be 1 or more, got 0"),
    ]
    for call, message in bad:
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    (tmp_path / "torn.index").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ValueError, match=r"torn\.index must be an index that was saved, got Bad"):
        TopK.load(tmp_path / "torn.index")


def test_without_faiss_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"^ApproximateIndex needs faiss: pip install 'tfcourse"):
        ApproximateIndex(whole(20, 4))


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_approximate_index(kind, tmp_path):
    pytest.importorskip("faiss", reason="faiss is missing: the extra [faiss]")
    random = np.random.default_rng(0)
    vectors = random.normal(size=(3_000, 12)).astype("float32")
    queries = vectors[:60] + random.normal(0, 0.1, (60, 12))
    exact = TopK(vectors, similarity="cosine")
    near = ApproximateIndex(vectors, similarity="cosine", kind=kind, effort=300)
    far = ApproximateIndex(vectors, similarity="cosine", kind="ivf", effort=1)
    assert near.recall(queries, 10, exact) > 0.9 > far.recall(queries, 10, exact)
    scores, ids = near.search(queries, 1)
    assert (ids[:, 0] == np.arange(60)).mean() > 0.95
    product = np.sum(exact._vectors.numpy()[ids[:, 0]] * catalogue.directions(queries), axis=1)
    np.testing.assert_allclose(scores[:, 0], product, rtol=1e-5)
    exclude = near.search(queries, 5)[1]
    assert not np.isin(near.search(queries, 5, exclude)[1][0], exclude[0]).any()
    near.save(tmp_path / "near.index")
    again = ApproximateIndex.load(tmp_path / "near.index")
    for ours, theirs in zip(near.search(queries, 7), again.search(queries, 7), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match="must be an index that was saved"):
        TopK.load(tmp_path / "near.index")


def test_what_an_approximate_index_does_not_find_has_no_id():
    pytest.importorskip("faiss", reason="faiss is missing: the extra [faiss]")
    vectors = np.repeat([[1.0, 0], [0, 1]], [50, 50], axis=0)
    few = ApproximateIndex(vectors, np.arange(1, 101), kind="ivf", effort=1)
    scores, ids = few.search(np.array([[1.0, 0]]), 90)
    assert (ids == 0).sum() == np.isinf(scores).sum() > 0
    assert ids.max() > 0
