"""Preflight: says on a laptop whether a model and its training step are ready for a TPU.

A TPU runs only what its compiler, XLA, translates as a whole: the forward pass, the loss, the
gradient, the optimizer and the metrics, with every shape fixed. XLA for the CPU stands in for it
here: what fails here fails on a TPU; what passes here may still fail there.
"""

import tfcourse

tfcourse.require_tensorflow()

from tfcourse.preflight.checks import Report, check  # noqa: E402
from tfcourse.preflight.files import check_file  # noqa: E402
from tfcourse.preflight.findings import Finding  # noqa: E402
from tfcourse.preflight.memory import Memory, estimate  # noqa: E402
from tfcourse.preflight.printing import say  # noqa: E402
from tfcourse.preflight.recipes import check_recipe  # noqa: E402

__all__ = [
    "Finding",
    "Memory",
    "Report",
    "check",
    "check_file",
    "check_recipe",
    "estimate",
    "say",
]
