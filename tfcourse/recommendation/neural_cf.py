"""Neural collaborative filtering (He et al., 2017), https://arxiv.org/abs/1708.05031.

GMF weighs the products of the numbers of two vectors, where matrix factorisation adds them up;
MLP puts the vectors one behind the other; NeuMF is both, with tables of their own:

    gmf:    logit = w . (p_u * q_i) + b
    mlp:    logit = w . h_L + b                    h_0 = [p_u, q_i]    h_l = relu(W_l h_(l-1) + b_l)
    neumf:  logit = w . [p_u * q_i, h_L] + b

The course has an MLP, and two towers whose outputs are multiplied: logit = w <f(p_u), g(q_i)> + b.
"""

import keras
from keras import layers, ops

from tfcourse.data.features import Category, check_features
from tfcourse.recommendation.blocks import check_sizes, mlp
from tfcourse.recommendation.embedding import embed, make_inputs

# Length of a vector, units of the hidden layers: the paper's GMF has n, its MLP 2 n and
# (4 n, 2 n, n), for n from 8 to 64. One length for both is ours.
SIZES = {
    "gmf": (16, (64, 32, 16)),
    "mlp": (16, (64, 32, 16)),
    "neumf": (16, (64, 32, 16)),
    "course_mlp": (10, (10, 10)),
    "course_towers": (10, (10, 10)),
}


def build_neural_cf(
    kind: str,
    user: Category,
    item: Category,
    *,
    embedding_dim: int | None = None,
    hidden_units: tuple[int, ...] | None = None,
    dropout: float = 0.0,
) -> keras.Model:
    """Build a recommender that knows of users and items nothing but who they are.

    The dot product of matrix factorisation is one fixed way in which two vectors can act on each
    other; a network learns the way.

    Args:
        kind: "gmf", "mlp", "neumf", "course_mlp" or "course_towers".
        user: The column of users.
        item: The column of items. The course's are `course.USER` and `course.MOVIE`.
        embedding_dim: Length of a vector; by default 16, in the course 10.
        hidden_units: Of each hidden layer; by default (64, 32, 16), in the course (10, 10). GMF
            has none.
        dropout: Rate after each hidden layer.

    Returns:
        A model from a dict of the two columns to logits `(batch, 1)`.

    Raises:
        ValueError: If no model can be built of these columns or sizes.
    """
    for name, column in (("user", user), ("item", item)):
        if not isinstance(column, Category):
            raise ValueError(f"{name} must be a category, got {column!r}")
    check_features([user, item])
    dim, hidden = check_sizes(SIZES, kind, embedding_dim, hidden_units, dropout, word="kind")
    inputs = make_inputs([user, item])

    def vectors(name: str) -> list[keras.KerasTensor]:
        found = embed([user, item], inputs, dim, name=name)
        return [found[user.name], found[item.name]]

    parts = []
    if kind in ("gmf", "neumf"):
        parts.append(layers.Multiply(name="gmf")(vectors("gmf_embedding")))
    if kind in ("mlp", "neumf", "course_mlp"):
        pair = layers.Concatenate(name="pair")(vectors("mlp_embedding"))
        parts.append(mlp(pair, hidden, dropout=dropout))
    if kind == "course_towers":
        towers = zip(vectors("mlp_embedding"), ("user", "item"), strict=True)
        x, y = [mlp(vector, hidden, dropout=dropout, name=name) for vector, name in towers]
        parts.append(ops.sum(x * y, axis=1, keepdims=True))
    x = layers.Concatenate(name="both")(parts)
    return keras.Model(inputs, layers.Dense(1, name="logits")(x), name=kind)


def start_from(
    neumf: keras.Model, gmf: keras.Model, mlp: keras.Model, alpha: float = 0.5
) -> keras.Model:
    """Let a NeuMF begin with what a GMF and an MLP have learnt, each trained alone.

    From random weights it ends in worse places. Its logits become
    `alpha * those of gmf + (1 - alpha) * those of mlp`. The paper trains the two by Adam and goes
    on by plain gradient descent, since the moments of Adam can't be taken over.

    Args:
        neumf: A model of the kind "neumf"; its weights are changed.
        gmf: A model of the kind "gmf", of the same columns and sizes.
        mlp: A model of the kind "mlp", of the same columns and sizes.
        alpha: How much the first counts, from 0 to 1.

    Returns:
        `neumf`.

    Raises:
        ValueError: If the models are of other kinds or sizes, or `alpha` is out of range.
    """
    names = [model.name for model in (neumf, gmf, mlp)]
    if names != ["neumf", "gmf", "mlp"]:
        raise ValueError(f"models must be a neumf, a gmf and an mlp, got {', '.join(names)}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be from 0 to 1, got {alpha!r}")
    kernels, biases = zip(*(m.get_layer("logits").get_weights() for m in (gmf, mlp)), strict=True)
    kernel = keras.ops.concatenate([alpha * kernels[0], (1 - alpha) * kernels[1]])
    new = {"logits": [kernel, alpha * biases[0] + (1 - alpha) * biases[1]]}
    for model in (gmf, mlp):
        new |= {x.name: x.get_weights() for x in model.layers if x.weights and x.name != "logits"}
    for layer in (layer for layer in neumf.layers if layer.weights):
        ours, theirs = [w.shape for w in layer.weights], [w.shape for w in new.get(layer.name, [])]
        if ours != theirs:
            raise ValueError(
                f"models must have the same sizes, got {ours} and {theirs} in {layer.name}"
            )
    for name, weights in new.items():
        neumf.get_layer(name).set_weights(weights)
    return neumf
