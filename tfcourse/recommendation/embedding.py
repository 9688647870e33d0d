"""From ids to vectors: one table with a slice of rows for every category of a recommender."""

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfcourse.data.features import Cross, Feature, History, Number, check_ids, columns

SMALL = 2**18  # numbers of a table whose gradient is dense
SPREAD = 0.05  # the first weights are uniform in -SPREAD .. SPREAD


def known(ids: keras.KerasTensor, size: int) -> keras.KerasTensor:
    """Return ids as int32, with 0, unknown, for those that are out of range."""
    # Compared before they are cast: 2^32 + 1 would become 1.
    return ops.where((ids >= 0) & (ids < size), ops.cast(ids, "int32"), 0)


@keras.saving.register_keras_serializable("tfcourse")
class Embedding(keras.layers.Layer):
    """Look up the vectors of all categories, histories and crosses at once.

    All tables lie one below the other in one variable, so that a step gathers once and updates
    one variable instead of one for each column. A history has the rows of its category.

    Input: ids by name, `(batch,)` or `(batch, length)`.
    Output: vectors by name, `(batch, embedding_dim)` or `(batch, length, embedding_dim)`.
    An id that is out of range gets the row of id 0, unknown, on every device. The gradient of more
    than `SMALL` numbers has the rows of the batch alone, as `LazyAdam` wants it.
    """

    def __init__(
        self,
        tables: dict[str, int],
        columns: dict[str, str],
        embedding_dim: int,
        spread: float = SPREAD,
        **kwargs,
    ):
        """Say which tables there are.

        Args:
            tables: How many rows each table has, by name.
            columns: Whose table each column uses, by the name of the column.
            embedding_dim: Length of a vector.
            spread: First weights are uniform in -spread .. spread.
            **kwargs: What every layer takes.
        """
        super().__init__(**kwargs)
        self.tables, self.columns, self.embedding_dim = dict(tables), dict(columns), embedding_dim
        self.spread = spread

    def build(self, input_shape):
        self.table = self.add_weight(
            name="table",
            shape=(sum(self.tables.values()), self.embedding_dim),
            initializer=keras.initializers.RandomUniform(-self.spread, self.spread),
            autocast=False,  # the rows are cast, not the table
        )

    def rows(self, name: str) -> slice:
        """Return which rows of the variable are a table."""
        names = list(self.tables)
        first = sum(self.tables[other] for other in names[: names.index(name)])
        return slice(first, first + self.tables[name])

    def check_arrays(
        self, inputs: Mapping[str, keras.KerasTensor], arrays: Mapping[str, np.ndarray]
    ) -> None:
        """Refuse ids that no row belongs to; `training.fit` asks before it begins.

        Args:
            inputs: Of the model, by name; only those that come here as they are can be judged.
            arrays: What the model is to be trained on.

        Raises:
            ValueError: As `data.features.check_ids`.
        """
        columns = keras.tree.flatten({column: column for column in self.columns})
        for column, tensor in zip(columns, keras.tree.flatten(self.input), strict=True):
            if column in arrays and tensor is inputs[column]:
                check_ids(column, self.tables[self.columns[column]], arrays[column])

    def call(self, inputs):
        flat = []
        for column, name in self.columns.items():
            ids = self.rows(name).start + known(inputs[column], self.tables[name])
            flat.append(ids[:, None] if len(ids.shape) == 1 else ids)
        # A gather from the variable itself has a gradient of the rows of the batch alone. A small
        # table as a product has one of all rows, which costs an optimizer less than rows do.
        small = self.table.shape[0] * self.table.shape[1] <= SMALL
        table = self.table.value * 1.0 if small else self.table.value
        vectors = tf.gather(table, ops.concatenate(flat, axis=1))
        vectors = ops.cast(vectors, self.compute_dtype)
        # The gradient of a split is one copy; that of a slice is as large as the whole.
        parts = tf.split(vectors, [ids.shape[1] for ids in flat], axis=1)
        return {
            column: part[:, 0] if len(inputs[column].shape) == 1 else part
            for column, part in zip(self.columns, parts, strict=True)
        }

    def compute_output_shape(self, input_shape):
        return {name: (*input_shape[name], self.embedding_dim) for name in self.columns}

    def get_config(self):
        own = {"tables": self.tables, "columns": self.columns}
        own |= {"embedding_dim": self.embedding_dim, "spread": self.spread}
        return super().get_config() | own


@keras.saving.register_keras_serializable("tfcourse")
class Crossed(keras.layers.Layer):
    """Hash the ids of several categories into one id, in 32-bit arithmetic on any device.

    Input: a list of ids `(batch,)`. Output: ids `(batch,)`, 0 where one of them is 0.
    """

    def __init__(self, size: int, **kwargs):
        """Say into how many ids.

        Args:
            size: Ids are 1 to size - 1, and 0.
            **kwargs: What every layer takes.
        """
        super().__init__(**kwargs)
        self.size = size

    def call(self, inputs):
        # FNV-1a over the ids: multiply by the prime, wrap around, keep the sign bit off.
        mixed = tf.constant(-2128831035, "int32")
        for ids in inputs:
            mixed = tf.bitwise.bitwise_xor(mixed, tf.cast(ids, "int32")) * 16777619
            mixed = tf.bitwise.bitwise_xor(mixed, tf.bitwise.right_shift(mixed, 15))
        hashed = 1 + tf.bitwise.bitwise_and(mixed, 2**31 - 1) % (self.size - 1)
        known = ops.all(ops.stack([ids > 0 for ids in inputs]), axis=0)
        return ops.where(known, hashed, 0)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs[0].shape, "int32")

    def get_config(self):
        return super().get_config() | {"size": self.size}


def make_inputs(features: list[Feature]) -> dict[str, keras.KerasTensor]:
    """Return a model's inputs by name: `(batch,)` or `(batch, length)`.

    Ids are int64, so that Keras leaves as they are those that are out of range of int32.
    """
    found = {}
    for name, column in columns(features).items():
        shape = (column.length,) if isinstance(column, History) else ()
        dtype = "float32" if isinstance(column, Number) else "int64"
        found[name] = keras.Input(shape, name=name, dtype=dtype)
    return found


def with_crosses(
    features: list[Feature], inputs: dict[str, keras.KerasTensor]
) -> dict[str, keras.KerasTensor]:
    """Return inputs with the ids `(batch,)` of all crosses; those that are there stay."""
    found = dict(inputs)
    for feature in features:
        if isinstance(feature, Cross) and feature.name not in found:
            parts = [known(inputs[part.name], part.size) for part in feature.categories]
            found[feature.name] = Crossed(feature.size, name=feature.name)(parts)
    return found


def embed(
    features: list[Feature],
    inputs: dict[str, keras.KerasTensor],
    embedding_dim: int,
    name: str,
    spread: float = SPREAD,
) -> dict[str, keras.KerasTensor]:
    """Look up the vectors of every category, history and cross of a model.

    Args:
        features: The columns; numbers have no vectors.
        inputs: What `make_inputs` returned for them, or `with_crosses`.
        embedding_dim: Length of a vector.
        name: Of the layer.
        spread: First weights are uniform in -spread .. spread.

    Returns:
        Vectors by the column's name: `(batch, embedding_dim)`, of a history
        `(batch, length, embedding_dim)`.
    """
    tables, used, ids = {}, {}, {}
    inputs = with_crosses(features, inputs)
    for feature in features:
        if isinstance(feature, Number):
            continue
        table = feature.item if isinstance(feature, History) else feature
        tables[table.name], used[feature.name] = table.size, table.name
        ids[feature.name] = inputs[feature.name]
    return Embedding(tables, used, embedding_dim, spread, name=name)(ids)
