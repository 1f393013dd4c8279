"""Checkpoints: whole or not at all, loadable without pickle, the best epoch brought back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config.loading import compose
from pipeline.data.core.spec import Spec
from pipeline.errors import UserError
from pipeline.models.linear import Linear
from pipeline.models.mlp import MLP
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.train import train
from pipeline.training.checkpoints import AtomicCheckpointIO, load_checkpoint
from pipeline.training.evaluating import outputs_of
from pipeline.training.module import TrainingModule

SMALL = [
    "experiment=digits_mlp",
    "logger=none",
    "callbacks.progress=null",
    "trainer=cpu",
    "model.hidden_units=[16]",
]


def run(directory: Path, *overrides: str) -> RunResult:
    hooks = Hooks(directory=directory, reports=False, baseline=False)
    return train(compose([*SMALL, "trainer.max_epochs=3", *overrides]), hooks)


def model_of(path: Path) -> MLP:
    """The model that a checkpoint holds, built from its hyperparameters."""
    state = load_checkpoint(path)
    model = MLP(**state["hyper_parameters"])
    model.load_state_dict(state["state_dict"])
    return model


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return run(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("name", ["best", "last"])
def test_checkpoints_load_without_pickle_and_build_their_model(finished: RunResult, name: str) -> None:
    path = finished.directory / f"checkpoints/{name}.ckpt"
    state = torch.load(path, weights_only=True)
    module = model_of(path)
    assert module.spec.classes == tuple("0123456789")
    for key, tensor in state["state_dict"].items():
        assert torch.equal(module.state_dict()[key], tensor)
    assert state["pytorch-lightning_version"]


@pytest.mark.parametrize("end", ["trainer.max_epochs=4", "trainer.max_steps=3", "trainer.max_steps=30"])
@pytest.mark.parametrize("batch_size", [100, 2000])
def test_where_nothing_is_held_out_the_last_epoch_is_the_best(
    tmp_path: Path, end: str, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing is written between the first epoch and the end of the fit.
    waiting = "checkpoint.every_seconds=1000"
    # The clock counts from where the machine started, which may be just now.
    clock, start = time.monotonic, time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: clock() - start)
    run(tmp_path, "data.validation_fraction=0.0", waiting, f"data.batch_size={batch_size}", end)
    best, last = (load_checkpoint(tmp_path / f"checkpoints/{name}.ckpt") for name in ("best", "last"))
    assert (best["epoch"], best["global_step"]) == (last["epoch"], last["global_step"])
    for name, tensor in last["state_dict"].items():
        assert torch.equal(best["state_dict"][name], tensor), name


def test_an_epoch_without_validation_has_no_validation_metrics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "trainer.check_val_every_n_epoch=2",
        "trainer.max_epochs=5",
        "callbacks.progress={refresh_seconds: 1e-9}",
    ]
    result = run(tmp_path, *words)
    assert [epoch for epoch, _ in result.history["train/loss"]] == [1, 2, 3, 4, 5]
    assert [epoch for epoch, _ in result.history["val/loss"]] == [2, 4]
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch ")]
    assert ["val/loss" in line for line in lines] == [False, True, False, True, False]


def test_a_validation_between_two_steps_leaves_accumulated_gradients(tmp_path: Path) -> None:
    # 13 batches an epoch: the validation in the middle comes after the sixth, with two waiting for their step.
    words = ["data.batch_size=100", "trainer.accumulate_grad_batches=4", "trainer.steps_per_call=1"]
    often = run(tmp_path / "often", *words, "+trainer.val_check_interval=0.5")
    once = run(tmp_path / "once", *words)
    assert often.history["train/loss"] == once.history["train/loss"]


def test_a_plateau_is_looked_for_in_validated_epochs_only(tmp_path: Path) -> None:
    # A loss that falls is never as large as the first one was: the rate falls after each validation but the first.
    words = ["scheduler=plateau", "scheduler.patience=0", "scheduler.mode=max"]
    seldom = run(tmp_path, *words, "trainer.check_val_every_n_epoch=2", "trainer.max_epochs=6")
    rates = [rate for _, rate in seldom.history["train/lr"]]
    assert rates[0] == rates[3] > rates[4] == rates[5]


def test_the_weights_of_the_best_epoch_are_tested(tmp_path: Path) -> None:
    # The rate explodes after the first epoch: later weights are worse.
    worse = ["scheduler=step", "scheduler.step_size=1", "scheduler.gamma=1000"]
    result = run(tmp_path, *worse, "model.batch_norm=true")
    accuracy = [value for _, value in result.history["val/accuracy"]]
    assert result.best_epoch == 1 + accuracy.index(max(accuracy)) < 3
    assert result.metrics["val/accuracy"] == max(accuracy)
    best, last = (load_checkpoint(tmp_path / f"checkpoints/{name}.ckpt") for name in ("best", "last"))
    assert best["epoch"] + 1 == result.best_epoch
    assert best["monitor"]["value"] == pytest.approx(max(accuracy))
    assert not torch.equal(best["state_dict"]["output.weight"], last["state_dict"]["output.weight"])
    from pipeline.data.images.published import Images

    data = Images(name="digits", validation_fraction=0.15)
    data.setup()
    module = model_of(tmp_path / "checkpoints/best.ckpt").eval()
    assert data.test is not None
    x, y = data.test.take(torch.arange(len(data.test)))
    with torch.no_grad():
        right = int((module(x).argmax(1) == y).sum())
    assert result.metrics["test/accuracy"] == right / len(y)


def test_a_kill_while_writing_leaves_the_old_checkpoint_whole(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"w": torch.ones(3)}}, path)
    program = f"""
import os, signal, torch
from pathlib import Path
from pipeline.training.checkpoints import AtomicCheckpointIO
save = torch.save
def killed_half_way(checkpoint, file):
    save(checkpoint, file)
    file.flush()
    file.truncate(file.tell() // 2)
    os.kill(os.getpid(), signal.SIGKILL)
torch.save = killed_half_way
AtomicCheckpointIO().save_checkpoint({{"state_dict": {{"w": torch.zeros(3)}}}}, Path({str(path)!r}))
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    assert load_checkpoint(path)["state_dict"]["w"].tolist() == [1, 1, 1]


def test_a_full_disk_leaves_the_old_checkpoint_and_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"w": torch.ones(3)}}, path)

    def full(checkpoint: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        AtomicCheckpointIO().save_checkpoint({"state_dict": {}}, path)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_what_is_no_checkpoint_is_refused_with_a_reason(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"state_dict": Harmful()}, tmp_path / "harmful.ckpt")
    (tmp_path / "cut.ckpt").write_bytes((tmp_path / "harmful.ckpt").read_bytes()[:200])
    torch.save([1, 2], tmp_path / "list.ckpt")
    for name, reason in [
        ("harmful", "safely"),
        ("cut", "damaged"),
        ("list", "state_dict"),
        ("none", "no checkpoint"),
    ]:
        with pytest.raises(UserError, match=reason):
            load_checkpoint(tmp_path / f"{name}.ckpt")
    assert not (tmp_path / "ran").exists()


def test_ckpt_path_starts_from_given_weights(finished: RunResult, tmp_path: Path) -> None:
    best = finished.directory / "checkpoints/best.ckpt"
    tested = run(tmp_path / "tested", f"ckpt_path={best}", "train=false")
    assert tested.metrics["test/accuracy"] == finished.metrics["test/accuracy"]
    assert tested.history == {}
    further = run(tmp_path / "further", f"ckpt_path={best}", "trainer.max_epochs=1", "test=false")
    assert further.metrics["train/loss"] < finished.metrics["train/loss"]
    assert "test/accuracy" not in further.metrics
    with pytest.raises(UserError, match="do not fit this model"):
        run(tmp_path / "other", f"ckpt_path={best}", "model.hidden_units=[17]", "train=false")


def test_outputs_come_in_the_order_of_the_rows(finished: RunResult) -> None:
    import pytorch_lightning as pl

    from pipeline.data.images.published import Images

    data = Images(name="digits", validation_fraction=0.15, eval_batch_size=100)
    data.setup()
    module = model_of(finished.directory / "checkpoints/best.ckpt")
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    logits, targets = outputs_of(trainer, TrainingModule(module), data.test_dataloader())
    assert data.test is not None
    assert torch.equal(targets, data.test.y)
    assert logits.dtype == torch.float32
    assert Linear(Spec("binary", "vector", (2,), 1, ("a", "b"))).objective.threshold() == 0.0
