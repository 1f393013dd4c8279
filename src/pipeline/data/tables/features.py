"""What a column becomes for a model: numbers scaled, gaps filled and flagged, dates unfolded, categories one-hot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pipeline.data.tables.values import Column, Kind, dates_of, listed, numbers_of, truths_of
from pipeline.errors import UserError

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
    """

    kind: ClassVar[str] = "number"
    name: str
    fill: float
    shift: float
    scale: float
    flag: bool
    truth: bool = False

    @classmethod
    def fit(cls, name: str, column: Column, scaling: str) -> NumberFeature:
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
        return cls(name, fill, shift, scale if scale > 0 else 1.0, flag, column.truth)

    @property
    def width(self) -> int:
        """Number of inputs."""
        return 1 + self.flag

    def inputs(self) -> list[str]:
        """What each input is."""
        return [self.name, f"{self.name} is missing"][: self.width]

    def write(self, column: Column, out: np.ndarray) -> None:
        """Fill ``out`` (width, rows)."""
        column = as_number(column, self.name, self.truth)
        missing = column.missing
        filled = np.where(missing, self.fill, column.values) if missing.any() else column.values
        out[0] = _float32(filled, self.shift, self.scale)
        if self.flag:
            out[1] = missing


@dataclass(frozen=True)
class DateFeature:
    """A moment: days since 1970 (scaled), and its place in the year, the week and, for columns with hours, the day.

    Args:
        name: of the column.
        fill: days that stand for a missing moment.
        shift: subtracted from the days.
        scale: divided by.
        flag: whether there is an input that is 1 where the moment is missing.
        clock: the column has times of day.
    """

    kind: ClassVar[str] = "date"
    name: str
    fill: float
    shift: float
    scale: float
    flag: bool
    clock: bool

    @classmethod
    def fit(cls, name: str, column: Column) -> DateFeature:
        """From the training rows of the column, of which at least one is not missing."""
        seconds = column.values[~column.missing]
        shift, scale = _mean_and_deviation(seconds / DAY)
        clock = bool((seconds % DAY != 0).any())
        return cls(name, shift, shift, scale or 1.0, len(seconds) < len(column), clock)

    @property
    def width(self) -> int:
        """Number of inputs."""
        return 5 + 2 * self.clock + self.flag

    def inputs(self) -> list[str]:
        """What each input is."""
        circles = ["year", "week", "day"][: 2 + self.clock]
        names = [
            self.name,
            *(f"{self.name} {part} of {circle}" for circle in circles for part in ("sine", "cosine")),
        ]
        return names + [f"{self.name} is missing"] * self.flag

    def write(self, column: Column, out: np.ndarray) -> None:
        """Fill ``out`` (width, rows)."""
        column = as_date(column, self.name)
        missing = column.missing
        days = np.where(missing, self.fill, column.values / DAY)
        out[0] = _float32(days, self.shift, self.scale)
        for place, period in enumerate([365.2425, 7.0, 1.0][: 2 + self.clock]):
            angle = 2 * np.pi * (days % period) / period
            out[1 + 2 * place] = np.where(missing, 0, np.sin(angle))
            out[2 + 2 * place] = np.where(missing, 0, np.cos(angle))
        if self.flag:
            out[-1] = missing


@dataclass(frozen=True)
class TextFeature:
    """A category: one input for each that is frequent enough, one for missing, one for all others, unseen ones too.

    Args:
        name: of the column.
        categories: the ones with an input of their own, most frequent first.
        gaps: whether missing has an input of its own (training had missing values); without it, missing is "other".
        written_as: ``number``, ``truth`` or ``date`` where the categories are some of these, however they are written
            (007 is 7); empty where they are words.
    """

    kind: ClassVar[str] = "text"
    name: str
    categories: list[str] = field(default_factory=list)
    gaps: bool = False
    written_as: str = ""

    @classmethod
    def fit(cls, name: str, column: Column, most: int, written_as: str = "") -> TextFeature:
        """From the training rows: the ``most`` most frequent categories that occur at least twice."""
        known = column.values[column.values >= 0]
        counts = np.bincount(known, minlength=len(column.words))
        frequent = sorted(
            (-count, word) for count, word in zip(counts.tolist(), column.words, strict=True) if count > 1
        )
        return cls(name, [word for _, word in frequent[:most]], len(known) < len(column), written_as)

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
        code_of_word = [place.get(word, other) for word in words or column.words]
        # The last entry is what −1, a missing value, takes.
        missing = len(self.categories) if self.gaps else other
        return np.asarray(np.array([*code_of_word, missing], dtype=np.int32)[column.values])

    def _spelt(self, words: Sequence[str]) -> list[str]:
        """Words as the categories are written; those that are not of their kind stay as they are."""
        values = {"number": numbers_of, "truth": truths_of, "date": dates_of}[self.written_as](words)
        values[~np.isfinite(values)] = np.nan
        kind: Kind = "date" if self.written_as == "date" else "number"
        spelt = Column(kind, values, truth=self.written_as == "truth").as_text()
        return [
            word if code < 0 else spelt.words[code] for word, code in zip(words, spelt.values, strict=True)
        ]


Feature = NumberFeature | DateFeature | TextFeature


def as_number(column: Column, name: str, truth: bool) -> Column:
    """A column as numbers.

    Raises:
        UserError: it holds text that is no number.
    """
    if column.kind == "number":
        return column
    if column.kind == "date":
        raise UserError(f"the column {name!r} must hold numbers, but holds dates")
    return Column("number", _read_words(column, name, truths_of if truth else numbers_of, "numbers"))


def as_date(column: Column, name: str) -> Column:
    """A column as dates.

    Raises:
        UserError: it holds something else.
    """
    if column.kind == "date" or column.missing.all():
        return Column("date", np.where(column.missing, np.nan, column.values))
    if column.kind == "number":
        raise UserError(f"the column {name!r} must hold dates like 2024-01-31, but holds numbers")
    return Column("date", _read_words(column, name, dates_of, "dates like 2024-01-31"))


def _read_words(column: Column, name: str, read: Any, expected: str) -> np.ndarray:
    values = np.append(read(column.words), np.nan)
    values[~np.isfinite(values)] = np.nan
    result = np.asarray(values[column.values])
    wrong = np.isnan(result) & ~column.missing
    if wrong.any():
        words = [column.words[code] for code in np.unique(column.values[wrong])]
        raise UserError(f"the column {name!r} must hold {expected}, but has {listed(words, 5)}")
    return result


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
