"""Reading a text file, to train on it or to predict from it."""

from __future__ import annotations

from pathlib import Path

from pipeline.data.core.memory import check_memory
from pipeline.data.tables.formats import text_encoding
from pipeline.errors import UserError


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """The text of a file, with or without a byte order mark.

    Args:
        path: The file.
        encoding: Its encoding; UTF-16 and UTF-32 are found out by their mark.

    Raises:
        UserError: There is no such file, it cannot be read, or it is of another encoding.
    """
    content = content_of(path)
    encoding = text_encoding(encoding, content[:4])
    try:
        return content.decode(encoding)
    except LookupError:
        raise UserError(
            f"data.encoding={encoding!r} is no encoding; expected utf-8, latin-1, cp1252 …"
        ) from None
    except UnicodeDecodeError as error:
        named = {"utf-8-sig": "UTF-8", "utf-16": "UTF-8, nor the UTF-16 of its first bytes,"}
        name = named.get(encoding, encoding)
        raise UserError(
            f"{path} is not {name} text (byte {error.start} is 0x{content[error.start]:02x}); "
            "set data.encoding to what it was written in (often latin-1 or cp1252), "
            "or convert it, for example with: iconv -f latin1 -t utf-8"
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
