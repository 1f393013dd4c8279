"""What a person can ask for: one file a verb."""

from __future__ import annotations

import traceback
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import Diverged, UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run_task(cfg: DictConfig) -> Any:
    """Run the task that a checked configuration asks for: ``run(cfg)`` of the module of that name in this package."""
    from importlib import import_module

    name = cfg.task.name
    if find_spec("pipeline.tasks") is None or find_spec(f"pipeline.tasks.{name}") is None:
        raise UserError(f"task={name}: this task is not part of the installed version")
    # What is recorded names the directory itself, not how it was found.
    cfg.paths.run_dir = cfg.paths.run_dir
    try:
        return import_module(f"pipeline.tasks.{name}").run(cfg)
    except (UserError, Diverged):
        raise
    except Exception as error:
        error.add_note(_keep_traceback(error))
        raise


def _keep_traceback(error: BaseException) -> str:
    """Write the traceback beside the run's log and say where it is."""
    from hydra.core.hydra_config import HydraConfig

    from pipeline.config.masking import mask

    path = Path(HydraConfig.get().runtime.output_dir) / "traceback.txt"
    try:
        path.write_text(mask("".join(traceback.format_exception(error))), encoding="utf-8")
    except OSError:
        return "The traceback could not be written; HYDRA_FULL_ERROR=1 shows it"
    return f"Traceback: {path}"
