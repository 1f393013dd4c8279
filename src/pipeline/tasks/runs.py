"""``task=runs``: the runs of the tracking store as a leaderboard."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from itertools import groupby

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from pipeline.metrics import four_places
from pipeline.runs.finished import open_store
from pipeline.runs.listing import Row, listed
from pipeline.runs.naming import shortened

_WIDE = 240


def run(cfg: DictConfig) -> None:
    """The task behind ``task=runs``: list the runs that are asked for, as a table or as JSON."""
    asked = cfg.task
    rows = listed(
        open_store(cfg),
        where=asked.where,
        experiment=asked.experiment,
        sweep=asked.sweep,
        tag=asked.tag,
        nested=bool(asked.nested),
    )
    if asked.json:
        print(json.dumps([row.as_dict() for row in rows], indent=2))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDE)
    show(rows, int(asked.limit), console)


def show(rows: Sequence[Row], limit: int, console: Console) -> None:
    """Print a table for each objective, at most ``limit`` runs of each."""
    if not rows:
        console.print("No run fits.")
    for objective, group in groupby(rows, key=lambda row: row.objective):
        own = list(group)
        console.print(table(own[:limit], objective))
        if len(own) > limit:
            console.print(f"{len(own) - limit} more: task.limit={len(own)}")


def table(rows: Sequence[Row], objective: str) -> Table:
    """The table of the runs of one objective."""
    columns, lines = cells(rows, objective)
    made = Table(
        *(Column(Text(column)) for column in columns), box=None, header_style="dim", padding=(0, 2, 0, 0)
    )
    for line in lines:
        made.add_row(*(Text(cell) for cell in line))
    return made


def cells(rows: Sequence[Row], objective: str) -> tuple[list[str], list[list[str]]]:
    """The names of the columns and a line a run, as texts; a column that says nothing is left out."""
    several = len({row.experiment for row in rows}) > 1
    settings = dict.fromkeys(key for row in rows for key in row.settings if key != "model._target_")
    keys = [key for key in settings if len({row.settings.get(key) for row in rows}) > 1][:6]
    test = any(row.test is not None for row in rows)
    columns = [
        "",
        *(["experiment"] if several else []),
        "run",
        objective or "objective",
        *(["test"] if test else []),
    ]
    columns += [*short_keys(keys), "model", "age", "took", "state", "id"]
    lines = []
    for number, row in enumerate(rows, 1):
        line = [str(number), *([row.experiment] if several else []), row.name, _reached(row)]
        line += [_number(row.test)] if test else []
        line += [shown(key, row.settings.get(key, "")) for key in keys]
        line += [row.model, span(time.time() - row.started), span(row.seconds), row.state, row.run_id[:8]]
        lines.append(line)
    return columns, lines


def short_keys(keys: Sequence[str]) -> list[str]:
    """Settings by the last part of their keys, where that is enough; a class by what it is the class of."""
    plain = [key.removesuffix("._target_") for key in keys]
    last = [key.rpartition(".")[2] for key in plain]
    return [name if last.count(name) == 1 else key for key, name in zip(plain, last, strict=True)]


def shown(key: str, value: str) -> str:
    """A setting's value in a table."""
    return value.rpartition(".")[2] if key.endswith("_target_") else shortened(value)


def _reached(row: Row) -> str:
    interval = f" ({_number(row.low)} to {_number(row.high)})" if row.low is not None else ""
    return _number(row.value) + interval


def _number(value: float | None) -> str:
    return "" if value is None else four_places(value)


def span(seconds: float) -> str:
    """A time in its largest unit: ``12 s``, ``3 min``, ``5 h``, ``2 d``."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
