"""Compressed files, read as what is in them: .gz, .bz2, .xz, and .zip with one member."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO, cast

from pipeline.data.core.memory import check_memory
from pipeline.errors import UserError

PACKED = (".gz", ".bz2", ".xz", ".zip")
_MARKS = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"), (b"PK\x03\x04", "zip"))
_DAMAGE = (
    OSError,
    EOFError,
    lzma.LZMAError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
)
CHUNK = 16 << 20


def packing(path: Path) -> str | None:
    """How a file is compressed, by its first bytes: ``gzip``, ``bzip2``, ``xz``, ``zip``, or None."""
    with path.open("rb") as file:
        head = file.read(6)
    return next((name for mark, name in _MARKS if head.startswith(mark)), None)


def suffix_of(path: Path) -> str:
    """The extension, in lower case, of a file or of what is packed in it (``.csv`` of ``table.csv.gz``)."""
    own = path.suffix.lower()
    if own not in PACKED:
        return own
    inner = Path(path.stem).suffix.lower()
    if own == ".zip" and path.is_file():
        try:
            with zipfile.ZipFile(path) as archive:
                return Path(_member(archive, path)).suffix.lower() or inner
        except _DAMAGE:
            return inner
    return inner


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked where it is packed.

    Raises:
        UserError: It is damaged, or an archive of several files.
    """
    how = packing(path)
    if how is None:
        with path.open("rb") as file:
            yield file
        return
    try:
        if how == "zip":
            with zipfile.ZipFile(path) as archive, archive.open(_member(archive, path)) as member:
                yield member
        else:
            openers: dict[str, Callable[[Path], Any]] = {
                "gzip": gzip.GzipFile,
                "bzip2": bz2.BZ2File,
                "xz": lzma.LZMAFile,
            }
            with openers[how](path) as file:
                yield file
    except UserError:
        raise
    except _DAMAGE as error:
        reason = str(error) or type(error).__name__
        what = "a zip archive or a spreadsheet" if how == "zip" else "compressed"
        raise UserError(f"{path} is {what} that cannot be unpacked: {reason}") from None


@contextmanager
def opened_text(path: Path, encoding: str, newline: str = "") -> Iterator[TextIO]:
    """The text of a file, unpacked where it is packed; lines end as in the file."""
    with opened(path) as file:
        text = io.TextIOWrapper(cast(io.BufferedReader, file), encoding=encoding, newline=newline)
        try:
            yield text
        finally:
            text.detach()


def unpacked(path: Path, advice: str) -> bytes:
    """What is in a packed file.

    Args:
        path: The file.
        advice: What to do where it is too large for memory.

    Raises:
        UserError: It is damaged, an archive of several files, or too large.
    """
    parts: list[bytes] = []
    with opened(path) as file:
        while part := file.read(CHUNK):
            # A small file may hold a very large one.
            check_memory(2 * CHUNK + sum(map(len, parts)), str(path), advice)
            parts.append(part)
    return b"".join(parts)


def _member(archive: zipfile.ZipFile, path: Path) -> str:
    members = [
        name
        for name in archive.namelist()
        if not name.endswith("/") and not name.startswith("__MACOSX/") and not Path(name).name.startswith(".")
    ]
    if len(members) != 1:
        raise UserError(
            f"{path} is a zip archive or a spreadsheet of {len(members)} files; expected an archive of one table: "
            "unpack it, or save the sheet as CSV"
        )
    return members[0]
