"""What preflight has to say, one line each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        level: `error` (it will not run), `warning` (it may not), or `note`.
        what: What was found, such as the name of an operation.
        where: The layer or the input that holds it.
        instead: What to do.
    """

    level: str
    what: str
    where: str
    instead: str

    def __str__(self) -> str:
        where = f" in {self.where}" if self.where else ""
        return f"{self.level}: {self.what}{where}: {self.instead}"
