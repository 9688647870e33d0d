"""Negatives: items that a user is taken not to want, drawn evenly, by popularity, or in a batch.

    q(item) = count(item)^alpha / sum of all      alpha 0: evenly, 1: as often as they were chosen

alpha = 0.75 is word2vec's (Mikolov et al., 2013, https://arxiv.org/abs/1310.4546). The other items
of a batch are negatives that were drawn with alpha = 1; a softmax over them is corrected by
subtracting log q (Yi et al., 2019, https://doi.org/10.1145/3298689.3346996).
"""

import numpy as np

ROUNDS = 100  # of drawing again what was seen, before it is left out of what is drawn from


def popularity(items: np.ndarray, num_items: int, alpha: float = 0.75) -> np.ndarray:
    """Return with which probability each item is drawn.

    Args:
        items: What was chosen in the training part, rows of items, `(rows,)`.
        num_items: In the catalogue. With `alpha` 0 those never chosen are drawn too.
        alpha: From 0, evenly, to 1, as often as it was chosen.

    Returns:
        Probabilities `(num_items,)`, float64.

    Raises:
        ValueError: If an item is out of range, there is none, or alpha is below 0.
    """
    if alpha < 0:
        raise ValueError(f"alpha must be 0 or more, got {alpha}")
    weights = counts_of(items, num_items).astype(np.float64) ** alpha
    return weights / weights.sum()


def in_batch_log_q(items: np.ndarray, num_items: int) -> np.ndarray:
    """Return the log of how probable each item is as an in-batch negative.

    Args:
        items: Of the training part, rows of items, `(rows,)`.
        num_items: In the catalogue; one that was never chosen counts as chosen once.

    Returns:
        `(num_items,)`, float32: subtract it from the logits of the batch's items.

    Raises:
        ValueError: If an item is out of range or there is none.
    """
    counts = counts_of(items, num_items)
    return np.log(np.maximum(counts, 1) / counts.sum()).astype(np.float32)


def counts_of(items: np.ndarray, num_items: int) -> np.ndarray:
    """Count how often each item was chosen: `(rows,)` -> `(num_items,)`."""
    items = np.asarray(items)
    if not items.size:
        raise ValueError("items must have at least one row, got none")
    if (wrong := (items < 0) | (items >= num_items)).any():
        row = int(wrong.argmax())
        raise ValueError(f"items must be from 0 to {num_items - 1}, got {items[row]} in row {row}")
    return np.bincount(items, minlength=num_items)


class NegativeSampler:
    """Draws negatives for users, with replacement, never what a user has seen.

    The same seed gives the same draws. Given what is excluded, the others keep their proportions.
    """

    def __init__(
        self,
        probabilities: np.ndarray,
        seen: tuple[np.ndarray, np.ndarray],
        seed: int = 0,
    ):
        """Say what is drawn from and what is not.

        Args:
            probabilities: Of the items, such as `popularity` returns, `(num_items,)`.
            seen: Rows of users and of items: pairs never to be drawn.
            seed: Of the draws.

        Raises:
            ValueError: If probabilities are no distribution, or a seen item is out of range.
        """
        probabilities = np.asarray(probabilities, np.float64)
        # A NaN passes neither of the two.
        if not (probabilities >= 0).all() or not abs(probabilities.sum() - 1) < 1e-6:
            raise ValueError(
                f"probabilities must be 0 or more and add up to 1, got {probabilities.sum()}"
            )
        self.num_items = len(probabilities)
        self.probabilities = probabilities
        self.cumulated = np.cumsum(probabilities)
        self.cumulated /= self.cumulated[-1]
        users, items = (np.asarray(column, np.int64) for column in seen)
        if items.size:
            counts_of(items, self.num_items)
        self.seen = np.unique(users * self.num_items + items)
        self.rng = np.random.default_rng(seed)

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        """Draw items for nobody in particular, int32."""
        found = np.searchsorted(self.cumulated, self.rng.random(shape), side="right")
        return found.astype(np.int32)

    def draw_unseen(self, users: np.ndarray, count: int) -> np.ndarray:
        """Draw items that each user has not seen.

        Args:
            users: Rows of users, `(rows,)`.
            count: Negatives for each.

        Returns:
            Items `(rows, count)`, int32.

        Raises:
            ValueError: If a user has seen all that can be drawn.
        """
        users = np.asarray(users, np.int64)
        self._check_choice(users)
        drawn = self.draw((len(users), count))
        keys = users[:, None] * self.num_items
        wrong = np.argwhere(self._is_seen(keys + drawn))
        for _ in range(ROUNDS):
            again = self.draw((len(wrong),))
            drawn[wrong[:, 0], wrong[:, 1]] = again
            wrong = wrong[self._is_seen(keys[wrong[:, 0], 0] + again)]
        for row, place in wrong:
            left = self.probabilities.copy()
            left[self._is_seen(keys[row] + np.arange(self.num_items))] = 0
            drawn[row, place] = self.rng.choice(self.num_items, p=left / left.sum())
        return drawn

    def _is_seen(self, keys: np.ndarray) -> np.ndarray:
        if not len(self.seen):
            return np.zeros(keys.shape, bool)
        place = np.minimum(np.searchsorted(self.seen, keys), len(self.seen) - 1)
        return self.seen[place] == keys

    def _check_choice(self, users: np.ndarray) -> None:
        asked = np.unique(users)
        drawable = self.probabilities > 0
        seen = self.seen[drawable[self.seen % self.num_items]]
        first = np.searchsorted(seen, asked * self.num_items)
        last = np.searchsorted(seen, (asked + 1) * self.num_items)
        full = last - first >= drawable.sum()
        if full.any():
            raise ValueError(
                f"user {asked[full.argmax()]} must have an item to be drawn that was not seen, "
                f"got {drawable.sum()} seen of {drawable.sum()}"
            )
