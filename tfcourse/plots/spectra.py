"""Pictures of what is heard over time, and of what a shift in time does."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfcourse.plots._drawing import COLORS, new_figure, plain, printable, save


def spectra(
    panels: dict[str, np.ndarray], path: str | Path, *, title: str, columns: int = 5
) -> None:
    """Draw numbers over time and frequency: red is above zero, blue below, each panel by its own.

    Args:
        panels: By title, `(frames, bands)`.
        path: The PNG file.
        title: Title of the picture.
        columns: Panels in a row.
    """
    rows = -(-len(panels) // columns)
    figure = new_figure(1.75 * columns + 0.3, 2.0 * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (name, values) in zip(grid.flat, panels.items(), strict=False):
        largest = max(np.abs(values).max(), 1e-12)
        axes.imshow(
            values.T, origin="lower", aspect="auto", cmap="RdBu_r", vmin=-largest, vmax=largest
        )
        axes.set_title(printable(name), fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.suptitle(printable(title), fontsize=12)
    figure.supxlabel("time", fontsize=10)
    figure.supylabel("frequency", fontsize=10)
    save(figure, path)


def shift_curves(
    shifts: Sequence[float],
    curves: dict[str, np.ndarray],
    path: str | Path,
    *,
    title: str,
    trained: tuple[float, float],
    chance: float,
) -> None:
    """Draw accuracy against how much later something is heard than in training.

    Args:
        shifts: In milliseconds, `(shifts,)`.
        curves: By the label of a line, accuracies `(seeds, shifts)`; the line is their mean, with a
            band from the least to the greatest.
        path: The PNG file.
        title: Title of the picture.
        trained: The least and the largest shift in training, which are shaded.
        chance: The accuracy of who guesses.
    """
    figure = new_figure(7.6, 5.0)
    axes = figure.add_subplot()
    axes.axvspan(*trained, color="#eeeeee", lw=0, label="shifts of the training clips")
    for color, (name, values) in zip(COLORS, curves.items(), strict=False):
        axes.plot(shifts, values.mean(0), "-o", color=color, ms=3.5, label=printable(name))
        axes.fill_between(shifts, values.min(0), values.max(0), color=color, alpha=0.2, lw=0)
    axes.axhline(chance, color="#888888", lw=1, ls="--", label="guessing")
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("shift of the clip in ms (above 0: heard later)")
    axes.set_ylabel("test accuracy")
    axes.set_title(printable(title), fontsize=11)
    axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)
    plain(axes)
    save(figure, path)
