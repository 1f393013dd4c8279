"""One command as Hydra runs it: composed, checked, in a directory with a log; for the command line and for Python."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from pipeline.config.hydra_inside import Hydra


@contextmanager
def hydra_of(config_dir: str | None, for_this_machine: bool) -> Iterator[Hydra]:
    """Hydra on the shipped configuration and a directory of the user's; afterwards all is as it was before."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    from pipeline.config.hydra_inside import Hydra
    from pipeline.config.loading import loader

    # The first start of a new installation is not about Matplotlib's fonts.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    GlobalHydra.instance().clear()
    hydra = Hydra(task_name="pipeline", config_loader=loader(config_dir, for_this_machine=for_this_machine))
    GlobalHydra.instance().initialize(hydra)
    before = HydraConfig.instance().cfg
    try:
        yield hydra
    finally:
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = before


def run_once(hydra: Hydra, name: str, cfg: DictConfig, task: Callable[[DictConfig], Any]) -> Any:
    """Let Hydra make the directory, the log and the files beside it, and run a task on a checked configuration.

    Args:
        hydra: Hydra that composed the configuration.
        name: Name of the primary configuration.
        cfg: The configuration, Hydra's part included.
        task: The function to run.

    Returns:
        What the task returned.
    """
    from hydra.core.utils import JobStatus, configure_log
    from hydra.types import HydraContext, RunMode

    from pipeline.config.hydra_inside import Callbacks, outcome, run_job

    cfg.hydra.mode = RunMode.RUN
    _take_up(cfg)
    _can_be_written(Path(str(cfg.hydra.run.dir)))
    configure_log(cfg.hydra.hydra_logging, cfg.hydra.verbose)
    callbacks = Callbacks(cfg)
    callbacks.on_run_start(config=cfg, config_name=name)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
    job = run_job(
        task_function=task,
        config=cfg,
        job_dir_key="hydra.run.dir",
        job_subdir_key=None,
        hydra_context=context,
    )
    callbacks.on_run_end(config=cfg, config_name=name, job_return=job)
    if job.status == JobStatus.FAILED:
        raise outcome(job)
    return outcome(job)


def _can_be_written(directory: Path) -> None:
    """Make a directory for what a command leaves behind.

    Raises:
        UserError: It cannot be made, or not be written to.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise UserError(
            f"{directory} cannot be written to ({error.strerror or error}): what a run leaves behind lies there; "
            "set paths.experiments_dir=DIRECTORY to one that can"
        ) from None


def is_submitted(cfg: DictConfig) -> bool:
    """Whether a single run is to be a job of a cluster."""
    return not str(cfg.hydra.launcher._target_).endswith(".BasicLauncher")


def submit_once(cfg: DictConfig, words: list[str]) -> int:
    """Hand a run to SLURM, as a job that goes on from its last checkpoint however often it is stopped.

    Args:
        cfg: The checked configuration, Hydra's part included.
        words: What was typed.

    Raises:
        UserError: It is no training, or SLURM is not here or refuses it.
    """
    from omegaconf import OmegaConf

    from pipeline.process_life import own_process
    from pipeline.sweeps.engines.ray import is_ray
    from pipeline.sweeps.engines.slurm import Slurm, require_slurm, submit

    if cfg.task.name != "train":
        raise UserError(f"task={cfg.task.name}: hydra/launcher submits trainings (task=train) and sweeps")
    if is_ray(cfg.hydra.launcher):
        raise UserError(
            "hydra/launcher=ray runs the workers of a sweep (-m); a single run is a job of Ray's own: "
            "ray job submit -- python -m pipeline ..."
        )
    require_slurm()
    kept = [
        word for word in words if not word.lstrip("+~").startswith(("hydra/launcher=", "hydra.launcher."))
    ]
    if cfg.get("resume") is None:
        kept.append("resume=auto")
    settings = OmegaConf.to_container(cfg.hydra.launcher, resolve=True)
    assert isinstance(settings, dict)
    logs = Path(str(cfg.paths.experiments_dir)).absolute() / "slurm"
    logs.mkdir(parents=True, exist_ok=True)
    slurm = Slurm.read({str(key): value for key, value in settings.items()})
    script = slurm.script(f"pipeline-{cfg.name}", logs / "%j.log", own_process("pipeline", *kept))
    number = submit(script, os.environ)
    print(
        f"SLURM's job {number} trains it, and goes on by itself after a time limit. Its output: {logs / number}.log"
    )
    return 0


def _take_up(cfg: DictConfig) -> None:
    """With ``resume``, have the run go on in the directory that it has, where Hydra's files stay as they were.

    The processes of one training on several nodes learn both from the first of them, before any makes a directory.
    """
    from pipeline.runs.meeting import meet
    from pipeline.runs.state import find_resumable, read
    from pipeline.runs.together import hear, place, tell

    here = place() if cfg.task.name == "train" else None
    shared = Path(str(cfg.paths.experiments_dir)).absolute()
    if here is not None and here.rank > 0:
        told = hear(shared, here)
        cfg.hydra.run.dir, cfg.hydra.output_subdir = told["directory"], None
        cfg.hydra.job.name = f"{cfg.hydra.job.name}-{here.rank}"
        cfg.resume = cfg.resume if told["resumes"] else None
        meet(here)
        return
    directory = None if cfg.get("resume") is None else find_resumable(cfg)
    if directory is not None:
        cfg.hydra.run.dir = str(directory)
        if read(directory).get("status") != "finished":
            cfg.hydra.output_subdir = None
    if here is not None:
        # Drawn once: its name has the time and a word of its own in it.
        cfg.hydra.run.dir = str(Path(str(cfg.hydra.run.dir)).absolute())
        tell(shared, here, {"directory": cfg.hydra.run.dir, "resumes": directory is not None})
        meet(here)


def run_many(hydra: Hydra, name: str, cfg: DictConfig) -> int:
    """Let the sweeper that a checked configuration names run its jobs; gives the exit code."""
    from hydra.core.plugins import Plugins
    from hydra.core.utils import configure_log
    from hydra.types import HydraContext

    from pipeline.config.hydra_inside import Callbacks
    from pipeline.tasks import run_task

    _can_be_written(Path(str(cfg.hydra.sweep.dir)))
    configure_log(cfg.hydra.hydra_logging, cfg.hydra.verbose)
    callbacks = Callbacks(cfg)
    callbacks.on_multirun_start(config=cfg, config_name=name)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
    plugins = Plugins.instance()
    sweeper = plugins.instantiate_sweeper(config=cfg, hydra_context=context, task_function=run_task)
    returned = sweeper.sweep(arguments=[str(override) for override in cfg.hydra.overrides.task])
    callbacks.on_multirun_end(config=cfg, config_name=name)
    return returned if isinstance(returned, int) else 0


def refuse_lists_of_values(overrides: list[str]) -> None:
    """Refuse ``seed=1,2`` without ``-m``, and say what could have been meant."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    suspects = [override for override in overrides if "," in override or "(" in override]
    for parsed in OverridesParser.create().parse_overrides(suspects):
        if parsed.is_sweep_override():
            key, value = parsed.get_key_element(), str(parsed.input_line).partition("=")[2]
            raise UserError(
                f"{parsed.input_line}: several values in one run. One run for each: add -m. "
                f"A list: {key}=[{value}]. A text with a comma in it: {key}=\\'{value}\\'"
            )
