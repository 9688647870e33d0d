"""Pictures of texts: what a classifier reads in them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tfcourse.plots._drawing import fonts, printable, save

FOR, AGAINST = (42, 111, 176), (217, 115, 13)  # red, green and blue of a background
LEGEND = "blue: makes the answer surer; orange: less sure"
WIDTH, LINE = 9.0, 0.3  # in inches
MARGIN, SPACE = 0.15, 0.05


def word_effects(
    texts: Sequence[Sequence[str]],
    effects: Sequence[np.ndarray],
    titles: Sequence[str],
    path: str | Path,
) -> None:
    """Draw texts, each word before a colour that says how much it decides.

    Blue speaks for the answer, orange against it; the strongest word of a text is darkest.

    Args:
        texts: The tokens of each text.
        effects: A number for each token, above 0 if it speaks for the answer.
        titles: What to write above each text.
        path: The PNG file.

    Raises:
        ValueError: If there is no text, or not one effect a token and one title a text.
    """
    sizes, counts = [len(tokens) for tokens in texts], [len(row) for row in effects]
    if not texts or sizes != counts or len(titles) != len(texts):
        raise ValueError(
            f"texts must be at least one, with an effect a token and a title, got {sizes} tokens, "
            f"{counts} effects and {len(titles)} titles"
        )
    measured = _Ruler()
    placed = [_wrap(tokens, measured) for tokens in texts]
    heights = [3 + max((line for _, line in words), default=0) for words in placed]
    lines = sum(heights) + 1
    figure = Figure(figsize=(WIDTH, lines * LINE))
    top = 0.0
    for i, (tokens, row, words) in enumerate(zip(texts, effects, placed, strict=True)):
        _write(figure, MARGIN, top, titles[i], lines, weight="bold")
        strongest = np.abs(row).max(initial=1e-9)
        for token, effect, (left, line) in zip(tokens, row, words, strict=True):
            color = np.array(FOR if effect > 0 else AGAINST) / 255
            box = {"facecolor": (*color, 0.75 * abs(effect) / strongest), "edgecolor": "none"}
            _write(figure, left, top + line + 1, token, lines, bbox=box | {"pad": 1.5})
        top += heights[i]
    _write(figure, MARGIN, top, LEGEND, lines, color="#666666")
    save(figure, path)


class _Ruler:
    """Measures how many inches wide a text is."""

    def __init__(self):
        self.figure = Figure(dpi=100)
        self.renderer = FigureCanvasAgg(self.figure).get_renderer()

    def __call__(self, text: str) -> float:
        drawn = self.figure.text(0, 0, printable(text), family=fonts(), size=10)
        return drawn.get_window_extent(self.renderer).width / 100


def _wrap(tokens: Sequence[str], measured: _Ruler) -> list[tuple[float, int]]:
    """Return for each token how many inches from the left it stands, and in which line."""
    left, line, found = MARGIN, 0, []
    for token in tokens:
        width = measured(token)
        if left + width > WIDTH - MARGIN and left > MARGIN:
            left, line = MARGIN, line + 1
        found.append((left, line))
        left += width + SPACE
    return found


def _write(figure, left: float, line: float, text: str, lines: int, **style) -> None:
    place = (left / WIDTH, 1 - (line + 0.7) / lines)
    figure.text(*place, printable(text), family=fonts(), size=10, va="baseline", **style)
