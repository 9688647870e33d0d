"""The user's private cache: folders that are whole or absent, and files that are written at once.

The cache is `$TFCOURSE_CACHE`, else `$XDG_CACHE_HOME/tfcourse`, else `~/.cache/tfcourse`; only
its owner may read it.
"""

import contextlib
import errno
import hashlib
import itertools
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

# What numpy.load raises for a file that is not as it was written.
DAMAGED = (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile)


def cache_folder(*parts: str) -> Path:
    """Return the folder `parts` below the user's cache; it is made when it is missing."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = Path(os.environ.get("TFCOURSE_CACHE") or Path(base) / "tfcourse")
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = root.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def sha256(path: str | Path) -> str:
    """Return the SHA-256 digest of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def atomic_folder(target: str | Path) -> Iterator[Path]:
    """Give an empty folder to fill; it becomes `target` at the end, or vanishes on any error.

    An existing `target` is replaced. Processes may race: the last to end wins whole.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        filled = staging / "new"
        filled.mkdir()
        yield filled
        _replace(filled, target, staging)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _replace(filled: Path, target: Path, aside: Path) -> None:
    """Move `filled` to `target`; what others put there in the meantime goes to `aside`."""
    for attempt in itertools.count():
        try:
            filled.rename(target)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        with contextlib.suppress(FileNotFoundError):
            target.rename(aside / f"old{attempt}")


@contextlib.contextmanager
def atomic_file(target: str | Path) -> Iterator[Path]:
    """Give the path of a file to write; it becomes `target` at the end, or vanishes on any error.

    The name keeps the suffix of `target`, as writers that look at it need.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield staging / target.name
        os.replace(staging / target.name, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def cached_array(
    kind: str, key: Sequence[str | np.ndarray], compute: Callable[[], np.ndarray]
) -> np.ndarray:
    """Return an array from the cache, or compute it and keep it there.

    Args:
        kind: The folder of the cache.
        key: All that the array depends on: texts, and the bytes of arrays.
        compute: Makes the array where the cache has none, or a damaged one.
    """
    name = hashlib.sha256()
    for part in key:
        text = f"{part.dtype} {part.shape}" if isinstance(part, np.ndarray) else str(part)
        name.update(text.encode() + b"\0")
        if isinstance(part, np.ndarray):
            name.update(np.ascontiguousarray(part))
    # An npz file has a checksum, so that a damaged one is noticed.
    file = cache_folder(kind) / f"{name.hexdigest()}.npz"
    with contextlib.suppress(*DAMAGED), open(file, "rb") as opened:
        return np.load(opened, allow_pickle=False)["array"]
    array = compute()
    with atomic_file(file) as new:
        np.savez(new, array=array)
    return array
