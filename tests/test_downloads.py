"""Downloads from a real server on this machine, which breaks them in many ways."""

import contextlib
import hashlib
import re
import resource
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tfcourse.data import downloads
from tfcourse.data.downloads import download

BODY = bytes(range(256)) * 4000
MD5 = f"md5:{hashlib.md5(BODY).hexdigest()}"
SHA = f"sha256:{hashlib.sha256(BODY).hexdigest()[:8]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle(self):
        with contextlib.suppress(ConnectionError):  # they may have had enough
            super().handle()

    def do_GET(self):
        server = self.server
        start = self.asked_start()
        server.requests.append((self.path, self.headers.get("Range"), start))
        if self.path == "/away.bin":
            self.send_response(302)
            self.send_header("Location", "http://example.invalid/file.bin")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        status = server.errors.pop(0) if server.errors else 206 if start else 200
        if self.path != "/file.bin" or status >= 400:
            self.send_error(status if status >= 400 else 404)
            return
        rest = server.body[start:]
        self.send_response(status)
        if server.endless:
            self.end_headers()
            while True:
                self.wfile.write(rest)
        if server.etag:
            self.send_header("ETag", server.etag)
        if start:
            end = len(server.body)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: server.cuts.pop(0) if server.cuts else None])
        self.close_connection = True

    def asked_start(self) -> int:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") == self.server.etag
        return int(asked[1]) if asked and same and self.server.ranges else 0

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(downloads, "WAIT", 0.01)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.body, running.etag, running.ranges = BODY, '"one"', True
        running.requests, running.cuts, running.errors = [], [], []
        running.endless = False
        running.url = f"http://127.0.0.1:{running.server_port}/file.bin"
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def starts(server) -> list[int]:
    return [start for _, _, start in server.requests]


def kept(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize("digest", [MD5, SHA])
def test_whole_and_only_once(server, tmp_path, digest, capfd):
    path = download(server.url, digest, tmp_path)
    assert path == tmp_path / "file.bin"
    assert path.read_bytes() == BODY
    assert download(server.url, digest, tmp_path) == path
    assert len(server.requests) == 1
    assert kept(tmp_path) == ["file.bin"]
    assert "".join(capfd.readouterr()) == ""  # no terminal, no progress bar


def test_a_broken_connection_goes_on_where_it_broke(server, tmp_path):
    server.cuts = [300_000, 1, 0, 400_000]
    assert download(server.url, MD5, tmp_path).read_bytes() == BODY
    assert starts(server) == [0, 300_000, 300_001, 300_001, 700_001]


def test_the_next_call_goes_on_too(server, tmp_path):
    server.cuts = [300_000, 0, 0, 0, 0]
    message = r"^http://127.0.0.1:\d+/file.bin can't be had \(only 300000 of 1024000 bytes came\): "
    with pytest.raises(OSError, match=f"{message}try again where it can be reached, or fetch it"):
        download(server.url, MD5, tmp_path)
    assert kept(tmp_path) == ["file.bin.part", "file.bin.part.etag"]
    server.cuts = []
    assert download(server.url, MD5, tmp_path).read_bytes() == BODY
    assert starts(server)[-1] == 300_000
    assert kept(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("change", ["no ranges", "no name", "weak name", "another file"])
def test_starts_over_where_it_can_not_go_on(server, tmp_path, change):
    server.etag = {"no name": None, "weak name": 'W/"one"'}.get(change, '"one"')
    server.ranges = change != "no ranges"
    server.cuts = [300_000, 0, 0, 0, 0]
    server.body = b"old" * 200_000 if change == "another file" else BODY
    with pytest.raises(OSError, match="can't be had"):
        download(server.url, MD5, tmp_path)
    server.cuts, server.body = [], BODY
    server.etag = '"two"' if change == "another file" else server.etag
    assert download(server.url, MD5, tmp_path).read_bytes() == BODY
    assert starts(server)[-1] == 0


def test_a_whole_partial_file_is_enough(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(BODY)
    assert download(server.url, MD5, tmp_path).read_bytes() == BODY
    assert server.requests == []


def test_more_kept_than_there_is(server, tmp_path):
    server.errors = [416]
    (tmp_path / "file.bin.part").write_bytes(BODY + b"more")
    (tmp_path / "file.bin.part.etag").write_text('"one"')
    assert download(server.url, MD5, tmp_path).read_bytes() == BODY
    assert [asked for _, asked, _ in server.requests] == ["bytes=1024004-", None]


@pytest.mark.parametrize("digest", ["md5:" + "0" * 32, "sha256:00000000", "sha256:"])
def test_another_digest_is_refused_and_nothing_kept(server, tmp_path, digest):
    message = rf"file.bin must have the digest {digest}; what came has another$"
    with pytest.raises(ValueError, match=message):
        download(server.url, digest, tmp_path)
    assert kept(tmp_path) == []


def test_a_damaged_file_in_the_cache_is_fetched_again(server, tmp_path):
    path = download(server.url, MD5, tmp_path)
    path.write_bytes(BODY[:-1])
    assert download(server.url, MD5, tmp_path).read_bytes() == BODY


def test_missing_files_are_not_asked_for_again(server, tmp_path):
    with pytest.raises(OSError, match=r"can't be had \(HTTP Error 404: Not Found\): try again"):
        download(server.url.replace("file", "other"), MD5, tmp_path)
    assert len(server.requests) == 1


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.errors = [503, 500]
    assert download(server.url, MD5, tmp_path).read_bytes() == BODY
    server.errors = [503] * 9
    with pytest.raises(OSError, match="HTTP Error 503"):
        download(server.url, MD5, tmp_path / "another")
    assert len(server.requests) == 3 + downloads.ATTEMPTS


def test_a_full_disk_is_no_fault_of_the_network(server, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        message = rf"file.bin can't be written to {tmp_path}/file.bin.part \(.*File too large\)$"
        with pytest.raises(OSError, match=message):
            download(server.url, MD5, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(server.requests) == 1


@pytest.mark.parametrize("endless", [True, False])
def test_a_file_that_is_too_large_is_given_up(server, monkeypatch, tmp_path, endless):
    monkeypatch.setattr(downloads, "LIMIT", 500_000)
    server.endless = endless
    with pytest.raises(ValueError, match=r"file.bin must be of at most 500000 bytes, got more$"):
        download(server.url, MD5, tmp_path)
    assert len(server.requests) == 1
    assert kept(tmp_path) == []


def test_no_network(monkeypatch, tmp_path):
    monkeypatch.setattr(downloads, "WAIT", 0.0)
    monkeypatch.setattr(downloads, "ATTEMPTS", 2)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as closed:
        port = closed.server_port
    with pytest.raises(OSError, match=r"can't be had \(.*Connection refused\): try again"):
        download(f"http://127.0.0.1:{port}/file.bin", MD5, tmp_path)
    assert kept(tmp_path) == []


def test_only_safe_addresses(server, tmp_path):
    for url in ("http://example.com/a.bin", "ftp://example.com/a.bin", "file:///etc/passwd"):
        with pytest.raises(ValueError, match=f"^an address must begin with https://, got {url}$"):
            download(url, MD5, tmp_path)
    with pytest.raises(ValueError, match=r"https://, got http://example.invalid/file.bin$"):
        download(server.url.replace("file", "away"), MD5, tmp_path)


def test_a_proxy_of_the_environment_is_asked(server, monkeypatch, tmp_path):
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/file.bin"))
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(OSError, match="404"):
        download("http://localhost:9/other.bin", MD5, tmp_path)
    assert server.requests[0][0] == "http://localhost:9/other.bin"


def test_two_processes_at_once(server, tmp_path):
    code = "import sys; from tfcourse.data.downloads import download; download(*sys.argv[1:])"
    command = [sys.executable, "-c", code, server.url, MD5, str(tmp_path)]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert len(server.requests) == 1
    assert (tmp_path / "file.bin").read_bytes() == BODY
