"""item2vec and DeepWalk: walks against the matrix of their graph, and groups that were planted."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest

from tfcourse.data.ratings import load_movielens
from tfcourse.recommendation.graph_embedding import fit_deepwalk, make_graph, transitions
from tfcourse.recommendation.item2vec import fit_item2vec

RANDOM = np.random.default_rng(0)


def baskets(count=1_500, groups=5, each=8):
    """Sets of six items, ids from 1, five of which are of one group; padded to eight."""
    group = RANDOM.integers(0, groups, (count, 1)) * each
    ids = 1 + group + np.argsort(RANDOM.random((count, each)), axis=1)[:, :6]
    ids[:, 5] = RANDOM.integers(1, groups * each + 1, count)
    return np.pad(ids, ((0, 0), (0, 2)))


@pytest.fixture(scope="module")
def learned():
    return fit_item2vec(baskets(), 43, embedding_dim=16, epochs=6, subsample=None)


def test_item2vec_finds_what_comes_together(learned):
    for item in range(1, 41):
        cosines, ids = learned.neighbours(item, 7)
        assert ((ids - 1) // 8 == (item - 1) // 8).all()
        assert (np.diff(cosines) <= 0).all()


def test_item2vec_recommends_the_rest_of_a_group(learned):
    ids = learned.recommend([9, 11, 12, 0, 0], 5)
    assert sorted(ids) == [10, 13, 14, 15, 16]
    unseen = np.setdiff1d(np.arange(1, 41), [9, 11, 12])
    scores = learned.predict(np.tile([9, 11, 12, 0], (len(unseen), 1)), unseen)
    assert ids.tolist() == unseen[np.argsort(-scores)[:5]].tolist()
    assert learned.predict([], []).shape == (0,)
    # Padding, and ids that never came, change nothing.
    assert learned.recommend([0, 9, 42, 11, 99, 12], 5).tolist() == ids.tolist()
    unknown = learned.predict([[9], [9], [9]], [0, 42, 99])
    np.testing.assert_allclose(unknown, 0.75 * np.log(1 / learned.counts.sum()))


def test_who_is_new_gets_the_most_frequent(learned):
    ids = learned.recommend([0, 0], 3)
    assert ids.tolist() == np.argsort(-learned.counts, kind="stable")[:3].tolist()


def test_the_order_of_a_set_does_not_matter_but_that_of_a_window_does():
    # Items 1 and 2 are always the ends of a history, far from one another.
    middle = RANDOM.integers(3, 30, (800, 6))
    ends = np.repeat([[1, 2], [30, 31]], 400, axis=0)
    histories = np.column_stack([ends[:, 0], middle, ends[:, 1]])
    options = {"embedding_dim": 8, "epochs": 10, "subsample": None}
    sets = fit_item2vec(histories, 32, **options)
    windows = fit_item2vec(histories, 32, window=2, **options)

    def company(found):
        with_2, with_31 = found.predict([[1], [1]], [2, 31])
        return with_2 - with_31

    assert company(windows) < 0.3 < company(sets)


def test_walks_move_as_the_matrix_says():
    matrix = np.array([[0, 1, 3, 0], [2, 0, 0, 2], [1, 1, 1, 1], [0, 0, 5, 0]], float)
    sources, targets = np.nonzero(matrix)
    graph = make_graph(sources, targets, 4, matrix[sources, targets], directed=True)
    np.testing.assert_array_equal(graph.strengths(), matrix.sum(axis=1))
    walks = graph.walk(np.repeat(np.arange(4), 2_000), 20, seed=1)
    counts = np.zeros((4, 4))
    np.add.at(counts, (walks[:, :-1].ravel(), walks[:, 1:].ravel()), 1)
    shares, rows = matrix / matrix.sum(axis=1, keepdims=True), counts.sum(axis=1, keepdims=True)
    error = np.abs(counts / rows - shares)
    assert (error <= 4 * np.sqrt(shares * (1 - shares) / rows)).all()  # standard deviations
    values, vectors = np.linalg.eig(shares.T)
    stationary = np.real(vectors[:, np.argmax(np.real(values))])
    late = np.bincount(walks[:, 10:].ravel(), minlength=4) / walks[:, 10:].size
    np.testing.assert_allclose(late, stationary / stationary.sum(), atol=0.01)


def test_long_walks_stay_in_proportion_to_strength():
    sources, targets = RANDOM.integers(0, 30, (2, 150))
    weights = RANDOM.random(150) + 0.1
    graph = make_graph(
        np.r_[sources, np.arange(29)],
        np.r_[targets, np.arange(1, 30)],
        30,
        np.r_[weights, np.ones(29)],
    )
    walks = graph.walk(np.zeros(4_000, int), 90)[:, 60:]
    found = np.bincount(walks.ravel(), minlength=30) / walks.size
    expected = graph.strengths() / graph.strengths().sum()
    np.testing.assert_allclose(found, expected, atol=0.005)


def test_a_graph_adds_edges_goes_both_ways_and_ends():
    graph = make_graph([0, 0, 1, 2], [1, 1, 2, 2], 4, [1, 2, 5, 7])
    assert graph.starts.tolist() == [0, 1, 3, 5, 5]
    assert graph.targets.tolist() == [1, 0, 2, 1, 2]
    assert graph.weights.tolist() == [3, 3, 5, 5, 7]
    one_way = make_graph([0, 1], [1, 2], 4, directed=True)
    assert one_way.walk(np.array([0, 3]), 5).tolist() == [[0, 1, 2, -1, -1], [3, -1, -1, -1, -1]]


def test_transitions_are_counted_as_in_the_course():
    histories = [[3, 1, 2, 0, 0], [1, 2, 0, 0, 0], [2, 0, 0, 0, 0]]
    graph = transitions(histories, 5)
    matrix = np.zeros((5, 5))
    for history in histories:
        items = [i for i in history if i]
        for first, second in pairwise(items):
            matrix[first, second] += 1
    for node in range(5):
        edges = slice(graph.starts[node], graph.starts[node + 1])
        row = np.zeros(5)
        row[graph.targets[edges]] = graph.weights[edges]
        np.testing.assert_array_equal(row, matrix[node])


def test_deepwalk_recovers_the_communities_of_a_graph():
    """A planted partition: 4 groups of 15 nodes, an edge with p 0.4 within, 0.02 between."""
    group = np.arange(60) // 15
    chance = np.where(group[:, None] == group, 0.4, 0.02)
    drawn = np.random.default_rng(0).random((60, 60))
    sources, targets = np.nonzero(np.triu(drawn < chance, 1))
    found = fit_deepwalk(make_graph(sources, targets, 61), embedding_dim=16)
    right = [group[found.neighbours(node, 10)[1]] == group[node] for node in range(60)]
    assert np.mean(right) > 0.95  # 0.24 at random
    assert found.counts[60] == 0


def test_walks_of_the_course_begin_where_most_leads_on():
    histories = [[1, 2]] * 90 + [[3, 4]] * 10
    found = fit_deepwalk(transitions(histories, 5), walks=2_000, length=2, embedding_dim=4)
    np.testing.assert_allclose(found.counts / 2_000, [0, 0.9, 0.9, 0.1, 0.1], atol=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("fit", ["item2vec", "deepwalk"])
def test_films_recommend_their_like(fit):
    """MovieLens-100k: lists from likes so far hold more of the later likes than popularity's."""
    ratings = load_movielens("100k")
    users, items, _, _ = ratings.numbered()
    items, liked = items + 1, ratings.ratings >= 3.5
    early = np.arange(len(users)) % 5 != 0
    size = int(items.max()) + 1
    groups = [items[(users == user) & liked & early] for user in range(users.max() + 1)]
    later = [items[(users == user) & liked & ~early] for user in range(users.max() + 1)]
    if fit == "item2vec":
        found = fit_item2vec(groups, size)
    else:
        found = fit_deepwalk(transitions(groups, size), walks=20_000)
    popular = dataclasses.replace(found, contexts=np.zeros_like(found.contexts))

    def recall(method):
        lists = [
            np.isin(held, method.recommend(seen, 20)).mean()
            for seen, held in zip(groups, later, strict=True)
            if len(seen) and len(held)
        ]
        return np.mean(lists)

    ours, theirs = recall(found), recall(popular)
    print(f"{fit}: recall@20 {ours:.3f}, of the most popular {theirs:.3f}")
    assert ours > 1.4 * theirs


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: fit_item2vec([[1], [], [0, 2], [1, 9]], 5),
            "^ids must be from 0 to num_items - 1 = 4, got 9 in history 3$",
        ),
        (
            lambda: fit_item2vec([[1, 0], [0, 2]], 5),
            "^histories must have one of two items or more, got none$",
        ),
        (lambda: make_graph([], [], 3), "edges must be one or more, each with two ends"),
        (lambda: make_graph([0], [3], 3), "targets must have ids from 0 to 2, got 3 in row 0"),
        (lambda: make_graph([0, 1.5], [1, 2], 3), "sources must be whole numbers .* got float64"),
        (lambda: make_graph([0], [1], 3, [-1]), r"weights must be above 0, got -1\.0"),
        (lambda: transitions([[1], [2, 0]], 3), "histories must have one of two items or more"),
        (lambda: fit_deepwalk(make_graph([0], [1], 2), length=1), "length must be 2 or more"),
        (lambda: fit_deepwalk(make_graph([0], [1], 2), walks=0), "walks 1 or more, got 40 and 0"),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_items_that_are_not_there(learned):
    with pytest.raises(ValueError, match="item must be one of those learned from, got 42"):
        learned.neighbours(42)
    with pytest.raises(ValueError, match="k must be from 1 to the 39 items that can be had, got 4"):
        learned.recommend([1], 40)
    with pytest.raises(
        ValueError, match="k must be from 1 to the 39 others that were learned, got"
    ):
        learned.neighbours(1, 40)
    with pytest.raises(ValueError, match="histories and items must be equally long, got 2 and 1"):
        learned.predict([[1], [2]], [3])


def test_an_item_that_comes_alone_only_is_as_one_that_never_came():
    histories = [[1, 2, 3], [2, 3, 1], [4], [3, 2], [4, 0]]
    found = fit_item2vec(histories, 6, embedding_dim=4, epochs=1)
    assert found.counts.tolist() == [0, 2, 3, 3, 0, 0]
    assert not found.vectors[4:].any()
    with pytest.raises(ValueError, match="item must be one of those learned from, got 4"):
        found.neighbours(4, 1)
