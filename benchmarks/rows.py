"""One line of the table, and how two sides are compared in one run."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        what: was measured.
        ours: the pipeline's side, with its unit.
        against: the other side, with its unit; empty where the goal is absolute.
        value: what the goal is about: a ratio, or seconds, or megabytes.
        goal: ``">= 0.9"`` or ``"<= 1.0"``.
    """

    what: str
    ours: str
    against: str
    value: float
    goal: str

    @property
    def reached(self) -> bool:
        """Whether the value meets the goal (as it is printed: with two decimals)."""
        sign, limit = self.goal.split()[:2]
        value = round(self.value, 2)
        return value >= float(limit) if sign == ">=" else value <= float(limit)


def alternate(
    ours: Callable[[], float], theirs: Callable[[], float], repetitions: int, warm_up: bool = True
) -> tuple[float, float]:
    """Medians of what both sides return, called in turn; a first call of each does not count."""
    if warm_up:
        ours(), theirs()
    pairs = [(ours(), theirs()) for _ in range(repetitions)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| what | pipeline | against | value | goal | |", "|---|---|---|---|---|---|"]
    for row in rows:
        verdict = "" if row.reached else "**missed**"
        lines.append(
            f"| {row.what} | {row.ours} | {row.against} | {row.value:.2f} | {row.goal} | {verdict} |"
        )
    return "\n".join(lines)
