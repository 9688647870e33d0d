"""Pictures of small networks: what they answer where, and how they came to it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tfcourse.plots._drawing import COLORS, fonts, new_figure, plain, printable, save

POINTS = 200  # of a grid, in each direction


def decision_regions(
    predictors: dict[str, Callable[[np.ndarray], np.ndarray]],
    x: np.ndarray,
    labels: np.ndarray,
    path: str | Path,
    *,
    axis_names: tuple[str, str] = ("x1", "x2"),
    class_names: tuple[str, str] = ("0", "1"),
    marked: dict[str, tuple[float, float]] | None = None,
) -> None:
    """Draw, one panel for each model, what it answers everywhere on a plane, and the examples.

    Args:
        predictors: By title, functions from points `(n, 2)` to probabilities of class 1, `(n,)`.
        x: Examples, `(rows, 2)`.
        labels: Their classes, 0 or 1, `(rows,)`.
        path: The PNG file.
        axis_names: What the two numbers are.
        class_names: What the classes are.
        marked: Other points, by name.
    """
    x = np.asarray(x, float)
    everything = np.vstack([x, *(np.array([point]) for point in (marked or {}).values())])
    margin = 0.12 * np.ptp(everything, axis=0)
    low, high = everything.min(axis=0) - margin, everything.max(axis=0) + margin
    lines = [np.linspace(a, b, POINTS) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*lines), axis=-1)
    figure = new_figure(4.4 * len(predictors) + 0.8, 4.6)
    panels = figure.subplots(1, len(predictors), squeeze=False)[0]
    for axes, (title, predict) in zip(panels, predictors.items(), strict=True):
        answers = predict(grid.reshape(-1, 2)).reshape(POINTS, POINTS)
        shades = axes.pcolormesh(*lines, answers, cmap="RdBu", vmin=-0.6, vmax=1.6, rasterized=True)
        if answers.min() < 0.5 < answers.max():
            axes.contour(*lines, answers, levels=[0.5], colors="black", linewidths=1.2)
        for label, name in enumerate(class_names):
            points, color = x[np.asarray(labels) == label], ("#c62828", COLORS[0])[label]
            size = 110 if len(x) <= 20 else 12
            axes.scatter(*points.T, s=size, color=color, edgecolor="white", lw=0.6, label=name)
        for name, point in (marked or {}).items():
            axes.plot(*point, "*", ms=15, color="black", mec="white", label=printable(name))
        axes.set_title(printable(title), family=fonts(), fontsize=11)
        axes.set_xlabel(axis_names[0])
        axes.set_ylabel(axis_names[1])
    bar = figure.colorbar(shades, ax=list(panels), boundaries=np.linspace(0, 1, 101), pad=0.01)
    bar.set_label(f"probability of {class_names[1]}")
    bar.set_ticks([0, 0.5, 1])
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    save(figure, path)


def loss_curves(
    curves: dict[str, Sequence[float]],
    path: str | Path,
    *,
    title: str = "",
    x_name: str = "step",
    y_name: str = "loss",
) -> None:
    """Draw a line for each way of training.

    Args:
        curves: By name, what was measured at each step.
        path: The PNG file.
        title: Title of the picture.
        x_name: What is counted along the axis.
        y_name: What is measured.
    """
    figure = new_figure(6.4, 4.2)
    axes = figure.add_subplot()
    for index, (name, values) in enumerate(curves.items()):
        color = COLORS[index % len(COLORS)]
        axes.plot(range(1, len(values) + 1), values, color=color, label=printable(name))
    axes.set_xlabel(x_name)
    axes.set_ylabel(y_name)
    axes.set_title(printable(title), family=fonts())
    axes.legend(frameon=False, prop={"family": fonts()})
    plain(axes)
    save(figure, path)


def same_curve(
    ours: Sequence[float], others: dict[str, Sequence[float]], path: str | Path, *, title: str = ""
) -> None:
    """Draw curves that should be the same: on the left all of them, on the right how they differ.

    Args:
        ours: The loss at each step.
        others: By name, the losses of the others at the same steps.
        path: The PNG file.
        title: Title of the picture.
    """
    figure = new_figure(10.5, 4.2)
    together, apart = figure.subplots(1, 2)
    steps = np.arange(1, len(ours) + 1)
    together.plot(steps, ours, color="#bbbbbb", lw=4, label="NumPy")
    for index, (name, values) in enumerate(others.items()):
        color = COLORS[index % len(COLORS)]
        together.plot(steps, values, color=color, lw=1, ls=(index * 3, (3, 3)), label=name)
        # What is equal to the last bit would have no place on a logarithmic axis.
        difference = np.maximum(np.abs(np.subtract(values, ours)), 1e-17)
        apart.semilogy(steps, difference, ".", ms=3, color=color, label=name)
    together.set_ylabel("loss of the batch")
    apart.set_ylabel("difference from NumPy's loss")
    for axes in (together, apart):
        axes.set_xlabel("step")
        axes.legend(frameon=False)
        plain(axes)
    figure.suptitle(printable(title), family=fonts(), fontsize=12)
    save(figure, path)
