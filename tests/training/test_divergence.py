"""Losses that are no numbers: noticed in time, and the last good state is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from pipeline.config.loading import compose
from pipeline.errors import Diverged
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.train import train
from pipeline.training import fit as fit_room
from pipeline.training.checkpoints import load_checkpoint
from pipeline.training.divergence import EVERY, LossWatch
from pipeline.training.module import TrainingModule

FaultRecorder = Any

SMALL = [
    *("experiment=digits_mlp", "logger=none", "callbacks.progress=null", "trainer=cpu", "optimizer=sgd"),
    *("model.hidden_units=[16]", "model.batch_norm=false", "data.batch_size=16", "optimizer.lr=0.01"),
]


def run(directory: Path, *words: str) -> RunResult:
    return train(compose([*SMALL, *words]), Hooks(directory=directory, reports=False, baseline=False))


class Spoil(pl.Callback):
    """Makes a weight NaN (or the loss, by it) after a step, for as long as the rate is too high."""

    def __init__(self, step: int, above: float = 0.0) -> None:
        self.step, self.above, self.rates = step, above, []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        if trainer.global_step >= self.step and rate > self.above:
            self.rates.append(rate)
            with torch.no_grad():
                next(pl_module.parameters()).fill_(torch.nan)


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Any:
    original = fit_room._callbacks

    def at(step: int, above: float = 0.0) -> Spoil:
        callback = Spoil(step, above)
        monkeypatch.setattr(fit_room, "_callbacks", lambda *a: [callback, *original(*a)])
        return callback

    return at


def good(directory: Path) -> dict[str, Any]:
    checkpoint = load_checkpoint(directory / "checkpoints/last.ckpt")
    assert all(tensor.isfinite().all() for tensor in checkpoint["state_dict"].values())
    return checkpoint


@pytest.mark.faults
@pytest.mark.parametrize("steps_per_call", [1, 4])
def test_the_step_is_named_and_the_last_good_checkpoint_stays(
    tmp_path: Path, spoil: Any, steps_per_call: int, record_fault: FaultRecorder
) -> None:
    spoil(step=20)
    words = ["checkpoint.every_n_steps=8", f"trainer.steps_per_call={steps_per_call}"]
    with pytest.raises(
        Diverged, match=r"loss became nan at step 21 \(epoch 1, learning rate 0.01; last finite"
    ):
        run(tmp_path, *words)
    assert good(tmp_path)["global_step"] == 16
    record_fault("loss became NaN: last good checkpoint", 1, 1, 0)


def test_spoilt_weights_never_replace_a_good_checkpoint(tmp_path: Path, spoil: Any) -> None:
    # A checkpoint is due right after the step, before any loss tells.
    spoil(step=24)
    with pytest.raises(Diverged, match="weights became NaN or infinite at step 24"):
        run(tmp_path, "checkpoint.every_n_steps=8", "trainer.steps_per_call=1")
    assert good(tmp_path)["global_step"] == 16


@pytest.mark.parametrize("every", ["checkpoint.every_n_steps=8", "checkpoint.every_n_steps=40"])
def test_the_rate_is_halved_until_it_is_low_enough(tmp_path: Path, spoil: Any, every: str) -> None:
    words = [every, "trainer.steps_per_call=1", "trainer.on_divergence=lower_lr", "trainer.max_epochs=1"]
    callback = spoil(step=43, above=0.002)
    result = run(tmp_path, *words)
    assert callback.rates == pytest.approx([0.01, 0.005, 0.0025])
    assert result.history["train/lr"] == [(1, pytest.approx(0.00125))]
    good(tmp_path)


def test_the_rate_is_halved_three_times_at_most(tmp_path: Path, spoil: Any) -> None:
    callback = spoil(step=43)
    words = ["checkpoint.every_n_steps=8", "trainer.steps_per_call=1", "trainer.on_divergence=lower_lr"]
    with pytest.raises(Diverged, match="halved 3 times"):
        run(tmp_path, *words)
    assert callback.rates == pytest.approx([0.01, 0.005, 0.0025, 0.00125])
    good(tmp_path)


@pytest.mark.parametrize("bad", [1, EVERY, EVERY + 1, 3 * EVERY - 1])
def test_on_a_device_a_bad_loss_is_noticed_within_fifty_steps(bad: int) -> None:
    watch = LossWatch()
    with pytest.raises(Diverged, match=rf"became inf at step {bad} \(epoch 2, learning rate 0.1;") as error:
        for step in range(1, 500):
            seen = step
            watch.add(torch.tensor(torch.inf if step == bad else step / 8), step, 2, 0.1)
    assert seen - bad <= 50
    last = "none" if bad == 1 else f"{(bad - 1) / 8:.6g}"
    assert f"last finite loss {last})" in str(error.value)


def test_on_a_device_a_checkpoint_waits_for_the_losses_before_it(
    tmp_path: Path, spoil: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = TrainingModule.on_train_start

    def as_on_a_device(self: TrainingModule) -> None:
        start(self)
        assert self.machine is not None
        self.machine.on_host = False

    monkeypatch.setattr(TrainingModule, "on_train_start", as_on_a_device)
    spoil(step=20)
    with pytest.raises(Diverged, match="loss became nan at step 21"):
        run(tmp_path, "checkpoint.every_n_steps=8", "trainer.steps_per_call=1")
    assert good(tmp_path)["global_step"] == 16
    with pytest.raises(Diverged, match="loss became nan at step 21"):
        run(tmp_path / "seldom", "trainer.steps_per_call=1")
