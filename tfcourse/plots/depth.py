"""Pictures of what more data brings: accuracy against the number of examples, with its spread."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import NullLocator

from tfcourse.plots._drawing import COLORS, new_figure, plain, printable, save


def accuracy_against_size(
    panels: dict[str, dict[str, dict[int, Sequence[float]]]],
    label: str,
    path: str | Path,
    *,
    ylabel: str = "test accuracy",
) -> None:
    """Draw accuracies over a number of examples, labels or layers, on a logarithmic axis.

    Args:
        panels: For each panel, by the label of a line, the accuracies of several trainings at each
            number; the line is their mean, with a band of one standard deviation on either side.
        label: What is counted.
        path: The PNG file.
        ylabel: What is measured.
    """
    figure = new_figure(5.8 * len(panels), 4.6)
    axes_of = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, lines) in zip(axes_of, panels.items(), strict=True):
        counts = sorted({count for points in lines.values() for count in points})
        for index, (name, points) in enumerate(lines.items()):
            color = COLORS[index % len(COLORS)]
            x = sorted(points)
            mean = np.array([np.mean(points[count]) for count in x])
            spread = np.array([np.std(points[count]) for count in x])
            axes.plot(x, mean, "o-", color=color, ms=4, lw=1.6, label=printable(name))
            axes.fill_between(x, mean - spread, mean + spread, color=color, alpha=0.2, lw=0)
        axes.set_xscale("log")
        axes.set_xticks(counts, [f"{count:,}" for count in counts])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(label)
        axes.set_title(printable(title), fontsize=11)
        axes.legend(fontsize=9, frameon=False)
        plain(axes)
    axes_of[0].set_ylabel(ylabel)
    save(figure, path)
