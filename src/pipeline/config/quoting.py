"""Words of the command line that hold paths and names of columns: any of them, without thinking of Hydra's grammar."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PLAIN = re.compile(
    r"(?P<sign>\+{0,2})(?P<key>data\.(?:path|test_path|target|split_column|text|delimiter|decimal|sheet|drop|keep|"
    r"categorical|numeric|test_from)|task\.(?:input|output|run_dir|prompt|experiment|where)|paths\.\w+|logger\.tracking_uri|ckpt_path)=(?P<value>.+)",
    re.DOTALL,
)
"""Keys whose values are paths, names or texts, which may hold anything."""
_FUNCTIONS = re.compile(
    r"(?:choice|range|interval|glob|sort|shuffle|tag|extend_list|str|int|float|bool|json_str)\("
)
_CHOICE = re.compile(r"(?P<key>[^=]+)=\s*choice\((?P<choices>.*)\)\s*", re.DOTALL)
_SIMPLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORDS = re.compile(r"true|false|null|nan|inf", re.IGNORECASE)


def understood(words: Sequence[str]) -> list[str]:
    """The words of a command, with what Hydra would not take as the text it is in quotation marks.

    Args:
        words: Words like ``data.path=a (1).csv``, ``data.target=2020`` or ``data.drop=[größe]``.
    """
    return [_understood(word) for word in words]


def _understood(word: str) -> str:
    word = listed_choices(word)
    parts = PLAIN.fullmatch(word)
    if parts is None:
        return word
    value = parts["value"]
    if value[0] in "'\"{" or "${" in value or value in ("null", "???") or _FUNCTIONS.match(value):
        return word
    before = f"{parts['sign']}{parts['key']}="
    meant = _parsed(word)
    if value[0] == "[":
        if meant is not None or value[-1] != "]" or any(mark in value for mark in "'\"{"):
            return word
        elements = [element.strip() for element in value[1:-1].split(",")]
        return f"{before}[{','.join(quoted(element) for element in elements)}]"
    if meant is not None and meant.is_sweep_override() and not _is_one(value):
        return word
    if meant is not None and not meant.is_sweep_override() and meant.value() == value:
        return word
    return before + quoted(value)


def listed_choices(word: str) -> str:
    """``key=choice(null,1.0)`` as ``key=null,1.0``, which means the same: Hydra's function takes no null.

    Args:
        word: An override; what Hydra reads as it is stays.
    """
    choices = _CHOICE.fullmatch(word)
    if choices is None or _parsed(word) is not None:
        return word
    plain = f"{choices['key']}={choices['choices']}"
    meant = _parsed(plain)
    return plain if meant is not None and meant.is_choice_sweep() else word


def typed_again(text: str) -> str:
    """A choice as it stands in an override: in quotation marks where it would not be read as one value.

    Example:
        >>> typed_again("adam"), typed_again(";")
        ('adam', '";"')
    """
    meant = _parsed(f"x={text}")
    return quoted(text) if meant is None or meant.is_sweep_override() else text


def unread(word: str, said: str, tasks: Sequence[str]) -> str:
    """A message for a word of the command line that sets nothing.

    Args:
        word: The word.
        said: What Hydra says about it.
        tasks: Names of the tasks.
    """
    key, equals, value = word.partition("=")
    if not equals:
        meant = f": did you mean task={word}?" if word in tasks else ", without blanks around the ="
        return f"{word}: expected KEY=VALUE{meant}"
    lines = said.splitlines()
    # Hydra 1.4 begins with the word's place among the others.
    reason = next((line for line in lines if not line.startswith("Error when parsing index")), lines[0])
    if reason.startswith(("Lexer", "token recognition")):
        return (
            f"{word}: cannot be read; a text with such signs is typed {shlex.quote(f'{key}={quoted(value)}')}"
        )
    return f"{word}: cannot be read: {reason}"


def _is_one(value: str) -> bool:
    """Whether what could be several values is one: a comma alone, or the name of a file that is there."""
    return len(value) == 1 or Path(value).expanduser().exists()


def _parsed(word: str) -> Any:
    """Hydra's own reading of a word; None where it has none."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def quoted(text: str) -> str:
    """A text as Hydra reads it: in quotation marks, unless it is a plain word.

    Example:
        >>> quoted("it's")
        '"it\\'s"'
    """
    if _SIMPLE.fullmatch(text) and not _WORDS.fullmatch(text):
        return text
    mark = "'" if '"' in text and "'" not in text else '"'
    escaped = re.sub(r"(\\+)(?=$|[\"'])", r"\1\1", text).replace(mark, f"\\{mark}")
    return f"{mark}{escaped}{mark}"
