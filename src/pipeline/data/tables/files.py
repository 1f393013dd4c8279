"""Reading tables from files: CSV, TSV, Parquet and JSON lines, as a whole or some rows at a time.

Training, prediction, tests on other data and the writer of memory-mapped tables read through here.
"""

from __future__ import annotations

import codecs
import csv as plain_csv
import json as plain_json
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pipeline.data.core.memory import check_memory
from pipeline.data.tables.values import CSV_TEXT_MAY_BE, Table, listed
from pipeline.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
BLOCK_BYTES = 1 << 20
"""Length of a row beyond which it is refused: that is far more often a quotation mark that nothing closes than data."""
STREAM_BYTES = 32 << 20
"""What is read at once where a file is not read as a whole."""
DELIMITERS = ",;\t|"
UNCLOSED = "a quotation mark is never closed"


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


def read_table(path: Path, how: TableFormat) -> Table:
    """Read a whole file.

    The last files read stay in memory, so that the fits of a cross-validation or a sweep read them once.

    Raises:
        UserError: The file is missing, empty, not of its format, of another encoding, or too large for memory.
    """
    if path.is_dir():
        raise UserError(f"data.path={path} is a directory; expected one file (for images: data=image_folder)")
    if not path.is_file():
        raise UserError(f"data.path={path}: there is no such file")
    stamp = path.stat()
    return _read_cached(path, how, (stamp.st_mtime_ns, stamp.st_size))


@lru_cache(maxsize=2)
def _read_cached(path: Path, how: TableFormat, stamp: tuple[int, int]) -> Table:
    import pyarrow as pa

    kind = file_format(path, how)
    readers = {"csv": _read_csv, "tsv": _read_csv, "parquet": _read_parquet, "jsonl": _read_json_lines}
    if stamp[1] == 0:
        raise UserError(f"{path} is empty")
    try:
        table = readers[kind](path, how, kind)
        names = list(table.column_names)
    except UserError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{path} cannot be read as {kind}: {_in_short(error)}") from None
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(
            f"{path} has more than one column named {listed(doubled)}; every column needs a name of its own"
        )
    if table.num_rows == 0:
        raise UserError(f"{path} has a header ({listed(names)}) but no rows")
    may_be = {"parquet": (), "jsonl": ("date",)}.get(kind, CSV_TEXT_MAY_BE)
    return Table(table, str(path), may_be, how.decimal)


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


def read_batches(path: Path, how: TableFormat) -> Iterator[pa.Table]:
    """Read a CSV, TSV or Parquet file in order; memory holds some megabytes of it.

    What a column is follows from the beginning of the file.

    Raises:
        UserError: The file is missing, of another format, or damaged.
    """
    import pyarrow as pa

    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    kind = file_format(path, how)
    if kind == "jsonl":
        raise UserError(f"{path}: expected a CSV, TSV or Parquet file")
    try:
        if kind == "parquet":
            yield from parquet_batches(path)
            return
        refuse_other_files(path, how)
        with path.open(encoding=text_encoding(how.encoding), newline="") as text:
            yield from csv_batches(text, str(path), how, kind)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as {kind}: {_in_short(error)}") from None


def read_rows(path: Path, columns: Mapping[str, str]) -> Iterator[tuple[Any, ...]]:
    """Some columns of a table as they are written, a row at a time; None where a value is missing.

    A CSV has nothing but texts: neither "None" nor "NA" is a missing value, and 007 is no number. A file whose name
    says nothing is taken for a CSV.

    Args:
        path: The file.
        columns: Names of the columns by the setting that named each.

    Raises:
        UserError: There is no such file or column, or the file cannot be read.
    """
    import pyarrow as pa

    if not path.is_file():
        raise UserError(f"no file at {path}; set data.path to a .csv, .tsv, .parquet or .jsonl file")
    if not path.stat().st_size:
        raise UserError(f"{path} is empty")
    kind = FORMATS.get(path.suffix.lower(), "csv")
    how = TableFormat()
    try:
        if kind == "parquet":
            for batch in parquet_batches(path):
                _require(batch.column_names, columns, path)
                yield from zip(*(batch.column(name).to_pylist() for name in columns.values()), strict=True)
            return
        refuse_other_files(path, how)
        with path.open(encoding="utf-8-sig", newline="") as text:
            if kind == "jsonl":
                seen: dict[str, None] = {}
                for number, row in json_rows(text, str(path)):
                    if not isinstance(row, dict):
                        raise UserError(f"{path}, line {number} is no object with the columns' names")
                    seen |= dict.fromkeys(row)
                    yield tuple(row.get(name) for name in columns.values())
                if seen:
                    _require(list(seen), columns, path)
                return
            for batch in csv_batches(text, str(path), how, kind, as_text=True, missing=[""]):
                _require(batch.column_names, columns, path)
                yield from zip(*(batch.column(name).to_pylist() for name in columns.values()), strict=True)
    except UnicodeDecodeError:
        raise UserError(
            f"{path} is not UTF-8 text; convert it, for example with: iconv -f latin1 -t utf-8"
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as a table: {_in_short(error)}") from None


def _require(names: Sequence[str], wanted: Mapping[str, str], path: Path) -> None:
    for key, name in wanted.items():
        if name not in names:
            raise UserError(f"{path} has no column {name!r}; it has {list(names)}: set {key} to one of them")


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
        raise UserError(f"{place} cannot be read as {kind}: {_in_short(error)}") from None
    if stream.quotes % 2 and last is not None and _runs_on(last):
        raise UserError(f"{place}: {UNCLOSED}")


def in_sizes(batches: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows, so many at a time; the last are fewer."""
    import pyarrow as pa

    waiting: pa.Table | None = None
    for batch in batches:
        waiting = batch if waiting is None else pa.concat_tables([waiting, batch])
        while waiting.num_rows >= rows:
            yield waiting.slice(0, rows)
            waiting = waiting.slice(rows)
    if waiting is not None and waiting.num_rows:
        yield waiting


def parquet_batches(path: Path, rows: int = 262_144) -> Iterator[pa.Table]:
    """The rows of a Parquet file in order, at most so many at a time."""
    import pyarrow as pa
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=rows):
            yield pa.Table.from_batches([batch])


def json_rows(text: TextIO, place: str) -> Iterator[tuple[int, Any]]:
    """The JSON value of each line that is not blank, with the line's number.

    Raises:
        UserError: A line is no JSON.
    """
    for number, line in enumerate(text, start=1):
        if not line.strip():
            continue
        try:
            yield number, plain_json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{place}, line {number} is no JSON: {reason}") from None


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


def _read_csv(path: Path, how: TableFormat, kind: str) -> pa.Table:
    import pyarrow as pa

    delimiter = _delimiter(how, kind)
    refuse_other_files(path, how)
    _check_memory(path.stat().st_size * 2, path)
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
            raise UserError(_wrong_encoding(path, how, f"the column {name!r}"))
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


def text_encoding(encoding: str) -> str:
    """The encoding to open a file with: a mark at the beginning of UTF-8 is no part of the text."""
    return "utf-8-sig" if encoding.lower().replace("-", "") == "utf8" else encoding


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
    return f"{place}: {_in_short(error)}"


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


def _wrong_encoding(path: Path, how: TableFormat, where: str) -> str:
    return (
        f"{path}: {where} is not {how.encoding} text; set data.encoding to what it was written in "
        "(often latin-1 or cp1252)"
    )


def _read_parquet(path: Path, how: TableFormat, kind: str) -> pa.Table:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        rows, columns = file.metadata.num_rows, file.metadata.num_columns
        _check_memory(rows * columns * 16, path)
        return file.read()


def _read_json_lines(path: Path, how: TableFormat, kind: str) -> pa.Table:
    import pyarrow as pa
    from pyarrow import json

    _check_memory(path.stat().st_size * 2, path)
    with pa.OSFile(str(path)) as file:
        return json.read_json(file, read_options=json.ReadOptions(block_size=BLOCK_BYTES))


def _check_memory(needed: int, path: Path) -> None:
    check_memory(
        needed,
        str(path),
        "write it as memory-mapped arrays (python -m pipeline.data.tables.memmap --help) and train with data=memmap",
    )


def _in_short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 200 else text[:197] + "…"
