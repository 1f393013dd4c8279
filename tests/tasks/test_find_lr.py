"""task=find_lr: the suggested rate learns, and the range test reads what a fit would read."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig

from pipeline.errors import UserError
from pipeline.runs import find_lr as task

Command = Callable[..., DictConfig]


def test_the_suggestion_is_where_the_loss_falls_fastest() -> None:
    rates = np.geomspace(1e-6, 1, 200)
    # Falls as a logistic curve around 1e-3, rises steeply beyond 1e-1.
    losses = 1 + 1 / (1 + (rates / 1e-3) ** 2) + (rates / 0.3) ** 4
    found = task.suggest(rates.tolist(), losses.tolist())
    assert found is not None
    assert 5e-4 < found < 2e-3


def test_a_loss_that_never_falls_gets_no_suggestion() -> None:
    rates = np.geomspace(1e-6, 1, 50).tolist()
    assert task.suggest(rates, [2.0] * 50) is None
    assert task.suggest(rates, np.linspace(1, 9, 50).tolist()) is None
    assert task.suggest([0.1], [1.0]) is None


@pytest.mark.drawn
def test_a_range_test_of_an_experiment(tmp_path: Path, command: Command) -> None:
    small = ["task.steps=80", "optimizer=sgd", "trainer.accelerator=cpu"]
    cfg = command("task=find_lr", "+experiment=digits_linear", *small)
    result = task.find_lr(cfg)
    assert result.rates == pytest.approx(np.geomspace(1e-7, 10, 80)[: len(result.rates)].tolist())
    assert result.losses[0] == pytest.approx(math.log(10), rel=0.5)
    assert result.suggestion is not None
    assert 1e-4 < result.suggestion < 1
    assert task.find_lr(cfg).losses == result.losses
    assert task.draw(result, tmp_path / "plot.png").stat().st_size > 1000


def test_an_empty_range_is_refused(command: Command) -> None:
    with pytest.raises(UserError, match="expected less than"):
        command("task=find_lr", "+experiment=digits_linear", "task.min_lr=1", "task.max_lr=0.1")
