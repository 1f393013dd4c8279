"""``import lightning`` trains where only ``pytorch_lightning`` is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import lightning as L
import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.seed import seed_everything
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader, TensorDataset


class Lit(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch):
        loss = self.layer(batch[0]).square().mean()
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch):
        self.log("val_loss", self.layer(batch[0]).square().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Points(pl.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.ones(8, 2)), batch_size=4)

    val_dataloader = train_dataloader
"""
# What is installed is hidden, as where it is not.
HIDING = """
import importlib.metadata
import sys

found = importlib.metadata.distribution


def distribution(name):
    if name == "lightning":
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)


importlib.metadata.distribution = distribution
from pipeline.__main__ import main

code = main(sys.argv[1:])
import lightning
import lightning.pytorch.callbacks
import pytorch_lightning

assert lightning.__path__ == [] and lightning.pytorch is pytorch_lightning
assert lightning.pytorch.callbacks is pytorch_lightning.callbacks
assert pytorch_lightning.callbacks.__spec__.name == "pytorch_lightning.callbacks"
try:
    import lightning.pytorch.nothing
except ModuleNotFoundError as error:
    assert error.name == "lightning.pytorch.nothing"
else:
    raise AssertionError("a module that is not there was found")
sys.exit(code)
"""


@pytest.mark.slow
def test_modules_that_import_lightning_train_without_that_package(tmp_path: Path) -> None:
    (tmp_path / "own_lit.py").write_text(CODE, encoding="utf-8")
    words = [
        *("--allow", "own_lit", "model._target_=own_lit.Lit", "data._target_=own_lit.Points"),
        *("trainer=cpu", "trainer.max_epochs=2", "logger=none", "hydra.run.dir=run"),
        *("+callbacks.summary._target_=lightning.pytorch.callbacks.ModelSummary",),
    ]
    done = subprocess.run(
        [sys.executable, "-c", HIDING, *words], cwd=tmp_path, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((tmp_path / "run/result.json").read_text())["metrics"]
    assert metrics["train_loss"] < 0.1
