"""The cache: whole or absent, also when several processes write at once."""

import stat
import subprocess
import sys

import numpy as np
import pytest

from tfcourse.data.cache import atomic_file, atomic_folder, cache_folder, cached_array, sha256

WRITER = """
import sys
from tfcourse.data.cache import atomic_folder
for round in range(30):
    with atomic_folder(sys.argv[1]) as folder:
        for name in "abc":
            (folder / name).write_text(sys.argv[2])
"""


def test_the_cache_is_private(tmp_path, monkeypatch):
    monkeypatch.setenv("TFCOURSE_CACHE", str(tmp_path / "cache"))
    folder = cache_folder("a", "b")
    assert folder == tmp_path / "cache/a/b"
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700


def test_a_folder_is_replaced_whole(tmp_path):
    for text in ("old", "new"):
        with atomic_folder(tmp_path / "x") as folder:
            (folder / text).write_text(text)
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_an_error_keeps_the_old_content(tmp_path):
    with atomic_folder(tmp_path / "x") as folder:
        (folder / "old").write_text("old")
    with pytest.raises(ValueError, match="stop"), atomic_folder(tmp_path / "x") as folder:
        (folder / "new").write_text("new")
        raise ValueError("stop")
    (tmp_path / "f").write_text("old")
    with pytest.raises(ValueError, match="stop"), atomic_file(tmp_path / "f") as file:
        file.write_text("new")
        raise ValueError("stop")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["f", "old", "x"]
    assert (tmp_path / "f").read_text() == "old"


def test_processes_that_finish_at_once_leave_one_whole_folder(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path / "x")]
    writers = [subprocess.Popen([*command, text]) for text in "123"]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    texts = [(tmp_path / "x" / name).read_text() for name in "abc"]
    assert len(set(texts)) == 1


def test_sha256_is_the_published_one(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(tmp_path / "abc") == expected


def test_an_array_is_computed_once_and_heals(tmp_path, monkeypatch):
    monkeypatch.setenv("TFCOURSE_CACHE", str(tmp_path / "cache"))
    computed = []

    def compute():
        computed.append(1)
        return np.arange(6.0).reshape(2, 3)

    key = ["model", np.ones(3)]
    for _ in range(2):
        np.testing.assert_array_equal(cached_array("features", key, compute)[1], [3, 4, 5])
    assert len(computed) == 1
    file = next((tmp_path / "cache/features").iterdir())
    whole = file.read_bytes()
    damages = [b"", whole[:-40], *(whole[:i] + b"X" + whole[i + 1 :] for i in (1, 8, 9, 70, 200))]
    for damage in damages:
        file.write_bytes(damage)
        np.testing.assert_array_equal(cached_array("features", key, compute)[1], [3, 4, 5])
    cached_array("features", ["model", np.zeros(3)], compute)
    assert len(list((tmp_path / "cache/features").iterdir())) == 2
