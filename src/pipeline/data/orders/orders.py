"""Generated food orders, and the question which dish is ordered next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pipeline.data.orders.encoder import OrdersEncoder
from pipeline.data.orders.generated import generate_orders
from pipeline.data.orders.module import OrdersModule
from pipeline.data.orders.reading import BETWEEN
from pipeline.errors import UserError
from pipeline.settings import Number

if TYPE_CHECKING:
    import pandas as pd


class Orders(OrdersModule):
    """Generated food orders, split by time: the model is tested on later orders than it learnt from.

    Args:
        name: Name of the data set, shown and tagged.
        orders: Number of orders that are generated.
        customers: Number of people who order.
        areas: Number of parts of the town.
        green_sauce: Share of the orders after which every café has a new dish on its menu; None for never.
        **shared: Settings that every table of orders takes, see :class:`OrdersModule`.
    """

    def __init__(
        self,
        name: str = "food_orders",
        orders: int = 40_000,
        customers: int = 800,
        areas: int = 6,
        green_sauce: Annotated[float | None, Number(0, 1, null=True)] = None,
        **shared: Any,
    ) -> None:
        super().__init__(name=name, **shared)
        if orders < 100 or customers < 2 or areas < 1:
            raise UserError("data.orders, data.customers and data.areas: expected at least 100, 2 and 1")
        self.orders, self.customers, self.areas, self.green_sauce = orders, customers, areas, green_sauce
        self.source = "generated"

    def orders_in_time(self) -> pd.DataFrame:
        orders = generate_orders(self.orders, self.customers, self.areas, self.seed, self.green_sauce)
        orders["item"] = orders["restaurant"] + BETWEEN + orders["dish"]
        return orders

    def fitted(self, training: pd.DataFrame) -> OrdersEncoder:
        return OrdersEncoder.fit(training)
