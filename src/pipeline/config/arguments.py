"""What our classes take, known without importing them: range, default and help of each argument of a constructor.

All three stand once, in the class: the range as a rule in ``Annotated``, the default beside it, the help in the
``Args:`` of the docstring. ``python -m pipeline.config.write_arguments`` asks the classes and writes them to
``arguments.json``, which is read here in a millisecond where importing the classes takes seconds; a test says that the
file is current.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.config.renamed import current
from pipeline.config.rules import Rule, from_plain

FILE = Path(__file__).with_name("arguments.json")


@dataclass(frozen=True)
class Argument:
    """One argument of a constructor, which is one setting of a section.

    Args:
        rule: Values that it may have; None for any.
        required: Whether it has no default.
        default: Its default, as a JSON value.
        help: What it means, in a sentence.
    """

    rule: Rule | None
    required: bool
    default: Any
    help: str


def arguments_of(target: str) -> dict[str, Argument]:
    """The arguments of a class that a shipped file names, with those that it hands on to its bases; else none.

    Args:
        target: Dotted name of the class, also of an earlier version.

    Example:
        >>> arguments_of("pipeline.models.mlp.MLP")["dropout"].rule.expected()
        'a number from 0 to below 1'
    """
    return _arguments_of(current(target))


@lru_cache(maxsize=64)
def _arguments_of(target: str) -> dict[str, Argument]:
    written = _written().get(target, {"arguments": {}, "bases": []})
    found: dict[str, Argument] = {}
    for owner in (written, *(_written()[base] for base in written["bases"])):
        for name, state in owner["arguments"].items():
            rule = from_plain(state["rule"]) if "rule" in state else None
            if name in found:
                # A rule of the base holds for an argument that a class takes and says nothing of.
                rule = found[name].rule or rule
                found[name] = replace(found[name], rule=rule)
            else:
                found[name] = Argument(
                    rule, "default" not in state, state.get("default"), state.get("help", "")
                )
    return found


@lru_cache(maxsize=1)
def _written() -> dict[str, Any]:
    contents: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return contents
