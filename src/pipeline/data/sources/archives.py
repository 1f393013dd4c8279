"""Reading archives from outside: nothing leaves the target, nothing but plain files, never without bound."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, cast

from pipeline.errors import UserError
from pipeline.files import written

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_BYTES = 2 * 1024**3
MAX_COUNT = 250_000

_LARGEST_SIMPLE = 1 << 24
_SIMPLE_HEADER = re.compile(
    # Name, mode, owner, group; size, time, checksum, kind; no link;
    # format, names of owner and group; no device; no prefix.
    rb"(?=([^\0]{0,100})).{100}(?:[0-7]{7}[\0 ]){3}([0-7]{11})[\0 ][0-7]{11}[\0 ]([0-7]{6})\0 ([05])\0{100}.{72}"
    rb"(?:0{7}[\0 ]|\0{8}){2}\0.{166}",
    re.DOTALL,
)
_PLAIN_NAME = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)*", re.ASCII)

# What decompressors and parsers raise on bytes that are not what they should be (zipfile: RuntimeError for encryption).
_BROKEN = (
    EOFError,
    OSError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    RuntimeError,
    ValueError,
)


class Damaged(UserError):
    """A file is not what it should be: truncated, altered, unsafe or of another kind.

    Args:
        path: The file.
        reason: What is wrong with it, in a few words.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} is damaged: {reason}. "
            "Delete it (it is then fetched again) or put a whole copy in its place."
        )
        self.path = path
        self.reason = reason


def read_members(
    path: Path,
    wanted: Callable[[str], bool] | None = None,
    max_bytes: int = MAX_BYTES,
    max_count: int = MAX_COUNT,
) -> Iterator[tuple[str, bytes]]:
    """Yield the plain files of a tar (plain, gzip, bzip2, xz) or zip archive, one after the other, in memory.

    Args:
        path: The archive.
        wanted: Function that says of a name (relative, with `/`) whether to read it; the other members are checked, but
            not yielded.
        max_bytes: Largest number of uncompressed bytes of the whole archive.
        max_count: Largest number of members.

    Yields:
        (name, content), in the archive's order.

    Raises:
        Damaged: The archive cannot be read to its end, or a member is absolute, leaves the target (`..`), is a link or
            a device, or a cap is exceeded; the members before it are then not to be trusted either.
    """
    try:
        reader = _read_zip if zipfile.is_zipfile(path) else _read_tar
        yield from reader(path, wanted or (lambda name: True), max_bytes, max_count)
    except Damaged:
        raise
    except FileNotFoundError:
        raise
    except _BROKEN as error:
        raise Damaged(path, f"not a whole archive ({error or type(error).__name__})") from error


def unpack(path: Path, directory: Path, max_bytes: int = MAX_BYTES, max_count: int = MAX_COUNT) -> list[Path]:
    """Unpack an archive's plain files into a directory that does not exist yet; all of it or nothing.

    Returns:
        The files written, in the archive's order.

    Raises:
        Damaged: As `read_members` raises it; the directory then does not exist.
        OSError: The directory exists and is not empty.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    names = []
    with written(directory) as partial:
        partial.mkdir()
        for name, content in read_members(path, max_bytes=max_bytes, max_count=max_count):
            file = partial / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            names.append(name)
    return [directory / name for name in names]


def _read_tar(
    path: Path, wanted: Callable[[str], bool], max_bytes: int, max_count: int
) -> Iterator[tuple[str, bytes]]:
    with _decompressed(path) as plain:
        capped = _Capped(plain, path, max_bytes)
        stream = io.BufferedReader(capped, tarfile.RECORDSIZE)
        count = 0
        while header := _simple_header(block := stream.read(tarfile.BLOCKSIZE)):
            member, size, is_directory = header
            count = _counted(path, count, max_count)
            name = _safe_name(path, member)
            if is_directory:
                continue
            blocks = size + -size % tarfile.BLOCKSIZE
            content = stream.read(blocks)
            if len(content) < blocks:
                raise tarfile.ReadError("unexpected end of data")
            if wanted(name):
                yield name, content[:size]
        # From the first header on that is not simple, tarfile goes on; it also names what is wrong with a first one.
        if not count or _is_header(block):
            rest = cast(BinaryIO, _Continued(block, stream))
            yield from _read_with_tarfile(rest, path, wanted, count, max_count)
        # The checksum of a gzip file stands at its end, behind the archive's own end mark.
        while capped.read(1 << 20):
            pass


def _read_with_tarfile(
    stream: BinaryIO, path: Path, wanted: Callable[[str], bool], count: int, max_count: int
) -> Iterator[tuple[str, bytes]]:
    # As a stream: each member once, in order, so that a cap on what is read is a cap on what is unpacked.
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            count = _counted(path, count, max_count)
            name = _safe_name(path, member.name)
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise Damaged(path, f"member {member.name!r} is not a plain file")
            if wanted(name):
                source = archive.extractfile(member)
                content = source.read() if source else b""
                if len(content) != member.size:
                    raise Damaged(path, f"member {member.name!r} is cut short")
                yield name, content


def _counted(path: Path, count: int, max_count: int) -> int:
    if count == max_count:
        raise Damaged(path, f"more than {max_count} members")
    return count + 1


def _simple_header(block: bytes) -> tuple[str, int, bool] | None:
    """Name, size and whether it is a directory; None unless this is the header of a file or directory and says it all.

    ``tarfile`` reads every kind of header, but takes longer for one than tokenising a small file does.
    """
    fields = _SIMPLE_HEADER.fullmatch(block)
    if fields is None:
        return None
    name, size, checksum, kind = fields.groups()
    is_directory = kind == tarfile.DIRTYPE
    # The checksum is the sum of the bytes, its own counted as blanks; the low half of Adler-32 is their sum and 1.
    total = (zlib.adler32(block) & 0xFFFF) - 1 - sum(block[148:156]) + 8 * ord(" ")
    if total != int(checksum, 8) or int(size, 8) > _LARGEST_SIMPLE:
        return None
    text = name.decode(tarfile.ENCODING, "surrogateescape")
    return text.rstrip("/") if is_directory else text, int(size, 8), is_directory


def _is_header(block: bytes) -> bool:
    """Whether ``tarfile`` takes it for one; what it does not take for one ends the archive."""
    try:
        tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _read_zip(
    path: Path, wanted: Callable[[str], bool], max_bytes: int, max_count: int
) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > max_count:
            raise Damaged(path, f"more than {max_count} members")
        left = max_bytes
        for member in members:
            name = _safe_name(path, member.filename)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if member.is_dir():
                continue
            if kind not in (0, stat.S_IFREG):
                raise Damaged(path, f"member {member.filename!r} is not a plain file")
            if member.file_size > left:
                raise Damaged(path, f"more than {max_bytes} bytes when unpacked")
            left -= member.file_size
            if wanted(name):
                with archive.open(member) as source:
                    content = source.read(member.file_size + 1)
                if len(content) != member.file_size:
                    raise Damaged(path, f"member {member.filename!r} is not of the size it states")
                yield name, content


def _safe_name(path: Path, name: str) -> str:
    """The member's name as a relative path with `/`; refuses what would leave the target on any system."""
    if _PLAIN_NAME.fullmatch(name):
        return name
    plain = PurePosixPath(name.replace("\\", "/"))
    if plain.is_absolute() or ".." in plain.parts or "\0" in name or (plain.parts and ":" in plain.parts[0]):
        raise Damaged(path, f"member {name!r} points outside the target")
    return str(plain)


def _decompressed(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"\x1f\x8b"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    if start.startswith(b"BZh"):
        return cast(BinaryIO, bz2.open(path, "rb"))
    if start.startswith(b"\xfd7zXZ\x00"):
        return cast(BinaryIO, lzma.open(path, "rb"))
    return path.open("rb")


class _Continued:
    """A stream of which one block was read already."""

    def __init__(self, block: bytes, rest: BinaryIO) -> None:
        self._block, self._rest = block, rest

    def read(self, size: int) -> bytes:
        block, self._block = self._block, b""
        return block + self._rest.read(size - len(block))


class _Capped(io.RawIOBase):
    """A stream that refuses to give more than so many bytes, headers included."""

    def __init__(self, source: BinaryIO, path: Path, max_bytes: int) -> None:
        self._source = source
        self._path = path
        self._max_bytes = max_bytes
        self._given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        content = self._source.read(len(view))
        self._given += len(content)
        if self._given > self._max_bytes:
            raise Damaged(self._path, f"more than {self._max_bytes} bytes when unpacked")
        view[: len(content)] = content
        return len(content)


def read_gzip(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a file, uncompressed when it is a gzip file (told by its first bytes, not by its name).

    Raises:
        Damaged: The file is truncated, fails its own checksum, or is larger than `max_bytes` when uncompressed.
    """
    try:
        with _decompressed(path) as plain:
            content = plain.read(max_bytes + 1)
    except FileNotFoundError:
        raise
    except _BROKEN as error:
        raise Damaged(path, f"not a whole compressed file ({error or type(error).__name__})") from error
    if len(content) > max_bytes:
        raise Damaged(path, f"more than {max_bytes} bytes when unpacked")
    return content
