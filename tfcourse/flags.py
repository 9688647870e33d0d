"""How flags are read: a complaint is one line that says what is allowed.

The flags of `tfcourse summary` are a builder's parameters, and their help is its docstring.
"""

import argparse
import re
from collections.abc import Callable, Sequence
from typing import NoReturn

from tfcourse.catalogue import REQUIRED, Builder


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and exit with status 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def at_least(least: int) -> Callable[[str], int]:
    """Return the type of a flag that takes a whole number of at least `least`."""

    def integer(text: str) -> int:
        if not text.lstrip("-").isdigit() or not least <= int(text) < 2**32:
            raise argparse.ArgumentTypeError(
                f"must be a whole number of at least {least}, got {text!r}"
            )
        return int(text)

    return integer


def positive(text: str) -> float:
    """Read a flag that takes a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return value


def read_flags(
    parser: argparse.ArgumentParser, builder: Builder, words: Sequence[str]
) -> dict[str, object]:
    """Turn flags into a builder's arguments; `--image-size` stands for its `input_shape`.

    Args:
        parser: An empty parser; it says what is wrong, and exits.
        builder: What to build.
        words: The flags as typed.

    Returns:
        The arguments that were given, by name.
    """
    helps = _helps(builder.doc)
    readers = {p[0]: reader for p in builder.parameters if (reader := _reader(*p))}
    flags = {name: f"--{name.replace('_', '-')}" for name in readers}
    if "input_shape" in flags:
        flags["input_shape"] = readers["input_shape"].pop("flag")
    for name, reader in readers.items():
        said = helps.get(name, "").replace("%", "%%") or None
        parser.add_argument(
            flags[name], **({"dest": name, "default": argparse.SUPPRESS, "help": said} | reader)
        )
    values, unknown = parser.parse_known_args(words)
    if unknown:
        known = ", ".join(flags.values())
        parser.error(f"unrecognized arguments: {' '.join(unknown)}; there are: {known}")
    for name, _, default in builder.parameters:
        if default is REQUIRED and name in readers and name not in values:
            parser.error(f"{flags[name]} is required. {helps.get(name, '')}".strip())
    return vars(values)


def without_flag(builder: Builder) -> list[str]:
    """Return what a builder needs and no flag can carry, such as a recommender's columns."""
    return [p[0] for p in builder.parameters if p[2] is REQUIRED and _reader(*p) is None]


def _helps(doc: str) -> dict[str, str]:
    """Read the section `Args:` of a docstring: a line or more for each parameter."""
    section = f"{doc}\n\n".partition("\nArgs:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def _reader(name: str, kind: str, default: object) -> dict[str, object] | None:
    """Say how argparse reads a parameter; `None` for a type that no flag can carry."""
    if name == "input_shape":
        sides = len(default) - 1
        return {
            "flag": "--image-size" if sides == 2 else "--frames",
            "type": lambda text: (at_least(1)(text),) * sides + (default[-1],),
            "metavar": "PIXELS" if sides == 2 else "N",
            "help": f"{'height and width' if sides == 2 else 'how many'}; "
            f"default {' x '.join(map(str, default[:-1]))}",
        }
    if kind == "bool":
        return {"action": argparse.BooleanOptionalAction}
    if kind.startswith("tuple[int"):
        return {"type": lambda text: tuple(map(at_least(0), text.split(","))), "metavar": "N,N,..."}
    plain = kind.removesuffix(" | None")
    types = {"int": at_least(1 if name.startswith("num_") else 0), "float": float, "str": str}
    if plain not in types:
        return None

    def read(text: str) -> object:
        return None if plain != kind and text.lower() == "none" else types[plain](text)

    read.__name__ = plain  # argparse names it in its complaint
    return {"type": read, "metavar": "N" if plain == "int" else "VALUE"}
