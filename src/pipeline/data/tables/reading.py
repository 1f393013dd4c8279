"""How the values of one column are understood: decided once, on training rows, and saved with the encoder.

From then on a value means the same, whatever stands beside it and whatever file it comes from.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from pipeline.data.tables.dates import COMPACT, are_run_together, dates_of, form_of_dates, months_are_dates
from pipeline.data.tables.formats import TableFormat
from pipeline.data.tables.guesses import Guess, typed
from pipeline.data.tables.units import (
    Units,
    find_units,
    is_comma_decimal,
    is_known,
    is_multiple,
    numbers_in,
    without_unit,
)
from pipeline.data.tables.values import Column, Table, listed
from pipeline.data.tables.words import (
    MISSING,
    MISSING_CLASSES,
    NOT_AVAILABLE,
    has_codes,
    is_code,
    is_missing,
    is_no_number,
    mixtures,
    numbers_of,
    spelling,
    times_of,
    truths_of,
)
from pipeline.errors import UserError

log = logging.getLogger(__name__)

MOSTLY = 0.95
"""Share of a column's values from which on it is what they are; the others count as missing."""
MOST_MARKS = 3
"""Number of different words that may stand for missing numbers, however often they do."""
MOST_WORDS = 100
"""Number of words that are kept as standing for a missing value; where there are more, any word does."""
TRIED_FIRST = 300
MOST_LEVELS = 20
"""Whole numbers up to which a target is classes."""
EXPECTED = {
    "number": "numbers",
    "truth": "true or false",
    "date": "dates like 2024-01-31",
    "time": "times like 23:59",
}


@dataclass(frozen=True)
class Reading:
    """How the words of a column are understood.

    Args:
        kind: ``number``, ``truth``, ``date``, ``time`` (seconds since midnight) or ``text``.
        decimal: Decimal mark of numbers.
        form: Form of dates, see :func:`~pipeline.data.tables.dates.dates_of`.
        missing: Words that stand for a missing value here, beside those that do everywhere.
        any_missing: Whether every word that is not understood stands for a missing value.
        codes: Whether "NA" is a code like others of two letters, and no missing value.
        folds: Whether spellings that differ in case or blanks alone are one category.
        classes: Whether it is a column of classes to predict, among which "None" may be one.
        of_values: Whether the categories are numbers, dates or truths: what is missing among those is missing.
        plain: Whether only an empty text is missing, and texts stay as they are (models saved by earlier versions).
        unit: Unit of numbers that are written with one; empty for numbers alone.
        multiples: Whether the unit is a multiple, like K, and a number without it is as it is.
    """

    kind: str = "text"
    decimal: str = "."
    form: str = "ymd"
    missing: tuple[str, ...] = ()
    any_missing: bool = False
    codes: bool = False
    folds: bool = True
    classes: bool = False
    of_values: bool = False
    plain: bool = False
    unit: str = ""
    multiples: bool = False

    @classmethod
    def of(cls, state: Reading | dict[str, Any]) -> Reading:
        """From what :func:`dataclasses.asdict` made of one."""
        if isinstance(state, Reading):
            return state
        return cls(**{**state, "missing": tuple(state.get("missing", ()))})

    def values(self, words: Sequence[str]) -> np.ndarray:
        """The number that each word is, NaN where it is none (not for text)."""
        if self.kind == "truth":
            return truths_of(words)
        if self.kind == "time":
            return times_of(words)
        if self.kind == "date":
            return dates_of(words, self.form)
        if not self.unit:
            return numbers_of(words, self.decimal)
        return numbers_in(words, self.unit, self.decimal, self.multiples)

    @property
    def expected(self) -> str:
        """What a column has to hold, in words."""
        return EXPECTED[self.kind] + (f" in {self.unit}" if self.unit else "")

    def gaps(self, words: Sequence[str]) -> np.ndarray:
        """Which words stand for a missing value."""
        if self.kind == "text" and not self.of_values:
            if self.plain:
                return np.array([word in _ARROWS for word in words], dtype=bool)
            known = MISSING_CLASSES if self.classes else MISSING
            known = known - {NOT_AVAILABLE} if self.codes else known
            return np.array([is_missing(word, known) for word in words], dtype=bool)
        return np.array([is_no_number(word) or word in self.missing for word in words], dtype=bool)


def state_of(reading: Reading) -> dict[str, Any]:
    """What of a reading is not as it is by default, as JSON values: the inverse of :meth:`Reading.of`."""
    default = asdict(Reading())
    state = {key: value for key, value in asdict(reading).items() if value != default[key]}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in state.items()}


_ARROWS = (MISSING - {"?", "<NA>", "None", "n/k", "N/K"}) | {""}
"""What earlier versions took for missing in a column of words."""


def read_as(column: Column, reading: Reading, name: str, strict: bool = True) -> Column:
    """A column as it is understood: numbers and dates as such, texts with their missing ones.

    Args:
        column: The column as it lies in its file.
        reading: How it is understood.
        name: Name of the column, for messages.
        strict: Whether a word that is not understood is an error; otherwise it counts as missing, with a warning.

    Raises:
        UserError: The column holds what cannot be understood in this way.
    """
    if reading.kind == "text":
        return _without(column, reading.gaps(column.words)) if column.kind == "text" else column
    expected = reading.expected
    if reading.form == COMPACT and column.kind == "number":
        column = column.as_text()
    if column.kind != "text":
        dated = reading.kind == "date"
        if (column.kind == "date") == dated:
            return column
        if column.missing.all():
            return Column("date" if dated else "number", np.full(len(column), np.nan))
        held = "dates" if column.kind == "date" else "numbers"
        raise UserError(f"the column {name!r} must hold {expected}, but holds {held}")
    values = reading.values(column.words)
    gaps = reading.gaps(column.words)
    strange = np.isnan(values) & ~gaps
    values[gaps | ~np.isfinite(values)] = np.nan
    if strange.any() and not reading.any_missing:
        used = np.unique(column.values[column.values >= 0])
        if words := [column.words[code] for code in used if strange[code]]:
            if strict:
                raise UserError(f"the column {name!r} must hold {expected}, but has {listed(words, 5)}")
            log.warning(
                "the column %r holds %s where %s are expected: missing", name, listed(words, 5), expected
            )
    spread = np.append(values, np.nan)[column.values]
    whole = reading.kind != "date" and bool((values[np.isfinite(values)] % 1 == 0).all())
    return Column(
        "date" if reading.kind == "date" else "number", spread, whole=whole, truth=reading.kind == "truth"
    )


def _without(column: Column, gaps: np.ndarray) -> Column:
    if not gaps.any():
        return column
    return replace(column, values=np.where(np.append(gaps, False)[column.values], -1, column.values))


def find_reading(
    column: Column,
    rows: np.ndarray | None,
    name: str,
    how: TableFormat,
    *,
    numeric: bool = False,
    categorical: bool = False,
    folds: bool = True,
    target: bool = False,
) -> tuple[Reading, list[Guess]]:
    """Decide how a column is understood.

    Args:
        column: The column as it lies in its file.
        rows: The training rows, which alone decide; None for all. (Words that are not understood are noted wherever
            they stand, so that the file can be predicted.)
        name: Name of the column.
        how: How the file is written.
        numeric: Whether the user says that it holds numbers.
        categorical: Whether the user says that it holds categories.
        folds: Whether spellings that differ in case or blanks alone are one category.
        target: Whether it is the column that is predicted.
    """
    plain = Reading(decimal=how.decimal, folds=folds, classes=target)
    if column.kind != "text":
        kind = "date" if column.kind == "date" else "truth" if column.truth else "number"
        if categorical:
            return replace(plain, kind="text", of_values=True), []
        if column.whole and not (numeric or target):
            some = column.values if rows is None else column.values[rows]
            if are_run_together(distinct := np.unique(some[np.isfinite(some)])):
                what = f"the column {name!r} holds dates ({distinct[0]:.0f})"
                guess = Guess(what, typed("data.numeric", [name]), False, (name,), "keeps numbers")
                return replace(plain, kind="date", form=COMPACT), [guess]
        return replace(plain, kind=kind), []
    codes = column.values if rows is None else column.values[rows]
    counts = np.bincount(codes[codes >= 0], minlength=len(column.words))
    there = np.flatnonzero(counts)
    words = [column.words[code] for code in there]
    counts = counts[there]
    if not categorical:
        said = np.array([not is_no_number(word) for word in words], dtype=bool)
        known = [word for word, one in zip(words, said, strict=True) if one]
        found = _number_like(known, counts[said], name, plain, how.delimiter == ";", numeric)
        if found is not None:
            reading, guesses = found
            return _with_marks(reading, column.words), guesses
    text = replace(plain, kind="text", codes=has_codes(words))
    guesses = [*_about_codes(name, text, words), *_about_spellings(name, text, words, target)]
    if not categorical and not numeric:
        guesses += _about_numbers(name, known, counts[said], how.decimal)
        guesses += [] if target else _about_units(name, known, counts[said], how.decimal)
    return text, guesses


def _number_like(
    words: list[str], counts: np.ndarray, name: str, plain: Reading, semicolons: bool, numeric: bool
) -> tuple[Reading, list[Guess]] | None:
    """The reading as numbers, true and false, dates or times, if nearly all values are; None for text."""
    if not words:
        return (replace(plain, kind="number"), []) if numeric else None
    for kind in ("number",) if numeric else ("number", "truth", "date", "time"):
        reading, open_form = replace(plain, kind=kind), False
        if kind == "number":
            if plain.decimal == "." and is_comma_decimal(words, semicolons):
                reading = replace(reading, decimal=",")
            unit = _unit(reading, words, counts, numeric)
            reading = replace(reading, unit=unit, multiples=is_multiple(unit))
        if kind == "date":
            form, open_form = form_of_dates(words)
            reading = replace(reading, form=form)
        if not numeric and _hardly_any(reading, words):
            continue
        if kind == "date" and not months_are_dates(words):
            continue
        values = reading.values(words)
        fits = ~np.isnan(values)
        share = counts[fits].sum() / counts.sum()
        marks = kind != "truth" and (~fits).sum() <= MOST_MARKS and share >= 0.5 and fits.sum() >= 10
        if not (share >= MOSTLY or marks or numeric):
            continue
        if kind == "number" and not numeric and any(is_code(word) for word in words):
            continue
        others = [word for word, fit in zip(words, fits, strict=True) if not fit]
        return reading, _about(name, reading, words, others, int(counts[~fits].sum()), open_form)
    return None


def _unit(reading: Reading, words: Sequence[str], counts: np.ndarray, numeric: bool) -> str:
    """The one unit that a column's numbers have, or can be turned into; empty where they have none or several."""
    units = _units(words, counts, reading.decimal)
    if units.share < 0.5 or (units.others and not numeric):
        return ""
    if reading.classes and not numeric:
        # Classes keep their names: "5 stars" is not 5.
        values = replace(reading, unit=units.unit).values(words)
        distinct = np.unique(values[np.isfinite(values)])
        if len(distinct) <= MOST_LEVELS and (distinct % 1 == 0).all() and counts.sum() >= 5 * len(distinct):
            return ""
    return units.unit


def _units(words: Sequence[str], counts: np.ndarray, decimal: str) -> Units:
    """:func:`find_units` of as many words as tell."""
    places = np.unique(np.linspace(0, len(words) - 1, min(len(words), 3 * TRIED_FIRST)).astype(int))
    return find_units([words[place] for place in places], counts[places], decimal)


def _hardly_any(reading: Reading, words: Sequence[str]) -> bool:
    """Whether few of many words are of a kind, by some of them: most columns of words are refused quickly."""
    if len(words) <= 3 * TRIED_FIRST:
        return False
    some = np.linspace(0, len(words) - 1, TRIED_FIRST).astype(int)
    return bool(np.isnan(reading.values([words[place] for place in some])).mean() > 0.7)


def _with_marks(reading: Reading, words: Sequence[str]) -> Reading:
    strange = np.isnan(reading.values(words)) & ~reading.gaps(words)
    marks = tuple(sorted(word for word, odd in zip(words, strange, strict=True) if odd))
    if len(marks) > MOST_WORDS:
        return replace(reading, any_missing=True)
    return replace(reading, missing=marks)


def _about(
    name: str, reading: Reading, words: Sequence[str], others: list[str], rows: int, open_form: bool
) -> list[Guess]:
    guesses = []
    kept = "data.kind=classification" if reading.classes else typed("data.categorical", [name])
    kinds = {"number": "numbers", "truth": "true and false", "date": "dates", "time": "times of day"}
    held = kinds[reading.kind]
    example = next((word for word in words if word not in others), "")
    if reading.kind == "number" and reading.decimal == ",":
        shown = next((word for word in words if "," in word), "")
        what = f"the column {name!r} has {'a decimal comma' if shown else 'points of thousands'}"
        shown = shown or next(word for word in words if "." in word)
        what += f" ({shown} is {reading.values([shown])[0]:.10g})"
        guesses.append(Guess(what, kept, True, (name,), "keeps words"))
    elif reading.unit:
        guesses.append(_about_unit(name, reading, [word for word in words if word not in others], kept))
    elif reading.kind == "number" and any(_is_dressed(word) for word in words):
        shown = next(word for word in words if _is_dressed(word))
        what = f"the column {name!r} holds numbers ({shown.strip()} is {numbers_of([shown], reading.decimal)[0]:.10g})"
        guesses.append(Guess(what, kept, False, (name,), "keeps words"))
    elif reading.kind in ("date", "time"):
        what = f"the column {name!r} holds {held} ({example})"
        guesses.append(Guess(what, kept, False, (name,), "keeps words"))
    if reading.kind == "number":
        found = mixtures(words)
        guesses += [Guess(f"the column {name!r} has {what}", "", True, (name,), way) for what, way in found]
    if open_form:
        order = "the day" if reading.form == "dmy" else "the month"
        guesses.append(
            Guess(
                f"dates like {example} in {name!r} may be read in two ways; {order} is taken to come first",
                costly=True,
                columns=(name,),
                effect="write them as 2024-01-31 to be sure",
            )
        )
    if others:
        guesses.append(
            Guess(
                f"the column {name!r} holds {held}, but {rows} values are none ({listed(others, 5)}): "
                "they count as missing",
                kept,
                True,
                (name,),
                "takes all for categories",
            )
        )
    return guesses


def _about_unit(name: str, reading: Reading, words: Sequence[str], kept: str) -> Guess:
    """That numbers have a unit, by a word that shows most: one in another unit, or else the first that has one."""
    values, alone = reading.values(words), numbers_of([without_unit(word) for word in words], reading.decimal)
    bare = np.isfinite(numbers_of(words, reading.decimal))
    turned = np.flatnonzero(~bare & (values != alone))
    shown = int(turned[0]) if len(turned) else int(np.argmin(bare))
    what = (
        f"the column {name!r} holds numbers in {reading.unit} ({words[shown].strip()} is {values[shown]:.10g}"
    )
    taken = bool(bare.any()) and not reading.multiples
    what += "; numbers without a unit are taken to be of it)" if taken else ")"
    return Guess(what, kept, taken, (name,), "keeps words")


def _about_units(name: str, words: list[str], counts: np.ndarray, decimal: str) -> list[Guess]:
    """That a column is taken for categories whose numbers are of several units."""
    units = _units(words, counts, decimal)
    names = [units.unit, *units.others]
    if not units.others or units.share < MOSTLY or not all(is_known(name) for name in names):
        return []
    what = f"the column {name!r} is taken for categories: its numbers have units that do not go together"
    what += f" ({listed(names, 5)})"
    return [Guess(what, "", True, (name,), "write all of them in one unit, or in a column for each")]


def _is_dressed(word: str) -> bool:
    try:
        return float(word) != float(word)
    except ValueError:
        return bool(np.isfinite(numbers_of([word])[0]))


def _about_codes(name: str, reading: Reading, words: Sequence[str]) -> list[Guess]:
    if not reading.codes or not any(word.strip() == NOT_AVAILABLE for word in words):
        return []
    what = f"NA in the column {name!r} is a code like the others there, and no missing value"
    return [Guess(what, columns=(name,), effect="leave missing values empty, or write them as ?")]


def _about_spellings(name: str, reading: Reading, words: Sequence[str], target: bool) -> list[Guess]:
    if not reading.folds:
        return []
    known: dict[str, list[str]] = {}
    missing = MISSING_CLASSES if target else MISSING
    for word in words:
        if not is_missing(word, missing):
            known.setdefault(spelling(word), []).append(word)
    several = [spellings for spellings in known.values() if len({word.strip() for word in spellings}) > 1]
    if not several:
        return []
    shown = "; ".join(listed(sorted(spellings), 4) for spellings in several[:3])
    one = "class" if target else "category"
    what = f"spellings in the column {name!r} that differ in case or blanks alone are one {one}"
    return [Guess(f"{what} ({shown})", "data.fold_case=false", False, (name,), "keeps them apart")]


def _about_numbers(name: str, words: list[str], counts: np.ndarray, decimal: str) -> list[Guess]:
    """That a column taken for categories holds many numbers."""
    if not words or _hardly_any(Reading("number", decimal), words):
        return []
    fits = ~np.isnan(numbers_of(words, decimal))
    share = counts[fits].sum() / counts.sum()
    if share < 0.5 or fits.sum() < 10 or any(is_code(word) for word in words):
        return []
    others = [word for word, fit in zip(words, fits, strict=True) if not fit]
    what = f"the column {name!r} is taken for categories: {share:.0%} of its values are numbers"
    what += f", the others not ({listed(others, 5)})"
    return [Guess(what, typed("data.numeric", [name]), True, (name,), "takes those for missing")]


def column_of(table: Table, name: str, reading: Reading, strict: bool = True) -> Column:
    """A column of a table, understood once, see :func:`read_as`."""
    return table.kept((name, reading), lambda: read_as(table.column(name), reading, name, strict))


def settled(table: Table, name: str) -> Column:
    """A column of a table as all its rows together let it be understood."""
    reading, _ = find_reading(table.column(name), None, name, table.how)
    return column_of(table, name, reading, strict=False)
