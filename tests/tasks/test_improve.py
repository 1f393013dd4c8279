"""task=improve: the ladder ends where it should, and the test split is read at its end alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig

from pipeline.data.images import Images
from pipeline.data.splits import Batch, Rows
from pipeline.reports.ladder import conclusion, in_words
from pipeline.run_result import RunResult
from pipeline.tasks import improve as task
from pipeline.tasks.finished import data_of, find_run, load_predictor, open_store
from pipeline.tasks.outputs import loader_of, outputs_on
from pipeline.tasks.registering import alias_of
from pipeline.training import building

Command = Callable[..., DictConfig]
SMALL = ["logger=none", "callbacks=none", "trainer.accelerator=cpu"]


def test_data_without_signal_ends_with_keep_the_baseline(tmp_path: Path, command: Command) -> None:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(generator.normal(size=(500, 3)), columns=["a", "b", "c"])
    frame["answer"] = np.where(generator.random(500) < 0.6, "yes", "no")
    frame.to_csv(tmp_path / "noise.csv", index=False)
    typed = [f"data.path={tmp_path}/noise.csv", "data.target=answer", "trainer.max_epochs=2", *SMALL]
    cfg = command(
        "task=improve", "+ladder=default", "ladder.sweep=null", f"task.output={tmp_path}/out", "logger=none"
    )
    climb = task.improve(cfg, ["data=csv", *typed])
    assert climb.chosen.name == "baseline"
    assert conclusion(climb).startswith("Keep the baseline")
    assert climb.final == []
    assert "Nothing was registered" in "\n".join(in_words(climb))
    assert "Keep the baseline" in (tmp_path / "out" / "ladder.html").read_text()


def test_the_test_split_is_read_in_the_last_step_alone(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    class Watched(Rows):
        def take(self, rows: torch.Tensor) -> Batch:
            events.append("the test split is read")
            return super().take(rows)

    plain_setup, plain_read = Images.setup, task._read_test

    def setup(self: Images, stage: str | None = None) -> None:
        plain_setup(self, stage)
        assert self.test is not None
        self.test = Watched(self.test.x, self.test.y)

    def read_test(*arguments: Any) -> Any:
        events.append("the choice is final")
        return plain_read(*arguments)

    monkeypatch.setattr(building, "_prepared", {})
    monkeypatch.setattr(Images, "setup", setup)
    monkeypatch.setattr(task, "_read_test", read_test)
    settings = ["ladder.sweep=null", "task.seeds=[3]", f"task.output={tmp_path}", "logger=none"]
    climb = task.improve(
        command("task=improve", "+ladder=digits", *settings), ["trainer.max_epochs=1", *SMALL]
    )
    assert events[0] == "the choice is final"
    assert set(events[1:]) == {"the test split is read"}
    assert [rung.name for rung in climb.rungs] == ["baseline", "linear", "small", "overfitting", "tuned"]
    assert all(rung.test is not None and 0 <= rung.test.value <= 1 for rung in [*climb.rungs, *climb.final])
    best = max(climb.rungs, key=lambda rung: rung.validation)
    assert climb.chosen is best
    # The common answer is right on a tenth of ten equally frequent digits.
    assert climb.rungs[0].validation == pytest.approx(0.1, abs=0.03)
    assert climb.final[0].result is not None
    assert climb.final[0].result.data["train"] == 1437


def test_only_a_significantly_better_model_becomes_champion(
    finished: dict[str, RunResult], command: Command
) -> None:
    cfg = command("task=improve", "+ladder=digits")
    store = open_store(cfg)
    versions = {name: store.register(str(run.run_id), "ladder-test") for name, run in finished.items()}
    for champion, newcomer, expected in (("linear", "mlp", "champion"), ("mlp", "linear", "challenger")):
        run = find_run(store, str(finished[newcomer].run_id), cfg)
        data = data_of(run.cfg)
        assert data.test is not None
        model = load_predictor(store, run.record.run_id).module
        outputs = outputs_on(model, loader_of(data, data.test), run.cfg)
        store.set_alias("ladder-test", "champion", versions[champion].version)
        alias, why = alias_of(store, versions[newcomer], outputs, cfg)
        assert alias == expected, why
