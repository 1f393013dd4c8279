"""Reading comma-separated values, and what is separated otherwise: whole files and streams."""

from __future__ import annotations

import csv as plain_csv
import io
import mmap
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pipeline.data.core.memory import check_memory
from pipeline.data.tables.formats import TableFormat, encoding_of, in_short, wrong_encoding
from pipeline.data.tables.headers import clean_names, looks_like_data
from pipeline.data.tables.packed import opened, opened_text, packing, unpacked
from pipeline.data.tables.words import MISSING, MISSING_NUMBERS
from pipeline.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 1 << 20
"""Length of a row beyond which it is refused: that is far more often a quotation mark that nothing closes than data."""
STREAM_BYTES = 32 << 20
"""What is read at once where a file is not read as a whole."""
SAMPLE_BYTES = 1 << 16
"""What is looked at to find out how a file is written."""
DELIMITERS = ",;\t|"
UNCLOSED = "a quotation mark is never closed"
IN_PIECES = "write it as memory-mapped arrays (python -m pipeline.data.tables.memmap --help) and train with data=memmap"
GAPS = sorted(
    MISSING
    | {form for word in MISSING_NUMBERS for form in (word, word.upper(), word.capitalize(), word.title())}
)
"""Missing values in columns of numbers; in columns of words, what is missing is decided by the column."""


def csv_batches(
    text: TextIO,
    place: str,
    how: TableFormat,
    kind: str = "csv",
    *,
    as_text: bool = False,
    header: bool | None = True,
    wanted: Sequence[str] = (),
) -> Iterator[pa.Table]:
    """The rows of a CSV in order, some megabytes at a time.

    Args:
        text: The file's text from its beginning; not closed here.
        place: What the file is called in messages.
        how: How it is written. The delimiter ``auto`` is what stands most often in the first line.
        kind: ``csv`` or ``tsv``, for the delimiter where ``how`` names none.
        as_text: Whether every column stays text, with nothing missing but what is empty. Otherwise what a column is
            follows from the first megabytes.
        header: Whether the first line names the columns; None takes it for names unless it is of numbers alone.
        wanted: Names of columns that should be there: the delimiter is one that finds as many as any other does.

    Raises:
        UserError: The text is no table, or a quotation mark is never closed.
    """
    import pyarrow as pa
    from pyarrow import csv

    first = text.readline()
    if said := _said_delimiter(first):
        how, first = replace(how, delimiter=said), text.readline()
    if not first.strip():
        return
    # Where lines end in carriage returns alone, the whole text was read as its first line.
    line = _line_of(first)
    delimiter = max(DELIMITERS, key=line.count) if how.delimiter == "auto" else _delimiter(how, kind, line)
    delimiter = _finding(wanted, line, delimiter) if header else delimiter
    names = next(plain_csv.reader([line], delimiter=delimiter), [])
    if header is None:
        header = not _all_numbers(names)
    if not header:
        names = [f"f{number}" for number in range(len(names))]
    called = clean_names(names)
    stream = _Utf8(first, text)
    last: Any = None
    try:
        with csv.open_csv(
            pa.PythonFile(stream, mode="r"),
            read_options=csv.ReadOptions(block_size=STREAM_BYTES, autogenerate_column_names=not header),
            parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=_conversion(how, dict.fromkeys(names, pa.string()) if as_text else None),
        ) as reader:
            for batch in reader:
                if batch.num_rows:
                    last = batch
                    yield _emptied(pa.Table.from_batches([batch]).rename_columns(called), as_text)
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


def _said_delimiter(first: str) -> str:
    """What separates the values, where a first line says so to Excel (``sep=;``); such a line is no row."""
    found = re.fullmatch(r'\s*"?sep=(.)"?\s*', first.rstrip("\r\n").lstrip("\ufeff"), re.IGNORECASE)
    return found[1] if found else ""


def _line_of(text: str) -> str:
    """What stands before the first carriage return outside of quotation marks."""
    found = re.match(r'(?:[^\r"]|"[^"]*")*', text)
    return found[0] if found and found[0] else text


def _all_numbers(cells: Sequence[str]) -> bool:
    try:
        return bool([float(cell) for cell in cells])
    except ValueError:
        return False


def _finding(wanted: Sequence[str], first: str, delimiter: str) -> str:
    """The delimiter by which a first line has most of some columns; the one at hand where others do no better."""

    def found(one: str) -> int:
        return len(set(wanted) & set(clean_names(next(plain_csv.reader([first], delimiter=one), []))))

    return max((delimiter, *DELIMITERS), key=found) if wanted else delimiter


def _emptied(table: pa.Table, as_text: bool) -> pa.Table:
    """Texts without a letter as missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not as_text:
        return table
    nothing = pa.scalar(None, pa.string())
    columns = [pc.if_else(pc.equal(column, ""), nothing, column) for column in table.columns]
    return pa.table(columns, names=table.column_names)


def _delimiter(how: TableFormat, kind: str, first: str = "") -> str:
    delimiter = how.delimiter or ("\t" if kind == "tsv" else ",")
    # As it is typed in a shell.
    delimiter = "\t" if delimiter in ("\\t", "tab") else delimiter
    if how.delimiter is None and kind == "csv" and "," not in first:
        delimiter = max(DELIMITERS, key=first.count)
    if len(delimiter) != 1 or len(how.decimal) != 1:
        raise UserError(
            f"data.delimiter={delimiter!r}, data.decimal={how.decimal!r}; expected one character each"
        )
    return delimiter


def _conversion(how: TableFormat, types: dict[str, Any] | None, only: Sequence[str] | None = None) -> Any:
    """How the values of a CSV are understood, wherever it is read."""
    from pyarrow import csv

    return csv.ConvertOptions(
        strings_can_be_null=False,
        auto_dict_encode=True,
        auto_dict_max_cardinality=1000,
        decimal_point=how.decimal,
        column_types=types,
        null_values=GAPS,
        include_columns=only,
    )


def _runs_on(rows: Any) -> bool:
    """Whether the last value has a line end in it: where there is an odd quotation mark, it has swallowed rows."""
    value = rows.column(rows.num_columns - 1)[rows.num_rows - 1].as_py()
    return isinstance(value, str) and "\n" in value


def read_csv(
    path: Path, how: TableFormat, kind: str, texts: frozenset[str] = frozenset()
) -> tuple[pa.Table, TableFormat]:
    """A whole file: numbers, dates and truths as such where every value is one, all else as it is written.

    Args:
        path: The file.
        how: How it is written.
        kind: ``csv`` or ``tsv``.
        texts: Names of columns that stay text whatever is in them.

    Returns:
        The table, and how the file is written: its delimiter, and whether its first line names the columns.

    Raises:
        UserError: The file is no such table, of another encoding, or too large for memory.
    """
    import pyarrow as pa

    encoding = encoding_of(path, how)
    check_memory(path.stat().st_size * 2, str(path), IN_PIECES)
    rows, how, said = _looked_at(path, how, kind, encoding)
    with _content(path, encoding) as content:
        reader = _Reader(path, content, how, encoding, rows[0] if rows else [], said)
        try:
            table = reader.parsed({name: pa.string() for name in reader.raw_names(texts)})
        except pa.ArrowInvalid as error:
            if "conversion error" in str(error):
                # The type was guessed from the first block, and a later one disagrees.
                table = reader.parsed(dict.fromkeys(reader.header, pa.string()))
            elif "straddling" in str(error):
                raise UserError(
                    f"{path}: a row is longer than {BLOCK_BYTES >> 20} MB; most likely a quotation mark is never closed"
                ) from None
            elif "Expected" in str(error):
                with opened_text(path, encoding) as text:
                    raise UserError(_ragged(text, str(path), how.delimiter or ",", error)) from None
            else:
                raise
        return table, how


def _looked_at(
    path: Path, how: TableFormat, kind: str, encoding: str
) -> tuple[list[list[str]], TableFormat, bool]:
    """The first rows as they are written, how the file is written, and whether a line before them says so."""
    with opened(path) as file:
        head = file.read(SAMPLE_BYTES)
    sample = io.StringIO(head.decode(encoding, errors="replace"), newline="")
    start, first = 0, sample.readline()
    if said := _said_delimiter(first):
        how, start = replace(how, delimiter=said), sample.tell()
        first = sample.readline()
    delimiter = _delimiter(how, kind, first)
    sample.seek(start)
    plain_csv.field_size_limit(BLOCK_BYTES)
    rows: list[list[str]] = []
    with suppress(plain_csv.Error):
        rows = [row for row in plain_csv.reader(sample, delimiter=delimiter) if row]
    # The last row may be cut off.
    rows = rows[: 200 if len(head) < SAMPLE_BYTES else -1]
    header = how.header
    if header is None:
        header = not looks_like_data(rows[:200])
    return rows, replace(how, delimiter=delimiter, header=header), bool(start)


@contextmanager
def _content(path: Path, encoding: str) -> Iterator[mmap.mmap | bytes]:
    """The bytes of a file, unpacked, as text of one byte or UTF-8."""
    wide = encoding.lower().replace("_", "-").startswith(("utf-16", "utf16", "utf-32", "utf32"))
    if packing(path) is None and not wide:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield content
        return
    whole = unpacked(path, IN_PIECES)
    if wide:
        try:
            whole = whole.decode(encoding).encode()
        except UnicodeDecodeError:
            raise UserError(wrong_encoding(path, encoding.upper(), "the file")) from None
    yield whole


class _Reader:
    """A file's content with what is known of it."""

    def __init__(
        self,
        path: Path,
        content: mmap.mmap | bytes,
        how: TableFormat,
        encoding: str,
        first: list[str],
        said: bool,
    ) -> None:
        self.path, self.content, self.how, self.first = path, content, how, first
        self.said = said
        named = encoding.lower().replace("_", "-")
        self.encoding = "utf-8" if named.startswith("utf") else encoding

    @property
    def header(self) -> list[str]:
        """The columns' names as they are written."""
        if self.how.header is False:
            return [f"f{place}" for place in range(len(self.first))]
        return self.first

    def raw_names(self, names: frozenset[str]) -> list[str]:
        """How some of the columns are written."""
        return [raw for raw, name in zip(self.header, clean_names(self.header), strict=True) if name in names]

    def parsed(self, types: dict[str, Any]) -> pa.Table:
        """The table with the types of some columns as given."""
        import pyarrow as pa

        table = self._read(types)
        try:
            names = list(table.column_names)
        except UnicodeDecodeError:
            raise UserError(
                wrong_encoding(self.path, self.encoding, "the first line, with the columns' names,")
            ) from None
        if self._quotes[0] % 2 and table.num_rows and _runs_on(table):
            raise UserError(f"{self.path}: {UNCLOSED}")
        # A column of nothing but what is missing among numbers may be one of words.
        unsure = [
            name for name, column in zip(names, table.columns, strict=True) if pa.types.is_null(column.type)
        ]
        if unsure and len(set(names)) == len(names):
            words = self._read(dict.fromkeys(unsure, pa.string()), unsure)
            for name in unsure:
                table = table.set_column(names.index(name), name, words.column(name))
        for name, column in zip(names, table.columns, strict=True):
            if _is_binary(column.type):
                raise UserError(wrong_encoding(self.path, self.encoding, f"the column {name!r}"))
        return table.rename_columns(clean_names(names))

    def _read(self, types: dict[str, Any], only: Sequence[str] | None = None) -> pa.Table:
        import pyarrow as pa
        from pyarrow import csv

        quotes, in_values = self._quotes
        whole = isinstance(self.content, bytes)
        return csv.read_csv(
            pa.BufferReader(self.content) if whole else pa.OSFile(str(self.path)),
            read_options=csv.ReadOptions(
                block_size=BLOCK_BYTES,
                encoding=self.encoding,
                autogenerate_column_names=self.how.header is False,
                skip_rows=int(self.said),
            ),
            # Looking for quotation marks and line ends inside of them costs a fifth of the time.
            parse_options=csv.ParseOptions(
                delimiter=self.how.delimiter,
                newlines_in_values=in_values,
                quote_char='"' if quotes else False,
            ),
            convert_options=_conversion(self.how, types, only),
        )

    @cached_property
    def _quotes(self) -> tuple[int, bool]:
        """How many quotation marks there are, and whether any are behind the first line, which names the columns."""
        content = self.content
        if content.find(b'"') < 0:
            return 0, False
        line = content.find(b"\n")
        before = content.find(b"\r", 0, line)
        end = line if before < 0 else before
        count = sum(
            content[start : start + (1 << 24)].count(b'"') for start in range(0, len(content), 1 << 24)
        )
        # If this line end is inside of quotation marks, the closing one is behind it.
        return count, end < 0 or self.how.header is False or content.find(b'"', end) >= 0


def _is_binary(kind: pa.DataType) -> bool:
    import pyarrow as pa

    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_binary(inner) or pa.types.is_large_binary(inner))


def _ragged(text: TextIO, place: str, delimiter: str, error: Exception) -> str:
    """Name the line: read again in order, since Arrow's reader does not count lines."""
    try:
        plain_csv.field_size_limit(BLOCK_BYTES)
        reader = plain_csv.reader(text, delimiter=delimiter, strict=True)
        header = next(reader)
        # A line for Excel stands before the names.
        width = len(next(reader) if header[0].lower().startswith("sep=") else header)
        for row in reader:
            if row and len(row) != width:
                said = f"{place}, line {reader.line_num}: {len(row)} values, but the header names {width} columns; "
                if len(row) == width + 1 and not row[-1].strip():
                    return f"{said}write {delimiter!r} at the end of the header too, as behind its values"
                if width == 1:
                    said += "are the lines before it no part of the table? "
                return f"{said}is {delimiter!r} what separates the values (data.delimiter)?"
    except (plain_csv.Error, OSError, ValueError) as reason:
        if "unexpected end" in str(reason):
            return f"{place}: {UNCLOSED}"
    return f"{place}: {in_short(error)}"
