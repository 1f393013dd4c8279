"""``task=train``, the default: train, test and record a model, and show what came of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig

from pipeline.runs.recording import is_main_process
from pipeline.runs.train import train


def run(cfg: DictConfig) -> None:
    """The task behind ``python -m pipeline``: train as configured and show what came of it."""
    result = train(cfg)
    if cfg.task.get("output") and is_main_process():
        from pipeline.runs.handover import deliver

        deliver(result, cfg, Path(str(cfg.task.output)).expanduser())
    if is_main_process():
        from pipeline.reports.summary import opening_command, print_summary

        tracked = cfg.logger.get("mlflow")
        experiments = Path(cfg.paths.experiments_dir)
        ui = opening_command(cfg.logger.tracking_uri, experiments, str(cfg.name)) if tracked else None
        if result.nested:
            from pipeline.runs.several import table_text

            print(table_text(result))
        print_summary(asdict(result), ui=ui)
