"""What a column becomes for a model: numbers scaled, gaps filled and flagged, dates unfolded, categories one-hot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from pipeline.data.tables.dates import dates_of
from pipeline.data.tables.reading import Reading
from pipeline.data.tables.values import Column, Kind
from pipeline.data.tables.words import NOT_AVAILABLE, numbers_of, spelling, truths_of

DAY = 86_400.0


@dataclass(frozen=True)
class NumberFeature:
    """A number: ``(value − shift) / scale``; a missing one is ``fill``, with a second input that says so.

    Args:
        name: of the column.
        fill: stands for a missing value (the mean of training; its median unless ``scaling`` is ``standard``).
        shift: subtracted.
        scale: divided by.
        flag: whether there is an input that is 1 where the value is missing (training had missing values).
        truth: the column is true and false.
        reading: how the column's values are understood; None where an earlier version saved the feature.
    """

    kind: ClassVar[str] = "number"
    name: str
    fill: float
    shift: float
    scale: float
    flag: bool
    truth: bool = False
    reading: Reading | None = None

    @property
    def understood(self) -> Reading:
        """How the column's values are understood."""
        return self.reading or Reading("truth" if self.truth else "number")

    @classmethod
    def fit(cls, name: str, column: Column, scaling: str, reading: Reading | None = None) -> NumberFeature:
        """From the training rows of the column, of which at least one is not missing."""
        missing = column.missing
        flag = bool(missing.any())
        values = column.values[~missing] if flag else column.values
        if scaling == "robust":
            low, fill, high = (float(value) for value in np.percentile(values, [25, 50, 75]))
            shift, scale = fill, high - low
        else:
            shift, scale = _mean_and_deviation(values) if scaling == "standard" else (0.0, 1.0)
            fill = shift if scaling == "standard" else float(np.median(values))
        return cls(name, fill, shift, scale if scale > 0 else 1.0, flag, column.truth, reading)

    @property
    def width(self) -> int:
        """Number of inputs."""
        return 1 + self.flag

    def inputs(self) -> list[str]:
        """What each input is."""
        return [self.name, f"{self.name} is missing"][: self.width]

    def write(self, column: Column, out: np.ndarray) -> None:
        """Fill ``out`` (width, rows) from a column of numbers."""
        missing = column.missing
        filled = np.where(missing, self.fill, column.values) if missing.any() else column.values
        out[0] = _float32(filled, self.shift, self.scale)
        if self.flag:
            out[1] = missing


@dataclass(frozen=True)
class DateFeature:
    """A moment: days since 1970 (scaled), its place in the year, the week and, for columns with hours, the day.

    The places are points on circles and, beside them, numbers: year, month, day of the month, day of the week (Monday
    is 0), day of the year, hour. Trees cut numbers; for others midnight has to lie next to noon's other side.

    Args:
        name: of the column.
        fill: days that stand for a missing moment.
        shift: subtracted from the days.
        scale: divided by.
        flag: whether there is an input that is 1 where the moment is missing.
        clock: the column has times of day.
        calendar: whether there are the numbers (models saved by earlier versions have none).
        reading: how the column's values are understood; None where an earlier version saved the feature.
    """

    kind: ClassVar[str] = "date"
    name: str
    fill: float
    shift: float
    scale: float
    flag: bool
    clock: bool
    calendar: bool = False
    reading: Reading | None = None

    @property
    def understood(self) -> Reading:
        """How the column's values are understood."""
        return self.reading or Reading("date")

    @classmethod
    def fit(cls, name: str, column: Column, reading: Reading | None = None) -> DateFeature:
        """From the training rows of the column, of which at least one is not missing."""
        seconds = column.values[~column.missing]
        shift, scale = _mean_and_deviation(seconds / DAY)
        clock = bool((seconds % DAY != 0).any())
        return cls(name, shift, shift, scale or 1.0, len(seconds) < len(column), clock, True, reading)

    @property
    def width(self) -> int:
        """Number of inputs."""
        return 5 + 2 * self.clock + len(self._numbers) + self.flag

    @property
    def _numbers(self) -> list[str]:
        return list(CALENDAR)[: 5 + self.clock] if self.calendar else []

    def inputs(self) -> list[str]:
        """What each input is."""
        circles = ["year", "week", "day"][: 2 + self.clock]
        names = [
            self.name,
            *(f"{self.name} {part} of {circle}" for circle in circles for part in ("sine", "cosine")),
            *(f"{self.name} {part}" for part in self._numbers),
        ]
        return names + [f"{self.name} is missing"] * self.flag

    def write(self, column: Column, out: np.ndarray) -> None:
        """Fill ``out`` (width, rows) from a column of dates."""
        missing = column.missing
        days = np.where(missing, self.fill, column.values / DAY)
        out[0] = _float32(days, self.shift, self.scale)
        place = 1
        for period in [365.2425, 7.0, 1.0][: 2 + self.clock]:
            angle = 2 * np.pi * (days % period) / period
            out[place] = np.where(missing, 0, np.sin(angle))
            out[place + 1] = np.where(missing, 0, np.cos(angle))
            place += 2
        parts = calendar(days) if self.calendar else {}
        for part in self._numbers:
            middle, spread = CALENDAR[part]
            if part == "year":
                middle, spread = 1970 + self.shift / 365.2425, max(1.0, self.scale / 365.2425)
            out[place] = np.where(missing, 0, (parts[part] - middle) / spread)
            place += 1
        if self.flag:
            out[-1] = missing


CALENDAR = {
    "year": (0.0, 1.0),
    "month": (6.5, 3.45),
    "day": (15.7, 8.8),
    "weekday": (3.0, 2.0),
    "day of year": (183.0, 105.4),
    "hour": (11.5, 6.92),
}
"""What a date is in the calendar, with the mean and deviation of each over a year (a year's follow from training)."""


def calendar(days: np.ndarray) -> dict[str, np.ndarray]:
    """Year, month, day of the month, day of the week (Monday is 0), day of the year (from 1) and hour.

    Args:
        days: Days since 1970, with fractions.
    """
    whole = np.floor(days)
    # NumPy's dates reach further than any calendar, but not to the end of the numbers.
    date = np.clip(whole, -1e7, 1e7).astype("datetime64[D]")
    year, month = date.astype("datetime64[Y]"), date.astype("datetime64[M]")
    return {
        "year": year.astype(np.int64) + 1970.0,
        "month": month.astype(np.int64) % 12 + 1.0,
        "day": (date - month.astype("datetime64[D]")).astype(np.int64) + 1.0,
        "weekday": (whole + 3) % 7,
        "day of year": (date - year.astype("datetime64[D]")).astype(np.int64) + 1.0,
        "hour": (days - whole) * 24,
    }


@dataclass(frozen=True)
class TextFeature:
    """A category: one input for each that is frequent enough, one for missing, one for all others, unseen ones too.

    Args:
        name: of the column.
        categories: the ones with an input of their own, most frequent first.
        gaps: whether missing has an input of its own (training had missing values); without it, missing is "other".
        written_as: ``number``, ``truth`` or ``date`` where the categories are some of these, however they are written
            (007 is 7); empty where they are words.
        reading: how the column's values are understood; None where an earlier version saved the feature.
    """

    kind: ClassVar[str] = "text"
    name: str
    categories: list[str] = field(default_factory=list)
    gaps: bool = False
    written_as: str = ""
    reading: Reading | None = None

    @property
    def understood(self) -> Reading:
        """How the column's values are understood."""
        return self.reading or Reading("text", folds=False, plain=True)

    @classmethod
    def fit(
        cls, name: str, column: Column, most: int, written_as: str = "", reading: Reading | None = None
    ) -> TextFeature:
        """From the training rows: the ``most`` most frequent categories that occur at least twice."""
        known = column.values[column.values >= 0]
        counts = np.bincount(known, minlength=len(column.words))
        folds = reading is not None and reading.folds
        words = canonical(column.words, counts.tolist()) if folds else list(column.words)
        together: dict[str, int] = {}
        for word, count in zip(words, counts.tolist(), strict=True):
            together[word] = together.get(word, 0) + count
        frequent = sorted((-count, word) for word, count in together.items() if count > 1)
        gaps = len(known) < len(column)
        return cls(name, [word for _, word in frequent[:most]], gaps, written_as, reading)

    @property
    def width(self) -> int:
        """Number of inputs."""
        return len(self.categories) + self.gaps + 1

    def inputs(self) -> list[str]:
        """What each input is."""
        names = [f"{self.name} = {category}" for category in self.categories]
        return names + [f"{self.name} is missing"] * self.gaps + [f"{self.name} = (other)"]

    def codes(self, column: Column) -> np.ndarray:
        """The input (0 … width − 1) that is 1 for each row."""
        words = self._spelt(column.words) if column.kind == "text" and self.written_as else None
        column = column.as_text()
        place = {category: code for code, category in enumerate(self.categories)}
        other = self.width - 1
        # The last entry is what −1, a missing value, takes.
        missing = len(self.categories) if self.gaps else other
        if self.understood.codes and not self.gaps:
            # Other programs take this code for missing; nothing else was missing here.
            missing = place.get(NOT_AVAILABLE, other)
        if self.understood.folds:
            folded = {spelling(category): code for code, category in enumerate(self.categories)}
            code_of_word = [folded.get(spelling(word), other) for word in words or column.words]
        else:
            code_of_word = [place.get(word, other) for word in words or column.words]
        return np.asarray(np.array([*code_of_word, missing], dtype=np.int32)[column.values])

    def _spelt(self, words: Sequence[str]) -> list[str]:
        """Words as the categories are written; those that are not of their kind stay as they are."""
        decimal = self.understood.decimal
        values = {
            "number": lambda: numbers_of(words, decimal),
            "truth": lambda: truths_of(words),
            "date": lambda: dates_of(words),
        }[self.written_as]()
        values[~np.isfinite(values)] = np.nan
        kind: Kind = "date" if self.written_as == "date" else "number"
        spelt = Column(kind, values, truth=self.written_as == "truth").as_text()
        return [
            word if code < 0 else spelt.words[code] for code, word in zip(spelt.values, words, strict=True)
        ]


def canonical(words: Sequence[str], counts: Sequence[int]) -> list[str]:
    """Each word as most rows spell it, without blanks around it (the first in the alphabet among equals)."""
    best: dict[str, tuple[int, str]] = {}
    together: dict[str, int] = {}
    for word, count in zip(words, counts, strict=True):
        together[word.strip()] = together.get(word.strip(), 0) + count
    for bare, count in together.items():
        key = spelling(bare)
        best[key] = min(best.get(key, (-count, bare)), (-count, bare))
    return [best[spelling(word)][1] for word in words]


Feature = NumberFeature | DateFeature | TextFeature


def _mean_and_deviation(values: np.ndarray) -> tuple[float, float]:
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = float(values.mean()), float(values.std())
    if not np.isfinite(deviation):
        # Squares of numbers beyond 1e154 overflow.
        size = float(np.abs(values).max())
        mean, deviation = float((values / size).mean()) * size, float((values / size).std()) * size
    return mean, deviation


def _float32(values: np.ndarray, shift: float, scale: float) -> np.ndarray:
    scaled = values - shift
    scaled /= scale
    limit = float(np.finfo(np.float32).max)
    return np.clip(scaled, -limit, limit, out=scaled)
