"""Single files from their publishers: resumed, checked against the publisher's digest, kept.

A file is fetched once into the user's cache. What came of an interrupted download is kept there
too, with the server's name for that version of the file, and continued by the next one.
"""

import contextlib
import hashlib
import http.client
import os
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from tfcourse.data.cache import cache_folder

try:
    import fcntl
except ImportError:  # Windows: there two processes at once are not kept apart
    fcntl = None

ATTEMPTS = 4  # without any new byte
WAIT = 1.0  # seconds before the second attempt; it doubles with each
TIMEOUT = 30  # seconds without an answer
CHUNK = 2**20
LIMIT = 2**31  # bytes; no published file of weights comes near
LOOPBACK = {"127.0.0.1", "::1", "localhost"}
BROKEN = (urllib.error.URLError, TimeoutError, ConnectionError, ssl.SSLError)
BROKEN += (http.client.HTTPException,)
BUSY = {408, 429, 500, 502, 503, 504}
ADVICE = "try again where it can be reached, or fetch it elsewhere and give its path"


def download(url: str, digest: str, folder: str | Path | None = None) -> Path:
    """Return a published file from the cache, or fetch it into there.

    A broken connection is tried again and goes on where it broke; so does the next call after an
    interrupt. Proxies are those of the environment. Processes that want the same file wait for
    each other.

    Args:
        url: Where the publisher keeps it, by HTTPS.
        digest: As its publisher gives it, `"md5:..."` or `"sha256:..."`; the first eight
            hexadecimal digits are enough.
        folder: Where to keep it; by default the cache's folder `downloads`.

    Returns:
        The file, whose digest is right.

    Raises:
        ValueError: If the address is not of HTTPS, or what came has another digest or is larger
            than 2 GiB. Nothing of it is kept.
        OSError: If it can't be had (no network, no such file, or no end of it after some attempts)
            or can't be written.
    """
    check_address(url)
    target = Path(folder or cache_folder("downloads")) / Path(urllib.parse.urlsplit(url).path).name
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with locked(target.with_name(f"{target.name}.lock")):
        if target.exists() and has_digest(target, digest):
            return target
        # A process may have been killed between the last byte and the end.
        if not (part.exists() and has_digest(part, digest)):
            complete(url, part)
        if not has_digest(part, digest):
            remove(part)
            raise ValueError(f"{url} must have the digest {digest}; what came has another")
        os.replace(part, target)
        remove(part)
    return target


def check_address(url: str) -> None:
    """Refuse what anybody on the way could change; a server on this machine may do without."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise ValueError(f"an address must begin with https://, got {url}")


def has_digest(path: Path, digest: str) -> bool:
    kind, _, wanted = digest.partition(":")
    with open(path, "rb") as file:
        return len(wanted) >= 8 and hashlib.file_digest(file, kind).hexdigest().startswith(wanted)


def remove(part: Path) -> None:
    for path in (part, version_of(part)):
        path.unlink(missing_ok=True)


def version_of(part: Path) -> Path:
    """Return the file in which the server's name of this version (its ETag) is kept."""
    return part.with_name(f"{part.name}.etag")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with open(path, "ab") as file:
        if fcntl is not None:
            # Not every network file system knows locks.
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def complete(url: str, part: Path) -> None:
    """Bring a partial file to its end, in as many attempts as bring it forward."""
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            proceed(url, part)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in BUSY:
                raise OSError(f"{url} can't be had ({error}): {ADVICE}") from error
            reason = error
        except BROKEN as error:
            reason = getattr(error, "reason", error)
        except OSError as error:  # that is a full disk or the like: trying again won't help
            raise OSError(f"{url} can't be written to {part} ({error})") from error
        after = part.stat().st_size if part.exists() else 0
        failures = 1 if after > before else failures + 1
        if failures == ATTEMPTS:
            raise OSError(f"{url} can't be had ({reason}): {ADVICE}") from reason
        time.sleep(WAIT * 2 ** (failures - 1))


class CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows the server only to addresses that are as safe as the first."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # noqa: PLR0917
        check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def proceed(url: str, part: Path) -> None:
    """Append to a partial file what is missing, or start over where the server can't do that."""
    done = part.stat().st_size if part.exists() else 0
    version = version_of(part).read_text("utf-8") if version_of(part).exists() else ""
    request = urllib.request.Request(url, headers={"User-Agent": "tfcourse"})
    if done and version:
        request.add_header("Range", f"bytes={done}-")
        request.add_header("If-Range", version)
    opener = urllib.request.build_opener(CheckedRedirects)
    try:
        answer = opener.open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        error.close()
        remove(part)
        raise ConnectionError("the server has less than was kept of it") from error
    with answer:
        resumed = answer.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        resumed = resumed and answer.status == http.client.PARTIAL_CONTENT
        start = done if resumed else 0
        if not resumed:
            remove(part)
            # A weak name is of files that mean the same; here every byte counts.
            etag = answer.headers.get("ETag", "")
            version_of(part).write_text("" if etag.startswith("W/") else etag, "utf-8")
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length else None
        check_size(url, part, total or 0)
        with open(part, "ab") as file:
            copy(answer, file, part.name.removesuffix(".part"), start, total)
        check_size(url, part, part.stat().st_size)
        if total is not None and part.stat().st_size != total:
            raise ConnectionError(f"only {part.stat().st_size} of {total} bytes came")


def check_size(url: str, part: Path, size: int) -> None:
    """Refuse what would fill the disk."""
    if size > LIMIT:
        remove(part)
        raise ValueError(f"{url} must be of at most {LIMIT} bytes, got more")


def copy(answer: BinaryIO, file: BinaryIO, name: str, start: int, total: int | None) -> None:
    """Copy a body to a file, up to its end or the limit; a terminal shows how far it is."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(20))
    columns += (DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=total, completed=start)
        most = LIMIT + 1 if total is None else total
        while chunk := answer.read(min(CHUNK, most - start)):
            file.write(chunk)
            start += len(chunk)
            bar.advance(task, len(chunk))
