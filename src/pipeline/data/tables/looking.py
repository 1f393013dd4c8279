"""What a person would want to know of a table before trusting a figure: each named, with the key to type."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pipeline.data.tables.alone import MOST_ROWS, computed_from, gives_away, most_common, score_alone, some
from pipeline.data.tables.encoder import TableEncoder
from pipeline.data.tables.features import DateFeature
from pipeline.data.tables.fitting import identifies
from pipeline.data.tables.goal import Goal
from pipeline.data.tables.guesses import Guess, typed
from pipeline.data.tables.reading import column_of
from pipeline.data.tables.rows import TableRows
from pipeline.data.tables.splits import SplitPlan
from pipeline.data.tables.values import Column, Table, listed
from pipeline.metrics import four_digits

DUPLICATES = "data.duplicates=drop"
"""What is typed to use each row once."""
FEW = 10
"""Number of rows below which a class is called rare."""
FEWEST_ROWS = 50
"""Number of training rows from which on something is said of single columns."""
_FEW_COLUMNS = 4
"""Columns that are held against each other before all are."""


@dataclass(frozen=True)
class Look:
    """What is looked at.

    Args:
        table: The file's rows.
        encoder: The fitted encoder.
        target: The target, (rows of the file,).
        goal: What is predicted.
        train: Numbers of the training rows.
        plan: How the rows were split.
        splits: The encoded rows of each split by name.
    """

    table: Table
    encoder: TableEncoder
    target: Column
    goal: Goal
    train: np.ndarray
    plan: SplitPlan
    splits: dict[str, TableRows]


def look(at: Look) -> list[Guess]:
    """Identifiers of groups, dates beside a random split, what gives the target away, rare classes, rows twice."""
    return [*_groups(at), *_dates(at), *_leaks(at), *_rare(at), *_shared(at)]


def _groups(at: Look) -> list[Guess]:
    if at.plan.way != "fraction" or len(at.train) < FEWEST_ROWS:
        return []
    guesses = []
    for feature in at.encoder.features:
        if not identifies(feature.name) or isinstance(feature, DateFeature):
            continue
        column = column_of(at.table, feature.name, feature.understood, strict=False).rows(at.train)
        groups = len(np.unique(column.values[~column.missing]))
        if FEW <= groups <= len(at.train) / 2:
            what = (
                f"{feature.name!r} looks like what groups rows ({groups:,} groups in {len(at.train):,} training rows), "
                "and rows of one group are split at random: a model may know a test row by its group"
            )
            key = f"data.split=hash {typed('data.split_column', feature.name)}"
            guesses.append(Guess(what, key, True, (feature.name,)))
    return guesses


def _dates(at: Look) -> list[Guess]:
    if at.plan.way != "fraction" or len(at.splits) < 2:
        return []
    for feature in at.encoder.features:
        if not isinstance(feature, DateFeature):
            continue
        moments = column_of(at.table, feature.name, feature.understood, strict=False).rows(at.train).values
        known = np.isfinite(moments)
        if known.sum() < FEWEST_ROWS or len(np.unique(moments[known])) < FEW:
            continue
        first, last = (
            str(moment.astype("datetime64[s]").astype("datetime64[D]"))
            for moment in (moments[known].min(), moments[known].max())
        )
        what = (
            f"rows have dates ({feature.name!r}, {first} to {last}) and are split at random, so that held-out rows lie "
            f"between training rows in time: figures for later rows may be worse{_change(at, moments)}"
        )
        key = f"data.split=date {typed('data.split_column', feature.name)}"
        return [Guess(what, key, True, (feature.name,))]
    return []


def _change(at: Look, moments: np.ndarray) -> str:
    """How the target differs in the latest training rows."""
    target = at.target.rows(at.train)
    known = np.isfinite(moments)
    late = known & (moments >= np.quantile(moments[known], 0.85))
    early = known & ~late
    if not early.any():
        return ""
    if at.goal.classes:
        codes = at.goal.targets(target, at.table.source).numpy().astype(int)
        name = at.goal.classes[np.bincount(codes).argmax()]
        share = codes == np.bincount(codes).argmax()
        return f" ({name!r} are {share[late].mean():.0%} of the latest rows, {share[early].mean():.0%} of those before)"
    values = target.values
    latest, before = four_digits(values[late].mean()), four_digits(values[early].mean())
    return f" ({at.goal.name!r} is {latest} in the latest rows on average, {before} before)"


def _leaks(at: Look) -> list[Guess]:
    rows = some(at.train)
    if len(rows) < FEWEST_ROWS:
        return []
    y = at.goal.targets(at.target.rows(rows), at.table.source).numpy().astype(np.float64)
    classes = len(at.goal.classes)
    baseline = most_common(y, classes)
    guesses, numbers = [], {}
    for feature in at.encoder.features:
        column = column_of(at.table, feature.name, feature.understood, strict=False).rows(rows)
        score = score_alone(column, y, classes)
        if gives_away(score, baseline):
            figure = f"accuracy {score:.4f}" if classes else f"R² {score:.4f}"
            copies = "is a copy of" if _copies(column, y, classes) else "alone predicts"
            what = (
                f"{feature.name!r} {copies} {at.goal.name!r} ({figure}): if it is known only afterwards, "
                "every figure is too good"
            )
            guesses.append(Guess(what, typed("data.drop", [feature.name]), True, (feature.name,)))
        elif column.kind == "number" and not column.missing.any():
            numbers[feature.name] = column.values
    if not classes and not guesses and (names := computed_from(numbers, y)):
        what = f"{at.goal.name!r} is computed from {listed(names)}"
        what += ": if they are known only afterwards, every figure is too good"
        guesses.append(Guess(what, typed("data.drop", names), True, tuple(names)))
    return guesses


def _copies(column: Column, y: np.ndarray, classes: int) -> bool:
    """Whether each value of a column stands for one value of the target, the other way round too."""
    if classes == 0:
        return column.kind == "number" and bool(np.allclose(column.values, y, rtol=1e-6, equal_nan=False))
    pairs = np.unique(np.stack([column.values.astype(np.float64), y]), axis=1).shape[1]
    return bool(pairs == len(np.unique(y)) == len(np.unique(column.values)))


def _rare(at: Look) -> list[Guess]:
    if not at.goal.classes or at.plan.folds:
        return []
    counts = np.bincount(at.splits["train"].y.long().numpy(), minlength=len(at.goal.classes))
    rare = [f"{name!r} ({count})" for name, count in zip(at.goal.classes, counts, strict=True) if count < FEW]
    if not rare:
        return []
    shown = ", ".join(rare[:8]) + (f" and {len(rare) - 8} more" if len(rare) > 8 else "")
    what = f"classes of {at.goal.name!r} with few training rows, which accuracy hardly sees: {shown}"
    return [Guess(what, "data.balance=class_weights", True, (at.goal.name,))]


def _shared(at: Look) -> list[Guess]:
    """Rows of validation or test that training has as well."""
    import pandas as pd

    known: dict[int | None, np.ndarray] = {}
    guesses = []
    for name in ("validation", "test"):
        if name not in at.splits or not len(at.splits[name]):
            continue
        own, shared = at.splits[name], 0
        # A few columns mostly tell that no row is there twice.
        for columns in (_FEW_COLUMNS, None):
            if columns not in known:
                known[columns] = hashes(at.splits["train"], columns)
            # NumPy's isin sorts both: of a million rows that takes thirty times as long.
            shared = int(pd.Series(hashes(own, columns)).isin(known[columns]).sum())
            if not shared:
                break
        if shared >= max(3, 0.01 * len(own)) and shared > 5 * _by_chance(at.splits["train"], len(own)):
            what = f"{shared:,} of {len(own):,} {name} rows are training rows as well, target and all"
            what += ": what is measured is too good"
            guesses.append(Guess(what, DUPLICATES, True))
    return guesses


def hashes(rows: TableRows, most: int | None = None) -> np.ndarray:
    """A number for each row (inputs and target) that equal rows share.

    Args:
        rows: The rows.
        most: Number of inputs that are looked at, None for all.
    """
    assert isinstance(rows.x, torch.Tensor)
    found = np.zeros(len(rows), dtype=np.uint64)
    # Plus zero: minus zero is the same number.
    columns = [
        *(rows.x[:, :most].numpy() + np.float32(0)).T,
        *rows.indices[:, :most].numpy().T,
        rows.y.numpy().astype(np.float32),
    ]
    for column in columns:
        found = mixed(found, np.ascontiguousarray(column).view(np.uint32).astype(np.uint64))
    return found


def mixed(state: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Hashes after one more value each (the mixing of SplitMix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = (state ^ values) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))


def _by_chance(train: TableRows, rows: int) -> float:
    """How many of so many rows would be among the training rows if columns had nothing to do with each other."""
    assert isinstance(train.x, torch.Tensor)
    places = some(np.arange(len(train)), MOST_ROWS)
    together = 1.0
    for column in (*train.x[places].numpy().T, *train.indices[places].numpy().T, train.y[places].numpy()):
        counts = np.unique(column, return_counts=True)[1]
        together *= float(((counts / counts.sum()) ** 2).sum())
    return rows * min(1.0, together * len(train))


def repeats(table: Table) -> np.ndarray:
    """Which rows of a file are the same in every column as an earlier one."""
    import pandas as pd

    found = np.zeros(len(table), dtype=np.uint64)
    for name in table.names:
        try:
            column = table.column(name)
        except TypeError:
            continue
        values = column.values.astype(np.float64) + 0.0
        values[column.missing] = np.nan
        found = mixed(found, np.ascontiguousarray(values).view(np.uint64))
    return np.asarray(pd.Series(found).duplicated().to_numpy())
