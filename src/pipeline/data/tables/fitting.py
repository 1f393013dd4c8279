"""Finding what each column of a table is, by its training rows."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.data.tables.encoder import TableEncoder
from pipeline.data.tables.features import DateFeature, Feature, NumberFeature, TextFeature, as_number
from pipeline.data.tables.formats import TableFormat
from pipeline.data.tables.threads import for_each
from pipeline.data.tables.values import Column, Table, listed
from pipeline.errors import UserError

log = logging.getLogger(__name__)

ID_NAME = re.compile(r"(^|[_\W])(id|uuid|guid|key|index|rowid|row_number|unnamed: 0)$|^$", re.IGNORECASE)
SCALINGS = ("standard", "robust", "none")


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
