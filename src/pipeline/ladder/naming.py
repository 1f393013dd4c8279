"""What a ladder's winner is called."""

from __future__ import annotations

import re
from pathlib import Path

from omegaconf import DictConfig


def model_name(cfg: DictConfig) -> str:
    """What the winner is registered as: ``task.model_name``, file and target of a table, or the ladder's name."""
    if asked := cfg.task.get("model_name"):
        return str(asked)
    about = file_and_target(cfg)
    if about is not None:
        return re.sub(r"[/:.\s]+", "_", "_".join(about))
    return str(cfg.name).removesuffix("_ladder").removeprefix("improve_")


def file_and_target(cfg: DictConfig) -> tuple[str, str] | None:
    """The file's name without its ending, and the column that is predicted; None where the data is no such file."""
    path, target = cfg.data.get("path"), cfg.data.get("target")
    return None if path is None or target is None else (Path(str(path)).stem, str(target))
