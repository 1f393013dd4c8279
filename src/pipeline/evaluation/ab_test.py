"""A simulated A/B test: two groups of customers see five suggestions each, from common sense or from a model.

The orders of the test split are the visits. A suggestion is taken up where what the customer orders is among the five;
that nobody orders anything else because of it is what makes it a simulation. A customer is one sample: the share of
their visits with a take-up, since the visits of one customer are alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data.core.splitting import shares_of_keys
from pipeline.errors import UserError
from pipeline.evaluation.sequential import bounds, crossing, dearer, needed
from pipeline.files import as_json, write_json
from pipeline.reports.html import Page

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

LEAST = 10
"""Customers in the smaller group from which on a look before the last is worth its name."""


@dataclass(frozen=True)
class Plan:
    """What was decided before the first visit.

    Args:
        effect: Difference of take-up that is not to be missed.
        level: Chance of a false alarm over all looks together.
        power: Chance of finding a difference of that size.
        looks: Number of looks, evenly spaced.
        deviation: Standard deviation of a customer's take-up, from the validation orders.
        one_look: Customers in each group that a single look at the end would need.
        customers: Customers in both groups together that this many looks need.
        limits: Bound of the statistic at each look.
        peeking: Chance of a false alarm if every look were held to the bound of a single one.
    """

    effect: float
    level: float
    power: float
    looks: int
    deviation: float
    one_look: int
    customers: int
    limits: list[float]
    peeking: float


@dataclass(frozen=True)
class Look:
    """What was seen at one look.

    Args:
        customers: Number of customers so far, both groups together.
        a, b: Take-up of each group.
        difference: That of B minus that of A.
        low, high: Ends of the repeated confidence interval, which holds at every look at once.
        z: Difference in its standard errors, 0 where no spread was seen that could tell them.
        limit: Bound that it is held to: the plan's, as of Student's t with Welch's degrees of freedom.
    """

    customers: int
    a: float
    b: float
    difference: float
    low: float
    high: float
    z: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the test may stop here."""
        return abs(self.z) >= self.limit


@dataclass
class AbTest:
    """A test from its plan to its verdict.

    Args:
        names: What the groups see.
        plan: What was decided before.
        there: Number of customers that there were.
        looks: Looks up to the one at which the test stopped.
        takeup: Take-up of both suggestions if everybody had seen them, which only a simulation knows.
    """

    names: tuple[str, str]
    plan: Plan
    there: int
    looks: list[Look] = field(default_factory=list)
    takeup: tuple[float, float] = (0.0, 0.0)

    @property
    def stopped(self) -> bool:
        """Whether a bound was passed."""
        return bool(self.looks) and self.looks[-1].passed

    def verdict(self) -> str:
        """What came of it, in a sentence."""
        last, plan = self.looks[-1], self.plan
        figures = (
            f"take-up {last.b:.3f} against {last.a:.3f}, difference {last.difference:+.3f} "
            f"({1 - plan.level:.0%} interval {last.low:+.3f} to {last.high:+.3f})"
        )
        where = f"at look {len(self.looks)} of {plan.looks}, with {last.customers:,} customers"
        if self.stopped:
            better, other = (self.names[1], self.names[0]) if last.difference > 0 else self.names
            return f"{better} is better than {other}: {figures}, {where}"
        if self.there < plan.customers:
            return (
                f"Undecided: {figures}. There were {self.there:,} of the {plan.customers:,} customers that it takes to "
                f"find a difference of {plan.effect:g}"
            )
        return (
            f"No difference was shown: {figures}, {where}; one of {plan.effect:g} would have been found with a "
            f"probability of {plan.power:.0%}"
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        looks = [{**asdict(look), "passed": look.passed} for look in self.looks]
        return {
            "a": self.names[0],
            "b": self.names[1],
            "plan": asdict(self.plan),
            "customers_there": self.there,
            "looks": looks,
            "stopped": self.stopped,
            "verdict": self.verdict(),
            "takeup_of_all": {"a": self.takeup[0], "b": self.takeup[1]},
        }


def planned(deviation: float, effect: float, level: float, power: float, looks: int) -> Plan:
    """Decide how many customers it takes.

    Args:
        deviation: Standard deviation of a customer's take-up.
        effect: Difference that is not to be missed.
        level: Chance of a false alarm.
        power: Chance of finding that difference.
        looks: Number of looks.
    """
    fractions = [(number + 1) / looks for number in range(looks)]
    limits = bounds(fractions, level)
    one = needed(deviation, effect, level, power)
    customers = 2 * int(np.ceil(one * dearer(fractions, limits, level, power)))
    peeking = sum(crossing(fractions, bounds([1.0], level) * looks))
    return Plan(effect, level, power, looks, deviation, one, customers, limits, peeking)


def simulated(
    customers: Sequence[str | None],
    a: Array,
    b: Array,
    plan: Plan,
    names: tuple[str, str],
    seed: int = 0,
) -> AbTest:
    """Run a test over visits.

    Args:
        customers: Who made each visit, in the order of time; None is nobody and left out.
        a, b: Whether the suggestions of A and of B would be taken up at each visit, (visits,).
        plan: What was decided before.
        names: What the groups see.
        seed: Seed of who is in which group.

    Raises:
        UserError: There are too few customers for two groups.
    """
    known = [number for number, name in enumerate(customers) if name is not None]
    order = list(dict.fromkeys(customers[number] for number in known))
    place = {name: number for number, name in enumerate(order)}
    who = np.array([place[customers[number]] for number in known], dtype=np.int64)
    visits = np.bincount(who, minlength=len(order))
    rates = [
        np.bincount(who, weights=hits[known].astype(float), minlength=len(order)) / visits for hits in (a, b)
    ]
    second = shares_of_keys([str(name) for name in order], seed)[:, 0] < 0.5
    there = min(len(order), plan.customers)
    found = AbTest(names, plan, len(order), takeup=(float(rates[0].mean()), float(rates[1].mean())))
    for number, limit in enumerate(plan.limits):
        count = round(there * (number + 1) / plan.looks)
        group = second[:count]
        groups = rates[0][:count][~group], rates[1][:count][group]
        smaller = min(map(len, groups))
        if smaller < LEAST and number + 1 < plan.looks:
            continue
        if smaller < 2:
            raise UserError(
                f"the test split has {len(order)} customers; two groups of at least two are needed for an A/B test"
            )
        found.looks.append(_look(count, *groups, limit))
        if found.looks[-1].passed:
            break
    return found


def _look(customers: int, a: Array, b: Array, limit: float) -> Look:
    from scipy.stats import norm, t

    means, difference = (float(a.mean()), float(b.mean())), float(b.mean() - a.mean())
    parts = [float(group.var(ddof=1)) / len(group) for group in (a, b)]
    error = float(np.sqrt(sum(parts)))
    if not error > 0:
        # Where all of each group take up alike, nothing says how far chance alone would have taken them.
        return Look(customers, *means, difference, -1.0, 1.0, 0.0, limit)
    # The spread is that of few customers, too: a normal bound would cry wolf two to three times as often.
    freedom = error**4 / sum(part**2 / (len(group) - 1) for part, group in zip(parts, (a, b), strict=True))
    limit = float(t.isf(norm.sf(limit), freedom))
    low, high = max(-1.0, difference - limit * error), min(1.0, difference + limit * error)
    return Look(customers, *means, difference, low, high, difference / error, limit)


def in_words(found: AbTest) -> list[str]:
    """The test line by line."""
    plan = found.plan
    lines = [
        f"A: {found.names[0]}; B: {found.names[1]}",
        f"planned: a difference of {plan.effect:g} in take-up is to be found with a probability of {plan.power:.0%} "
        f"at a level of {plan.level:.0%}; a customer's take-up has a deviation of {plan.deviation:.3f}",
        f"needed: {plan.one_look:,} customers in each group for a single look, {plan.customers // 2:,} for "
        f"{plan.looks} looks; there are {found.there:,} in all",
        f"looks: {plan.looks} looks at the bound of one would cry wolf in {plan.peeking:.1%} of tests without any "
        f"difference; these bounds do in {plan.level:.0%}",
    ]
    for number, look in enumerate(found.looks, start=1):
        lines.append(
            f"look {number}: {look.customers:,} customers, take-up A {look.a:.3f}, B {look.b:.3f}, difference "
            f"{look.difference:+.3f} ({look.low:+.3f} to {look.high:+.3f}), z {look.z:.2f}, bound {look.limit:.2f}"
        )
    return [*lines, f"verdict: {found.verdict()}."]


def write(found: AbTest, directory: Path) -> list[Path]:
    """Write the test as a page, as JSON and as a picture."""
    picture = draw(found, directory / "ab_test.png")
    page = Page("Do customers take up more of five suggestions?")
    page.text(found.verdict() + ".")
    page.image(picture, "the difference at each look, and the interval that holds at every look")
    page.table(
        ["look", "customers", "take-up A", "take-up B", "difference", "from", "to", "z", "bound"],
        [
            [number, look.customers, look.a, look.b, look.difference, look.low, look.high, look.z, look.limit]
            for number, look in enumerate(found.looks, start=1)
        ],
    )
    page.heading("How it was done")
    for line in in_words(found)[:4]:
        page.text(line[:1].upper() + line[1:] + ".")
    page.text(
        "The orders of the test split are the visits; a suggestion is taken up where the dish that is ordered is among "
        "the five. A simulation: nobody orders anything else because of a suggestion. Customers come in the order of "
        "their first visit and are put into a group by their name and the seed; each counts once, by the share of all "
        "their visits with a take-up. Bounds: Lan and DeMets (1983), as O'Brien and Fleming (1979) stop, of Student's "
        "t with Welch's (1947) degrees of freedom; intervals: Jennison and Turnbull (1989). Looks before the last with "
        f"fewer than {LEAST} customers in a group are left out."
    )
    return [
        page.write(directory / "ab_test.html"),
        write_json(directory / "ab_test.json", as_json(found.as_dict())),
        picture,
    ]


def draw(found: AbTest, path: Path) -> Path:
    """Draw the difference at each look with its interval."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axis = figure.add_subplot()
    x = [look.customers for look in found.looks]
    axis.fill_between(
        x,
        [look.low for look in found.looks],
        [look.high for look in found.looks],
        color="#4878a8",
        alpha=0.25,
    )
    axis.errorbar(
        x,
        [look.difference for look in found.looks],
        yerr=[
            [look.difference - look.low for look in found.looks],
            [look.high - look.difference for look in found.looks],
        ],
        color="#4878a8",
        marker="o",
        capsize=4,
    )
    axis.axhline(0, color="#555555", linewidth=1)
    axis.set_xlabel("customers, both groups together")
    axis.set_ylabel("take-up of B minus that of A")
    figure.savefig(path, dpi=110)
    return path
