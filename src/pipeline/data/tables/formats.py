"""How a table's file is written."""

from __future__ import annotations

import codecs
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.data.tables.packed import opened, suffix_of
from pipeline.errors import UserError

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
    ".ods": "ods",
}
KINDS = tuple(dict.fromkeys(FORMATS.values()))


@dataclass(frozen=True)
class TableFormat:
    """How a file is to be read.

    Args:
        format: ``csv``, ``tsv``, ``parquet``, ``jsonl``, ``xlsx``, ``ods``, or ``auto``: by the file's extension.
        delimiter: Character between the values of a CSV. None is a comma (a tabulator for TSV), or what stands in the
            first line where there is no comma in it.
        encoding: Encoding of a CSV or TSV.
        decimal: Decimal mark of a CSV's numbers.
        header: Whether the first line names the columns; None finds out.
        sheet: Name of the sheet of a workbook, or its number from 0; None is the first.
    """

    format: str = "auto"
    delimiter: str | None = None
    encoding: str = "utf-8"
    decimal: str = "."
    header: bool | None = None
    sheet: str | int | None = None

    def differences(self) -> dict[str, Any]:
        """What is not as it is by default, by name."""
        default = asdict(TableFormat())
        return {key: value for key, value in asdict(self).items() if value != default[key]}


def file_format(path: Path, how: TableFormat) -> str:
    """The format of a file: as asked for, or by its extension (of what is packed in it, where it is packed)."""
    if how.format != "auto":
        if how.format not in KINDS:
            raise UserError(f"data.format={how.format}; expected auto or one of {sorted(KINDS)}")
        return how.format
    suffix = suffix_of(path)
    if suffix not in FORMATS:
        raise UserError(
            f"{path}: the extension {suffix!r} is none of {sorted(FORMATS)}; "
            f"say what it is with data.format={', '.join(KINDS[:-1])} or {KINDS[-1]}"
        )
    return FORMATS[suffix]


def text_encoding(encoding: str, head: bytes = b"") -> str:
    """The encoding to open a file with: a mark at its beginning says what it is, and is no part of the text.

    Args:
        encoding: The encoding that was named, utf-8 by default.
        head: The file's first bytes.
    """
    plain = encoding.lower().replace("-", "").replace("_", "")
    if plain != "utf8":
        return encoding
    if head[:4] in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
        return "utf-32"
    return "utf-16" if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def encoding_of(path: Path, how: TableFormat) -> str:
    """The encoding to open a text file with, see :func:`text_encoding`.

    Raises:
        UserError: There is no such encoding, or the file is of another kind, recognised by its first bytes.
    """
    try:
        codecs.lookup(how.encoding)
    except LookupError:
        raise UserError(
            f"data.encoding={how.encoding!r} is no encoding; expected utf-8, latin-1, cp1252 …"
        ) from None
    with opened(path) as file:
        head = file.read(4)
    if head == b"\x28\xb5\x2f\xfd":
        raise UserError(f"{path} is compressed (zstd); unpack it first")
    if head == b"PAR1":
        raise UserError(f"{path} is a Parquet file; set data.format=parquet")
    if head == b"\xd0\xcf\x11\xe0":
        raise UserError(f"{path} is a spreadsheet of an old Excel; save the sheet as .xlsx or CSV")
    return text_encoding(how.encoding, head)


def is_utf8(path: Path) -> bool:
    """Whether a text says by its letters beyond ASCII that it is UTF-8: by chance those of another encoding never do.

    Args:
        path: The file, of which the first megabyte is looked at.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    with opened(path) as file:
        try:
            return not decoder.decode(file.read(1 << 20)).isascii()
        except UnicodeDecodeError:
            return False


def wrong_encoding(path: Path | str, encoding: str, where: str) -> str:
    """The message for a text that is not of its encoding."""
    return (
        f"{path}: {where} is not {encoding} text; set data.encoding to what it was written in "
        "(often latin-1 or cp1252; cp1251 of Russian, cp932 of Japanese, gb18030 of Chinese)"
    )


def in_short(error: Exception) -> str:
    """The reason of an error on one line of at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 200 else text[:197] + "…"
