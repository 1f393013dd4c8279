"""What words in a table mean: missing values, numbers as people write them, dates, times, true and false.

One list of missing words and one reader of each kind, for every file and for rows in memory.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
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

_TIME = re.compile(
    r"(\d{1,2})[:h]([0-5]\d)(?::([0-5]\d(?:\.\d+)?))?\s*([AaPp]\.?[Mm]\.?)?(?:\s*(?:[Uu]hr|h))?"
)


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


def mixtures(words: Sequence[str]) -> list[tuple[str, str]]:
    """What numbers are written in that does not go together, and what to do about it.

    Args:
        words: The different texts of a column of numbers.
    """
    found = []
    if len(several := currencies(words)) > 1:
        said = f"amounts in several currencies ({', '.join(several[:5])}), taken as numbers of one"
        found.append((said, "convert them to one"))
    whole = [word for word in words if word.rstrip().endswith("%")]
    shares = (
        np.abs(numbers_of([word for word in words if not word.rstrip().endswith("%")]))
        if whole
        else np.zeros(0)
    )
    shares = shares[np.isfinite(shares)]
    if len(shares) and shares.max() <= 1 and np.nanmax(np.abs(numbers_of(whole))) > 1:
        said = "numbers with % and others up to 1 without it, taken as they are written"
        found.append((said, "write all of them in one way"))
    return found


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
    return np.nan if found is None else clock_seconds(*found.groups())


def clock_seconds(hour: str | None, minute: str | None, second: str | None, half: str | None) -> float:
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


def spelling(word: str) -> str:
    """What two spellings of one category have in common: blanks around it and its case do not count.

    Of a word of one letter the case counts: a and A may be two things.
    """
    bare = word.strip()
    return bare if len(bare) <= 1 else bare.casefold()


def is_code(word: str) -> bool:
    """Whether it is written like 01001: a code whose zeros in front count."""
    return len(word) > 1 and word[0] == "0" and word.isdigit()


def has_codes(words: Sequence[str]) -> bool:
    """Whether "NA" is one code among others: at least two, and half of the other words, are two capital letters."""
    others = {bare for word in words if (bare := word.strip()) != NOT_AVAILABLE and not is_missing(word)}
    codes = sum(len(word) == 2 and word.isalpha() and word.isupper() for word in others)
    return codes >= 2 and codes >= 0.5 * len(others)
