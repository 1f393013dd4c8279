"""Reading a text file, to train on it or to predict from it."""

from __future__ import annotations

from pathlib import Path

from pipeline.data.core.memory import check_memory
from pipeline.errors import UserError


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Raises:
        UserError: There is no such file, it cannot be read, or it is not UTF-8.
    """
    content = content_of(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start} is 0x{content[error.start]:02x}); "
            f"convert it, for example with: iconv -f latin1 -t utf-8"
        ) from None


def content_of(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        UserError: The file cannot be read, or is too large for memory.
    """
    try:
        check_memory(4 * path.stat().st_size, str(path), "split it, or train on a part of it")
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror or error}; set data.path to an existing file"
        ) from None
