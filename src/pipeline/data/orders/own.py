"""Orders of one's own: a table with columns for customer, item, area and time."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pipeline.data.orders.encoder import OrdersEncoder
from pipeline.data.orders.guessing import Asked, find_layout
from pipeline.data.orders.module import OrdersModule
from pipeline.data.orders.reading import Layout, frame_of, in_time
from pipeline.data.tables.files import TableFormat, read_table
from pipeline.data.tables.guesses import Guess, say
from pipeline.data.tables.values import Table
from pipeline.data.tables.words import spelling
from pipeline.errors import UserError
from pipeline.settings import COLUMN, COLUMNS, COUNT, PATH_OR_NULL

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

USUAL = TableFormat()
"""How a file is written that nothing was said of."""
FEWEST = 20
"""Least number of orders from which anything can be learnt and tested."""


class OwnOrders(OrdersModule):
    """Orders of one's own, split by time. Columns that are not named are found by their names and by what is in them.

    Args:
        path: The table: a row an item of an order.
        customer: Column that says who ordered; None finds out.
        item: Column that says what was ordered, or several that name it together; none finds out.
        area: Column that says where; None finds out.
        time: Column that says when, or two, the date and the time of day; none finds out.
        returned: Column that says what came back; None finds out.
        max_items: Number of items, the most ordered, that can be recommended.
        max_customers: Number of customers, those with most orders, whose own taste is learnt beside their history.
        format: Format of the file, ``auto`` by its extension.
        delimiter: Character between the values of a CSV; None finds out.
        encoding: Encoding of a CSV.
        sheet: Name or number of the sheet of a workbook; None is the first.
        **shared: Settings that every table of orders takes, see :class:`OrdersModule`.

    Raises:
        UserError: A setting does not fit the table.
    """

    def __init__(
        self,
        name: str = "orders",
        path: Annotated[str | Path | None, PATH_OR_NULL] = None,
        customer: Annotated[str | None, COLUMN] = None,
        item: Annotated[Sequence[str] | str, COLUMNS] = (),
        area: Annotated[str | None, COLUMN] = None,
        time: Annotated[Sequence[str] | str, COLUMNS] = (),
        returned: Annotated[str | None, COLUMN] = None,
        max_items: Annotated[int, COUNT] = 1000,
        max_customers: Annotated[int, COUNT] = 5000,
        format: str = "auto",
        delimiter: str | None = None,
        encoding: str = "utf-8",
        sheet: str | int | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(name=name, **shared)
        if path is None:
            raise UserError("data=orders needs a file with the orders: data.path=FILE")
        self.path = Path(path).expanduser()
        self.asked = Asked(customer, _listed(item), area, _listed(time), returned)
        self.max_items, self.max_customers = max_items, max_customers
        self.format = TableFormat(format, delimiter, encoding, sheet=sheet)
        self.source = str(path)
        self.guesses: list[Guess] = []
        self.layout: Layout | None = None

    @property
    def target_name(self) -> str:
        return "item" if self.layout is None else " ".join(self.layout.item)

    def orders_in_time(self) -> pd.DataFrame:
        # Numbers of customers and times keep what is written, like zeros in front.
        names = frozenset(read_table(self.path, self.format).names)
        table = read_table(self.path, self.format, names)
        layout, guesses = find_layout(table, self.asked)
        frame, more = cleaned(table, layout)
        self.layout, self.guesses = layout, [*guesses, *more]
        good = int((~frame["returned"] & frame["item"].notna()).sum())
        if good < FEWEST:
            raise UserError(
                f"{self.path} has {good} orders with an item that were kept; at least {FEWEST} are needed to learn "
                "from some and test on later ones"
            )
        say(self.guesses, str(self.path))
        return frame

    def fitted(self, training: pd.DataFrame) -> OrdersEncoder:
        encoder = OrdersEncoder.fit(training, self.layout, 2, self.max_customers, self.max_items)
        items = training["item"].nunique()
        if items > self.max_items:
            what = f"{items:,} different items: the {self.max_items:,} most ordered can be recommended"
            say(
                [
                    Guess(
                        what,
                        f"data.max_items={items}",
                        True,
                        effect="takes all, at the price of a larger model",
                    )
                ],
                self.source,
            )
        return encoder


def cleaned(table: Table, layout: Layout) -> tuple[pd.DataFrame, list[Guess]]:
    """A table's orders, the earliest first, each name in its most frequent spelling; and what was decided about gaps.

    Raises:
        UserError: A column holds what cannot be understood.
    """
    frame, guesses = frame_of(table, layout, whole=True), []
    for name in ("customer", "area", "item"):
        frame[name] = _in_one_spelling(frame[name])
        if gaps := int(frame[name].isna().sum()):
            what = {
                "item": "are left out",
                "customer": "are nobody's history",
                "area": "count as of no known area",
            }
            guesses.append(Guess(f"{gaps:,} of {len(frame):,} orders without {name} {what[name]}"))
    frame, said = in_time(frame)
    if said and layout.time:
        guesses.append(Guess(said))
    return frame, guesses


def orders_like(path: Path, encoder: OrdersEncoder, how: TableFormat = USUAL) -> tuple[pd.DataFrame, bool]:
    """Orders of another file, read as a model's training table was.

    Args:
        path: The file.
        encoder: The model's encoder, which knows which column is what.
        how: How the file is written.

    Returns:
        The orders, the earliest first, without those of the time that the model learnt from where later ones are there;
        and whether they are later than what the model learnt from.

    Raises:
        UserError: The file lacks a column, or cannot be read.
    """
    import pandas as pd

    layout = encoder.layout
    names = frozenset([*layout.inputs(), *layout.item, *([layout.returned] if layout.returned else [])])
    table = read_table(path, how, names)
    if layout.returned is not None and layout.returned not in table.names:
        # Of orders that are still on their way nobody knows.
        layout = replace(layout, returned=None)
    lacking = [name for name in [*layout.inputs(), *layout.item] if name not in table.names]
    if lacking:
        raise UserError(
            f"data.path={path} lacks the columns {lacking}; this model was trained on "
            f"{[*layout.inputs(), *layout.item]}"
        )
    frame, _ = cleaned(table, layout)
    if not encoder.until:
        return frame, False
    # An order without a time stands behind the last one that has one; at the beginning it may be one of training.
    later = frame["time"].ffill() > pd.Timestamp(encoder.until)
    if later.any() and not later.all():
        log.info(
            "%s: %d orders up to %s, or without a time before the first later one, are of the time that the model "
            "learnt from; the %d after them are judged",
            path,
            int((~later).sum()),
            encoder.until,
            int(later.sum()),
        )
        frame = frame[later].reset_index(drop=True)
    return frame, bool(later.any())


def _in_one_spelling(column: pd.Series) -> pd.Series:
    counts = Counter(name for name in column if name is not None)
    shown: dict[str, str] = {}
    for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        shown.setdefault(spelling(name), name)
    return (
        column.map(lambda name: None if name is None else shown[spelling(name)])
        .astype(object)
        .where(column.notna(), None)
    )


def _listed(names: Sequence[str] | str) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(map(str, names))
