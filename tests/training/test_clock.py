"""A schedule of the learning rate ends with the time where that is over before the steps are made."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import timer
from torch.optim.lr_scheduler import OneCycleLR

from pipeline.config.loading import compose
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.train import train
from pipeline.training import fit as fit_room

PER_EPOCH, EPOCHS, RATE = 10, 20, 0.1
PLANNED = PER_EPOCH * EPOCHS


class Cut(Exception):
    pass


class Ticks(pl.Callback):
    """A clock that each training step moves on by so many seconds; notes the rate of each, and may cut the fit off."""

    def __init__(self, seconds: float, cut: int | None = None) -> None:
        self.now, self.seconds, self.cut = 1000.0, seconds, cut
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.cut:
            raise Cut
        self.now += self.seconds
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


Ticking = Callable[..., Ticks]


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> Ticking:
    """The next fits have a clock of the test's own, by which Lightning's limit in time goes too."""
    original = fit_room._callbacks

    def begin(seconds: float, cut: int | None = None) -> Ticks:
        ticks = Ticks(seconds, cut)
        monkeypatch.setattr(timer, "time", SimpleNamespace(monotonic=lambda: ticks.now))
        monkeypatch.setattr(fit_room, "_callbacks", lambda *given: [*original(*given), ticks])
        return ticks

    return begin


def run(directory: Path, *words: str) -> RunResult:
    cfg = compose(
        [
            *("experiment=digits_mlp", "model.hidden_units=[4]", "optimizer=sgd", f"optimizer.lr={RATE}"),
            *("trainer=cpu", f"trainer.limit_train_batches={PER_EPOCH}", f"trainer.max_epochs={EPOCHS}"),
            *("logger=none", "callbacks.progress=null", "checkpoint.every_seconds=0", "test=false"),
            f"paths.experiments_dir={directory.parent}",
            *words,
        ]
    )
    return train(cfg, Hooks(directory=directory, reports=False, baseline=False))


def followed(result: RunResult) -> list[str]:
    return [note for note in result.notes if "followed the clock" in note]


def warmed_cosine(part: float, moves: int = PLANNED) -> float:
    """The rate of warmup_cosine at a part of the way, computed another way."""
    move, rising = int(part * moves + 1e-9), round(0.1 * moves)
    if move < rising:
        return RATE * (move + 1) / (rising + 1)
    return RATE * math.cos(math.pi / 2 * (move - rising) / (moves - rising)) ** 2


def test_the_schedule_ends_at_its_floor_when_the_time_is_over(tmp_path: Path, ticking: Ticking) -> None:
    # 100 seconds, two a step: time for 50 of 200 steps.
    ticks = ticking(2.0)
    result = run(tmp_path / "run", "scheduler=warmup_cosine", "trainer.max_time=00:00:01:40")
    assert len(ticks.rates) == 50
    assert ticks.rates == pytest.approx([warmed_cosine(step / 50) for step in range(50)], rel=1e-9)
    assert ticks.rates[-1] < 0.005 * RATE
    (note,) = followed(result)
    assert note.startswith("from step 1 on")
    assert len(result.history["val/loss"]) == 5


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        # It moves at every step, as soon as the clock is ahead of the epochs.
        (["scheduler=cosine"], lambda part: RATE * math.cos(math.pi / 2 * int(part * EPOCHS + 1e-9) / EPOCHS) ** 2),
        # Nobody said how many epochs: the time alone.
        (["scheduler=warmup_cosine", "trainer.max_epochs=-1"], lambda part: warmed_cosine(part, 1000)),
        (["scheduler=cosine", "trainer.max_epochs=-1"], lambda part: RATE * math.cos(math.pi / 2 * part) ** 2),
    ],
)  # fmt: skip
def test_other_schedules_end_with_the_time_too(
    tmp_path: Path, ticking: Ticking, words: list[str], expected: Callable[[float], float]
) -> None:
    ticks = ticking(4.0)
    run(tmp_path / "run", *words, "trainer.max_time=00:00:01:40")
    assert ticks.rates == pytest.approx([expected(step / 25) for step in range(25)], rel=1e-9, abs=1e-12)


def test_one_cycle_makes_all_its_moves_and_no_more(tmp_path: Path, ticking: Ticking) -> None:
    ticks = ticking(3.0)
    run(tmp_path / "run", "scheduler=one_cycle", "trainer.max_time=00:00:01:30")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
    schedule, rates = OneCycleLR(optimizer, RATE, total_steps=PLANNED), []
    for _ in range(PLANNED):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert ticks.rates == pytest.approx([rates[int(step * PLANNED / 30 + 1e-9)] for step in range(30)])


def test_with_time_enough_it_is_the_run_without_a_limit(tmp_path: Path, ticking: Ticking) -> None:
    weights = {}
    for name, words in {"free": [], "limited": ["trainer.max_time=00:00:01:40"]}.items():
        # A second a step, 30 steps: the clock is behind throughout.
        ticking(1.0)
        result = run(tmp_path / name, "scheduler=warmup_cosine", "trainer.max_epochs=3", *words)
        assert not followed(result)
        last = torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)
        weights[name] = last["state_dict"]
    assert all(torch.equal(weights["limited"][key], value) for key, value in weights["free"].items())


def test_a_length_that_was_given_and_a_constant_rate_know_no_time(tmp_path: Path, ticking: Ticking) -> None:
    for words in (["scheduler=warmup_cosine", "scheduler.total_steps=200"], ["scheduler=none"]):
        ticks = ticking(10.0)
        result = run(tmp_path / words[-1], *words, "trainer.max_time=00:00:01:40")
        constant = words == ["scheduler=none"]
        expected = [RATE if constant else warmed_cosine(step / PLANNED) for step in range(10)]
        assert ticks.rates == pytest.approx(expected)
        assert not followed(result)


def test_a_resumed_run_goes_on_with_the_time_that_was_spent(tmp_path: Path, ticking: Ticking) -> None:
    words = ["scheduler=warmup_cosine", "trainer.max_time=00:00:01:40"]
    ticking(2.0, cut=20)
    with pytest.raises(Cut):
        run(tmp_path / "run", *words)
    # Forty seconds were spent; what happened in between does not count, and the rest goes half as fast.
    ticks = ticking(4.0)
    result = run(tmp_path / "run", *words, "resume=auto")
    assert ticks.rates == pytest.approx([warmed_cosine((40 + 4 * step) / 100) for step in range(15)])
    (note,) = followed(result)
    assert note.startswith("from step 1 on")
