"""Tables of orders as customer, area, time and item: which column is what, and how each is understood."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data.tables.dates import dates_of
from pipeline.data.tables.reading import Reading, column_of, read_as
from pipeline.data.tables.values import Column, Table, listed
from pipeline.data.tables.words import is_no_number, numbers_of
from pipeline.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

BETWEEN = ": "
"""What stands between the columns that name an item together: ``restaurant: dish``."""
_OFFSET = re.compile(
    r"(\d:\d\d(?:[.,]\d+)?(?:\s*[ap]\.?m\.?)?)\s*(?:Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)$", re.IGNORECASE
)
"""An offset from UTC after a time of day: that of a date is its day."""
_BACK = (
    "returned return refunded refund cancelled canceled storniert retour zurück retourniert annulé remboursé devuelto "
    "cancelado reso annullato"
)
_KEPT = (
    "kept delivered completed complete done ok paid shipped pending processing confirmed accepted geliefert bezahlt "
    "livré entregado consegnato"
)
BACK, KEPT = frozenset(_BACK.split()), frozenset(_KEPT.split())
"""What became of an order, in lower case."""
_YES, _NO = (
    "true t yes y ja j oui o si sí s sim tak da да x 1 1.0",
    "false f no n nein non não nao nie нет 0 0.0 -",
)
YES, NO = BACK | frozenset(_YES.split()), KEPT | frozenset(_NO.split())
"""Words of a column that says what came back, in lower case."""


@dataclass(frozen=True)
class Layout:
    """Which column of a table of orders is what, and how each is understood.

    Args:
        customer: Column that says who ordered.
        item: Columns that together name what was ordered.
        area: Column that says where; None where no column does.
        time: Columns that together say when, a date and a time of day or one of both; none where no column does.
        returned: Column that says whether an order came back; None where no column does.
        readings: How each column is understood, by name.
        unit: Number of a time column's units in a second, where times are numbers since 1970.
        clock: Whether the times have hours.
        folds: Whether spellings that differ in case or blanks alone are one name.
    """

    customer: str
    item: tuple[str, ...]
    area: str | None = None
    time: tuple[str, ...] = ()
    returned: str | None = None
    readings: dict[str, Reading] = field(default_factory=dict)
    unit: float = 1.0
    clock: bool = True
    folds: bool = True

    @classmethod
    def generated(cls) -> Layout:
        """That of the generated orders."""
        return cls("customer", ("restaurant", "dish"), "area", ("time",), "returned", folds=False)

    @classmethod
    def of(cls, state: dict[str, Any]) -> Layout:
        """From what :meth:`state` gave."""
        readings = {name: Reading.of(reading) for name, reading in state["readings"].items()}
        lists = {name: tuple(state[name]) for name in ("item", "time")}
        return cls(**{**state, **lists, "readings": readings})

    def state(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "item": list(self.item), "time": list(self.time)}

    def inputs(self) -> list[str]:
        """The columns that are known before the order is made."""
        return [self.customer, *([self.area] if self.area else []), *self.time]

    def reading(self, name: str) -> Reading:
        """How a column is understood."""
        default = Reading("date") if name in self.time else Reading(folds=self.folds)
        return self.readings.get(name, default)

    def written(self, moments: list[pd.Timestamp]) -> dict[str, list[Any]]:
        """Moments as values of the time columns."""
        values: dict[str, list[Any]] = {}
        for name in self.time:
            kind = self.reading(name).kind
            if kind == "number":
                values[name] = [moment.timestamp() * self.unit for moment in moments]
            elif kind == "time":
                values[name] = [f"{moment:%H:%M}" for moment in moments]
            else:
                values[name] = [
                    f"{moment:%Y-%m-%d}" if len(self.time) > 1 else moment.isoformat() for moment in moments
                ]
        return values


def frame_of(table: Table, layout: Layout, whole: bool = False) -> pd.DataFrame:
    """Orders as ``customer``, ``area`` (text or None) and ``time``; with ``whole`` also ``item`` and ``returned``.

    Args:
        table: A row an order.
        layout: Which column is what.
        whole: Whether the columns are read that are not known before an order is made.

    Raises:
        UserError: A column holds what cannot be understood.
    """
    import pandas as pd

    found = {
        "customer": words(table, layout.customer, layout),
        "area": words(table, layout.area, layout) if layout.area else [None] * len(table),
        "time": pd.to_datetime(moments(table, layout), unit="s"),
    }
    frame = pd.DataFrame(found)
    for name in ("customer", "area"):
        frame[name] = frame[name].astype(object).where(frame[name].notna(), None)
    if not whole:
        return frame
    parts = [words(table, name, layout) for name in layout.item]
    frame["item"] = pd.Series(
        [None if None in some else BETWEEN.join(map(str, some)) for some in zip(*parts, strict=True)],
        dtype=object,
    )
    frame["returned"] = returned(table, layout)
    return frame


def words(table: Table, name: str, layout: Layout) -> list[str | None]:
    """A column of names; None where one is missing."""
    column = column_of(table, name, layout.reading(name), strict=False).as_text()
    known = [word.strip() or None for word in column.words]
    return [known[code] if code >= 0 else None for code in column.values]


def local(table: Table, name: str) -> Column:
    """A column of times as clocks on the wall showed them, wherever that wall is."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from pipeline.data.tables.values import convert

    kind = table.arrow.column(name).type
    if pa.types.is_timestamp(kind) and kind.tz:
        return convert(pc.local_timestamp(table.arrow.column(name)))
    column = table.column(name)
    if column.kind != "text":
        return column
    return replace(
        column,
        words=tuple(_OFFSET.sub(r"\1", word.strip()) if ":" in word else word for word in column.words),
    )


def moments(table: Table, layout: Layout) -> np.ndarray:
    """Seconds since 1970 on the local clock, NaN where no time is known."""
    total = np.zeros(len(table)) if layout.time else np.full(len(table), np.nan)
    for name in layout.time:
        column = read_as(local(table, name), layout.reading(name), name, strict=False)
        part = column.values if column.kind != "text" else np.full(len(table), np.nan)
        if layout.reading(name).kind == "time":
            # A day without an hour is known all the same.
            part = np.nan_to_num(part)
        total = total + (part / layout.unit if layout.reading(name).kind == "number" else part)
    return total


def returned(table: Table, layout: Layout) -> np.ndarray:
    """Which orders came back.

    Raises:
        UserError: The column holds a word that is neither yes nor no.
    """
    if layout.returned is None:
        return np.zeros(len(table), dtype=bool)
    column = table.column(layout.returned)
    if strange := not_understood(column):
        raise UserError(
            f"data.returned={layout.returned}: {table.source} holds {listed(strange, 5)} there; expected yes or no, "
            "true or false, returned or delivered, how many came back, or when"
        )
    return np.asarray(came_back(column) == 1)


def came_back(column: Column) -> np.ndarray:
    """1 for a row that came back (yes, a number above 0, a date), 0 for one that was kept, NaN where nobody knows."""
    if column.kind == "number":
        return np.asarray(np.nan_to_num(column.values) > 0, dtype=np.float64)
    if column.kind == "date":
        return np.asarray(~column.missing, dtype=np.float64)
    numbers = numbers_of(column.words)
    dated = ~np.isnan(dates_of(column.words, "dmy")) | ~np.isnan(dates_of(column.words, "mdy"))
    said = np.where(dated, 1.0, np.where(np.isnan(numbers), np.nan, numbers > 0))
    for code, word in enumerate(column.words):
        plain = word.strip().casefold()
        if plain in YES or plain in NO or is_no_number(word):
            said[code] = plain in YES
    return np.asarray(np.append(said, 0.0)[column.values], dtype=np.float64)


def not_understood(column: Column) -> list[str]:
    """The words of a column that do not say whether something came back."""
    return sorted({column.words[code] for code in column.values[np.isnan(came_back(column))].tolist()})


def in_time(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Orders in the order of time, the earliest first; those without a time stay where the file has them.

    Args:
        frame: Column ``time``, in the file's order.

    Returns:
        The orders with new numbers, and what was decided about those without a time, in words.
    """
    times = frame["time"].dropna()
    gaps = len(frame) - len(times)
    if not len(times):
        return frame.reset_index(
            drop=True
        ), "no order has a time: they are taken to be in the order of the file"
    if times.is_monotonic_increasing:
        said = f"{gaps:,} orders without a time stay where the file has them" if gaps else ""
    elif times.is_monotonic_decreasing:
        frame = frame.iloc[::-1]
        said = f"{gaps:,} orders without a time stay where the file has them" if gaps else ""
    else:
        frame = frame.sort_values("time", kind="stable", na_position="first")
        said = f"{gaps:,} orders without a time are taken for the earliest" if gaps else ""
    return frame.reset_index(drop=True), said


def baskets(frame: pd.DataFrame) -> np.ndarray:
    """The number of the first line of each order's basket: lines of one customer and moment are one basket."""
    first: dict[Any, int] = {}
    numbers: Iterable[Any] = zip(frame["customer"], frame["time"], strict=True)
    return np.array(
        [
            place if customer is None or time != time else first.setdefault((customer, time), place)
            for place, (customer, time) in enumerate(numbers)
        ],
        dtype=np.int64,
    )
