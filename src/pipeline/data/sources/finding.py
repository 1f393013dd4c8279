"""Where data comes from: the data directory, the search path, the published address; each file verified.

    path = locate(catalogue.IMDB, data_dir=Path("data"), search_path=search_path())

Which files are published, and what tells a whole one from a damaged one, stands in ``catalogue.py``.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from pipeline.data.sources.archives import Damaged, read_gzip
from pipeline.errors import UserError
from pipeline.files import sync_and_rename

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "::1", "localhost")
CONNECT_SECONDS = 6.0
READ_SECONDS = 30.0
LOCK_SECONDS = 1800.0


@dataclass(frozen=True)
class Source:
    """One file that a data set needs.

    Args:
        name: What the file is, for messages.
        filenames: Relative names that it is looked for under, with `/`; a download lands under the first.
        urls: Published addresses (https), tried in order.
        checksums: `algorithm:hex` of whole files; a file with one of them is accepted at once.
        content: `algorithm:hex` of the uncompressed content, for files that mirrors compress differently.
        check: Function that looks into a file that no checksum vouches for and raises `Damaged` when it is not the data
            set; None means that only the checksums count.
        max_bytes: Largest size of a download, which is broken off beyond it.
    """

    name: str
    filenames: tuple[str, ...]
    urls: tuple[str, ...] = ()
    checksums: tuple[str, ...] = ()
    content: str | None = None
    check: Callable[[Path], None] | None = None
    max_bytes: int = 256 * 1024**2


class DataUnavailable(UserError):
    """A file is nowhere to be had; the message says what was tried and the three ways to provide it.

    Args:
        source: What was looked for.
        data_dir: The directory it may be put in.
        tried: One line for each place that did not have it.
    """

    def __init__(self, source: Source, data_dir: Path, tried: Sequence[str]) -> None:
        self.source = source
        self.tried = tuple(tried)
        address = source.urls[0] if source.urls else "its published address"
        filename = source.filenames[0]
        super().__init__(
            f"{source.name} could not be found.\n"
            + "".join(f"  tried {line}\n" for line in tried)
            + "Three ways to provide it:\n"
            f"  1. put the file at {data_dir / filename} (or set paths.data_dir to a directory that has it)\n"
            f"  2. set PIPELINE_DATA_PATH to a directory (or several, separated by "
            f"{os.pathsep!r}) with {filename} in it\n"
            f"  3. run once with a network: it is fetched from {address}"
        )


def search_path() -> list[Path]:
    """The directories of PIPELINE_DATA_PATH, absolute; read from, never written to."""
    return [
        Path(part).expanduser().absolute()
        for part in os.environ.get("PIPELINE_DATA_PATH", "").split(os.pathsep)
        if part
    ]


def locate(source: Source, data_dir: Path, search_path: Sequence[Path] = (), download: bool = True) -> Path:
    """Find a file in the data directory, on the search path or at its published address, and verify it.

    Safe to call from several processes at once: one downloads, the others wait for it.

    Args:
        source: The file.
        data_dir: Directory that a download lands in; a damaged copy here is moved aside (`.damaged`) and fetched again.
        search_path: Further directories, never written to; a damaged copy there is skipped with a warning.
        download: Whether to download; False looks at this machine alone (`setup` may not touch the network).

    Raises:
        DataUnavailable: None of the places has it.
    """
    tried: list[str] = []
    found = _find_own(source, data_dir, tried)
    for directory in () if found else search_path:
        found = found or _find_shared(source, directory, data_dir, tried)
    if found:
        return found
    if not download:
        raise DataUnavailable(source, data_dir, tried)
    return _download_once(source, data_dir, tried)


def digest(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    return _hash_file(path, "sha256")


def verify(source: Source, path: Path, records: Path | None = None) -> None:
    """Raise `Damaged` unless a file is what the source says.

    Args:
        source: What the file should be.
        path: The file.
        records: Directory that remembers, by content, which files passed the slow checks.
    """
    hashes = {name: _hash_file(path, name) for name in {"sha256", *(_algorithm(c) for c in source.checksums)}}
    if any(hashes[_algorithm(checksum)] == _value(checksum) for checksum in source.checksums):
        return
    if not source.content and not source.check:
        raise Damaged(path, "its checksum is not the published one")
    seen = hashlib.sha256(f"{source.name}|{source.content}|{hashes['sha256']}".encode()).hexdigest()
    if records and (records / seen).exists():
        return
    if source.content:
        content = hashlib.new(
            _algorithm(source.content), read_gzip(path, source.max_bytes), usedforsecurity=False
        )
        if content.hexdigest() != _value(source.content):
            raise Damaged(path, "the checksum of its content is not the published one")
    if source.check:
        source.check(path)
    if records:
        _remember(records, seen)


def _find_own(source: Source, data_dir: Path, tried: list[str]) -> Path | None:
    """The copy in the data directory; a damaged one is moved aside, so that it is fetched again."""
    for path in _present(source, data_dir):
        try:
            verify(source, path, data_dir / ".verified")
            return path
        except Damaged as damaged:
            tried.append(f"{path}: damaged ({damaged.reason})")
        except OSError as error:
            tried.append(f"{path}: {error.strerror or error}")
    if tried:
        return _find_or_move_aside(source, data_dir, tried)
    tried.append(f"{data_dir}: no {source.filenames[0]}")
    return None


def _find_or_move_aside(source: Source, data_dir: Path, tried: list[str]) -> Path | None:
    """Look again under the lock: another process may have put a whole copy where the damaged one was."""
    try:
        with _lock(source, data_dir):
            for path in _present(source, data_dir):
                try:
                    verify(source, path, data_dir / ".verified")
                    return path
                except Damaged as damaged:
                    aside = path.with_name(f"{path.name}.damaged")
                    path.replace(aside)
                    log.warning("%s is damaged (%s): moved to %s", path, damaged.reason, aside.name)
    except OSError as error:
        log.warning("%s; it cannot be moved aside: %s", tried[-1], error)
    return None


def _find_shared(source: Source, directory: Path, data_dir: Path, tried: list[str]) -> Path | None:
    """The copy in a directory of the search path, which is left as it is whatever is found."""
    paths = _present(source, directory)
    if not paths:
        tried.append(f"{directory} (PIPELINE_DATA_PATH): no {source.filenames[0]}")
    for path in paths:
        try:
            verify(source, path, data_dir / ".verified")
            return path
        except Damaged as damaged:
            log.warning("%s is skipped: damaged (%s)", path, damaged.reason)
            tried.append(f"{path} (PIPELINE_DATA_PATH): {damaged.reason}")
        except OSError as error:
            tried.append(f"{path} (PIPELINE_DATA_PATH): {error.strerror or error}")
    return None


def _download_once(source: Source, data_dir: Path, tried: list[str]) -> Path:
    """Download under a lock; who waited for it finds the file that the other one fetched."""
    if os.environ.get("PIPELINE_OFFLINE"):
        raise DataUnavailable(source, data_dir, [*tried, "the network: switched off by PIPELINE_OFFLINE"])
    try:
        with _lock(source, data_dir) as partial:
            for path in _present(source, data_dir):
                with suppress(Damaged):
                    verify(source, path, data_dir / ".verified")
                    return path
            return _download(source, data_dir, partial, tried)
    except OSError as error:
        tried.append(f"{data_dir}: cannot be used ({error.strerror or error})")
    raise DataUnavailable(source, data_dir, tried)


@contextmanager
def _lock(source: Source, data_dir: Path) -> Iterator[Path]:
    """Hold the lock of one file of a data directory; gives the place for a download that is not finished."""
    from filelock import FileLock

    downloads = data_dir / ".downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(source.filenames[0].encode()).hexdigest()[:12]
    with FileLock(downloads / f"{key}.lock", timeout=LOCK_SECONDS):
        yield downloads / key


def _download(source: Source, data_dir: Path, partial: Path, tried: list[str]) -> Path:
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    target = data_dir / source.filenames[0]
    for url in (*_mirror(source), *source.urls):
        # Whatever an interrupted download left behind; nobody else is in here while the lock is held.
        shutil.rmtree(partial, ignore_errors=True)
        fetch = _Download(source.max_bytes)
        try:
            log.info("downloading %s from %s", source.name, url)
            file = Path(
                pooch.retrieve(url, known_hash=None, fname=target.name, path=partial, downloader=fetch)
            )
            verify(source, file, data_dir / ".verified")
            target.parent.mkdir(parents=True, exist_ok=True)
            sync_and_rename(file, target)
            return target
        except Damaged as damaged:
            tried.append(f"{url}: what came is damaged ({damaged.reason})")
        except _failures() as error:
            tried.append(f"{url}: {_in_short(error)}")
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        log.warning("%s could not be fetched from %s", source.name, tried[-1])
    raise DataUnavailable(source, data_dir, tried)


@dataclass
class _Download:
    """Pooch's downloader: encrypted all the way, bounded in time and size, bytes as the server has them."""

    max_bytes: int
    headers: dict[str, str] = field(default_factory=lambda: {"Accept-Encoding": "identity"})

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        import requests

        _require_https(url)
        _require_reachable(url)
        with requests.get(
            url, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS), headers=self.headers
        ) as response:
            for step in (*response.history, response):
                _require_https(step.url)
            response.raise_for_status()
            with Path(output_file).open("wb") as file:
                # Undecoded: some servers label a .gz file as a compressed transfer of something else.
                for chunk in response.raw.stream(1 << 20, decode_content=False):
                    file.write(chunk)
                    if file.tell() > self.max_bytes:
                        raise _Refused(f"more than {self.max_bytes} bytes")


class _Refused(Exception):
    """A download that is not begun or broken off on purpose."""


def _failures() -> tuple[type[Exception], ...]:
    import requests
    import urllib3

    return (requests.RequestException, urllib3.exceptions.HTTPError, _Refused)


def _require_https(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise _Refused("only https addresses are fetched")


def _require_reachable(url: str) -> None:
    """Give up on a network that swallows packets after one time limit, not after one for each address."""
    if getproxies():
        return
    parts = urlsplit(url)
    deadline = time.monotonic() + CONNECT_SECONDS
    error: OSError = TimeoutError("no answer")
    try:
        addresses = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    except OSError as unknown:
        raise _Refused(f"no such host or no network ({unknown.strerror})") from unknown
    for family, kind, protocol, _, address in addresses:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.settimeout(left)
                probe.connect(address)
            return
        except OSError as failed:
            error = failed
    raise _Refused(f"no connection ({error.strerror or error})") from error


def _mirror(source: Source) -> tuple[str, ...]:
    """A mirror of one's own (an institute's, say), asked before the published addresses."""
    base = os.environ.get("PIPELINE_DATA_MIRROR", "").rstrip("/")
    return (f"{base}/{source.filenames[0]}",) if base else ()


def _in_short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _present(source: Source, directory: Path) -> list[Path]:
    return [path for name in source.filenames if (path := directory / name).is_file()]


def _remember(records: Path, seen: str) -> None:
    try:
        records.mkdir(parents=True, exist_ok=True)
        (records / seen).touch()
    except OSError:
        log.debug("%s is read-only: slow checks are repeated at every start", records)


def _hash_file(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def _algorithm(checksum: str) -> str:
    return checksum.partition(":")[0]


def _value(checksum: str) -> str:
    return checksum.partition(":")[2]
