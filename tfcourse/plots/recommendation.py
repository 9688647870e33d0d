"""Pictures of a recommender: a map of its items, its attention, and its calibration."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patheffects import withStroke

from tfcourse.plots._drawing import COLORS, LINES, fonts, new_figure, plain, printable, save, short

OTHERS = "#c8c8c8"  # the colour of what belongs to no group that has one of its own


def embedding_map(
    vectors: np.ndarray,
    groups: Sequence[str],
    path: str | Path,
    *,
    names: dict[int, str] | None = None,
    title: str = "",
) -> None:
    """Draw vectors on the plane on which they differ most, coloured by group.

    The plane is that of the first two principal components: turning a table of embeddings changes
    no distance on it, and nothing is drawn near that is far in the plane.

    Args:
        vectors: `(items, embedding_dim)`.
        groups: The group of each item, such as a film's genre; the six largest have colours.
        path: The PNG file.
        names: What to write beside some items, by their row; one that would cover an earlier one
            is left out.
        title: Title of the picture.

    Raises:
        ValueError: If there are fewer than two vectors, or not as many groups.
    """
    vectors, groups = np.asarray(vectors, float), np.asarray(groups, str)
    if len(vectors) < 2 or len(groups) != len(vectors):
        raise ValueError(
            f"vectors must be at least 2, with a group each, got {len(vectors)} and {len(groups)}"
        )
    points, shares = _principal(vectors)
    found, counts = np.unique(groups[groups != ""], return_counts=True)
    shown = found[np.argsort(-counts, kind="stable")[: len(COLORS)]]
    figure = new_figure(9.5, 7.5)
    axes = figure.add_subplot()
    rest = ~np.isin(groups, shown)
    axes.scatter(*points[rest].T, s=9, color=OTHERS, label="others" if rest.any() else None)
    for color, group in zip(COLORS, shown, strict=False):
        axes.scatter(*points[groups == group].T, s=14, color=color, label=short(group))
    axes.set_aspect("equal", adjustable="datalim")  # else one axis would look like the other
    axes.set_xlabel(f"first principal component ({shares[0]:.0%} of the variance)")
    axes.set_ylabel(f"second ({shares[1]:.0%})")
    axes.set_title(printable(title), family=fonts())
    plain(axes)
    figure.legend(loc="outside right upper", frameon=False, prop={"family": fonts()})
    _name_some(
        axes, FigureCanvasAgg(figure), {tuple(points[row]): n for row, n in (names or {}).items()}
    )
    save(figure, path)


def attention_map(
    weights: np.ndarray, history: Sequence[str], candidates: Sequence[str], path: str | Path
) -> None:
    """Draw how much each thing of a history counts when a candidate is judged.

    Args:
        weights: `(candidates, history)`; white is 0, blue above and red below, so that weights
            that are nearly equal look so.
        history: What was seen, the newest first.
        candidates: What is judged.
        path: The PNG file.

    Raises:
        ValueError: If the weights have another shape than the names.
    """
    weights = np.asarray(weights, float)
    if weights.shape != (len(candidates), len(history)) or not weights.size:
        raise ValueError(
            f"weights must have the shape (candidates, history) = "
            f"{(len(candidates), len(history))}, at least (1, 1), got {weights.shape}"
        )
    limit = max(np.abs(weights).max(), 1e-12)
    figure = new_figure(3.6 + 1.0 * len(candidates), 2.6 + 0.3 * len(history))
    axes = figure.add_subplot()
    image = axes.imshow(weights.T, cmap="RdBu", aspect="auto", vmin=-limit, vmax=limit)
    for (column, row), weight in np.ndenumerate(weights):
        color = "white" if abs(weight) > 0.6 * limit else "#20303f"
        axes.text(column, row, f"{weight:.3g}", ha="center", va="center", color=color, size=7.5)
    names = [[short(name, 30) for name in side] for side in (candidates, history)]
    axes.set_xticks(range(len(candidates)), names[0], family=fonts(), rotation=40, ha="right")
    axes.set_yticks(range(len(history)), names[1], family=fonts())
    axes.tick_params(length=0, labelsize=8.5)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("candidate")
    axes.set_ylabel("history, the newest at the top")
    bar = figure.colorbar(image, label="attention", fraction=0.05)
    bar.ax.set_ylim(min(weights.min(), 0), max(weights.max(), 0) + 1e-12)
    save(figure, path)


def calibration_curve(
    labels: np.ndarray, probabilities: dict[str, np.ndarray], path: str | Path, *, bins: int = 10
) -> None:
    """Draw how often it happens against how often a model says it does.

    Each point is an equal share of the examples, from those with the lowest answers to those with
    the highest; a model whose probabilities are right lies on the diagonal.

    Args:
        labels: What happened, 0 or 1, `(rows,)`.
        probabilities: By a model's name what it answered, `(rows,)`.
        path: The PNG file.
        bins: How many points.

    Raises:
        ValueError: If there is nothing to draw, or answers and labels are not equally many.
    """
    labels = np.ravel(labels).astype(float)
    lengths = {name: np.size(answers) for name, answers in probabilities.items()}
    if not lengths or not labels.size or set(lengths.values()) != {labels.size}:
        raise ValueError(
            f"probabilities must be as many as labels, {labels.size} and above 0, got {lengths}"
        )
    figure = new_figure(6.2, 6.8)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axes.plot([0, 1], [0, 1], color="#aaaaaa", lw=1)
    for index, (name, answers) in enumerate(probabilities.items()):
        color, values = LINES[index % len(LINES)], np.ravel(answers)
        parts = np.array_split(np.argsort(values, kind="stable"), min(bins, labels.size))
        said = [values[part].mean() for part in parts]
        happened = [labels[part].mean() for part in parts]
        axes.plot(said, happened, "o-", color=color, lw=1.2, ms=4.5, label=printable(name))
        below.hist(values, np.linspace(0, 1, 41), histtype="step", color=color)
    axes.set_ylabel("share that happened")
    axes.legend(frameon=False, prop={"family": fonts()})
    below.set_xlabel("predicted probability")
    below.set_ylabel("examples")
    for panel in (axes, below):
        plain(panel)
    save(figure, path)


def _name_some(axes, canvas: FigureCanvasAgg, names: dict[tuple[float, float], str]) -> None:
    """Write the names beside their points, without those that would cover an earlier one."""
    canvas.draw()  # only now it is known where in the picture a point is
    halo, taken = [withStroke(linewidth=2.5, foreground="white")], []
    style = {"textcoords": "offset points", "fontsize": 8, "family": fonts(), "path_effects": halo}
    for point, name in names.items():
        text = axes.annotate(short(name, 28), point, (4, 3), **style)
        text.set_in_layout(False)
        box = text.get_window_extent(canvas.get_renderer())
        if box.count_overlaps(taken):
            text.remove()
        else:
            taken.append(box)


def _principal(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first two principal components `(rows, 2)`, and their shares of the variance."""
    centred = vectors - vectors.mean(axis=0)
    left, sizes, right = np.linalg.svd(centred, full_matrices=False)
    # A component's sign is free: let the entry that is greatest in size be positive.
    turn = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])
    points = np.zeros((len(vectors), 2))
    kept = min(2, len(sizes))
    points[:, :kept] = (left * sizes * turn)[:, :kept]
    shares = np.zeros(2)
    shares[:kept] = (sizes**2 / max((sizes**2).sum(), 1e-300))[:kept]
    return points, shares
