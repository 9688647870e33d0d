"""Images beside what was made of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfcourse.plots._drawing import fonts, new_figure, printable, save


def image_rows(
    rows: dict[str, np.ndarray], path: str | Path, *, notes: dict[str, Sequence[str]] | None = None
) -> None:
    """Draw rows of images, one above the other: the same image in each column.

    Args:
        rows: For each name of a row, images `(n, height, width, 1 or 3)` with pixels from 0 to 1;
            what lies outside is drawn as black or white.
        path: The PNG file.
        notes: For some of the rows, a text below each image.
    """
    notes = notes or {}
    columns = max(map(len, rows.values()))
    figure = new_figure(1.3 * columns + 1.2, 1.5 * len(rows))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, images) in zip(grid, rows.items(), strict=True):
        for axes in line:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        line[0].set_ylabel(printable(name), rotation=0, ha="right", va="center", family=fonts())
        for axes, image in zip(line, np.clip(images, 0, 1), strict=False):
            picture = image[..., 0] if image.shape[-1] == 1 else image
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
        for axes, note in zip(line, notes.get(name, ()), strict=False):
            axes.set_xlabel(printable(note), fontsize=8, family=fonts())
    save(figure, path)
