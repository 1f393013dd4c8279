"""Which rows of a table train, validate and test: by fraction, by a column, by date or by the hash of a key."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from pipeline.data.core.splitting import latest, shares_of_keys, stretch
from pipeline.data.tables.dates import dates_of
from pipeline.data.tables.reading import settled
from pipeline.data.tables.values import Column, Table, listed
from pipeline.errors import UserError

log = logging.getLogger(__name__)

TRAIN, VALIDATION, TEST, LEFT_OUT = 0, 1, 2, 3
NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "validation": VALIDATION,
    "valid": VALIDATION,
    "val": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
    "holdout": TEST,
}
WAYS = ("fraction", "column", "date", "hash")


@dataclass(frozen=True)
class SplitPlan:
    """How a table is split.

    Args:
        way: ``fraction`` (at random), ``column`` (a column says train, validation or test), ``date`` (the latest rows
            test, the latest before them validate) or ``hash`` (rows with the same key stay together, and stay where
            they are when the file grows).
        column: Column that decides in the last three ways; it is no input of the model.
        test_from: First date of the test rows with ``date``; None takes the latest ``test_fraction``.
        test_fraction: Share of the rows for the test.
        validation_fraction: Share of the other rows for validation.
        folds: Number of folds, None for one split.
        fold: Number of the fold that validates.
        seed: Seed of what is random.
    """

    way: str = "fraction"
    column: str | None = None
    test_from: str | None = None
    test_fraction: float = 0.15
    validation_fraction: float = 0.15
    folds: int | None = None
    fold: int | None = None
    seed: int = 0

    def check(self) -> None:
        """Raise ``UserError`` if the settings do not fit together."""
        if self.way not in WAYS:
            raise UserError(f"data.split={self.way}; expected one of {', '.join(WAYS)}")
        if self.way != "fraction" and self.column is None:
            raise UserError(f"data.split={self.way} needs data.split_column=COLUMN")
        if self.way == "fraction" and self.column is not None:
            raise UserError(
                f"data.split_column={self.column} has no effect on data.split=fraction; choose column, date or hash"
            )
        if self.test_from is not None and self.way != "date":
            raise UserError("data.test_from goes with data.split=date")
        for key, value in (("test", self.test_fraction), ("validation", self.validation_fraction)):
            if not 0 <= value < 1:
                raise UserError(f"data.{key}_fraction={value}; expected at least 0 and less than 1")


def parts(table: Table, plan: SplitPlan, separate_test: bool) -> np.ndarray | None:
    """The part of each row (TRAIN, VALIDATION, TEST, LEFT_OUT), None for a random split.

    Args:
        table: The rows.
        plan: How they are split.
        separate_test: Whether the test rows are in a file of their own, so that none are taken from this one.
    """
    if plan.way == "fraction":
        return None
    assert plan.column is not None
    column = settled(table, plan.column)
    if plan.way == "column":
        return _by_names(column.as_text(), plan)
    if plan.way == "date":
        return _by_date(column, plan, separate_test)
    return _by_hash(column.as_text(), plan, separate_test)


def _by_names(column: Column, plan: SplitPlan) -> np.ndarray:
    part_of_word = [NAMES.get(word.strip().lower()) for word in column.words]
    used = set(np.unique(column.values).tolist())
    if unknown := [word for i, word in enumerate(column.words) if i in used and part_of_word[i] is None]:
        raise UserError(
            f"the column {plan.column!r} must say train, validation or test, but has {listed(unknown)}"
        )
    if -1 in used:
        raise UserError(
            f"the column {plan.column!r} must say train, validation or test, but is empty in some rows"
        )
    parts = np.array([TRAIN if part is None else part for part in part_of_word], dtype=np.int8)
    chosen: np.ndarray = parts[column.values]
    return chosen


def _by_date(column: Column, plan: SplitPlan, separate_test: bool) -> np.ndarray:
    if column.kind == "text":
        raise UserError(
            f"the column {plan.column!r} holds no dates that are understood; write them as 2024-01-31"
        )
    moments, part = column.values, np.full(len(column), TRAIN, dtype=np.int8)
    if column.missing.any():
        log.warning("%d rows have no %r and are left out", column.missing.sum(), plan.column)
        part[column.missing] = LEFT_OUT
    if plan.test_from is not None:
        first = float(dates_of([str(plan.test_from)])[0]) if column.kind == "date" else float(plan.test_from)
        if np.isnan(first):
            raise UserError(f"data.test_from={plan.test_from} is no date; write it as 2024-01-31")
        part[moments >= first] = TEST
    elif not separate_test:
        _cut(moments, part, plan.test_fraction, TEST)
    if plan.folds is None:
        _cut(moments, part, plan.validation_fraction, VALIDATION)
    else:
        # Each fold is a stretch of time.
        rows = np.flatnonzero(part == TRAIN)
        ordered = rows[np.argsort(moments[rows], kind="stable")]
        part[stretch(ordered, plan.folds, plan.fold)] = VALIDATION
    return part


def _cut(moments: np.ndarray, part: np.ndarray, fraction: float, name: int) -> None:
    """Give the latest ``fraction`` of the training rows to another part."""
    rows = np.flatnonzero(part == TRAIN)
    part[rows[latest(moments[rows], fraction)]] = name


def _by_hash(column: Column, plan: SplitPlan, separate_test: bool) -> np.ndarray:
    if missing := int(column.missing.sum()):
        raise UserError(f"{missing} rows have no {plan.column!r}, which data.split=hash needs in every row")
    numbers = shares_of_keys(column.words, plan.seed)
    part = np.full(len(column.words), TRAIN, dtype=np.int8)
    if plan.folds is None:
        part[numbers[:, 1] < plan.validation_fraction] = VALIDATION
    else:
        part[(numbers[:, 1] * plan.folds).astype(int) == (plan.fold or 0)] = VALIDATION
    if not separate_test:
        part[numbers[:, 0] < plan.test_fraction] = TEST
    found = np.asarray(part[column.values])
    shares = {VALIDATION: plan.validation_fraction, TEST: 0.0 if separate_test else plan.test_fraction}
    names = {VALIDATION: "validation", TEST: "test"}
    if empty := [names[number] for number, share in shares.items() if share and not (found == number).any()]:
        log.warning(
            "data.split=hash leaves no rows for the %s: each of the %d values of %r is in one part as a whole; choose "
            "a column with more of them, or another data.seed",
            " and the ".join(empty),
            len(np.unique(column.values)),
            plan.column,
        )
    return found
