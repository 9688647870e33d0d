"""Pictures of a run as PNG files: learning curves, confusion matrix, predictions, few labels.

Drawn with matplotlib's `Figure` alone: no window, no global state, so threads and notebooks are
safe.
"""

import functools
import unicodedata
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from tfcourse.data.cache import atomic_file

COLORS = ("#2a6fb0", "#d9730d", "#3a8f4d", "#a03d8f", "#7a5c3e", "#555555")
RIGHT, WRONG = "#2e7d32", "#c62828"
# Fonts with Chinese, Japanese and Korean letters, by system.
CJK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "SimHei",
    "PingFang SC",
    "Heiti TC",
    "Arial Unicode MS",
    "Droid Sans Fallback",
)


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
    figure = _figure(4.6 * columns, 3.4 * rows)
    epochs = max(map(len, history.values()), default=0)
    for axes, name in zip(figure.subplots(rows, columns, squeeze=False).flat, names, strict=False):
        _curve(axes, name, history, epochs)
    for axes in figure.axes[len(names) :]:
        axes.set_visible(False)
    if title:
        figure.suptitle(_printable(title), fontfamily=_fonts(), fontsize=13)
    _save(figure, path)


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
    names = [_short(name) for name in class_names]
    upright = 90 if max(map(_width, names)) * name_size / 100 > cell else 0
    axes.set_xticks(range(classes), names, size=name_size, family=_fonts(), rotation=upright)
    axes.set_yticks(range(classes), names, size=name_size, family=_fonts())
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
    _save(figure, path)


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
    figure = _figure(1.9 * columns, 2.35 * -(-len(shown) // columns))
    grid = figure.subplots(-(-len(shown) // columns), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, i in zip(grid.flat, shown, strict=False):
        axes.imshow(images[i].squeeze(), cmap="gray", vmin=0, vmax=255)
        title = f"{_short(class_names[predictions[i]], 18)} {probabilities[i]:.0%}\n"
        if not right[i]:
            title += f"true: {_short(class_names[labels[i]], 18)}"
        color = RIGHT if right[i] else WRONG
        axes.set_title(title, color=color, fontsize=9, fontfamily=_fonts())
    _save(figure, path)


def _spread(indices: np.ndarray, count: int) -> np.ndarray:
    """Choose up to `count` indices from first to last, for examples that come class by class."""
    chosen = np.linspace(0, len(indices) - 1, min(count, len(indices)))
    return indices[chosen.astype(int)]


def accuracy_against_labels(curves: dict[str, dict[int, float]], path: str | Path) -> None:
    """Draw test accuracy against the number of labels per class, one line per method.

    Args:
        curves: For each method, accuracy by labels per class.
        path: The PNG file.
    """
    figure = _figure(6.4, 4.4)
    axes = figure.add_subplot()
    for index, (method, points) in enumerate(curves.items()):
        counts = sorted(points)
        color = COLORS[index % len(COLORS)]
        values = [points[count] for count in counts]
        axes.plot(counts, values, "o-", color=color, label=_printable(method))
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
    axes.legend(frameon=False, loc="lower right", prop={"family": _fonts()})
    _plain(axes)
    _save(figure, path)


def learning_rate_curve(curve: dict[str, np.ndarray], suggestion: float, path: str | Path) -> None:
    """Draw the loss against a learning rate that rose from step to step.

    Args:
        curve: `rate`, `loss` and `smoothed`, each `(steps,)`.
        suggestion: The rate to mark.
        path: The PNG file.
    """
    figure = _figure(6.4, 4.4)
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
    _plain(axes)
    _save(figure, path)


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
    _plain(axes)


def _plain(axes) -> None:
    axes.grid(color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: str | Path) -> None:
    with atomic_file(path) as staging:
        figure.savefig(staging, format="png", dpi=120, bbox_inches="tight", pad_inches=0.15)


def _sizes(classes: int) -> tuple[float, float, float]:
    """Return the side of a cell in inches and the font sizes of counts and names."""
    known = [2, 10, 50]
    return tuple(
        float(np.interp(classes, known, sizes))
        for sizes in ([0.95, 0.55, 0.32], [13, 9, 7], [11, 9, 8])
    )


def _short(name: str, width: int = 22) -> str:
    """Cut the middle out of a long name: its two ends tell it apart from others."""
    name = _printable(name)
    if _width(name) <= width:
        return name
    head = tail = ""
    while _width(head + tail) < width - 1:
        kept = len(head) + len(tail)
        if kept % 2:
            tail = name[-len(tail) - 1 :]
        else:
            head = name[: len(head) + 1]
    return f"{head.rstrip()}…{tail.lstrip()}"


def _width(text: str) -> int:
    """Return the width in Latin letters; a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _printable(text: str) -> str:
    """Replace what no installed font can draw by a box; matplotlib would draw one and warn."""
    known = _letters()
    text = "".join(letter if ord(letter) in known else "□" for letter in text)
    return text.replace("$", r"\$")  # matplotlib would read formulas between two of them


@functools.cache
def _fonts() -> list[str]:
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *[name for name in CJK_FONTS if name in installed][:1]]


@functools.cache
def _letters() -> frozenset[int]:
    paths = [font_manager.findfont(name) for name in _fonts()]
    return frozenset().union(*[font_manager.get_font(path).get_charmap() for path in paths])
