"""Pictures of a run as PNG files: one module per subject.

Drawn with matplotlib's `Figure` alone: no window, no global state, so threads and notebooks are
safe.
"""

from tfcourse.plots._drawing import COLORS
from tfcourse.plots.classification import RIGHT, WRONG, confusion_matrix, prediction_grid
from tfcourse.plots.comparison import accuracy_against_cost
from tfcourse.plots.curves import accuracy_against_labels, learning_curves, learning_rate_curve
from tfcourse.plots.inside import feature_maps, filter_grid, heat_maps
from tfcourse.plots.regularisation import accuracy_gaps
from tfcourse.plots.restoration import image_rows

__all__ = [
    "COLORS",
    "RIGHT",
    "WRONG",
    "accuracy_against_cost",
    "accuracy_against_labels",
    "accuracy_gaps",
    "confusion_matrix",
    "feature_maps",
    "filter_grid",
    "heat_maps",
    "image_rows",
    "learning_curves",
    "learning_rate_curve",
    "prediction_grid",
]
