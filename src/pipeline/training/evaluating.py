"""Outputs of a trained model on a split."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch import Tensor

from pipeline.data.core.loader import Loader
from pipeline.data.core.splits import Streams
from pipeline.training.module import TrainingModule


def outputs_of(trainer: pl.Trainer, module: TrainingModule, loader: Any) -> tuple[Tensor, Tensor]:
    """Logits and targets of every sample of ``loader``, in the order of the split's rows, by ``trainer.test``."""
    if trainer.world_size > 1:
        # Each process would see a part: the main one alone looks at the whole split.
        trainer = pl.Trainer(
            accelerator="cpu" if module.device.type == "cpu" else "auto",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            # It is one process, whatever started it together with others.
            plugins=[LightningEnvironment()],
        )
    module.keep_outputs()
    trainer.test(module, dataloaders=loader, verbose=False)
    outputs = module.kept_outputs()
    if module.model.spec.stateful or isinstance(getattr(loader, "split", None), Streams):
        # Pieces of the same streams, one after the other; the last one may be shorter.
        return torch.cat([logits for logits, _ in outputs], 1), torch.cat([y for _, y in outputs], 1)
    logits, targets = torch.cat([part for part, _ in outputs]), torch.cat([y for _, y in outputs])
    if isinstance(loader, Loader) and len(logits) == len(loader.split):
        rows = torch.cat(loader.rows(0)).argsort()
        logits, targets = logits[rows], targets[rows]
    return logits, targets
