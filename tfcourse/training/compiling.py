"""How a classifier is compiled: loss, optimizer and metrics, said in one place."""

import keras


def compile_classifier(
    model: keras.Model, learning_rate: float, *, decay_steps: int | None = None
) -> keras.Model:
    """Compile a model that gives logits for classes that are numbered: Adam, cross-entropy.

    Call it in the scope of the model's strategy.

    Args:
        model: A model from anything to logits `(batch, num_classes)`.
        learning_rate: Of Adam (Kingma & Ba, 2015, https://arxiv.org/abs/1412.6980).
        decay_steps: If given, the rate falls to 0 over so many steps along a cosine
            (Loshchilov & Hutter, 2017, https://arxiv.org/abs/1608.03983).

    Returns:
        The model.
    """
    rate = learning_rate
    if decay_steps:
        rate = keras.optimizers.schedules.CosineDecay(learning_rate, decay_steps)
    model.compile(
        keras.optimizers.Adam(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model
