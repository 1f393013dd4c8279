"""A small data set with known tensors, and a fit of any module on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from pipeline.data.core.module import DataModule
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Rows
from pipeline.models.base import BaseModule
from pipeline.training.module import TrainingModule
from pipeline.training.step import Optimisation
from pipeline.training.trainer import build_trainer

Fit = Callable[..., pl.Trainer]


class Toy(DataModule):
    """Given tensors: 50 rows for training, 30 for validation, 20 for the test, in their order."""

    def __init__(self, x: Tensor, y: Tensor, spec: Spec, **shared: Any) -> None:
        super().__init__("toy", batch_size=8, shuffle=False, **shared)
        self.spec = spec
        self.train, self.validation, self.test = (
            Rows(x[:50], y[:50]),
            Rows(x[50:80], y[50:80]),
            Rows(x[80:], y[80:]),
        )

    def setup(self, stage: str | None = None) -> None:
        pass


@pytest.fixture
def vectors() -> tuple[Tensor, Tensor]:
    """100 rows of five features and one of three classes each."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(100, 5, generator=generator)
    return x, (x @ torch.randn(5, 3, generator=generator)).argmax(1)


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    """Fit a module on tensors for some epochs."""

    def run(
        module: BaseModule,
        x: Tensor,
        y: Tensor,
        *,
        plan: Optimisation,
        epochs: int = 3,
        chunk: int = 1,
        precision: str = "32-true",
        callbacks: Any = None,
        batch_size: int = 8,
        logger: Any = False,
    ) -> pl.Trainer:
        data = Toy(x, y, module.spec).with_reading(batch_size=batch_size)
        settings = {
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": epochs,
            "precision": precision,
            "num_sanity_val_steps": 0,
        }
        trainer = build_trainer(settings, module, tmp_path, logger=logger, callbacks=callbacks)
        # The plan's maker takes groups with rates of their own; a toy's parameters have one rate.
        of_all = replace(
            plan, optimizer=lambda groups: plan.optimizer([p for g in groups for p in g.parameters])
        )
        trainer.fit(
            TrainingModule(module, of_all), data.training_loader(0, chunk), data.loader_of(data.validation)
        )
        return trainer

    return run
