"""Comparisons of small networks: scores of splits, predictions, paths of optimizers, variances."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfcourse.plots._drawing import COLORS, LINES, new_figure, plain, printable, save


def split_scores(scores: dict[str, Sequence[float]], label: str, path: str | Path) -> None:
    """Draw the score of every split, and their mean, one row for each method.

    Args:
        scores: For each method, one score a split; the best method is drawn on top.
        label: What is scored.
        path: The PNG file.
    """
    names = sorted(scores, key=lambda name: float(np.mean(scores[name])))
    figure = new_figure(7.2, 1.2 + 0.42 * len(names))
    axes = figure.add_subplot()
    for y, name in enumerate(names):
        axes.plot(scores[name], [y] * len(scores[name]), "|", color=COLORS[0], ms=11, alpha=0.7)
        axes.plot(np.mean(scores[name]), y, "o", color=COLORS[1], ms=7)
    axes.set_yticks(range(len(names)), map(printable, names))
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel(f"{printable(label)} (each split, and the mean)")
    plain(axes)
    save(figure, path)


def predictions(
    pairs: dict[str, tuple[np.ndarray, np.ndarray]],
    label: str,
    path: str | Path,
    *,
    scale: float = 1.0,
) -> None:
    """Draw what was predicted against what is true, a panel for each method.

    Args:
        pairs: True and predicted numbers by method.
        label: Name and unit of the number.
        path: The PNG file.
        scale: What the numbers are divided by.
    """
    columns = min(len(pairs), 3)
    rows = -(-len(pairs) // columns)
    figure = new_figure(3.2 * columns, 3.3 * rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    numbers = np.concatenate([np.ravel(pair) for pair in pairs.values()]) / scale
    limits = [numbers.min(), numbers.max()]
    for index, (name, (true, predicted)) in enumerate(pairs.items()):
        axes = panels[index]
        axes.tick_params(labelbottom=index + columns >= len(pairs))
        axes.plot(limits, limits, color="#aaaaaa", lw=1)
        axes.plot(true / scale, predicted / scale, "o", color=COLORS[0], ms=3.5, alpha=0.7)
        axes.set_title(printable(name), fontsize=10)
        plain(axes)
    for axes in figure.axes[len(pairs) :]:
        axes.set_visible(False)
    figure.supxlabel(f"true {label}", fontsize=10)
    figure.supylabel(f"predicted {label}", fontsize=10)
    save(figure, path)


def optimizer_paths(
    surfaces: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    paths: dict[str, dict[str, np.ndarray]],
    path: str | Path,
) -> None:
    """Draw surfaces from above, and the ways that optimizers take on them.

    Args:
        surfaces: For each surface x `(columns,)`, y `(rows,)` and heights `(rows, columns)`.
        paths: For each surface points `(steps, 2)` by the label of a line; a path may leave the
            picture.
        path: The PNG file.
    """
    columns = min(len(surfaces), 2)
    rows = -(-len(surfaces) // columns)
    figure = new_figure(6.2 * columns, 4.8 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes, (name, (x, y, heights)) in zip(panels, surfaces.items(), strict=False):
        # The levels of a square root show a flat floor between high walls.
        levels = np.linspace(0, np.sqrt(np.ptp(heights)), 18) ** 2 + heights.min()
        axes.contourf(x, y, heights, levels, cmap="Greys", alpha=0.45)
        for color, (label, points) in zip(LINES, paths[name].items(), strict=False):
            axes.plot(
                *points.T, "-", color=color, lw=1.3, marker="o", ms=1.8, label=printable(label)
            )
            axes.plot(*points[-1], "o", color=color, ms=6)
        axes.plot(*points[0], "k*", ms=9)
        axes.set_xlim(x[0], x[-1])
        axes.set_ylim(y[0], y[-1])
        axes.set_title(printable(name))
        axes.legend(
            fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.07), ncols=2
        )
        axes.spines[["top", "right"]].set_visible(False)
    for axes in figure.axes[len(surfaces) :]:
        axes.set_visible(False)
    save(figure, path)


def loss_by_epoch(
    panels: dict[str, dict[str, np.ndarray]], path: str | Path, *, label: str = "training loss"
) -> None:
    """Draw losses over the epochs, on a scale of powers of ten.

    Args:
        panels: For each panel losses `(seeds, epochs)` by the label of a line; the line is their
            mean, with a band from the least to the greatest.
        path: The PNG file.
        label: Of the losses.
    """
    figure = new_figure(5.4 * len(panels), 4.0)
    axes_of = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, lines) in zip(axes_of, panels.items(), strict=True):
        for color, (name, losses) in zip(LINES, lines.items(), strict=False):
            epochs = np.arange(1, losses.shape[1] + 1)
            axes.plot(epochs, losses.mean(0), color=color, lw=1.6, label=printable(name))
            axes.fill_between(epochs, losses.min(0), losses.max(0), color=color, alpha=0.2, lw=0)
        axes.set_yscale("log")
        axes.set_xlabel("epoch")
        axes.set_title(printable(title))
        axes.legend(fontsize=8, frameon=False)
        plain(axes)
    axes_of[0].set_ylabel(label)
    save(figure, path)


def layer_variances(panels: dict[str, dict[str, np.ndarray]], label: str, path: str | Path) -> None:
    """Draw a variance in each layer, on a scale of powers of ten.

    Args:
        panels: For each panel variances `(layers,)` by the label of a line; where one is 0, a
            cross at the bottom stands for it.
        label: What varies.
        path: The PNG file.
    """
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure = new_figure(5.2 * columns, 3.6 * rows)
    axes_of = figure.subplots(rows, columns, sharey=True, squeeze=False)
    above = np.concatenate([v[v > 0] for lines in panels.values() for v in lines.values()])
    floor = above.min() / 10
    for axes, (title, lines) in zip(axes_of.flat, panels.items(), strict=False):
        for color, (name, values) in zip(LINES, lines.items(), strict=False):
            layers = np.arange(1, len(values) + 1)
            axes.plot(layers, np.maximum(values, floor), "-", color=color, label=printable(name))
            for kind, marker in ((values > 0, "o"), (values <= 0, "x")):
                shown = np.maximum(values[kind], floor)
                axes.plot(layers[kind], shown, marker, color=color, ms=4)
        axes.set_yscale("log")
        axes.set_title(printable(title), fontsize=11)
        axes.set_xticks(layers)
        axes.legend(
            fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2
        )
        axes.set_xlabel("layer", labelpad=0)
        plain(axes)
    for axes in figure.axes[len(panels) :]:
        axes.set_visible(False)
    figure.supylabel(f"variance of {printable(label)} (a cross: 0)", fontsize=10)
    save(figure, path)
