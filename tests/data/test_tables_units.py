"""Numbers with a unit and fractions, as people write them, are numbers in training and in every file afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.data.tables.encoder import TableEncoder
from pipeline.data.tables.files import read_table
from pipeline.data.tables.table import TableData
from pipeline.data.tables.units import numbers_in
from pipeline.data.tables.words import numbers_of
from pipeline.errors import UserError

ROWS = 120
SIZES = np.arange(ROWS) % 37 + 1.5
NOISE = np.random.default_rng(0).normal(size=ROWS)


def trained(path: Path, **settings: Any) -> TableData:
    data = TableData(path=path, target="y", **settings)
    data.setup()
    return data


def table(tmp_path: Path, **columns: Any) -> Path:
    path = tmp_path / "t.csv"
    pd.DataFrame({"other": np.linspace(0, 1, ROWS) ** 2, "y": NOISE, **columns}).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("word", "number"),
    [
        ("1/4", 0.25), ("3 1/2", 3.5), ("3½", 3.5), ("½", 0.5), ("-1/2", -0.5), ("2 / 3", 2 / 3), ("5/4", 1.25),
        ("120/80", None), ("12/5", None), ("1/0", None), ("3 5/4", None), ("1/2/2024", None),
    ],
)  # fmt: skip
def test_fractions_are_numbers(word: str, number: float | None) -> None:
    (found,) = numbers_of([word])
    assert found == pytest.approx(number) if number is not None else np.isnan(found)


@pytest.mark.parametrize(
    ("word", "unit", "number"),
    [
        ("12 kg", "kg", 12), ("12kg", "kg", 12), ("500 g", "kg", 0.5), ("7", "kg", 7), ("3 1/2 lbs", "lb", 3.5),
        ("1,200 sq ft", "sq ft", 1200), ("80 km/h", "km/h", 80), ("-3 °C", "°C", -3), ("5'11\"", "in", 71),
        ("5'8", "in", 68), ("6 ft 2 in", "in", 74), ("2 h 30 min", "min", 150), ("2h 30m", "min", 150),
        ("1 day", "d", 1), ("12 m", "kg", None), ("12 kg", "km/h", None), ("10-20 kg", "kg", None), ("kg", "kg", None),
        ("30 min 2 h", "min", None), ("007 kg", "kg", None), ("\u22121 h 30 min", "h", -1.5),
    ],
)  # fmt: skip
def test_a_number_with_a_unit(word: str, unit: str, number: float | None) -> None:
    (found,) = numbers_in([word], unit)
    assert found == pytest.approx(number) if number is not None else np.isnan(found)


@pytest.mark.parametrize(
    ("written", "unit", "factor"),
    [
        (lambda size: f"{size:g} kg", "kg", 1.0),
        (lambda size: f"{size:g} km/h", "km/h", 1.0),
        (lambda size: f"{size * 1000:,.0f} sqft", "sqft", 1000.0),
        (lambda size: f"{size:g} m".replace(".", ","), "m", 1.0),
        # Most rows are in kilograms, some in grams.
        (lambda size: f"{size:g} kg" if size < 30 else f"{size * 1000:g} g", "kg", 1.0),
        (lambda size: f"{int(size)}'{(size % 1) * 12:g}\"", "in", 12.0),
    ],
)
def test_a_column_with_units_is_one_of_numbers(
    tmp_path: Path, written: Any, unit: str, factor: float
) -> None:
    data = trained(table(tmp_path, size=[written(size) for size in SIZES]))
    feature = next(one for one in data.encoder.dense if one.name == "size")
    assert feature.understood.unit == unit
    train = SIZES[data.places["train"]] * factor
    place = data.encoder.inputs().index("size")
    inputs = data.train.take(torch.arange(len(data.train)))[0][:, place]
    assert torch.allclose(
        inputs, torch.tensor((train - train.mean()) / train.std(), dtype=torch.float32), atol=1e-5
    )
    (said,) = [guess for guess in data.guesses if "'size'" in guess.what]
    assert said.key == "data.categorical=[size]"
    assert len(trained(data.path, categorical=["size"]).encoder.texts) == 1


def test_the_same_words_mean_the_same_in_every_file(tmp_path: Path) -> None:
    data = trained(table(tmp_path, size=[f"{size:g} kg" for size in SIZES]))
    new = pd.DataFrame({"size": ["2 kg", "2500 g", "3"], "other": [0.1, 0.2, 0.3]})
    new.to_csv(tmp_path / "new.csv", index=False)
    new.to_parquet(tmp_path / "new.parquet")
    (tmp_path / "new.jsonl").write_text("\n".join(json.dumps(row) for row in new.to_dict("records")))
    plain = data.encoder.encode(pd.DataFrame({"size": [2.0, 2.5, 3.0], "other": [0.1, 0.2, 0.3]}))
    for name in ("new.csv", "new.parquet", "new.jsonl"):
        read = read_table(tmp_path / name, data.encoder.written)
        assert torch.equal(data.encoder.encode(read.arrow.to_pandas()), plain), name
    restored = TableEncoder(**json.loads(json.dumps(data.encoder.state())))
    assert torch.equal(restored.encode(new), plain)
    with pytest.raises(UserError, match=r"'size' must hold numbers in kg, but has '2 m'"):
        data.encoder.encode(pd.DataFrame({"size": ["2 m"], "other": [0.1]}))


def test_units_that_do_not_go_together_stay_categories_and_are_named(tmp_path: Path) -> None:
    words = [f"{number % 5 + 1} {'kg' if number % 2 else 'm'}" for number in range(ROWS)]
    data = trained(table(tmp_path, size=words))
    assert [one.name for one in data.encoder.texts] == ["size"]
    (said,) = [guess for guess in data.guesses if "units that do not go together" in guess.what]
    assert said.costly and said.columns == ("size",)


@pytest.mark.parametrize(
    "words",
    [
        ["12 Main St", "3 Oak Ave"],
        ["5 May", "3 June"],
        ["12A", "13B"],
        ["120/80", "110/70"],
        ["1st", "2nd", "3rd"],
    ],
)
def test_what_is_no_unit_is_no_number_and_no_warning(tmp_path: Path, words: list[str]) -> None:
    data = trained(table(tmp_path, size=[words[number % len(words)] for number in range(ROWS)]))
    assert [one.name for one in data.encoder.texts] == ["size"]
    assert not [guess for guess in data.guesses if "'size'" in guess.what and guess.costly]


def test_a_target_with_a_unit_is_predicted_in_it_and_stars_are_classes(tmp_path: Path) -> None:
    path = table(tmp_path)
    frame = pd.read_csv(path)
    frame["y"] = [f"{size:g} kg" for size in SIZES]
    frame.to_csv(path, index=False)
    data = trained(path)
    assert (data.spec.task, data.spec.target_unit) == ("regression", "kg")
    assert data.train.y.tolist() == pytest.approx(SIZES[data.places["train"]].tolist())
    frame["y"] = [f"{number % 3 + 1} stars" for number in range(ROWS)]
    frame.to_csv(path, index=False)
    assert trained(path).spec.classes == ("1 stars", "2 stars", "3 stars")
