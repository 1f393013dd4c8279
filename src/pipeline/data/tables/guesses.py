"""What was guessed about a table, each guess with the key that overrides it."""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.config.quoting import quoted

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Guess:
    """A decision that the data left open.

    Args:
        what: What was decided, and why.
        key: What is typed to decide otherwise, as the shell takes it; empty where nothing but the file can say.
        effect: What the key does, or what to do in the file, where that does not go without saying.
        costly: Whether a wrong guess would cost much of the result: it is a warning then.
        columns: Names of the columns that it is about.
    """

    what: str
    key: str = ""
    costly: bool = False
    columns: tuple[str, ...] = ()
    effect: str = ""

    def said(self) -> str:
        """The guess as one line."""
        return ": ".join(filter(None, [self.what, " ".join(filter(None, [self.key, self.effect]))]))

    def as_dict(self) -> dict[str, Any]:
        """The guess as JSON values."""
        return {**asdict(self), "columns": list(self.columns)}


_told: set[tuple[str, str]] = set()


def say(guesses: Iterable[Guess], source: str) -> None:
    """Log each guess on a line of its own, once in a process: a ladder reads its table many times.

    Args:
        guesses: The guesses.
        source: Name of the file that they are about.
    """
    for guess in guesses:
        if (source, guess.what) in _told:
            continue
        _told.add((source, guess.what))
        log.log(logging.WARNING if guess.costly else logging.INFO, "%s", guess.said())


def typed(key: str, value: str | Sequence[str]) -> str:
    """``key=value`` as it is typed in a shell, with what Hydra and the shell want in quotation marks.

    Args:
        key: The key.
        value: A text, or the elements of a list.

    Example:
        >>> typed("data.drop", ["a", "b c"])
        "'data.drop=[a,\\"b c\\"]'"
    """
    if isinstance(value, str):
        return shlex.quote(f"{key}={quoted(value)}")
    return _in_shell(f"{key}=[{','.join(quoted(element) for element in value)}]")


def _in_shell(word: str) -> str:
    # Brackets of a list stay as they are in every shell but zsh, where no file fits them either.
    return word if re.fullmatch(r"[\w.=\[\],\-]+", word) else shlex.quote(word)
