"""Tables with a column of times as evenly spaced series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.config.nearest import suggest
from pipeline.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

SEASONS = {"min": 60, "h": 24, "D": 7, "B": 5, "W": 52, "M": 12, "Q": 4}
"""Steps in the season that is usual for a step's length: a day of hours, a week of days, a year of months."""


@dataclass(frozen=True)
class Columns:
    """Which column is what.

    Args:
        target: Column with the numbers to forecast.
        time: Column with dates, times or whole numbers.
        key: Column that tells several series apart, None for one series.
        known: Columns of numbers that are known ahead (a holiday, a planned price).
        past: Columns of numbers that are known up to now alone (the weather as it was).
    """

    target: str
    time: str
    key: str | None = None
    known: tuple[str, ...] = ()
    past: tuple[str, ...] = ()

    @property
    def numbers(self) -> tuple[str, ...]:
        """Every column of numbers, the target first."""
        return (self.target, *self.known, *self.past)


@dataclass
class Line:
    """One series, evenly spaced.

    Args:
        key: Its name, empty where there is one series.
        times: Its times, (steps,).
        values: Its numbers, (steps, columns) in the order of :attr:`Columns.numbers`; of steps ahead the target and
            past columns are NaN.
        known: Number of steps whose target is known; those after it are ahead.
    """

    key: str
    times: Any
    values: np.ndarray
    known: int


def lines_of(frame: pd.DataFrame, columns: Columns, source: str) -> list[Line]:
    """The series of a table, sorted by time.

    Args:
        frame: A row a time (and series).
        columns: Which column is what.
        source: What the table is called in messages.

    Raises:
        UserError: A column is missing, a time or a number cannot be read, times are not evenly spaced or occur twice,
            or the target has gaps.
    """
    _require(frame, columns, source)
    keys = [None] if columns.key is None else sorted(frame[columns.key].astype(str).unique())
    if not len(frame):
        raise UserError(f"{source} holds no rows")
    lines = []
    for key in keys:
        rows = frame if key is None else frame[frame[columns.key].astype(str) == key]
        lines.append(_line(rows, columns, "" if key is None else key, source))
    return lines


def _require(frame: pd.DataFrame, columns: Columns, source: str) -> None:
    asked = {"target": [columns.target], "time": [columns.time], "known": columns.known, "past": columns.past}
    asked["key"] = [] if columns.key is None else [columns.key]
    for setting, names in asked.items():
        for name in names:
            if name not in frame.columns:
                near = suggest(name, map(str, frame.columns))
                raise UserError(f"data.{setting}={name}: {source} has no column of that name. {near}")


def _line(rows: pd.DataFrame, columns: Columns, key: str, source: str) -> Line:
    times = _times(rows[columns.time], columns.time, source)
    order = np.argsort(times.to_numpy(), kind="stable")
    times, rows = times[order], rows.iloc[order]
    where = f"{source}{f', {columns.key}={key}' if key else ''}"
    doubled = times[1:][times[1:] == times[:-1]]
    if len(doubled):
        hint = (
            ""
            if columns.key
            else "; if the table holds several series, name the column that tells them: data.key"
        )
        raise UserError(f"{where}: {columns.time} {shown(doubled[0])} occurs more than once{hint}")
    _check_even(times, columns.time, where)
    values = np.column_stack([_numbers(rows[name], name, source) for name in columns.numbers])
    there = np.flatnonzero(~np.isnan(values[:, 0]))
    if not len(there):
        raise UserError(f"{where}: the column {columns.target} holds no number")
    known = int(there[-1]) + 1
    first = int(there[0])
    times, values, known = times[first:], values[first:], known - first
    _check_gaps(times, values, known, columns, where)
    return Line(key, times, values, known)


def _times(column: pd.Series, name: str, source: str) -> Any:
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        if column.isna().any() or (column != column.round()).any():
            raise UserError(
                f"data.time={name}: {source} has times that are no whole numbers; expected dates, or 0, 1, 2 …"
            )
        return pd.Index(column.astype("int64"))
    try:
        times = pd.DatetimeIndex(pd.to_datetime(column))
    except (ValueError, TypeError, OverflowError):
        parsed = pd.to_datetime(column, errors="coerce")
        wrong = column[parsed.isna()]
        example = wrong.iloc[0] if len(wrong) else column.iloc[0]
        raise UserError(
            f"data.time={name}: {source} has {example!r}, which is no date; expected dates like 2026-03-01"
        ) from None
    if times.hasnans:
        raise UserError(f"data.time={name}: {source} has rows without a date")
    return times


def step_of(times: Any) -> str | int:
    """The step from each time to the next: a frequency of pandas, or a whole number; empty where it is not one."""
    import pandas as pd

    if not isinstance(times, pd.DatetimeIndex):
        steps = np.diff(times.to_numpy())
        return int(steps[0]) if len(steps) and (steps == steps[0]).all() else ""
    found = pd.infer_freq(times) if len(times) > 2 else None
    if found is None and len(times) == 2:
        return "D" if times[1] - times[0] == pd.Timedelta(days=1) else ""
    return found or ""


def _check_even(times: Any, name: str, where: str) -> None:
    if len(times) < 3 or step_of(times):
        return
    import pandas as pd

    steps = pd.Series(times[1:] - times[:-1])
    usual = steps.mode()[0]
    odd = int(np.flatnonzero((steps != usual).to_numpy())[0])
    length = str(usual).replace(" 00:00:00", "")
    raise UserError(
        f"{where}: the times in {name} are not evenly spaced: most are {length} apart, but after {shown(times[odd])} "
        f"comes {shown(times[odd + 1])}; add the rows that are missing, or sum the table up by day, week or month"
    )


def _numbers(column: pd.Series, name: str, source: str) -> np.ndarray:
    import pandas as pd

    if column.dtype == bool:
        return column.to_numpy(dtype=np.float64)
    words = column
    if not pd.api.types.is_numeric_dtype(column):
        words = column.astype(object).replace({"true": 1, "false": 0, "True": 1, "False": 0})
    numbers = pd.to_numeric(words, errors="coerce")
    wrong = column[numbers.isna() & column.notna() & (column.astype(str).str.strip() != "")]
    if len(wrong):
        raise UserError(
            f"{source}: the column {name} has {wrong.iloc[0]!r}; expected numbers, or true and false"
        )
    return np.asarray(numbers.to_numpy(dtype=np.float64))


def _check_gaps(times: Any, values: np.ndarray, known: int, columns: Columns, where: str) -> None:
    for number, name in enumerate(columns.numbers):
        until = len(values) if name in columns.known else known
        gaps = np.flatnonzero(np.isnan(values[:until, number]))
        if len(gaps):
            raise UserError(
                f"{where}: {name} is missing at {shown(times[int(gaps[0])])} ({len(gaps)} of {until} rows); fill it in"
            )


def following(times: Any, step: str | int, count: int) -> Any:
    """The ``count`` times after the last one."""
    import pandas as pd

    if isinstance(step, int):
        return pd.Index(times[-1] + step * np.arange(1, count + 1))
    return pd.date_range(times[-1], periods=count + 1, freq=step)[1:]


def season_of(step: str | int) -> int:
    """Number of steps in the season that is usual for a step; 1 where none is."""
    if isinstance(step, int):
        return 1
    name = step.split("-")[0].lstrip("0123456789")
    if name != step.split("-")[0]:
        return 1
    return SEASONS.get(name, SEASONS.get(name.removesuffix("S").removesuffix("E"), 1))


def calendar(times: Any, step: str | int) -> np.ndarray:
    """What the calendar says of times: day of the week, hour and place in the year; nothing of whole numbers."""
    import pandas as pd

    if not isinstance(times, pd.DatetimeIndex):
        return np.zeros((len(times), 0))
    parts: list[np.ndarray] = []
    name = str(step).split("-")[0].lstrip("0123456789")
    if name in ("min", "s", "h", "D", "B"):
        parts += [np.eye(7)[times.dayofweek.to_numpy()]]
    turns = [2 * np.pi * (times.dayofyear.to_numpy() - 1) / 365.25]
    if name in ("min", "s", "h"):
        turns.append(2 * np.pi * (times.hour.to_numpy() + times.minute.to_numpy() / 60) / 24)
    parts += [np.column_stack([np.sin(turn), np.cos(turn)]) for turn in turns]
    return np.concatenate(parts, 1)


def shown(time: Any) -> str:
    """A time as it would be typed."""
    return str(time).removesuffix(" 00:00:00")


def checked_names(names: Sequence[str] | str | None) -> tuple[str, ...]:
    """Names of columns, of which one alone need not be in a list."""
    return () if not names else (names,) if isinstance(names, str) else tuple(map(str, names))
