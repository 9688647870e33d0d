"""Pictures of a number that changes: over epochs, labels, learning rates."""

from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator, NullLocator

from tfcourse.plots._drawing import COLORS, fonts, new_figure, plain, printable, save


def learning_curves(history: dict[str, list[float]], path: str | Path, *, title: str = "") -> None:
    """Draw the loss and each metric over the epochs, training beside validation.

    Args:
        history: Values per epoch by name, as in Keras' `History.history`; those of validation
            begin with `val_`.
        path: The PNG file.
        title: Title of the picture.
    """
    names = list(dict.fromkeys(name.removeprefix("val_") for name in history)) or ["loss"]
    names.sort(key=lambda name: name != "loss")
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    figure = new_figure(4.6 * columns, 3.4 * rows)
    epochs = max(map(len, history.values()), default=0)
    for axes, name in zip(figure.subplots(rows, columns, squeeze=False).flat, names, strict=False):
        _curve(axes, name, history, epochs)
    for axes in figure.axes[len(names) :]:
        axes.set_visible(False)
    if title:
        figure.suptitle(printable(title), fontfamily=fonts(), fontsize=13)
    save(figure, path)


def _curve(axes, name: str, history: dict[str, list[float]], epochs: int) -> None:
    for key, label, color in (
        (name, "training", COLORS[0]),
        (f"val_{name}", "validation", COLORS[1]),
    ):
        if values := history.get(key):
            start = epochs - len(values) + 1
            marker = "o" if len(values) <= 20 else None
            axes.plot(
                range(start, epochs + 1), values, color=color, marker=marker, ms=3.5, label=label
            )
    axes.set_title(name.replace("_", " "))
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.margins(x=0.04)
    if axes.lines:
        axes.legend(frameon=False)
    plain(axes)


def accuracy_against_labels(curves: dict[str, dict[int, float]], path: str | Path) -> None:
    """Draw test accuracy against the number of labels per class, one line per method.

    Args:
        curves: For each method, accuracy by labels per class.
        path: The PNG file.
    """
    figure = new_figure(6.4, 4.4)
    axes = figure.add_subplot()
    for index, (method, points) in enumerate(curves.items()):
        counts = sorted(points)
        color = COLORS[index % len(COLORS)]
        values = [points[count] for count in counts]
        axes.plot(counts, values, "o-", color=color, label=printable(method))
        for count, value in zip(counts, values, strict=True):
            above = all(value >= other.get(count, value) for other in curves.values())
            offset, side = ((0, 7), "bottom") if above else ((0, -7), "top")
            axes.annotate(
                f"{value:.3f}", (count, value), xytext=offset, textcoords="offset points",
                ha="center", va=side, color=color, fontsize=8,
            )  # fmt: skip
    axes.set_xscale("log")
    ticks = sorted({count for points in curves.values() for count in points})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(0.08, 0.14)
    axes.set_xlabel("labels per class")
    axes.set_ylabel("test accuracy")
    axes.set_title("Accuracy against labels")
    axes.legend(frameon=False, loc="lower right", prop={"family": fonts()})
    plain(axes)
    save(figure, path)


def learning_rate_curve(curve: dict[str, np.ndarray], suggestion: float, path: str | Path) -> None:
    """Draw the loss against a learning rate that rose from step to step.

    Args:
        curve: `rate`, `loss` and `smoothed`, each `(steps,)`.
        suggestion: The rate to mark.
        path: The PNG file.
    """
    figure = new_figure(6.4, 4.4)
    axes = figure.add_subplot()
    axes.plot(curve["rate"], curve["loss"], color=COLORS[0], alpha=0.35, lw=1, label="each step")
    axes.plot(curve["rate"], curve["smoothed"], color=COLORS[0], lw=2, label="smoothed")
    axes.axvline(suggestion, color=COLORS[1], ls="--", label=f"suggestion: {suggestion:.2g}")
    # An explosion at the end would press the rest flat.
    low, high = np.min(curve["loss"]), np.max(curve["smoothed"])
    axes.set_ylim(low - 0.05 * (high - low), high + 0.2 * (high - low))
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.set_title("Loss while the learning rate rises")
    axes.legend(frameon=False)
    plain(axes)
    save(figure, path)
