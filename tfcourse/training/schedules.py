"""Learning-rate schedules.

Choosing one: a constant rate to begin with; `warmup_cosine` when the last tenth of accuracy
counts, when the batch is large, and for transformers, whose first steps at full rate break them.
"""

import keras


def warmup_cosine(
    peak: float, total_steps: int, warmup_steps: int = 0, *, final: float = 0.0
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Return a rate that rises in a straight line to its peak and falls on half a cosine.

    At step `s`: `peak * s / warmup` before `warmup` steps, after that
    `final + (peak - final) * (1 + cos(pi * (s - warmup) / (total - warmup))) / 2`, and `final`
    from `total` on. It is Keras' CosineDecay by the words in which papers give it.

    When to use it: for a training of known length. Warm up over 1 to 10 % of the steps. An
    optimizer with a schedule has no rate to set: `find_learning_rate` and ReduceLROnPlateau
    need a number.

    Args:
        peak: The highest rate.
        total_steps: Steps of the whole training: batches of an epoch times epochs.
        warmup_steps: Steps from rate 0 to `peak`.
        final: The rate at the end.

    Raises:
        ValueError: If the numbers do not make such a curve.
    """
    if not peak > 0:
        raise ValueError(f"peak must be above 0, got {peak}")
    if not 0 <= final <= peak:
        raise ValueError(f"final must be from 0 to peak, {peak}, got {final}")
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"warmup_steps must be from 0 to below total_steps, {total_steps}, got {warmup_steps}"
        )
    falling = total_steps - warmup_steps
    cosine = keras.optimizers.schedules.CosineDecay
    if warmup_steps == 0:
        return cosine(float(peak), falling, alpha=final / peak)
    return cosine(
        0.0, falling, alpha=final / peak, warmup_target=float(peak), warmup_steps=warmup_steps
    )
