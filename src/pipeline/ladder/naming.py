"""What a ladder's winner is called."""

from __future__ import annotations

import re
from pathlib import Path

from omegaconf import DictConfig

from pipeline.data.tables.packed import PACKED

_ANYWHERE = ("train", "training", "test", "data", "dataset", "table", "all")
"""What files are called in many directories."""


def model_name(cfg: DictConfig) -> str:
    """What the winner is registered as: ``task.model_name``, file and target of a table, or the ladder's name."""
    if asked := cfg.task.get("model_name"):
        return str(asked)
    about = file_and_target(cfg)
    if about is not None:
        # What would end the name in an address (models:/NAME@champion), or in a question to the registry.
        return re.sub(r"[/:.\s'\"`@?#%\\]+", "_", "_".join(about))
    return str(cfg.name).removesuffix("_ladder").removeprefix("improve_")


def file_and_target(cfg: DictConfig) -> tuple[str, str] | None:
    """What the data is called, and the column that is predicted; None where the data is no such file.

    That is the file's name without its ending, or the directory's where files are called so everywhere (``train.csv``).
    """
    path, target = cfg.data.get("path"), cfg.data.get("target")
    if path is None or target is None:
        return None
    file = Path(str(path)).expanduser().absolute()
    stem = Path(file.stem).stem if file.suffix in PACKED else file.stem
    return (file.parent.name or stem) if stem.lower() in _ANYWHERE else stem, str(target)
