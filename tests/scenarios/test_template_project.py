"""A project in the form of lightning-hydra-template moves over as it is: trained, cut off and resumed, swept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pipeline.training.checkpoints import load_checkpoint

FILES = {
    "src/__init__.py": "",
    "src/net.py": """
from torch import nn


class Dense(nn.Module):
    def __init__(self, width: int = 16):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 3))

    def forward(self, x):
        return self.layers(x)
""",
    "src/module.py": """
import os
import time
from pathlib import Path

import torch
from lightning import LightningModule
from torchmetrics import MaxMetric, MeanMetric
from torchmetrics.classification import Accuracy


class BlobsModule(LightningModule):
    def __init__(self, net, optimizer, scheduler, compile: bool):
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.net = net
        self.criterion = torch.nn.CrossEntropyLoss()
        self.train_acc = Accuracy(task="multiclass", num_classes=3)
        self.val_acc = Accuracy(task="multiclass", num_classes=3)
        self.test_acc = Accuracy(task="multiclass", num_classes=3)
        self.train_loss, self.val_acc_best = MeanMetric(), MaxMetric()

    def forward(self, x):
        return self.net(x)

    def on_train_start(self):
        self.val_acc_best.reset()

    def training_step(self, batch, batch_idx):
        waits = os.environ.get("WAITS_AT")
        if waits and self.current_epoch == 3:
            Path(waits).touch()
            time.sleep(600)
        x, y = batch
        logits = self(x)
        loss = self.criterion(logits, y)
        self.train_loss(loss)
        self.train_acc(logits, y)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("train/acc", self.train_acc, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        self.val_acc(logits, y)
        self.log("val/loss", self.criterion(logits, y), on_step=False, on_epoch=True)
        self.log("val/acc", self.val_acc, on_step=False, on_epoch=True, prog_bar=True)

    def on_validation_epoch_end(self):
        self.val_acc_best(self.val_acc.compute())
        self.log("val/acc_best", self.val_acc_best.compute(), sync_dist=True, prog_bar=True)

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.test_acc(self(x), y)
        self.log("test/acc", self.test_acc, on_step=False, on_epoch=True)

    def configure_optimizers(self):
        optimizer = self.hparams.optimizer(params=self.trainer.model.parameters())
        if self.hparams.scheduler is not None:
            scheduler = self.hparams.scheduler(optimizer=optimizer)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss"}}
        return {"optimizer": optimizer}
""",
    "src/data.py": """
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset, random_split


class BlobsDataModule(LightningDataModule):
    def __init__(self, data_dir: str = "data/", batch_size: int = 64, num_workers: int = 0, pin_memory: bool = False):
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.data_train = self.data_val = self.data_test = None

    def setup(self, stage=None):
        if self.data_train is None:
            y = torch.arange(300) % 3
            x = torch.randn(300, 4, generator=torch.Generator().manual_seed(1)) + y[:, None] * 1.5
            self.data_train, self.data_val, self.data_test = random_split(
                TensorDataset(x, y), (200, 50, 50), generator=torch.Generator().manual_seed(42)
            )

    def train_dataloader(self):
        return DataLoader(self.data_train, batch_size=self.hparams.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.data_val, batch_size=self.hparams.batch_size)

    def test_dataloader(self):
        return DataLoader(self.data_test, batch_size=self.hparams.batch_size)
""",
    "configs/train.yaml": """
# @package _global_
defaults:
  - _self_
  - data: blobs
  - model: blobs
  - callbacks: default
  - logger: null
  - trainer: default
  - paths: default
  - extras: default
  - hydra: default
  - experiment: null
  - hparams_search: null
  - debug: null
task_name: "train"
tags: ["dev"]
train: True
test: True
ckpt_path: null
seed: null
""",
    "configs/data/blobs.yaml": """
_target_: src.data.BlobsDataModule
data_dir: ${paths.data_dir}
batch_size: 64
num_workers: 0
pin_memory: False
""",
    "configs/model/blobs.yaml": """
_target_: src.module.BlobsModule
optimizer:
  _target_: torch.optim.Adam
  _partial_: true
  lr: 0.001
  weight_decay: 0.0
scheduler:
  _target_: torch.optim.lr_scheduler.ReduceLROnPlateau
  _partial_: true
  mode: min
  factor: 0.1
  patience: 10
net:
  _target_: src.net.Dense
  width: 16
compile: false
""",
    "configs/callbacks/default.yaml": """
defaults:
  - model_checkpoint
  - early_stopping
  - model_summary
  - rich_progress_bar
  - _self_
model_checkpoint:
  dirpath: ${paths.output_dir}/their_checkpoints
  filename: "epoch_{epoch:03d}"
  monitor: "val/acc"
  mode: "max"
  save_last: True
  auto_insert_metric_name: False
early_stopping:
  monitor: "val/acc"
  patience: 100
  mode: "max"
model_summary:
  max_depth: -1
""",
    "configs/callbacks/model_checkpoint.yaml": """
model_checkpoint:
  _target_: lightning.pytorch.callbacks.ModelCheckpoint
  dirpath: null
  filename: null
  monitor: null
  verbose: False
  save_last: null
  save_top_k: 1
  mode: "min"
  auto_insert_metric_name: True
""",
    "configs/callbacks/early_stopping.yaml": """
early_stopping:
  _target_: lightning.pytorch.callbacks.EarlyStopping
  monitor: ???
  min_delta: 0.
  patience: 3
  mode: "min"
""",
    "configs/callbacks/model_summary.yaml": """
model_summary:
  _target_: lightning.pytorch.callbacks.RichModelSummary
  max_depth: 1
""",
    "configs/callbacks/rich_progress_bar.yaml": """
rich_progress_bar:
  _target_: lightning.pytorch.callbacks.RichProgressBar
""",
    "configs/logger/csv.yaml": """
csv:
  _target_: lightning.pytorch.loggers.csv_logs.CSVLogger
  save_dir: "${paths.output_dir}"
  name: "csv/"
  prefix: ""
""",
    "configs/trainer/default.yaml": """
_target_: lightning.pytorch.trainer.Trainer
default_root_dir: ${paths.output_dir}
min_epochs: 1
max_epochs: 10
accelerator: cpu
devices: 1
check_val_every_n_epoch: 1
deterministic: False
""",
    "configs/trainer/cpu.yaml": """
defaults:
  - default
accelerator: cpu
devices: 1
""",
    "configs/paths/default.yaml": """
root_dir: ${oc.env:PROJECT_ROOT}
data_dir: ${paths.root_dir}/data/
log_dir: ${paths.root_dir}/logs/
output_dir: ${hydra:runtime.output_dir}
work_dir: ${hydra:runtime.cwd}
""",
    "configs/extras/default.yaml": """
ignore_warnings: False
enforce_tags: True
print_config: True
""",
    "configs/hydra/default.yaml": """
defaults:
  - override hydra_logging: colorlog
  - override job_logging: colorlog
run:
  dir: ${paths.log_dir}/${task_name}/runs/${now:%Y-%m-%d}_${now:%H-%M-%S}
sweep:
  dir: ${paths.log_dir}/${task_name}/multiruns/${now:%Y-%m-%d}_${now:%H-%M-%S}
  subdir: ${hydra.job.num}
job_logging:
  handlers:
    file:
      filename: ${hydra.runtime.output_dir}/${task_name}.log
""",
    "configs/experiment/example.yaml": """
# @package _global_
defaults:
  - override /data: blobs
  - override /model: blobs
  - override /callbacks: default
  - override /trainer: cpu
tags: ["blobs", "simple"]
seed: 12345
trainer:
  max_epochs: 6
model:
  optimizer:
    lr: 0.01
  net:
    width: 32
data:
  batch_size: 32
""",
    "configs/hparams_search/optuna.yaml": """
# @package _global_
defaults:
  - override /hydra/sweeper: optuna
optimized_metric: "val/acc_best"
hydra:
  mode: "MULTIRUN"
  sweeper:
    _target_: hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper
    storage: null
    study_name: null
    n_jobs: 1
    direction: maximize
    n_trials: 5
    sampler:
      _target_: optuna.samplers.TPESampler
      seed: 1234
      n_startup_trials: 3
    params:
      model.optimizer.lr: interval(0.0001, 0.1)
      data.batch_size: choice(32, 64)
      model.net.width: choice(8, 16)
""",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("lightning")
    place = tmp_path_factory.mktemp("project")
    for name, text in FILES.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text.lstrip("\n"), encoding="utf-8")
    return place


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "pipeline", "--config-dir", "configs", "--allow", "src", *words]


def run(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), cwd=project, capture_output=True, text=True, timeout=280)


def results(project: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sorted((project / "logs/runs").rglob("result.json"))]


WORDS = ["experiment=example", "logger=csv", "checkpoint.every_seconds=0"]


@pytest.fixture(scope="module")
def whole(project: Path) -> Path:
    """A run of its experiment."""
    done = run(project, *WORDS, "hydra.run.dir=whole")
    assert done.returncode == 0, done.stderr
    return project / "whole"


@pytest.mark.slow
def test_it_trains_with_its_own_callbacks_and_loggers(whole: Path) -> None:
    result = json.loads((whole / "result.json").read_text())
    metrics = result["metrics"]
    assert metrics["val/acc_best"] >= metrics["val/acc"] > 0.5 and metrics["test/acc"] > 0.5
    assert result["seed"] == 12345 and len(result["history"]["val/acc"]) == 6
    assert list((whole / "their_checkpoints").glob("epoch_*.ckpt")) and list(whole.rglob("metrics.csv"))


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(600)
def test_killed_it_goes_on_with_the_same_bits(project: Path, whole: Path) -> None:
    words = [*WORDS, "resume=auto"]
    environment = {**os.environ, "WAITS_AT": str(project / "waits")}
    process = subprocess.Popen(command(*words), cwd=project, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 250
    while not (project / "waits").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = run(project, *words)
    assert done.returncode == 0, done.stderr
    (resumed,) = results(project)
    expected = json.loads((whole / "result.json").read_text())
    assert resumed["history"]["train/loss"] == expected["history"]["train/loss"]  # type: ignore[index]
    first, second = (
        load_checkpoint(Path(place) / "checkpoints/last.ckpt")["state_dict"]
        for place in (whole, str(resumed["directory"]))
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_its_own_search_runs_with_pruning(project: Path) -> None:
    words = ["experiment=example", "hparams_search=optuna", "hydra/sweeper/pruner=median"]
    done = run(project, *words, "trainer.max_epochs=3", "hydra.sweep.dir=swept")
    assert done.returncode == 0, done.stderr
    found = (project / "swept/optimization_results.yaml").read_text()
    assert "best_value" in found and "model.optimizer.lr" in found
