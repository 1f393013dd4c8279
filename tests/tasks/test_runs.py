"""task=runs: which runs are listed, in which order, and what a condition selects."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from omegaconf import DictConfig
from rich.console import Console
from scipy import stats

from pipeline.errors import UserError
from pipeline.runs.conditions import Condition, conditions, looked_up
from pipeline.runs.finished import open_store
from pipeline.runs.listing import listed, row_of, wilson
from pipeline.runs.result import RunResult
from pipeline.tasks import runs as task
from pipeline.tracking.queries import RunRecord

Command = Callable[..., DictConfig]


def record(name: str, value: float, **settings: str) -> RunRecord:
    return RunRecord(
        run_id=name * 8,
        key="",
        name=name,
        experiment="x",
        status="FINISHED",
        params=settings,
        metrics={"best/val/accuracy": value, "val/accuracy": 0.0, "test/accuracy": value / 2},
        tags={"objective": "val/accuracy", "objective.mode": "max", "model": "CNN"},
        directory=None,
        config_path=None,
        samples={"validation": 100},
    )


def test_a_runs_value_is_that_of_its_best_epoch_with_the_interval_of_a_share() -> None:
    row = row_of(record("a", 0.9))
    assert (row.value, row.test) == (0.9, 0.45)
    expected = stats.binomtest(90, 100).proportion_ci(method="wilson")
    assert (row.low, row.high) == pytest.approx((expected.low, expected.high))
    assert wilson(0.0, 10)[0] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("val/accuracy > 0.9", True),
        ("val/accuracy >= 0.95 and model = cnn", True),
        ("accuracy > 0.9", False),
        ("model != CNN", False),
        ("hidden_units = [256,128]", True),
        ("hidden_units ~ 256", True),
        ("lr < 1e-2", True),
        ("lr = 0.0010", True),
        ("momentum > 0", False),
        ("state = finished AND val/accuracy <= 1", True),
    ],
)
def test_a_condition_asks_for_metrics_and_settings(text: str, holds: bool) -> None:
    settings = {"model.hidden_units": "[256, 128]", "optimizer.lr": "0.001"}
    facts = row_of(record("a", 0.95, **settings)).facts()
    assert all(one.holds(looked_up(one.key, facts)) for one in conditions(text)) is holds


@pytest.mark.parametrize("text", ["accuracy", "a > b", "a = 1 or b = 2", "> 3"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"task\.where: "):
        conditions(text)
    assert conditions(None) == [] and conditions("a=1") == [Condition("a", "=", "1")]


def test_runs_are_listed_best_first_with_what_tells_them_apart(
    command: Command, finished: dict[str, RunResult], capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(command("task=runs"))
    rows = [row for row in listed(store) if row.run_id in {run.run_id for run in finished.values()}]
    values = [row.value for row in rows if row.value is not None]
    assert len(values) == len(finished) and values == sorted(values, reverse=True)
    best = finished["mlp"]
    (row,) = listed(store, where=f"model = {best.model['class']}", experiment=best.experiment)[:1]
    assert row.value == pytest.approx(best.metrics["val/accuracy"])
    assert row.test == pytest.approx(best.metrics["test/accuracy"])
    assert row.seconds > 0 and row.state == "finished"
    with pytest.raises(UserError, match=r"no run has hiden_units.*hidden_units"):
        listed(store, where="hiden_units = 3")
    # The beginning of an id, as the table shows it, names the run.
    assert store.run(row.run_id[:8]).run_id == row.run_id
    task.run(command("task=runs", "task.json=true"))
    shown = json.loads(capsys.readouterr().out)
    assert {best.run_id} <= {one["run_id"] for one in shown}
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    task.show(rows, 1, console)
    text = console.export_text()
    assert "val/accuracy" in text and f"{len(rows) - 1} more: task.limit={len(rows)}" in text
