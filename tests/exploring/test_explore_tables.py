"""task=explore for tables: what columns tell alone, leaks and drift, on tables whose answers are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from omegaconf import DictConfig
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from pipeline.data.tables.alone import computed_from, score_alone
from pipeline.data.tables.table import TableData
from pipeline.data.tables.values import Column
from pipeline.exploring.explore import explore
from pipeline.exploring.tables import holm
from pipeline.tasks import explore as task

Command = Callable[..., DictConfig]
RANDOM = np.random.default_rng(0)


def houses(n: int, moved: bool = False) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "size": RANDOM.normal(80 + 10 * moved, 20, n),
            "rooms": RANDOM.integers(1, 6, n),
            "city": RANDOM.choice(
                ["Bern", "Oslo", "Rome"], n, p=[0.3, 0.3, 0.4] if moved else [0.6, 0.3, 0.1]
            ),
            "colour": RANDOM.choice(["red", "white"], n),
            "heating": np.where(RANDOM.random(n) < 0.2, None, "gas"),
        }
    )
    frame["price"] = (
        3 * frame["size"] + 20 * frame.rooms + (frame.city == "Oslo") * 50 + RANDOM.normal(0, 20, n)
    )
    return frame


def trained(path: Path, target: str, **settings: Any) -> TableData:
    data = TableData(path=path, target=target, **settings)
    data.setup()
    return data


@pytest.mark.parametrize("classes", [0, 2, 3])
def test_a_single_columns_score_is_that_of_a_shallow_tree(classes: int) -> None:
    x = RANDOM.normal(size=3000)
    signal = np.sin(2 * x) + RANDOM.normal(0, 0.5, 3000)
    y = (
        np.digitize(signal, np.quantile(signal, np.arange(1, classes) / classes)).astype(float)
        if classes
        else signal
    )
    found = score_alone(Column("number", x), y, classes)
    fold = RANDOM.permutation(3000) % 4
    tree = DecisionTreeClassifier if classes else DecisionTreeRegressor
    guess = np.zeros(3000)
    for number in range(4):
        learner = tree(max_leaf_nodes=12, random_state=0).fit(x[fold != number, None], y[fold != number])
        guess[fold == number] = learner.predict(x[fold == number, None])
    expected = (guess == y).mean() if classes else 1 - ((guess - y) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert found == pytest.approx(expected, abs=0.03)
    noise = score_alone(Column("number", RANDOM.normal(size=3000)), y, classes)
    assert noise < (1 / classes + 0.04 if classes else 0.01)


def test_a_sum_is_recognised_and_nothing_else_is() -> None:
    a, b, c = RANDOM.normal(size=(3, 500))
    assert computed_from({"a": a, "b": b, "c": c}, a - 2 * c) == ["a", "c"]
    assert computed_from({"a": a, "b": b}, a * b) == []
    assert computed_from({"a": a, "b": b, "c": c}, a + c + RANDOM.normal(0, 0.02, 500)) == []


def test_holms_correction_is_that_of_the_textbook() -> None:
    # Sorted: 0.01 × 4, 0.02 × 3, 0.03 × 2 (not below the one before), 0.5.
    assert holm([0.02, 0.5, 0.01, 0.03]) == pytest.approx([0.06, 0.5, 0.04, 0.06])


def test_drift_is_found_where_it_is_and_leaks_are_named(tmp_path: Path) -> None:
    frame = houses(1500).assign(tax=lambda f: f.price * 0.01)
    frame.to_csv(tmp_path / "train.csv", index=False)
    houses(500, moved=True).assign(tax=lambda f: f.price * 0.01).to_csv(tmp_path / "test.csv", index=False)
    data = trained(tmp_path / "train.csv", "price", test_path=tmp_path / "test.csv")
    findings = explore(data)
    drifted = {row["column"]: row["drifted"] for row in findings.drift}
    assert drifted["size"] and drifted["city"] and not drifted["rooms"] and not drifted["colour"]
    assert findings.drift_auc is not None and findings.drift_auc > 0.65
    assert [row["column"] for row in findings.columns][:2] == ["tax", "size"]
    assert next(row for row in findings.columns if row["column"] == "heating")["missing"] == pytest.approx(
        0.2, abs=0.05
    )
    assert any(
        "'tax' alone predicts" in warning and "data.drop=[tax]" in warning for warning in findings.warnings
    )
    assert any("differ" in warning and "city" in warning for warning in findings.warnings)


def test_files_that_do_not_differ_are_not_said_to(tmp_path: Path) -> None:
    houses(1500).to_csv(tmp_path / "train.csv", index=False)
    houses(500).to_csv(tmp_path / "test.csv", index=False)
    findings = explore(trained(tmp_path / "train.csv", "price", test_path=tmp_path / "test.csv"))
    assert not any(row["drifted"] for row in findings.drift)
    assert findings.drift_auc == pytest.approx(0.5, abs=0.06)
    # A random split of one file cannot drift: nothing is tested.
    assert explore(trained(tmp_path / "train.csv", "price")).drift_auc is None


@pytest.mark.parametrize("target", ["price", "city"])
def test_the_report_shows_columns_by_target_and_the_terminal_the_strongest(
    target: str, tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    days = pd.date_range("2022-01-01", periods=400)
    houses(400).assign(day=days).to_csv(tmp_path / "train.csv", index=False)
    houses(200, moved=True).assign(day=days[:200]).to_csv(tmp_path / "test.csv", index=False)
    cfg = command(
        "task=explore", "data=csv", f"data.path={tmp_path}/train.csv", f"data.target={target}", "logger=none",
        f"data.test_path={tmp_path}/test.csv", f"paths.run_dir={tmp_path}/run",
    )  # fmt: skip
    task.run(cfg)
    out = capsys.readouterr().out
    strongest = {"price": "size", "city": "price"}[target]
    assert f"  {strongest}: 0." in out.split("alone, by")[1].splitlines()[1:4][0] or f"  {strongest}:" in out
    assert "test rows differ in" in out and "missing: heating" in out
    (page,) = tmp_path.rglob("explore.html")
    text = page.read_text()
    for words in (
        "What each column tells alone",
        "Training and test rows",
        "What was guessed",
        "data:image/png",
    ):
        assert words in text
    found = json.loads(next(tmp_path.rglob("findings.json")).read_text())
    assert found["columns"][0]["score"] >= found["columns"][-1]["score"] and found["guesses"]
    assert (page.parent / "by_target.png").stat().st_size > 10_000
