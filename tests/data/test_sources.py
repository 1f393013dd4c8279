"""Finding, fetching and verifying files: with a real server, real processes and real damage."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import os
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.data.sources import catalogue
from pipeline.data.sources import finding as sources
from pipeline.data.sources.archives import Damaged
from pipeline.data.sources.finding import DataUnavailable, Source, digest, locate, search_path, verify
from pipeline.errors import UserError

CONTENT = bytes(range(256)) * 4000


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT in different manners, chosen by the path; counts requests."""

    daemon_threads = True
    requests: list[str]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        body, length = CONTENT, len(CONTENT)
        if self.path == "/missing":
            self.send_error(404)
            return
        if self.path == "/altered":
            body = CONTENT[:-1] + b"?"
        if self.path == "/slow":
            time.sleep(1)
        if self.path in ("/cut", "/cut-unannounced"):
            body = CONTENT[:5000]
        self.send_response(200)
        if self.path != "/cut-unannounced":
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("PIPELINE_OFFLINE", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    with Server(("127.0.0.1", 0), Handler) as running:
        running.requests = []
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def address(server: Server, path: str) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}{path}"


def source(*urls: str, checksum: str = "sha256:" + hashlib.sha256(CONTENT).hexdigest()) -> Source:
    return Source(
        name="numbers", filenames=("sub/numbers.bin", "numbers.bin"), urls=urls, checksums=(checksum,)
    )


def files(directory: Path) -> set[str]:
    """What a later run could take for data: everything but the folders for locks and records."""
    return {
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and path.suffix != ".lock" and ".verified" not in path.parts
    }


def test_order_is_data_directory_then_search_path_then_address(tmp_path: Path, server: Server) -> None:
    wanted = source(address(server, "/file"))
    data, first, second = tmp_path / "data", tmp_path / "first", tmp_path / "second"
    assert locate(wanted, data, [first, second]) == data / "sub/numbers.bin"
    assert server.requests == ["/file"]
    for directory in (first, second):
        directory.mkdir()
        (directory / "numbers.bin").write_bytes(CONTENT)
    assert locate(wanted, data, [first, second]) == data / "sub/numbers.bin"
    (data / "sub/numbers.bin").unlink()
    assert locate(wanted, data, [first, second]) == first / "numbers.bin"
    (first / "numbers.bin").unlink()
    assert locate(wanted, data, [first, second]) == second / "numbers.bin"
    assert server.requests == ["/file"]


def test_search_path_is_split_like_PATH(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIPELINE_DATA_PATH", os.pathsep.join([str(tmp_path), "", "relative"]))
    assert search_path() == [tmp_path, Path.cwd() / "relative"]
    monkeypatch.delenv("PIPELINE_DATA_PATH")
    assert search_path() == []


def test_a_download_is_whole_and_left_alone_the_second_time(tmp_path: Path, server: Server) -> None:
    wanted = source(address(server, "/file"))
    path = locate(wanted, tmp_path)
    assert path.read_bytes() == CONTENT
    assert digest(path) == hashlib.sha256(CONTENT).hexdigest()
    assert locate(wanted, tmp_path) == path
    assert server.requests == ["/file"]
    assert files(tmp_path) == {"sub/numbers.bin"}


@pytest.mark.parametrize("manner", ["/cut", "/cut-unannounced", "/altered", "/missing"])
def test_a_download_that_is_not_whole_leaves_no_file(tmp_path: Path, server: Server, manner: str) -> None:
    with pytest.raises(DataUnavailable) as raised:
        locate(source(address(server, manner)), tmp_path)
    assert files(tmp_path) == set()
    assert manner in str(raised.value)
    # The next run, with the server well again, gets it.
    assert locate(source(address(server, "/file")), tmp_path).read_bytes() == CONTENT


def test_the_next_address_is_tried(tmp_path: Path, server: Server) -> None:
    urls = [address(server, path) for path in ("/missing", "/cut", "/altered", "/file")]
    assert locate(source(*urls), tmp_path).read_bytes() == CONTENT
    assert server.requests == ["/missing", "/cut", "/altered", "/file"]


def test_a_mirror_of_ones_own_is_asked_first(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_DATA_MIRROR", address(server, "/mirror/"))
    locate(source(address(server, "/file")), tmp_path)
    assert server.requests == ["/mirror/sub/numbers.bin"]


def test_bytes_are_kept_as_the_server_has_them(tmp_path: Path, server: Server) -> None:
    """A .gz file served as if compressing were the transfer's doing arrives as the .gz file."""

    class Fixed(Handler):
        def do_GET(self) -> None:
            body = gzip.compress(CONTENT, mtime=0)
            self.send_response(200)
            self.send_header("Content-Encoding", "x-gzip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server.RequestHandlerClass = Fixed
    checksum = "md5:" + hashlib.md5(gzip.compress(CONTENT, mtime=0)).hexdigest()
    path = locate(source(address(server, "/labelled"), checksum=checksum), tmp_path)
    assert gzip.decompress(path.read_bytes()) == CONTENT


@pytest.mark.parametrize("url", ["http://example.invalid/x", "ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_only_encrypted_addresses_are_fetched(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIPELINE_OFFLINE", raising=False)
    with pytest.raises(DataUnavailable, match="only https"):
        locate(source(url), tmp_path)
    assert files(tmp_path) == set()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a second loopback address")
def test_a_redirect_away_from_https_is_refused(tmp_path: Path, server: Server) -> None:
    with Server(("127.0.0.2", 0), Handler) as other:
        other.requests = []
        thread = threading.Thread(target=other.serve_forever, args=(0.02,))
        thread.start()

        class Redirecting(Handler):
            def do_GET(self) -> None:
                self.send_response(302)
                self.send_header("Location", f"http://127.0.0.2:{other.server_address[1]}/file")
                self.end_headers()

        server.RequestHandlerClass = Redirecting
        with pytest.raises(DataUnavailable, match="only https"):
            locate(source(address(server, "/file")), tmp_path)
        other.shutdown()
        thread.join()
    assert files(tmp_path) == set()


def test_a_download_too_large_is_broken_off(tmp_path: Path, server: Server) -> None:
    small = Source(
        "numbers", ("numbers.bin",), (address(server, "/file"),), max_bytes=10_000, checksums=("md5:0",)
    )
    with pytest.raises(DataUnavailable, match="more than 10000 bytes"):
        locate(small, tmp_path)
    assert files(tmp_path) == set()


def test_nobody_answering_is_told_quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIPELINE_OFFLINE", raising=False)
    monkeypatch.setattr(sources, "getproxies", dict)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        start = time.monotonic()
        with pytest.raises(DataUnavailable, match="no connection"):
            locate(source(f"http://127.0.0.1:{port}/file"), tmp_path)
    assert time.monotonic() - start < sources.CONNECT_SECONDS + 1


def test_the_error_names_three_ways_and_what_was_tried(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable) as raised:
        locate(source("https://example.invalid/numbers"), tmp_path / "data", [tmp_path / "elsewhere"])
    error = raised.value
    assert isinstance(error, UserError)
    assert error.exit_code == 2
    for words in (
        str(tmp_path / "data/sub/numbers.bin"),
        "PIPELINE_DATA_PATH",
        "https://example.invalid/numbers",
        str(tmp_path / "elsewhere"),
        "PIPELINE_OFFLINE",
    ):
        assert words in str(error)
    assert len(error.tried) == 3


def test_without_download_the_network_is_not_touched(tmp_path: Path, server: Server) -> None:
    with pytest.raises(DataUnavailable):
        locate(source(address(server, "/file")), tmp_path, download=False)
    assert server.requests == []


def test_a_damaged_copy_in_the_data_directory_is_moved_aside_and_fetched_again(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    own = tmp_path / "sub/numbers.bin"
    own.parent.mkdir()
    own.write_bytes(CONTENT[:-9])
    assert locate(source(address(server, "/file")), tmp_path) == own
    assert own.read_bytes() == CONTENT
    assert (tmp_path / "sub/numbers.bin.damaged").read_bytes() == CONTENT[:-9]
    assert "numbers.bin is damaged" in caplog.text


def test_a_damaged_copy_on_the_search_path_is_skipped_and_left_as_it_is(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "numbers.bin").write_bytes(b"damaged")
    (shared / "numbers.bin").chmod(0o444)
    path = locate(source(address(server, "/file")), tmp_path / "data", [shared])
    assert path == tmp_path / "data/sub/numbers.bin"
    assert files(shared) == {"numbers.bin"}
    assert (shared / "numbers.bin").read_bytes() == b"damaged"
    assert "skipped: damaged" in caplog.text


def test_content_counts_where_compression_differs(tmp_path: Path) -> None:
    wanted = Source("numbers", ("numbers.gz",), content="md5:" + hashlib.md5(CONTENT).hexdigest())
    path = tmp_path / "numbers.gz"
    for packed in (gzip.compress(CONTENT, 1), gzip.compress(CONTENT, 9), CONTENT):
        path.write_bytes(packed)
        assert locate(wanted, tmp_path) == path
    path.write_bytes(gzip.compress(CONTENT)[:-4])
    with pytest.raises(Damaged, match="not a whole compressed file"):
        verify(wanted, path)
    path.write_bytes(gzip.compress(CONTENT[1:]))
    with pytest.raises(Damaged, match="content is not the published one"):
        verify(wanted, path)


def test_a_slow_check_is_done_once_for_each_content(tmp_path: Path) -> None:
    calls: list[bytes] = []

    def check(path: Path) -> None:
        calls.append(path.read_bytes())
        if b"bad" in calls[-1]:
            raise Damaged(path, "it says so")

    wanted = Source("numbers", ("numbers.bin",), check=check)
    path = tmp_path / "numbers.bin"
    path.write_bytes(b"good")
    for _ in range(3):
        assert locate(wanted, tmp_path) == path
    assert calls == [b"good"]
    path.write_bytes(b"bad")
    with pytest.raises(DataUnavailable, match="it says so"):
        locate(wanted, tmp_path)
    assert calls[1:] == [b"bad", b"bad"]


LOCATE = """
import sys
from pathlib import Path
from pipeline.data.sources.finding import Source, locate
url, checksum, directory = sys.argv[1:]
source = Source("numbers", ("sub/numbers.bin",), (url,), (checksum,))
print(len(locate(source, Path(directory)).read_bytes()))
"""


def start(server: Server, path: str, directory: Path) -> subprocess.Popen[str]:
    wanted = source(address(server, path))
    command = [sys.executable, "-c", LOCATE, wanted.urls[0], wanted.checksums[0], str(directory)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_at_once_download_once(tmp_path: Path, server: Server) -> None:
    processes = [start(server, "/slow", tmp_path) for _ in range(3)]
    assert [process.communicate(timeout=60)[0].strip() for process in processes] == [str(len(CONTENT))] * 3
    assert server.requests == ["/slow"]


def test_a_process_killed_while_downloading_leaves_nothing_in_the_way(tmp_path: Path, server: Server) -> None:
    class Stalling(Handler):
        def do_GET(self) -> None:
            self.server.requests.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:600_000])
            self.wfile.flush()
            time.sleep(20)

    server.RequestHandlerClass = Stalling
    process = start(server, "/file", tmp_path)
    deadline = time.monotonic() + 30
    while not server.requests and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.kill()
    process.communicate()
    assert not (tmp_path / "sub/numbers.bin").exists()
    server.RequestHandlerClass = Handler
    assert locate(source(address(server, "/file")), tmp_path).read_bytes() == CONTENT
    assert files(tmp_path) == {"sub/numbers.bin"}


def test_a_read_only_data_directory_still_finds_what_is_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "numbers.bin").write_bytes(CONTENT)
    blocked = tmp_path / "file"
    blocked.touch()
    # A file where the directory should be: it can neither be read from nor written to, also by root.
    wanted = Source("numbers", ("numbers.bin",), check=lambda path: None)
    assert locate(wanted, blocked, [shared]) == shared / "numbers.bin"
    monkeypatch.delenv("PIPELINE_OFFLINE", raising=False)
    with pytest.raises(DataUnavailable, match="cannot be used"):
        locate(wanted, blocked)


def small_imdb(path: Path, reviews: int) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for folder in ("train/pos", "train/neg", "test/pos", "test/neg"):
            for number in range(reviews):
                archive.addfile(tarfile.TarInfo(f"aclImdb/{folder}/{number}_7.txt"))
    return path


def test_structure_decides_where_no_checksum_vouches(tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="3 reviews in aclImdb/train/pos, not 12500"):
        verify(catalogue.IMDB, small_imdb(tmp_path / "aclImdb_v1.tar.gz", 3))
    with tarfile.open(tmp_path / "reuters.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("reut2-000.sgm"))
    with pytest.raises(Damaged, match="0 records in 1 files"):
        verify(catalogue.REUTERS, tmp_path / "reuters.tar")
    (tmp_path / "kafka.txt").write_text(
        "One morning, when Gregor Samsa woke from troubled dreams, he", "utf-8"
    )
    with pytest.raises(Damaged, match="from its first sentence to its last"):
        verify(catalogue.METAMORPHOSIS, tmp_path / "kafka.txt")
    (tmp_path / "kafka.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Damaged, match="not UTF-8"):
        verify(catalogue.METAMORPHOSIS, tmp_path / "kafka.txt")
    (tmp_path / "housing.data").write_text("0.00632 18.00\n")
    with pytest.raises(Damaged, match="not the published one"):
        verify(catalogue.BOSTON_HOUSING, tmp_path / "housing.data")


PUBLISHED = [
    *catalogue.MNIST.values(),
    catalogue.IMDB,
    catalogue.REUTERS,
    catalogue.BOSTON_HOUSING,
    catalogue.METAMORPHOSIS,
]


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda s: s.filenames[0])
def test_published_addresses_are_encrypted(published: Source) -> None:
    assert published.urls
    assert all(url.startswith("https://") for url in published.urls)


@pytest.mark.real_data
@pytest.mark.parametrize("published", PUBLISHED, ids=lambda s: s.filenames[0])
def test_published_data_is_recognised(published: Source, tmp_path: Path) -> None:
    path = locate(published, tmp_path, search_path())
    assert path == search_path()[0] / published.filenames[0]


@pytest.mark.real_data
@pytest.mark.parametrize("published", PUBLISHED, ids=lambda s: s.filenames[0])
def test_a_truncated_copy_is_recognised(published: Source, tmp_path: Path, long_form: bool) -> None:
    if published is catalogue.IMDB and not long_form:
        pytest.skip("unpacks 80 MB twice: --long")
    whole = locate(published, tmp_path / "data", search_path()).read_bytes()
    short = tmp_path / "short"
    # The end of the text file is the publisher's licence: cut within the story.
    short.write_bytes(whole[:100_000] if published is catalogue.METAMORPHOSIS else whole[:-20])
    with pytest.raises(Damaged):
        verify(published, short)
