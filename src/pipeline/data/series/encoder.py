"""From the end of a series to what a model takes, and from its answers to rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipeline.data.core.encoder import Encoder
from pipeline.data.series.reading import (
    Columns,
    Line,
    calendar,
    calendar_names,
    following,
    lines_of,
    shown,
    step_of,
)
from pipeline.data.tables.formats import TableFormat
from pipeline.data.tables.frames import table_of
from pipeline.data.tables.reading import Reading, state_of
from pipeline.data.tables.values import Table
from pipeline.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


class ForecastEncoder(Encoder):
    """A window of a series and the steps ahead as one tensor.

    Each step has the target (of steps ahead: what it was a season before), whether it is ahead, the past and known
    columns, the calendar, and the level and the scale of the series. Numbers are scaled by the training rows.

    Args:
        columns: Which column is what, as the arguments of :class:`~pipeline.data.series.reading.Columns`.
        step: Step from each time to the next, a frequency of pandas or a whole number.
        season: Number of steps in a season.
        window: Number of steps that a forecast is made from.
        horizon: Number of steps ahead.
        levels: Mean and standard deviation of the target by series.
        unit: Standard deviation of all targets.
        scales: Mean and standard deviation of each of the other columns.
        last: The end of a training series, as an example: columns of a table.
        readings: How each column is understood (arguments of :class:`~pipeline.data.tables.reading.Reading`); None, in
            models of earlier versions, finds out from each input.
        written: How the file is written that it was fitted on (arguments of
            :class:`~pipeline.data.tables.formats.TableFormat` that differ from the defaults).
        zone: Zone of the times, see :func:`~pipeline.data.series.moments.moments_of`.
    """

    kind = "forecast"
    takes_whole = True
    takes_tables = True

    def __init__(
        self,
        columns: dict[str, Any],
        step: str | int,
        season: int,
        window: int,
        horizon: int,
        levels: dict[str, list[float]],
        unit: float,
        scales: list[list[float]],
        last: dict[str, list[Any]],
        readings: Mapping[str, Reading | dict[str, Any]] | None = None,
        written: dict[str, Any] | None = None,
        zone: str | None = None,
    ) -> None:
        self.columns = Columns(
            **{**columns, "known": tuple(columns["known"]), "past": tuple(columns["past"])}
        )
        self.step, self.season, self.window, self.horizon = step, season, window, horizon
        self.levels, self.unit, self.scales, self.last = levels, unit, scales, last
        self.readings = (
            None if readings is None else {name: Reading.of(reading) for name, reading in readings.items()}
        )
        self.written, self.zone = TableFormat(**(written or {})), zone

    def rows(self, line: Line, origins: Any) -> np.ndarray:
        """Model input for some origins, the first step ahead each: (origins, window + horizon, features), float32."""
        columns = self.columns
        level, scale = self.levels.get(line.key) or level_of(line.values[: line.known, 0])
        target = (line.values[:, 0] - level) / scale
        others = np.nan_to_num((line.values[:, 1:] - self._means()) / self._deviations())
        dates = calendar(line.times, self.step)
        whole = np.concatenate([others, dates], 1)
        known = len(columns.known)
        found = np.zeros((len(origins), self.window + self.horizon, self.features), dtype=np.float32)
        ahead = np.arange(self.horizon)
        before = ahead - self.season * (ahead // self.season + 1)
        for number, origin in enumerate(origins):
            steps = slice(origin - self.window, origin + self.horizon)
            found[number, : self.window, 0] = target[origin - self.window : origin]
            found[number, self.window :, 0] = target[origin + before]
            found[number, self.window :, 1] = 1.0
            found[number, :, 2:-2] = whole[steps]
            found[number, self.window :, 2 + known : 2 + known + len(columns.past)] = 0.0
        found[:, :, -2:] = level / self.unit, scale / self.unit
        return found

    @property
    def features(self) -> int:
        """Numbers in a step."""
        return len(self.inputs())

    def inputs(self) -> list[str]:
        """What each number in a step is; empty for what only says where and how large a series is."""
        columns = self.columns
        return [columns.target, "", *columns.known, *columns.past, *calendar_names(self.step), "", ""]

    def _means(self) -> np.ndarray:
        return np.array([mean for mean, _ in self.scales])

    def _deviations(self) -> np.ndarray:
        return np.array([deviation for _, deviation in self.scales])

    def encode(self, raw: Any) -> torch.Tensor:
        found = [self.rows(line, [line.known])[0] for line in self._lines(raw)]
        return torch.from_numpy(np.stack(found))

    def _lines(self, raw: Any) -> list[Line]:
        """The series of a table, each with all its steps ahead."""
        table = table_of(raw, self.columns.names)
        table = Table(table.arrow, table.source, self.written)
        lines = lines_of(table, self.columns, self.readings, self.zone)
        for line in lines:
            where = f"the input{f', {self.columns.key}={line.key}' if line.key else ''}"
            if line.known < self.window:
                raise UserError(f"{where} has {line.known} rows; this model looks at the last {self.window}")
            if len(line.times) > 2 and step_of(line.times) != self.step:
                raise UserError(
                    f"{where} has another step ({step_of(line.times)}) than the training data ({self.step})"
                )
            ahead = len(line.times) - line.known
            if self.columns.known and ahead < self.horizon:
                raise UserError(
                    f"{where}: {', '.join(self.columns.known)} must be known for {self.horizon} steps after "
                    f"{shown(line.times[line.known - 1])}, but there are {ahead}: add rows without "
                    f"{self.columns.target}"
                )
            line.times = line.times[: line.known].append(
                following(line.times[: line.known], self.step, self.horizon)
            )
            values = np.full((line.known + self.horizon, line.values.shape[1]), np.nan)
            kept = min(len(values), len(line.values))
            values[:kept] = line.values[:kept]
            line.values = values
        return lines

    def unfolded(self, raw: Any, frame: pd.DataFrame) -> pd.DataFrame:
        """A row for each series and step ahead: its time, its series, the forecast and its interval."""
        import pandas as pd

        parts = []
        for line, (_, answer) in zip(self._lines(raw), frame.iterrows(), strict=True):
            times = [shown(time) for time in line.times[line.known :]]
            head = {self.columns.time: times}
            if self.columns.key is not None:
                head[self.columns.key] = [line.key] * len(times)
            parts.append(pd.DataFrame({**head, **{name: answer[name] for name in frame.columns}}))
        return pd.concat(parts, ignore_index=True)

    def state(self) -> dict[str, Any]:
        columns = self.columns
        return {
            "columns": {
                "target": columns.target,
                "time": columns.time,
                "key": columns.key,
                "known": list(columns.known),
                "past": list(columns.past),
            },
            **{
                name: getattr(self, name)
                for name in ("step", "season", "window", "horizon", "levels", "unit")
            },
            "scales": self.scales,
            "last": self.last,
            "readings": None
            if self.readings is None
            else {name: state_of(reading) for name, reading in self.readings.items()},
            "written": self.written.differences(),
            "zone": self.zone,
        }

    def example(self) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(self.last)

    def signature(self) -> dict[str, Any]:
        columns = self.columns
        texts = {columns.key, columns.time if not isinstance(self.step, int) else None}
        listed = [
            {"name": name, "dtype": "string" if name in texts else "any", "required": True}
            for name in columns.names
        ]
        return {"type": "columns", "columns": listed}


def level_of(values: np.ndarray) -> list[float]:
    """Mean and standard deviation (1 where it is 0) of a series."""
    return [float(values.mean()), float(values.std()) or 1.0]
