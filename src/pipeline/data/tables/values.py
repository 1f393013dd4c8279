"""A table in memory: columns of numbers, text and dates, converted when they are asked for."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

Kind = Literal["number", "text", "date"]

CSV_TEXT_MAY_BE = ("number", "truth", "date")
"""What text in a CSV may turn out to be, looked for in this order."""

NUMERIC_SHARE = 0.95
"""A column whose values are numbers in at least this share of its rows is numeric; the others count as missing."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        kind: ``number`` (``values`` are float64, NaN is missing), ``date`` (``values`` are seconds since 1970, NaN is
            missing) or ``text`` (``values`` are places in ``words``, −1 is missing).
        values: One entry for each row.
        words: The distinct texts of a ``text`` column.
        whole: Whether it is a ``number`` column of integers.
        truth: Whether it is a ``number`` column that was true and false.
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


class Table:
    """The columns of a file or of rows in memory, converted one by one when they are asked for.

    Args:
        arrow: The data.
        source: What the table is called in messages.
        text_may_be: What text may turn out to be: a CSV has nothing but text, JSON no dates.
        decimal: Decimal mark of numbers that are text.
    """

    def __init__(
        self, arrow: pa.Table, source: str, text_may_be: tuple[str, ...] = (), decimal: str = "."
    ) -> None:
        self.arrow, self.source, self.text_may_be, self.decimal = arrow, source, text_may_be, decimal
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
            UserError: A column is missing; the message names ``key``, the setting that asked for it.
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
                _settled(column, name, self.text_may_be, self.decimal) if column.kind == "text" else column
            )
        return self._converted[name]


def convert(column: pa.ChunkedArray | pa.Array) -> Column:
    """An Arrow column as numbers, text or dates.

    Raises:
        TypeError: The values are lists, structures or bytes.
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


def _settled(text: Column, name: str, may_be: tuple[str, ...], decimal: str) -> Column:
    """Text as numbers or dates, if that is what nearly all of it is; the rest counts as missing, with a warning."""
    known = text.values[text.values >= 0]
    if not len(known):
        return text
    counts = np.bincount(known, minlength=len(text.words))
    readers = {"number": numbers_of, "truth": truths_of, "date": dates_of}
    for kind in may_be:
        words = text.words
        if kind == "number" and decimal != ".":
            words = tuple(word.replace(decimal, ".") for word in words)
        values = readers[kind](words)
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


def with_numbers(arrow: pa.Table, texts: Iterable[str], decimal: str = ".") -> pa.Table:
    """The table with each column of text that holds numbers alone as numbers, except for those named in ``texts``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kept = set(texts)
    for place, name in enumerate(arrow.column_names):
        column = arrow.column(place)
        if name in kept or not pa.types.is_string(column.type):
            continue
        words = pc.utf8_trim_whitespace(column)
        if decimal != ".":
            words = pc.replace_substring(words, decimal, ".")
        try:
            arrow = arrow.set_column(place, name, pc.cast(words, pa.float64()))
        except pa.ArrowInvalid:
            continue
    return arrow


def table_of(raw: Any, names: Sequence[str]) -> Table:
    """Rows in memory as a table of the columns ``names``: a data frame, a list of dictionaries, a dictionary of lists.

    Raises:
        UserError: The rows are none of these, or lack a column.
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
