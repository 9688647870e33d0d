"""Pictures of a translator: which words of the source it looks at for each that it writes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfcourse.plots._drawing import fonts, new_figure, printable, save


def alignment_maps(
    weights: Sequence[np.ndarray],
    sources: Sequence[Sequence[str]],
    targets: Sequence[Sequence[str]],
    path: str | Path,
    *,
    title: str = "",
) -> None:
    """Draw where a translator looks: a map for each sentence, white for nothing.

    A letter that no installed font has is drawn as its code point.

    Args:
        weights: For each sentence `(target tokens, source tokens)`, from 0 to 1.
        sources: The tokens that were read.
        targets: The tokens that were written.
        path: The PNG file.
        title: Title of the picture.

    Raises:
        ValueError: If weights have another shape than their tokens, or there is no sentence.
    """
    shapes = [np.shape(w) for w in weights]
    expected = [(len(t), len(s)) for s, t in zip(sources, targets, strict=True)]
    if shapes != expected or not shapes or 0 in np.ravel(shapes):
        raise ValueError(
            f"weights must have the shapes (target tokens, source tokens) = {expected}, at least "
            f"one and none empty, got {shapes}"
        )
    widths = [1.2 + 0.3 * columns for _, columns in shapes]
    height = 1.9 + 0.3 * max(rows for rows, _ in shapes)
    figure = new_figure(max(sum(widths) + 1.0, 6.0), height)
    panels = figure.subplots(1, len(shapes), width_ratios=widths, squeeze=False)[0]
    for panel, values, source, target in zip(panels, weights, sources, targets, strict=True):
        image = panel.imshow(values, cmap="Blues", vmin=0, vmax=1)
        panel.set_xticks(range(len(source)), [_label(token) for token in source], rotation=60)
        panel.set_yticks(range(len(target)), [_label(token) for token in target])
        panel.tick_params(length=0, labelsize=9, labelfontfamily=fonts())
        for label in panel.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
        panel.spines[:].set_color("#cccccc")
    panels[0].set_ylabel("written")
    figure.supxlabel("read", fontsize=10)
    figure.suptitle(printable(title), family=fonts(), fontsize=11)
    figure.colorbar(image, ax=list(panels), label="attention", fraction=0.03)
    save(figure, path)


def _label(token: str) -> str:
    # A box, as elsewhere, would be the same for all Chinese characters.
    drawn = printable(token)
    return drawn if "\u25a1" not in drawn else " ".join(f"{ord(letter):X}" for letter in token)
