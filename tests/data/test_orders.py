"""Generated food orders and the recommendation made from them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.data.core.sums import Sums
from pipeline.data.encoders import restored
from pipeline.data.orders.encoder import OrdersEncoder
from pipeline.data.orders.generated import CHAI_DRINKER, GREEN_SAUCE, generate_orders
from pipeline.data.orders.orders import Orders
from pipeline.errors import UserError


@pytest.fixture(scope="module")
def orders() -> pd.DataFrame:
    return generate_orders(12_000, customers=300, areas=4, seed=1)


@pytest.fixture(scope="module")
def data() -> Orders:
    module = Orders(orders=12_000, customers=300, areas=4, seed=1, validation_fraction=0.15)
    module.setup()
    return module


def kept(orders: pd.DataFrame) -> pd.DataFrame:
    frame = orders[~orders.returned].reset_index(drop=True)
    return frame.assign(item=frame.restaurant + ": " + frame.dish)


def test_the_generator_does_what_its_description_says(orders: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(orders, generate_orders(12_000, customers=300, areas=4, seed=1))
    assert not orders.equals(generate_orders(12_000, customers=300, areas=4, seed=2))
    assert orders.order.is_monotonic_increasing and orders.time.dropna().is_monotonic_increasing
    assert orders.time.isna().mean() == pytest.approx(0.03, abs=0.006)
    assert orders.returned.mean() == pytest.approx(0.04, abs=0.006)
    chai = orders[orders.customer == CHAI_DRINKER]
    assert len(chai) == orders.customer.value_counts().max() and (chai.dish == "chai").mean() > 0.99
    assert chai.time.dt.hour.nunique() == 24
    # A restaurant is in one area, named by its number; people order at home 19 times out of 20.
    assert (orders.restaurant.str[-1] == orders.area.str[-1]).all()
    home = orders.groupby("customer").area.agg(lambda area: area.mode()[0])
    assert (orders.area == orders.customer.map(home)).mean() == pytest.approx(0.96, abs=0.02)
    hours = orders.time.dt.hour
    others = orders.customer != CHAI_DRINKER
    morning, evening = (orders[others & hours.between(*span)].dish for span in ((6, 10), (18, 21)))
    assert (morning == "croissant").mean() > 3 * (evening == "croissant").mean()
    assert (evening == "pizza").mean() > 3 * (morning == "pizza").mean()


def test_later_orders_test_and_returned_ones_count_for_nothing(orders: pd.DataFrame, data: Orders) -> None:
    frame = kept(orders)
    known = frame[frame.item.isin(data.encoder.dishes)]
    parts = [data.train, data.validation, data.test]
    found = [data.encoder.dishes[label] for split in parts if split is not None for label in split.y]
    assert found == known.item.tolist()
    assert len(data.test or ()) == pytest.approx(0.15 * len(frame), abs=5)


def test_history_is_what_the_customer_had_ordered_before_and_kept(orders: pd.DataFrame, data: Orders) -> None:
    frame = kept(orders)
    assert data.test is not None
    first = len(frame) - len(data.test)
    for row in (0, 7, len(data.test) - 1):
        order = frame.iloc[first + row]
        past = frame.iloc[: first + row]
        counts = past[past.customer == order.customer].item.value_counts()
        raw = order[["customer", "area", "time"]].to_frame().T
        raw["past"] = ";".join(name for name, count in counts.items() for _ in range(count))
        expected = data.encoder.encode(raw)
        assert torch.equal(data.test.take(torch.tensor([row]))[0], expected)
        block = expected[0, data.encoder.first_past :].view(-1, 3)
        levels = {
            name: int((counts.get(name, 0) >= np.array([1, 2, 4])).sum()) for name in data.encoder.dishes
        }
        assert block.sum(1).tolist() == list(levels.values())


def test_the_encoder_survives_json_and_takes_what_is_missing_or_unknown(
    orders: pd.DataFrame, data: Orders
) -> None:
    encoder = restored(json.loads(json.dumps(data.encoder.to_state())))
    assert isinstance(encoder, OrdersEncoder)
    raw = [
        {"customer": CHAI_DRINKER, "area": "area 1", "time": "2024-12-31T08:15"},
        {"customer": "somebody", "area": "elsewhere", "time": None},
    ]
    known, unknown = encoder.encode(raw)
    assert known[encoder.first_hour + 8] == 1 and known[encoder.first_weekday + 1] == 1
    assert known[encoder.first_past :].sum() > 0
    assert unknown.nonzero().flatten().tolist() == [
        encoder.first_area - 1,
        encoder.first_hour - 1,
        encoder.first_weekday - 1,
        encoder.first_past - 1,
    ]
    assert encoder.encode(encoder.example()).shape == (2, data.spec.input_shape[0])
    for bad in ("dosa", [{"customer": "a"}], [1, 2]):
        with pytest.raises(UserError, match="customer, area and time"):
            encoder.encode(bad)


def test_the_baseline_is_what_pandas_counts(orders: pd.DataFrame, data: Orders) -> None:
    frame = kept(orders)
    assert data.test is not None and data.validation is not None
    train = frame.iloc[: len(data.train)]
    test = frame.iloc[len(frame) - len(data.test) :]
    # Ties are broken by the dishes' order.
    best = {
        area: rows.item.value_counts()
        .reindex(data.encoder.dishes)
        .fillna(0)
        .nlargest(5, keep="first")
        .index.tolist()
        for area, rows in train.groupby("area")
    }
    hits = [item in best[area] for item, area in zip(test.item, test.area, strict=True)]
    first = [item == best[area][0] for item, area in zip(test.item, test.area, strict=True)]
    found = data.baselines()["most ordered in the area"](data.train, data.test, data.spec)
    assert found["hit_rate_at_5"] == pytest.approx(np.mean(hits), abs=0.01)
    assert found["accuracy"] == pytest.approx(np.mean(first), abs=0.01)


def test_hit_rate_counts_the_true_class_among_the_k_largest(data: Orders) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(64, data.spec.outputs, generator=generator)
    y = torch.randint(data.spec.outputs, (64,), generator=generator)
    sums = Sums(data.spec)
    for part in (slice(0, 40), slice(40, 64)):
        sums.add(torch.tensor(1.0), logits[part], y[part], 0.0)
    ranks = (logits > logits[torch.arange(64), y][:, None]).sum(1)
    assert sums.metrics()["hit_rate_at_5"] == pytest.approx(float((ranks < 5).double().mean()))
    assert data.spec.monitor == ("val/hit_rate_at_5", "max")


def test_folds_are_stretches_of_time(orders: pd.DataFrame) -> None:
    held = []
    for fold in range(3):
        module = Orders(orders=12_000, customers=300, areas=4, seed=1, folds=3, fold=fold)
        module.setup()
        held.append(len(module.validation or ()))
    assert sum(held) == pytest.approx(0.85 * 0.96 * 12_000, rel=0.02)
    assert max(held) - min(held) < 30


def test_green_sauce_changes_nothing_but_the_orders_in_which_it_is_liked_better(orders: pd.DataFrame) -> None:
    later = generate_orders(12_000, customers=300, areas=4, seed=1, green_sauce=0.5)
    is_new = later.dish == GREEN_SAUCE
    pd.testing.assert_frame_equal(later[~is_new], orders[~is_new])
    assert not is_new[:6000].any() and 0.05 < is_new[6000:].mean() < 0.25
    assert set(later.restaurant[is_new]) == {f"cafe {area}" for area in range(1, 5)}
    assert not is_new[later.customer == CHAI_DRINKER].any()
    hours = later.time.dt.hour
    assert (
        is_new[6000:][hours[6000:].between(11, 13)].mean() > is_new[6000:][hours[6000:].between(6, 10)].mean()
    )
