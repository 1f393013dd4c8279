"""Which column of a person's table of orders is what, by its name and by what is in it; every guess is said."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.data.orders.headers import (
    MOMENTS,
    NAMES,
    PERHAPS,
    STATES,
    is_amount,
    is_order_number,
    plain_words,
    score,
)
from pipeline.data.orders.reading import BACK, KEPT, NO, YES, Layout, came_back, local, not_understood
from pipeline.data.tables.guesses import Guess, typed
from pipeline.data.tables.reading import Reading, find_reading
from pipeline.data.tables.values import Column, Table, listed
from pipeline.errors import UserError

DAY = 86_400.0
NEEDED = {"customer": "who ordered", "item": "what was ordered"}


@dataclass(frozen=True)
class Asked:
    """What is said about the columns of a table of orders.

    Args:
        customer, area, returned: Name of a column; None to find out.
        item, time: Names of one or several columns; none to find out.
    """

    customer: str | None = None
    item: tuple[str, ...] = ()
    area: str | None = None
    time: tuple[str, ...] = ()
    returned: str | None = None

    def names(self) -> dict[str, tuple[str, ...]]:
        """The columns that are named, by setting."""
        single = {name: getattr(self, name) for name in ("customer", "area", "returned")}
        several = {"item": self.item, "time": self.time}
        return {
            **{name: (value,) for name, value in single.items() if value},
            **{k: v for k, v in several.items() if v},
        }


def find_layout(table: Table, asked: Asked) -> tuple[Layout, list[Guess]]:
    """Decide which column is what, and how each is understood.

    Args:
        table: The file, read as text where it is text.
        asked: The columns that are named.

    Raises:
        UserError: A named column is not there or not what it is said to be, or nothing says who ordered or what.
    """
    chosen = dict(asked.names())
    for role, names in chosen.items():
        table.require(names, f"data.{role}")
    _refuse_twice(chosen)
    guesses: list[Guess] = []
    free = [name for name in table.names if not any(name in names for names in chosen.values())]
    for role in NAMES:
        if role not in chosen and (found := _by_name(role, free, table)):
            chosen[role] = (found,)
            free.remove(found)
            guesses.append(_said(role, (found,), "by its name"))
    guesses += _by_state(table, chosen, free)
    guesses += _by_content(table, chosen, free)
    if missing := [role for role in NEEDED if role not in chosen]:
        what = " and ".join(f"data.{role} ({NEEDED[role]})" for role in missing)
        raise UserError(
            f"{table.source} has the columns {listed(table.names)}: name the ones with {what}, as in "
            f"data.{missing[0]}=COLUMN"
        )
    guesses += _clock_beside(table, chosen, free, asked)
    return _understood(table, chosen, guesses, asked)


def _refuse_twice(chosen: dict[str, tuple[str, ...]]) -> None:
    owner: dict[str, str] = {}
    for role, names in chosen.items():
        for name in names:
            if name in owner:
                raise UserError(f"data.{owner[name]} and data.{role} both name the column {name!r}")
            owner[name] = role


def _said(role: str, names: tuple[str, ...], why: str, costly: bool = False) -> Guess:
    what = {"customer": "who ordered", "item": "what was ordered", "area": "where", "time": "when"}.get(
        role, role
    )
    shown = " and ".join(map(repr, names))
    # The file's own column is a good example of how the key is written.
    return Guess(
        f"{shown} is taken to say {what}, {why}"
        if role != "returned"
        else f"{shown} is taken to say what came back",
        f"data.{role}=COLUMN",
        costly,
        names,
        "names another one",
    )


def _by_name(role: str, names: list[str], table: Table) -> str | None:
    """The column whose name says best that it is what is looked for."""
    best, found = 0.0, None
    for name in names:
        fit = score(role, name)
        if fit <= best:
            continue
        if role == "time" and (score("returned", name) or not _is_time(table, name)):
            continue
        if role == "returned" and not _says_what_came_back(table, name):
            continue
        best, found = fit, name
    return found


def _says_what_came_back(table: Table, name: str) -> bool:
    column = _column(table, name)
    if column is None:
        return False
    back = came_back(column)
    if column.kind == "text" and _words(column) <= YES | NO:
        return True
    # Of numbers and dates most are 0 or missing: where nearly all are there, they say something else.
    return not np.isnan(back).any() and bool(back.mean() <= 0.5)


def _words(column: Column) -> set[str]:
    used = np.unique(column.values[column.values >= 0]).tolist()
    return {word for code in used if (word := column.words[code].strip().casefold())}


def _by_state(table: Table, chosen: dict[str, tuple[str, ...]], free: list[str]) -> list[Guess]:
    """A column of states like delivered and cancelled; where none is, a warning of what is not understood."""
    if "returned" in chosen:
        return []
    doubtful: dict[str, list[str]] = {}
    for name in free:
        column = _column(table, name)
        if column is None or not plain_words(name):
            continue
        if plain_words(name)[-1].endswith(STATES) and column.kind == "text":
            words = _words(column)
            if words & BACK and words <= BACK | KEPT:
                chosen["returned"] = (name,)
                free.remove(name)
                return [_said("returned", (name,), "")]
            if words & BACK:
                doubtful[name] = sorted(words - BACK - KEPT)
        elif score("returned", name):
            doubtful[name] = not_understood(column) or _examples(table, name)
    return [
        Guess(
            f"{name!r} is not taken to say what came back, for it holds {listed(examples, 3)}",
            "data.returned=COLUMN",
            True,
            (name,),
            "names a column that does, with yes or no, numbers, or dates of what came back alone",
        )
        for name, examples in doubtful.items()
    ]


def _column(table: Table, name: str) -> Column | None:
    try:
        return local(table, name)
    except TypeError:
        return None


def _reading(table: Table, name: str) -> tuple[Reading, list[Guess]]:
    column = _column(table, name)
    if column is None:
        raise UserError(
            f"{table.source}: the column {name!r} holds lists or structures; expected plain values"
        )
    return find_reading(column, None, name, table.how)


def _is_time(table: Table, name: str) -> bool:
    """Whether a column holds dates, times of day, or numbers since 1970."""
    kind = _kind(table, name)
    return kind in ("date", "time") or (
        kind == "number" and _unit(table, name, _reading(table, name)[0]) is not None
    )


def _kind(table: Table, name: str) -> str:
    return "" if _column(table, name) is None else _reading(table, name)[0].kind


def _unit(table: Table, name: str, reading: Reading) -> float | None:
    """Units in a second, where numbers are times since 1970 (from 1990 on); None where they are none."""
    from pipeline.data.tables.reading import read_as

    column = read_as(local(table, name), reading, name, strict=False)
    known = column.values[~np.isnan(column.values)]
    if not len(known):
        return None
    middle = float(np.median(known))
    return next((unit for unit in (1.0, 1e3, 1e6, 1e9) if 6.3e8 <= middle / unit <= 4.2e9), None)


def _by_content(table: Table, chosen: dict[str, tuple[str, ...]], free: list[str]) -> list[Guess]:
    """Roles that no name told: a column of dates is when, of names the one with most different ones is who."""
    guesses = []
    if "time" not in chosen:
        others = [name for name in free if not score("returned", name)]
        dated = [name for name in others if _kind(table, name) in ("date", "time")]
        # Whole numbers may be anything, of orders and of telephones too.
        dated = dated or [
            name for name in others if MOMENTS & set(plain_words(name)) and _is_time(table, name)
        ]
        if dated:
            name = max(dated, key=lambda one: len(np.unique(local(table, one).values)))
            chosen["time"] = (name,)
            free.remove(name)
            guesses.append(_said("time", (name,), "since it holds dates or times", len(dated) > 1))
    wanted = [role for role in NEEDED if role not in chosen]
    if not wanted:
        return guesses
    names = {name: size for name in free if (size := _names_in(table, name))}
    perhaps = [name for name in names if "".join(plain_words(name)) in PERHAPS]
    if wanted == ["item"] and perhaps:
        name = min(perhaps, key=lambda one: PERHAPS.index("".join(plain_words(one))))
        chosen["item"] = (name,)
        free.remove(name)
        return [*guesses, _said("item", (name,), "as its name may say so", True)]
    for role in wanted:
        if len(names) < len([one for one in NEEDED if one not in chosen]):
            break
        # More people than dishes, more dishes than parts of a town.
        name = max(names, key=lambda one: (names[one], one))
        del names[name]
        chosen[role] = (name,)
        free.remove(name)
        why = "as no name says so and it has the most different values that occur again"
        guesses.append(_said(role, (name,), why, True))
    return guesses


def _names_in(table: Table, name: str) -> int:
    """Number of different values of a column that may be names; 0 where it may not."""
    column, words = _column(table, name), plain_words(name)
    if words and (is_amount(words) or is_order_number(words)):
        return 0
    if column is None or column.kind == "date" or (column.kind == "number" and not column.whole):
        return 0
    reading, _ = find_reading(column, None, name, table.how)
    if reading.kind in ("date", "time", "truth"):
        return 0
    if reading.kind == "number" and (
        column.kind == "text" and any("." in word or "," in word for word in column.words)
    ):
        return 0
    text = column.as_text()
    known = text.values[text.values >= 0]
    distinct = len(np.unique(known))
    return distinct if 2 <= distinct <= 0.9 * len(known) else 0


def _clock_beside(
    table: Table, chosen: dict[str, tuple[str, ...]], free: list[str], asked: Asked
) -> list[Guess]:
    """A column with the time of day beside one with the date alone, or the other way round."""
    if asked.time or len(chosen.get("time", ())) != 1:
        return []
    (name,) = chosen["time"]
    reading, _ = _reading(table, name)
    wanted = "time" if reading.kind == "date" and not _has_clock(table, name, reading) else None
    wanted = "date" if reading.kind == "time" else wanted
    beside = [
        one
        for one in free
        if wanted and _column(table, one) is not None and _reading(table, one)[0].kind == wanted
    ]
    if not beside:
        return []
    pair = (name, beside[0]) if wanted == "time" else (beside[0], name)
    chosen["time"] = pair
    free.remove(beside[0])
    return [
        Guess(
            f"{pair[0]!r} and {pair[1]!r} together say when",
            typed("data.time", [name]),
            False,
            pair,
            "takes one",
        )
    ]


def _has_clock(table: Table, name: str, reading: Reading) -> bool:
    from pipeline.data.tables.reading import read_as

    values = read_as(local(table, name), reading, name, strict=False).values
    return bool((values[~np.isnan(values)] % DAY != 0).any())


def _understood(
    table: Table, chosen: dict[str, tuple[str, ...]], guesses: list[Guess], asked: Asked
) -> tuple[Layout, list[Guess]]:
    readings: dict[str, Reading] = {}
    for role in ("customer", "area", "item"):
        for name in chosen.get(role, ()):
            column = _column(table, name)
            if column is None:
                raise UserError(
                    f"data.{role}={name}: {table.source} holds lists or structures there, not names"
                )
            reading, about = find_reading(column, None, name, table.how, categorical=True)
            readings[name] = replace(reading, folds=True)
            guesses += [guess for guess in about if "spellings" in guess.what]
    unit, clock = 1.0, False
    for name in chosen.get("time", ()):
        reading, about = _reading(table, name)
        if reading.kind == "number":
            found = _unit(table, name, reading)
            if found is None:
                raise _no_time(table, name)
            unit, clock = found, True
            guesses.append(Guess(f"{name!r} holds times as numbers since 1970", columns=(name,)))
        elif reading.kind == "date":
            clock = clock or _has_clock(table, name, reading)
        elif reading.kind == "time":
            clock = True
        elif _column(table, name).missing.all():  # type: ignore[union-attr]
            reading = Reading("date")
        else:
            raise _no_time(table, name)
        readings[name] = reading
        # How dates are written is told, but not the key by which a table would keep words.
        guesses += [replace(guess, key="", effect=guess.effect if not guess.key else "") for guess in about]
    kinds = [readings[name].kind for name in chosen.get("time", ())]
    if kinds and "date" not in kinds and "number" not in kinds:
        (name, *_) = chosen["time"]
        raise UserError(
            f"data.time={name}: {table.source} holds times of day there, without a date; name the column with the date "
            f"as well: data.time=[DATE,{name}]"
        )
    if len(kinds) > 1 and sorted(kinds) != ["date", "time"]:
        raise UserError(
            f"data.time={list(chosen['time'])}: expected one column, or one with the date and one with the time of day"
        )
    if kinds and not clock:
        guesses.append(Guess("the times have no hours: orders are told apart by the day of the week alone"))
    layout = Layout(
        chosen["customer"][0],
        chosen["item"],
        chosen["area"][0] if "area" in chosen else None,
        chosen.get("time", ()),
        chosen["returned"][0] if "returned" in chosen else None,
        readings,
        unit,
        clock,
    )
    for role, what in (
        ("time", "orders are taken to be in the order of the file"),
        ("area", "all are taken alike"),
    ):
        if role not in chosen:
            guesses.append(
                Guess(
                    f"no column says {'when' if role == 'time' else 'where'}: {what}",
                    f"data.{role}=COLUMN",
                    True,
                )
            )
    return layout, guesses


def _no_time(table: Table, name: str) -> UserError:
    examples = listed(_examples(table, name))
    return UserError(
        f"data.time={name}: {table.source} holds {examples} there; expected dates and times like 2024-03-01 18:30 or "
        "01.03.2024 18:30"
    )


def _examples(table: Table, name: str) -> list[str]:
    return list(local(table, name).as_text().words)[:3]
