"""What a model is for and what it must not cost, beside what it reached: ``ladder.goal`` and ``ladder.constraints``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.config.nearest import suggest
from pipeline.errors import UserError
from pipeline.ladder.rungs import Climb
from pipeline.metrics import REGISTRY, find, four_digits, four_places
from pipeline.runs.conditions import Condition, conditions

if TYPE_CHECKING:
    from pipeline.data.core.module import DataModule

COSTS = ("gain", "milliseconds", "megabytes", "parameters", "seconds")
"""What may be asked for beside test metrics: the gain over common sense, milliseconds for 1,000 rows, megabytes on
disk, parameters, seconds to fit; and ``worst_GROUP``, the metric in the group where it is worst, as in worst_area."""
AREA = "worst_area"
"""What is asked of orders in the area where they are worst, whatever its column is called."""


@dataclass(frozen=True)
class Wish:
    """A goal or a constraint.

    Args:
        kind: ``goal`` or ``constraint``.
        said: What it is about, in words.
        condition: What has to hold on the test split.
    """

    kind: str
    said: str
    condition: Condition

    @property
    def asked(self) -> str:
        """The condition as it was written."""
        return f"{self.condition.key} {self.condition.sign} {self.condition.value}"


def wishes(ladder: Mapping[str, Any]) -> list[Wish]:
    """The goal and the constraints of a ladder: conditions, by what they are about or alone, one or several.

    Raises:
        UserError: One cannot be read, or asks for what is not measured.

    Example:
        >>> [wish.asked for wish in wishes({"goal": {"useful": "hit_rate_at_5 >= 0.5"}})]
        ['hit_rate_at_5 >= 0.5']
    """
    found = []
    for key, kind in (("goal", "goal"), ("constraints", "constraint")):
        given = ladder.get(key) or {}
        if isinstance(given, str):
            given = [given]
        named = given.items() if isinstance(given, Mapping) else [("", text) for text in given]
        for said, text in named:
            for condition in conditions(str(text), f"ladder.{key}"):
                _check(condition.key, f"ladder.{key}")
                found.append(Wish(kind, str(said), condition))
    return found


def _check(name: str, key: str) -> None:
    if name in COSTS or name.startswith("worst_") or find(name) is not None:
        return
    known = [*COSTS, AREA, *(metric.name for metric in REGISTRY)]
    raise UserError(f"{key}: {name} is not measured. {suggest(name, known)}")


def check_groups(asked: list[Wish], data: DataModule) -> None:
    """Refuse what is asked of the worst group where the data has no such groups.

    Args:
        asked: Goals and constraints.
        data: The data that the ladder climbs on, with validation data.

    Raises:
        UserError: A condition is on ``worst_GROUP``, and the data is grouped by something else or by nothing.
    """
    found = data.groups(data.validation) if data.validation is not None else None
    known = [AREA, f"worst_{found[0]}"] if found else []
    for wish in asked:
        name = wish.condition.key
        if not name.startswith("worst_") or find(name) is not None or name in known:
            continue
        key = "goal" if wish.kind == "goal" else "constraints"
        raise UserError(
            f"ladder.{key}: {name} is not measured: data={data.name} "
            + (
                f"is grouped by {found[0]}; expected {' or '.join(dict.fromkeys(known))}"
                if found
                else "has no groups"
            )
        )


def weighed(asked: list[Wish], climb: Climb) -> list[dict[str, Any]]:
    """Each wish with what was reached on the test split by what goes into service, and whether that meets it."""
    facts = _facts(climb)
    return [
        {
            "kind": wish.kind,
            "said": wish.said,
            "asked": wish.asked,
            "reached": facts.get(wish.condition.key),
            "met": wish.condition.holds(facts.get(wish.condition.key)),
        }
        for wish in asked
    ]


def _facts(climb: Climb) -> dict[str, float]:
    rung = climb.final[0] if climb.confirmed else climb.rungs[0]
    facts = {**rung.metrics, "parameters": float(rung.parameters), "megabytes": rung.bytes / 1e6}
    facts["gain"] = climb.gain(rung.gain) if climb.confirmed and rung.gain else 0.0
    # What was not measured meets nothing.
    measured = {"milliseconds": rung.milliseconds, "seconds": rung.fit_seconds}
    facts |= {name: value for name, value in measured.items() if not math.isnan(value)}
    if climb.by:
        which = "value" if climb.confirmed else "baseline"
        values = [row[which] for row in climb.by["groups"]]
        # Whatever the column is called, it says the area; names with blanks cannot stand in a condition.
        for name in (AREA, f"worst_{climb.by['name']}"):
            facts[name] = min(values) if climb.higher else max(values)
    return facts


def goal_lines(climb: Climb) -> list[str]:
    """Each goal and constraint in a line."""
    return [
        f"{goal['kind']}{': ' + goal['said'] if goal['said'] else ''}: asked {goal['asked']}, reached "
        f"{_shown(goal['reached'])}: {'met' if goal['met'] else 'NOT MET'}"
        for goal in climb.goals
    ]


def goal_rows(climb: Climb) -> list[list[str]]:
    """Rows of a table: what it is, in words, what was asked, what was reached, whether it is met."""
    return [
        [goal["kind"], goal["said"], goal["asked"], _shown(goal["reached"]), "yes" if goal["met"] else "NO"]
        for goal in climb.goals
    ]


GOAL_COLUMNS = ["", "in words", "asked", "reached on test data", "met"]


def _shown(value: float | None) -> str:
    return "not measured" if value is None else four_digits(value)


def group_columns(climb: Climb) -> list[str]:
    """Heads of the table of figures by group."""
    return [climb.by["name"], "test samples", f"{climb.by['metric']} (95 % interval)", "common sense"]


def group_rows(climb: Climb) -> list[list[str]]:
    """The figures of each group, those with most samples first."""
    return [
        [
            row["group"],
            f"{row['samples']:,}",
            f"{four_places(row['value'])} ({four_places(row['low'])} to {four_places(row['high'])})",
            four_places(row["baseline"]),
        ]
        for row in climb.by.get("groups", [])
    ]
