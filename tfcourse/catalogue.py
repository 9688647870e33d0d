"""What there is to run and to build, read from the source: no TensorFlow is imported."""

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import tfcourse

ROOT = Path(tfcourse.__file__).parent.parent
REQUIRED = object()


class Builder(NamedTuple):
    """A function `build_NAME`: the file it is in, its docstring, and its parameters.

    A parameter is its name, its type as written, and its default (`REQUIRED` if it has none).
    """

    name: str
    file: Path
    doc: str
    parameters: tuple[tuple[str, str, object], ...]

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.doc.partition("\n")[0]

    def load(self) -> Callable:
        """Import the function, and TensorFlow with it."""
        module = ".".join(self.file.relative_to(ROOT).with_suffix("").parts)
        return getattr(importlib.import_module(module), f"build_{self.name}")


def recipes() -> dict[str, Path]:
    """Return the recipes by name: those of the checkout, or those that the wheel installed."""
    folder = ROOT / "recipes" if (ROOT / "recipes").is_dir() else ROOT / "tfcourse_recipes"
    return {path.stem: path for path in sorted(folder.glob("[!_]*.py"))}


def builders() -> dict[str, Builder]:
    """Return the builders of models by name, without their `build_`."""
    found = {}
    for file in sorted((ROOT / "tfcourse").rglob("*.py")):
        for node in ast.parse(file.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("build_"):
                name = node.name.removeprefix("build_")
                doc = ast.get_docstring(node) or ""
                found[name] = Builder(name, file, doc, tuple(_parameters(node.args)))
    return dict(sorted(found.items()))


def show_recipes() -> None:
    """Print a line for each recipe."""
    for name, path in recipes().items():
        doc = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        print(f"{name:24} {doc.splitlines()[0] if doc else ''}")


def show_builders() -> None:
    """Print a line for each builder: its name, what it builds, its file."""
    found = builders().values()
    name, summary = (max(len(getattr(b, x)) for b in found) for x in ("name", "summary"))
    for b in found:
        print(f"{b.name:{name}}  {b.summary:{summary}}  {b.file.relative_to(ROOT)}")


def find_builder(name: str) -> Builder:
    """Look a builder up.

    Raises:
        ValueError: If there is none of this name.
    """
    found = builders()
    if name not in found:
        raise ValueError(f"no builder {name!r}; there are: {', '.join(found)}")
    return found[name]


def _parameters(arguments: ast.arguments) -> list[tuple[str, str, object]]:
    defaults = [*arguments.defaults, *arguments.kw_defaults]
    parameters = [*arguments.args, *arguments.kwonlyargs]
    defaults = [None] * (len(parameters) - len(defaults)) + defaults
    return [
        (
            parameter.arg,
            ast.unparse(parameter.annotation) if parameter.annotation else "",
            REQUIRED if default is None else _value(default),
        )
        for parameter, default in zip(parameters, defaults, strict=True)
    ]


def _value(default: ast.expr) -> object:
    try:
        return ast.literal_eval(default)
    except ValueError:  # not written out: the name of a constant
        return ast.unparse(default)
