"""How long a fit is where nobody said so, and how it ended."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.config.loading import compose
from pipeline.errors import UserError
from pipeline.runs.finished import data_of
from pipeline.runs.hooks import Hooks
from pipeline.runs.length import how_it_ended, long_enough, steps_that_suit
from pipeline.runs.plan import plan_of
from pipeline.runs.result import RunResult
from pipeline.runs.train import train


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    drawn = np.random.default_rng(0)
    x = drawn.normal(size=(400, 2))
    path = tmp_path_factory.mktemp("table") / "t.csv"
    pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": x[:, 0] * x[:, 1]}).to_csv(path, index=False)
    return path


def words(table: Path, *more: str) -> list[str]:
    return ["data=csv", f"data.path={table}", "data.target=y", "trainer=cpu", "logger=none", *more]


def test_steps_grow_with_the_square_root_of_the_rows() -> None:
    assert [steps_that_suit(rows) for rows in (10, 1000, 4000, 100_000)] == [2500, 2500, 5000, 25000]


def test_auto_is_a_number_of_epochs_with_early_stopping(table: Path) -> None:
    cfg = compose(words(table, "data.batch_size=29"))
    asked, data = plan_of(cfg), data_of(cfg)
    plan, notes = long_enough(asked, data)
    # 289 training rows are 10 batches: 2,500 steps are 250 epochs.
    assert (plan.fit.trainer["max_epochs"], notes) == (250, [])
    assert plan.fit.callbacks["early_stopping"]["patience"] == 88
    # A patience that was typed stays, and a fit without validation data has none.
    patient = plan_of(compose(words(table, "data.batch_size=29", "callbacks.early_stopping.patience=3")))
    assert long_enough(patient, data)[0].fit.callbacks["early_stopping"]["patience"] == 3
    blind = plan_of(compose(words(table, "data.batch_size=29", "checkpoint.monitor=null")))
    assert long_enough(blind, data)[0].fit.callbacks["early_stopping"]["patience"] is None


def test_a_fit_that_stopped_improving_says_so(table: Path, tmp_path: Path) -> None:
    cfg = compose(words(table, "model=mlp", "callbacks.early_stopping.patience=2", "optimizer.lr=0.01"))
    result = train(cfg, Hooks(directory=tmp_path / "run"))
    epochs = len(result.history["val/mae"])
    steps = data_of(cfg).train.batches(int(cfg.data.batch_size))
    assert epochs == result.best_epoch + 2 < 300
    assert (
        f"stopped improving after {result.best_epoch * steps:,} steps (epoch {result.best_epoch} of {epochs})"
        in (result.notes)
    )


@pytest.mark.parametrize(
    ("best", "trained", "scheduler", "said"),
    [
        (50, 50, None, "still improving after 500 steps: trainer.max_epochs=100 lets it go on"),
        (50, 50, {"_target_": "x"}, "trained to the end of its schedule: 500 steps (50 epochs)"),
        (20, 38, None, "stopped improving after 200 steps (epoch 20 of 38)"),
        (30, 31, None, "its time ran out after 310 steps (epoch 31 of 50)"),
    ],
)
def test_how_a_fit_ended_in_words(
    table: Path, tmp_path: Path, best: int, trained: int, scheduler: object, said: str
) -> None:
    from dataclasses import replace

    cfg = compose(words(table, "model=mlp", "data.batch_size=29"))
    asked, data = plan_of(cfg), data_of(cfg)
    fit = replace(
        asked.fit,
        trainer={**asked.fit.trainer, "max_epochs": 50},
        callbacks={"early_stopping": {"patience": 18}},
        scheduler=scheduler,
    )
    points = {"val/mae": [(epoch, 1.0) for epoch in range(1, trained + 1)]}
    result = RunResult(tmp_path, "", "", {}, {}, {}, {}, {}, 0.0, 0, "", best_epoch=best, history=points)
    assert how_it_ended(asked, replace(asked, fit=fit), data, result) == [said]
    # A length that was given is not spoken of.
    assert how_it_ended(replace(asked, fit=fit), replace(asked, fit=fit), data, result) == []


def test_data_of_unknown_size_needs_a_number(table: Path) -> None:
    class Unknown:
        name, used, requested, batch_size, train = "mine", "mine", "mine", 8, object()

    plan = plan_of(compose(words(table)))
    with pytest.raises(UserError, match=r"trainer\.max_epochs=auto: how many samples mine has is not known"):
        long_enough(plan, Unknown())  # type: ignore[arg-type]
