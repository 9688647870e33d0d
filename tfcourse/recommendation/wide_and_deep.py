"""Wide & Deep (Cheng et al., 2016), https://arxiv.org/abs/1606.07792.

A linear model of ids and of crosses of ids, beside a network of vectors; both are trained at once:

    logit = sum_i w_i x_i  +  w . h_L  +  b

x_i is 1 for the id that a row has in a column of the wide part, 1 / n for each of the n ids of a
history, and h_L the last hidden layer of the deep part, which is that of Embedding + MLP.
"""

from collections.abc import Sequence

import keras
from keras import layers

from tfcourse.data.features import Cross, Feature, Number
from tfcourse.recommendation.blocks import Score, check_fields, check_sizes, fields, mlp, numbers
from tfcourse.recommendation.embedding import embed, make_inputs

# Length of a vector, units of the hidden layers. The paper's are 32 and (1024, 512, 256).
SIZES = {"paper": (16, (128, 64)), "course": (10, (128, 128))}


def build_wide_and_deep(
    features: Sequence[Feature],
    *,
    variant: str = "paper",
    wide: Sequence[str] | None = None,
    embedding_dim: int | None = None,
    hidden_units: tuple[int, ...] | None = None,
    dropout: float = 0.0,
) -> keras.Model:
    """Build a network that remembers by its wide part and generalises by its deep part.

    "Who saw A likes B" is one weight of the wide part, which learns it even where the deep part
    has found vectors by which everybody likes B a little. The paper trains the wide part by FTRL
    with L1 and the deep one by Adagrad: `training.ftrl.FtrlAdagrad(ftrl="wide/")`.

    Args:
        features: The columns. The course's are `course.WIDE_AND_DEEP`.
        variant: "paper" or "course", which differ in their sizes alone.
        wide: Names of the columns of the wide part, which are crosses, categories or histories;
            by default all crosses. The deep part has every column but the crosses among these.
        embedding_dim: Length of a vector; by default 16, in the course 10.
        hidden_units: Of each hidden layer; by default (128, 64), in the course (128, 128).
        dropout: Rate after each hidden layer.

    Returns:
        A model from a dict of columns to logits `(batch, 1)`. Crosses are computed inside, from
        the columns of their categories.

    Raises:
        ValueError: If no model can be built of these columns or sizes, or the wide part has none.
    """
    check_fields(features)
    dim, hidden = check_sizes(SIZES, variant, embedding_dim, hidden_units, dropout)
    shallow = _wide_features(features, wide)
    deep = [f for f in features if not (isinstance(f, Cross) and f in shallow)]
    if not deep:
        raise ValueError("features must have a column for the deep part, got none but crosses")
    check_fields(deep)
    inputs = make_inputs(features)
    weights = embed(shallow, inputs, 1, name="wide", spread=0.0)
    vectors = embed(deep, inputs, dim, name="embedding")
    parts = [*fields(deep, inputs, vectors), *numbers(deep, inputs)]
    x = mlp(layers.Concatenate(name="fields")(parts), hidden, dropout=dropout)
    score = layers.Dense(1, use_bias=False, name="deep")(x)
    logits = Score(name="logits")([*fields(shallow, inputs, weights), score])
    return keras.Model(inputs, logits, name="wide_and_deep")


def _wide_features(features: Sequence[Feature], wide: Sequence[str] | None) -> list[Feature]:
    if wide is None:
        chosen = [feature for feature in features if isinstance(feature, Cross)]
        if not chosen:
            raise ValueError("features must have a cross, or wide must name columns; got neither")
        return chosen
    with_ids = {f.name: f for f in features if not isinstance(f, Number)}
    if not wide or not with_ids.keys() >= set(wide) or len(set(wide)) < len(wide):
        known = ", ".join(with_ids)
        raise ValueError(f"wide must name columns of {known}, each once, got {list(wide)}")
    return [with_ids[name] for name in wide]
