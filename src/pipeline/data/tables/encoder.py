"""Table rows as model input: numbers scaled, gaps filled and flagged, dates unfolded, categories one-hot."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from pipeline.data.core.encoder import Encoder
from pipeline.data.core.splits import Rows
from pipeline.data.tables.files import TableFormat
from pipeline.data.tables.unusual import Usual
from pipeline.data.tables.values import Column, Kind, Table, dates_of, listed, numbers_of, table_of, truths_of
from pipeline.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

T = TypeVar("T")

DAY = 86_400.0
ID_NAME = re.compile(r"(^|[_\W])(id|uuid|guid|key|index|rowid|row_number|unnamed: 0)$|^$", re.IGNORECASE)
SCALINGS = ("standard", "robust", "none")


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


class TableEncoder(Encoder):
    """Rows of a table as float32 vectors: numbers and dates first, then a one-hot block for each category column.

    Takes a data frame, a list of dictionaries or a dictionary of lists with the columns it was fitted on; others are
    ignored. Missing values and unseen categories are handled; a missing column is an error.

    Args:
        features: The state of each feature, with its ``kind``.
        written: How the file is written that it was fitted on (arguments of :class:`TableFormat` that differ from the
            defaults): files to predict are read in the same way.
        usual: What training rows look like, as :meth:`Usual.state` says it; None where that is not known.
    """

    kind = "table"

    def __init__(
        self,
        features: Sequence[dict[str, Any]],
        written: dict[str, str] | None = None,
        usual: dict[str, Any] | None = None,
    ) -> None:
        self.usual = None if usual is None else Usual.of(usual)
        self.written = TableFormat(**(written or {}))
        kinds: dict[str, type[Feature]] = {"number": NumberFeature, "date": DateFeature, "text": TextFeature}
        built: list[Feature] = []
        for state in features:
            state = dict(state)
            built.append(kinds[state.pop("kind")](**state))
        self._set(built)

    @classmethod
    def of(cls, features: Sequence[Feature], written: TableFormat) -> TableEncoder:
        """From fitted features, and how their file is written."""
        encoder = cls([])
        # Whether a file is a CSV or a Parquet file is said by its own name.
        encoder.written = replace(written, format="auto")
        encoder._set(features)
        return encoder

    def _set(self, features: Sequence[Feature]) -> None:
        self.dense = [feature for feature in features if not isinstance(feature, TextFeature)]
        self.texts = [feature for feature in features if isinstance(feature, TextFeature)]
        self.features: list[Feature] = list(features)
        self.dense_width = sum(feature.width for feature in self.dense)
        self.width = self.dense_width + sum(feature.width for feature in self.texts)

    @property
    def columns(self) -> list[str]:
        """The columns that rows must have."""
        return [feature.name for feature in self.features]

    def inputs(self) -> list[str]:
        """What each of the model's inputs is."""
        return [name for feature in (*self.dense, *self.texts) for name in feature.inputs()]

    def blocks(self) -> list[range]:
        """The inputs of each category column, one of which is 1."""
        ends = np.cumsum([self.dense_width, *(feature.width for feature in self.texts)]).tolist()
        return [range(start, end) for start, end in pairwise(ends)]

    def encode(self, raw: Any) -> Tensor:
        table = table_of(raw, self.columns)
        dense, codes = self.compact(table, np.arange(len(table)))
        return expand(dense, codes, self.width)

    def compact(self, table: Table, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Some rows: the dense part (rows, dense width), and which inputs are 1 (rows, category columns)."""
        # A column at a time into memory that lies together, turned into rows at the end: ten times as fast as
        # writing every 30th number.
        dense = np.empty((self.dense_width, len(rows)), dtype=np.float32)
        codes = np.empty((len(self.texts), len(rows)), dtype=np.int32)

        def write(place: int, start: int, feature: Feature) -> None:
            column = _column(table, feature.name).rows(rows)
            if isinstance(feature, TextFeature):
                codes[place] = feature.codes(column) + start
            else:
                feature.write(column, dense[start : start + feature.width])

        starts = np.cumsum([0, *(feature.width for feature in (*self.dense, *self.texts))]).tolist()
        places = [*range(len(self.dense)), *range(len(self.texts))]
        for_each(write, list(zip(places, starts, (*self.dense, *self.texts), strict=False)), len(rows))
        return torch.from_numpy(np.ascontiguousarray(dense.T)), torch.from_numpy(
            np.ascontiguousarray(codes.T)
        )

    def state(self) -> dict[str, Any]:
        default = asdict(TableFormat())
        written = {key: value for key, value in asdict(self.written).items() if value != default[key]}
        features = [{"kind": feature.kind, **asdict(feature)} for feature in self.features]
        usual = {"usual": self.usual.state()} if self.usual else {}
        return {"features": features, **({"written": written} if written else {}), **usual}

    def learn_usual(self, dense: Tensor, codes: Tensor) -> None:
        """Learn from the training rows, as :meth:`compact` gives them, which others are unlike them."""
        self.usual = Usual.fit(dense.numpy(), codes.numpy(), self.blocks())

    @property
    def tells_unusual(self) -> bool:
        return self.usual is not None

    def unusual(self, inputs: Tensor) -> np.ndarray | None:
        if self.usual is None:
            return None
        codes = [
            inputs[:, block.start : block.stop].argmax(1).numpy() + block.start for block in self.blocks()
        ]
        rows = np.stack(codes, axis=1) if codes else np.zeros((len(inputs), 0), dtype=np.int64)
        return self.usual.flags(inputs[:, : self.dense_width].numpy(), rows)

    def example(self) -> pd.DataFrame:
        import pandas as pd

        columns: dict[str, Any] = {}
        for feature in self.features:
            if isinstance(feature, TextFeature):
                known = [*feature.categories, "(other)"]
                columns[feature.name] = [known[0], known[min(1, len(known) - 1)]]
            elif isinstance(feature, DateFeature):
                columns[feature.name] = pd.to_datetime([feature.fill, feature.fill + 1], unit="D").round("s")
            elif feature.truth:
                columns[feature.name] = [True, False]
            else:
                columns[feature.name] = [feature.fill, feature.fill + feature.scale]
        return pd.DataFrame(columns)

    def signature(self) -> dict[str, Any]:
        # "any" is checked here, not by MLflow: it refuses whole numbers for "double" and dates that are text.
        columns = []
        for feature in self.features:
            words = feature.categories if isinstance(feature, TextFeature) else []
            text = bool(np.isnan(numbers_of(words)).any())
            columns.append({"name": feature.name, "dtype": "string" if text else "any", "required": True})
        return {"type": "columns", "columns": columns}


class TableRows(Rows):
    """Table rows whose one-hot blocks are expanded a batch at a time: in memory a category takes 4 bytes a row.

    Args:
        x: the dense part, (samples, dense width).
        indices: (samples, category columns), which inputs are 1.
        width: number of model inputs.
        y: targets.
    """

    def __init__(self, x: Tensor, indices: Tensor, width: int, y: Tensor) -> None:
        super().__init__(x, y)
        self.indices, self.width = indices, width

    def _inputs(self, rows: Tensor) -> Tensor:
        assert isinstance(self.x, Tensor)
        if not self.indices.shape[1]:
            return self.x[rows]
        return expand(self.x[rows], self.indices[rows], self.width)

    def subset(self, rows: Tensor) -> TableRows:
        assert isinstance(self.x, Tensor)
        return TableRows(self.x[rows], self.indices[rows], self.width, self.y[rows])

    def joined(self, other: TableRows) -> TableRows:
        """These rows, and then the other ones."""
        pairs = ((self.x, other.x), (self.indices, other.indices), (self.y, other.y))
        x, indices, y = (torch.cat([torch.as_tensor(one), torch.as_tensor(two)]) for one, two in pairs)
        return TableRows(x, indices, self.width, y)

    def to(self, device: torch.device) -> TableRows:
        assert isinstance(self.x, Tensor)
        return TableRows(self.x.to(device), self.indices.to(device), self.width, self.y.to(device))

    @property
    def nbytes(self) -> int:
        return super().nbytes + self.indices.nbytes


def expand(dense: Tensor, codes: Tensor, width: int) -> Tensor:
    """Dense inputs followed by zeros, with 1 at each row's codes."""
    if not codes.shape[1]:
        return dense
    x = torch.zeros(len(dense), width, device=dense.device)
    x[:, : dense.shape[1]] = dense
    return x.scatter_(1, codes.long(), 1.0)


@dataclass(frozen=True)
class ColumnChoice:
    """What the user says about single columns, and the limits of what is found.

    Args:
        categorical: columns of numbers that are categories.
        numeric: columns to take as numbers, whatever is in them.
        drop: columns to leave out.
        keep: columns to keep though they look constant or like identifiers.
        max_categories: inputs for the most frequent categories of a column; the others share one.
        scaling: ``standard`` (mean 0, deviation 1), ``robust`` (median 0, interquartile range 1) or ``none``.
    """

    categorical: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    max_categories: int = 100
    scaling: str = "standard"

    def check(self, table: Table) -> None:
        """Raise ``UserError`` if a named column is not there or a setting is out of range."""
        for key in ("categorical", "numeric", "drop", "keep"):
            table.require(getattr(self, key), f"data.{key}")
        if self.scaling not in SCALINGS:
            raise UserError(f"data.scaling={self.scaling}; expected one of {', '.join(SCALINGS)}")
        if self.max_categories < 1:
            raise UserError(f"data.max_categories={self.max_categories}; expected at least 1")
        if both := set(self.categorical) & set(self.numeric):
            raise UserError(f"{listed(sorted(both))} is in both data.categorical and data.numeric")


def fit_encoder(
    table: Table, rows: np.ndarray, names: Sequence[str], choice: ColumnChoice, written: TableFormat
) -> TableEncoder:
    """Find what each column is and fit it on some rows; what tells nothing is dropped with a warning that names it.

    Args:
        table: the data.
        rows: the training rows: no other row has any influence.
        names: the columns that may be inputs.
        choice: what the user says about them.
        written: how the table's file is written.

    Raises:
        UserError: no usable column is left.
    """
    features: list[Feature] = []
    dropped: dict[str, str] = {}
    candidates = [name for name in names if name not in choice.drop]
    found = for_each(partial(_feature, table, rows, choice), [(name,) for name in candidates], len(rows))
    for name, feature in zip(candidates, found, strict=True):
        if isinstance(feature, str):
            dropped[name] = feature
        else:
            features.append(feature)
    reasons = "; ".join(f"{name!r} is left out ({reason})" for name, reason in dropped.items())
    if dropped:
        log.warning("%s. data.keep=[COLUMN] keeps one of them", reasons)
    if not features:
        raise UserError(
            f"{table.source}: no column is left to predict from{'; ' if reasons else ''}{reasons}"
        )
    return TableEncoder.of(features, written)


def _feature(table: Table, rows: np.ndarray, choice: ColumnChoice, name: str) -> Feature | str:
    """The fitted feature, or why there is none."""
    try:
        whole = table.column(name)
    except TypeError as error:
        return str(error)
    column, written_as = whole.rows(rows), ""
    if name in choice.categorical:
        written_as = "" if column.kind == "text" else "truth" if column.truth else column.kind
        column = column.as_text()
    elif name in choice.numeric and column.kind == "text":
        column = as_number(column, name, False)
    if column.missing.all():
        return "no value in the training rows"
    if name not in choice.keep and (reason := _tells_nothing(name, column, name in choice.categorical)):
        return reason
    if column.kind == "date":
        return DateFeature.fit(name, column)
    if column.kind == "number":
        return NumberFeature.fit(name, column, choice.scaling)
    return TextFeature.fit(name, column, choice.max_categories, written_as)


def _tells_nothing(name: str, column: Column, categorical: bool) -> str:
    """Why a column is no use: it is constant, or its values identify rows instead of describing them."""
    missing = column.missing
    known = column.values[~missing] if missing.any() else column.values
    low, high = known.min(), known.max()
    if low == high:
        # Present or not may tell something all the same.
        return "" if missing.any() else "constant"
    if column.kind == "text":
        once = int((np.bincount(known) == 1).sum())
        identifies = once > 0.5 * len(known) and not categorical
        return "identifier-like: most values occur once" if identifies else ""
    if column.kind == "number" and column.whole and len(known) == len(column):
        # Row numbers: all different, and hardly a gap between them (the other parts' rows are the gaps).
        dense = len(known) >= 20 and high - low < 3 * len(known)
        named = bool(ID_NAME.search(name))
        if high - low >= len(known) - 1 and (dense or named) and len(np.unique(known)) == len(known):
            return "identifier-like: every row has another whole number"
    return ""


def _column(table: Table, name: str) -> Column:
    try:
        return table.column(name)
    except TypeError as error:
        raise UserError(f"the column {name!r} cannot be used: {error}") from None


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


def for_each(work: Callable[..., T], arguments: Sequence[tuple[Any, ...]], rows: int) -> list[T]:
    """``work`` for every column, on several threads where there are enough rows (NumPy lets them run at once)."""
    if rows < 50_000:
        return [work(*some) for some in arguments]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda some: work(*some), arguments))
