"""An order that is about to be made as a multi-hot vector, and how tables of orders are read for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipeline.data.core.encoder import Encoder
from pipeline.data.orders.reading import Layout, frame_of
from pipeline.data.tables.frames import arrow_of, table_of
from pipeline.data.tables.values import Table
from pipeline.data.tables.words import spelling
from pipeline.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

HOURS, WEEKDAYS = 24, 7
WEEKDAY_NAMES = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
LEVELS = (1, 2, 4)
"""A customer's history says of each dish whether it was ordered at least so many times."""


class OrdersEncoder(Encoder):
    """An order that is about to be made as a multi-hot vector: customer, area, hour, weekday, dishes ordered before.

    Takes rows with the columns of the training table that say customer, area and time (each may be missing) and, if
    known, ``past`` (dishes ordered before, separated by ``;``, which may occur in their names too); without it, what
    the customer had ordered by the end of training counts.

    Args:
        customers: Names that training knows; others share an input.
        areas: Areas that training knows, likewise.
        dishes: The classes.
        history: Number of times that each customer had ordered each dish (by number) by the end of training.
        layout: Which column is what, and how each is understood, as :meth:`Layout.state` gives it; None for the columns
            of the generated orders.
        until: Moment of the last training order, empty where none is known.
    """

    kind = "orders"
    takes_tables = True

    def __init__(
        self,
        customers: Sequence[str],
        areas: Sequence[str],
        dishes: Sequence[str],
        history: dict[str, dict[str, int]],
        layout: dict[str, Any] | None = None,
        until: str = "",
    ) -> None:
        self.customers, self.areas, self.dishes = list(customers), list(areas), list(dishes)
        self.history, self.until = history, until
        self.layout = Layout.of(layout) if layout else Layout.generated()
        self._customer = {self._key(name): number for number, name in enumerate(self.customers)}
        self._area = {self._key(name): number for number, name in enumerate(self.areas)}
        self._dish = {self._key(name): number for number, name in enumerate(self.dishes)}
        self._history = {self._key(name): counts for name, counts in history.items()}
        self._most_parts = 1 + max((name.count(";") for name in self.dishes), default=0)
        # The last input of each block is "unknown".
        self.first_area = len(self.customers) + 1
        self.first_hour = self.first_area + len(self.areas) + 1
        self.first_weekday = self.first_hour + HOURS + 1
        self.first_past = self.first_weekday + WEEKDAYS + 1
        self.width = self.first_past + len(LEVELS) * len(self.dishes)

    @classmethod
    def fit(
        cls,
        orders: pd.DataFrame,
        layout: Layout | None = None,
        least_orders: int = 1,
        max_customers: int | None = None,
        max_items: int | None = None,
    ) -> OrdersEncoder:
        """Learn from the training orders, which must not hold returned ones.

        Args:
            orders: Columns ``customer``, ``area``, ``time`` and ``item``; missing ones are None.
            layout: Which column of the raw table is what; None for the generated orders.
            least_orders: Number of orders from which on a customer has an input of their own.
            max_customers: Number of customers, those with most orders, who have one; None for all.
            max_items: Number of items, the most ordered, that can be recommended; None for all.
        """
        key = spelling if layout is not None and layout.folds else str
        dishes = _names(orders["item"], key, 1, max_items)
        number = {key(name): i for i, name in enumerate(dishes)}
        history: dict[str, dict[str, int]] = {}
        shown: dict[str, str] = {}
        for customer, item in zip(orders["customer"], orders["item"], strict=True):
            if customer is None or key(item) not in number:
                continue
            counts = history.setdefault(shown.setdefault(key(customer), customer), {})
            place = str(number[key(item)])
            counts[place] = counts.get(place, 0) + 1
        last = orders["time"].max()
        return cls(
            _names(orders["customer"], key, least_orders, max_customers),
            _names(orders["area"], key),
            dishes,
            history,
            None if layout is None else layout.state(),
            "" if last != last else last.isoformat(),
        )

    def _key(self, name: Any) -> str:
        return spelling(str(name)) if self.layout.folds else str(name)

    def encode(self, raw: Any) -> Tensor:
        frame, pasts = self._frame(raw)
        counts = [
            self.known(customer) if past is None else self._counts(past)
            for customer, past in zip(frame["customer"], pasts, strict=True)
        ]
        x = torch.zeros(len(frame), self.width)
        for row, columns in enumerate(self.sets(frame, counts)):
            x[row, columns] = 1.0
        return x

    def sets(self, frame: pd.DataFrame, pasts: Sequence[dict[int, int]]) -> list[list[int]]:
        """The inputs that are 1 for each order.

        Args:
            frame: Columns ``customer``, ``area`` and ``time``; missing ones are None.
            pasts: For each order how often each dish (by number) was ordered before it.
        """
        hours = frame["time"].dt.hour.fillna(HOURS).astype(int)
        weekdays = frame["time"].dt.dayofweek.fillna(WEEKDAYS).astype(int)
        rows = []
        for customer, area, hour, weekday, past in zip(
            frame["customer"], frame["area"], hours, weekdays, pasts, strict=True
        ):
            columns = [
                self._place(self._customer, customer),
                self.first_area + self._place(self._area, area),
                self.first_hour + (hour if self.layout.clock else HOURS),
                self.first_weekday + weekday,
            ]
            for dish, count in past.items():
                first = self.first_past + dish * len(LEVELS)
                columns += [first + place for place, level in enumerate(LEVELS) if count >= level]
            rows.append(columns)
        return rows

    def _place(self, known: dict[str, int], name: Any) -> int:
        return len(known) if name is None else known.get(self._key(name), len(known))

    def number(self, item: str) -> int:
        """The class of a dish, −1 for one that training does not know."""
        return self._dish.get(self._key(item), -1)

    def known(self, customer: Any) -> dict[int, int]:
        """How often a customer had ordered each dish by the end of training."""
        counts = {} if customer is None else self._history.get(self._key(customer), {})
        return {int(dish): count for dish, count in counts.items()}

    def input_names(self) -> list[str]:
        # What was ordered before is more from month to month, for no reason but time.
        hours = [f"hour {hour}" for hour in range(HOURS)]
        return [
            *(_called("customer", name) for name in self.customers),
            "a customer whom training does not know",
            *(_called("area", name) for name in self.areas),
            "an area that training does not know",
            *hours,
            "no hour",
            *WEEKDAY_NAMES,
            "no weekday",
            *[""] * (len(LEVELS) * len(self.dishes)),
        ]

    def _counts(self, past: str) -> dict[int, int]:
        counts: dict[int, int] = {}
        parts, first = past.split(";"), 0
        while first < len(parts):
            # The longest name that is known: one may have a ";" in it.
            for last in range(min(first + self._most_parts, len(parts)), first, -1):
                if (dish := self.number(";".join(parts[first:last]).strip())) >= 0:
                    counts[dish] = counts.get(dish, 0) + 1
                    break
            first = last
        return counts

    def _frame(self, raw: Any) -> tuple[pd.DataFrame, list[str | None]]:
        """The orders as canonical columns, and what is told of each one's past."""
        import pandas as pd

        names = self.layout.inputs()
        if not isinstance(raw, Table) and arrow_of(raw) is None and not isinstance(raw, pd.DataFrame):
            try:
                raw = pd.DataFrame(raw)
            except (ValueError, TypeError):
                raw = pd.DataFrame()
        given = raw.names if isinstance(raw, Table) else [str(name) for name in _columns_of(raw)]
        if missing := [name for name in names if name.strip() not in {one.strip() for one in given}]:
            wanted = ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else names[0]
            raise UserError(f"the input lacks the columns {missing}; expected {wanted} (and past)")
        has_past = "past" in given and "past" not in names
        table = table_of(raw, [*names, *(["past"] if has_past else [])])
        pasts: list[str | None] = [None] * len(table)
        if has_past:
            column = table.column("past").as_text()
            # No past that is told is not the same as one without orders.
            told = table.arrow.column("past").is_valid().to_pylist()
            pasts = [
                column.words[code] if code >= 0 else "" if there else None
                for code, there in zip(column.values, told, strict=True)
            ]
        return frame_of(table, self.layout), pasts

    def state(self) -> dict[str, Any]:
        return {
            "customers": self.customers,
            "areas": self.areas,
            "dishes": self.dishes,
            "history": self.history,
            "layout": self.layout.state(),
            "until": self.until,
        }

    def example(self) -> pd.DataFrame:
        import pandas as pd

        layout, last = self.layout, pd.Timestamp(self.until or "2024-12-31")
        day = last.normalize() + pd.Timedelta(days=1)
        values: dict[str, list[Any]] = {}
        if layout.customer in layout.inputs():
            values[layout.customer] = [self.customers[0], self.customers[-1]] if self.customers else ["", ""]
        if layout.area is not None:
            values[layout.area] = [self.areas[0], self.areas[-1]] if self.areas else ["", ""]
        moments = [day + pd.Timedelta(hours=8, minutes=15), day + pd.Timedelta(hours=19, minutes=40)]
        values |= layout.written(moments)
        return pd.DataFrame({**values, "past": [self.dishes[0], ";".join([self.dishes[-1]] * 2)]})

    def signature(self) -> dict[str, Any]:
        # Customers and areas may be told by numbers as well, which MLflow would refuse for texts.
        columns = [{"name": name, "dtype": "any", "required": True} for name in self.layout.inputs()]
        columns.append({"name": "past", "dtype": "string", "required": False})
        return {"type": "columns", "columns": columns}


def _called(what: str, name: str) -> str:
    return name if name.startswith(what) else f"{what} {name}"


def _columns_of(raw: Any) -> list[Any]:
    return list(getattr(raw, "column_names", None) or getattr(raw, "columns", []))


def _names(column: pd.Series, key: Any, least: int = 1, most: int | None = None) -> list[str]:
    """The distinct values of a column in alphabetical order, each in its most frequent spelling."""
    spellings = Counter(name for name in column if name is not None)
    counts: Counter[str] = Counter()
    shown: dict[str, str] = {}
    for name, count in sorted(spellings.items(), key=lambda item: (-item[1], item[0])):
        counts[key(name)] += count
        shown.setdefault(key(name), name)
    kept = [name for name, count in counts.most_common(most) if count >= least]
    return sorted(shown[name] for name in kept)
