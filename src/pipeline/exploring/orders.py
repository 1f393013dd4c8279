"""What a person looks for first in orders: when, where and what is ordered, gaps, returns, busy customers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data.orders.encoder import WEEKDAY_NAMES
from pipeline.data.orders.reading import BETWEEN
from pipeline.exploring.tables import holm

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from pipeline.data.orders.module import OrdersModule
    from pipeline.exploring.findings import Findings
    from pipeline.reports.html import Page

MOST = 20
"""Largest number of items, areas and customers that are listed."""
LEVEL = 0.01
"""Probability of saying of anything at all that it comes back more often where nothing does."""
ONE_THING = 0.9
"""Share of one item in somebody's orders from which on that is remarked on."""


def look_at_orders(data: OrdersModule, findings: Findings) -> None:
    """Add what is seen in the orders before the test's, returned ones among them."""
    frame = data.looked_at
    parts = _parts(data)
    findings.orders = {
        "orders": len(frame),
        "customers": int(frame["customer"].nunique()),
        "by": _counts(frame, parts),
        "gaps": _gaps(frame),
        "returned": _returned(frame, parts),
        "busiest": _busiest(frame, parts),
        "customers_with_one_order": int((frame["customer"].value_counts() == 1).sum()),
    }
    findings.guesses = [guess.as_dict() for guess in getattr(data, "guesses", [])]
    findings.warnings += _warnings(findings.orders)


def _parts(data: OrdersModule) -> dict[str, pd.Series]:
    """What was ordered by each of the columns that name it together: the restaurant, the dish."""
    names, items = data.encoder.layout.item, data.looked_at["item"]
    if len(names) == 1:
        return {names[0]: items}
    split = items.str.split(BETWEEN, n=len(names) - 1, expand=True)
    return {name: split[number] for number, name in enumerate(names)}


def _counts(frame: pd.DataFrame, parts: dict[str, pd.Series]) -> dict[str, dict[str, int]]:
    times = frame["time"].dropna()
    hours, days = times.dt.hour.value_counts(), times.dt.dayofweek.value_counts()
    found = {
        "hour": {str(hour): int(hours.get(hour, 0)) for hour in range(24)},
        "weekday": {name: int(days.get(number, 0)) for number, name in enumerate(WEEKDAY_NAMES)},
        "area": _most(frame["area"]),
    }
    return found | {name: _most(values) for name, values in parts.items()}


def _most(values: pd.Series) -> dict[str, int]:
    return {str(name): int(count) for name, count in values.value_counts().head(MOST).items()}


def _gaps(frame: pd.DataFrame) -> dict[str, Any]:
    """What is missing in the rows, and when nothing was ordered at all."""
    missing = {
        f"without {name}": int(frame[name].isna().sum()) for name in ("time", "area", "customer", "item")
    }
    times = frame["time"].dropna().sort_values()
    if len(times) < 2:
        return missing
    longest = int(np.diff(times.to_numpy()).argmax())
    first, last = times.iloc[longest], times.iloc[longest + 1]
    days = (times.iloc[-1].normalize() - times.iloc[0].normalize()).days + 1
    return missing | {
        "days": days,
        "days without an order": days - int(times.dt.normalize().nunique()),
        "longest pause, hours": round((last - first).total_seconds() / 3600, 1),
        "longest pause begins": str(first),
    }


def _returned(frame: pd.DataFrame, parts: dict[str, pd.Series]) -> dict[str, Any]:
    """How many orders came back, and of what significantly more did (Fisher's exact test, Holm's correction)."""
    from pipeline.evaluation.statistics import shares_differ

    back = frame["returned"].to_numpy(dtype=bool)
    found: list[dict[str, Any]] = []
    groups = {**parts, "area": frame["area"], "customer": frame["customer"]}
    for what, values in groups.items():
        counts = values.value_counts()
        returned = values[back].value_counts().reindex(counts.index, fill_value=0)
        found += [
            {"what": what, "name": str(name), "orders": int(count), "returned": int(some)}
            for name, count, some in zip(counts.index, counts.to_numpy(), returned.to_numpy(), strict=True)
        ]
    if back.any() and not back.all():
        some, orders = (np.array([row[key] for row in found]) for key in ("returned", "orders"))
        # How many of the returned ones are of a group is drawn from all orders, as how many of the others are.
        p = shares_differ(orders - some, int((~back).sum()), some, int(back.sum()))[1]
        for row, value in zip(found, holm(p.tolist()), strict=True):
            row["p"] = value
    share = float(back.mean()) if len(back) else 0.0
    more = [row for row in found if row.get("p", 1.0) < LEVEL and row["returned"] > share * row["orders"]]
    return {
        "orders": int(back.sum()),
        "share": share,
        "more_often": sorted(more, key=lambda row: row["p"])[:MOST],
    }


def _busiest(frame: pd.DataFrame, parts: dict[str, pd.Series]) -> list[dict[str, Any]]:
    """The customers with most orders, and what each of them orders most."""
    last = list(parts.values())[-1]
    rows = []
    for customer, count in frame["customer"].value_counts().head(10).items():
        own = frame["customer"] == customer
        favourites = last[own].value_counts()
        if not len(favourites):
            continue
        rows.append(
            {
                "customer": str(customer),
                "orders": int(count),
                "share": float(count / len(frame)),
                "different items": len(favourites),
                "favourite": str(favourites.index[0]),
                "share of the favourite": float(favourites.iloc[0] / favourites.sum()),
                "hours of the day": int(frame["time"][own].dt.hour.nunique()),
            }
        )
    return rows


def _warnings(orders: dict[str, Any]) -> list[str]:
    said = [
        f"{row['customer']} is one of the busiest customers ({row['orders']:,} orders) and orders "
        f"{row['favourite']} in {row['share of the favourite']:.1%} of them: what suits the others need not suit them"
        for row in orders["busiest"][:3]
        if row["share of the favourite"] >= ONE_THING and row["orders"] >= MOST
    ]
    without = orders["gaps"]["without time"]
    if without > 0.01 * orders["orders"]:
        said.append(f"{without:,} of {orders['orders']:,} orders have no time")
    return said + [
        f"{row['what']} {row['name']} comes back more often than others: {row['returned']} of {row['orders']}"
        for row in orders["returned"]["more_often"][:3]
    ]


def describe_orders(page: Page, findings: Findings, directory: Path) -> list[Path]:
    """Add the sections about orders; gives the picture that they show."""
    orders = findings.orders
    page.heading("When, where and what is ordered")
    page.text("Orders before those of the test, returned ones among them.")
    picture = draw_orders(orders["by"], directory / "samples.png")
    page.image(picture, "orders by hour, weekday, area and item")
    for name, counts in orders["by"].items():
        if counts and name not in ("hour", "weekday"):
            page.table([name, "orders"], list(counts.items()))
    page.heading("Gaps")
    page.table(["what", "orders, or as said"], [[name, value] for name, value in orders["gaps"].items()])
    page.heading("Returns")
    back = orders["returned"]
    page.text(f"{back['orders']:,} orders came back ({back['share']:.1%}).")
    if back["more_often"]:
        columns = ["what", "name", "orders", "returned", "p"]
        page.table(columns, [[row[column] for column in columns] for row in back["more_often"]])
    else:
        page.text("Of no item, area or customer significantly more than of the others.")
    page.heading("Busiest customers")
    page.text(
        f"{orders['customers']:,} customers, {orders['customers_with_one_order']:,} of them with a single order."
    )
    if orders["busiest"]:
        page.table(list(orders["busiest"][0]), [list(row.values()) for row in orders["busiest"]])
    return [picture]


def draw_orders(by: dict[str, dict[str, int]], path: Path) -> Path:
    """Draw the number of orders by hour, weekday, area and item."""
    from matplotlib.figure import Figure

    shown = {name: counts for name, counts in by.items() if counts}
    figure = Figure(figsize=(9, 2.6 * -(-len(shown) // 2)), layout="constrained")
    axes: Any = figure.subplots(-(-len(shown) // 2), 2, squeeze=False)
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    for axis, (name, counts) in zip(axes.flat, shown.items(), strict=False):
        axis.bar(range(len(counts)), list(counts.values()), color="#4878a8")
        labels = [label[:3] if name == "weekday" else label[:16] for label in counts]
        turned = len(labels) > 8 and name != "hour"
        axis.set_xticks(range(len(labels)), labels, rotation=90 if turned else 0, fontsize=7)
        axis.set_title(f"orders by {name}", fontsize=9)
        axis.tick_params(axis="y", labelsize=7)
    figure.savefig(path, dpi=110)
    return path


def in_short(orders: dict[str, Any]) -> list[str]:
    """What was seen, line by line."""
    by, gaps, back = orders["by"], orders["gaps"], orders["returned"]
    lines = []
    for name, counts in by.items():
        most = sorted(counts.items(), key=lambda item: -item[1])[:5]
        if most and most[0][1]:
            lines.append(f"by {name}: " + ", ".join(f"{label} {count:,}" for label, count in most))
    lines.append("gaps: " + ", ".join(f"{name} {value}" for name, value in gaps.items()))
    lines.append(f"returned: {back['orders']:,} ({back['share']:.1%})")
    lines.append(
        "busiest: "
        + ", ".join(
            f"{row['customer']} {row['orders']:,} (most: {row['favourite']})" for row in orders["busiest"][:5]
        )
    )
    return lines
