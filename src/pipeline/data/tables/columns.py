"""The inputs of a data set as a person knows them: columns in their own units with their gaps, categories by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from pipeline.data.core.module import DataModule
    from pipeline.data.core.splits import Rows
    from pipeline.data.tables.encoder import TableEncoder


MOST_LOOKED_AT = 20_000


@dataclass(frozen=True)
class Category:
    """A column of words.

    Args:
        name: Name of the column.
        counts: Number of rows of each category, most frequent first; ``(other)`` stands for rare ones.
        missing: Number of rows without a value.
    """

    name: str
    counts: dict[str, int]
    missing: int


def some_rows(split: Rows, most: int = MOST_LOOKED_AT) -> torch.Tensor:
    """Row numbers of at most so many samples, spread over the whole split."""
    if len(split) <= most:
        return torch.arange(len(split))
    return torch.linspace(0, len(split) - 1, most, dtype=torch.float64).long()


@dataclass(frozen=True)
class Columns:
    """Columns of a table.

    Args:
        numbers: Values of each column of numbers, (rows,), by name; NaN where missing; dates as days since 1970.
        dates: Names of those that are dates.
        categories: The columns of words.
    """

    numbers: dict[str, np.ndarray]
    dates: frozenset[str] = frozenset()
    categories: tuple[Category, ...] = ()


def columns_of(data: DataModule, x: np.ndarray) -> Columns:
    """What the model's inputs were before they were encoded.

    Args:
        data: Data set with its fitted encoder.
        x: Encoded inputs, (samples, inputs).
    """
    from pipeline.data.core.encoder import VectorEncoder
    from pipeline.data.tables.encoder import TableEncoder

    encoder = data.encoder
    if isinstance(encoder, TableEncoder):
        return _of_table(encoder, x)
    if isinstance(encoder, VectorEncoder) and len(encoder.columns) == x.shape[1]:
        parts = zip(encoder.columns, x.T, encoder.scale, encoder.shift, strict=True)
        return Columns({name: _restored(column, scale, shift) for name, column, scale, shift in parts})
    return Columns({f"input {number}": column for number, column in enumerate(x.T)})


def _restored(encoded: np.ndarray, scale: float, shift: float) -> np.ndarray:
    """What was encoded in single precision, without the digits that this left."""
    # Plus zero: there is no minus zero in a table.
    found: np.ndarray = 0.0 + np.round(
        encoded * scale + shift, int(5 - np.floor(np.log10(max(scale, abs(shift) / 100))))
    )
    return found


def _of_table(encoder: TableEncoder, x: np.ndarray) -> Columns:
    from pipeline.data.tables.features import DateFeature

    numbers: dict[str, np.ndarray] = {}
    start = 0
    for feature in encoder.dense:
        block = x[:, start : start + feature.width]
        values = _restored(block[:, 0], feature.scale, feature.shift)
        numbers[feature.name] = np.where(block[:, -1] > 0, np.nan, values) if feature.flag else values
        start += feature.width
    categories = []
    for words in encoder.texts:
        counted = x[:, start : start + words.width].sum(0).astype(int).tolist()
        named = len(words.categories)
        counts = dict(zip([*words.categories, "(other)"], [*counted[:named], counted[-1]], strict=True))
        missing = counted[named] if words.gaps else 0
        categories.append(Category(words.name, {word: n for word, n in counts.items() if n}, missing))
        start += words.width
    dates = frozenset(feature.name for feature in encoder.dense if isinstance(feature, DateFeature))
    return Columns(numbers, dates, tuple(categories))
