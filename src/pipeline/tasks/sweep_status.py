"""How a sweep stands, whoever runs it."""

from __future__ import annotations

import os
from pathlib import Path

from omegaconf import DictConfig


def run(cfg: DictConfig) -> int:
    """The task behind ``task=sweep_status``: a table of a study's trials, or a line for every study.

    Returns:
        The exit code: 0.

    Raises:
        UserError: The storage cannot be opened, or has no such study.
    """
    from rich.console import Console

    from pipeline.sweeps.addresses import storage_url
    from pipeline.sweeps.status import lines, table
    from pipeline.sweeps.storage import open_storage

    configured = cfg.task.storage or os.environ.get("PIPELINE_STORAGE")
    storage = open_storage(storage_url(configured, Path(str(cfg.paths.experiments_dir))))
    if cfg.task.study is not None:
        Console().print(table(storage, str(cfg.task.study)))
    else:
        print("\n".join(lines(storage)))
    return 0
