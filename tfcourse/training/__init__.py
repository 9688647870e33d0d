"""Training: `fit`, `evaluate` and `predict` over any strategy, and callbacks for a run's folder."""

import tfcourse

tfcourse.require_tensorflow()

from tfcourse.data.in_memory import InMemory  # noqa: E402
from tfcourse.training.callbacks import (  # noqa: E402
    BestCheckpoint,
    Curves,
    MetricsCSV,
    ProgressBar,
    standard_callbacks,
)
from tfcourse.training.checkpoints import Checkpointing  # noqa: E402
from tfcourse.training.compiling import compile_classifier  # noqa: E402
from tfcourse.training.diagnostics import dry_run, overfit_one_batch  # noqa: E402
from tfcourse.training.ftrl import FtrlAdagrad  # noqa: E402
from tfcourse.training.gradients import (  # noqa: E402
    GradientNorms,
    check_gradients,
    gradient_norms,
)
from tfcourse.training.inverse_square_root import InverseSquareRoot  # noqa: E402
from tfcourse.training.label_smoothing import SmoothedCrossEntropy  # noqa: E402
from tfcourse.training.loop import evaluate, fit, predict  # noqa: E402
from tfcourse.training.lr_finder import find_learning_rate  # noqa: E402
from tfcourse.training.monitors import Profile, Throughput  # noqa: E402
from tfcourse.training.nan_guard import NaNGuard  # noqa: E402
from tfcourse.training.noise import mix_up, weight_noise  # noqa: E402
from tfcourse.training.optimizers import LazyAdam, RowwiseAdagrad  # noqa: E402
from tfcourse.training.penalties import penalise  # noqa: E402
from tfcourse.training.replicas import apply_gradients, gather  # noqa: E402
from tfcourse.training.schedules import warmup_cosine  # noqa: E402
from tfcourse.training.steps import evaluate_step, forward, supervised_step  # noqa: E402
from tfcourse.training.stopping import MovingAverageStopping  # noqa: E402
from tfcourse.training.strategies import strategy  # noqa: E402
from tfcourse.training.transfer import UnfreezeAt, layer_rates  # noqa: E402

__all__ = [
    "BestCheckpoint",
    "Checkpointing",
    "Curves",
    "FtrlAdagrad",
    "GradientNorms",
    "InMemory",
    "InverseSquareRoot",
    "LazyAdam",
    "MetricsCSV",
    "MovingAverageStopping",
    "NaNGuard",
    "Profile",
    "ProgressBar",
    "RowwiseAdagrad",
    "SmoothedCrossEntropy",
    "Throughput",
    "UnfreezeAt",
    "apply_gradients",
    "check_gradients",
    "compile_classifier",
    "dry_run",
    "evaluate",
    "evaluate_step",
    "find_learning_rate",
    "fit",
    "forward",
    "gather",
    "gradient_norms",
    "layer_rates",
    "mix_up",
    "overfit_one_batch",
    "penalise",
    "predict",
    "standard_callbacks",
    "strategy",
    "supervised_step",
    "warmup_cosine",
    "weight_noise",
]
