"""A small model of a delivery service, from which orders are drawn.

What is known about it:

- Each area has restaurants of different cuisines; some restaurants are more popular than others, and within a
  restaurant some dishes are. A customer lives in an area and orders there 19 times out of 20.
- Taste is personal: each customer likes some cuisines more than others and has a few favourite dishes.
- A dish has its time: breakfast, lunch, dinner or any time. Orders come at meal times, more of them at weekends.
- One customer (``chai``) orders nothing but chai, at every hour, more often than anybody else.
- 3 % of the orders have lost their timestamp (the order numbers still ascend with time), 4 % are returned.
- Where it is asked for, every café adds green sauce to its menu some day, and many like it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

CHAI_DRINKER = "chai"
GREEN_SAUCE = "green sauce"
HOURS = 24

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
    orders: int = 40_000,
    customers: int = 800,
    areas: int = 6,
    seed: int = 0,
    green_sauce: float | None = None,
) -> pd.DataFrame:
    """A year of orders, in the order of their numbers.

    Args:
        orders: Number of orders.
        customers: Number of people who order.
        areas: Number of parts of the town; each has one restaurant of every cuisine.
        seed: Seed of everything.
        green_sauce: Share of the orders after which every café has green sauce on its menu; None for never. The orders
            are the same ones but for those in which green sauce is liked better.

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
    drawn = likes + random.gumbel(size=likes.shape)
    chosen = drawn.argmax(axis=1)

    names = [dish for cuisine in cuisines for dish in MENUS[cuisine]]
    cuisine_of = np.repeat(np.arange(len(cuisines)), per_menu)
    if green_sauce is not None:
        # Drawn apart, so that everything else is as it is without.
        apart = np.random.default_rng([seed, 1])
        liked = 2.5 + apart.normal(0, 1.0, customers)[who] + np.log(MEALS["main"])[PART_OF_DAY[hours]]
        liked = np.where(who == 0, -np.inf, liked) + apart.gumbel(size=orders)
        later = np.arange(orders) >= green_sauce * orders
        chosen = np.where(later & (liked > drawn.max(axis=1)), dishes, chosen)
        names, cuisine_of = [*names, GREEN_SAUCE], np.append(cuisine_of, cuisines.index("cafe"))
    times = pd.to_datetime("2024-01-01") + pd.to_timedelta(seconds, unit="s")
    return pd.DataFrame(
        {
            "order": np.arange(orders),
            "customer": [CHAI_DRINKER if number == 0 else f"customer {number}" for number in who],
            "area": [f"area {number + 1}" for number in where],
            "time": times.where(random.random(orders) >= 0.03),
            "restaurant": [
                f"{cuisines[cuisine_of[dish]]} {area + 1}" for dish, area in zip(chosen, where, strict=True)
            ],
            "dish": [names[dish] for dish in chosen],
            "returned": random.random(orders) < 0.04,
        }
    )


def _days(random: np.random.Generator, orders: int) -> np.ndarray:
    """A day of the year for each order; the first day is a Monday, weekends are busier."""
    weights = np.where(np.arange(364) % 7 >= 5, 1.6, 1.0)
    return random.choice(364, orders, p=weights / weights.sum())
