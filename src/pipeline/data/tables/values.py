"""A table in memory: columns of numbers, text and dates, converted when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.data.tables.formats import TableFormat
from pipeline.data.tables.guesses import typed
from pipeline.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["number", "text", "date"]
OF_TYPE = "its values are of the type"
"""How the message about a column begins that is neither number, text nor date."""


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
        how: How its file is written.
    """

    def __init__(self, arrow: pa.Table, source: str, how: TableFormat | None = None) -> None:
        self.arrow, self.source, self.how = arrow, source, how or TableFormat()
        self._converted: dict[Hashable, Column] = {}

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
                folded = {one.strip().casefold(): one for one in self.names}
                near = [folded[name.strip().casefold()]] if name.strip().casefold() in folded else []
                near = near or difflib.get_close_matches(name, self.names, n=1)
                hint = f"; did you mean {near[0]!r} ({typed(key, near[0])})?" if near else ""
                raise UserError(
                    f"{key} names the column {name!r}, but {self.source} has {listed(self.names)}{hint}"
                )

    def column(self, name: str) -> Column:
        """One column as it lies in the file; what is neither number, text nor date raises ``TypeError``."""
        return self.kept(name, lambda: convert(self.arrow.column(name)))

    def kept(self, key: Hashable, make: Callable[[], Column]) -> Column:
        """A column that is made once, until :meth:`release`."""
        if key not in self._converted:
            self._converted[key] = make()
        return self._converted[key]


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
        # Times of day are seconds, whatever unit they are stored in; durations stay as they are.
        unit = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[kind.unit] if pa.types.is_time(kind) else 1.0
        seconds = _floats(pc.cast(column, width)) / unit
        return Column("number", seconds, whole=unit == 1.0)
    if pa.types.is_dictionary(kind) and not pa.types.is_string(kind.value_type):
        return convert(pc.cast(column, kind.value_type))
    if pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _text(column)
    raise TypeError(f"{OF_TYPE} {kind}")


def is_text(column: pa.ChunkedArray) -> bool:
    """Whether a column of Arrow holds words."""
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


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


def listed(names: Sequence[str], limit: int = 12) -> str:
    """Names in quotation marks, long ones and long lists cut."""
    shown = ", ".join(repr(name if len(name) < 60 else name[:57] + "…") for name in list(names)[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
