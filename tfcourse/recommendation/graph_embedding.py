"""DeepWalk (Perozzi, Al-Rfou & Skiena, 2014), https://arxiv.org/abs/1403.6652.

Walks at random over a graph are taken for sentences, and skip-gram gives nodes vectors that are
alike where nodes are reached from the same places. From node i a walk goes on to j with

    p(j | i) = w_ij / sum_k w_ik

and ends where no edge leads on. `transitions` makes the graph of the course: w_ij counts how many
users liked j right after i. In a connected graph whose edges go both ways a long walk is at node i
for a part of its time that is in proportion to sum_j w_ij.

Difference from the paper: negative sampling instead of the hierarchical softmax.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfcourse.recommendation.interactions import check_ids
from tfcourse.recommendation.item2vec import ItemVectors
from tfcourse.sequence.word2vec import fit_word2vec


@dataclasses.dataclass(frozen=True)
class Graph:
    """A graph with weights, by rows.

    Attributes:
        starts: Where each node's edges begin in the two below, `(nodes + 1,)`.
        targets: Where the edges lead, `(edges,)`.
        weights: Their weights, above 0, `(edges,)`.
    """

    starts: np.ndarray
    targets: np.ndarray
    weights: np.ndarray

    def strengths(self) -> np.ndarray:
        """Return the sum of the weights that leave each node, `(nodes,)`."""
        sums = np.concatenate([[0.0], np.cumsum(self.weights)])
        return np.diff(sums[self.starts])

    def walk(self, begins: np.ndarray, length: int, seed: int = 0) -> np.ndarray:
        """Walk at random, all walks one step at a time.

        Args:
            begins: The first node of each walk, `(walks,)`.
            length: Nodes in a walk.
            seed: Of the walks.

        Returns:
            Nodes, `(walks, length)`; -1 after the end of a walk.
        """
        rng = np.random.default_rng(seed)
        sums = np.concatenate([[0.0], np.cumsum(self.weights)])
        low, high = sums[self.starts[:-1]], sums[self.starts[1:]]
        nodes = np.full((len(begins), length), -1)
        nodes[:, 0] = begins
        for step in range(1, length):
            here = nodes[:, step - 1]
            going = np.nonzero((here >= 0) & (high > low)[here])[0]
            here = here[going]
            drawn = low[here] + rng.random(len(going)) * (high - low)[here]
            edge = np.searchsorted(sums, drawn, side="right") - 1
            # Rounding may lead to the first edge of the next node.
            edge = np.minimum(edge, self.starts[here + 1] - 1)
            nodes[going, step] = self.targets[edge]
        return nodes


def make_graph(
    sources: np.ndarray,
    targets: np.ndarray,
    num_nodes: int,
    weights: np.ndarray | None = None,
    *,
    directed: bool = False,
) -> Graph:
    """Make a graph from its edges; the weights of an edge that is named twice are added.

    Args:
        sources: Where edges begin, ids from 0 to num_nodes - 1, `(edges,)`.
        targets: Where they end, `(edges,)`.
        num_nodes: How many nodes there are.
        weights: Of the edges, above 0; `None` is 1 each.
        directed: Whether an edge goes one way only.

    Raises:
        ValueError: If there is no edge, an id is out of range, or a weight is not above 0.
    """
    sources, targets = np.asarray(sources), np.asarray(targets)
    weights = np.ones(len(sources)) if weights is None else np.asarray(weights, float)
    if not len(sources) or not sources.shape == targets.shape == weights.shape:
        shapes = [part.shape for part in (sources, targets, weights)]
        raise ValueError(f"edges must be one or more, each with two ends, got shapes {shapes}")
    sources, targets = (
        check_ids(name, ids, num_nodes)
        for name, ids in (("sources", sources), ("targets", targets))
    )
    if not (np.isfinite(weights) & (weights > 0)).all():
        raise ValueError(f"weights must be above 0, got {weights.min()}")
    if not directed:
        both = sources != targets
        ends = np.concatenate([targets, sources[both]])
        sources = np.concatenate([sources, targets[both]])
        targets, weights = ends, np.concatenate([weights, weights[both]])
    keys, place = np.unique(sources * num_nodes + targets, return_inverse=True)
    starts = np.searchsorted(keys, np.arange(num_nodes + 1) * num_nodes)
    return Graph(starts, keys % num_nodes, np.bincount(place, weights))


def transitions(histories: Sequence[Sequence[int]], num_items: int) -> Graph:
    """Make the graph of which item came how often right after which.

    Args:
        histories: Ids in order of time, the oldest first; 0 is padding, and left out.
        num_items: How many ids there are, with 0.

    Raises:
        ValueError: If no history has two items, or an id is out of range.
    """
    histories = [ids[ids != 0] for ids in map(np.asarray, histories)]
    pairs = [(ids[:-1], ids[1:]) for ids in histories if len(ids) > 1]
    if not pairs:
        raise ValueError("histories must have one of two items or more, got none")
    sources, targets = (np.concatenate(part) for part in zip(*pairs, strict=True))
    return make_graph(sources, targets, num_items, directed=True)


def fit_deepwalk(
    graph: Graph,
    *,
    walks: int | None = None,
    length: int = 40,
    window: int = 5,
    embedding_dim: int = 64,
    epochs: int = 2,
    seed: int = 0,
) -> ItemVectors:
    """Learn a vector for each node of a graph.

    Args:
        graph: From `make_graph`, or from `transitions`.
        walks: How many walks, which begin at nodes in proportion to the weights that leave them,
            as in the course; `None` is ten from every node with an edge, as in the paper.
        length: Nodes in a walk.
        window: How many steps away a node may be to be a pair.
        embedding_dim: Length of a vector.
        epochs: How often the walks are read.
        seed: Of all that is drawn.

    Returns:
        The vectors, with `predict`, `recommend` and `neighbours`.

    Raises:
        ValueError: If `walks` is below 1 or `length` below 2, or as `fit_word2vec`.
    """
    if length < 2 or (walks is not None and walks < 1):
        raise ValueError(f"length must be 2 or more and walks 1 or more, got {length} and {walks}")
    strengths = graph.strengths()
    begins = np.tile(np.nonzero(np.diff(graph.starts))[0], 10)
    if walks is not None:
        rng = np.random.default_rng(seed)
        begins = rng.choice(len(strengths), walks, p=strengths / strengths.sum())
    paths = graph.walk(begins, length, seed)
    sentences = [path[path >= 0] for path in paths]
    learned = fit_word2vec(
        sentences,
        len(strengths),
        window=window,
        embedding_dim=embedding_dim,
        epochs=epochs,
        subsample=None,
        seed=seed,
    )
    counts = np.bincount(paths[paths >= 0], minlength=len(strengths))
    return ItemVectors(learned.vectors, learned.contexts, counts)
