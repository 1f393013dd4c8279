"""Rows unlike the training rows are flagged, and about one in a hundred of those that are like them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.data.encoders import restored
from pipeline.data.tables.table import TableData
from pipeline.data.tables.unusual import Usual


def frame(rows: int, seed: int) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "normal": draw.normal(50, 9, rows),
            "skewed": draw.lognormal(0, 1, rows),
            "rare": (draw.random(rows) < 0.03).astype(float),
            "count": draw.poisson(3, rows),
            "town": draw.choice(list("abcd"), rows, p=[0.5, 0.3, 0.15, 0.05]),
            "y": draw.normal(size=rows),
        }
    )


def data(tmp_path: Path, rows: int) -> TableData:
    frame(rows, 0).to_csv(tmp_path / "t.csv", index=False)
    made = TableData(path=tmp_path / "t.csv", target="y", test_fraction=0.1, validation_fraction=0.1)
    made.setup()
    return made


@pytest.mark.parametrize("rows", [200, 2000])
def test_one_in_a_hundred_of_rows_of_the_same_kind(tmp_path: Path, rows: int) -> None:
    shares = []
    for seed in range(10):
        draw = np.random.default_rng(seed)
        made = data(tmp_path, rows).encoder if seed == 0 else None
        if made is None:
            dense = draw.normal(size=(rows, 6)).astype(np.float32)
            usual = Usual.fit(dense, np.zeros((rows, 0), dtype=int), [])
            assert usual is not None
            shares.append(
                usual.flags(draw.normal(size=(5000, 6)).astype(np.float32), np.zeros((5000, 0), int)).mean()
            )
        else:
            flags = made.unusual(made.encode(frame(5000, 99)))
            assert flags is not None and flags.mean() < 0.03
    assert 0.004 < np.mean(shares) < 0.025


def test_what_no_training_row_has_is_flagged(tmp_path: Path) -> None:
    encoder = data(tmp_path, 1000).encoder
    usual = {"normal": 50.0, "skewed": 1.0, "rare": 0.0, "count": 3, "town": "a"}
    strange = [
        {},
        {"normal": 500.0},
        {"normal": -40.0},
        {"skewed": 900.0},
        {"town": "nowhere"},
        {"count": 60},
    ]
    rows = pd.DataFrame([usual | change for change in strange])
    flags = encoder.unusual(encoder.encode(rows))
    assert flags is not None and flags.tolist() == [False, True, True, True, True, True]
    # As a saved model has it.
    again = restored(json.loads(json.dumps(encoder.to_state())))
    assert (again.unusual(again.encode(rows)) == flags).all()


def test_an_encoder_that_was_saved_before_says_nothing(tmp_path: Path) -> None:
    state = data(tmp_path, 1000).encoder.to_state()
    del state["usual"]
    old = restored(state)
    assert not old.tells_unusual and old.unusual(old.encode(frame(3, 1))) is None


def test_few_rows_tell_nothing() -> None:
    assert Usual.fit(np.zeros((49, 1), dtype=np.float32), np.zeros((49, 0), dtype=int), []) is None
