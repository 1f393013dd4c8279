"""Tables with a column of times as evenly spaced series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.config.nearest import suggest
from pipeline.data.series.moments import instants, moments_of
from pipeline.data.tables.dates import dates_of, form_of_dates
from pipeline.data.tables.guesses import Guess
from pipeline.data.tables.reading import Reading, column_of, find_reading
from pipeline.data.tables.values import Column, Table
from pipeline.errors import UserError

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

    @property
    def names(self) -> list[str]:
        """Every column that is needed."""
        return [self.time, *([self.key] if self.key is not None else []), *self.numbers]


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


def find_readings(table: Table, columns: Columns) -> tuple[dict[str, Reading], list[Guess]]:
    """How the values of each column are understood: numbers, dates, true and false as people write them.

    A series has no gaps: unlike in a table of samples, a word that is none of these is an error when it is read.

    Args:
        table: The rows, each a time (and series).
        columns: Which column is what.

    Returns:
        The readings by name, and what was guessed to find them.

    Raises:
        UserError: A column is missing, or cannot be one of times.
    """
    _require(table, columns)
    found: dict[str, Reading] = {}
    guesses: list[Guess] = []
    for name in columns.names:
        column = _column(table, name)
        reading, more = find_reading(
            column, None, name, table.how, categorical=name == columns.key, folds=False
        )
        if name == columns.time:
            reading = _of_times(reading, column, name, table.source)
        elif name != columns.key and reading.kind not in ("number", "truth"):
            reading, more = find_reading(column, None, name, table.how, numeric=True)
        found[name] = replace(reading, missing=(), any_missing=False)
        # The keys that decide otherwise in a table of samples are not a series'.
        guesses += [
            replace(guess, key="", effect="" if guess.key else guess.effect) for guess in more if guess.costly
        ]
    return _with_even_dates(table, columns, found, guesses)


def _of_times(reading: Reading, column: Column, name: str, source: str) -> Reading:
    if reading.kind in ("date", "number"):
        return reading
    words = column.words
    odd = next((word for word, other in zip(words, np.isnan(dates_of(words)), strict=True) if other), "")
    raise UserError(
        f"data.time={name}: {source} has {odd!r}, which is no date; expected dates like 2026-03-01, or 0, 1, 2 …"
    )


def _with_even_dates(
    table: Table, columns: Columns, found: dict[str, Reading], guesses: list[Guess]
) -> tuple[dict[str, Reading], list[Guess]]:
    """Where dates like 1/2/2024 may be read in two ways, the one in which they are evenly spaced."""
    reading, column = found[columns.time], _column(table, columns.time)
    if reading.kind != "date" or column.kind != "text" or not form_of_dates(column.words)[1]:
        return found, guesses
    even = []
    for form in ("dmy", "mdy"):
        tried = {**found, columns.time: replace(reading, form=form)}
        try:
            lines_of(table, replace(columns, known=(), past=()), tried)
        except UserError:
            continue
        even.append(tried)
    if len(even) != 1:
        return found, guesses
    return even[0], [guess for guess in guesses if columns.time not in guess.columns]


def lines_of(
    table: Table, columns: Columns, readings: Mapping[str, Reading] | None = None, zone: str | None = None
) -> list[Line]:
    """The series of a table, sorted by name and time.

    Args:
        table: A row a time (and series).
        columns: Which column is what.
        readings: How each column is understood, see :func:`find_readings`; None finds out.
        zone: Zone of the times, see :func:`~pipeline.data.series.moments.moments_of`.

    Raises:
        UserError: A column is missing, a time or a number cannot be read, times are not evenly spaced or occur twice,
            or the target has gaps.
    """
    _require(table, columns)
    if not len(table):
        raise UserError(f"{table.source} holds no rows")
    readings = find_readings(table, columns)[0] if readings is None else readings
    times = _times(table, _read(table, columns.time, readings), columns.time, zone)
    values = np.column_stack([_read(table, name, readings).values for name in columns.numbers])
    names, codes = _keys(table, columns, readings)
    # One sort puts every series together in its order of time.
    order = np.lexsort((instants(times), codes))
    ends = np.searchsorted(codes[order], np.arange(1, len(names)))
    parts = np.split(order, ends)
    return [
        _line(times[rows], values[rows], columns, key, table.source)
        for key, rows in zip(names, parts, strict=True)
    ]


def _require(table: Table, columns: Columns) -> None:
    asked = {"target": [columns.target], "time": [columns.time], "known": columns.known, "past": columns.past}
    asked["key"] = [] if columns.key is None else [columns.key]
    for setting, names in asked.items():
        for name in names:
            if name not in table.names:
                near = suggest(name, table.names)
                raise UserError(f"data.{setting}={name}: {table.source} has no column of that name. {near}")


def _column(table: Table, name: str) -> Column:
    try:
        return table.column(name)
    except TypeError as error:
        raise UserError(f"{table.source}: the column {name!r} cannot be used: {error}") from None


def _read(table: Table, name: str, readings: Mapping[str, Reading]) -> Column:
    _column(table, name)
    try:
        return column_of(table, name, readings[name])
    except UserError as error:
        raise UserError(f"{table.source}: {error}") from None


def _keys(table: Table, columns: Columns, readings: Mapping[str, Reading]) -> tuple[list[str], np.ndarray]:
    """The names of the series in order, and the place of each row's among them."""
    if columns.key is None:
        return [""], np.zeros(len(table), dtype=np.int64)
    column = _read(table, columns.key, readings).as_text()
    if column.missing.any():
        raise UserError(f"data.key={columns.key}: {table.source} has rows without a {columns.key}")
    used, codes = np.unique(column.values, return_inverse=True)
    names, places = np.unique([column.words[code].strip() for code in used], return_inverse=True)
    return names.tolist(), places[codes]


def _line(times: Any, values: np.ndarray, columns: Columns, key: str, source: str) -> Line:
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
    there = np.flatnonzero(~np.isnan(values[:, 0]))
    if not len(there):
        raise UserError(f"{where}: the column {columns.target} holds no number")
    known = int(there[-1]) + 1
    first = int(there[0])
    times, values, known = times[first:], values[first:], known - first
    _check_gaps(times, values, known, columns, where)
    return Line(key, times, values, known)


def _times(table: Table, column: Column, name: str, zone: str | None) -> Any:
    import pandas as pd

    if column.missing.any():
        raise UserError(f"data.time={name}: {table.source} has rows without a date")
    if column.kind == "date":
        return moments_of(table, name, column, zone)
    if not column.whole:
        raise UserError(
            f"data.time={name}: {table.source} has times that are no whole numbers; expected dates, or 0, 1, 2 …"
        )
    return pd.Index(column.values.astype(np.int64))


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
    zone, name = times.tz, step.split("-")[0].lstrip("0123456789")
    if zone is None or name in ("h", "min", "s", "ms", "us", "ns"):
        return pd.date_range(times[-1], periods=count + 1, freq=step)[1:]
    # Days go by the clock of the place, which may leave out a midnight.
    wall = pd.date_range(times[-1].tz_localize(None), periods=count + 1, freq=step)[1:]
    return wall.tz_localize(zone, ambiguous=np.ones(count, dtype=bool), nonexistent="shift_forward")


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
    names = calendar_names(step)
    if "weekday" in names:
        parts += [np.eye(7)[times.dayofweek.to_numpy()]]
    turns = [2 * np.pi * (times.dayofyear.to_numpy() - 1) / 365.25]
    if "hour" in names:
        turns.append(2 * np.pi * (times.hour.to_numpy() + times.minute.to_numpy() / 60) / 24)
    parts += [np.column_stack([np.sin(turn), np.cos(turn)]) for turn in turns]
    return np.concatenate(parts, 1)


def calendar_names(step: str | int) -> list[str]:
    """What each column of :func:`calendar` is about."""
    if isinstance(step, int):
        return []
    name = step.split("-")[0].lstrip("0123456789")
    by_hour = name in ("min", "s", "h")
    weekdays = ["weekday"] * 7 if by_hour or name in ("D", "B") else []
    return [*weekdays, *["time of the year"] * 2, *["hour"] * (2 if by_hour else 0)]


def shown(time: Any) -> str:
    """A time as it would be typed."""
    return str(time).removesuffix(" 00:00:00")


def checked_names(names: Sequence[str] | str | None) -> tuple[str, ...]:
    """Names of columns, of which one alone need not be in a list."""
    return () if not names else (names,) if isinstance(names, str) else tuple(map(str, names))
