"""Which runs a person means: ``val/accuracy > 0.9 and model = cnn``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config.nearest import suggest
from pipeline.errors import UserError

_CONDITION = re.compile(
    r"\s*(?P<key>[^\s=<>!~]+)\s*(?P<sign>>=|<=|!=|==|=|>|<|~)\s*(?P<value>.+?)\s*", re.DOTALL
)
_NUMBERS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


@dataclass(frozen=True)
class Condition:
    """One comparison.

    Args:
        key: Name of a metric, a setting, or a fact such as ``model`` or ``state``.
        sign: One of ``> >= < <= = == != ~``; the last asks whether a text contains the value.
        value: What it is compared with.
    """

    key: str
    sign: str
    value: str

    def holds(self, found: Any) -> bool:
        """Whether a value is as asked; one that is not there never is, except unequal."""
        if found is None:
            return self.sign == "!="
        number, asked = _number(found), _number(self.value)
        if self.sign in _NUMBERS:
            return number is not None and asked is not None and _NUMBERS[self.sign](number, asked)
        if self.sign == "~":
            return self.value.lower() in str(found).lower()
        same = number == asked if None not in (number, asked) else _plain(found) == _plain(self.value)
        return same == (self.sign != "!=")


def conditions(text: str | None, key: str = "task.where") -> list[Condition]:
    """The comparisons of a text, all of which have to hold; none for an empty one.

    Args:
        text: The text.
        key: Setting that it was given by, for messages.

    Raises:
        UserError: The text is not ``KEY SIGN VALUE``, or several of them with ``and`` between.
    """
    found = []
    for part in re.split(r"\s+and\s+", (text or "").strip(), flags=re.IGNORECASE):
        if not part:
            continue
        match = _CONDITION.fullmatch(part)
        if match is None or re.search(r"\s+or\s+", part, re.IGNORECASE):
            raise UserError(
                f"{key}: {part!r} is no condition; expected like val/accuracy > 0.9, model = cnn or "
                "hidden_units ~ 256, several with 'and' between them"
            )
        value = match["value"].strip("'\"")
        if match["sign"] in _NUMBERS and _number(value) is None:
            raise UserError(f"{key}: {part!r}: expected a number behind {match['sign']}")
        found.append(Condition(match["key"], match["sign"], value))
    return found


def looked_up(key: str, facts: Mapping[str, Any]) -> Any:
    """The value of a key among a run's facts: the whole key, else the one that ends in it; None where there is none."""
    if key in facts:
        return facts[key]
    ends = [name for name in facts if _ends_with(name, key)]
    return facts[ends[0]] if len(ends) == 1 else None


def _ends_with(name: str, key: str) -> bool:
    return name.endswith((f".{key}", f"/{key}"))


def check_known(asked: list[Condition], names: set[str]) -> None:
    """Refuse a key that no run has.

    Raises:
        UserError: No run has it; the nearest names are told.
    """
    for condition in asked:
        known = any(name == condition.key or _ends_with(name, condition.key) for name in names)
        if not known and names:
            raise UserError(f"task.where: no run has {condition.key}. {suggest(condition.key, names)}")


def _plain(value: Any) -> str:
    return re.sub(r"[\s'\"\[\]]", "", str(value)).lower()


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
