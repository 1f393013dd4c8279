"""A fit without a record: one of many that are only looked at together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.runs.length import long_enough
from pipeline.runs.plan import RunPlan

if TYPE_CHECKING:
    from pipeline.data.core.module import DataModule
    from pipeline.models.base import BaseModule


def fit_alone(plan: RunPlan, data: DataModule, directory: Path) -> BaseModule:
    """Train what a plan describes on data that is there.

    Args:
        plan: What is trained, and how; its data is not looked at.
        data: The data.
        directory: Directory for checkpoints.

    Returns:
        The model with the weights of its best epoch.

    Raises:
        UserError: A setting cannot be used here.
        Diverged: The loss became NaN or infinite.
        Interrupted: By Ctrl-C or SIGTERM.
    """
    import pytorch_lightning as pl

    from pipeline.training.at_once import fit_at_once, fits_at_once
    from pipeline.training.building import build_model
    from pipeline.training.fit import prepare_fit, run_fit
    from pipeline.training.trainer import quieten

    quieten()
    plan, _ = long_enough(plan, data)
    pl.seed_everything(plan.seed, verbose=False)
    model: BaseModule = build_model(plan.model, data, plan.fit)
    fit = prepare_fit(plan.fit, data, model, directory)
    if fits_at_once(model):
        fit_at_once(fit)
    else:
        run_fit(fit)
        fit.checkpoints.restore_best(fit.module)
    return model.eval()
