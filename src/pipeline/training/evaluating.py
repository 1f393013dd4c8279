"""Outputs of a trained model on a split, and the figures that they come to."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from pipeline.data.core.loader import Loader
from pipeline.errors import Diverged
from pipeline.models.base import BaseModule
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
        )
    module.keep_outputs()
    trainer.test(module, dataloaders=loader, verbose=False)
    outputs = module.kept_outputs()
    if module.model.spec.stateful:
        # Pieces of the same streams, one after the other.
        return torch.cat([logits for logits, _ in outputs], 1), torch.cat([y for _, y in outputs], 1)
    logits, targets = torch.cat([part for part, _ in outputs]), torch.cat([y for _, y in outputs])
    if isinstance(loader, Loader) and len(logits) == len(loader.split):
        rows = torch.cat(loader.rows(0)).argsort()
        logits, targets = logits[rows], targets[rows]
    return logits, targets


def scores(model: BaseModule, logits: Tensor, targets: Tensor) -> dict[str, float]:
    """The task's metrics, with those that need every output at once: ROC-AUC, average precision, R².

    Raises:
        Diverged: The outputs are no numbers: the last step before them spoilt the weights.
    """
    from pipeline.data.core.sums import Sums

    if not bool(logits.isfinite().all()):
        raise Diverged(
            "the trained model's outputs are NaN or infinite, though its training losses were numbers: its weights "
            "have become too large. Lower optimizer.lr, or clip with trainer.gradient_clip_val"
        )
    sums = Sums(model.spec, confusion=True)
    sums.add(
        model.objective.loss(logits.to(model.device), targets.to(model.device)).cpu(),
        logits,
        targets,
        model.objective.threshold(),
    )
    result = sums.metrics()
    if model.spec.per_step:
        return result
    if model.spec.task == "regression":
        values = targets.view(len(targets), -1).double()
        spread = float((values - values.mean(0)).square().sum())
        error = float((logits.view_as(values).double() - values).square().sum())
        return result | {"r2": 1 - error / spread if spread else math.nan}
    return result | ranking(model.objective.probabilities(logits), targets)


def ranking(p: Tensor, targets: Tensor) -> dict[str, float]:
    """ROC-AUC and average precision, each the mean over the classes that occur beside others."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    labels, scores_ = targets.long().numpy(), p.double().numpy()
    classes = [1] if scores_.shape[1] == 2 else range(scores_.shape[1])
    occurring = [c for c in classes if 0 < (labels == c).sum() < len(labels)]
    if not occurring:
        return {}
    area = [roc_auc_score(labels == c, scores_[:, c]) for c in occurring]
    average = [average_precision_score(labels == c, scores_[:, c]) for c in occurring]
    return {"roc_auc": float(sum(area) / len(area)), "average_precision": float(sum(average) / len(average))}
