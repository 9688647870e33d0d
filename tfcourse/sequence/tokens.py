"""What models that read tokens share: the checks of their arguments."""

from collections.abc import Mapping
from numbers import Integral


def check_counts(counts: Mapping[str, object], least: int = 1) -> None:
    """Refuse what is no whole number, or too small.

    Args:
        counts: The arguments by name.
        least: The smallest number allowed.

    Raises:
        ValueError: If one is not as it should be.
    """
    for name, value in counts.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")


def check_vocabulary(vocabulary_size: int, num_classes: int | None = None) -> None:
    """Refuse a vocabulary without a token besides padding, and a number of classes below 1.

    Raises:
        ValueError: If one is not as it should be.
    """
    check_counts({"vocabulary_size": vocabulary_size}, least=2)
    if num_classes is not None:
        check_counts({"num_classes": num_classes})


def check_dropout(dropout: float) -> None:
    """Refuse what is no rate.

    Raises:
        ValueError: If it is below 0, or not below 1.
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be from 0 to below 1, got {dropout!r}")
