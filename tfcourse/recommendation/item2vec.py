"""item2vec (Barkan & Koenigstein, 2016), https://arxiv.org/abs/1603.04259.

The items of a basket, or of a user's likes, are taken for the words of a sentence: skip-gram with
negative sampling (`tfcourse.sequence.word2vec`) gives items vectors x that are alike where items
come with the same others. A set has no order, so that every pair of its items is a pair: the paper
widens the window to the whole set, or draws the order of the set anew each time, as is done here.

Items that are alike have a high cosine of x. What comes next is another question: training with
noise drawn with p_n(j) ~ count(j)^0.75 brings x_i . y_j near log(p(j | i) / (K p_n(j))) (Levy &
Goldberg, 2014), so that the mean of log p(j | i) over a history's items ranks as

    score(j) = mean_i x_i . y_j + 0.75 log(count(j) / sum_l count(l))

which for a history of nothing known is how popular an item is.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfcourse.sequence.word2vec import Word2Vec, fit_word2vec


@dataclasses.dataclass(frozen=True)
class ItemVectors:
    """Items by the company they keep.

    Attributes:
        vectors: x, `(num_items, embedding_dim)`; 0 for an item that never came with another.
        contexts: y, of the same shape.
        counts: How often each item came with others, `(num_items,)`.
    """

    vectors: np.ndarray
    contexts: np.ndarray
    counts: np.ndarray

    def neighbours(self, item: int, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """Return the cosines and ids of the k items that are most like an item, best first.

        Raises:
            ValueError: If the item never came, or fewer than k others did.
        """
        if not 0 <= item < len(self.counts) or not self.counts[item]:
            raise ValueError(f"item must be one of those learned from, got {item}")
        return Word2Vec(self.vectors, self.contexts, []).neighbours(item, k)

    def predict(self, histories: Sequence[Sequence[int]], items: np.ndarray) -> np.ndarray:
        """Return the score of an item for each history.

        Args:
            histories: Ids, a row each; those that are unknown, as padding is, are ignored.
            items: `(rows,)`; one that is unknown has the score of one that came once, and no more.

        Raises:
            ValueError: If there are not as many histories as items.
        """
        items = np.asarray(items, np.int64)
        if len(histories) != len(items):
            raise ValueError(
                f"histories and items must be equally long, got {len(histories)} and {len(items)}"
            )
        items = np.where((items >= 0) & (items < len(self.counts)), items, 0)
        users = np.array([self._user(history) for history in histories])
        users = users.reshape(-1, self.vectors.shape[1])
        return np.sum(users * self.contexts[items], axis=1) + self._popularity()[items]

    def recommend(self, history: Sequence[int], k: int = 10) -> np.ndarray:
        """Return the ids of the k best items for a history, the best first, `(k,)`.

        Items of the history are left out. Where none of it is known, the most frequent are best.

        Args:
            history: Ids of items; those that are unknown are ignored.
            k: How many.

        Raises:
            ValueError: If there are fewer than k other items.
        """
        scores = self.contexts @ self._user(history) + self._popularity()
        known = self._known(history)
        left = int((self.counts > 0).sum()) - len(set(known))
        if not 1 <= k <= left:
            raise ValueError(f"k must be from 1 to the {left} items that can be had, got {k}")
        scores[self.counts == 0] = scores[known] = -np.inf
        return np.argsort(-scores, kind="stable")[:k]

    def _popularity(self) -> np.ndarray:
        return 0.75 * np.log(np.maximum(self.counts, 1) / self.counts.sum())

    def _known(self, history: Sequence[int]) -> np.ndarray:
        ids = np.asarray(history, np.int64)
        ids = ids[(ids >= 0) & (ids < len(self.counts))]
        return ids[self.counts[ids] > 0]

    def _user(self, history: Sequence[int]) -> np.ndarray:
        ids = self._known(history)
        return self.vectors[ids].sum(axis=0) / max(len(ids), 1)


def fit_item2vec(
    histories: Sequence[Sequence[int]],
    num_items: int,
    *,
    window: int | None = None,
    embedding_dim: int = 64,
    negatives: int = 5,
    epochs: int = 20,
    subsample: float | None = 1e-3,
    seed: int = 0,
) -> ItemVectors:
    """Learn a vector for each item from what is liked, bought or played together.

    Args:
        histories: Ids of items, from 1 to num_items - 1; 0 is padding, and left out.
        num_items: How many ids there are, with 0.
        window: How many places away an item of the history may be to be a pair; `None` takes a
            history for a set, in which all pairs are equal.
        embedding_dim: Length of a vector.
        negatives: How many items drawn at random stand against each pair.
        epochs: How often the histories are read.
        subsample: Share of all events above which an item is at times left out; `None`: never.
        seed: Of all that is drawn.

    Returns:
        The vectors, with `predict`, `recommend` and `neighbours`.

    Raises:
        ValueError: If an id is out of range, no history has two items, or an argument is wrong.
    """
    histories = [ids[ids != 0] for ids in map(np.asarray, histories)]
    for row, ids in enumerate(histories):
        if (wrong := ids[(ids < 0) | (ids >= num_items)]).size:
            rule = f"ids must be from 0 to num_items - 1 = {num_items - 1}"
            raise ValueError(f"{rule}, got {wrong[0]} in history {row}")
    if not any(len(ids) > 1 for ids in histories):
        raise ValueError("histories must have one of two items or more, got none")
    learned = fit_word2vec(
        histories,
        num_items,
        embedding_dim=embedding_dim,
        window=5 if window is None else window,
        negatives=negatives,
        epochs=epochs,
        subsample=subsample,
        shuffle=window is None,
        seed=seed,
    )
    paired = np.concatenate([ids for ids in histories if len(ids) > 1])
    counts = np.bincount(paired, minlength=num_items)
    return ItemVectors(learned.vectors, learned.contexts, counts)
