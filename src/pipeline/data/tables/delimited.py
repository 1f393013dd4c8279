"""Reading comma-separated values, and what is separated otherwise: whole files and streams."""

from __future__ import annotations

import csv as plain_csv
import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pipeline.data.core.memory import check_memory
from pipeline.data.tables.formats import (
    TableFormat,
    in_short,
    refuse_other_files,
    text_encoding,
    wrong_encoding,
)
from pipeline.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 1 << 20
"""Length of a row beyond which it is refused: that is far more often a quotation mark that nothing closes than data."""
STREAM_BYTES = 32 << 20
"""What is read at once where a file is not read as a whole."""
DELIMITERS = ",;\t|"
UNCLOSED = "a quotation mark is never closed"


def csv_batches(
    text: TextIO,
    place: str,
    how: TableFormat,
    kind: str = "csv",
    *,
    as_text: bool = False,
    missing: Sequence[str] | None = None,
    header: bool | None = True,
) -> Iterator[pa.Table]:
    """The rows of a CSV in order, some megabytes at a time.

    Args:
        text: The file's text from its beginning; not closed here.
        place: What the file is called in messages.
        how: How it is written. The delimiter ``auto`` is what stands most often in the first line.
        kind: ``csv`` or ``tsv``, for the delimiter where ``how`` names none.
        as_text: Whether every column stays text. Otherwise what a column is follows from the first megabytes.
        missing: What stands for a missing value, None for all that :func:`read_table` takes for one.
        header: Whether the first line names the columns; None takes it for names unless it is of numbers alone.

    Raises:
        UserError: The text is no table, or a quotation mark is never closed.
    """
    import pyarrow as pa
    from pyarrow import csv

    first = text.readline()
    if not first.strip():
        return
    delimiter = max(DELIMITERS, key=first.count) if how.delimiter == "auto" else _delimiter(how, kind)
    names = next(plain_csv.reader([first], delimiter=delimiter), [])
    if header is None:
        header = not _all_numbers(names)
    if not header:
        names = [f"f{number}" for number in range(len(names))]
    stream = _Utf8(first, text)
    last: Any = None
    try:
        with csv.open_csv(
            pa.PythonFile(stream, mode="r"),
            read_options=csv.ReadOptions(block_size=STREAM_BYTES, autogenerate_column_names=not header),
            parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=_conversion(how, dict.fromkeys(names, pa.string()) if as_text else None, missing),
        ) as reader:
            for batch in reader:
                if batch.num_rows:
                    last = batch
                    yield pa.Table.from_batches([batch])
    except pa.ArrowInvalid as error:
        if "Expected" in str(error) and text.seekable():
            text.seek(0)
            raise UserError(_ragged(text, place, delimiter, error)) from None
        raise UserError(f"{place} cannot be read as {kind}: {in_short(error)}") from None
    if stream.quotes % 2 and last is not None and _runs_on(last):
        raise UserError(f"{place}: {UNCLOSED}")


class _Utf8:
    """A text stream, of which the first line has been read already, as bytes for Arrow."""

    closed = False

    def __init__(self, first: str, text: TextIO) -> None:
        self._bytes, self._text = first.encode(), text
        self.quotes = first.count('"')

    def read(self, size: int) -> bytes:
        """So many bytes; fewer at the end alone, or Arrow would take them for all that there is to judge types by."""
        parts = [self._bytes]
        count = len(self._bytes)
        # A character takes up to four bytes.
        while count < size and (some := self._text.read(max(1, (size - count) // 4))):
            self.quotes += some.count('"')
            parts.append(some.encode())
            count += len(parts[-1])
        found = b"".join(parts)
        self._bytes = found[size:]
        return found[:size]

    def close(self) -> None:
        """Leave the text open: it belongs to whoever opened it."""


def _all_numbers(cells: Sequence[str]) -> bool:
    try:
        return bool([float(cell) for cell in cells])
    except ValueError:
        return False


def _delimiter(how: TableFormat, kind: str) -> str:
    delimiter = how.delimiter or ("\t" if kind == "tsv" else ",")
    if len(delimiter) != 1 or len(how.decimal) != 1:
        raise UserError(
            f"data.delimiter={delimiter!r}, data.decimal={how.decimal!r}; expected one character each"
        )
    return delimiter


def _conversion(how: TableFormat, types: dict[str, Any] | None, missing: Sequence[str] | None = None) -> Any:
    """How the values of a CSV are understood, wherever it is read."""
    from pyarrow import csv

    return csv.ConvertOptions(
        strings_can_be_null=True,
        auto_dict_encode=types is None,
        auto_dict_max_cardinality=1000,
        decimal_point=how.decimal,
        column_types=types,
        **({} if missing is None else {"null_values": list(missing)}),
    )


def _runs_on(rows: Any) -> bool:
    """Whether the last value has a line end in it: where there is an odd quotation mark, it has swallowed rows."""
    value = rows.column(rows.num_columns - 1)[rows.num_rows - 1].as_py()
    return isinstance(value, str) and "\n" in value


def read_csv(path: Path, how: TableFormat, kind: str) -> pa.Table:
    import pyarrow as pa

    delimiter = _delimiter(how, kind)
    refuse_other_files(path, how)
    check_table_memory(path.stat().st_size * 2, path)
    try:
        return _parse_csv(path, how, delimiter)
    except pa.ArrowInvalid as error:
        if "conversion error" in str(error):
            # The type was guessed from the first block, and a later one disagrees.
            return _parse_csv(
                path, how, delimiter, {name: pa.string() for name in _header(path, how, delimiter)}
            )
        if "straddling" in str(error):
            raise UserError(
                f"{path}: a row is longer than {BLOCK_BYTES >> 20} MB; most likely a quotation mark is never closed"
            ) from None
        if "Expected" in str(error):
            with path.open(encoding=text_encoding(how.encoding), newline="", errors="replace") as text:
                raise UserError(_ragged(text, str(path), delimiter, error)) from None
        raise


def _parse_csv(path: Path, how: TableFormat, delimiter: str, types: dict[str, Any] | None = None) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv

    quotes, in_values = _quotes(path)
    with pa.OSFile(str(path)) as file:
        table: pa.Table = csv.read_csv(
            file,
            read_options=csv.ReadOptions(block_size=BLOCK_BYTES, encoding=how.encoding),
            # Looking for quotation marks and line ends inside of them costs a fifth of the time.
            parse_options=csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=in_values, quote_char='"' if quotes else False
            ),
            convert_options=_conversion(how, types),
        )
    if quotes % 2 and table.num_rows and _runs_on(table):
        raise UserError(f"{path}: {UNCLOSED}")
    for name, column in zip(table.column_names, table.columns, strict=True):
        if _is_binary(column.type):
            raise UserError(wrong_encoding(path, how, f"the column {name!r}"))
    return table


def _quotes(path: Path) -> tuple[int, bool]:
    """How many quotation marks there are, and whether any are behind the first line, which names the columns."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(b'"') < 0:
            return 0, False
        line = content.find(b"\n")
        before = content.find(b"\r", 0, line)
        end = line if before < 0 else before
        count = sum(
            content[start : start + (1 << 24)].count(b'"') for start in range(0, len(content), 1 << 24)
        )
        # If this line end is inside of quotation marks, the closing one is behind it.
        return count, end < 0 or content.find(b'"', end) >= 0


def _is_binary(kind: pa.DataType) -> bool:
    import pyarrow as pa

    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_binary(inner) or pa.types.is_large_binary(inner))


def _header(path: Path, how: TableFormat, delimiter: str) -> list[str]:
    with path.open(encoding=text_encoding(how.encoding), newline="", errors="replace") as file:
        plain_csv.field_size_limit(BLOCK_BYTES)
        return next(plain_csv.reader(file, delimiter=delimiter), [])


def _ragged(text: TextIO, place: str, delimiter: str, error: Exception) -> str:
    """Name the line: read again in order, since Arrow's reader does not count lines."""
    try:
        plain_csv.field_size_limit(BLOCK_BYTES)
        reader = plain_csv.reader(text, delimiter=delimiter, strict=True)
        width = len(next(reader))
        for row in reader:
            if row and len(row) != width:
                return (
                    f"{place}, line {reader.line_num}: {len(row)} values, but the header names {width} columns; "
                    f"is {delimiter!r} what separates the values (data.delimiter)?"
                )
    except (plain_csv.Error, OSError, ValueError) as reason:
        if "unexpected end" in str(reason):
            return f"{place}: {UNCLOSED}"
    return f"{place}: {in_short(error)}"


def check_table_memory(needed: int, path: Path) -> None:
    check_memory(
        needed,
        str(path),
        "write it as memory-mapped arrays (python -m pipeline.data.tables.memmap --help) and train with data=memmap",
    )
