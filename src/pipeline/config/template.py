"""Configurations written for lightning-hydra-template, whose primary file is ``train.yaml``, as they are.

Such a directory (``--config-dir configs``) brings groups of its own under the names of ours: data, model, trainer,
callbacks, logger, paths. They stand as they are written; what this project needs beside them comes from the shipped
configuration. Its one metric to optimise (``optimized_metric``) is our objective.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

PRIMARY = "train"
MARK = "task_name"
KEYS = frozenset({MARK, "extras", "optimized_metric"})
"""Settings at the top of such a configuration that mean nothing to us, or are read here."""
ROOT = "PROJECT_ROOT"
"""The variable that such configurations read their own directory from."""
_OWN = ("data", "model", "hydra", "experiment", "sweep", "ladder", "debug")
_OPTUNA = "hydra_plugins.hydra_optuna_sweeper."


def is_one(directory: Path) -> bool:
    """Whether a user's directory of configurations is written in that way."""
    return (directory / f"{PRIMARY}.yaml").is_file() and not (directory / "config.yaml").is_file()


def announce_root() -> None:
    """Set the variable that says where the project is, as its own start-up would."""
    os.environ.setdefault(ROOT, str(Path.cwd()))


def adopt(cfg: DictConfig, shipped: DictConfig) -> None:
    """Complete a configuration of that kind.

    Args:
        cfg: Composed configuration, which is changed.
        shipped: The shipped configuration with its defaults.
    """
    with read_write(cfg), open_dict(cfg):
        for key in map(str, shipped):
            if key in _OWN:
                continue
            if key not in cfg:
                cfg[key] = _copy(shipped, key)
            elif isinstance(shipped[key], DictConfig) and key not in ("optimizer", "scheduler"):
                _complete(cfg, shipped, key)
        for key in ("_target_", "default_root_dir"):
            if key in cfg.trainer:
                del cfg.trainer[key]
        cfg.setdefault(MARK, PRIMARY)
        if cfg.get("seed") is None:
            cfg.seed = 0
        if cfg.get("optimized_metric") and cfg.objective.metric == "auto":
            cfg.objective.metric = cfg.optimized_metric
        _places(cfg, shipped)
        sweeper = cfg.hydra.get("sweeper")
        if sweeper is not None and str(sweeper.get("_target_")).startswith(_OPTUNA):
            sweeper["_target_"] = "hydra_plugins.pipeline_sweeper.OptunaSweeper"
            if "direction" not in sweeper:
                sweeper.direction = None


def _copy(shipped: DictConfig, key: str) -> Any:
    # As it is written: references go on leading to where they led.
    return OmegaConf.to_container(shipped, resolve=False)[key]  # type: ignore[call-overload,index]


def _complete(cfg: DictConfig, shipped: DictConfig, section: str) -> None:
    """Add what a section of ours has and theirs does not say."""
    ours = _copy(shipped, section) or {}
    if cfg.get(section) is None:
        cfg[section] = ours
        return
    for key, value in ours.items():
        if key not in cfg[section]:
            cfg[section][key] = value


def _places(cfg: DictConfig, shipped: DictConfig) -> None:
    """Settle their directories before a job begins, and put runs where they are looked for when they are resumed."""
    raw = OmegaConf.to_container(cfg.paths, resolve=False)
    assert isinstance(raw, dict)
    for key, value in raw.items():
        if value == "${hydra:runtime.output_dir}":
            cfg.paths[key] = "${paths.run_dir}"
        elif value == "${hydra:runtime.cwd}":
            cfg.paths[key] = str(Path.cwd())
    if "log_dir" in raw:
        cfg.paths.experiments_dir = "${paths.log_dir}"
    typed = {str(word).split("=")[0].lstrip("+") for word in cfg.hydra.overrides.hydra}
    for place in ("run", "sweep"):
        if f"hydra.{place}.dir" in typed:
            continue
        cfg.hydra[place].dir = OmegaConf.to_container(shipped.hydra[place], resolve=False)["dir"]  # type: ignore[call-overload,index]
    cfg.hydra.sweep.subdir = "${hydra.job.num}"
