"""A fitted pipeline as a JSON file."""

import json
from dataclasses import asdict
from pathlib import Path

from tfcourse.data.cache import atomic_file
from tfcourse.data.preparing import KINDS, Spec, check_specs

FORMAT = "tfcourse pipeline"
VERSION = 1


def write(path: str | Path, specs: tuple[Spec, ...], learned: dict[str, list]) -> None:
    """Write what a pipeline is and has learned; numbers come back bit for bit."""
    columns = [
        {"kind": type(spec).__name__, **asdict(spec), "learned": learned[spec.name]}
        for spec in specs
    ]
    document = {"format": FORMAT, "version": VERSION, "columns": columns}
    with atomic_file(path) as new:
        new.write_text(json.dumps(document, indent=1), "utf-8")


def read(path: str | Path) -> tuple[list[Spec], dict[str, list]]:
    """Read what `write` wrote, in one piece or not at all.

    Raises:
        ValueError: If the file is damaged, is of another version, or is something else.
    """
    try:
        document = json.loads(Path(path).read_text("utf-8"))
        if document["format"] != FORMAT:
            raise ValueError(f"its format is {document['format']!r}")
        if document["version"] != VERSION:
            raise ValueError(f"its version is {document['version']}, known is {VERSION}")
        pairs = [_read_column(**column) for column in document["columns"]]
        check_specs([spec for spec, _ in pairs])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no pipeline that can be read: {error!r}") from None
    return [spec for spec, _ in pairs], {spec.name: learned for spec, learned in pairs}


def _read_column(kind: str, learned: list, **fields) -> tuple[Spec, list]:
    spec = {one.__name__: one for one in KINDS}[kind](**fields)
    expected = str if kind == "Vocabulary" else float
    if not isinstance(learned, list) or any(type(one) is not expected for one in learned):
        raise ValueError(f"what {spec.name} has learned is not made of {expected.__name__}")
    if kind == "Normalised" and len(learned) != 2:
        raise ValueError(f"{spec.name} must have learned two numbers, got {len(learned)}")
    return spec, learned
