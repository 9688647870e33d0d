"""DeepCTR's DeepFM and DIN, trained by the `fit` of the Keras that DeepCTR is made for.

Its DeepFM has no vectors for numbers, which its deep and its linear part read as they are; its
penalties of the tables are the defaults of the library. "din" has our activations, sigmoid in
the activation unit and Dice in the hidden layers; "din_as_it_comes" has DeepCTR's, Dice in the
activation unit and ReLU in the hidden layers.

At the end of an epoch `fit` may wait a second and more for a thread of tf.data that sleeps, so it
is told, too, when the last step was done.
"""

import time

import common
import tensorflow as tf
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat, get_feature_names
from deepctr.models import DIN, DeepFM


def columns_of(clicks):
    dim = clicks.settings["embedding_dim"]
    columns = [
        SparseFeat(name, vocabulary_size=size, embedding_dim=dim)
        for name, size in clicks.of("category")
    ]
    columns += [
        VarLenSparseFeat(
            # DIN knows a history by this prefix of what it is a history of.
            SparseFeat(f"hist_{item}", size, dim, embedding_name=item),
            maxlen=length,
            combiner="mean",
        )
        for _, item, size, length in clicks.of("history")
    ]
    return columns + [DenseFeat(name, 1) for (name,) in clicks.of("number")]


class LastStep(tf.keras.callbacks.Callback):
    """Knows when a step was the last so far."""

    _supports_tf_logs = True  # a step does not wait for its loss

    def on_train_batch_end(self, batch, logs=None):
        self.time = time.perf_counter()


def build(name, clicks, seed):
    tf.keras.utils.set_random_seed(seed)
    settings, columns = clicks.settings, columns_of(clicks)
    if name == "deepfm":
        hidden = tuple(settings["hidden_units"])
        model = DeepFM(columns, columns, dnn_hidden_units=hidden, seed=seed)
    else:
        model = DIN(
            columns,
            [item for _, item, _, _ in clicks.of("history")],
            dnn_hidden_units=tuple(settings["din_units"]),
            att_hidden_size=tuple(settings["attention_units"]),
            seed=seed,
            **({"dnn_activation": "dice", "att_activation": "sigmoid"} if name == "din" else {}),
        )
    model.compile(tf.keras.optimizers.Adam(settings["learning_rate"]), "binary_crossentropy")
    names = {f"hist_{item}": history for history, item, _, _ in clicks.of("history")}
    inputs = {
        part: {name: arrays[names.get(name, name)] for name in get_feature_names(columns)}
        for part, arrays in clicks.parts.items()
    }

    def epoch():
        label, last = clicks.parts["train"]["label"], LastStep()
        size = settings["batch_size"]
        model.fit(inputs["train"], label, batch_size=size, verbose=0, callbacks=[last])
        return last.time

    def score(part):
        return model.predict(inputs[part], batch_size=4096, verbose=0)[:, 0]

    return epoch, score


if __name__ == "__main__":
    common.main(build, ("deepfm", "din", "din_as_it_comes"))
