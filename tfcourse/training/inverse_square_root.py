"""The learning rate of the Transformer (Vaswani et al., 2017), https://arxiv.org/abs/1706.03762."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfcourse")
class InverseSquareRoot(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that rises in a straight line and then falls with the root of the step.

    At step s, counted from 1: `peak * min(s / warmup, sqrt(warmup / s))`. The paper's peak is
    `(model_dim * warmup) ** -0.5`, with a warm-up of 4,000 steps 0.0007 for its base model.

    When to use it: for a training whose end is open. For one of known length `warmup_cosine` gets
    to 0, where this one is still at half its peak after four times the warm-up.
    """

    def __init__(self, peak: float, warmup_steps: int):
        """Take the highest rate, and the step that has it.

        Raises:
            ValueError: If a number makes no sense.
        """
        if not peak > 0:
            raise ValueError(f"peak must be above 0, got {peak}")
        if not warmup_steps >= 1:
            raise ValueError(f"warmup_steps must be at least 1, got {warmup_steps}")
        self.peak, self.warmup_steps = float(peak), warmup_steps

    def __call__(self, step):
        """Return the rate of a step, which Keras counts from 0."""
        step, warmup = ops.cast(step, "float32") + 1, float(self.warmup_steps)
        return self.peak * ops.minimum(step / warmup, ops.sqrt(warmup / step))

    def get_config(self):
        """Return the arguments."""
        return {"peak": self.peak, "warmup_steps": self.warmup_steps}
