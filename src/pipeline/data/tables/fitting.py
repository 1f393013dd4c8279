"""Finding what each column of a table is, by its training rows."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from pipeline.data.tables.encoder import TableEncoder
from pipeline.data.tables.features import DateFeature, Feature, NumberFeature, TextFeature
from pipeline.data.tables.formats import TableFormat
from pipeline.data.tables.guesses import Guess, typed
from pipeline.data.tables.reading import Reading, column_of, find_reading
from pipeline.data.tables.threads import for_each
from pipeline.data.tables.values import OF_TYPE, Column, Table, listed
from pipeline.errors import UserError

EMPTY = "no value in the training rows"
COUNTING = "identifier-like: every row has another whole number"
SCALINGS = ("standard", "robust", "none")
_WORDS = "id|uuid|guid|key|index|idx|rowid|row_number|unnamed: 0"
_OWNERS = (
    "order|customer|client|user|row|record|sample|patient|case|member|account|transaction|invoice|ticket|employee|staff|"
    "product|item|passenger|student|person|session|booking|visit|device|loan|policy|contract|event|store|shop|house|obs"
)
ID_NAME = re.compile(
    rf"(?:^|[_\W])(?:{_WORDS})$|^$|^(?:no|nr|ids?)$|^(?:{_OWNERS})s?[_\W]?(?:id|no|nr|num|number|key|code)$",
    re.IGNORECASE,
)
"""Names of columns that identify, however they are written: ``order_id``, ``Order No``, ``orderid`` …"""
CAMEL_ID = re.compile(r"[a-z0-9](?:ID|Id|UUID|Uuid|GUID|Guid|Key|Index)$")
"""… and ``OrderId``."""


def identifies(name: str) -> bool:
    """Whether a column's name says that its values identify something."""
    return bool(ID_NAME.search(name.strip()) or CAMEL_ID.search(name.strip()))


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
        folds: whether spellings of a category that differ in case or blanks alone are one.
    """

    categorical: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    max_categories: int = 100
    scaling: str = "standard"
    folds: bool = True

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


@dataclass(frozen=True)
class Found:
    """What was found out about a column.

    Args:
        feature: The fitted feature; None where the column is left out.
        reason: Why it is left out.
        guesses: What was guessed about it.
        worded: Whether it is left out though it holds texts of several words.
    """

    feature: Feature | None
    reason: str = ""
    guesses: tuple[Guess, ...] = ()
    worded: bool = False


def fit_encoder(
    table: Table,
    rows: np.ndarray,
    names: Sequence[str],
    choice: ColumnChoice,
    written: TableFormat,
    target: Reading | None = None,
) -> tuple[TableEncoder, list[Guess]]:
    """Find what each column is and fit it on some rows; what tells nothing is left out.

    Args:
        table: the data.
        rows: the training rows: no other row has any influence.
        names: the columns that may be inputs.
        choice: what the user says about them.
        written: how the table's file is written.
        target: how the column that is predicted is understood.

    Returns:
        The encoder, and what was guessed.

    Raises:
        UserError: no usable column is left.
    """
    candidates = [name for name in names if name not in choice.drop]
    found = for_each(partial(_feature, table, rows, choice), [(name,) for name in candidates], len(rows))
    guesses: list[Guess] = []
    counting = [name for name, one in zip(candidates, found, strict=True) if one.reason == COUNTING]
    if all(one.feature is None for one in found) and (
        kept := [one for one in counting if not identifies(one)]
    ):
        # A table of sizes 1, 2, 3 … and prices: what else should predict?
        choice = replace(choice, keep=(*choice.keep, *kept))
        found = [_feature(table, rows, choice, name) for name in candidates]
        what = f"{listed(kept)} looks like an identifier, but no other column is left, so that it is kept"
        guesses.append(Guess(what, typed("data.drop", kept), True, tuple(kept)))
    left_out: dict[str, list[str]] = {}
    for name, one in zip(candidates, found, strict=True):
        guesses += one.guesses
        if one.feature is None:
            left_out.setdefault(one.reason, []).append(name)
    for reason, some in left_out.items():
        verb, it = ("is", "it") if len(some) == 1 else ("are", "them")
        what = f"{listed(some)} {verb} left out ({reason})"
        key, effect = typed("data.keep", some), f"keeps {it}"
        if reason.startswith(OF_TYPE):
            key, effect = "", f"make columns of numbers, texts or dates of {it}"
        elif reason == EMPTY:
            key, effect = "", ""
        guesses.append(Guess(what, key, True, tuple(some), effect))
    features = [one.feature for one in found if one.feature is not None]
    if not features:
        texts = [name for name, one in zip(candidates, found, strict=True) if one.worded]
        advice = f"; texts are learnt by data=text_csv {typed('data.text', texts[0])}" if texts else ""
        reasons = "; ".join(f"{listed(some)}: {reason}" for reason, some in left_out.items())
        raise UserError(
            f"{table.source}: no column is left to predict from{'; ' if reasons else ''}{reasons}{advice}"
        )
    return TableEncoder.of(features, _noteworthy(written), target), guesses


def _noteworthy(written: TableFormat) -> TableFormat:
    """How a file is written, as far as the name of another does not say it."""
    return replace(written, header=False if written.header is False else None)


def _feature(table: Table, rows: np.ndarray, choice: ColumnChoice, name: str) -> Found:
    """The fitted feature, or why there is none."""
    try:
        raw = table.column(name)
    except TypeError as error:
        return Found(None, str(error))
    categorical = name in choice.categorical
    reading, guesses = find_reading(
        raw,
        rows,
        name,
        table.how,
        numeric=name in choice.numeric,
        categorical=categorical,
        folds=choice.folds,
    )
    column, written_as = column_of(table, name, reading, strict=False).rows(rows), ""
    if categorical:
        written_as = "" if column.kind == "text" else "truth" if column.truth else column.kind
        column = column.as_text()
    if column.missing.all():
        return Found(None, EMPTY)
    if name not in choice.keep and (reason := _tells_nothing(name, column, categorical)):
        # Why it is words and not numbers is worth knowing then.
        worded = column.kind == "text" and np.mean([len(word.split()) for word in column.words[:100]]) >= 3
        return Found(None, reason, tuple(guess for guess in guesses if guess.costly), bool(worded))
    feature: Feature
    if column.kind == "date":
        feature = DateFeature.fit(name, column, reading)
    elif column.kind == "number":
        feature = NumberFeature.fit(name, column, choice.scaling, reading)
    else:
        feature = TextFeature.fit(name, column, choice.max_categories, written_as, reading)
    return Found(feature, guesses=tuple(guesses))


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
        unique = once > 0.5 * len(known) and not categorical
        return "identifier-like: most values occur once" if unique else ""
    if column.kind == "number" and column.whole and len(known) == len(column):
        # Row numbers: all different, and hardly a gap between them (the other parts' rows are the gaps).
        named, count = identifies(name), len(known)
        if high - low < count - 1 or not (named or count >= 20):
            return ""
        if (named or (high - low) / _step(known) < 3 * count) and len(np.unique(known)) == count:
            return COUNTING
    return ""


def _step(values: np.ndarray) -> float:
    """The largest number that all differences of whole numbers are multiples of: order numbers may go up by ten."""
    if np.abs(values).max() > 2**53:
        return 1.0
    # A few thousand differences say as much as all.
    differences = np.abs(np.diff(values[:5000])).astype(np.int64)
    return float(max(1, math.gcd(*differences.tolist()))) if len(differences) else 1.0
