"""task=reproduce: identical, or where it differs and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from pipeline.errors import UserError
from pipeline.models.mlp import MLP
from pipeline.run_result import RunResult
from pipeline.tasks import reproduce as task
from pipeline.tasks.finished import FinishedRun, find_run

Command = Callable[..., DictConfig]


def test_a_run_trained_again_is_identical(
    tmp_path: Path, finished: dict[str, RunResult], command: Command
) -> None:
    found = task.reproduce(
        command(
            "task=reproduce",
            f"task.run_id={finished['mlp'].run_id}",
            f"task.output={tmp_path}",
            "logger=none",
        )
    )
    assert found.identical
    assert found.weights == {}
    assert found.compared >= 5
    assert task.in_words(found)[0].startswith("IDENTICAL")
    assert (tmp_path / "reproduction.json").exists()


def test_a_difference_is_located_and_explained(
    tmp_path: Path, finished: dict[str, RunResult], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(*arguments: object) -> FinishedRun:
        run = find_run(*arguments)  # type: ignore[arg-type]
        run.cfg.data.validation_fraction = 0.3
        run.cfg.trainer.max_epochs = 1
        return run

    monkeypatch.setattr(task, "find_run", changed)
    monkeypatch.setattr(task, "environment", lambda: {"torch": "0.1"})
    found = task.reproduce(
        command(
            "task=reproduce",
            f"task.run_id={finished['mlp'].run_id}",
            f"task.output={tmp_path}",
            "logger=none",
        )
    )
    assert not found.identical
    assert found.metrics["test/loss"][0] == finished["mlp"].metrics["test/loss"]
    assert found.weights is not None
    assert set(found.weights) >= {
        name for name, _ in MLP(_spec(finished), hidden_units=[32]).named_parameters()
    }
    assert {"data digest", "torch"} <= set(found.causes)
    assert "data digest" in "\n".join(task.in_words(found))


def _spec(finished: dict[str, RunResult]) -> dict[str, object]:
    from pipeline.models.saved import load

    return load(finished["mlp"].directory / "model").spec.to_dict()


def test_a_run_that_is_not_there_is_refused(command: Command, finished: dict[str, RunResult]) -> None:
    with pytest.raises(UserError, match="there is no run"):
        task.reproduce(command("task=reproduce", "task.run_id=nowhere"))
