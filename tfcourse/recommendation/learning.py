"""Training on clicks, the same for every network, and what a network then answers."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from tfcourse import training
from tfcourse.recommendation.clicks import Clicks, Part
from tfcourse.recommendation.embedding import Embedding
from tfcourse.recommendation.metrics import probabilities

ROWS = 4096  # of a batch where nothing is learned
PATIENCE = 2


def learn(
    model: keras.Model,
    clicks: Clicks,
    flags,
    *,
    epochs: int | None = None,
    seed: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    workdir: str | Path | None = None,
    jit_compile: bool = True,
) -> keras.callbacks.History:
    """Train until the validation part's log loss gets no better, and end with its best epoch.

    Ids of a hundred thousand events are soon known by heart, so the best epoch is an early one,
    and the learning rate falls from the first step on.

    Args:
        model: Built in the scope of its strategy; it is compiled here.
        clicks: What to learn from, and to choose by.
        flags: Has `batch_size`, `learning_rate`, and `epochs` and `seed` where these are not given.
        epochs: Passes over the events, over which the learning rate falls to 0.
        seed: Of the order of the events.
        callbacks: More than early stopping.
        workdir: Folder for checkpoints: a run that has one goes on from there.
        jit_compile: Whether XLA may compile the steps, which takes longer than a tiny run.

    Returns:
        The history of all epochs.
    """
    seed = flags.seed if seed is None else seed
    epochs = epochs or flags.epochs
    data = rows(model, clicks.train, flags.batch_size, seed=seed)
    steps = epochs * data.steps
    with model.distribute_strategy.scope():
        rate = training.warmup_cosine(flags.learning_rate, steps, steps // 20)
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(rate), loss)
    stopping = training.MovingAverageStopping(
        "val_loss", decay=0.0, patience=PATIENCE, restore_best_weights=True
    )
    return training.fit(
        model,
        data,
        epochs,
        validation_data=rows(model, clicks.validation, ROWS),
        callbacks=[*callbacks, stopping],
        workdir=workdir,
        jit_compile=jit_compile and by_xla(model),
    )


def by_xla(model: keras.Model) -> bool | str:
    """Return a `jit_compile` that suits a model: on several replicas XLA can't compile all."""
    return "auto" if model.distribute_strategy.num_replicas_in_sync > 1 else True


def answers(model: keras.Model, part: Part) -> np.ndarray:
    """Return the probability of a click for each event of a part, `(rows,)`."""
    return probabilities(training.predict(model, rows(model, part, ROWS))).ravel()


def rows(
    model: keras.Model, part: Part, batch_size: int, *, seed: int | None = None
) -> training.InMemory:
    """Return those columns of a part that a model takes, shuffled if there is a seed."""
    columns = {name: part.columns[name] for name in model.input}
    shuffle = seed is not None
    return training.InMemory(columns, part.labels, batch_size, shuffle=shuffle, seed=seed or 0)


def vectors_by_id(model: keras.Model, name: str) -> np.ndarray:
    """Return the table of a category, `(size, n)`: that of the model's first embedding that has it.

    Raises:
        ValueError: If no layer of the model has one.
    """
    for layer in model.layers:
        if isinstance(layer, Embedding) and name in layer.tables:
            return np.asarray(layer.table)[layer.rows(name)]
    raise ValueError(f"{model.name} has no table of {name}")
