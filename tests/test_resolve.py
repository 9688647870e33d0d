"""Handles: what each kind resolves to, and that nothing is left behind where one is refused."""

import io
import os
import stat
import tarfile

import numpy as np
import pytest
import savedmodels

import hub_models
from hub_models.resolve import KAGGLE_URL, resolve

X = np.ones((2, 4), "float32")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TFCOURSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def reusable(tmp_path_factory):
    return savedmodels.write_reusable(tmp_path_factory.mktemp("models") / "reusable")


def pack(folder, path, more=()):
    with tarfile.open(path, "w:gz") as archive:
        for file in folder.rglob("*"):
            archive.add(file, file.relative_to(folder), recursive=False)
        for member, content in more:
            archive.addfile(member, io.BytesIO(content))
    return path


def member(name, size=0, kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, target
    return info


def test_a_folder_is_itself(reusable):
    found = resolve(reusable)
    assert found.folder == reusable
    assert len(found.digest) == 64
    assert found == resolve(str(reusable))


def test_an_archive_is_unpacked_once(reusable, tmp_path, cache):
    path = pack(reusable, tmp_path / "model.tar.gz")
    found = resolve(path)
    assert found.folder.is_relative_to(cache / "hub")
    assert found.digest == resolve(reusable).digest
    np.testing.assert_array_equal(hub_models.load(path)(X), hub_models.load(reusable)(X))
    written = (found.folder / "saved_model.pb").stat().st_mtime_ns
    assert resolve(path).folder == found.folder
    assert (found.folder / "saved_model.pb").stat().st_mtime_ns == written


def test_the_cache_is_private_and_heals(reusable, tmp_path, cache):
    path = pack(reusable, tmp_path / "model.tar.gz")
    found = resolve(path)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    damages = [("saved_model.pb", b"half"), ("variables/variables.index", b"half")]
    damages += [("tfcourse.json", content) for content in (b"half", b"[]", b"null", b"{}")]
    for name, content in damages:
        (found.folder / name).write_bytes(content)
        assert resolve(path).digest == found.digest
        np.testing.assert_array_equal(hub_models.load(path)(X), hub_models.load(reusable)(X))


def test_an_archive_may_hold_the_folder_itself(reusable, tmp_path):
    with tarfile.open(tmp_path / "model.tgz", "w:gz") as archive:
        archive.add(reusable, "model")
    found = resolve(tmp_path / "model.tgz")
    assert found.digest == resolve(reusable).digest


def test_the_digest_covers_every_file(tmp_path):
    folder = savedmodels.write_text_tables(tmp_path / "text")
    digests = {resolve(folder).digest}
    for name in ("assets/text-words.txt", "assets/tfcourse.json", "variables/variables.index"):
        (folder / name).write_text("other\n")
        digests.add(resolve(folder).digest)
    assert len(digests) == 4
    (folder / "variables").rename(tmp_path / "elsewhere")
    (folder / "variables").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="must hold no links to folders, got"):
        resolve(folder)


def test_a_model_restored_from_the_cache_heals_too_or_says_so(reusable, tmp_path):
    found = resolve(pack(reusable, tmp_path / "model.tar.gz"))
    (found.folder / "saved_model.pb").write_bytes(b"half")
    with pytest.raises(FileNotFoundError, match="is not in the cache"):
        resolve(tmp_path / "model.tar.gz", download=False)


BOMB = 80 << 20
BAD_MEMBERS = {
    "parent": [(member("../escaped", 1), b"x")],
    "absolute": [(member("/tmp/escaped", 1), b"x")],
    "symlink": [(member("link", kind=tarfile.SYMTYPE, target="/etc/passwd"), b"")],
    "hard link": [(member("link", kind=tarfile.LNKTYPE, target="saved_model.pb"), b"")],
    "device": [(member("device", kind=tarfile.CHRTYPE), b"")],
    "bomb": [(member("bomb", BOMB), bytes(BOMB))],
}


@pytest.mark.parametrize("kind", BAD_MEMBERS)
def test_archives_that_are_refused(kind, reusable, tmp_path, cache):
    path = pack(reusable, tmp_path / "model.tar.gz", BAD_MEMBERS[kind])
    with pytest.raises(ValueError) as refusal:
        hub_models.load(path)
    assert "\n" not in str(refusal.value)
    assert not any((cache / "hub").iterdir())
    assert not list(tmp_path.rglob("*escaped*"))


def test_a_truncated_archive(reusable, tmp_path, cache):
    path = pack(reusable, tmp_path / "model.tar.gz")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError) as refusal:
        hub_models.load(path)
    assert "\n" not in str(refusal.value)
    assert not any((cache / "hub").iterdir())


@pytest.mark.parametrize(
    ("handle", "message"),
    [
        ("no/where", "no such handle: 'no/where'"),
        ("http://tfhub.dev/google/nnlm-en-dim50/2", "a handle must use https, got 'http:"),
        ("https://example.com/model.tar.gz", "an address must be of tfhub.dev or kaggle.com"),
        ("x" * 300, "no such handle: 'xxx"),
        ("~nosuchuser/model", "no such handle: '~nosuchuser/model'"),
        ("gs://bucket/model", "a handle must use https, got 'gs:"),
    ],
)
def test_what_is_no_handle(handle, message, cache):
    with pytest.raises(ValueError, match=message):
        hub_models.load(handle)
    assert not (cache / "hub").exists() or not any((cache / "hub").iterdir())


def test_a_file_or_folder_that_is_no_saved_model(tmp_path):
    (tmp_path / "notes.txt").write_text("no model")
    with pytest.raises(ValueError, match=r"must be a .tar.gz of a SavedModel, got '.*notes.txt'"):
        hub_models.load(tmp_path / "notes.txt")
    with pytest.raises(ValueError, match=r"is no SavedModel: it holds none of saved_model\.pb"):
        hub_models.load(tmp_path)


def test_without_a_network(cache, monkeypatch):
    """A real attempt; on a machine that reaches tfhub.dev it would succeed."""
    monkeypatch.delenv("TFHUB_CACHE_DIR", raising=False)
    handle = "https://tfhub.dev/tfcourse/there-is-no-such-model/1"
    with pytest.raises(OSError, match=f"could not download '{handle}'") as refusal:
        hub_models.load(handle)
    assert "TFHUB_CACHE_DIR" not in os.environ
    assert "\n" not in str(refusal.value)
    assert not list(cache.rglob("saved_model.pb"))


def test_kaggle_needs_kagglehub_or_a_network(cache):
    with pytest.raises((ImportError, OSError), match=r"kagglehub|could not download") as refusal:
        hub_models.load("tfcourse/there-is-no-such-model/tensorFlow2/default/1")
    assert "\n" not in str(refusal.value)
    assert not list(cache.rglob("saved_model.pb"))


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        (
            "https://www.kaggle.com/models/google/yamnet/TensorFlow2/yamnet/1",
            ("google/yamnet", "TensorFlow2", "yamnet", "1"),
        ),
        (
            "https://www.kaggle.com/models/google/yamnet/frameworks/TensorFlow2/variations/yamnet/versions/1",
            ("google/yamnet", "TensorFlow2", "yamnet", "1"),
        ),
    ],
)
def test_addresses_at_kaggle(address, parts):
    assert KAGGLE_URL.fullmatch(address).groups() == parts
