"""What is used of Lightning without a public name for it: each by name, compared with what Lightning itself does."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import lightning_fabric
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature
from torch.utils.data import DataLoader, TensorDataset

from pipeline.config.loading import compose
from pipeline.runs.hooks import Hooks
from pipeline.runs.train import train
from pipeline.training import lightning_inside as inside


def broken(name: str, what: str) -> str:
    return f"Lightning {pl.__version__}: {name} {what}. pipeline/training/lightning_inside.py says what it is for."


class Line(pl.LightningModule):
    """Counts its own steps and notes what it is asked in each of them."""

    def __init__(self, manual: bool = False) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.automatic_optimization = not manual
        self.seen: list[Any] = []

    def training_step(self, batch: tuple[torch.Tensor, ...]) -> torch.Tensor | None:
        loss = self.layer(batch[0]).square().mean()
        self.seen.append(self.of_a_step())
        if self.automatic_optimization:
            return loss
        optimizer = self.optimizers()
        optimizer.optimizer.zero_grad()
        loss.backward()
        optimizer.optimizer.step()
        inside.count_steps(self.trainer)()
        return None

    def of_a_step(self) -> Any:
        return inside.between_steps(self.trainer), self._current_fx_name

    def on_train_epoch_start(self) -> None:
        self.seen.append(inside.between_steps(self.trainer))
        inside.begin_epoch_again(self.trainer)

    def on_train_epoch_end(self) -> None:
        self.seen.append(inside.between_steps(self.trainer))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class QuickLine(inside.QuickAttributes, Line):
    pass


def loader() -> DataLoader:
    return DataLoader(TensorDataset(torch.arange(6.0)[:, None]), batch_size=2)


def trainer_of(directory: Path, kind: Any = pl.Trainer, **options: Any) -> Any:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return kind(default_root_dir=directory, accelerator="cpu", **quiet, **options)


def test_lightning_notes_the_running_hook_by_that_name(tmp_path: Path) -> None:
    module = QuickLine()
    trainer_of(tmp_path, max_epochs=1).fit(module, loader())
    steps = [seen for seen in module.seen if isinstance(seen, tuple)]
    assert [name for _, name in steps] == ["training_step"] * 3, broken("_current_fx_name", "is not set")


def test_an_epochs_ends_are_told_from_its_steps(tmp_path: Path) -> None:
    module = Line()
    trainer_of(tmp_path, max_epochs=2, enable_checkpointing=False).fit(module, loader())
    found = [seen[0] if isinstance(seen, tuple) else seen for seen in module.seen]
    assert found == [False, True, True, True, False] * 2, broken("_logger_connector._first_loop_iter", found)


def test_quick_trainers_say_what_lightnings_own_say(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, inside.QuickTrainer, max_epochs=1)
    for stage in (None, *pl.trainer.states.RunningStage):
        trainer.state.stage = stage
        assert trainer.training == pl.Trainer.training.fget(trainer), broken("Trainer.training", stage)
    for value in (True, False, False):
        trainer.training = value
        ours = trainer.state.stage
        pl.Trainer.training.fset(trainer, value)
        assert trainer.state.stage == ours, broken("Trainer.training", f"set to {value}")


def test_steps_past_lightnings_wrapper_are_counted(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, max_epochs=2, enable_checkpointing=False)
    trainer.fit(Line(manual=True), loader())
    assert trainer.global_step == 6, broken("manual_optimization.optim_step_progress", trainer.global_step)


def test_one_device_without_a_scaler_is_a_plain_step(tmp_path: Path) -> None:
    assert inside.is_single_device(trainer_of(tmp_path))
    assert not inside.is_single_device(trainer_of(tmp_path, strategy="ddp", devices=1))
    scaled = trainer_of(tmp_path)
    scaled.strategy.precision_plugin.scaler = torch.amp.GradScaler("cpu")
    assert not inside.is_single_device(scaled), broken("precision_plugin.scaler", "is not where a scaler is")


def test_lightning_reads_a_signature_that_is_written_down() -> None:
    def training_step(batch: Any, batch_idx: int) -> None: ...

    inside.known_signature(training_step)
    # Lightning asks inspect.signature, which reads this attribute before anything else.
    training_step.__signature__ = inspect.signature(lambda batch, dataloader_iter: None)  # type: ignore[attr-defined]
    assert is_param_in_hook_signature(training_step, "dataloader_iter", explicit=True), broken(
        "is_param_in_hook_signature", "does not read __signature__"
    )


@pytest.mark.parametrize("exact", [True, False])
def test_a_resumed_fit_of_max_steps_ends_no_epoch_twice(tmp_path: Path, exact: bool) -> None:
    class Ends(Line):
        def on_train_epoch_end(self) -> None:
            self.seen.append(("end", self.current_epoch))

    first = trainer_of(tmp_path, max_steps=3)
    first.fit(Ends(), loader())
    place = tmp_path / "end.ckpt"
    first.save_checkpoint(place)
    module, trainer = Ends(), trainer_of(tmp_path, max_steps=6)
    if exact:
        inside.resume_at_epoch_ends(trainer)
    trainer.fit(module, loader(), ckpt_path=place)
    ends = [seen[1] for seen in module.seen if isinstance(seen, tuple) and seen[0] == "end"]
    # Where Lightning itself no longer ends an epoch twice, the second case fails, and our patch can go.
    assert (ends == [1]) is exact, broken("FitLoop._iteration_based_training", f"leads to the ends {ends}")


def test_a_version_that_decides_otherwise_is_refused(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)

    class Other:
        pass

    trainer.fit_loop = Other()
    with pytest.raises(RuntimeError, match="_iteration_based_training"):
        inside.resume_at_epoch_ends(trainer)


def test_a_missing_fetcher_is_not_passed_over(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    assert trainer.fit_loop._data_fetcher is None, broken("FitLoop._data_fetcher", "is there before a fit")
    with pytest.raises(RuntimeError, match="data fetcher"):
        inside.begin_epoch_again(trainer)


@pytest.mark.parametrize("there", [True, False])
def test_nvidias_library_is_not_opened_at_each_step_where_there_is_no_gpu(
    there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "PYTORCH_NVML_BASED_CUDA_CHECK"
    assert f'os.environ["{name}"] = "1"' in inspect.getsource(lightning_fabric), broken(name, "is not set")
    monkeypatch.setenv(name, "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    inside.search_for_gpus_once()
    assert os.environ[name] == ("1" if there else "0")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_fit_without_a_gpu_opens_no_library_of_nvidias(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    cfg = compose(["experiment=digits_mlp", "logger=none", "trainer=cpu", "debug=fast"])
    opened = []
    monkeypatch.setattr(torch.cuda, "_raw_device_count_nvml", lambda: opened.append(1) or -1)
    stepped = torch.optim.Adam.step
    before: list[int] = []
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda *a, **b: (before.append(len(opened)), stepped(*a, **b))[1]
    )
    train(cfg, Hooks(directory=tmp_path, reports=False))
    assert before and len(opened) == before[0]
