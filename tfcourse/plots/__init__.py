"""Pictures of a run as PNG files: one module per subject.

Drawn with matplotlib's `Figure` alone: no window, no global state, so threads and notebooks are
safe.
"""

from tfcourse.plots._drawing import COLORS
from tfcourse.plots.basics import decision_regions, loss_curves, same_curve
from tfcourse.plots.basics_compare import (
    layer_variances,
    loss_by_epoch,
    optimizer_paths,
    predictions,
    split_scores,
)
from tfcourse.plots.classification import RIGHT, WRONG, confusion_matrix, prediction_grid
from tfcourse.plots.comparison import accuracy_against_cost
from tfcourse.plots.curves import accuracy_against_labels, learning_curves, learning_rate_curve
from tfcourse.plots.depth import accuracy_against_size
from tfcourse.plots.inside import feature_maps, filter_grid, heat_maps
from tfcourse.plots.language import surprising_text, temperature_curve
from tfcourse.plots.recommendation import attention_map, calibration_curve, embedding_map
from tfcourse.plots.regularisation import accuracy_gaps
from tfcourse.plots.restoration import image_rows
from tfcourse.plots.spectra import shift_curves, spectra
from tfcourse.plots.texts import word_effects
from tfcourse.plots.translation import alignment_maps

__all__ = [
    "COLORS",
    "RIGHT",
    "WRONG",
    "accuracy_against_cost",
    "accuracy_against_labels",
    "accuracy_against_size",
    "accuracy_gaps",
    "alignment_maps",
    "attention_map",
    "calibration_curve",
    "confusion_matrix",
    "decision_regions",
    "embedding_map",
    "feature_maps",
    "filter_grid",
    "heat_maps",
    "image_rows",
    "layer_variances",
    "learning_curves",
    "learning_rate_curve",
    "loss_by_epoch",
    "loss_curves",
    "optimizer_paths",
    "prediction_grid",
    "predictions",
    "same_curve",
    "shift_curves",
    "spectra",
    "split_scores",
    "surprising_text",
    "temperature_curve",
    "word_effects",
]
