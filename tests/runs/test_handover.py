"""What a run hands on has the same names every time, and can be evaluated without a tracking store."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from pipeline.errors import UserError
from pipeline.evaluation import evaluate
from pipeline.runs.handover import deliver, read_delivered
from pipeline.runs.result import RunResult

Command = Callable[..., DictConfig]


@pytest.fixture
def delivered(tmp_path: Path, finished: dict[str, RunResult], command: Command) -> Path:
    """What the finished MLP delivered."""
    cfg = command("+experiment=digits_mlp", "model.hidden_units=[32]", "trainer.max_epochs=3")
    deliver(finished["mlp"], cfg, tmp_path / "out")
    return tmp_path / "out"


def test_nothing_but_the_ids_differs_between_two_deliveries(
    delivered: Path,
    tmp_path: Path,
    finished: dict[str, RunResult],
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dataclasses import replace

    monkeypatch.setenv("DVC_EXP_NAME", "brave-owl")
    monkeypatch.setenv("DVC_STAGE", "train")
    cfg = command("+experiment=digits_mlp", "model.hidden_units=[32]", "trainer.max_epochs=3")
    cfg.paths.data_dir = str(tmp_path / "elsewhere")
    again = replace(finished["mlp"], run_id="another", seconds={"total": 9.0}, samples_per_second=1.0)
    deliver(again, cfg, tmp_path / "again")
    names = sorted(path.relative_to(delivered) for path in delivered.rglob("*") if path.is_file())
    assert [str(name) for name in names if len(name.parts) == 1] == [
        "config.yaml",
        "history.csv",
        "metrics.json",
        "run.json",
    ]
    differing = [
        str(name)
        for name in names
        if (delivered / name).read_bytes() != (tmp_path / "again" / name).read_bytes()
    ]
    assert differing == ["run.json"]
    run = json.loads((tmp_path / "again/run.json").read_text(encoding="utf-8"))
    assert (run["run_id"], run["dvc_experiment"], run["dvc_stage"]) == ("another", "brave-owl", "train")


def test_the_history_is_what_the_run_recorded(delivered: Path, finished: dict[str, RunResult]) -> None:
    with (delivered / "history.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["epoch"]), float(row["val/loss"])) for row in rows] == finished["mlp"].history[
        "val/loss"
    ]
    assert not [name for name in rows[0] if "samples_per_second" in name]


def test_a_delivered_run_is_evaluated_as_the_run_was_tested(
    delivered: Path, tmp_path: Path, finished: dict[str, RunResult], command: Command
) -> None:
    # Nothing but what was delivered is there: no store, no run directory.
    (delivered / "run.json").unlink()
    cfg = command(
        "task=evaluate", f"task.run_dir={delivered}", f"task.output={tmp_path}/evaluated", "logger=none"
    )
    result = evaluate.evaluate(cfg)
    expected = {k[5:]: v for k, v in finished["mlp"].metrics.items() if k.startswith("test/")}
    assert result["metrics"] == expected
    assert result["identical"]
    assert result["baseline"]["accuracy"] == finished["mlp"].baseline["test/accuracy"]
    metrics = json.loads((tmp_path / "evaluated/metrics.json").read_text(encoding="utf-8"))
    assert metrics["test/accuracy"] == expected["accuracy"]
    assert "run_id" not in json.dumps(metrics)
    with (tmp_path / "evaluated/predictions.csv").open(encoding="utf-8", newline="") as file:
        pairs = [(row["actual"], row["predicted"]) for row in csv.DictReader(file)]
    assert len(pairs) == 360
    assert sum(true == said for true, said in pairs) / 360 == expected["accuracy"]


def test_what_was_not_delivered_is_named(tmp_path: Path, command: Command, delivered: Path) -> None:
    with pytest.raises(UserError, match="lacks config"):
        read_delivered(tmp_path)
    with pytest.raises(UserError, match="got several"):
        evaluate.evaluate(command("task=evaluate", f"task.run_dir={delivered}", "task.run_id=x"))
    assert "paths" not in OmegaConf.load(delivered / "config.yaml")
