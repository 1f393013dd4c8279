"""Drift of orders: none where nothing moved, whatever was too rare to be learnt; and what did move, by name."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from pipeline.data.orders.own import OwnOrders
from pipeline.evaluation.drifting import drifted
from pipeline.evaluation.groups import beside, grouped, in_words
from pipeline.evaluation.other_data import other_data_of

ITEMS, CUSTOMERS = 60, 900


def orders(count: int, seed: int, first: str, **more: float) -> pd.DataFrame:
    """Orders by many customers, most of whom order seldom; ``more`` of an item adds to its weight."""
    random = np.random.default_rng(seed)
    tastes = np.ones(ITEMS)
    for name, weight in more.items():
        tastes[int(name.removeprefix("dish"))] += weight
    busy = 1 / np.arange(3, CUSTOMERS + 3)
    return pd.DataFrame(
        {
            "customer": [f"c{n}" for n in random.choice(CUSTOMERS, count, p=busy / busy.sum())],
            "dish": [f"dish{n}" for n in random.choice(ITEMS, count, p=tastes / tastes.sum())],
            "area": random.choice(["north", "south"], count),
            "time": pd.Timestamp(first) + pd.to_timedelta(np.arange(count) * 37, unit="min"),
        }
    )


def drift_of(own: OwnOrders, later: pd.DataFrame, path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    later.to_csv(path, index=False)
    cfg = OmegaConf.create({"data": {"path": str(path)}})
    predictor: Any = SimpleNamespace(encoder=own.encoder, spec=own.spec)
    other = other_data_of(cfg, own, predictor)
    nothing: Any = None
    return drifted(own, other.split, nothing, predictor, nothing, other.unknown), other.unknown


@pytest.mark.parametrize("train_on_all", [False, True])
def test_where_nothing_moved_nothing_is_said_to_have_moved(
    tmp_path: Path, train_on_all: bool, caplog: pytest.LogCaptureFixture
) -> None:
    orders(3000, 0, "2024-01-01").to_csv(tmp_path / "orders.csv", index=False)
    own = OwnOrders(path=tmp_path / "orders.csv", max_items=20, train_on_all=train_on_all)
    with caplog.at_level(logging.INFO, "pipeline"):
        own.setup()
    assert "test orders are of items beyond data.max_items" in caplog.text
    assert "that training does not know" not in caplog.text
    found, unknown = drift_of(own, orders(2000, 1, "2024-06-01"), tmp_path / "later.csv")
    assert len(unknown) == 40 and found["moved"] == []
    names = {row["name"] for row in found["features"]}
    assert ("a customer whom training does not know" in names) is not train_on_all
    # Of what was cut off, what is ordered more often has moved, and nothing else; in whatever case it is written.
    often = next(iter(own.judged["train"].unknown))
    later = orders(2000, 2, "2024-06-01", **{often: 8.0})
    later["dish"] = later["dish"].str.title()
    moved, unknown = drift_of(own, later, tmp_path / "more.csv")
    assert moved["moved"][:1] == [f"dish {often.title()}"]
    row = next(row for row in moved["features"] if row["name"] == f"dish {often.title()}")
    before = own.judged["train"]
    share = before.unknown[often] / (len(before.rows) + sum(before.unknown.values()))
    assert row["statistic"] == pytest.approx((later.dish == often.title()).mean() - share)


def test_what_training_had_and_left_out_is_told_from_what_is_new() -> None:
    found = beside({"rare": 3, "new": 2}, 0.5, 15, "dish", cut={"rare": 9})
    assert (found["samples"], found["cut"], found["share"]) == (5, 3, 0.25)
    (line,) = in_words({"unknown": found, "interval": {"metric": "hit_rate_at_5"}})
    assert "rare (3), new (2); 3 of them training had, beyond data.max_items; counted as misses" in line


def test_intervals_by_area_are_those_of_customers(tmp_path: Path) -> None:
    table = orders(1500, 0, "2024-01-01")
    table["customer"] = [name if n % 40 else None for n, name in enumerate(table["customer"])]
    table.to_csv(tmp_path / "orders.csv", index=False)
    own = OwnOrders(path=tmp_path / "orders.csv", validation_fraction=0.15)
    own.setup()
    assert own.test is not None
    split, customers = own.test, own.judged["test"].orders["customer"].reset_index(drop=True)
    taste = {name: n % 2 for n, name in enumerate(customers.unique())}
    values = customers.map(taste).fillna(0).to_numpy(dtype=float)
    outputs: Any = SimpleNamespace(judged=lambda: ("hit_rate_at_5", values))
    areas = own.judged["test"].orders["area"].to_numpy()
    for row in grouped(own, split, outputs)["groups"]:
        here = areas == row["group"]
        assert row["value"] == pytest.approx(values[here].mean()) and row["samples"] == here.sum()
        # The error of a ratio of sums over customers, by the textbook (Cochran 1977, section 2.11).
        keys = customers[here].where(customers[here].notna(), pd.Series(range(len(customers)), dtype=object))
        by = (
            pd.DataFrame({"key": keys.astype(str), "value": values[here]})
            .groupby("key")
            .value.agg(["sum", "size"])
        )
        rest = by["sum"] - row["value"] * by["size"]
        error = np.sqrt((rest**2).sum() * len(by) / (len(by) - 1)) / by["size"].sum()
        assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * error, rel=0.15)
        assert row["high"] - row["low"] > 1.25 * 2 * 1.96 * values[here].std() / np.sqrt(here.sum())
    assert own.whose(own.train.subset(torch.arange(5))) is None
