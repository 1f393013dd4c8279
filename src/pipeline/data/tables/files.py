"""Reading tables from files: CSV, TSV, Parquet and JSON lines, as a whole or some rows at a time.

Training, prediction, tests on other data and the writer of memory-mapped tables read through here.
"""

from __future__ import annotations

import json as plain_json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pipeline.data.core.memory import check_memory
from pipeline.data.tables.delimited import BLOCK_BYTES, IN_PIECES, csv_batches, read_csv
from pipeline.data.tables.formats import FORMATS, encoding_of, file_format, in_short, wrong_encoding
from pipeline.data.tables.formats import TableFormat as TableFormat
from pipeline.data.tables.frames import table_of_frame
from pipeline.data.tables.headers import clean_names
from pipeline.data.tables.packed import opened, opened_text, suffix_of
from pipeline.data.tables.sheets import read_sheet
from pipeline.data.tables.values import Table, listed
from pipeline.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

_LARGE = 64 << 20
"""Bytes of a table above which reading it again, when that is asked for, costs less than keeping it."""


def read_table(path: Path, how: TableFormat, texts: frozenset[str] = frozenset()) -> Table:
    """Read a whole file.

    The last files read stay in memory, so that the fits of a cross-validation or a sweep read them once; large ones
    until :func:`forget_large`.

    Args:
        path: The file.
        how: How it is written.
        texts: Names of columns of a CSV that stay text whatever is in them, as in the file that was trained on; of JSON
            lines their dates do.

    Returns:
        The table; ``table.how`` says how the file turned out to be written.

    Raises:
        UserError: The file is missing, empty, not of its format, of another encoding, or too large for memory.
    """
    if path.is_dir():
        raise UserError(f"data.path={path} is a directory; expected one file (for images: data=image_folder)")
    if re.match(r"[a-z0-9]{2,}:/", str(path)):
        raise UserError(f"data.path={path} is an address; download the file first, and name that")
    if not path.is_file():
        raise UserError(f"data.path={path}: there is no such file")
    stamp = path.stat()
    return _read_cached(path, how, texts, (stamp.st_mtime_ns, stamp.st_size))


@lru_cache(maxsize=2)
def _read_cached(path: Path, how: TableFormat, texts: frozenset[str], stamp: tuple[int, int]) -> Table:
    import pyarrow as pa

    kind = file_format(path, how)
    if stamp[1] == 0:
        raise UserError(f"{path} is empty")
    found = how
    try:
        if kind in ("csv", "tsv"):
            table, found = read_csv(path, how, kind, texts)
            usual = "\t" if kind == "tsv" else ","
            found = replace(found, delimiter=None if found.delimiter == usual else found.delimiter)
        else:
            readers: dict[str, Callable[[Path, TableFormat, str], pa.Table]] = {
                "parquet": _read_parquet,
                "jsonl": partial(_read_json_lines, texts=texts),
                "xlsx": read_sheet,
                "ods": read_sheet,
            }
            table = readers[kind](path, how, kind)
            table = table.rename_columns(clean_names(table.column_names))
        names = list(table.column_names)
    except UserError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{path} cannot be read as {kind}{_by_mark(path)}: {in_short(error)}") from None
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(
            f"{path} has more than one column named {listed(doubled)}; every column needs a name of its own"
        )
    if table.num_rows == 0:
        raise UserError(f"{path} has a header ({listed(names)}) but no rows{_by_mark(path)}")
    return Table(table, str(path), found)


def forget_large(tables: Sequence[Table]) -> None:
    """Let go of what :func:`read_table` keeps, where these take much memory: they are read again when asked for."""
    if sum(table.arrow.nbytes for table in tables) > _LARGE:
        _read_cached.cache_clear()


def _by_mark(path: Path) -> str:
    """What a file's first bytes made of it, for a message."""
    with path.open("rb") as file:
        wide = file.read(2) in (b"\xff\xfe", b"\xfe\xff")
    return " (UTF-16 text, by its first bytes)" if wide else ""


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
    if kind not in ("csv", "tsv", "parquet"):
        raise UserError(f"{path}: expected a CSV, TSV or Parquet file")
    try:
        if kind == "parquet":
            yield from parquet_batches(path)
            return
        with opened_text(path, encoding_of(path, how)) as text:
            yield from csv_batches(text, str(path), how, kind)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as {kind}: {in_short(error)}") from None


def read_rows(
    path: Path, columns: Mapping[str, str] | Sequence[tuple[str, str]], how: TableFormat | None = None
) -> Iterator[tuple[Any, ...]]:
    """Some columns of a table as they are written, a row at a time; None where a value is missing.

    A CSV has nothing but texts: neither "None" nor "NA" is a missing value, and 007 is no number. A file whose name
    says nothing is taken for a CSV.

    Args:
        path: The file.
        columns: The setting that named each column, and its name; a setting may name several.
        how: How the file is written.

    Raises:
        UserError: There is no such file or column, or the file cannot be read.
    """
    import pyarrow as pa

    how = how or TableFormat()
    columns = list(columns.items()) if isinstance(columns, Mapping) else columns
    if not path.is_file():
        raise UserError(f"no file at {path}; set data.path to a .csv, .tsv, .parquet or .jsonl file")
    if not path.stat().st_size:
        raise UserError(f"{path} is empty")
    kind = FORMATS.get(suffix_of(path), "csv") if how.format == "auto" else file_format(path, how)
    encoding = how.encoding
    try:
        if kind in ("parquet", "xlsx", "ods"):
            batches = parquet_batches(path) if kind == "parquet" else [read_sheet(path, how, kind)]
            for batch in batches:
                _require(batch.column_names, columns, path)
                yield from zip(*(batch.column(name).to_pylist() for _, name in columns), strict=True)
            return
        encoding = encoding_of(path, how)
        with opened_text(path, encoding) as text:
            if kind == "jsonl":
                seen: dict[str, None] = {}
                for number, row in json_rows(text, str(path)):
                    if not isinstance(row, dict):
                        raise UserError(f"{path}, line {number} is no object with the columns' names")
                    seen |= dict.fromkeys(row)
                    yield tuple(row.get(name) for _, name in columns)
                if seen:
                    _require(list(seen), columns, path)
                return
            for batch in csv_batches(
                text, str(path), how, kind, as_text=True, header=how.header is not False
            ):
                _require(batch.column_names, columns, path)
                yield from zip(*(batch.column(name).to_pylist() for _, name in columns), strict=True)
    except UnicodeError:
        name = "UTF-8" if encoding == "utf-8-sig" else encoding
        raise UserError(wrong_encoding(path, name, "it")) from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as a table: {in_short(error)}") from None


def _require(names: Sequence[str], wanted: Sequence[tuple[str, str]], path: Path) -> None:
    for key, name in wanted:
        if name not in names:
            raise UserError(f"{path} has no column {name!r}; it has {list(names)}: set {key} to one of them")


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
        if begins_list(line):
            yield from enumerate(_listed_rows(line + text.read(), place), start=1)
            return
        try:
            yield number, plain_json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{place}, line {number} is no JSON: {reason}") from None


def begins_list(line: str) -> bool:
    """Whether a first line of JSON begins a list of objects, as a whole file of it is, and no row that is a list."""
    bare = line.strip()
    return bare[:1] == "[" and bare[1:].lstrip()[:1] in ("", "{") and bare != "[]"


def _listed_rows(text: str, place: str) -> list[Any]:
    try:
        return list(plain_json.loads(text))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place} is no list of JSON objects: {str(error).splitlines()[0]}") from None


def _of_objects(path: Path) -> pa.Table:
    """JSON rows by way of Python: a list of objects, or lines with numbers and texts in one column."""
    import pandas as pd

    with opened_text(path, "utf-8-sig") as text:
        rows = [row for _, row in json_rows(text, str(path))]
    if not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path}: expected a list of objects with the columns' names")
    return table_of_frame(pd.DataFrame(rows, dtype=object))


def _read_parquet(path: Path, how: TableFormat, kind: str) -> pa.Table:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        rows, columns = file.metadata.num_rows, file.metadata.num_columns
        check_memory(rows * columns * 16, str(path), IN_PIECES)
        return file.read()


def _read_json_lines(path: Path, how: TableFormat, kind: str, texts: frozenset[str]) -> pa.Table:
    import pyarrow as pa
    from pyarrow import json

    def read(schema: pa.Schema | None = None) -> pa.Table:
        with opened(path) as file:
            return json.read_json(
                pa.PythonFile(file),
                read_options=json.ReadOptions(block_size=BLOCK_BYTES),
                parse_options=json.ParseOptions(explicit_schema=schema),
            )

    check_memory(path.stat().st_size * 2, str(path), IN_PIECES)
    with opened_text(path, "utf-8-sig") as text:
        whole = begins_list(next((line for line in text if line.strip()), ""))
    try:
        table = _of_objects(path) if whole else read()
    except pa.ArrowInvalid as error:
        if "changed from" not in str(error):
            raise
        # Numbers and texts in one column are texts.
        table = _of_objects(path)
    if whole:
        return table
    if table.num_rows == 1 and table.num_columns and all(map(pa.types.is_struct, table.schema.types)):
        raise UserError(
            f"{path} holds an object by column; expected one by row: DataFrame.to_json(FILE, orient='records')"
        )
    dates = [
        field.name for field in table.schema if pa.types.is_timestamp(field.type) and field.name in texts
    ]
    return (
        read(pa.schema([(name, pa.string()) for name in dates])).select(table.column_names)
        if dates
        else table
    )
