"""What every table of orders shares: later orders test, history is what came before, dishes are ranked."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.core.module import DataModule
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Rows, SparseRows
from pipeline.data.core.splitting import first_of_last, stretch
from pipeline.data.orders.encoder import OrdersEncoder
from pipeline.data.orders.reading import baskets
from pipeline.errors import UserError
from pipeline.settings import BELOW_ONE

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.data.core.baselines import Baseline

log = logging.getLogger(__name__)

TOP = 5
"""Number of dishes that are recommended, of at least one more."""


@dataclass
class Judged:
    """Orders as a model takes them.

    Args:
        rows: Those of items that the model knows.
        orders: The same orders as a table, in the same order.
        unknown: How often items were ordered that it does not know: no recommendation can name them.
    """

    rows: Rows
    orders: pd.DataFrame
    unknown: dict[str, int] = field(default_factory=dict)


class OrdersModule(DataModule):
    """Orders, split by time: the model is tested on later orders than it learnt from.

    A returned order is no recommendation: it is neither a target nor part of a customer's history.

    Args:
        test_fraction: Share of the orders, the latest ones, for the test.
        **shared: Settings that every data set takes, see :class:`DataModule`; with ``folds`` each fold is a stretch of
            time.
    """

    encoder: OrdersEncoder
    looked_at: pd.DataFrame
    """The orders before the test's, returned ones among them: ``customer``, ``area``, ``time``, ``item``,
    ``returned``."""
    judged: dict[str, Judged]
    """The orders behind the rows of each split, and of ``other`` ones that were taken last."""
    first_test: int
    """Where the orders of the test begin, among all that were kept."""

    def __init__(self, name: str, test_fraction: Annotated[float, BELOW_ONE] = 0.15, **shared: Any) -> None:
        super().__init__(name=name, **shared)
        if self.balance != "none":
            raise UserError(
                f"data.balance={self.balance}: orders are ranked as often as they are made; drop it"
            )
        self.test_fraction = test_fraction

    @abstractmethod
    def orders_in_time(self) -> pd.DataFrame:
        """All orders, the earliest first: ``customer``, ``area``, ``time``, ``item`` (None: unknown), ``returned``."""

    @abstractmethod
    def fitted(self, training: pd.DataFrame) -> OrdersEncoder:
        """The encoder of the training orders."""

    @property
    def target_name(self) -> str:
        """Name of what is recommended."""
        return "dish"

    def setup(self, stage: str | None = None) -> None:
        everything = self.orders_in_time()
        good = ~everything["returned"] & everything["item"].notna()
        orders = everything[good].reset_index(drop=True)
        first = _cut(orders["time"], first_of_last(len(orders), self.test_fraction))
        self.first_test = first
        pool, test = np.arange(first), np.arange(first, len(orders))
        if self.folds:
            validation = stretch(pool, self.folds, self.fold)
        else:
            validation = pool[
                _cut(orders["time"], first_of_last(len(pool), self.validation_fraction), len(pool)) :
            ]
        train = pool if self.train_on_all else np.setdiff1d(pool, validation)
        if not len(train):
            raise UserError(
                f"{self.source}: no order is left to learn from; bring more, or lower data.test_fraction and "
                "data.validation_fraction"
            )
        self.encoder = self.fitted(orders.iloc[train])
        if len(self.encoder.dishes) < 2:
            raise UserError(
                f"{self.source}: the training orders hold {len(self.encoder.dishes)} different item "
                f"({', '.join(self.encoder.dishes)}); a recommendation needs at least two to choose from"
            )
        targets = np.array([self.encoder.number(item) for item in orders["item"]])
        sets = self.encoder.sets(orders, past_orders(orders, targets))
        self.judged = {
            name: _judged(orders, targets, sets, rows, self.encoder)
            for name, rows in (("train", train), ("validation", validation), ("test", test))
        }
        self.train = self.judged["train"].rows
        self.validation = _some(self.judged["validation"].rows)
        self.test = _some(self.judged["test"].rows)
        self._say_unknown()
        numbers = np.flatnonzero(good.to_numpy())
        until = numbers[first] if first < len(numbers) else len(everything)
        self.looked_at = everything.iloc[:until]
        self.spec = Spec(
            task="multiclass",
            input="bag",
            input_shape=(self.encoder.width,),
            outputs=len(self.encoder.dishes),
            classes=tuple(self.encoder.dishes),
            target_name=self.target_name,
            # Among as many as there are, anything is found.
            top_k=min(TOP, len(self.encoder.dishes) - 1),
        )

    def _say_unknown(self) -> None:
        cut = self.judged["train"].unknown
        for name in ("validation", "test"):
            judged = self.judged[name]
            for what, items in (
                ("that training does not know", [item for item in judged.unknown if item not in cut]),
                ("beyond data.max_items", [item for item in judged.unknown if item in cut]),
            ):
                if items:
                    log.info(
                        "%d of %d %s orders are of items %s (%s): they are left out",
                        sum(judged.unknown[item] for item in items),
                        sum(judged.unknown.values()) + len(judged.rows),
                        name,
                        what,
                        ", ".join(items[:5]),
                    )

    def other(self, orders: pd.DataFrame, encoder: OrdersEncoder, earlier: bool, first: int = 0) -> Judged:
        """Other orders as a trained model takes them.

        Args:
            orders: All of them, the earliest first, with the columns of :meth:`orders_in_time`.
            encoder: The model's encoder.
            earlier: Whether what was ordered by the end of training is part of the customers' history.
            first: Number of the first one, of those that were kept, that is judged; those before it are history.

        Raises:
            UserError: None of them is of an item that the model knows.
        """
        orders = orders[~orders["returned"] & orders["item"].notna()].reset_index(drop=True)
        targets = np.array([encoder.number(item) for item in orders["item"]], dtype=np.int64)
        before = encoder.known if earlier else None
        sets = encoder.sets(orders, past_orders(orders, targets, before))
        if not (targets[first:] >= 0).any():
            items = orders["item"][first:].nunique()
            raise UserError(f"{self.source}: the model knows none of the {items} different items in it")
        self.judged["other"] = _judged(orders, targets, sets, np.arange(first, len(orders)), encoder)
        return self.judged["other"]

    def baselines(self) -> dict[str, Baseline]:
        """The dishes ordered most often in the area, and the most frequent dish of all."""
        from pipeline.data.orders.baselines import most_ordered_in_the_area

        area = partial(most_ordered_in_the_area, areas=self._areas)
        return {"most ordered in the area": area} | super().baselines()

    def baseline_values(self, split: Rows) -> Tensor:
        """Whether the dish is one of those ordered most often in the area."""
        from pipeline.data.orders.baselines import area_hits

        return area_hits(self.train, split, self.spec, self._areas).any(1)

    @property
    def _areas(self) -> range:
        return range(self.encoder.first_area, self.encoder.first_hour)

    def groups(self, split: Rows) -> tuple[str, np.ndarray] | None:
        from pipeline.data.orders.baselines import areas_of

        if not self.encoder.areas:
            return None
        names = np.array([*self.encoder.areas, "(unknown)"], dtype=object)
        return self.encoder.layout.area or "area", names[areas_of(split, self._areas).numpy()]

    def whose(self, split: Rows) -> np.ndarray | None:
        """The customer of each order; whoever is not known has ordered nothing else."""
        for judged in self.judged.values():
            if judged.rows is split:
                customers = judged.orders["customer"].tolist()
                _, places = np.unique([str(name) for name in customers], return_inverse=True)
                nobody = np.array([name is None for name in customers], dtype=bool)
                return np.where(nobody, len(customers) + np.arange(len(customers)), places)
        return None


def _judged(
    orders: pd.DataFrame,
    targets: np.ndarray,
    sets: list[list[int]],
    numbers: np.ndarray,
    encoder: OrdersEncoder,
) -> Judged:
    """Some orders, by their numbers, as rows."""
    known = numbers[targets[numbers] >= 0]
    rows = SparseRows.from_sets(
        [sets[number] for number in known.tolist()], encoder.width, torch.from_numpy(targets[known])
    )
    strange = Counter(orders["item"].iloc[numbers[targets[numbers] < 0]])
    return Judged(rows, orders.iloc[known], dict(strange.most_common()))


def _some(rows: Rows) -> Rows | None:
    return rows if len(rows) else None


def _cut(times: pd.Series, first: int, rows: int | None = None) -> int:
    """Where later orders begin: orders of one moment stay together wherever that leaves some on both sides."""
    rows = len(times) if rows is None else rows
    if not 0 < first < rows:
        return first
    moment = times.iloc[first]
    if moment != moment:
        return first
    same = np.flatnonzero((times.iloc[:rows] == moment).to_numpy())
    after = int(same[-1]) + 1
    return int(same[0]) if same[0] > 0 else after if after < rows else first


def past_orders(orders: pd.DataFrame, targets: np.ndarray, before: Any = None) -> list[dict[int, int]]:
    """For each order, how often its customer had ordered each dish before it; lines of one basket do not count.

    Args:
        orders: ``customer`` and ``time``, the earliest first.
        targets: Number of the dish of each, −1 for one that is not known.
        before: Function that gives what a customer had ordered before all of them; None for nothing.
    """
    so_far: dict[str, dict[int, int]] = {}
    waiting: dict[str, list[int]] = {}
    latest: dict[str, int] = {}
    result: list[dict[int, int]] = []
    firsts = baskets(orders)
    for customer, dish, basket in zip(orders["customer"], targets.tolist(), firsts.tolist(), strict=True):
        if customer is None:
            result.append({})
            continue
        counts = so_far.get(customer)
        if counts is None:
            counts = so_far[customer] = dict(before(customer)) if before else {}
        if latest.get(customer) != basket:
            for earlier in waiting.pop(customer, ()):
                counts[earlier] = counts.get(earlier, 0) + 1
            latest[customer] = basket
        result.append(dict(counts))
        if dish >= 0:
            waiting.setdefault(customer, []).append(dish)
    return result
