"""Pictures of a language model: what surprises it, and what a temperature does."""

from pathlib import Path

import numpy as np

from tfcourse.plots._drawing import COLORS, fonts, new_figure, plain, printable, save

MOST = 8.0  # bits: what surprises more has the same colour, unless a tenth of the passage does


def surprising_text(
    tokens: str | list[str], bits: np.ndarray, path: str | Path, *, columns: int = 64
) -> None:
    """Draw a passage, each character or word on the colour of its surprise.

    Args:
        tokens: What was read; a line break is drawn as a sign.
        bits: -log2 of each one's probability, as many.
        path: The PNG file.
        columns: Characters in a row; a Chinese one is as wide as two.

    Raises:
        ValueError: If there is none, or bits are not as many.
    """
    bits = np.asarray(bits, float)
    if not len(tokens) or bits.shape != (len(tokens),):
        raise ValueError(
            f"bits must be one for each of {len(tokens)} tokens, at least one, got {bits.shape}"
        )
    rows = -(-len(tokens) // columns)
    grid = np.full((rows, columns), np.nan)
    grid.flat[: len(tokens)] = bits
    figure = new_figure(0.16 * columns + 1.6, 0.26 * rows + 0.8)
    axes = figure.add_subplot()
    most = max(MOST, float(np.quantile(bits, 0.9)))
    image = axes.imshow(grid, cmap="OrRd", vmin=0, vmax=most, aspect="auto")
    for place, token in enumerate(tokens):
        row, column = divmod(place, columns)
        shown = "\u00b6" if token == "\n" else printable(token)
        dark = bits[place] > 0.7 * most
        axes.text(
            column,
            row,
            shown,
            ha="center",
            va="center",
            family=fonts(),
            fontsize=9,
            color="white" if dark else "#222222",
        )
    axes.set_axis_off()
    figure.colorbar(image, label="bits of surprise", extend="max", fraction=0.03, pad=0.01)
    save(figure, path)


def temperature_curve(
    temperatures: list[float], bits: list[float], path: str | Path, *, of_text: float
) -> None:
    """Draw how surprising text is that was drawn at several temperatures.

    Args:
        temperatures: Rising.
        bits: For each one the mean surprise, by another model than the one that wrote.
        path: The PNG file.
        of_text: The same of a text that people wrote.
    """
    figure = new_figure(6.2, 4.2)
    axes = figure.add_subplot()
    axes.plot(temperatures, bits, "o-", color=COLORS[0], label="drawn")
    axes.axhline(of_text, color=COLORS[1], lw=1.2, label="written by people")
    axes.set_xlabel("temperature")
    axes.set_ylabel("bits a character, by counts of n-grams")
    axes.set_ylim(0)
    axes.legend(frameon=False)
    plain(axes)
    save(figure, path)
