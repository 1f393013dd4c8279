"""What values a setting may have: the kinds of rules, and what a message says of a value that breaks one."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

from pipeline.config.nearest import suggest


@runtime_checkable
class Rule(Protocol):
    """What a setting may be."""

    def expected(self) -> str:
        """In words, for a message."""

    def holds(self, value: Any) -> bool:
        """Whether ``value`` is one."""


@dataclass(frozen=True)
class Number:
    """A finite number in a range.

    Args:
        low, high: Ends of the range, included unless said otherwise.
        above: Whether ``low`` is excluded.
        below: Whether ``high`` is excluded.
        whole: Whether the number has to be whole.
        null: Whether null is a value too.
        many: Whether a list of such numbers is a value too.
        flag: Whether true and false are values too.
        words: Words that stand for a value, like ``auto``.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    whole: bool = False
    null: bool = False
    many: bool = False
    flag: bool = False
    words: tuple[str, ...] = ()

    def expected(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        low = "" if self.low == -math.inf else f"{'above' if self.above else 'from'} {self.low:g}"
        high = "" if self.high == math.inf else f"{'below' if self.below else 'to'} {self.high:g}"
        if low and high:
            kind += f" {low} to {high.removeprefix('to ')}"
        elif low:
            kind += f" above {self.low:g}" if self.above else f" of at least {self.low:g}"
        elif high:
            kind += f" {high}"
        others = ["a list of such"] * self.many + ["true or false"] * self.flag
        others += [*self.words, *["null"] * self.null]
        return ", or ".join([kind, *others])

    def holds(self, value: Any) -> bool:
        if value is None:
            return self.null
        if isinstance(value, bool):
            return self.flag
        if isinstance(value, str):
            return value in self.words
        if isinstance(value, list):
            return self.many and bool(value) and all(self._in_range(element) for element in value)
        return self._in_range(value)

    def _in_range(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        if self.whole and not isinstance(value, int):
            return False
        above = value > self.low if self.above else value >= self.low
        return above and (value < self.high if self.below else value <= self.high)


@dataclass(frozen=True)
class Batches:
    """A share of the batches, as a fraction up to 1, or a number of them.

    Args:
        none: Whether 0 is a value too.
        null: Whether null is a value too.
    """

    none: bool = True
    null: bool = False

    def expected(self) -> str:
        low = "from 0" if self.none else "above 0"
        return f"a fraction {low} to 1, or a whole number of batches" + ", or null" * self.null

    def holds(self, value: Any) -> bool:
        if value is None:
            return self.null
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        return (value > 0 or (self.none and value == 0)) and (value <= 1 or value == int(value))


@dataclass(frozen=True)
class Word:
    """One of a few words (numbers and true or false may be among them)."""

    words: tuple[Any, ...]
    null: bool = False

    def expected(self) -> str:
        words = dict.fromkeys(_shown(word) for word in self.words)
        return "one of " + ", ".join([*words, *["null"] * self.null])

    def holds(self, value: Any) -> bool:
        if value is None:
            return self.null
        return any(type(value) is type(word) and value == word for word in self.words)


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def expected(self) -> str:
        return "true or false"

    def holds(self, value: Any) -> bool:
        return isinstance(value, bool)


@dataclass(frozen=True)
class FlagOrNull(Flag):
    """True, false or null."""

    def expected(self) -> str:
        return "true, false or null"

    def holds(self, value: Any) -> bool:
        return value is None or super().holds(value)


@dataclass(frozen=True)
class FlagOrNode(Flag):
    """True or false, or a class with its settings."""

    def expected(self) -> str:
        return "true or false, or a mapping with _target_"

    def holds(self, value: Any) -> bool:
        return super().holds(value) or (isinstance(value, dict) and "_target_" in value)


@dataclass(frozen=True)
class Text:
    """A text, matching ``pattern`` as a whole."""

    what: str
    pattern: str = r"(?s).+"
    null: bool = False

    def expected(self) -> str:
        return self.what + ", or null" * self.null

    def holds(self, value: Any) -> bool:
        if value is None:
            return self.null
        return isinstance(value, str) and re.fullmatch(self.pattern, value) is not None


@dataclass(frozen=True)
class Texts:
    """A list of texts (numbers count as texts); ``alone``: one of them need not be in a list."""

    what: str
    least: int = 0
    most: int | None = None
    alone: bool = False
    null: bool = False

    def expected(self) -> str:
        return f"{self.what}, or null" if self.null else self.what

    def holds(self, value: Any) -> bool:
        if value is None:
            return self.null
        if self.alone and isinstance(value, str | int | float):
            return value != ""
        if not isinstance(value, list) or len(value) < self.least:
            return False
        simple = all(isinstance(element, str | int | float) and element != "" for element in value)
        return simple and (self.most is None or len(value) <= self.most)


@dataclass(frozen=True)
class Amounts:
    """Positive numbers by name; ``reserved`` names stand for something else."""

    what: str
    reserved: tuple[str, ...] = ()

    def expected(self) -> str:
        return self.what

    def holds(self, value: Any) -> bool:
        return isinstance(value, dict) and all(
            isinstance(name, str) and name not in ("", *self.reserved) and POSITIVE.holds(amount)
            for name, amount in value.items()
        )


@dataclass(frozen=True)
class Share:
    """A part of one, or a whole number of them."""

    def expected(self) -> str:
        return "a fraction from 0 to 1, or a whole number"

    def holds(self, value: Any) -> bool:
        return NOT_NEGATIVE.holds(value) and (value <= 1 or value == int(value))


@dataclass(frozen=True)
class Layers:
    """Layers by name, and by name with their arguments."""

    def expected(self) -> str:
        return "a list of layers like [{linear: 20}, relu]"

    def holds(self, value: Any) -> bool:
        return isinstance(value, list) and all(isinstance(layer, str | dict) and layer for layer in value)


@dataclass(frozen=True)
class WordOrNode(Word):
    """One of a few words, or a class with its settings."""

    def expected(self) -> str:
        return super().expected() + ", or a mapping with _target_"

    def holds(self, value: Any) -> bool:
        return super().holds(value) or (isinstance(value, dict) and "_target_" in value)


POSITIVE = Number(0, above=True)
NOT_NEGATIVE = Number(0)
BELOW_ONE = Number(0, 1, below=True)
COUNT = Number(1, whole=True)
COUNT_OR_NULL = Number(1, whole=True, null=True)
SEED = Number(0, 2**32 - 1, whole=True)
COLUMNS = Texts("names of columns, like [first,second]", alone=True)
COLUMN = Text("a column's name", null=True)
COLUMNS_OR_NULL = Texts("a column's name, or several like [first,second]", least=1, alone=True, null=True)
PATH_OR_NULL = Text("a path", r"[^\0]+", null=True)
LOSS = WordOrNode(("auto", "squared", "absolute", "huber", "focal", "judged"))


def complaint(key: str, value: Any, rule: Rule | None) -> str | None:
    """What is wrong with a value, or None.

    Args:
        key: Dotted key, like ``model.dropout``.
        value: Value, with interpolations resolved.
        rule: Rule that the value has to keep; None lets every value pass.

    Example:
        >>> complaint("model.dropout", 1.5, Number(0, 1, below=True))
        'model.dropout=1.5: expected a number from 0 to below 1'
    """
    if rule is None or rule.holds(value):
        return None
    message = f"{key}={_shown(value)}: expected {rule.expected()}"
    if isinstance(rule, Word) and isinstance(value, str):
        near = suggest(value, [str(word) for word in rule.words], limit=0)
        message += f". {near}" if near.startswith("Did") else ""
    return message


_KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (Number, Batches, Word, WordOrNode, Layers, Flag, FlagOrNull, FlagOrNode, Text, Texts)
}


def to_plain(rule: Rule) -> dict[str, Any]:
    """A rule as JSON values: its kind and what differs from the kind's defaults."""
    differing = {
        field.name: getattr(rule, field.name)
        for field in fields(_KINDS[type(rule).__name__])
        if getattr(rule, field.name) != field.default
    }
    return {"kind": type(rule).__name__, **differing}


def from_plain(state: dict[str, Any]) -> Rule:
    """The inverse of :func:`to_plain`."""
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in state.items()}
    del values["kind"]
    rule: Rule = _KINDS[state["kind"]](**values)
    return rule


def _shown(value: Any) -> str:
    """A value as it would be typed."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(_shown(element) for element in value) + "]"
    return str(value)
