"""What regularisation brings, as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfcourse.plots._drawing import COLORS, fonts, new_figure, plain, printable, save


def accuracy_gaps(
    results: dict[str, tuple[Sequence[float], Sequence[float]]], baseline: str, path: str | Path
) -> None:
    """Draw the gap between training and test accuracy of several methods, the best on top.

    Args:
        results: Accuracies on the training part and on the test part by method, one a seed each.
        baseline: The method that the others are compared with.
        path: The PNG file.
    """
    means = {name: float(np.mean(test)) for name, (_, test) in results.items()}
    names = sorted(means, key=means.get)
    figure = new_figure(7.2, 1.3 + 0.34 * len(names))
    axes = figure.add_subplot()
    for y, name in enumerate(names):
        train, test = results[name]
        axes.plot([means[name], np.mean(train)], [y, y], color="#bbbbbb", lw=2, zorder=1)
        axes.plot(test, [y] * len(test), "|", color=COLORS[0], ms=10, label="test, each seed")
        axes.plot(means[name], y, "o", color=COLORS[0], ms=7, label="test, mean")
        axes.plot(np.mean(train), y, "o", color=COLORS[1], ms=7, clip_on=False, label="training")
    lines = axes.get_legend_handles_labels()
    figure.legend(*(part[:3] for part in lines), loc="outside lower center", ncols=3, frameon=False)
    axes.axvline(means[baseline], color=COLORS[5], ls="--", lw=1)
    axes.set_yticks(range(len(names)), map(printable, names), family=fonts())
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.set_xlabel("accuracy")
    axes.set_title(f"What is learned and what is kept (dashed: test, {printable(baseline)})")
    plain(axes)
    axes.grid(axis="y", visible=False)
    save(figure, path)
