"""What words in a table mean: missing values, numbers as people write them, dates, times, true and false.

One list of missing words and one reader of each kind, for every file and for rows in memory.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from unicodedata import combining, normalize
from unicodedata import decimal as unicode_digit

import numpy as np

NOT_AVAILABLE = "NA"
MISSING = frozenset(
    {
        "", "?", "NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "<NA>", "NaN", "nan", "-NaN", "-nan", "NULL", "null",
        "None", "n/k", "N/K", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN",
    }
)  # fmt: skip
"""Words that stand for a missing value wherever they stand (blanks around them do not count)."""
MISSING_CLASSES = MISSING - {"None"}
"""The same for what is predicted: a row without a class is left out, and "None" may well be a class."""
MISSING_NUMBERS = frozenset(
    {word.lower() for word in MISSING}
    | {"-", "--", "---", ".", "..", "…", "–", "—", "*", "na.", "n.a.", "n.k.", "k.a.", "nil", "unk", "unknown"}
    | {"missing", "not available", "not known", "not applicable", "(null)", "\\n", "tba", "tbd"}
    | {"#div/0!", "#value!", "#ref!", "#num!"}
)  # fmt: skip
"""Words (in lower case) that stand for a missing value in a column of numbers, dates or times."""

CURRENCY = "$€£¥₹₩₽₺₴₪₫฿¢₱₦₵₡₲₸₮"
CODES = (
    "USD|EUR|GBP|CHF|JPY|CNY|INR|AUD|CAD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|RUB|BRL|ZAR|KRW|SGD|HKD|MXN|TRY|RON|BGN|UAH|ILS|"
    "THB|IDR|MYR|PHP|VND|TWD|AED|SAR|EGP|NGN|KES|ARS|CLP|COP|PEN|ISK|PKR|BDT|LKR|Rs|SFr|Kr|kr|zł|Kč|lei|Rp|руб|грн"
)
_MONEY = re.compile(
    rf"(?:\b[A-Z]{{1,2}})?[{CURRENCY}]|\b(?:{CODES})\b\.?|(?<=\d)(?:{CODES})\.?$|^(?:{CODES})\.?(?=\d)"
)
_SAME_MONEY = {
    "USD": "$", "US$": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "CNY": "¥", "INR": "₹", "Rs": "₹", "PLN": "zł",
    "Kr": "kr", "SEK": "kr", "NOK": "kr", "DKK": "kr", "BRL": "R$", "RUB": "₽", "руб": "₽", "TRY": "₺", "KRW": "₩",
}  # fmt: skip
_NO_CENTS = re.compile(r"(?<=\d)[.,][-–—]{1,2}$")
"""What stands for no cents: 12.- and 12,–."""
_MINUS_BEHIND = re.compile(r"(\d[\d.,]*[.,]\d\d+)\s?-")
"""A minus behind the number, as accounts have it; 2- may be a mark."""
_OR_MORE = re.compile(r"(\d[\d.,]*\d)\s?\+")
_POINTS = re.compile(r"[+-]?[1-9]\d{0,2}(?:\.\d{3})+(?:,\d+)?")
_WIDE = str.maketrans("．，－＋％（）／：￥￡￦", ".,-+%()/:¥£₩")
_SPACES = re.compile(r"[\s\u00a0\u202f\u2009'’_](?=\d{3}(?!\d))")
_GROUPS = {
    ".": re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{2,3})*,\d{3}(?:\.\d*)?(?:[eE][+-]?\d+)?"),
    ",": re.compile(r"[+-]?[1-9]\d{0,2}(?:\.\d{3})+(?:,\d*)?(?:[eE][+-]?\d+)?"),
}
_PLAIN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_HALVES = {
    "½": "1/2",
    "¼": "1/4",
    "¾": "3/4",
    "⅓": "1/3",
    "⅔": "2/3",
    "⅛": "1/8",
    "⅜": "3/8",
    "⅝": "5/8",
    "⅞": "7/8",
}
_FRACTION = re.compile(r"([+-]?)(?:(\d+)[\s-]+)?(\d{1,2})\s?[/⁄]\s?(\d{1,3})")
_HALVED, _PARTED = (2, 4, 8, 16, 32, 64), (3, 5, 6, 7, 9, 10, 12, 100)
"""Denominators of any fraction, and of those below 1 alone: 120/80 is no number, and neither is 12/5."""
_HEX = re.compile(r"[+-]?0[xX][0-9a-fA-F]+")
_COMMA = re.compile(r"[+-]?(?:\d+|\d{1,3}(?:\.\d{3})+),\d+")

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
_TIME = re.compile(
    r"(\d{1,2})[:h]([0-5]\d)(?::([0-5]\d(?:\.\d+)?))?\s*([AaPp]\.?[Mm]\.?)?(?:\s*(?:[Uu]hr|h))?"
)
_MONTH = re.compile(rf"({_NAME}{{3,10}})(?:[-\s.,]+|\s+de\s+)(\d{{4}})|(\d{{4}})[-\s]*[Qq]([1-4])")
_PROGRAMS = re.compile(
    r"(?:[A-Z][a-z]{2} )?([A-Z][a-z]{2}) {1,2}(\d{1,2}) (\d{2}:\d{2}:\d{2})(?: (?:UTC|GMT|[+-]0000))? (\d{4})"
)
_EASTERN = re.compile(r"(\d{4})(?:年|년) ?(\d{1,2})(?:月|월)(?: ?(\d{1,2})(?:日|일))?")
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}(?:$|[T ]\d)")


def is_missing(word: str, words: frozenset[str] = MISSING) -> bool:
    """Whether a word of a column of words stands for a missing value."""
    return word in words or word.strip() in words


def is_no_number(word: str) -> bool:
    """Whether a word of a column of numbers, dates or times stands for a missing value."""
    return word.strip().lower() in MISSING_NUMBERS


def numbers_of(words: Sequence[str], decimal: str = ".") -> np.ndarray:
    """Each text as a number, NaN where it is none.

    Money, thousands, percent and fractions are understood: ``$1,001.50`` is 1001.5, ``12 %`` is 12, ``(5)`` is −5,
    ``3 1/2`` is 3.5; with the decimal mark ``,`` it is ``1.001,50 €``. Digits of other scripts are digits.

    Args:
        words: The texts.
        decimal: Decimal mark.
    """
    import pandas as pd

    given = pd.Series(list(words), dtype=object)
    plain = (
        given
        if decimal == "."
        else given.str.replace(decimal, ".", regex=False).where(~given.str.contains(".", regex=False), None)
    )
    found = np.array(pd.to_numeric(plain, errors="coerce").to_numpy(np.float64, na_value=np.nan))
    for place in np.flatnonzero(np.isnan(found)).tolist():
        found[place] = _decorated(words[place], decimal)
    return found


def _decorated(word: str, decimal: str) -> float:
    text = _NO_CENTS.sub("", _MONEY.sub("", unquoted(plain_digits(word, decimal).replace("−", "-"))).strip())
    if behind := _MINUS_BEHIND.fullmatch(text):
        text = f"-{behind[1]}"
    elif more := _OR_MORE.fullmatch(text):
        text = more[1]
    for sign, fraction in _HALVES.items():
        text = text.replace(sign, f" {fraction}").strip()
    if found := _FRACTION.fullmatch(text):
        return _fraction(found)
    if not text or not any(letter.isdigit() for letter in text):
        return np.nan
    if _HEX.fullmatch(text):
        return float(int(text, 16))
    negative = text[0] == "(" and text[-1] == ")"
    text = _SPACES.sub("", text.strip("()") if negative else text).removesuffix("%").strip()
    if text[:1] in "+-":
        text = text[:1] + text[1:].strip()
    if _GROUPS.get(decimal, _GROUPS["."]).fullmatch(text):
        text = text.replace("." if decimal == "," else ",", "")
    elif decimal != "." and "." in text:
        return np.nan
    text = text.replace(decimal, ".") if decimal != "." else text
    if not _PLAIN.fullmatch(text):
        return np.nan
    return -float(text) if negative else float(text)


def plain_digits(word: str, decimal: str = ".") -> str:
    """A word with the digits and marks of other scripts (１２, ١٢) as 0 to 9, its decimal mark as given."""
    if word.isascii():
        return word
    word = word.translate(_WIDE).replace("\u066b", decimal).replace("\u066c", "").replace("\u066a", "%")
    return "".join(letter if letter.isascii() else str(unicode_digit(letter, letter)) for letter in word)


def unquoted(word: str) -> str:
    """A word without the quotation marks around it that are none of the file's own: ``'1.5'``."""
    bare = word.strip()
    return (
        bare[1:-1] if len(bare) > 2 and bare[0] + bare[-1] in ("''", '""', "“”", "‘’", "„“", "«»") else word
    )


def currencies(words: Sequence[str]) -> list[str]:
    """The currencies that amounts of money are in, each once, by its usual mark."""
    marks = [found[0].strip(".") for word in words if (found := _MONEY.search(word))]
    return list(dict.fromkeys(_SAME_MONEY.get(mark, mark) for mark in marks))


def _fraction(found: re.Match[str]) -> float:
    upper, lower = int(found[3]), int(found[4])
    below_one = upper < lower
    if (lower not in _HALVED and not (lower in _PARTED and below_one)) or (found[2] and not below_one):
        return np.nan
    value = int(found[2] or 0) + upper / lower
    return -value if found[1] == "-" else value


def has_decimal_comma(words: Sequence[str], semicolons: bool = False) -> bool:
    """Whether numbers are written like 1,5: there are commas, and not all of them can be those of thousands.

    Args:
        words: The texts.
        semicolons: Whether the file's values are separated by ``;``, as where the comma is the decimal mark. Then 1,500
            is one and a half.
    """
    bare = [
        _SPACES.sub("", _MONEY.sub("", word).strip().removesuffix("%").strip())
        for word in words
        if "," in word
    ]
    comma = [word for word in bare if _COMMA.fullmatch(word)]
    thousands = sum(_GROUPS["."].fullmatch(word) is not None for word in comma)
    return len(comma) >= 0.95 * max(1, len(bare)) and (thousands < len(comma) or semicolons)


def has_points_of_thousands(words: Sequence[str]) -> bool:
    """Whether the points in numbers are those of thousands: ``1.234.567``, or ``1.200 kr`` beside ``950 kr``.

    Args:
        words: The texts, without units. Of money a single point is one of thousands too where some amounts are of a
            hundred thousand, or have none: prices of three decimals are small, and all have them.
    """
    bare = [_SPACES.sub("", _NO_CENTS.sub("", _MONEY.sub("", word).strip())) for word in words]
    pointed = [word for word in bare if "." in word]
    if not pointed or not all(_POINTS.fullmatch(word) for word in pointed):
        return False
    if any(word.count(".") > 1 for word in pointed):
        return True
    money = sum(_MONEY.search(word) is not None for word in words) >= 0.5 * len(words)
    whole = any(word.isdigit() for word in bare)
    return money and (whole or any(len(word.lstrip("+-").partition(".")[0]) == 3 for word in pointed))


def truths_of(words: Sequence[str]) -> np.ndarray:
    """1 for each ``true``, 0 for each ``false`` in any case, NaN for other words."""
    known = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}
    return np.array([known.get(word.strip().lower(), np.nan) for word in words], dtype=np.float64)


def times_of(words: Sequence[str]) -> np.ndarray:
    """Each text of the form 23:59, 23:59:30 or 11:59 pm as seconds since midnight, NaN for other words."""
    return np.array([_seconds(_TIME.fullmatch(word.strip())) for word in words], dtype=np.float64)


def _seconds(found: re.Match[str] | None) -> float:
    return np.nan if found is None else _clock(*found.groups())


def _clock(hour: str | None, minute: str | None, second: str | None, half: str | None) -> float:
    if hour is None or minute is None:
        return 0.0
    hours = int(hour)
    if half:
        if not 1 <= hours <= 12:
            return np.nan
        hours = hours % 12 + 12 * (half[0] in "pP")
    if hours > 23 or int(minute) > 59:
        return np.nan
    return hours * 3600.0 + int(minute) * 60.0 + float(second or 0)


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
        found[place] = _date(_bare(_reordered(words[place].strip())), form)
    return found


def months_are_dates(words: Sequence[str]) -> bool:
    """Whether words like Mai 2024 may be months: all of one language, and beyond English of more than one name.

    ``Mars 2020`` beside ``Set 2019`` are no months, and neither are ``Set 2019`` and ``Set 2020``.

    Args:
        words: All texts of a column, also those of another form.
    """
    matches = (_MONTH.fullmatch(_bare(word.strip())) for word in words)
    names = {found[1].lower() for found in matches if found and found[1]} & MONTHS.keys()
    known = [set(year.replace("|", " ").split()) for year in _MONTHS_IN.values()]
    return names <= known[0] or (len(names) > 1 and any(names <= year for year in known))


def _bare(word: str) -> str:
    """Without accents: août is aout."""
    if word.isascii():
        return word
    return "".join(letter for letter in normalize("NFKD", word) if not combining(letter))


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
        year, day, clock = int(parts[2] or parts[3]), 1, ()
        month = MONTHS[parts[1].lower()] if parts[1] else 3 * int(parts[4]) - 2
    else:
        return np.nan
    seconds = _clock(*clock) if clock else 0.0
    if not 1 <= month <= 12 or not 1 <= day <= 31 or not 1 <= year <= 9999:
        return np.nan
    try:
        days = np.datetime64(f"{year:04}-{month:02}-{day:02}", "D").astype(np.int64)
    except ValueError:
        return np.nan
    return float(days) * 86_400.0 + seconds


def _full_year(digits: str) -> int:
    """Two digits as POSIX takes them: 69 is 1969, 68 is 2068."""
    year = int(digits)
    return year if len(digits) > 2 else year + (1900 if year >= 69 else 2000)


def form_of_dates(words: Sequence[str]) -> tuple[str, bool]:
    """Whether day or month comes first in dates like 6/1/1930: ``mdy``, ``dmy``, or ``ymd`` where there are none.

    Returns:
        The form, and whether the words leave it open: then a point means the day first, anything else the month.
    """
    parts = [found for found in (_YEAR_LAST.fullmatch(_bare(word.strip())) for word in words) if found]
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


def spelling(word: str) -> str:
    """What two spellings of one category have in common: blanks around it and its case do not count.

    Of a word of one letter the case counts: a and A may be two things.
    """
    bare = word.strip()
    return bare if len(bare) <= 1 else bare.casefold()
