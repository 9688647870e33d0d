"""What all pictures share: colours, fonts, axes, and a file that is whole or not there."""

import functools
import unicodedata
from pathlib import Path

from matplotlib import font_manager
from matplotlib.figure import Figure

from tfcourse.data.cache import atomic_file

COLORS = ("#2a6fb0", "#d9730d", "#3a8f4d", "#a03d8f", "#7a5c3e", "#555555")
LINES = (*COLORS, "#c02040", "#1a9ea0")  # for pictures of up to eight optimizers or models
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


def plain(axes) -> None:
    """Draw a light grid behind, and two spines instead of four."""
    axes.grid(color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def new_figure(width: float, height: float) -> Figure:
    """Make a figure of this many inches whose axes make room for each other's labels."""
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: str | Path) -> None:
    """Write a PNG file, whole or not at all."""
    with atomic_file(path) as staging:
        figure.savefig(staging, format="png", dpi=120, bbox_inches="tight", pad_inches=0.15)


def short(name: str, width: int = 22) -> str:
    """Cut the middle out of a long name: its two ends tell it apart from others."""
    name = printable(name)
    if width_of(name) <= width:
        return name
    head = tail = ""
    while width_of(head + tail) < width - 1:
        kept = len(head) + len(tail)
        if kept % 2:
            tail = name[-len(tail) - 1 :]
        else:
            head = name[: len(head) + 1]
    return f"{head.rstrip()}…{tail.lstrip()}"


def width_of(text: str) -> int:
    """Return the width in Latin letters; a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def printable(text: str) -> str:
    """Replace what no installed font can draw by a box; matplotlib would draw one and warn."""
    known = _letters()
    text = "".join(letter if ord(letter) in known else "□" for letter in text)
    return text.replace("$", r"\$")  # matplotlib would read formulas between two of them


@functools.cache
def fonts() -> list[str]:
    """Return the families to look for a letter in: one has Latin letters, one Chinese."""
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *[name for name in CJK_FONTS if name in installed][:1]]


@functools.cache
def _letters() -> frozenset[int]:
    paths = [font_manager.findfont(name) for name in fonts()]
    return frozenset().union(*[font_manager.get_font(path).get_charmap() for path in paths])
