"""From a handle to a folder on this machine, through a cache that only its owner can read.

A handle is a SavedModel's folder, a `.tar.gz` of one, a name in the catalogue, a handle or an
address at Kaggle Models, or an address at tfhub.dev. A cache entry is whole or absent: it is
filled elsewhere, moved into place at once, and holds the digest of each of its files, so that one
that was altered is made again.
"""

import hashlib
import json
import os
import re
import shutil
import socket
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hub_models.catalogue import CATALOGUE
from tfcourse.data.archives import unpack
from tfcourse.data.cache import atomic_folder, cache_folder, sha256

GRAPHS = ("saved_model.pb", "saved_model.pbtxt", "saved_model.cpb")
KAGGLE = re.compile(r"[\w.-]+/[\w.-]+/tensorflow[12]?/[\w.-]+(/\d+)?", re.IGNORECASE)
KAGGLE_URL = re.compile(
    r"https://(?:www\.)?kaggle\.com/models/([^/]+/[^/]+)/(?:frameworks/)?([^/]+)/"
    r"(?:variations/)?([^/]+)(?:/versions)?(?:/(\d+))?/?"
)
MANIFEST = "tfcourse.json"
PATIENCE = 30  # seconds without an answer from a server


@dataclass(frozen=True)
class Resolved:
    """A SavedModel on this machine.

    Attributes:
        handle: The handle, with a local path made absolute.
        folder: The folder that holds it.
        digest: What identifies it: SHA-256 over its files, or, in an entry that is made from
            published weights, over those weights.
    """

    handle: str
    folder: Path
    digest: str


def resolve(handle: str | os.PathLike, *, download: bool = True) -> Resolved:
    """Find the SavedModel that a handle names, and bring it to this machine if it is not here.

    Args:
        handle: A folder, a `.tar.gz`, a name in `CATALOGUE`, `owner/model/framework/variation` at
            Kaggle Models (or its address), or an `https://tfhub.dev/` address.
        download: Whether it may be fetched, unpacked or made; if not, it has to be here already.

    Raises:
        ValueError: If this is no handle, or what it names is no SavedModel.
        FileNotFoundError: If it is not here and `download` is off.
        OSError: If it cannot be had.
    """
    handle = os.fspath(handle)
    if handle in CATALOGUE:
        return _cached(handle, CATALOGUE[handle].prepare, download, CATALOGUE[handle].digest)
    if "://" in handle:
        return _resolve_address(handle, download)
    if (path := _existing(handle)) is not None:
        if path.is_dir():
            return Resolved(str(path.resolve()), path, digest_of(path, path))
        return _resolve_archive(path, download)
    if KAGGLE.fullmatch(handle):
        return _cached(handle, _from_kaggle(handle), download)
    raise ValueError(
        f"no such handle: {handle!r} is no folder, no .tar.gz, no handle of Kaggle Models or "
        f"tfhub.dev, and not in the catalogue {sorted(CATALOGUE)}"
    )


def digest_of(folder: Path, name: object) -> str:
    """Return one SHA-256 digest over the names and the contents of a SavedModel's files.

    Raises:
        ValueError: If the folder, which the message calls `name`, is no SavedModel, or links to
            folders elsewhere.
    """
    if not _holds_graph(folder):
        raise ValueError(f"{name} is no SavedModel: it holds none of {', '.join(GRAPHS)}")
    return hashlib.sha256(json.dumps(_digests(folder)).encode()).hexdigest()


def _existing(handle: str) -> Path | None:
    try:
        path = Path(handle).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError):  # too long a name, no such user
        return None


def _holds_graph(folder: Path) -> bool:
    return any((folder / name).is_file() for name in GRAPHS)


def _digests(folder: Path) -> dict[str, str]:
    entries = sorted(p for p in folder.rglob("*") if p != folder / MANIFEST)
    for link in entries:
        if link.is_symlink() and link.is_dir():
            raise ValueError(f"a SavedModel must hold no links to folders, got {link}")
    return {p.relative_to(folder).as_posix(): sha256(p) for p in entries if p.is_file()}


def _resolve_address(handle: str, download: bool) -> Resolved:
    if not handle.startswith("https://"):
        raise ValueError(f"a handle must use https, got {handle!r}")
    if match := KAGGLE_URL.fullmatch(handle.split("?", maxsplit=1)[0]):
        kaggle = "/".join(part for part in match.groups() if part)
        return _cached(kaggle, _from_kaggle(kaggle), download)
    if handle.startswith("https://tfhub.dev/"):
        return _cached(handle, _from_tfhub(handle), download)
    raise ValueError(
        f"an address must be of tfhub.dev or kaggle.com/models, got {handle!r}; "
        "download other SavedModels yourself and give the path"
    )


def _resolve_archive(path: Path, download: bool) -> Resolved:
    if not path.name.endswith((".tar.gz", ".tgz")):
        raise ValueError(f"a file must be a .tar.gz of a SavedModel, got {str(path)!r}")

    def extract(folder: Path) -> None:
        unpack(path, folder)
        entries = list(folder.iterdir())
        if len(entries) == 1 and _holds_graph(entries[0]):  # packed with the folder around it
            for inner in list(entries[0].iterdir()):
                inner.rename(folder / inner.name)
            entries[0].rmdir()
        digest_of(folder, path)

    entry = _cached("sha256:" + sha256(path), extract, download)
    return Resolved(str(path.resolve()), entry.folder, entry.digest)


def _cached(
    handle: str, fill: Callable[[Path], None], download: bool, digest: str | None = None
) -> Resolved:
    """Return the cache's entry for a handle; `fill` makes it where it is absent or damaged."""
    readable = re.sub(r"[^\w.-]+", "-", handle)[:60]
    name = f"{readable}-{hashlib.sha256(handle.encode()).hexdigest()[:12]}"
    folder = cache_folder("hub") / name
    if not _is_whole(folder, handle, digest):
        if not download:
            raise FileNotFoundError(
                f"{handle!r} is not in the cache; hub_models.load({handle!r}) brings it there"
            )
        with atomic_folder(folder) as new:
            fill(new)
            entry = {
                "handle": handle,
                "digest": digest or digest_of(new, handle),
                "files": _digests(new),
            }
            (new / MANIFEST).write_text(json.dumps(entry, indent=1))
    return Resolved(handle, folder, json.loads((folder / MANIFEST).read_text())["digest"])


def _is_whole(folder: Path, handle: str, digest: str | None) -> bool:
    try:
        entry = json.loads((folder / MANIFEST).read_text())
        same = entry["handle"] == handle and entry["digest"] == (digest or entry["digest"])
        return same and entry["files"] == _digests(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _from_kaggle(handle: str) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        try:
            import kagglehub
        except ImportError:
            raise ImportError(
                f"the handle {handle!r} needs kagglehub: pip install 'tfcourse[kaggle]'"
            ) from None
        _copy_download(handle, lambda: kagglehub.model_download(handle), folder)

    return fill


def _from_tfhub(handle: str) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        try:
            with warnings.catch_warnings():
                # It imports pkg_resources, which says that it will go.
                warnings.simplefilter("ignore")
                import tensorflow_hub
        except ImportError as error:
            raise ImportError(
                f"the handle {handle!r} needs tensorflow-hub (and setuptools<82): {error}"
            ) from None
        # Its own default is a folder that every user of the machine can write to.
        before = os.environ.get("TFHUB_CACHE_DIR")
        os.environ["TFHUB_CACHE_DIR"] = before or str(folder.parent / "download")
        try:
            _copy_download(handle, lambda: tensorflow_hub.resolve(handle), folder)
        finally:
            if before is None:
                del os.environ["TFHUB_CACHE_DIR"]

    return fill


def _copy_download(handle: str, fetch: Callable[[], str], folder: Path) -> None:
    """Fetch a SavedModel and copy it into `folder`."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        source = Path(fetch())
        digest_of(source, handle)
    except Exception as error:  # each library raises its own kinds: connection, HTTP, cloud
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise OSError(
            f"could not download {handle!r} ({reason}); a folder or a .tar.gz on this machine, or "
            f"one of {sorted(CATALOGUE)}, needs no network"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    shutil.copytree(source, folder, dirs_exist_ok=True)
