"""The networks that recipes train on clicks, with sizes that suit a hundred thousand events."""

from collections.abc import Callable
from typing import NamedTuple

import keras

from tfcourse.recommendation.clicks import Clicks
from tfcourse.recommendation.deepfm import build_deepfm
from tfcourse.recommendation.dien import build_dien
from tfcourse.recommendation.din import build_din
from tfcourse.recommendation.embedding_mlp import build_embedding_mlp
from tfcourse.recommendation.factorization_machine import build_factorization_machine
from tfcourse.recommendation.neural_cf import build_neural_cf
from tfcourse.recommendation.wide_and_deep import build_wide_and_deep

# One length of vectors and one stack of layers for all, so that what differs is the idea.
EMBEDDING_DIM = 16
HIDDEN_UNITS = (128, 64)
SIZES = {"embedding_dim": EMBEDDING_DIM, "hidden_units": HIDDEN_UNITS}


def _neural_cf(clicks: Clicks) -> keras.Model:
    user, item = (clicks.pipeline.feature(name) for name in ("user", "item"))
    return build_neural_cf("neumf", user, item, embedding_dim=EMBEDDING_DIM)


class Network(NamedTuple):
    """A builder from clicks to a model, and for how many passes it learns.

    With statistics among the columns one or two passes are best: ids of a hundred thousand events
    are soon known by heart (Zhang et al., 2022, https://arxiv.org/abs/2209.06053). Those without
    hidden layers, or without statistics, need longer.
    """

    build: Callable[[Clicks], keras.Model]
    epochs: int = 2


CLICK_MODELS = {
    "fm": Network(
        lambda clicks: build_factorization_machine(clicks.features, embedding_dim=EMBEDDING_DIM), 5
    ),
    "neural_cf": Network(_neural_cf, 5),
    "embedding_mlp": Network(lambda clicks: build_embedding_mlp(clicks.features, **SIZES)),
    "wide_and_deep": Network(
        lambda clicks: build_wide_and_deep([*clicks.features, clicks.cross], **SIZES)
    ),
    "deepfm": Network(lambda clicks: build_deepfm(clicks.features, **SIZES)),
    "din": Network(lambda clicks: build_din(clicks.features, **SIZES, attention_units=(32,))),
    "dien": Network(lambda clicks: build_dien(clicks.features, **SIZES)),
}
