"""Between a task and the tracking of its run: what is recorded at the start, and how a run may end."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pipeline.config.trackers import trackers_of
from pipeline.errors import Interrupted
from pipeline.runs.hooks import Hooks
from pipeline.runs.settings import NOT_COMPARED, NOT_RECORDED, settings_of
from pipeline.runs.together import place
from pipeline.tracking import Run
from pipeline.tracking.views import UNCOMPARED_TAG

log = logging.getLogger(__name__)

REQUIREMENTS = (
    "torch",
    "pytorch-lightning",
    "numpy",
    "pandas",
    "safetensors",
    "hydra-core",
    "omegaconf",
    "mlflow",
)


class NoRun:
    """Stands in for a tracked run where nothing is tracked."""

    run_id = None
    reference = None
    key = ""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


AnyRun = Run | NoRun


def is_main_process() -> bool:
    """Whether this is the process that records: of those of one training the first one does, on whichever node."""
    here = place()
    return os.environ.get("LOCAL_RANK", "0") == "0" if here is None else here.rank == 0


def open_run(
    cfg: DictConfig, directory: Path, hooks: Hooks, name: str, resume: bool = False, longer: bool = False
) -> AnyRun:
    """Start recording the run in ``directory``, if the configuration asks for it.

    Args:
        cfg: The configuration.
        directory: Directory of the run.
        hooks: What the caller adds.
        name: Name of the run.
        resume: Whether it goes on.
        longer: Whether it was finished, and goes on for more epochs than it was recorded with.
    """
    trackers = trackers_of(cfg.logger)
    if not trackers or not is_main_process():
        return NoRun()
    commit, dirty = git_state()
    tags = {
        "task": str(cfg.task.name),
        "experiment": str(cfg.name),
        "seed": str(cfg.seed),
        "mlflow.source.git.commit": commit or "",
        "git.dirty": str(dirty).lower(),
        **{f"tag.{word}": "true" for word in cfg.get("tags") or []},
        UNCOMPARED_TAG: " ".join(NOT_COMPARED),
        **{f"dvc.{name}": value for name, value in dvc_experiment().items()},
        **hooks.tags,
    }
    run = Run.start(
        directory,
        experiment=str(cfg.logger.experiment_name),
        # MLflow refuses a name beside another one in this tag.
        name=hooks.tags.get("mlflow.runName", name),
        tracking_uri=cfg.logger.get("tracking_uri"),
        experiments_dir=Path(cfg.paths.experiments_dir),
        parent=hooks.parent,
        tags={key: value for key, value in tags.items() if value},
        resume=resume,
        trackers=trackers,
    )
    if longer:
        # MLflow lets no parameter change: the configuration that it is repeated from does.
        run.set_tags({"trainer.max_epochs": cfg.trainer.max_epochs})
    if not resume:
        run.log_params(settings_of(cfg, NOT_RECORDED))
    if not resume or longer:
        run.log_text(OmegaConf.to_yaml(cfg, resolve=True), "config.yaml")
    return run


def dvc_experiment() -> dict[str, str]:
    """The stage and the experiment of DVC that this process works for; empty outside DVC."""
    names = {"stage": "DVC_STAGE", "experiment": "DVC_EXP_NAME", "baseline": "DVC_EXP_BASELINE_REV"}
    return {name: os.environ[variable] for name, variable in names.items() if os.environ.get(variable)}


def reopen_run(cfg: DictConfig, directory: Path, tags: Mapping[str, str]) -> Run:
    """The tracked run in ``directory``, which has ended, to add to what it recorded; finish it again."""
    return Run.start(
        directory,
        experiment=str(cfg.logger.experiment_name),
        name="",
        tracking_uri=cfg.logger.get("tracking_uri"),
        experiments_dir=Path(cfg.paths.experiments_dir),
        tags=tags,
        resume=True,
        system_metrics=False,
        trackers=trackers_of(cfg.logger),
    )


@contextmanager
def recorded(run: AnyRun) -> Iterator[None]:
    """Record how the run ended if an error or a signal ends the block."""
    try:
        yield
    except (Interrupted, KeyboardInterrupt):
        _finish(run, "KILLED", None)
        raise
    except BaseException as error:
        _finish(run, getattr(error, "tracking_status", "FAILED"), f"{type(error).__name__}: {error}")
        raise


def _finish(run: AnyRun, status: Any, error: str | None) -> None:
    try:
        _keep_logs(run)
        run.finish(status, error if status == "FAILED" else None)
    except OSError as full:
        # The error that ended the run is told all the same; without a last record the run counts as killed.
        log.warning("The end of the run could not be recorded: %s", full)


def _keep_logs(run: AnyRun) -> None:
    for handler in logging.getLogger().handlers:
        file = getattr(handler, "baseFilename", None)
        if file and Path(file).is_file():
            handler.flush()
            run.log_artifact(Path(file), "logs")


def requirements() -> list[str]:
    """What serving a model needs, with the versions that are installed."""
    found = []
    for name in REQUIREMENTS:
        try:
            # Without a local part such as +cpu: an index does not know those.
            found.append(f"{name}=={version(name).split('+')[0]}")
        except PackageNotFoundError:
            continue
    return found


@cache
def git_state() -> tuple[str | None, bool]:
    """The commit of the working tree that the command was typed in, and whether it has changes."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit, bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, False


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=5, check=True)
    return done.stdout.strip()


def class_signature(
    inputs: Mapping[str, Any],
    classes: tuple[str, ...],
    per_step: bool,
    regression: bool,
    intervals: bool = False,
    unusual: bool = False,
    ranked: int = 0,
    together: bool = False,
) -> dict[str, Any]:
    """The tracked model's signature, from an encoder's and the classes.

    Args:
        inputs: The encoder's signature.
        classes: Names of the classes.
        per_step: Whether there is an output for each step.
        regression: Whether numbers are predicted.
        intervals: Whether each number comes with the ends of its interval.
        unusual: Whether it is said of each sample if it is unlike those of the training.
        ranked: Number of classes that are recommended, the most probable first; 0 where none are.
        together: Whether a sample may have several labels.
    """
    from pipeline.tracking import signatures

    if inputs["type"] == "tensor":
        columns = [signatures.tensor(inputs["dtype"], inputs["shape"])]
    elif inputs["type"] == "text" and "columns" not in inputs:
        columns = [signatures.column("string")]
    else:
        columns = [
            signatures.column(c["dtype"], c["name"], c.get("required", True)) for c in inputs["columns"]
        ]
    if per_step and not regression:
        return {"inputs": columns, "outputs": None}
    outputs = signatures.class_outputs(classes, ranked, together)
    if regression:
        names = ("prediction", "low", "high") if intervals else ("prediction",)
        outputs = [signatures.column("double", name) for name in names]
    flag = [signatures.column("boolean", "unusual")] if unusual else []
    return {"inputs": columns, "outputs": outputs + flag}
