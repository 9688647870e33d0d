"""Training: `fit`, `evaluate` and `predict` over any strategy, and callbacks for a run's folder."""

import tfcourse

tfcourse.require_tensorflow()

from tfcourse.training.callbacks import (  # noqa: E402
    BestCheckpoint,
    Curves,
    MetricsCSV,
    ProgressBar,
    standard_callbacks,
)
from tfcourse.training.compiling import compile_classifier  # noqa: E402
from tfcourse.training.loop import evaluate, fit, predict  # noqa: E402
from tfcourse.training.steps import evaluate_step, supervised_step  # noqa: E402
from tfcourse.training.strategies import strategy  # noqa: E402

__all__ = [
    "BestCheckpoint",
    "Curves",
    "MetricsCSV",
    "ProgressBar",
    "compile_classifier",
    "evaluate",
    "evaluate_step",
    "fit",
    "predict",
    "standard_callbacks",
    "strategy",
    "supervised_step",
]
