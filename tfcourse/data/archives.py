"""Archives from strangers: named members only, or a whole `.tar.gz` behind limits.

Nothing that an archive says about itself is believed: bytes are counted as they come out, names
must stay below the folder, and anything but a plain file or a folder is refused.
"""

import contextlib
import gzip
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from gzip import BadGzipFile
from lzma import LZMAError
from pathlib import Path, PureWindowsPath
from typing import BinaryIO

MAX_FILES = 10_000
MAX_BYTES = 16 * 2**30
MAX_RATIO = 200  # unpacked bytes per archived byte; text rarely passes 20
FREE_BYTES = 64 * 2**20  # below this size the ratio does not matter

# What the readers raise on damaged bytes.
BROKEN = (tarfile.TarError, zipfile.BadZipFile, BadGzipFile, LZMAError, zlib.error, EOFError)


def extract_members(archive: str | Path, members: Collection[str], folder: str | Path) -> None:
    """Extract only the named members of a wheel, zip, `.tar.gz` or `.deb`.

    Args:
        archive: The file; its first bytes tell what it is, not its name.
        members: Paths below the archive's root. The one top folder that every sdist
            (`NAME-VERSION/`) and every npm package (`package/`) has is not part of a name.
        folder: An empty or missing folder; each member lands at its own path below it.

    Raises:
        ValueError: If a member is missing or no plain file, or the archive can't be read.
    """
    archive = Path(archive)
    with _filling(archive, Path(folder)) as target:
        missing = set(members)
        for name, source in _files(archive, missing):
            _write(source, _inside(target, name, archive))
            missing.remove(name)
            if not missing:
                break
        if missing:
            raise ValueError(f"{archive.name} must hold {min(missing)!r} as a plain file")


def unpack(archive: str | Path, folder: str | Path) -> None:
    """Unpack a whole `.tar.gz`, as plain files of mode 0644 and folders.

    Args:
        archive: The file.
        folder: An empty or missing folder to fill; after an error it is gone.

    Raises:
        ValueError: If the archive is truncated, corrupt or no `.tar.gz`, holds a link, a device
            or a name that leaves the folder, or passes a limit of this module.
    """
    archive = Path(archive)
    with _filling(archive, Path(folder)) as target, gzip.open(archive) as decompressed:
        stream = _Limited(decompressed, archive)
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for count, member in enumerate(tar, start=1):
                if count > MAX_FILES:
                    raise ValueError(f"{archive.name} must hold at most {MAX_FILES} members")
                path = _inside(target, member.name, archive)
                if member.isdir():
                    path.mkdir(parents=True, exist_ok=True)
                elif _plain(member):
                    _write(tar.extractfile(member), path)
                else:
                    rule = "must hold plain files and folders only"
                    raise ValueError(f"{archive.name} {rule}, not {member.name!r}")
        while stream.read(2**20):  # to the end, where gzip keeps its checksum
            pass


class _Limited:
    """A file to read whose bytes are counted against the limits of this module."""

    def __init__(self, source: BinaryIO, archive: Path):
        self.source, self.archive, self.count = source, archive, 0
        self.limit = min(MAX_BYTES, max(FREE_BYTES, MAX_RATIO * archive.stat().st_size))

    def read(self, size: int) -> bytes:
        data = self.source.read(size)
        self.count += len(data)
        if self.count > self.limit:
            raise ValueError(f"{self.archive.name} must unpack to at most {self.limit} bytes")
        return data


@contextlib.contextmanager
def _filling(archive: Path, folder: Path) -> Iterator[Path]:
    """Give the empty folder to fill; on an error remove it and say in one line what is wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ValueError(f"the folder to extract into must be empty, {folder} is not")
    try:
        yield folder
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, BROKEN):
            raise ValueError(f"{archive.name} is truncated, corrupt or no archive") from error
        if isinstance(error, FileExistsError | NotADirectoryError):
            name = Path(error.filename).relative_to(folder)
            raise ValueError(f"{archive.name} must hold each name once, not {name}") from error
        raise


def _files(archive: Path, wanted: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
    """Yield those of the wanted plain files that an archive of any kind holds, by name."""
    with open(archive, "rb") as file:
        magic = file.read(8)
        if magic.startswith(b"PK"):
            yield from _zipped(archive, wanted)
            return
        is_deb = magic == b"!<arch>\n"
        opened = _tar_in_deb(file) if is_deb else gzip.GzipFile(archive)
        with opened as source, tarfile.open(fileobj=_Limited(source, archive), mode="r|") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                name = name if is_deb else name.partition("/")[2]
                if name in wanted and _plain(member):
                    yield name, tar.extractfile(member)


def _zipped(archive: Path, wanted: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
    with zipfile.ZipFile(archive) as file:
        for name in sorted(wanted & set(file.namelist())):
            with file.open(name) as source:
                yield name, _Limited(source, archive)


def _tar_in_deb(file: BinaryIO) -> BinaryIO:
    """Open the `data.tar.*` of a Debian package, an `ar` file whose first 8 bytes are read."""
    readers = {".gz": gzip.open, ".xz": lzma.open}
    while (header := file.read(60))[58:] == b"`\n":
        name, size = Path(header[:16].decode("latin-1").rstrip(" /")), int(header[48:58])
        if name.stem == "data.tar":
            if name.suffix not in readers:
                raise ValueError(f"a .deb must hold data.tar.gz or data.tar.xz, not {name}")
            return readers[name.suffix](file)
        file.seek(size + size % 2, 1)
    raise tarfile.ReadError("no data.tar in this package")


def _plain(member: tarfile.TarInfo) -> bool:
    # A sparse file unpacks to more bytes than the archive holds.
    return member.isreg() and not member.issparse()


def _inside(folder: Path, name: str, archive: Path) -> Path:
    # The rules of Windows also cover those of the others: drives, and both slashes.
    path = PureWindowsPath(name)
    if path.anchor or ".." in path.parts:
        raise ValueError(f"{archive.name} must hold paths below its root only, got {name!r}")
    return folder / name


def _write(source: BinaryIO, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as file:
        shutil.copyfileobj(source, file)
    path.chmod(0o644)
