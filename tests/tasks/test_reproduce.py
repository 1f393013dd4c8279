"""task=reproduce: identical, or where it differs and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from pipeline.errors import UserError
from pipeline.models.mlp import MLP
from pipeline.runs.finished import FinishedRun, find_run, open_store
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.train import train
from pipeline.tasks import reproduce as task

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


def test_outside_a_repository_nothing_is_said_about_the_code(
    tmp_path: Path, finished: dict[str, RunResult], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "git_state", lambda: (None, False))
    typed = [f"task.run_id={finished['linear'].run_id}", f"task.output={tmp_path}", "logger=none"]
    found = task.reproduce(command("task=reproduce", *typed))
    assert found.identical
    (unknown,) = found.unknown
    assert unknown.startswith("code: no git commit is known of")
    assert f"unknown: {unknown}" in task.in_words(found)
    # Had it differed, it would not have been said that the code is the same.
    found.metrics["test/loss"] = (1.0, 2.0)
    assert "code" not in task.in_words(found)[-1]
    found.causes["hydra-lightning-pipeline"] = ("0.1.0", "0.2.0")
    assert "  hydra-lightning-pipeline: 0.1.0 → 0.2.0" in task.in_words(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["+experiment=help_lstm"],
        ["+experiment=boston_housing_mlp", "trainer.max_epochs=2", "data.folds=2"],
    ],
    ids=["characters", "folds"],
)
def test_other_kinds_of_runs_are_identical_too(
    overrides: list[str], tmp_path: Path, command: Command
) -> None:
    first = train(command(*overrides), Hooks(directory=tmp_path / "first"))
    assert first.run_id is not None
    found = task.reproduce(
        command("task=reproduce", f"task.run_id={first.run_id}", f"task.output={tmp_path}/second")
    )
    assert found.identical, task.in_words(found)
    assert not [entry for entry in found.unknown if "versions" in entry]
    # The repetition is a run of its own that the store took.
    store = open_store(command("task=reproduce", "task.run_id=x"))
    assert store.run(str(found.again)).name.endswith("-again")
    assert found.compared >= 2


def _spec(finished: dict[str, RunResult]) -> dict[str, object]:
    from pipeline.models.saved import load

    return load(finished["mlp"].directory / "model").spec.to_dict()


def test_a_run_that_is_not_there_is_refused(command: Command, finished: dict[str, RunResult]) -> None:
    with pytest.raises(UserError, match="there is no run"):
        task.reproduce(command("task=reproduce", "task.run_id=nowhere"))


def test_where_the_clock_may_have_ended_a_fit_it_is_said(
    tmp_path: Path, finished: dict[str, RunResult], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    found_there = task.find_run

    def limited(*given: Any) -> Any:
        run = found_there(*given)
        run.cfg.trainer.max_time, run.cfg.seed = "00:01:00:00", run.cfg.seed + 1
        return run

    monkeypatch.setattr(task, "find_run", limited)
    typed = [f"task.run_id={finished['linear'].run_id}", f"task.output={tmp_path}", "logger=none"]
    found = task.reproduce(command("task=reproduce", *typed))
    assert not found.identical
    assert [
        entry for entry in found.unknown if entry.startswith("time: trainer.max_time=00:01:00:00 ends a fit")
    ]
