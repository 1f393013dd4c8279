"""Callbacks that show what a character model writes while it learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.config.loading import compose
from pipeline.models.objective import Objective
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.train import train

SMALL = [
    "data.characters=3000",
    "trainer.max_steps=40",
    "model.hidden_units=8",
    "logger=none",
    "callbacks.progress=null",
]


def run(directory: Path, *overrides: str) -> RunResult:
    path = directory / "text.txt"
    path.write_text("Gregor opened the door, and then the door was shut again. " * 60, encoding="utf-8")
    cfg = compose(["+experiment=kafka_char_rnn", *SMALL, f"data.path={path}", *overrides])
    return train(cfg, Hooks(directory=directory / "run", reports=False))


def test_samples_are_written_every_so_often_and_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, "callbacks.samples.every_n_steps=16", "callbacks.samples.length=20")
    text = (tmp_path / "run" / "written.txt").read_text(encoding="utf-8")
    heads = [line for line in text.splitlines() if line.startswith("--- step")]
    assert heads == ["--- step 0 ---", "--- step 16 ---", "--- step 32 ---", "--- step 40 ---"]
    assert text.strip() in capsys.readouterr().err.replace("---\n\n", "---\n").replace("\n\n---", "\n---")


def test_writing_samples_does_not_change_what_is_learnt(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with_samples = run(tmp_path / "a", "callbacks.samples.every_n_steps=16", "model.dropout=0.5")
    without = run(tmp_path / "b", "callbacks.samples=null", "model.dropout=0.5")
    assert with_samples.history["train/loss"] == without.history["train/loss"]


def test_the_smoothed_loss_is_the_exponential_mean_of_the_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[float] = []
    original = Objective.loss

    def listen(self: Objective, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss = original(self, logits, y)
        losses.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(Objective, "loss", listen)
    one_by_one = run(
        tmp_path, "callbacks.smoothed_loss.factor=0.9", "callbacks.samples=null", "trainer.steps_per_call=1"
    )
    smooth = losses[0]
    for loss in losses[1:]:
        smooth = 0.9 * smooth + 0.1 * loss
    assert len(losses) == 40
    assert one_by_one.history["train/smooth_loss"][-1][1] == pytest.approx(smooth)
