"""Pictures of what is inside a network that looks at images."""

from pathlib import Path

import numpy as np
from PIL import Image

from tfcourse.plots._drawing import fonts, new_figure, save, short

SHOWN = 8  # maps of each stage


def filter_grid(kernels: np.ndarray, path: str | Path, *, title: str = "") -> None:
    """Draw the kernels of a first convolution as small colour images; grey is zero.

    Args:
        kernels: `(height, width, 1 or 3, filters)`; three channels are red, green and blue.
        path: The PNG file.
        title: Title of the picture.
    """
    count = kernels.shape[-1]
    columns = min(16, count)
    rows = -(-count // columns)
    figure = new_figure(0.62 * columns + 0.2, 0.62 * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, kernel in zip(grid.flat, np.moveaxis(kernels, -1, 0), strict=False):
        # Each by its own largest weight: some filters are a hundred times weaker than others.
        picture = 0.5 + kernel / (2 * max(np.abs(kernel).max(), 1e-12))
        picture = picture[..., 0] if picture.shape[-1] == 1 else picture
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
    figure.suptitle(title or f"The {count} filters of the first convolution", fontsize=12)
    save(figure, path)


def feature_maps(photo: np.ndarray, maps: dict[str, np.ndarray], path: str | Path) -> None:
    """Draw, a row for each layer, the maps that answer a photo most unevenly.

    Args:
        photo: `(height, width, 3)` from 0 to 1. Each row begins with it, as coarse as its maps.
        maps: By name of the layer, `(height, width, filters)`.
        path: The PNG file.
    """
    picture = Image.fromarray(np.uint8(255 * photo))
    figure = new_figure(1.25 * (SHOWN + 1), 1.5 * len(maps))
    grid = figure.subplots(len(maps), SHOWN + 1, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, (name, values) in zip(grid, maps.items(), strict=True):
        height, width, count = values.shape
        row[0].imshow(picture.resize((width, height), Image.Resampling.BOX))
        row[0].set_title(f"{short(name, 16)}\n{height} x {width} x {count}", fontsize=9)
        strongest = np.argsort(-values.std((0, 1)), kind="stable")[:SHOWN]
        for axes, channel in zip(row[1:], strongest, strict=False):
            axes.imshow(values[..., channel], cmap="viridis")
            axes.set_title(f"map {channel}", fontsize=8)
    save(figure, path)


def heat_maps(panels: dict[str, tuple[np.ndarray, np.ndarray | None]], path: str | Path) -> None:
    """Draw images side by side, some of them under a heat map: red is hottest, blue cold.

    Args:
        panels: By title, an image `(height, width, 3)` from 0 to 1, and a heat map
            `(rows, columns)`, a grid over the whole image, or `None`.
        path: The PNG file.
    """
    figure = new_figure(3.1 * len(panels), 3.6)
    grid = figure.subplots(1, len(panels), squeeze=False)
    for axes, (title, (image, heat)) in zip(grid.flat, panels.items(), strict=True):
        lines = [short(line, 34) for line in title.split("\n")]
        axes.set_title("\n".join(lines), fontsize=10, fontfamily=fonts())
        axes.set_axis_off()
        axes.imshow(image)
        if heat is not None:
            height, width = image.shape[:2]
            area = (-0.5, width - 0.5, height - 0.5, -0.5)
            share = heat / max(heat.max(), 1e-12)
            look = {"cmap": "turbo", "vmin": 0, "vmax": 1, "interpolation": "bilinear"}
            axes.imshow(share, alpha=0.45, extent=area, **look)
    save(figure, path)
