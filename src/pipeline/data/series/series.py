"""A series of one's own: windows of a table, split by time, to forecast the steps ahead."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.core.module import DataModule
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Rows
from pipeline.data.series.encoder import ForecastEncoder, level_of
from pipeline.data.series.moments import instants, zone_of
from pipeline.data.series.reading import (
    Columns,
    Line,
    checked_names,
    find_readings,
    lines_of,
    season_of,
    shown,
    step_of,
)
from pipeline.data.tables.files import read_table
from pipeline.data.tables.formats import TableFormat, file_format
from pipeline.data.tables.guesses import Guess, say
from pipeline.data.tables.values import Table
from pipeline.errors import UserError
from pipeline.settings import BELOW_ONE, PATH_OR_NULL, FlagOrNull, Number, Text, Texts

if TYPE_CHECKING:
    from pipeline.data.core.baselines import Baseline


class Windows(Rows):
    """Windows of one or several series.

    Args:
        x: Each window, and what is known of the steps ahead, (windows, window + horizon, features).
        y: What came, (windows, horizon), in the target's unit.
        begin: Name of each window's series, empty where there is one, and the time of its first step ahead.
    """

    def __init__(self, x: Tensor, y: Tensor, begin: list[tuple[str, Any]]) -> None:
        super().__init__(x, y)
        self.begin = begin

    def last(self, most: int) -> dict[int, str]:
        """Numbers of at most so many of the last windows, with what they are of: of several series one each."""
        names = list(dict.fromkeys(name for name, _ in self.begin))
        if len(names) == 1:
            rows = list(range(len(self)))[-most:]
        else:
            final = {name: row for row, (name, _) in enumerate(self.begin)}
            rows = [final[name] for name in names[:most]]
        return {
            row: ", from ".join(filter(None, [self.begin[row][0], shown(self.begin[row][1])])) for row in rows
        }


_COLUMN = Text("a column's name", null=True)
_COLUMNS = Texts("names of columns, like [first,second]", alone=True)


class Series(DataModule):
    """Numbers over time in a table, of which the next ``horizon`` steps are forecast at once.

    The latest part of the time tests, the part before it validates; there each step is forecast once, so that windows
    do not overlap in what they predict. What a model learns is how far a step is from what it was a season before.

    Args:
        path: The table: a row a time (and series).
        target: Column with the numbers to forecast.
        time: Column with evenly spaced dates, times or whole numbers.
        key: Column that tells several series apart, None for one series.
        horizon: Number of steps ahead.
        window: Number of steps that a forecast is made from; ``auto`` follows from season and horizon.
        season: Number of steps in a season; ``auto`` follows from the step's length: 7 for days, 12 for months.
        known: Columns that are known ahead, like holidays.
        past: Columns that are known up to now alone.
        test_fraction: Share of the time, at its end, that is held out for the test.
        validation_fraction: Share of what is left, at its end, that is held out for validation.
        target_unit: Unit of the target.
        format: ``csv``, ``tsv``, ``parquet``, ``jsonl``, or ``auto``: by the file's extension.
        delimiter: Character between a CSV's values; None is a comma (a tabulator for TSV).
        encoding: Encoding of a CSV (UTF-16 is found out).
        decimal: Decimal mark of a CSV's numbers; a decimal comma is found out column by column.
        header: Whether the first line names the columns; None finds out.
        sheet: Name or number (from 0) of the sheet of a workbook; None is the first.
        **shared: Settings that every data set takes, see :class:`DataModule`.

    Raises:
        UserError: A setting does not fit the table.
    """

    encoder: ForecastEncoder

    def __init__(
        self,
        path: Annotated[str | None, PATH_OR_NULL] = None,
        target: Annotated[str | None, _COLUMN] = None,
        time: Annotated[str | None, _COLUMN] = None,
        key: Annotated[str | None, _COLUMN] = None,
        horizon: Annotated[int, Number(1, whole=True)] = 14,
        window: Annotated[int | str, Number(1, whole=True, words=("auto",))] = "auto",
        season: Annotated[int | str, Number(1, whole=True, words=("auto",))] = "auto",
        known: Annotated[list[str] | str, _COLUMNS] = (),  # type: ignore[assignment]
        past: Annotated[list[str] | str, _COLUMNS] = (),  # type: ignore[assignment]
        test_fraction: Annotated[float, BELOW_ONE] = 0.15,
        validation_fraction: float = 0.15,
        target_unit: str = "",
        format: str = "auto",
        delimiter: str | None = None,
        encoding: str = "utf-8",
        decimal: str = ".",
        header: Annotated[bool | None, FlagOrNull()] = None,
        sheet: str | int | None = None,
        name: str = "series",
        **shared: Any,
    ) -> None:
        super().__init__(name=name, validation_fraction=validation_fraction, **shared)
        if self.folds:
            raise UserError(f"data.folds={self.folds}: a series is split by time; drop data.folds")
        if self.balance != "none":
            raise UserError(f"data.balance={self.balance} is for classes; a series has numbers")
        if target is None or time is None:
            missing = "data.target" if target is None else "data.time"
            raise UserError(f"{missing} is not given: name the column with the {missing[5:]}")
        self.path, self.horizon, self.asked_window, self.asked_season = path, horizon, window, season
        self.columns = Columns(target, time, key, checked_names(known), checked_names(past))
        self.test_fraction, self.target_unit = test_fraction, target_unit
        self.format = TableFormat(format, delimiter, encoding, decimal, header, sheet)
        self.guesses: list[Guess] = []

    def table(self) -> Table:
        """The rows.

        Raises:
            UserError: There is no such file, or it is no table.
        """
        if self.path is None:
            raise UserError("data.path is not given: the file with the series")
        self.source = str(self.path)
        # Names of series like 007 stay as they are written.
        texts = frozenset(filter(None, [self.columns.key]))
        path = Path(self.path).expanduser()
        table = read_table(path, self.format, texts)
        time = self.columns.time
        # Arrow's readers of text turn times with an offset into UTC: which offset it was is lost.
        lossy = file_format(path, self.format) in ("csv", "tsv", "jsonl")
        if lossy and time in table.names and str(table.arrow.column(time).type).startswith("timestamp"):
            table = read_table(path, self.format, texts | {time})
        return table

    def setup(self, stage: str | None = None) -> None:
        table = self.table()
        readings, self.guesses = find_readings(table, self.columns)
        zone = zone_of(table, self.columns.time)
        lines = lines_of(table, self.columns, readings, zone)
        say(self.guesses, self.source)
        for line in lines:
            line.times, line.values = line.times[: line.known], line.values[: line.known]
        step = step_of(lines[0].times)
        if not step or any(step_of(line.times) != step for line in lines):
            raise UserError(f"{self.source}: the series have different steps, or fewer than three rows")
        season = season_of(step) if self.asked_season == "auto" else int(self.asked_season)
        window = (
            max(season, self.horizon, min(4 * season, 60))
            if self.asked_window == "auto"
            else int(self.asked_window)
        )
        if window < season:
            raise UserError(f"data.window={window}: expected at least a season, {season} steps")
        validation, test = self._cuts(lines, window)
        learn = test if self.train_on_all else validation
        self.encoder = self._fitted(lines, learn, step, season, window)
        self.encoder.readings, self.encoder.written, self.encoder.zone = readings, table.how, zone
        table.release()
        steps = self.horizon
        self.train = self._rows(lines, None, learn, 1)
        held_out = validation is not None and (test is None or validation < test)
        self.validation = self._rows(lines, validation, test, steps) if held_out else None
        self.test = None if test is None else self._rows(lines, test, None, steps)
        self.spec = Spec(
            task="regression",
            input="series",
            input_shape=(window + steps, self.encoder.features),
            outputs=steps,
            target_name=self.columns.target,
            target_unit=self.target_unit,
            target_std=self.encoder.unit,
            horizon=steps,
        )

    def _cuts(self, lines: list[Line], window: int) -> tuple[Any, Any]:
        """The first time of the validation and of the test, each part long enough for a forecast; None for the end."""
        times = np.unique(np.concatenate([instants(line.times) for line in lines]))
        n = len(times)
        held_out = max(self.horizon, round(n * self.test_fraction)) // self.horizon * self.horizon
        held_out = held_out if self.test_fraction else 0
        learn = n - held_out
        validated = max(self.horizon, round(learn * self.validation_fraction)) // self.horizon * self.horizon
        validated = validated if self.validation_fraction else 0
        needed = window + self.horizon
        if learn - validated < needed + 1:
            least = needed + 1 + self.horizon * (2 if self.validation_fraction else 1)
            raise UserError(
                f"{self.source} has {n} times, too few for a horizon of {self.horizon} steps from a window of "
                f"{window}: that takes at least {least}; lower data.horizon or data.window, or bring a longer series"
            )
        test = times[learn] if held_out else None
        return times[learn - validated] if validated else test, test

    def _fitted(
        self, lines: list[Line], until: Any, step: str | int, season: int, window: int
    ) -> ForecastEncoder:
        known = [
            line.values if until is None else line.values[instants(line.times) < until] for line in lines
        ]
        # A series that begins after them is known by what its first forecast looks back on.
        levels = {
            line.key: level_of((rows if len(rows) else line.values[:window])[:, 0])
            for line, rows in zip(lines, known, strict=True)
        }
        together = np.concatenate(known)
        scales = [level_of(together[:, number]) for number in range(1, together.shape[1])]
        columns, first = self.columns, lines[0]
        ahead = self.horizon if columns.known else 0
        last: dict[str, list[Any]] = {
            columns.time: [
                shown(t) if not isinstance(step, int) else int(t) for t in first.times[-window - ahead :]
            ]
        }
        if columns.key is not None:
            last[columns.key] = [first.key] * len(last[columns.time])
        for number, name in enumerate(columns.numbers):
            values: list[float | None] = first.values[-window - ahead :, number].tolist()
            last[name] = values if name in columns.known or not ahead else [*values[:-ahead], *[None] * ahead]
        names = {"target": columns.target, "time": columns.time, "key": columns.key}
        named = {**names, "known": list(columns.known), "past": list(columns.past)}
        unit = level_of(together[:, 0])[1]
        return ForecastEncoder(named, step, season, window, self.horizon, levels, unit, scales, last)

    def _rows(self, lines: list[Line], start: Any, end: Any, every: int) -> Windows:
        """Windows whose targets all lie from ``start`` to before ``end``, every so many steps."""
        window, steps = self.encoder.window, self.horizon
        inputs, targets, begin = [], [], []
        for line in lines:
            times = instants(line.times)
            first = window if start is None else max(window, int(np.searchsorted(times, start)))
            last = (len(times) if end is None else int(np.searchsorted(times, end))) - steps
            origins = np.arange(first, last + 1, every)
            if len(origins):
                inputs.append(self.encoder.rows(line, origins))
                targets.append(np.stack([line.values[origin : origin + steps, 0] for origin in origins]))
                begin += [(line.key, line.times[origin]) for origin in origins]
        if not inputs:
            raise UserError(
                f"{self.source}: no series is long enough for a window of {window} and {steps} steps ahead"
            )
        x, y = torch.from_numpy(np.concatenate(inputs)), torch.from_numpy(np.concatenate(targets)).float()
        return Windows(x, y, begin)

    def baselines(self) -> dict[str, Baseline]:
        from pipeline.data.series.baselines import as_last_season, as_last_time

        return {"as last season": as_last_season, "as last time": as_last_time}

    def baseline_values(self, split: Rows) -> Tensor:
        from pipeline.data.series.baselines import last_season

        return (last_season(split, self.spec) - split.y).abs().mean(1)

    def plots(self, model: Any, folder: Path) -> list[Path]:
        from pipeline.data.series.plots import forecast

        split = self.test or self.validation
        if split is None:
            return []
        assert isinstance(split, Windows)
        return [forecast(model, split, split.last(3), self.spec, folder / "forecast.png")]
