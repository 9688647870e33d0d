"""Which SavedModels a saved Keras model may bring with it.

A `.keras` file names its SavedModel by handle and digest, and whoever made the file chose both. So
a file that is loaded in Keras' safe mode gets what the cache holds, or a folder that this user has
named before: `hub_models.load` notes each in the cache, as ssh notes the hosts that it has met.
Nothing is downloaded. The digest shows change; against malice there is the audit.
"""

import contextlib
import contextvars
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from keras.src.saving.serialization_lib import in_safe_mode

from hub_models.resolve import Resolved, resolve
from tfcourse.data.cache import atomic_file, cache_folder

_instead: contextvars.ContextVar[str | None] = contextvars.ContextVar("instead", default=None)


def admit(handle: str, digest: str | None) -> Resolved:
    """Resolve a handle: freely where the user calls, within bounds where a saved model is loaded.

    Raises:
        ValueError: If a saved model names a folder that the user never named, or one that changed.
        FileNotFoundError: If what it names is not on this machine.
    """
    instead = _instead.get()
    restoring = in_safe_mode() is not None and instead is None
    try:
        found = resolve(instead or handle, download=not restoring)
    except ValueError as error:
        if not restoring:
            raise
        raise FileNotFoundError(
            f"the model's SavedModel {handle!r} is gone ({error}); "
            "hub_models.load_model(path, handle=...) tells where it is now"
        ) from None
    if restoring and in_safe_mode() and not _is_known(found):
        raise ValueError(
            f"the model names the SavedModel {found.handle!r}, which you never loaded yourself; if "
            f"you trust it: hub_models.load_model(path, handle={found.handle!r})"
        )
    if (restoring or digest is not None) and found.digest != digest:
        raise ValueError(
            f"the SavedModel {found.handle!r} is not the one that the model was saved with: "
            f"its digest is {found.digest[:16]}..., recorded is {str(digest)[:16]}..."
        )
    return found


def _is_known(found: Resolved) -> bool:
    """Tell whether the cache holds a SavedModel, or the user has named its folder before."""
    in_cache = found.folder.resolve().is_relative_to(cache_folder("hub").resolve())
    return in_cache or _note_of(found.handle).exists()


def may_be_unsafe() -> bool:
    """Return whether `allow_unsafe` counts here: a file loaded in safe mode cannot set it."""
    return not in_safe_mode()


@contextlib.contextmanager
def pointed_at(handle: str | os.PathLike | None) -> Iterator[None]:
    """Let Hub layers that are restored meanwhile load `handle` instead of what they recorded."""
    token = _instead.set(None if handle is None else os.fspath(handle))
    try:
        yield
    finally:
        _instead.reset(token)


def remember(found: Resolved) -> None:
    """Note a folder or archive that the user has loaded."""
    if Path(found.handle).is_absolute() and not _note_of(found.handle).exists():
        with atomic_file(_note_of(found.handle)) as file:
            file.write_text(found.handle + "\n", encoding="utf-8")


def _note_of(path: str) -> Path:
    path = str(Path(path).resolve())
    return cache_folder("named") / hashlib.sha256(path.encode()).hexdigest()
