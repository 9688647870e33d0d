"""Pictures of what a classifier answers."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tfcourse.plots._drawing import fonts, new_figure, save, short, width_of

RIGHT, WRONG = "#2e7d32", "#c62828"


def confusion_matrix(labels, predictions, class_names: list[str], path: str | Path) -> None:
    """Draw how often each class was taken for each other; colours are shares of a row.

    Args:
        labels: True classes, `(examples,)` of int.
        predictions: Predicted classes, `(examples,)` of int.
        class_names: Name of each class.
        path: The PNG file.
    """
    classes = len(class_names)
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (np.asarray(labels), np.asarray(predictions)), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cell, count_size, name_size = _sizes(classes)
    # The cells alone make the figure; saving it adds what the names need around them.
    figure = Figure(figsize=(classes * cell, classes * cell))
    axes = figure.add_axes((0, 0, 1, 1))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts):
        text = {"color": "white" if shares[row, column] > 0.55 else "#20303f", "size": count_size}
        axes.text(column, row, counts[row, column], ha="center", va="center", **text)
    names = [short(name) for name in class_names]
    upright = 90 if max(map(width_of, names)) * name_size / 100 > cell else 0
    axes.set_xticks(range(classes), names, size=name_size, family=fonts(), rotation=upright)
    axes.set_yticks(range(classes), names, size=name_size, family=fonts())
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    axes.set_title(
        f"Confusion matrix: accuracy {accuracy:.3f} on {counts.sum():,} examples", pad=14
    )
    scale = axes.inset_axes((1.0 + 0.2 / (classes * cell), 0, 0.2 / (classes * cell), 1))
    figure.colorbar(image, cax=scale, label="share of the true class")
    save(figure, path)


def prediction_grid(
    images: np.ndarray, labels, logits, class_names: list[str], path: str | Path
) -> None:
    """Draw up to 12 images that the model got right, in green, and up to 12 others, in red.

    Args:
        images: `(n, height, width, 1 or 3)` of uint8.
        labels: True classes, `(n,)` of int.
        logits: The model's answers, `(n, classes)`.
        class_names: Name of each class.
        path: The PNG file.
    """
    logits = np.asarray(logits, "float64")
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities, predictions = (shares / shares.sum(-1, keepdims=True)).max(-1), logits.argmax(-1)
    right = predictions == np.asarray(labels)
    shown = [*_spread(np.flatnonzero(right), 12), *_spread(np.flatnonzero(~right), 12)]
    columns = min(len(shown), 6)
    figure = new_figure(1.9 * columns, 2.35 * -(-len(shown) // columns))
    grid = figure.subplots(-(-len(shown) // columns), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, i in zip(grid.flat, shown, strict=False):
        axes.imshow(images[i].squeeze(), cmap="gray", vmin=0, vmax=255)
        title = f"{short(class_names[predictions[i]], 18)} {probabilities[i]:.0%}\n"
        if not right[i]:
            title += f"true: {short(class_names[labels[i]], 18)}"
        color = RIGHT if right[i] else WRONG
        axes.set_title(title, color=color, fontsize=9, fontfamily=fonts())
    save(figure, path)


def _spread(indices: np.ndarray, count: int) -> np.ndarray:
    """Choose up to `count` indices from first to last, for examples that come class by class."""
    chosen = np.linspace(0, len(indices) - 1, min(count, len(indices)))
    return indices[chosen.astype(int)]


def _sizes(classes: int) -> tuple[float, float, float]:
    """Return the side of a cell in inches and the font sizes of counts and names."""
    known = [2, 10, 50]
    return tuple(
        float(np.interp(classes, known, sizes))
        for sizes in ([0.95, 0.55, 0.32], [13, 9, 7], [11, 9, 8])
    )
