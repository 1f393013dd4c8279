"""Series whose times have a zone: their days and hours are those of the place, and forecasts are given in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.data.encoders import restored
from pipeline.data.series.encoder import ForecastEncoder
from pipeline.data.series.series import Series


def fitted(path: Path, times: Any, horizon: int = 3) -> tuple[ForecastEncoder, pd.DataFrame]:
    """The encoder (saved and read again) of a series at some times, and its table."""
    frame = pd.DataFrame({"date": times, "units": np.arange(len(times)) % 7 + 1.0})
    if path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)
    data = Series(path=str(path), target="units", time="date", horizon=horizon, window=24)
    data.setup()
    encoder = restored(data.encoder.to_state())
    assert isinstance(encoder, ForecastEncoder)
    return encoder, frame


def ahead(encoder: ForecastEncoder, rows: pd.DataFrame) -> list[str]:
    told: list[str] = encoder.unfolded(rows, pd.DataFrame({"prediction": [[1.0, 2.0, 3.0]]}))["date"].tolist()
    return told


def weekdays(encoder: ForecastEncoder, rows: pd.DataFrame) -> list[int]:
    days: list[int] = encoder.encode(rows)[0, :, 2:9].argmax(1).tolist()
    return days


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_days_at_one_offset_stay_the_days_that_were_written(tmp_path: Path, name: str) -> None:
    days = pd.date_range("2024-01-01", periods=100)
    encoder, frame = fitted(tmp_path / name, days.strftime("%Y-%m-%dT00:00:00+01:00"))
    assert encoder.step == "D" and encoder.zone == "+01:00"
    assert ahead(encoder, frame) == [f"2024-04-{day} 00:00:00+01:00" for day in (10, 11, 12)]
    expected = pd.date_range(days[-24], periods=27).dayofweek.tolist()
    assert weekdays(encoder, frame) == expected
    # The same days without an offset are of the same place.
    plain = frame.assign(date=days.strftime("%Y-%m-%d"))
    assert ahead(encoder, plain) == ahead(encoder, frame) and weekdays(encoder, plain) == expected


@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
def test_days_of_a_place_are_even_over_a_clock_change(tmp_path: Path, name: str) -> None:
    days = pd.date_range("2024-01-01", periods=100, tz="Europe/Berlin")
    encoder, frame = fitted(tmp_path / name, days)
    assert encoder.step == "D"
    assert weekdays(encoder, frame) == pd.date_range(days[-24], periods=27).dayofweek.tolist()
    # A file of texts tells the offsets, but not the zone that they come from.
    offset = " 00:00:00+02:00" if name == "a.parquet" else ""
    assert ahead(encoder, frame) == [f"2024-04-{day}{offset}" for day in (10, 11, 12)]
    # What is kept as an example is read as the file was.
    assert ahead(encoder, encoder.example()) == ahead(encoder, frame)


def test_a_midnight_that_the_clock_leaves_out_is_an_hour_later(tmp_path: Path) -> None:
    days = pd.date_range("2024-05-30", "2024-09-06", tz="America/Santiago")
    encoder, frame = fitted(tmp_path / "a.parquet", days)
    told = ["2024-09-07 00:00:00-04:00", "2024-09-08 01:00:00-03:00", "2024-09-09 00:00:00-03:00"]
    assert ahead(encoder, frame) == told


def test_hours_of_a_place_are_even_over_a_clock_change(tmp_path: Path) -> None:
    hours = pd.date_range("2024-03-30", periods=100, freq="h", tz="Europe/Berlin")
    encoder, frame = fitted(tmp_path / "a.parquet", hours)
    assert encoder.step == "h"
    assert ahead(encoder, frame)[0] == "2024-04-03 05:00:00+02:00"
    turn = 2 * np.pi * pd.date_range(hours[-24], periods=27, freq="h").hour.to_numpy() / 24
    found = encoder.encode(frame)[0, :, 11:13].numpy()
    assert found == pytest.approx(np.column_stack([np.sin(turn), np.cos(turn)]), abs=1e-6)
    encoder, frame = fitted(tmp_path / "a.csv", hours)
    assert ahead(encoder, frame)[0] == "2024-04-03 03:00:00+00:00"


@pytest.mark.parametrize("unit", ["us", "ns"])
@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
def test_times_closer_than_a_millisecond_are_apart(tmp_path: Path, unit: str, name: str) -> None:
    times = pd.date_range("2024-01-01", periods=100, freq=f"250{unit}", unit="ns")
    encoder, frame = fitted(tmp_path / name, times)
    assert encoder.step == f"250{unit}"
    assert ahead(encoder, frame)[0] == str(times[-1] + pd.Timedelta(250, unit))


def test_a_model_of_an_earlier_version_reads_times_by_utc(tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=100).strftime("%Y-%m-%dT00:00:00+01:00")
    encoder, frame = fitted(tmp_path / "a.csv", days)
    state = {key: value for key, value in encoder.to_state().items() if key != "zone"}
    old = restored(state)
    assert isinstance(old, ForecastEncoder) and ahead(old, frame)[0] == "2024-04-09 23:00:00"


def test_months_of_pandas_are_their_first_days(tmp_path: Path) -> None:
    months = pd.date_range("2015-01-01", periods=100, freq="MS").strftime("%Y-%m-%d")
    encoder, frame = fitted(tmp_path / "a.csv", months)
    asked = frame.assign(date=pd.period_range("2015-01", periods=100, freq="M"))
    assert ahead(encoder, asked) == ["2023-05-01", "2023-06-01", "2023-07-01"]
