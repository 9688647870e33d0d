"""Archives: what is extracted, what is refused, and that a refusal leaves nothing."""

import io
import lzma
import os
import stat
import tarfile
import zipfile

import pytest

from tfcourse.data import archives


def member(name, data=b"text", kind=tarfile.REGTYPE, mode=0o644, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname = kind, mode, link
    info.size = len(data) if kind == tarfile.REGTYPE else 0
    return info, data


def write_tar(path, *members, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return path


def write_deb(path, data_tar, name=b"data.tar.xz"):
    with open(path, "wb") as file:
        file.write(b"!<arch>\n")
        for entry, data in ((b"debian-binary", b"2.0"), (name, data_tar)):
            file.write(b"%-16s%-12d%-6d%-6d%-8o%-10d`\n" % (entry, 0, 0, 0, 0o644, len(data)))
            file.write(data + b"\n" * (len(data) % 2))
    return path


def files_in(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_members_of_a_wheel(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as file:
        file.writestr("pkg/data/a.txt", "A")
        file.writestr("pkg/code.py", "B")
    archives.extract_members(tmp_path / "a.whl", {"pkg/data/a.txt"}, tmp_path / "out")
    assert files_in(tmp_path / "out") == ["pkg/data/a.txt"]
    assert (tmp_path / "out/pkg/data/a.txt").read_text() == "A"


def test_members_of_an_npm_package_have_no_top_folder(tmp_path):
    tgz = write_tar(tmp_path / "a.tgz", member("package/img/a.txt"), member("package/b.txt"))
    archives.extract_members(tgz, ["img/a.txt"], tmp_path / "out")
    assert files_in(tmp_path / "out") == ["img/a.txt"]


@pytest.mark.parametrize("kind", ["xz", "gz"])
def test_members_of_a_debian_package(tmp_path, kind):
    inner = write_tar(tmp_path / "data", member("./usr/share/x", b"X"), mode=f"w:{kind}")
    name = f"data.tar.{kind}".encode()
    deb = write_deb(tmp_path / "a.deb", inner.read_bytes(), name)
    archives.extract_members(deb, ["usr/share/x"], tmp_path / "out")
    assert (tmp_path / "out/usr/share/x").read_bytes() == b"X"


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (b"", b"data.tar.zst", "must hold data.tar.gz or data.tar.xz, not data.tar.zst"),
        (b"no xz", b"data.tar.xz", "truncated, corrupt or no archive"),
        (lzma.compress(b"\0" * 4096)[:40], b"data.tar.xz", "truncated, corrupt or no archive"),
        (b"", b"control.tar.xz", "truncated, corrupt or no archive"),
    ],
)
def test_broken_debian_packages_are_refused(tmp_path, data, name, message):
    deb = write_deb(tmp_path / "a.deb", data, name)
    with pytest.raises(ValueError, match=message):
        archives.extract_members(deb, ["x"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_member_is_named_and_leaves_nothing(tmp_path):
    tgz = write_tar(tmp_path / "a.tgz", member("p/a"), member("p/link", b"", tarfile.SYMTYPE))
    for wrong in ("b", "link"):
        with pytest.raises(ValueError, match=f"must hold '{wrong}' as a plain file"):
            archives.extract_members(tgz, ["a", wrong], tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_unpack_makes_parents_and_plain_modes(tmp_path):
    tar = write_tar(
        tmp_path / "a.tar.gz",
        member("saved_model.pb", b"graph", mode=0o6755),
        member("variables/deep/x", b"x" * 100_000),
        member("assets", kind=tarfile.DIRTYPE),
    )
    archives.unpack(tar, tmp_path / "out")
    assert files_in(tmp_path / "out") == ["saved_model.pb", "variables/deep/x"]
    assert (tmp_path / "out/assets").is_dir()
    assert (tmp_path / "out/variables/deep/x").read_bytes() == b"x" * 100_000
    assert stat.S_IMODE(os.stat(tmp_path / "out/saved_model.pb").st_mode) == 0o644


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (member("../evil"), "below its root only, got '../evil'"),
        (member("a/../../evil"), "below its root only"),
        (member("/evil"), "below its root only, got '/evil'"),
        (member("C:\\evil"), "below its root only"),
        (member("..\\evil"), "below its root only"),
        (member("..", kind=tarfile.DIRTYPE), "below its root only"),
        (member("link", kind=tarfile.SYMTYPE, link="/etc"), "plain files and folders only"),
        (member("link", kind=tarfile.LNKTYPE, link="good"), "plain files and folders only"),
        (member("null", kind=tarfile.CHRTYPE), "plain files and folders only"),
        (member("pipe", kind=tarfile.FIFOTYPE), "plain files and folders only"),
        (member("good"), "must hold each name once, not good"),
        (member("good/below"), "must hold each name once, not good"),
    ],
)
def test_unpack_refuses_and_leaves_nothing(tmp_path, bad, message):
    tar = write_tar(tmp_path / "a.tar.gz", member("good"), bad)
    with pytest.raises(ValueError, match=message) as caught:
        archives.unpack(tar, tmp_path / "folder/out")
    assert "\n" not in str(caught.value)
    assert files_in(tmp_path) == ["a.tar.gz"]
    assert not (tmp_path / "folder/out").exists()


def test_unpack_refuses_a_sparse_file(tmp_path):
    """Its header claims a terabyte that the archive does not hold."""
    info, data = member("hole", b"x" * 512)
    info.pax_headers = {"GNU.sparse.map": "0,512", "GNU.sparse.size": str(2**40)}
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(data))
    with pytest.raises(ValueError, match="plain files and folders only, not 'hole'"):
        archives.unpack(tmp_path / "a.tar.gz", tmp_path / "out")


def test_unpack_refuses_too_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_FILES", 3)
    archives.unpack(write_tar(tmp_path / "a", *map(member, "abc")), tmp_path / "ok")
    with pytest.raises(ValueError, match="at most 3 members"):
        archives.unpack(write_tar(tmp_path / "b", *map(member, "abcd")), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unpack_refuses_too_many_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 50_000)
    tar = write_tar(tmp_path / "a.tar.gz", member("a", os.urandom(60_000)))
    with pytest.raises(ValueError, match="unpack to at most 50000 bytes"):
        archives.unpack(tar, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unpack_refuses_a_decompression_bomb(tmp_path):
    tar = write_tar(tmp_path / "a.tar.gz", member("zeros", bytes(archives.FREE_BYTES + 2**20)))
    assert tar.stat().st_size < 100_000
    with pytest.raises(ValueError, match=f"unpack to at most {archives.FREE_BYTES} bytes"):
        archives.unpack(tar, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("keep", [0, 1, 30, 0.5, -1, -9])
def test_unpack_refuses_a_truncated_archive(tmp_path, keep):
    """Even one that lacks nothing but a byte of the checksum."""
    whole = write_tar(tmp_path / "a.tar.gz", member("a", os.urandom(50_000))).read_bytes()
    cut = keep if isinstance(keep, int) else int(keep * len(whole))
    (tmp_path / "a.tar.gz").write_bytes(whole[:cut])
    with pytest.raises(ValueError, match=r"a\.tar\.gz is truncated, corrupt or no archive"):
        archives.unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unpack_refuses_a_damaged_byte(tmp_path):
    path = write_tar(tmp_path / "a.tar.gz", member("a", os.urandom(50_000)))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="truncated, corrupt"):
        archives.unpack(path, tmp_path / "out")


@pytest.mark.parametrize("data", [b"plain text", b"PK\x03\x04 a zip", b"!<arch>\n"])
def test_what_is_no_archive_is_refused(tmp_path, data):
    (tmp_path / "a").write_bytes(data)
    for extract in (
        lambda: archives.unpack(tmp_path / "a", tmp_path / "out"),
        lambda: archives.extract_members(tmp_path / "a", ["x"], tmp_path / "out"),
    ):
        with pytest.raises(ValueError, match="a is truncated, corrupt or no archive"):
            extract()
        assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_not_touched(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine")
    with pytest.raises(ValueError, match="must be empty"):
        archives.unpack(write_tar(tmp_path / "a", member("../x")), tmp_path / "out")
    assert (tmp_path / "out/mine").read_text() == "mine"
