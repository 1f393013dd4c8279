"""How a table's file is written."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}


@dataclass(frozen=True)
class TableFormat:
    """How a file is to be read.

    Args:
        format: ``csv``, ``tsv``, ``parquet``, ``jsonl``, or ``auto``: by the file's extension.
        delimiter: Character between the values of a CSV. None is a comma (a tabulator for TSV).
        encoding: Encoding of a CSV or TSV.
        decimal: Decimal mark of a CSV's numbers.
    """

    format: str = "auto"
    delimiter: str | None = None
    encoding: str = "utf-8"
    decimal: str = "."


def file_format(path: Path, how: TableFormat) -> str:
    """The format of a file: as asked for, or by its extension."""
    if how.format != "auto":
        if how.format not in set(FORMATS.values()):
            raise UserError(
                f"data.format={how.format}; expected auto or one of {sorted(set(FORMATS.values()))}"
            )
        return how.format
    if path.suffix.lower() not in FORMATS:
        raise UserError(
            f"{path}: the extension {path.suffix!r} is none of {sorted(FORMATS)}; "
            "say what it is with data.format=csv, tsv, parquet or jsonl (unpack compressed files first)"
        )
    return FORMATS[path.suffix.lower()]


def text_encoding(encoding: str) -> str:
    """The encoding to open a file with: a mark at the beginning of UTF-8 is no part of the text."""
    return "utf-8-sig" if encoding.lower().replace("-", "") == "utf8" else encoding


def refuse_other_files(path: Path, how: TableFormat) -> None:
    """Refuse files that people take for a CSV, recognised by their first bytes."""
    try:
        codecs.lookup(how.encoding)
    except LookupError:
        raise UserError(
            f"data.encoding={how.encoding!r} is no encoding; expected utf-8, latin-1, cp1252 …"
        ) from None
    with path.open("rb") as file:
        head = file.read(4)
    if head[:2] == b"PK":
        raise UserError(f"{path} is a zip archive or a spreadsheet; save the sheet as CSV, or unpack it")
    if head[:2] == b"\x1f\x8b" or head[:3] in (b"BZh", b"\xfd7z") or head == b"\x28\xb5\x2f\xfd":
        raise UserError(f"{path} is compressed; unpack it first")
    if head == b"PAR1":
        raise UserError(f"{path} is a Parquet file; set data.format=parquet")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") and not how.encoding.lower().startswith(("utf-16", "utf16")):
        raise UserError(f"{path} is UTF-16 text; set data.encoding=utf-16")


def wrong_encoding(path: Path, how: TableFormat, where: str) -> str:
    return (
        f"{path}: {where} is not {how.encoding} text; set data.encoding to what it was written in "
        "(often latin-1 or cp1252)"
    )


def in_short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 200 else text[:197] + "…"
