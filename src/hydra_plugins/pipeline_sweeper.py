"""The sweepers that Hydra finds: Hydra 1.3 takes plugins from this namespace only, the work is in `pipeline.sweeps`.

Hydra imports this module at every start, so nothing heavy is imported before a sweep begins.
"""

from __future__ import annotations

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class _PipelineSweeper(Sweeper):
    # Its settings are read from the configuration: they are checked there, and travel to worker processes with it.
    def __init__(self, **settings: Any) -> None:
        del settings
        self.hydra_context: HydraContext | None = None
        self.config: DictConfig | None = None
        self.launcher = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra composed; the task function is the program's own and known to the workers."""
        del task_function
        self.hydra_context = hydra_context
        self.config = config


class OptunaSweeper(_PipelineSweeper):
    """Searches a space with Optuna (`hydra/sweeper=optuna`); its settings: `conf/hydra/sweeper/optuna.yaml`."""

    def sweep(self, arguments: list[str]) -> int:
        """Run the sweep; gives the exit code of the command."""
        from pipeline.process_life import command_start
        from pipeline.sweeps.sweeper import optimise

        assert self.config is not None and self.hydra_context is not None
        found = optimise(self.config, self.hydra_context, arguments, started=command_start())
        return found.exit_code


class MultirunSweeper(_PipelineSweeper):
    """Runs every combination of the values given (`-m seed=1,2,3`), under one parent run, resumable."""

    def sweep(self, arguments: list[str]) -> int:
        """Run the jobs; gives the exit code of the command."""
        from pipeline.process_life import command_start
        from pipeline.sweeps.sweeper import multirun

        assert self.config is not None and self.hydra_context is not None
        return multirun(self.config, self.hydra_context, arguments, command_start()).exit_code
