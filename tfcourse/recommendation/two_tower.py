"""Two towers (Yi et al., 2019), https://doi.org/10.1145/3298689.3346996.

One network turns what is known of a user into a vector u, another what is known of an item into v:

    s(user, item) = u . v / T               |u| = |v| = 1, T the temperature

No layer sees both, so the items' vectors are made once, and the best items for a user are those
whose vectors are nearest to u: a search in an index instead of a pass through a network for each
of a million items. The two towers of an older idea (Huang et al., 2013, DSSM,
https://doi.org/10.1145/2505515.2505665) and of YouTube's retrieval (Covington et al., 2016,
https://doi.org/10.1145/2959100.2959190) differ in what they are trained with; `InBatchSoftmax`
says how these are. A user or item without an id has the row of id 0, and his history or its facts:
`forgetting` trains that row (Volkovs, Yu & Poutanen, 2017,
https://papers.nips.cc/paper/2017/hash/dbd22ba3bd0df8f385bdac3e9f8be207-Abstract.html).
"""

from collections.abc import Mapping

import keras
import tensorflow as tf
from keras import layers, ops

from tfcourse.data.features import Category, Feature, Number, check_features, columns
from tfcourse.recommendation.blocks import check_sizes, fields, mlp, numbers
from tfcourse.recommendation.embedding import embed, make_inputs
from tfcourse.recommendation.randomness import random_bits

SMALLEST = 1e-6  # of the squared lengths that are divided by; float16 has it, too


def build_two_tower(
    user_features: list[Feature],
    item_features: list[Feature],
    *,
    embedding_dim: int = 32,
    hidden_units: tuple[int, ...] = (64,),
    dropout: float = 0.0,
    forgetting: Mapping[str, float] | None = None,
) -> keras.Model:
    """Build a tower for users and one for items, which end in vectors of length one.

    Users and items meet in an inner product alone: all that is known goes into the vectors, and
    retrieval is a search for the nearest. Each tower has tables of its own, so that each can be
    saved, served and moved to another machine alone; a history does not share the item's.

    Args:
        user_features: Columns of the user and of the moment: id, facts, history.
        item_features: Columns of the item: id, facts.
        embedding_dim: Length of the vectors of ids, and of those that come out.
        hidden_units: Sizes of the dense layers of each tower.
        dropout: Rate after each of them.
        forgetting: How often training takes an id for unknown, by category: `{"item": 0.1}` where
            new items have to be served. It teaches what facts say, and costs a little for old ones.

    Returns:
        A model from one dict of all columns to vectors `(batch, 2, embedding_dim)`, of the user and
        of the item. The layers `user_tower` and `item_tower` are models from their columns to
        vectors `(batch, embedding_dim)`.

    Raises:
        ValueError: If a list is none that a model can be built from, both have a column, or a
            size or a rate makes no sense.
    """
    check_features(user_features)
    check_features(item_features)
    if both := sorted(columns(user_features).keys() & columns(item_features).keys()):
        raise ValueError(
            f"user_features and item_features must have no column in common, got {', '.join(both)}"
        )
    _check_forgetting(forgetting or {}, [*user_features, *item_features])
    sizes = {"two_tower": (embedding_dim, hidden_units)}
    check_sizes(sizes, "two_tower", embedding_dim, hidden_units, dropout)
    inputs, vectors = {}, []
    for name, features in (("user", user_features), ("item", item_features)):
        own = make_inputs(features)
        parts = _parts(name, features, own, embedding_dim, forgetting or {})
        x = layers.Concatenate(name=f"{name}_fields")(parts) if len(parts) > 1 else parts[0]
        x = mlp(x, hidden_units, dropout=dropout, name=f"{name}_hidden")
        x = layers.Dense(embedding_dim, name=f"{name}_vector")(x)
        tower = keras.Model(own, _of_length_one(x), name=f"{name}_tower")
        inputs |= (mine := make_inputs(features))
        vectors.append(tower(mine))
    return keras.Model(inputs, ops.stack(vectors, axis=1), name="two_tower")


def _check_forgetting(forgetting: Mapping[str, float], features: list[Feature]) -> None:
    if not isinstance(forgetting, Mapping):
        raise ValueError(f"forgetting must be rates by category, got {forgetting!r}")
    categories = [x.name for x in columns(features).values() if isinstance(x, Category)]
    for name, rate in forgetting.items():
        if name not in categories:
            raise ValueError(f"forgetting must name one of {', '.join(categories)}, got {name}")
        if not 0 <= rate < 1:
            raise ValueError(f"forgetting must be from 0 to below 1, got {rate} for {name}")


def _of_length_one(x: keras.KerasTensor) -> keras.KerasTensor:
    # An empty history alone is 0 at first; Keras' UnitNormalization has a gradient of NaN there.
    return x * ops.rsqrt(ops.maximum(ops.sum(x * x, axis=-1, keepdims=True), SMALLEST))


def _parts(name, features, inputs, embedding_dim, forgetting) -> list[keras.KerasTensor]:
    """Return one vector for each column, those of the numbers last."""
    ids = dict(inputs)
    for column, rate in forgetting.items():
        if column in ids:
            ids[column] = Forget(rate, name=f"forget_{column}")(ids[column])
    if all(isinstance(feature, Number) for feature in features):
        return numbers(features, ids)
    vectors = embed(features, ids, embedding_dim, f"{name}_embedding")
    return fields(features, ids, vectors) + numbers(features, ids)


@keras.saving.register_keras_serializable("tfcourse")
class Forget(layers.Layer):
    """Take some ids for unknown while training: ids `(batch,)` -> ids `(batch,)`."""

    def __init__(self, rate: float, seed: int | None = None, **kwargs):
        """Say how often.

        Args:
            rate: Share of the ids that become 0.
            seed: Of which ones.
            **kwargs: What every layer takes.
        """
        super().__init__(**kwargs)
        self.rate, self.seed = rate, seed
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=False):
        if not training:
            return inputs
        bits = random_bits(tf.shape(inputs), self.generator)
        gone = bits < tf.constant(int(self.rate * 2**32), tf.uint32)
        return tf.where(gone, tf.zeros_like(inputs), inputs)

    def compute_output_spec(self, inputs, training=False):
        return keras.KerasTensor(inputs.shape, inputs.dtype)

    def get_config(self):
        return super().get_config() | {"rate": self.rate, "seed": self.seed}
