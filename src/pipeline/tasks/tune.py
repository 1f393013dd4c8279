"""Search better settings on validation data, then train the winner."""

from __future__ import annotations

import shutil
from pathlib import Path

from omegaconf import DictConfig

from pipeline.config.typed import typed_overrides
from pipeline.errors import UserError
from pipeline.metrics import four_places
from pipeline.runs.handover import deliver
from pipeline.runs.hooks import Hooks
from pipeline.runs.settings import EVERY_FIT
from pipeline.runs.several import refuse_several
from pipeline.runs.train import output_directory, train


def run(cfg: DictConfig) -> None:
    """The task behind ``task=tune``."""
    refuse_several(cfg)
    directory = output_directory()
    winner = search(cfg, typed_overrides(*EVERY_FIT, "name", "test"), directory)
    result = train(winner, Hooks(directory=directory / "best"))
    target = Path(str(cfg.task.output)).expanduser() if cfg.task.get("output") else directory
    deliver(result, winner, target)
    if target != directory:
        for path in ("optimization_results.yaml", "experiment/best.yaml"):
            shutil.copy(directory / "sweep" / path, target)
    shown = ", ".join(
        f"{name} {four_places(value)}" for name, value in result.metrics.items() if name.startswith("val/")
    )
    print(f"winner: {shown}\nwritten: {target}")


def search(cfg: DictConfig, typed: list[str], directory: Path) -> DictConfig:
    """The configuration that a sweep finds best.

    Args:
        cfg: Configuration of this command.
        typed: Overrides that hold for every trial.
        directory: Directory of the run, in which the sweep lies.

    Raises:
        UserError: The space does not fit the model, or no trial was completed.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from pipeline.config.loading import compose, loader, user_directory
    from pipeline.sweeps.sweeper import best_settings

    space = cfg.task.get("sweep") or HydraConfig.get().runtime.choices.get("model")
    # A study of its own: what an earlier one found may rest on other code and other data.
    own = [f"hydra.sweep.dir={directory / 'sweep'}", f"hydra.sweeper.study_name={cfg.name}-{directory.name}"]
    loads = loader(user_directory())
    config = loads.load_configuration(
        "config",
        [*typed, f"sweep={space}", f"hydra.sweeper.n_trials={cfg.task.trials}", *own],
        RunMode.MULTIRUN,
    )
    best = best_settings(config, loads, [str(word) for word in config.hydra.overrides.task])
    if best is None:
        raise UserError("no trial of the sweep was completed; its table above says why")
    return compose([*typed, *best], config_dir=user_directory())
