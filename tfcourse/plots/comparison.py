"""Pictures that compare methods: what each gains against what each costs."""

import itertools
import math
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from tfcourse.plots._drawing import COLORS, fonts, new_figure, plain, printable, save

# Where a label may stand: at these angles, as near to its point as is free, in points (1/72 inch).
ANGLES = (0, 180, 90, 270, 45, 315, 135, 225)
DISTANCES = (7, 14, 22, 32, 44, 60)


def accuracy_against_cost(
    accuracy: dict[str, float], costs: dict[str, dict[str, float]], path: str | Path
) -> None:
    """Draw accuracy against each cost on a logarithmic axis, one named point per method.

    Args:
        accuracy: What each method reaches.
        costs: For each kind of cost, such as "parameters", that of each method, above 0.
        path: The PNG file.

    Raises:
        ValueError: If a method lacks a cost, or one is not above 0.
    """
    for cost, values in costs.items():
        for name in accuracy:
            if not values.get(name, 0) > 0:
                raise ValueError(f"{cost} of {name} must be above 0, got {values.get(name)}")
    figure = new_figure(5.6 * len(costs), 4.8)
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    for axes, (cost, values) in zip(panels, costs.items(), strict=True):
        for index, (name, y) in enumerate(accuracy.items()):
            axes.plot(values[name], y, "o", ms=6, color=COLORS[index % len(COLORS)])
        axes.margins(0.14, 0.12)
        _scale(axes, values.values())
        axes.set_xlabel(cost)
        plain(axes)
    panels[0].set_ylabel("test accuracy")
    canvas.draw()  # only now it is known where in the picture a point is
    for axes, values in zip(panels, costs.values(), strict=True):
        _name_points(axes, canvas.get_renderer(), list(accuracy), values, accuracy)
    save(figure, path)


def _scale(axes, values) -> None:
    """Make the axis of costs logarithmic, with numbers in full that do not touch each other."""
    axes.set_xscale("log")
    wide = max(values) > 30 * min(values)
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.10g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _name_points(axes, renderer, names, x, y) -> None:
    """Write the names beside the points so that no label covers a point or another label."""
    dots = axes.figure.dpi / 72  # pixels in a point
    spots = {name: axes.transData.transform((x[name], y[name])) for name in names}
    taken = [Bbox([spot - 4 * dots, spot + 4 * dots]) for spot in spots.values()]
    # Those in a crowd first: they have the fewest places to choose from.
    for name in sorted(names, key=lambda name: _room(spots, name)):
        style = {
            "textcoords": "offset points", "ha": "center", "va": "center", "fontsize": 8.5,
            "fontfamily": fonts(), "color": COLORS[names.index(name) % len(COLORS)],
        }  # fmt: skip
        trial = axes.annotate(printable(name), (x[name], y[name]), (0, 0), **style)
        box = trial.get_window_extent(renderer)
        trial.remove()
        offset, distance = _place(box, taken, axes.get_window_extent(renderer), dots)
        taken.append(box.translated(*offset))
        if distance > DISTANCES[0]:
            style["arrowprops"] = {"arrowstyle": "-", "color": style["color"], "lw": 0.6}
        label = axes.annotate(printable(name), (x[name], y[name]), tuple(offset / dots), **style)
        label.set_in_layout(False)


def _room(spots: dict[str, np.ndarray], name: str) -> float:
    """Return how far the nearest other point is."""
    others = [spot for other, spot in spots.items() if other != name]
    return min((math.dist(spots[name], spot) for spot in others), default=math.inf)


def _place(box: Bbox, taken: list[Bbox], inside: Bbox, dots: float) -> tuple[np.ndarray, float]:
    """Return where to put a label, relative to its point, and how far: the nearest free place.

    Where nothing is free, it is the least bad one.
    """
    best, least = (np.zeros(2), 0.0), math.inf
    for distance, angle in itertools.product(DISTANCES, ANGLES):
        way = np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
        # The edge of the label, not its middle, is so far away.
        offset = np.round(way, 9) * (distance * dots + np.array([box.width, box.height]) / 2)
        moved = box.translated(*offset)
        covered = sum(_overlap(moved, other) for other in taken)
        outside = moved.width * moved.height - _overlap(moved, inside)
        if covered + outside < least - 1e-6:
            best, least = (offset, distance), covered + outside
        if least < 1e-6:
            break
    return best


def _overlap(one: Bbox, other: Bbox) -> float:
    common = Bbox.intersection(one, other)
    return 0.0 if common is None else common.width * common.height
