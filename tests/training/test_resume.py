"""A run that was cut off and taken up again is the same run: the same bits everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from pipeline.config.loading import compose
from pipeline.errors import UserError
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.state import find_resumable
from pipeline.runs.train import train
from pipeline.training import fit as fit_room

TIMELESS = ("train/samples_per_second",)


class Cut(Exception):
    """The power is gone."""


class CutAt(pl.Callback):
    """Raises in the middle of an epoch (after a batch) or at the end of one."""

    def __init__(self, step: int | None = None, epoch: int | None = None) -> None:
        self.step, self.epoch = step, epoch

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if self.step is not None and trainer.global_step >= self.step:
            raise Cut

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.epoch is not None and trainer.current_epoch == self.epoch:
            raise Cut


@pytest.fixture
def cut_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The next fits are cut off there; called without arguments, no more."""
    original = fit_room._callbacks

    def cut(**where: int) -> None:
        monkeypatch.setattr(
            fit_room, "_callbacks", lambda *a: [*original(*a), *([CutAt(**where)] if where else [])]
        )

    return cut


def settings(directory: Path, *overrides: str) -> Any:
    common = [
        "experiment=digits_mlp",
        "logger=none",
        "callbacks.progress=null",
        "trainer=cpu",
        "trainer.max_epochs=4",
        "data.batch_size=64",
        "model.hidden_units=[16]",
        "model.dropout=0.3",
        f"paths.experiments_dir={directory}",
    ]
    return compose([*common, *overrides])


def run(directory: Path, cfg: Any) -> RunResult:
    return train(cfg, Hooks(directory=directory, reports=False, baseline=False))


def assert_same(found: RunResult, expected: RunResult) -> None:
    for name, points in expected.history.items():
        if name not in TIMELESS:
            assert found.history[name] == points, name
    weights = [
        torch.load(r.directory / "checkpoints/last.ckpt", weights_only=True) for r in (found, expected)
    ]
    for name, tensor in weights[1]["state_dict"].items():
        assert torch.equal(weights[0]["state_dict"][name], tensor), name
    compared = {k: v for k, v in expected.metrics.items() if k not in TIMELESS}
    assert {k: v for k, v in found.metrics.items() if k not in TIMELESS} == compared
    assert found.best_epoch == expected.best_epoch


CASES = {
    "adam": [],
    "scheduler": ["scheduler=one_cycle", "optimizer=sgd", "optimizer.momentum=0.9", "optimizer.lr=0.1"],
    "mixed": [
        "data.augment=trivial",
        "data.mix=both",
        "data.label_smoothing=0.1",
        "scheduler=warmup_cosine",
    ],
    "plateau": [
        "scheduler=plateau",
        "scheduler.patience=0",
        "scheduler.mode=max",
        "trainer.steps_per_call=1",
    ],
    "accumulating": ["trainer.accumulate_grad_batches=4"],
    "nothing_held_out": ["data.validation_fraction=0.0"],
    "one_step_an_epoch": ["data.validation_fraction=0.0", "data.batch_size=2000", "trainer.max_epochs=8"],
    "max_steps": ["trainer.max_steps=50"],
    "averaged": ["trainer.ema=0.9"],
    "seldom_validated": ["trainer.check_val_every_n_epoch=2"],
    "validated_before_the_end": ["+trainer.val_check_interval=0.4", "trainer.steps_per_call=1"],
    "early_stopping": ["callbacks.early_stopping.patience=1", "optimizer.lr=0.00001", "trainer.max_epochs=6"],
}


@pytest.mark.parametrize(
    ("case", "where"),
    [
        *((case, {"step": 7}) for case in CASES),
        *(
            (case, {"epoch": 2})
            for case in (
                "scheduler",
                "mixed",
                "nothing_held_out",
                "one_step_an_epoch",
                "max_steps",
                "averaged",
            )
        ),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one(
    tmp_path: Path, case: str, where: dict[str, int], cut_at: Callable[..., None]
) -> None:
    every = "checkpoint.every_n_steps=3"
    overrides = [*CASES[case], every, "checkpoint.every_seconds=0"]
    whole = run(tmp_path / "whole", settings(tmp_path, *overrides))
    cut_at(**where)
    directory = tmp_path / "runs/cut"
    with pytest.raises(Cut):
        run(directory, settings(tmp_path, *overrides))
    cut_at()
    resumed = settings(tmp_path, *overrides, "resume=auto")
    assert find_resumable(resumed) == directory
    assert_same(run(directory, resumed), whole)
    # A finished run is not taken up: the same command starts a new one.
    assert find_resumable(resumed) is None


def test_a_finished_run_goes_on_for_more_epochs_as_if_it_had_known(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", settings(tmp_path))
    directory = tmp_path / "runs/short"
    run(directory, settings(tmp_path, "trainer.max_epochs=2"))
    longer = settings(tmp_path, "resume=short")
    assert find_resumable(longer) == directory
    found = run(directory, longer)
    assert_same(found, whole)
    assert any("went on after 2 epochs" in note for note in found.notes)
    with pytest.raises(UserError, match=r"after 4 epochs; .* trainer.max_epochs=8; .*ckpt_path="):
        find_resumable(settings(tmp_path, "resume=short"))


def test_a_schedule_that_was_laid_out_does_not_go_on(tmp_path: Path) -> None:
    cosine = "scheduler=cosine"
    run(tmp_path / "runs/short", settings(tmp_path, cosine, "trainer.max_epochs=2"))
    with pytest.raises(UserError, match=r"laid out for 2 epochs.*ckpt_path="):
        find_resumable(settings(tmp_path, cosine, "resume=short"))


def test_the_best_weights_survive_a_cut_before_they_were_due_on_disk(
    tmp_path: Path, cut_at: Callable[..., None]
) -> None:
    # Epochs so short that best.ckpt waits, and a rate that only makes later epochs worse.
    overrides = ["checkpoint.every_n_steps=3", "checkpoint.every_seconds=1000", "scheduler=step"]
    overrides += ["scheduler.step_size=1", "scheduler.gamma=1000", "optimizer.lr=0.02", "optimizer=sgd"]
    whole = run(tmp_path / "whole", settings(tmp_path, *overrides, "data.shuffle=false"))
    assert whole.best_epoch in (1, 2)
    cut_at(step=70)
    with pytest.raises(Cut):
        run(tmp_path / "runs/cut", settings(tmp_path, *overrides, "data.shuffle=false"))
    cut_at()
    assert_same(
        run(tmp_path / "runs/cut", settings(tmp_path, *overrides, "data.shuffle=false", "resume=auto")), whole
    )


def test_carried_state_goes_on_where_it_was(tmp_path: Path, cut_at: Callable[..., None]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Gregor opened the door, and then the door was shut again. " * 60, encoding="utf-8")
    words = ["experiment=kafka_char_lstm", f"data.path={text}", "data.characters=3000", "data.batch_size=4"]
    words += ["data.steps=20", "model.hidden_units=8", "trainer.max_epochs=3", "checkpoint.every_n_steps=4"]
    words += ["callbacks.samples=null", "callbacks.progress=null", "logger=none", "trainer=cpu"]
    words += [f"paths.experiments_dir={tmp_path}"]
    whole = run(tmp_path / "whole", compose(words))
    cut_at(step=42)
    with pytest.raises(Cut):
        run(tmp_path / "runs/cut", compose(words))
    cut_at()
    assert_same(run(tmp_path / "runs/cut", compose([*words, "resume=auto"])), whole)


@pytest.mark.parametrize("where", [{"step": 20}, {"step": 40}])
def test_folds_that_were_finished_are_not_trained_again(
    tmp_path: Path, cut_at: Callable[..., None], where: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["data.folds=2", "checkpoint.every_n_steps=3", "trainer.max_epochs=2"]
    whole = run(tmp_path / "whole", settings(tmp_path, *words))
    directory = tmp_path / "runs/cut"
    if where["step"] == 40:
        # The first fold is whole (36 steps), the second is cut off.
        done = []
        original = fit_room.run_fit

        def second_is_cut(*arguments: Any, **more: Any) -> None:
            if done:
                cut_at(step=20)
                arguments[0].trainer.callbacks.append(CutAt(step=20))
            done.append(1)
            original(*arguments, **more)

        monkeypatch.setattr(fit_room, "run_fit", second_is_cut)
    else:
        cut_at(**where)
    with pytest.raises(Cut):
        run(directory, settings(tmp_path, *words))
    monkeypatch.undo()
    cut_at()
    first = directory / "fold-0/result.json"
    before = first.stat().st_mtime_ns if first.exists() else None
    resumed = settings(tmp_path, *words, "resume=auto")
    assert find_resumable(resumed) == directory
    found = run(directory, resumed)
    assert {k: v for k, v in found.metrics.items() if "per_second" not in k} == {
        k: v for k, v in whole.metrics.items() if "per_second" not in k
    }
    for fold in ("fold-0", "fold-1"):
        kept, expected = (RunResult.read(place / fold) for place in (directory, tmp_path / "whole"))
        assert_same(kept, expected)
    if where["step"] == 40:
        assert first.stat().st_mtime_ns == before
    assert find_resumable(resumed) is None


def test_a_fit_that_had_stopped_early_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["callbacks.early_stopping.patience=0", "trainer.max_epochs=30", "checkpoint.every_seconds=0"]
    whole = run(tmp_path / "whole", settings(tmp_path, *words))
    assert len(whole.history["val/loss"]) < 30
    from pipeline.runs import train as task

    def cut(*_: Any) -> None:
        raise Cut

    # The fit is over, what follows it is cut off.
    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(task, "_note_fit", cut)
        run(tmp_path / "runs/cut", settings(tmp_path, *words))
    assert_same(run(tmp_path / "runs/cut", settings(tmp_path, *words, "resume=auto")), whole)


def test_a_sanity_check_before_the_first_epoch_changes_nothing(tmp_path: Path) -> None:
    checked = run(tmp_path / "checked", settings(tmp_path, "trainer.num_sanity_val_steps=-1"))
    assert_same(checked, run(tmp_path / "plain", settings(tmp_path)))


def test_only_an_unfinished_run_of_the_same_configuration_is_taken_up(
    tmp_path: Path, cut_at: Callable[..., None]
) -> None:
    cut_at(epoch=1)
    with pytest.raises(Cut):
        run(tmp_path / "runs/cut", settings(tmp_path))
    assert find_resumable(settings(tmp_path, "seed=1", "resume=auto")) is None
    assert find_resumable(settings(tmp_path, "optimizer.lr=0.01", "resume=auto")) is None
    assert find_resumable(settings(tmp_path, "resume=auto", "tags=[other]")) == tmp_path / "runs/cut"
    assert find_resumable(settings(tmp_path, "resume=cut")) == tmp_path / "runs/cut"
    with pytest.raises(UserError, match="no run of that id"):
        find_resumable(settings(tmp_path, "resume=nothing"))
    cut_at()
    run(tmp_path / "runs/cut", settings(tmp_path, "resume=cut"))
    with pytest.raises(UserError, match="finished"):
        find_resumable(settings(tmp_path, "resume=cut"))
