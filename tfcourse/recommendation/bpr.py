"""Bayesian personalised ranking (Rendle et al., 2009), https://arxiv.org/abs/1205.2618.

Of an item i that user u took and one j that he did not, the first should have the higher score:

    loss = -log sigmoid(s_ui - s_uj) + the scorer's own penalties

That is logistic regression on the difference of two scores, with the label 1 throughout: any model
of users and items can be trained by it, with the loss `BinaryCrossentropy(from_logits=True)`.
What all items of a user have in common, such as the user's bias, falls out of the difference.
"""

import keras
import numpy as np
from keras import layers

from tfcourse.data.features import Category, check_batch
from tfcourse.recommendation.sampling import NegativeSampler, popularity

NEGATIVE = "negative"  # the column of items that were not taken


@keras.saving.register_keras_serializable("tfcourse")
class Difference(layers.Subtract):
    """One score less another; the first shall be the higher, so that all labels are 1.

    Input: two scores `(batch, 1)`. Output: `(batch, 1)`.
    """

    one_label = True  # by which `training.fit` takes such labels


def pairwise(scorer: keras.Model, item: str = "item") -> keras.Model:
    """Wrap a model so that it compares two items of a user.

    Args:
        scorer: A model from a dict of columns to logits `(batch, 1)`; its weights are shared.
        item: Its column of items. A column "negative" of other items is added to its columns.

    Returns:
        A model from a dict of columns to the difference of the logits, `(batch, 1)`.

    Raises:
        ValueError: If the scorer has no such column, or one named "negative".
    """
    columns = {tensor.name: tensor for tensor in scorer.inputs}
    if item not in columns or NEGATIVE in columns:
        raise ValueError(
            f"scorer must have a column {item} and none named {NEGATIVE}, got {', '.join(columns)}"
        )
    inputs = {
        name: keras.Input(tensor.shape[1:], name=name, dtype=tensor.dtype)
        for name, tensor in columns.items()
    }
    other = keras.Input(inputs[item].shape[1:], name=NEGATIVE, dtype=inputs[item].dtype)
    logits = Difference(name="logits")([scorer(inputs), scorer(inputs | {item: other})])
    return keras.Model(inputs | {NEGATIVE: other}, logits, name=f"{scorer.name}_pairwise")


def draw_pairs(
    users: np.ndarray,
    items: np.ndarray,
    user: Category,
    item: Category,
    *,
    negatives: int = 5,
    alpha: float = 0.0,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Set beside everything that was taken some items that the user did not take.

    Args:
        users: Ids of what was taken, `(n,)`.
        items: Ids `(n,)`.
        user: The column of users.
        item: The column of items; id 0, unknown, is never drawn.
        negatives: How many for each.
        alpha: 0 draws all items that anybody took evenly, 1 as often as they were taken.
        seed: Of the draws.

    Returns:
        The columns of a `pairwise` model, `(n * negatives,)` each.

    Raises:
        ValueError: If an id is out of range, `negatives` below 1, or a user took everything.
    """
    if negatives < 1:
        raise ValueError(f"negatives must be at least 1, got {negatives}")
    check_batch([user, item], {user.name: users, item.name: items})
    taken = np.bincount(items, minlength=item.size) > 0
    taken[0] = False
    chances = np.where(taken, popularity(items, item.size, alpha), 0)
    sampler = NegativeSampler(chances / chances.sum(), (users, items), seed)
    drawn = sampler.draw_unseen(users, negatives)
    columns = {user.name: users, item.name: items}
    pairs = {name: np.repeat(np.asarray(c, "int32"), negatives) for name, c in columns.items()}
    return pairs | {NEGATIVE: drawn.ravel()}
