"""What fitted recommenders have in common: scores of all items, and lists of the best."""

import numpy as np
from scipy import sparse

from tfcourse.recommendation.interactions import best, check_ids, check_k, with_data

BLOCK = 4_000_000  # numbers of a block of scores


class Recommender:
    """Something fitted that scores items for users; what it scores by is up to the subclass.

    Attributes:
        seen: 1 where a user has rated an item, a sparse matrix `(num_users, num_items)`.
        popularity: Which share of the users has rated an item, `(num_items,)`.
    """

    def __init__(self, seen: sparse.csr_array):
        """Keep what users have seen: the places of a matrix, not its numbers."""
        self.seen = with_data(seen, 1.0)
        self.popularity = np.bincount(seen.indices, minlength=seen.shape[1]) / seen.shape[0]

    def scores(self, users: np.ndarray) -> np.ndarray:
        """Score all items for some users, as lists are ordered.

        Args:
            users: Ids `(n,)`.

        Returns:
            Scores `(n, num_items)`, also of what was seen. For a user who has seen nothing they are
            the items' popularity.

        Raises:
            ValueError: If an id is out of range.
        """
        users = check_ids("users", users, self.seen.shape[0])
        return np.where(self.is_new(users)[:, None], self.popularity, self._scores(users))

    def is_new(self, users: np.ndarray) -> np.ndarray:
        """Return which of some users have seen nothing, `(n,)`."""
        return np.diff(self.seen.indptr)[users] == 0

    def _scores(self, users: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def fold_in(self, items: np.ndarray, ratings: np.ndarray) -> np.ndarray:
        """Score all items for a new user who has rated some; nothing is fitted again.

        Args:
            items: Ids `(n,)`.
            ratings: `(n,)`.

        Returns:
            Scores `(num_items,)`.

        Raises:
            ValueError: If there is none, an id is out of range, or a rating is not finite.
        """
        raise NotImplementedError

    def recommend(self, user: int, k: int = 10, *, exclude_seen: bool = True) -> np.ndarray:
        """Return the `k` best items for a user, as `recommend_many` does, `(k,)`."""
        return self.recommend_many([user], k, exclude_seen=exclude_seen)[0]

    def recommend_many(
        self, users: np.ndarray, k: int = 10, *, exclude_seen: bool = True
    ) -> np.ndarray:
        """Return the best items for each of some users.

        Args:
            users: Ids `(n,)`.
            k: How many, at most as many as there are items.
            exclude_seen: Whether what a user has rated is left out.

        Returns:
            Ids `(n, k)`, the best first, of equally good ones the most popular. Who has fewer than
            `k` items left to see gets -1 at the end.

        Raises:
            ValueError: If an id is out of range, or `k` larger than the catalogue.
        """
        num_users, num_items = self.seen.shape
        users = check_ids("users", users, num_users)
        check_k(k, num_items)
        size, lists = max(1, BLOCK // num_items), [np.empty((0, k), int)]
        for first in range(0, len(users), size):
            block = users[first : first + size]
            scores = self.scores(block)
            if exclude_seen:
                scores[self.seen[block].nonzero()] = -np.inf
            lists.append(self._best(scores, k))
        return np.concatenate(lists)

    def recommend_new(self, items: np.ndarray, ratings: np.ndarray, k: int = 10) -> np.ndarray:
        """Return the `k` best items for a new user, `(k,)`, without those of his that are given."""
        check_k(k, self.seen.shape[1])
        scores = self.fold_in(items, ratings)
        scores[np.asarray(items, int)] = -np.inf
        return self._best(scores[None], k)[0]

    def _best(self, scores: np.ndarray, k: int) -> np.ndarray:
        order = np.argsort(-self.popularity, kind="stable")
        return np.append(order, -1)[best(scores[:, order], k)]
