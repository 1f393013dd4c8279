"""Food orders: generated customers, restaurants and dishes, and the question which dish is ordered next.

The generator (:func:`generate_orders`) is a small model of a delivery service. What is known about it:

- Each area has restaurants of different cuisines; some restaurants are more popular than others, and within a
  restaurant some dishes are. A customer lives in an area and orders there 19 times out of 20.
- Taste is personal: each customer likes some cuisines more than others and has a few favourite dishes.
- A dish has its time: breakfast, lunch, dinner or any time. Orders come at meal times, more of them at weekends.
- One customer (``chai``) orders nothing but chai, at every hour, more often than anybody else.
- 3 % of the orders have lost their timestamp (the order numbers still ascend with time), 4 % are returned.

A returned order is no recommendation: it is neither a target nor part of a customer's history.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.core.encoder import Encoder
from pipeline.data.core.module import DataModule
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Rows, SparseRows
from pipeline.data.core.splitting import first_of_last, stretch
from pipeline.errors import UserError
from pipeline.settings import BELOW_ONE

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.data.core.baselines import Baseline

log = logging.getLogger(__name__)

CHAI_DRINKER = "chai"
HOURS, WEEKDAYS = 24, 7
LEVELS = (1, 2, 4)
"""A customer's history says of each dish whether it was ordered at least so many times."""

MENUS = {
    "indian": ["dosa", "thali", "biryani", "paneer", "chai", "kulfi"],
    "italian": ["pizza", "lasagne", "risotto", "insalata", "espresso", "tiramisu"],
    "japanese": ["ramen", "sushi", "bento", "gyoza", "matcha", "mochi"],
    "mexican": ["tacos", "burrito", "quesadilla", "pozole", "horchata", "churros"],
    "cafe": ["porridge", "croissant", "sandwich", "soup", "coffee", "cake"],
}
# How much likelier a dish of each kind is, by the hour's part of the day: morning, noon, afternoon, evening, night.
MEALS = {
    "main": (0.2, 3.0, 0.7, 3.0, 1.0),
    "light": (0.7, 2.0, 1.0, 1.0, 1.0),
    "drink": (3.0, 0.7, 2.0, 0.4, 0.7),
    "sweet": (0.7, 0.5, 2.5, 0.8, 1.0),
    "morning": (6.0, 0.6, 0.4, 0.1, 0.2),
}
KINDS = {
    "indian": ("morning", "main", "main", "main", "drink", "sweet"),
    "italian": ("main", "main", "main", "light", "drink", "sweet"),
    "japanese": ("main", "main", "light", "light", "drink", "sweet"),
    "mexican": ("main", "main", "light", "main", "drink", "sweet"),
    "cafe": ("morning", "morning", "light", "light", "drink", "sweet"),
}
PART_OF_DAY = np.array([4] * 5 + [0] * 6 + [1] * 3 + [2] * 3 + [3] * 5 + [4] * 2)
ORDERS_BY_HOUR = np.array(
    [1] * 5 + [2, 4, 8, 8, 5, 4, 10, 16, 12, 6, 5, 5, 8, 15, 18, 14, 8, 4, 2], dtype=float
)


def generate_orders(
    orders: int = 40_000, customers: int = 800, areas: int = 6, seed: int = 0
) -> pd.DataFrame:
    """A year of orders, in the order of their numbers.

    Args:
        orders: Number of orders.
        customers: Number of people who order.
        areas: Number of parts of the town; each has one restaurant of every cuisine.
        seed: Seed of everything.

    Returns:
        Columns ``order`` (ascending with time), ``customer``, ``area``, ``time`` (missing in some), ``restaurant``,
        ``dish`` and ``returned``.
    """
    import pandas as pd

    random = np.random.default_rng(seed)
    cuisines = list(MENUS)
    per_menu = len(MENUS[cuisines[0]])
    dishes = len(cuisines) * per_menu
    kinds = [MEALS[kind] for cuisine in cuisines for kind in KINDS[cuisine]]
    by_part = np.log(np.array(kinds)).T
    popularity = np.repeat(random.normal(0, 0.6, (areas, len(cuisines))), per_menu, axis=1)
    popularity += random.normal(0, 0.5, (areas, dishes))
    taste = np.repeat(random.normal(0, 1.0, (customers, len(cuisines))), per_menu, axis=1)
    taste += random.normal(0, 0.8, (customers, dishes))
    favourites = random.integers(0, dishes, (customers, 3))
    np.put_along_axis(taste, favourites, np.take_along_axis(taste, favourites, 1) + 2.0, axis=1)

    home = random.integers(0, areas, customers)
    activity = random.gamma(1.5, 1.0, customers)
    activity[0] = 1.5 * activity.max()
    chai = cuisines.index("indian") * per_menu + MENUS["indian"].index("chai")
    taste[0] = -10.0
    taste[0, chai] = 10.0

    who = random.choice(customers, orders, p=activity / activity.sum())
    where = np.where(random.random(orders) < 0.95, home[who], random.integers(0, areas, orders))
    days = _days(random, orders)
    hours = random.choice(HOURS, orders, p=ORDERS_BY_HOUR / ORDERS_BY_HOUR.sum())
    hours = np.where(who == 0, random.integers(0, HOURS, orders), hours)
    seconds = days * 86_400 + hours * 3600 + random.integers(0, 3600, orders)
    in_time = np.argsort(seconds)
    seconds, hours, who, where = seconds[in_time], hours[in_time], who[in_time], where[in_time]
    likes = popularity[where] + taste[who] + by_part[PART_OF_DAY[hours]]
    # The largest of these sums is a draw from the softmax of the likes.
    chosen = (likes + random.gumbel(size=likes.shape)).argmax(axis=1)

    names = [dish for cuisine in cuisines for dish in MENUS[cuisine]]
    times = pd.to_datetime("2024-01-01") + pd.to_timedelta(seconds, unit="s")
    return pd.DataFrame(
        {
            "order": np.arange(orders),
            "customer": [CHAI_DRINKER if number == 0 else f"customer {number}" for number in who],
            "area": [f"area {number + 1}" for number in where],
            "time": times.where(random.random(orders) >= 0.03),
            "restaurant": [
                f"{cuisines[dish // per_menu]} {area + 1}" for dish, area in zip(chosen, where, strict=True)
            ],
            "dish": [names[dish] for dish in chosen],
            "returned": random.random(orders) < 0.04,
        }
    )


def _days(random: np.random.Generator, orders: int) -> np.ndarray:
    """A day of the year for each order; the first day is a Monday, weekends are busier."""
    weights = np.where(np.arange(364) % 7 >= 5, 1.6, 1.0)
    return random.choice(364, orders, p=weights / weights.sum())


class OrdersEncoder(Encoder):
    """An order that is about to be made as a multi-hot vector: customer, area, hour, weekday, dishes ordered before.

    Takes rows with ``customer``, ``area``, ``time`` (may be missing) and, if known, ``past`` (dishes ordered before,
    ``restaurant: dish`` separated by ``;``); without it, what the customer had ordered by the end of training counts.

    Args:
        customers: Names that training knows; others share an input.
        areas: Areas that training knows, likewise.
        dishes: The classes, ``restaurant: dish``.
        history: Number of times that each customer had ordered each dish (by number) by the end of training.
    """

    kind = "orders"

    def __init__(
        self,
        customers: Sequence[str],
        areas: Sequence[str],
        dishes: Sequence[str],
        history: dict[str, dict[str, int]],
    ) -> None:
        self.customers, self.areas, self.dishes = list(customers), list(areas), list(dishes)
        self.history = history
        self._customer = {name: number for number, name in enumerate(self.customers)}
        self._area = {name: number for number, name in enumerate(self.areas)}
        self._dish = {name: number for number, name in enumerate(self.dishes)}
        # The last input of each block is "unknown".
        self.first_area = len(self.customers) + 1
        self.first_hour = self.first_area + len(self.areas) + 1
        self.first_weekday = self.first_hour + HOURS + 1
        self.first_past = self.first_weekday + WEEKDAYS + 1
        self.width = self.first_past + len(LEVELS) * len(self.dishes)

    @classmethod
    def fit(cls, orders: pd.DataFrame) -> OrdersEncoder:
        """Learn from the training orders, which must not hold returned ones."""
        dishes = sorted(set(orders["item"]))
        number = {name: i for i, name in enumerate(dishes)}
        history: dict[str, dict[str, int]] = {}
        for customer, item in zip(orders["customer"], orders["item"], strict=True):
            counts = history.setdefault(customer, {})
            counts[str(number[item])] = counts.get(str(number[item]), 0) + 1
        return cls(sorted(set(orders["customer"])), sorted(set(orders["area"])), dishes, history)

    def encode(self, raw: Any) -> Tensor:
        frame = self._frame(raw)
        pasts = frame["past"] if "past" in frame.columns else [None] * len(frame)
        counts = [
            self._known(customer) if past is None or past != past else self._counts(str(past))
            for customer, past in zip(frame["customer"], pasts, strict=True)
        ]
        x = torch.zeros(len(frame), self.width)
        for row, columns in enumerate(self.sets(frame, counts)):
            x[row, columns] = 1.0
        return x

    def sets(self, frame: pd.DataFrame, pasts: Sequence[dict[int, int]]) -> list[list[int]]:
        """The inputs that are 1 for each order; ``pasts`` counts the dishes that were ordered before it."""
        import pandas as pd

        times = pd.to_datetime(frame["time"], errors="coerce")
        hours = times.dt.hour.fillna(HOURS).astype(int)
        weekdays = times.dt.dayofweek.fillna(WEEKDAYS).astype(int)
        rows = []
        for customer, area, hour, weekday, past in zip(
            frame["customer"], frame["area"], hours, weekdays, pasts, strict=True
        ):
            columns = [
                self._customer.get(customer, len(self.customers)),
                self.first_area + self._area.get(area, len(self.areas)),
                self.first_hour + hour,
                self.first_weekday + weekday,
            ]
            for dish, count in past.items():
                first = self.first_past + dish * len(LEVELS)
                columns += [first + place for place, level in enumerate(LEVELS) if count >= level]
            rows.append(columns)
        return rows

    def number(self, item: str) -> int:
        """The class of a dish, −1 for one that training does not know."""
        return self._dish.get(item, -1)

    def _known(self, customer: Any) -> dict[int, int]:
        return {int(dish): count for dish, count in self.history.get(str(customer), {}).items()}

    def _counts(self, past: str) -> dict[int, int]:
        counts: dict[int, int] = {}
        for name in past.split(";"):
            if (dish := self.number(name.strip())) >= 0:
                counts[dish] = counts.get(dish, 0) + 1
        return counts

    def _frame(self, raw: Any) -> pd.DataFrame:
        import pandas as pd

        try:
            frame = raw if isinstance(raw, pd.DataFrame) else pd.DataFrame(raw)
        except (ValueError, TypeError):
            frame = pd.DataFrame()
        if missing := [name for name in ("customer", "area", "time") if name not in frame.columns]:
            raise UserError(
                f"the input lacks the columns {missing}; expected customer, area and time (and past)"
            )
        return frame

    def state(self) -> dict[str, Any]:
        return {
            "customers": self.customers,
            "areas": self.areas,
            "dishes": self.dishes,
            "history": self.history,
        }

    def example(self) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(
            {
                "customer": [self.customers[0], self.customers[-1]],
                "area": [self.areas[0], self.areas[-1]],
                "time": pd.to_datetime(["2024-12-30T08:15", "2024-12-31T19:40"]),
                "past": [self.dishes[0], ";".join([self.dishes[-1]] * 2)],
            }
        )

    def signature(self) -> dict[str, Any]:
        types = {"customer": "string", "area": "string", "time": "any", "past": "string"}
        columns = [{"name": name, "dtype": kind, "required": name != "past"} for name, kind in types.items()]
        return {"type": "columns", "columns": columns}


class Orders(DataModule):
    """Generated food orders, split by time: the model is tested on later orders than it learnt from.

    Args:
        name: Name of the data set, shown and tagged.
        orders: Number of orders that are generated.
        customers: Number of people who order.
        areas: Number of parts of the town.
        test_fraction: Share of the orders, the latest ones, for the test.
        **shared: Settings that every data set takes, see :class:`DataModule`; with ``folds`` each fold is a stretch of
            time.
    """

    encoder: OrdersEncoder

    def __init__(
        self,
        name: str = "food_orders",
        orders: int = 40_000,
        customers: int = 800,
        areas: int = 6,
        test_fraction: Annotated[float, BELOW_ONE] = 0.15,
        **shared: Any,
    ) -> None:
        super().__init__(name=name, **shared)
        if orders < 100 or customers < 2 or areas < 1:
            raise UserError("data.orders, data.customers and data.areas: expected at least 100, 2 and 1")
        self.orders, self.customers, self.areas, self.test_fraction = orders, customers, areas, test_fraction
        self.source = "generated"

    def setup(self, stage: str | None = None) -> None:
        orders = generate_orders(self.orders, self.customers, self.areas, self.seed)
        orders = orders[~orders["returned"]].reset_index(drop=True)
        orders["item"] = orders["restaurant"] + ": " + orders["dish"]
        first_test = first_of_last(len(orders), self.test_fraction)
        pool, test = np.arange(first_test), np.arange(first_test, len(orders))
        if self.folds:
            validation = stretch(pool, self.folds, self.fold)
        else:
            validation = pool[first_of_last(len(pool), self.validation_fraction) :]
        train = pool if self.train_on_all else np.setdiff1d(pool, validation)
        self.encoder = OrdersEncoder.fit(orders.iloc[train])
        targets = np.array([self.encoder.number(item) for item in orders["item"]])
        sets = self.encoder.sets(orders, past_orders(orders, targets))

        def rows(numbers: np.ndarray) -> SparseRows | None:
            # A dish that training has never seen cannot be ranked.
            known = [number for number in numbers.tolist() if targets[number] >= 0]
            if not known:
                return None
            y = torch.from_numpy(targets[known])
            return SparseRows.from_sets([sets[number] for number in known], self.encoder.width, y)

        training = rows(train)
        assert training is not None
        self.train, self.validation, self.test = training, rows(validation), rows(test)
        self.spec = Spec(
            task="multiclass",
            input="bag",
            input_shape=(self.encoder.width,),
            outputs=len(self.encoder.dishes),
            classes=tuple(self.encoder.dishes),
            target_name="dish",
            top_k=5,
        )

    def baselines(self) -> dict[str, Baseline]:
        """The dishes ordered most often in the area, and the most frequent dish of all."""
        from pipeline.data.orders.baselines import most_ordered_in_the_area

        areas = range(self.encoder.first_area, self.encoder.first_hour)
        area = partial(most_ordered_in_the_area, areas=areas)
        return {"most ordered in the area": area} | super().baselines()

    def baseline_values(self, split: Rows) -> Tensor:
        """Whether the dish is one of those ordered most often in the area."""
        from pipeline.data.orders.baselines import area_hits

        areas = range(self.encoder.first_area, self.encoder.first_hour)
        return area_hits(self.train, split, self.spec, areas).any(1)


def past_orders(orders: pd.DataFrame, targets: np.ndarray) -> list[dict[int, int]]:
    """For each order, how often its customer had ordered each dish before it (orders are in the order of time)."""
    so_far: dict[str, dict[int, int]] = {}
    result = []
    for customer, dish in zip(orders["customer"], targets.tolist(), strict=True):
        counts = so_far.setdefault(customer, {})
        result.append(dict(counts))
        if dish >= 0:
            counts[dish] = counts.get(dish, 0) + 1
    return result
