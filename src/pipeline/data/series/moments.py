"""Dates and times of a series by the clock of the place that they are from.

Days, weeks and hours of the day are those of a place: in UTC, midnight of 1 January in Berlin is the year before.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data.tables.values import Column, Table, is_text

if TYPE_CHECKING:
    import pandas as pd

AS_WRITTEN = ""
"""Zone of times that are taken as their own clock shows them, whatever offset from UTC is written beside them."""

_OFFSET = re.compile(r"\d{4}-\d\d-\d\d[T ]\d[\d:.,]*?\s*(?:(Z)|([+-]\d\d):?(\d\d)?)", re.IGNORECASE)
_FINE = re.compile(r":\d\d[.,]\d{4}")


def zone_of(table: Table, name: str) -> str:
    """The zone of a column of dates: its own one, or the offset from UTC that all its texts have.

    Texts of several offsets, as a clock change leaves them, are of a zone that nobody names: dates at one time of day
    are taken as written (their days are evenly spaced), others by UTC (their hours are).

    Args:
        table: The rows.
        name: The column.

    Returns:
        A zone as pandas takes it, :data:`AS_WRITTEN` where there is none.
    """
    import pyarrow as pa

    kind = table.arrow.column(name).type
    if pa.types.is_timestamp(kind):
        return kind.tz or AS_WRITTEN
    if not is_text(table.arrow.column(name)):
        return AS_WRITTEN
    column = table.column(name)
    words = [column.words[code] for code in np.unique(column.values[column.values >= 0])]
    offsets = {offset_of(word) for word in words}
    if len(offsets) <= 1:
        return next(iter(offsets), None) or AS_WRITTEN
    clocks = {_clock(word) for word in words}
    return AS_WRITTEN if len(clocks) == 1 else "UTC"


def offset_of(word: str) -> str | None:
    """The offset from UTC at the end of a time like 2024-01-31T12:00:00+0100, as ``+01:00``; None where it has none."""
    found = _OFFSET.fullmatch(word.strip())
    if found is None:
        return None
    hours, minutes = found[2], found[3] or "00"
    return "UTC" if found[1] or (hours[1:], minutes) == ("00", "00") else f"{hours}:{minutes}"


def _clock(word: str) -> str:
    return re.split(r"(?<=\d)(?:Z|[+-])", word.strip()[10:], flags=re.IGNORECASE)[0].strip()


def moments_of(table: Table, name: str, column: Column, zone: str | None) -> pd.DatetimeIndex:
    """The times of a column of dates, to the millisecond or as finely as they differ.

    Args:
        table: The rows.
        name: The column.
        column: The same column as it was read: seconds since 1970, by UTC where an offset is known.
        zone: Zone that they are given in: :data:`AS_WRITTEN`, or one as pandas takes it. Times without an offset are
            of this zone. None is UTC, without saying so (models saved by earlier versions).
    """
    import pandas as pd
    import pyarrow as pa

    raw = table.arrow.column(name)
    offsets = np.zeros(len(table), dtype=np.int64)
    placed = False
    if pa.types.is_timestamp(raw.type):
        found = _coarse(pd.DatetimeIndex(raw.cast(pa.timestamp(raw.type.unit)).to_numpy()))
        if placed := raw.type.tz is not None:
            offsets = _seconds_off(found, raw.type.tz)
    else:
        found = pd.DatetimeIndex((column.values * 1e3).round().astype("datetime64[ms]"))
        text = table.column(name)
        if text.kind == "text":
            found = _fine(text, found)
            named = [offset_of(word) for word in text.words]
            placed = any(offset is not None for offset in named)
            offsets = np.array([_seconds(offset) for offset in named], dtype=np.int64)[text.values]
    if zone is None:
        return found
    if zone == AS_WRITTEN:
        return found + pd.to_timedelta(offsets, unit="s").as_unit("s") if placed else found
    if placed:
        return found.tz_localize("UTC").tz_convert(zone)
    return found.tz_localize(zone, ambiguous=np.ones(len(found), dtype=bool), nonexistent="shift_forward")


def instants(times: Any) -> np.ndarray:
    """Times as numbers or moments of NumPy that can be sorted and compared; those with a zone by UTC."""
    found: np.ndarray = (
        times.tz_convert(None) if getattr(times, "tz", None) is not None else times
    ).to_numpy()
    return found


def _coarse(found: pd.DatetimeIndex) -> pd.DatetimeIndex:
    rounded = found.as_unit("ms")
    return rounded if (rounded == found).all() else found


def _fine(text: Column, found: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """The same times with what of their texts is below a millisecond."""
    import pandas as pd

    if not any(_FINE.search(word) for word in text.words):
        return found
    words = pd.Series([word.strip() for word in text.words], dtype=object)
    exact = pd.DatetimeIndex(pd.to_datetime(words, format="ISO8601", errors="coerce", utc=True))[text.values]
    return found if exact.hasnans else _coarse(exact.tz_convert(None))


def _seconds_off(found: pd.DatetimeIndex, zone: str) -> np.ndarray:
    local = found.tz_localize("UTC").tz_convert(zone).tz_localize(None)
    return np.asarray((local - found).total_seconds(), dtype=np.int64)


def _seconds(offset: str | None) -> int:
    if offset is None or offset == "UTC":
        return 0
    size = int(offset[1:3]) * 3600 + int(offset[4:6]) * 60
    return -size if offset[0] == "-" else size
