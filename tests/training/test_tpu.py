"""Training on a TPU, by way of torch_xla's own processor: `make test-xla` runs it in an environment of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

xla = pytest.importorskip("torch_xla", reason="torch_xla is not installed here (make test-xla)")
if os.environ.get("PJRT_DEVICE") != "CPU":
    pytest.skip("PJRT_DEVICE=CPU is not set (make test-xla)", allow_module_level=True)

from torch_xla.debug import metrics as seen  # noqa: E402

from pipeline.config import compose  # noqa: E402
from pipeline.runs.hooks import Hooks  # noqa: E402
from pipeline.runs.train import train  # noqa: E402
from pipeline.training.checkpoints import load_checkpoint  # noqa: E402
from pipeline.training.tpu import _Kept  # noqa: E402


def trained(directory: Path, *words: str) -> Any:
    """digits_mlp, and what became of it."""
    common = ["+experiment=digits_mlp", "logger=none", "trainer.precision=32-true"]
    cfg = compose([*common, *words, f"paths.experiments_dir={directory}"])
    return train(cfg, Hooks(directory=directory / "run", reports=False))


def compilations() -> int:
    found = seen.metric_data("CompileTime")
    return 0 if found is None else int(found[0])


@pytest.mark.timeout(600)
def test_it_comes_to_the_figures_of_the_processor(tmp_path: Path) -> None:
    there = trained(tmp_path / "tpu", "trainer=tpu", "trainer.max_epochs=3")
    here = trained(tmp_path / "cpu", "trainer=cpu", "trainer.max_epochs=3")
    for metric in ("train/loss", "val/loss"):
        pairs = zip(there.history[metric], here.history[metric], strict=True)
        assert all(abs(one[1] - other[1]) < 0.002 for one, other in pairs), metric
    assert there.metrics["test/accuracy"] == pytest.approx(here.metrics["test/accuracy"], abs=0.003)
    assert there.metrics["test/loss"] == pytest.approx(here.metrics["test/loss"], abs=0.002)
    weights = load_checkpoint(tmp_path / "tpu" / "run" / "checkpoints" / "last.ckpt")["state_dict"]
    assert {tensor.device.type for tensor in weights.values()} == {"cpu"}


@pytest.mark.timeout(600)
def test_longer_training_compiles_nothing_more(tmp_path: Path) -> None:
    before = compilations()
    # The points of the curves within epochs are programs of their own.
    words = ["trainer=tpu", "trainer.record_every_n_steps=null", "callbacks.early_stopping.patience=null"]
    trained(tmp_path / "short", *words, "trainer.max_epochs=3")
    short, before = compilations() - before, compilations()
    trained(tmp_path / "long", *words, "trainer.max_epochs=6")
    assert 0 <= compilations() - before <= short


def test_the_running_variance_is_pytorchs() -> None:
    torch.manual_seed(0)
    batches = [torch.randn(32, 3) * 2 + 1, torch.randn(5, 3), torch.randn(2, 3)]
    here, there = nn.BatchNorm1d(3), nn.BatchNorm1d(3).to("xla")
    kept = _Kept()
    there.register_forward_pre_hook(kept.before)
    there.register_forward_hook(kept.after)
    for batch in batches:
        here(batch)
        there(batch.to("xla")).sum().backward()
        xla.sync()
    assert torch.allclose(there.running_var.cpu(), here.running_var, rtol=1e-5)
    assert torch.allclose(there.running_mean.cpu(), here.running_mean, rtol=1e-5)
