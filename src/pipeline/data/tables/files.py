"""Reading tables from files: CSV, TSV, Parquet and JSON lines, into columns of numbers, text and dates."""

from __future__ import annotations

import codecs
import logging
import mmap
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.data.core.memory import check_memory
from pipeline.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

Kind = Literal["number", "text", "date"]

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
"""A row longer than this is refused: it is a quotation mark that nothing closes far more often than data."""

NUMERIC_SHARE = 0.95
"""A column whose values are numbers in at least this share of its rows is numeric; the others count as missing."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        kind: ``number`` (``values`` are float64, NaN is missing), ``date`` (``values`` are seconds since 1970, NaN is
            missing) or ``text`` (``values`` are places in ``words``, −1 is missing).
        values: one entry a row.
        words: the distinct texts of a ``text`` column.
        whole: a ``number`` column of integers.
        truth: a ``number`` column that was true and false.
    """

    kind: Kind
    values: np.ndarray
    words: tuple[str, ...] = ()
    whole: bool = False
    truth: bool = False

    def __len__(self) -> int:
        return len(self.values)

    @property
    def missing(self) -> np.ndarray:
        """Which rows have no value."""
        return self.values < 0 if self.kind == "text" else np.isnan(self.values)

    def rows(self, rows: np.ndarray) -> Column:
        """The column of some of the rows."""
        return Column(self.kind, self.values[rows], self.words, self.whole, self.truth)

    def as_text(self) -> Column:
        """The same values as text, written the same way whether they came as 1, 1.0 or "1"."""
        if self.kind == "text":
            return self
        known = ~self.missing
        distinct, places = np.unique(self.values[known], return_inverse=True)
        codes = np.full(len(self), -1, dtype=np.int32)
        codes[known] = places
        if self.truth:
            words = tuple("true" if value else "false" for value in distinct)
        elif self.kind == "date":
            words = tuple(str(moment) for moment in distinct.astype("datetime64[s]"))
        else:
            words = tuple(number_text(value) for value in distinct.tolist())
        return Column("text", codes, words)


def number_text(value: float) -> str:
    """A number as text: whole ones without a point."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


@dataclass(frozen=True)
class TableFormat:
    """How a file is to be read.

    Args:
        format: ``csv``, ``tsv``, ``parquet``, ``jsonl``, or ``auto``: by the file's extension.
        delimiter: between the values of a CSV; None is a comma (a tabulator for TSV).
        encoding: of a CSV or TSV.
        decimal: decimal mark of a CSV's numbers.
    """

    format: str = "auto"
    delimiter: str | None = None
    encoding: str = "utf-8"
    decimal: str = "."


class Table:
    """The columns of a file or of rows in memory, converted one by one when they are asked for.

    Args:
        arrow: the data.
        source: what it is called in messages.
        text_may_be: what text may turn out to be: a CSV has nothing but text, JSON no dates.
    """

    def __init__(self, arrow: pa.Table, source: str, text_may_be: tuple[str, ...] = ()) -> None:
        self.arrow, self.source, self.text_may_be = arrow, source, text_may_be
        self._converted: dict[str, Column] = {}

    def __len__(self) -> int:
        return int(self.arrow.num_rows)

    @property
    def names(self) -> list[str]:
        """The columns' names, in the order of the file."""
        return list(self.arrow.column_names)

    def release(self) -> None:
        """Forget the converted columns; they are made again if they are asked for."""
        self._converted.clear()

    def require(self, names: Iterable[str], key: str) -> None:
        """Check that columns are there.

        Raises:
            UserError: one is not; ``key`` is the setting that named it.
        """
        import difflib

        for name in names:
            if name not in self.names:
                near = difflib.get_close_matches(name, self.names, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise UserError(
                    f"{key} names the column {name!r}, but {self.source} has {listed(self.names)}{hint}"
                )

    def column(self, name: str) -> Column:
        """One column; what is neither number, text nor date raises ``TypeError``."""
        if name not in self._converted:
            column = convert(self.arrow.column(name))
            self._converted[name] = (
                _settled(column, name, self.text_may_be) if column.kind == "text" else column
            )
        return self._converted[name]


def read_table(path: Path, how: TableFormat) -> Table:
    """Read a whole file.

    The last files read stay in memory, so that the fits of a cross-validation or a sweep read them once.

    Raises:
        UserError: the file is missing, empty, not of its format, of another encoding, or too large for memory.
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
    return Table(table, str(path), {"parquet": (), "jsonl": ("date",)}.get(kind, ("number", "truth", "date")))


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


def _read_csv(path: Path, how: TableFormat, kind: str) -> pa.Table:
    import pyarrow as pa

    delimiter = how.delimiter or ("\t" if kind == "tsv" else ",")
    if len(delimiter) != 1 or len(how.decimal) != 1:
        raise UserError(
            f"data.delimiter={delimiter!r}, data.decimal={how.decimal!r}; expected one character each"
        )
    _refuse_other_files(path, how)
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
            raise UserError(_ragged(path, how, delimiter, error)) from None
        raise


def _parse_csv(path: Path, how: TableFormat, delimiter: str, types: dict[str, Any] | None = None) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv

    quotes, in_values = _has_quotes(path)
    with pa.OSFile(str(path)) as file:
        table: pa.Table = csv.read_csv(
            file,
            read_options=csv.ReadOptions(block_size=BLOCK_BYTES, encoding=how.encoding),
            # Looking for quotation marks and line ends inside of them costs a fifth of the time.
            parse_options=csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=in_values, quote_char='"' if quotes else False
            ),
            convert_options=csv.ConvertOptions(
                strings_can_be_null=True,
                auto_dict_encode=types is None,
                auto_dict_max_cardinality=1000,
                decimal_point=how.decimal,
                column_types=types,
            ),
        )
    for name, column in zip(table.column_names, table.columns, strict=True):
        if _is_binary(column.type):
            raise UserError(_wrong_encoding(path, how, f"the column {name!r}"))
    return table


def _has_quotes(path: Path) -> tuple[bool, bool]:
    """Whether there are quotation marks, and whether any are behind the first line, which names the columns."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(b'"') < 0:
            return False, False
        line = content.find(b"\n")
        before = content.find(b"\r", 0, line)
        end = line if before < 0 else before
        # If this line end is inside of quotation marks, the closing one is behind it.
        return True, end < 0 or content.find(b'"', end) >= 0


def _is_binary(kind: pa.DataType) -> bool:
    import pyarrow as pa

    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_binary(inner) or pa.types.is_large_binary(inner))


def _header(path: Path, how: TableFormat, delimiter: str) -> list[str]:
    import csv

    with path.open(encoding=_plain(how.encoding), newline="", errors="replace") as file:
        csv.field_size_limit(BLOCK_BYTES)
        return next(csv.reader(file, delimiter=delimiter), [])


def _plain(encoding: str) -> str:
    return "utf-8-sig" if encoding.lower().replace("-", "") == "utf8" else encoding


def _ragged(path: Path, how: TableFormat, delimiter: str, error: Exception) -> str:
    """Name the line: read again in order, since the parallel reader does not count lines."""
    import csv

    try:
        with path.open(encoding=_plain(how.encoding), newline="", errors="replace") as file:
            csv.field_size_limit(BLOCK_BYTES)
            reader = csv.reader(file, delimiter=delimiter)
            width = len(next(reader))
            for row in reader:
                if row and len(row) != width:
                    return (
                        f"{path}, line {reader.line_num}: {len(row)} values, but the header names {width} columns; "
                        f"is {delimiter!r} what separates the values (data.delimiter)?"
                    )
    except (csv.Error, OSError, ValueError):
        pass
    return f"{path}: {_in_short(error)}"


def _refuse_other_files(path: Path, how: TableFormat) -> None:
    """Recognise by their first bytes the files that people take for a CSV."""
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


def convert(column: pa.ChunkedArray | pa.Array) -> Column:
    """An Arrow column as numbers, text or dates.

    Raises:
        TypeError: lists, structures, bytes.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_null(kind):
        return Column("number", np.full(len(column), np.nan))
    if pa.types.is_boolean(kind):
        return Column("number", _floats(pc.cast(column, pa.int8())), whole=True, truth=True)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return Column("number", _floats(column), whole=bool(pa.types.is_integer(kind)))
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return Column("date", _seconds(column))
    if pa.types.is_time(kind) or pa.types.is_duration(kind):
        width = pa.int32() if kind.bit_width == 32 else pa.int64()
        return Column("number", _floats(pc.cast(column, width)), whole=True)
    if pa.types.is_dictionary(kind) and not pa.types.is_string(kind.value_type):
        return convert(pc.cast(column, kind.value_type))
    if pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _text(column)
    raise TypeError(f"its values are of the type {kind}")


def _floats(column: Any) -> np.ndarray:
    """float64 with NaN for what is missing or infinite."""
    import pyarrow as pa
    import pyarrow.compute as pc

    cast = pc.cast(column, pa.float64(), safe=False)
    values = cast.to_numpy(zero_copy_only=False) if isinstance(cast, pa.Array) else cast.to_numpy()
    # What is read-only is Arrow's own memory.
    values = np.asarray(values if values.flags.writeable else values.copy())
    if pa.types.is_floating(column.type):
        values[np.isinf(values)] = np.nan
    return values


def _seconds(column: Any) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_date32(kind):
        return _floats(pc.cast(column, pa.int32())) * 86_400.0
    per_second = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}["ms" if pa.types.is_date64(kind) else kind.unit]
    return _floats(pc.cast(column, pa.int64())) / per_second


def _text(column: Any) -> Column:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(column.type):
        column = pc.dictionary_encode(column)
    if isinstance(column, pa.ChunkedArray):
        column = column.unify_dictionaries().combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks else pa.array([], pa.string()).dictionary_encode()
    words = column.dictionary.to_pylist()
    codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    empty = [place for place, word in enumerate(words) if word is None or word == ""]
    if empty:
        codes[np.isin(codes, empty)] = -1
    return Column("text", codes, tuple(word or "" for word in words))


def _settled(text: Column, name: str, may_be: tuple[str, ...]) -> Column:
    """Text as numbers or dates, if that is what nearly all of it is; the rest counts as missing, with a warning."""
    known = text.values[text.values >= 0]
    if not len(known):
        return text
    counts = np.bincount(known, minlength=len(text.words))
    readers = {"number": numbers_of, "truth": truths_of, "date": dates_of}
    for kind in may_be:
        values = readers[kind](text.words)
        fits = ~np.isnan(values)
        share = counts[fits].sum() / counts.sum()
        if share < NUMERIC_SHARE:
            continue
        if share < 1:
            others = [
                word for word, fit, count in zip(text.words, fits, counts, strict=True) if count and not fit
            ]
            log.warning(
                "the column %r holds %ss, but %d values are none (%s): they count as missing",
                name,
                kind,
                counts[~fits].sum(),
                listed(others),
            )
        values[~np.isfinite(values)] = np.nan
        whole = bool((values[np.isfinite(values)] % 1 == 0).all())
        spread = np.append(values, np.nan)[text.values]
        return Column("date" if kind == "date" else "number", spread, whole=whole, truth=kind == "truth")
    return text


def numbers_of(words: Sequence[str]) -> np.ndarray:
    """Each text as a number, NaN where it is none."""
    import pandas as pd

    numbers = pd.to_numeric(pd.Series(list(words), dtype=object), errors="coerce")
    return np.array(numbers.to_numpy(np.float64, na_value=np.nan))


def truths_of(words: Sequence[str]) -> np.ndarray:
    """1 for each ``true``, 0 for each ``false`` in any case, NaN for other words."""
    known = {"true": 1.0, "false": 0.0}
    return np.array([known.get(word.lower(), np.nan) for word in words], dtype=np.float64)


def dates_of(words: Sequence[str]) -> np.ndarray:
    """Each text of the form 2024-01-31 or 2024-01-31T23:59 as seconds since 1970 (UTC), NaN for other words."""
    import pandas as pd

    looks = [word if re.match(r"\d{4}-\d{2}-\d{2}", word) else None for word in words]
    moments = pd.to_datetime(pd.Series(looks, dtype=object), format="ISO8601", errors="coerce", utc=True)
    seconds = moments.dt.tz_localize(None).to_numpy("datetime64[ms]").astype(np.int64) / 1e3
    return np.where(moments.isna(), np.nan, seconds)


def table_of(raw: Any, names: Sequence[str]) -> Table:
    """Rows in memory as a table of the columns ``names``: a data frame, a list of dictionaries, a dictionary of lists.

    Raises:
        UserError: it is none of these, or lacks a column.
    """
    import pandas as pd
    import pyarrow as pa

    if isinstance(raw, Table):
        frame_columns = raw.names
    else:
        raw = _frame(raw, names)
        frame_columns = [str(column) for column in raw.columns]
        if doubled := sorted({name for name in frame_columns if frame_columns.count(name) > 1} & set(names)):
            raise UserError(f"the input has more than one column named {listed(doubled)}")
        raw.columns = pd.Index(frame_columns)
    if missing := [name for name in names if name not in frame_columns]:
        raise UserError(f"the input lacks the columns {listed(missing)}; expected {listed(names)}")
    if isinstance(raw, Table):
        return raw
    arrays = [_array(raw[name], name) for name in names]
    return Table(pa.Table.from_arrays(arrays, names=list(names)), "the input")


def _frame(raw: Any, names: Sequence[str]) -> pd.DataFrame:  # type: ignore[name-defined]  # noqa: F821
    import pandas as pd

    if isinstance(raw, pd.DataFrame):
        return raw.copy(deep=False)
    if isinstance(raw, np.ndarray) and raw.ndim == 2 and raw.shape[1] == len(names):
        return pd.DataFrame(raw, columns=list(names))
    if isinstance(raw, dict):
        raw = (
            raw
            if any(isinstance(value, (list, tuple, np.ndarray, pd.Series)) for value in raw.values())
            else [raw]
        )
    try:
        if isinstance(raw, dict) or (
            isinstance(raw, list) and raw and all(isinstance(row, dict) for row in raw)
        ):
            return pd.DataFrame(raw)
    except ValueError as error:
        raise UserError(f"the input's columns do not fit together: {error}") from None
    raise UserError(
        f"got {type(raw).__name__}; expected a data frame or a list of dictionaries with the columns {listed(names)}"
    )


def _array(series: Any, name: str) -> pa.Array:
    import pyarrow as pa

    try:
        array = pa.array(series, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        # Numbers and text mixed in one column of Python objects.
        known = series.notna()
        array = pa.array(
            [str(value) if there else None for value, there in zip(series, known, strict=True)], pa.string()
        )
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def listed(names: Sequence[str], limit: int = 12) -> str:
    """Names in quotation marks, long ones and long lists cut."""
    shown = ", ".join(repr(name if len(name) < 60 else name[:57] + "…") for name in list(names)[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _in_short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 200 else text[:197] + "…"
