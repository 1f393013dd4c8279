"""Numbers with their unit, as people write them: ``12 kg``, ``80 km/h``, ``5'11"``, ``2 h 30 min``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.data.tables.words import currencies, has_decimal_comma, has_points_of_thousands, numbers_of

_FAMILIES: tuple[dict[str, float], ...] = (
    {"kg": 1000.0, "g": 1.0, "mg": 0.001, "t": 1e6, "lb": 453.59237, "oz": 28.349523125},
    {
        "m": 1.0,
        "mm": 0.001,
        "cm": 0.01,
        "km": 1000.0,
        "in": 0.0254,
        "ft": 0.3048,
        "yd": 0.9144,
        "mi": 1609.344,
    },
    {"s": 1.0, "ms": 0.001, "min": 60.0, "h": 3600.0, "d": 86_400.0},
    {"l": 1.0, "ml": 0.001, "cl": 0.01, "dl": 0.1},
)
"""Units of one quantity with their size (international avoirdupois pound, foot and mile of 1959)."""
_MAGNITUDES: dict[str, float] = {
    **dict.fromkeys(("k", "K", "thousand", "tsd"), 1e3),
    **dict.fromkeys(("m", "M", "mn", "mio", "mln", "million"), 1e6),
    **dict.fromkeys(("b", "B", "bn", "mrd", "mlrd", "billion"), 1e9),
    **dict.fromkeys(("lakh", "lac"), 1e5),
    **dict.fromkeys(("cr", "crore"), 1e7),
}
"""Multiples as in 1.2M views: a number without one is none of them."""
_ALSO = {
    '"': "in", "″": "in", "”": "in", "''": "in", "inch": "in", "inche": "in", "'": "ft", "′": "ft", "’": "ft",
    "foot": "ft", "feet": "ft", "mile": "mi", "yard": "yd", "metre": "m", "meter": "m", "lbs": "lb", "pound": "lb",
    "ounce": "oz", "gram": "g", "kilo": "kg", "kgs": "kg", "kilogram": "kg", "litre": "l", "liter": "l", "sec": "s",
    "second": "s", "minute": "min", "hr": "h", "hrs": "h", "hour": "h", "day": "d",
}  # fmt: skip
"""Other spellings of them."""
_LONGEST = 16
_UNIT = r"(?:''|[\"'″′’”]|°\s?[CFK]?|[^\W\d_]+[23²³]?\.?(?:[ -][^\W\d_]+[23²³]?\.?)?(?:\s?/\s?\d*\s?[^\W\d_]+[23²³]?)?)"
_NUMBER = r"(?:(?:[^A-Za-z'\"′″]|'(?=\d{3}(?!\d)))*[\d¼½¾⅓⅔⅛⅜⅝⅞][.]?)"
_WITH_UNIT = re.compile(rf"(?P<number>{_NUMBER})\s*(?P<unit>{_UNIT})", re.DOTALL)
_PART = r"\d+(?:[.,]\d+)?"
_PARTS = re.compile(rf"\s*({_PART})\s*([^\W\d_]+|''|[\"'″′’”])\.?(?:\s*,|\s+and\b)?")
_FEET_ALONE = re.compile(rf"({_PART}\s*['′’]\s*{_PART})")
_CLOCK = re.compile(
    r"(?P<sign>-)?(?:(?P<days>\d+) days?,? )?\+?"
    r"(?P<first>\d{1,3}):(?P<second>[0-5]\d)(?::(?P<third>[0-5]\d(?:\.\d+)?))?"
)
_ISO = re.compile(
    r"P(?:(\d+)W)?(?:(\d+(?:\.\d+)?)D)?(?:T(?=\d)(?:(\d+(?:\.\d+)?)H)?(?:(\d+(?:\.\d+)?)M)?(?:(\d+(?:\.\d+)?)S)?)?"
)
_LONG_NAME = 4
"""Letters from which on an s at the end is that of several."""


@dataclass(frozen=True)
class Units:
    """The units of a column.

    Args:
        unit: The one that most rows have, which numbers are taken to be of; empty where they have none.
        others: Those that are neither it nor can be turned into it.
        share: Share of the rows that have a unit.
        bare: Whether some rows are numbers without one.
    """

    unit: str = ""
    others: tuple[str, ...] = ()
    share: float = 0.0
    bare: bool = False


def find_units(words: Sequence[str], counts: np.ndarray, decimal: str = ".") -> Units:
    """Which units the numbers of a column have.

    Args:
        words: Different words of the column.
        counts: Rows that have each.
        decimal: Decimal mark of its numbers.
    """
    rows: dict[str, int] = {}
    written: dict[str, str] = {}
    bare = np.isfinite(numbers_of(words, decimal))
    lasting = _are_lasting(words)
    for word, count, plain in zip(words, counts.tolist(), bare.tolist(), strict=True):
        if not plain and (parts := _split(word, decimal) or (_lasting(word) if lasting else [])):
            # The smallest of several, so that what is written is a number with few digits.
            name = _named(parts[-1][1])
            rows[name] = rows.get(name, 0) + count
            written.setdefault(name, parts[-1][1].strip())
    if not rows:
        return Units()
    first = max(rows, key=rows.__getitem__)
    family = _family_of(rows)
    others = () if family else tuple(written[name] for name in rows if name != first)
    unit = _as(first, family) if family else written[first]
    return Units(unit, others, sum(rows.values()) / max(int(counts.sum()), 1), bool(bare.any()))


def numbers_in(words: Sequence[str], unit: str, decimal: str = ".", multiples: bool = False) -> np.ndarray:
    """Each text as a number in some unit, NaN where it is none: a number without a unit is taken to be of it.

    Args:
        words: The texts.
        unit: The unit.
        decimal: Decimal mark.
        multiples: Whether a number without a unit is as it is: 950 beside ``1.2K`` is 0.95 K.
    """
    found = numbers_of(words, decimal) / (_MAGNITUDES[_named(unit)] if multiples else 1.0)
    for place in np.flatnonzero(np.isnan(found)).tolist():
        parts = _split(words[place], decimal) or (_lasting(words[place]) if unit == "s" else [])
        sizes = [_size(name, unit) for _, name in parts]
        if parts and sizes == sorted(sizes, reverse=True):
            sign = -1.0 if parts[0][0] < 0 else 1.0
            found[place] = sign * sum(
                abs(value) * size for (value, _), size in zip(parts, sizes, strict=True)
            )
    return found


def is_multiple(unit: str) -> bool:
    """Whether a unit is a multiple, like K and M, and no unit of anything."""
    return bool(unit) and _family_of([_named(unit)]) is _MAGNITUDES


def without_unit(word: str) -> str:
    """The number of a word like ``1,5 kg``; the word itself where there is no unit."""
    found = _WITH_UNIT.fullmatch(word.strip())
    return found["number"].strip() if found else word


def is_comma_decimal(words: Sequence[str], semicolons: bool) -> bool:
    """Whether the decimal mark of a column's numbers is a comma, by their commas or by their points of thousands.

    Args:
        words: The texts.
        semicolons: Whether the file's values are separated by ``;``.
    """
    if commas := [without_unit(word) for word in words if "," in word]:
        return has_decimal_comma(commas, semicolons)
    if not any("." in word for word in words):
        return False
    return has_points_of_thousands([word if currencies([word]) else without_unit(word) for word in words])


def is_known(unit: str) -> bool:
    """Whether it is a unit for sure: words after a number may be anything, like those of 12 Main Street."""
    return any(sign in unit for sign in "/°²³") or bool(_family_of([_named(unit)]))


def _split(word: str, decimal: str) -> list[tuple[float, str]]:
    """The numbers of a word with the unit of each; none where it is anything else."""
    text = word.strip()
    if found := _WITH_UNIT.fullmatch(text):
        value = float(numbers_of([found["number"]], decimal)[0])
        # A code like 007 A is no number of amperes.
        code = re.match(r"0\d", found["number"].strip()) is not None
        return [] if np.isnan(value) or code or len(found["unit"]) > _LONGEST else [(value, found["unit"])]
    sign = -1.0 if text[:1] in "-−" else 1.0
    text = text.lstrip("-−")
    if _FEET_ALONE.fullmatch(text):
        text += '"'
    parts, place = [], 0
    while place < len(text):
        part = _PARTS.match(text, place)
        if part is None:
            return []
        parts.append((sign * float(part[1].replace(",", ".")), part[2]))
        place = part.end()
    family = _family_of([_named(name) for _, name in parts])
    return [(value, _as(_named(name), family)) for value, name in parts] if len(parts) > 1 and family else []


def _are_lasting(words: Sequence[str]) -> bool:
    """Whether words are lengths of time, not times of day: some have days, or 5 % more than 24 hours or minutes."""
    clocks = [found for word in words if (found := _CLOCK.fullmatch(word.strip()))]
    long = sum(int(found["first"]) > 24 for found in clocks)
    written = any(found["days"] is not None for found in clocks)
    return (
        written
        or long > 0.05 * len(words)
        or any(word.strip()[:1] == "P" and _lasting(word) for word in words)
    )


def _lasting(word: str) -> list[tuple[float, str]]:
    """The seconds of a length of time like ``2 days 03:10:00``, ``36:15:00``, ``45:30`` (minutes) or ``PT1H30M``."""
    if found := _CLOCK.fullmatch(word.strip()):
        sizes = (3600.0, 60.0, 1.0) if found["third"] else (60.0, 1.0)
        parts = [float(part) for part in (found["first"], found["second"], found["third"]) if part]
        seconds = sum(part * size for part, size in zip(parts, sizes, strict=True))
        seconds += 86_400.0 * float(found["days"] or 0)
        return [(-seconds if found["sign"] else seconds, "s")]
    found = _ISO.fullmatch(word.strip())
    if found is None or not any(found.groups()):
        return []
    each = zip(found.groups(), (604_800.0, 86_400.0, 3600.0, 60.0, 1.0), strict=True)
    return [(sum(float(part or 0) * size for part, size in each), "s")]


def _named(unit: str) -> str:
    """One name for a unit, however it is spelt."""
    bare = re.sub(r"\s+", "", unit).strip().rstrip(".")
    # M and m are two units, and so are MB and Mb, but they hardly stand in one column.
    bare = bare.casefold() if len(bare) > 1 else bare
    several = bare[:-1] if len(bare) >= _LONG_NAME and bare.endswith("s") else bare
    return _ALSO.get(bare) or _ALSO.get(several) or several


def _family_of(names: Iterable[str]) -> dict[str, float]:
    """The units of the quantity that all these measure; none where there is no such."""
    families = (*_FAMILIES, _MAGNITUDES)
    return next((family for family in families if all(_as(name, family) for name in names)), {})


def _as(name: str, family: dict[str, float]) -> str:
    """What a unit is called in a family: m are minutes beside hours; empty where it is none of it."""
    name = "min" if name == "m" and "min" in family else name
    return name if name in family else ""


def _size(unit: str, of: str) -> float:
    """How many of one unit another is; NaN where they measure different things."""
    name, wanted = _named(unit), _named(of)
    if name == wanted:
        return 1.0
    for family in (*_FAMILIES, _MAGNITUDES):
        if wanted in family and _as(name, family):
            return family[_as(name, family)] / family[wanted]
    return float("nan")
