"""Dates, months, quarters and weeks as people and programs write them."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence

import numpy as np

from pipeline.data.core.letters import without_accents
from pipeline.data.tables.words import clock_seconds

_MONTHS_IN = {
    "en": "jan january|feb february|mar march|apr april|may|jun june|jul july|aug august|sep sept september|"
    "oct october|nov november|dec december",
    "de": "jan januar janner|feb februar|mar marz mrz|apr april|mai|jun juni|jul juli|aug august|sep sept september|"
    "okt oktober|nov november|dez dezember",
    "nl": "jan januari|feb februari|mrt maart|apr april|mei|jun juni|jul juli|aug augustus|sep sept september|"
    "okt oktober|nov november|dec december",
    "fr": "jan janv janvier|fev fevr fevrier|mars|avr avril|mai|juin|juil juillet|aout|sep sept septembre|oct octobre|"
    "nov novembre|dec decembre",
    "es": "ene enero|feb febrero|mar marzo|abr abril|may mayo|jun junio|jul julio|ago agosto|sep sept septiembre|"
    "oct octubre|nov noviembre|dic diciembre",
    "it": "gen gennaio|feb febbraio|mar marzo|apr aprile|mag maggio|giu giugno|lug luglio|ago agosto|"
    "set sett settembre|ott ottobre|nov novembre|dic dicembre",
    "pt": "jan janeiro|fev fevereiro|mar marco|abr abril|mai maio|jun junho|jul julho|ago agosto|set setembro|"
    "out outubro|nov novembro|dez dezembro",
}  # fmt: skip
MONTHS = {
    name: number
    for year in _MONTHS_IN.values()
    for number, names in enumerate(year.split("|"), start=1)
    for name in names.split()
}
"""Names of months without accents, in English, German, Dutch, French, Spanish, Italian and Portuguese."""
WEEKDAYS = (
    "mon monday tue tues tuesday wed weds wednesday thu thur thurs thursday fri friday sat saturday sun sunday "
    "mo montag di dienstag mi mittwoch do donnerstag fr freitag sa samstag sonnabend so sonntag "
    "ma maandag dinsdag wo woensdag donderdag vr vrijdag za zaterdag zo zondag "
    "lun lundi mar mardi mer mercredi jeu jeudi ven vendredi sam samedi dim dimanche "
    "lunes martes mie miercoles jue jueves vie viernes sab sabado dom domingo "
    "lunedi martedi mercoledi gio giovedi venerdi sabato domenica "
    "seg segunda ter terca qua quarta qui quinta sex sexta"
)
"""Names of the days of the week, in the same languages, without accents."""
_CLOCK = (
    r"(?:[T ,]\s*(\d{1,2})[:.h](\d{2})(?::(\d{2}(?:\.\d+)?))?\s*([AaPp]\.?[Mm]\.?)?(?:\s*(?:[Uu]hr|h))?)?"
)
_NAME = r"[^\W\d_]"
# No other word is left out before a date: "North 2024-01-31" is of the north.
_DAY_OF_WEEK = rf"(?:(?i:{'|'.join(WEEKDAYS.split())})(?:-feira)?[.,]*\s+)"
_YEAR_FIRST = re.compile(
    rf"(?:{_DAY_OF_WEEK}(?=\d{{4}}[-/.]\d{{1,2}}[-/.]\d))?(\d{{4}})[-/.](\d{{1,2}})(?:[-/.](\d{{1,2}}))?"
    + _CLOCK
)
_YEAR_LAST = re.compile(_DAY_OF_WEEK + r"?(\d{1,2})([-/.])(\d{1,2})\2(\d{4}|\d{2})" + _CLOCK)
_NAMED = re.compile(
    rf"{_DAY_OF_WEEK}?(?:(\d{{1,2}})(?:st|nd|rd|th|er)?(?:[-\s.]+|\s+de\s+)({_NAME}{{3,10}})"
    rf"|({_NAME}{{3,10}})[-\s.]+(\d{{1,2}})(?:st|nd|rd|th)?)(?:[-\s.,]+|\s+de\s+)(\d{{4}}|\d{{2}})" + _CLOCK
)
_MONTH = re.compile(
    rf"({_NAME}{{3,10}})(?:[-\s.,]+|\s+de\s+)(\d{{4}})|(\d{{4}})[-\s]*[Qq]([1-4])"
    r"|[Qq]([1-4])[-\s/.]*(\d{4})"
)
COMPACT = "run together"
"""Form of dates that are whole numbers: 20240131, or 202401."""
_RUN = re.compile(r"(\d{4})(\d{2})(\d{2})?(?:(?<=\d{8})[T ](\d{2}):?(\d{2}):?(\d{2})?)?")
_WEEK = re.compile(r"(\d{4})-?W(\d{1,2})(?:-?([1-7]))?")
_PROGRAMS = re.compile(
    r"(?:[A-Z][a-z]{2} )?([A-Z][a-z]{2}) {1,2}(\d{1,2}) (\d{2}:\d{2}:\d{2})(?: (?:UTC|GMT|[+-]0000))? (\d{4})"
)
_EASTERN = re.compile(r"(\d{4})(?:年|년) ?(\d{1,2})(?:月|월)(?: ?(\d{1,2})(?:日|일))?")
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}(?:$|[T ]\d)")


def dates_of(words: Sequence[str], form: str = "ymd") -> np.ndarray:
    """Each text that is a date as seconds since 1970 (UTC), NaN for other words.

    ISO 8601 is always understood, 2024/01/31 and 31 Jan 2024 too; of a month or a quarter
    (Jan 2024, 2024-Q1) the first day.

    Args:
        words: The texts.
        form: ``mdy`` for dates like 01/31/2024, ``dmy`` for 31/01/2024; ``ymd`` understands neither.
    """
    import pandas as pd

    looks = [word.strip() if _ISO.match(word.strip()) else None for word in words]
    found = np.full(len(looks), np.nan)
    if any(look is not None for look in looks):
        moments = pd.to_datetime(pd.Series(looks, dtype=object), format="ISO8601", errors="coerce", utc=True)
        seconds = moments.dt.tz_localize(None).to_numpy("datetime64[ms]").astype(np.int64) / 1e3
        found = np.where(moments.isna(), np.nan, seconds)
    for place in np.flatnonzero(np.isnan(found)).tolist():
        found[place] = _date(without_accents(_reordered(words[place].strip())), form)
    return found


def months_are_dates(words: Sequence[str]) -> bool:
    """Whether words like Mai 2024 may be months: all of one language, and beyond English of more than one name.

    ``Mars 2020`` beside ``Set 2019`` are no months, and neither are ``Set 2019`` and ``Set 2020``.

    Args:
        words: All texts of a column, also those of another form.
    """
    matches = (_MONTH.fullmatch(without_accents(word.strip())) for word in words)
    names = {found[1].lower() for found in matches if found and found[1]} & MONTHS.keys()
    known = [set(year.replace("|", " ").split()) for year in _MONTHS_IN.values()]
    return names <= known[0] or (len(names) > 1 and any(names <= year for year in known))


def _reordered(word: str) -> str:
    """Dates as programs and as East Asia write them, as others are: ``Wed Mar  5 10:03:00 2024``, ``2024年3月5日``."""
    if found := _PROGRAMS.fullmatch(word):
        return f"{found[2]} {found[1]} {found[4]} {found[3]}"
    return (
        word if word.isascii() else _EASTERN.sub(lambda found: "-".join(filter(None, found.groups())), word)
    )


def _date(word: str, form: str) -> float:
    if not word or not word[-1].isalnum() or len(word) > 60:
        return np.nan
    if parts := _YEAR_FIRST.fullmatch(word):
        year, month, day = int(parts[1]), int(parts[2]), int(parts[3] or 1)
        clock = parts.groups()[3:]
    elif form != "ymd" and (parts := _YEAR_LAST.fullmatch(word)):
        first, second = int(parts[1]), int(parts[3])
        month, day = (first, second) if form == "mdy" else (second, first)
        year, clock = _full_year(parts[4]), parts.groups()[4:]
    elif parts := _NAMED.fullmatch(word):
        name = (parts[2] or parts[3]).lower()
        if name not in MONTHS:
            return np.nan
        month, day, year = MONTHS[name], int(parts[1] or parts[4]), _full_year(parts[5])
        clock = parts.groups()[5:]
    elif parts := _MONTH.fullmatch(word):
        if parts[1] and parts[1].lower() not in MONTHS:
            return np.nan
        year, day, clock = int(parts[2] or parts[3] or parts[6]), 1, ()
        month = MONTHS[parts[1].lower()] if parts[1] else 3 * int(parts[4] or parts[5]) - 2
    elif (parts := _RUN.fullmatch(word)) and (parts[4] or form == COMPACT):
        year, month, day, clock = int(parts[1]), int(parts[2]), int(parts[3] or 1), ()
        if parts[4]:
            clock = (parts[4], parts[5], parts[6], None)
    elif parts := _WEEK.fullmatch(word):
        return _monday(int(parts[1]), int(parts[2]), int(parts[3] or 1))
    else:
        return np.nan
    seconds = clock_seconds(*clock) if clock else 0.0
    if not 1 <= month <= 12 or not 1 <= day <= 31 or not 1 <= year <= 9999:
        return np.nan
    try:
        days = np.datetime64(f"{year:04}-{month:02}-{day:02}", "D").astype(np.int64)
    except ValueError:
        return np.nan
    return float(days) * 86_400.0 + seconds


def _monday(year: int, week: int, day: int) -> float:
    """A day of a week of ISO 8601; the first has the year's first Thursday."""
    try:
        moment = datetime.date.fromisocalendar(year, week, day)
    except ValueError:
        return np.nan
    return (moment - datetime.date(1970, 1, 1)).days * 86_400.0


def are_run_together(values: np.ndarray) -> bool:
    """Whether whole numbers are dates like 20240131 or months like 202401: all of them, and enough not to be by chance.

    Args:
        values: Different numbers.
    """
    for month, day, fewest in ((100, 100, 10), (100, 1, 20)):
        days = values % day + (day == 1)
        months = values // day % month
        years = values // day // month
        fits = (years >= 1900) & (years <= 2100) & (months >= 1) & (months <= 12) & (days >= 1) & (days <= 31)
        if len(values) >= fewest and fits.all() and len(np.unique(months)) > 1:
            return True
    return False


def _full_year(digits: str) -> int:
    """Two digits as POSIX takes them: 69 is 1969, 68 is 2068."""
    year = int(digits)
    return year if len(digits) > 2 else year + (1900 if year >= 69 else 2000)


def form_of_dates(words: Sequence[str]) -> tuple[str, bool]:
    """Whether day or month comes first in dates like 6/1/1930: ``mdy``, ``dmy``, or ``ymd`` where there are none.

    Returns:
        The form, and whether the words leave it open: then a point means the day first, anything else the month.
    """
    parts = [
        found for found in (_YEAR_LAST.fullmatch(without_accents(word.strip())) for word in words) if found
    ]
    if not parts:
        return "ymd", False
    first, second = max(int(found[1]) for found in parts), max(int(found[3]) for found in parts)
    if first > 12 >= second:
        return "dmy", False
    if second > 12 >= first:
        return "mdy", False
    if first > 12 and second > 12:
        # Some of them are no dates in either order: the one that more of them fit.
        days = sum(int(found[1]) > 12 for found in parts)
        return ("dmy" if days > sum(int(found[3]) > 12 for found in parts) else "mdy"), False
    return ("dmy" if parts[0][2] == "." else "mdy"), True
