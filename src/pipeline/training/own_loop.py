"""A person's LightningModule, trained by Lightning's own loop exactly as it is written.

What needs no Spec works for it: its history is recorded, its best and last state are kept, it is stopped early, pruned
and resumed. Everything else (losses, metrics, optimisers) is its own.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, Checkpoint, EarlyStopping

from pipeline import metrics
from pipeline.config import build
from pipeline.config.nearest import suggest
from pipeline.data.core.loader import Batches
from pipeline.data.core.module import DataModule
from pipeline.data.foreign import OwnLoaders, overrides
from pipeline.errors import UserError
from pipeline.training.agreeing import largest
from pipeline.training.checkpoints import AtomicCheckpointIO, Checkpoints
from pipeline.training.libraries import adopt_data_module, in_library, library_of, name_in_library
from pipeline.training.lightning_inside import begin_epoch_again, resume_at_epoch_ends, search_for_gpus_once
from pipeline.training.own_logger import StepLogger
from pipeline.training.plan import FitPlan, Node
from pipeline.training.profiling import lightning_profiler, profiled
from pipeline.training.progress import Progress
from pipeline.training.randomness import random_state, set_random_state
from pipeline.training.recorder import Recorder
from pipeline.training.signals import Signals
from pipeline.training.softening import say_unsoftened
from pipeline.training.threads import fixed_threads
from pipeline.training.trainer import FIT_ONLY, environment_plugins, quieten

_VALIDATION = re.compile(r"(val|valid|validation|dev|eval)([/_.-]|$)")


class Watched:
    """The metric by which a module is judged; which one it is shows once the module has logged something.

    Args:
        plan: Plan that names it, or leaves it to the names that are logged (``auto``).
    """

    def __init__(self, plan: FitPlan) -> None:
        asked = plan.checkpoint.monitor if plan.checkpoint.monitor != "auto" else plan.metric
        self.asked, self.direction = asked, plan.direction
        self.found: tuple[str, str] | None = None

    def among(self, names: Collection[str]) -> tuple[str, str] | None:
        """Name and direction (``max`` or ``min``) of the metric; None where nothing is to be watched.

        Args:
            names: Names of everything that was logged in the epoch.

        Raises:
            UserError: The metric that was asked for is not among them, or its direction is not known.
        """
        if self.found is None and self.asked is not None:
            name = self._chosen(names) if self.asked == "auto" else self._named(self.asked, names)
            if name is not None:
                self.found = (name, self._mode(name))
        return self.found

    def _chosen(self, names: Collection[str]) -> str | None:
        # The best so far rises with every luckier epoch and never falls: no epoch is the best by it.
        candidates = [name for name in names if "best" not in re.split(r"[/_.-]", name)]
        held_out = [name for name in candidates if _VALIDATION.match(name)]
        return metrics.judged_by(held_out) or metrics.judged_by(candidates)

    def _named(self, asked: str, names: Collection[str]) -> str:
        if asked not in names:
            raise UserError(
                f"objective.metric={asked}: the model logged no such metric in its first epoch. "
                f"{suggest(asked, names, limit=40)}"
            )
        return asked

    def _mode(self, name: str) -> str:
        if self.direction != "auto":
            return "max" if self.direction == "maximize" else "min"
        return metrics.direction(name)


class OwnCheckpoints(Checkpoints):
    """Keeps the last and the best state of a module that trains itself, at the ends of its epochs.

    Args:
        directory: Directory of the files.
        watched: The metric that decides which epoch is best.
        every_seconds: Least time between two writes.
    """

    def __init__(self, directory: Path, watched: Watched, every_seconds: float) -> None:
        super().__init__(directory, monitor=None, mode="min", every_seconds=every_seconds)
        self.watched = watched

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        validated = trainer.num_val_batches and sum(trainer.num_val_batches)
        seen = any(_VALIDATION.match(name) for name in trainer.callback_metrics)
        # Where not every epoch is validated, the first one may have nothing to be judged by yet.
        if seen or not validated:
            found = self.watched.among(list(trainer.callback_metrics))
            self.monitor, self.mode = found if found is not None else (None, "min")  # type: ignore[assignment]
            super().on_train_epoch_end(trainer, pl_module)
        elif largest(trainer, self.hurry or trainer.should_stop)[0]:
            self.save_last(trainer)

    def save_within_epoch(self, trainer: pl.Trainer) -> None:
        """Do nothing: a loop that is not ours cannot go on in the middle of an epoch with the same bits."""


class Patience(EarlyStopping):
    """Stops the fit when the metric that the module is judged by has not improved for some epochs.

    Args:
        watched: The metric.
        patience: Number of epochs.
        min_delta: Smallest change that counts as an improvement.
    """

    def __init__(self, watched: Watched, patience: int, min_delta: float = 0.0) -> None:
        super().__init__(monitor="", patience=patience, min_delta=min_delta, check_on_train_epoch_end=True)
        self.watched = watched

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        found = self.watched.among(list(trainer.callback_metrics))
        if found is None or found[0] not in trainer.callback_metrics:
            return
        if not self.monitor:
            self.min_delta = abs(self.min_delta) * (1 if found[1] == "max" else -1)
        self.monitor, self.mode = found
        if self.wait_count == 0 and not bool(self.best_score.isfinite()):
            self.best_score = trainer.callback_metrics[found[0]].new_tensor(
                -float("inf") if found[1] == "max" else float("inf")
            )
        super().on_train_epoch_end(trainer, pl_module)


class RandomState(Checkpoint):
    """Carries the state of the random generators over a resumption at an epoch's end."""

    def __init__(self) -> None:
        super().__init__()
        self._resumed: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        return random_state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._resumed = state_dict

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._resumed is not None:
            set_random_state(self._resumed)
            self._resumed = None
            begin_epoch_again(trainer)


@dataclass
class OwnFit:
    """A fit by Lightning's own loop that is going on or has ended.

    Args:
        plan: What it is to do.
        data: The data: ours, or around a person's own data module.
        module: The person's LightningModule.
        trainer: The trainer of the module's own package.
        recorder: The history of its metrics.
        checkpoints: Its best and last state.
        steps: What was logged at single steps.
        seconds: Time that it took.
        started: Time (seconds since 1970) at which training began.
    """

    plan: FitPlan
    data: DataModule
    module: Any
    trainer: Any
    recorder: Recorder
    checkpoints: OwnCheckpoints
    steps: StepLogger
    seconds: float = 0.0
    started: float = 0.0


def prepare_own_fit(
    plan: FitPlan,
    data: DataModule,
    module: Any,
    directory: Path,
    *,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
    on_file: Callable[[Path, str], None] | None = None,
    run_id: str | None = None,
) -> OwnFit:
    """The trainer of a person's LightningModule, with what is added to it.

    Args:
        plan: What the fit is to do.
        data: The data to train on.
        module: The LightningModule, of ``pytorch_lightning`` or of ``lightning``.
        directory: Directory of the run.
        on_epoch: Function called after every epoch with its number (from 1) and its metrics.
        on_step: Function called with the optimiser step and what was logged at it.
        on_file: Function called with a picture or text that the module gave to its logger, and a folder for it.
        run_id: Id of the tracked run, None where none is.

    Raises:
        UserError: Lightning refuses a setting.
    """
    quieten()
    search_for_gpus_once()
    say_unsoftened(data, type(module).__name__)
    library = cast(str, library_of(module))
    watched = Watched(plan)
    recorder = in_library(Recorder, library)(on_epoch)
    checkpoints = in_library(OwnCheckpoints, library)(
        directory / "checkpoints", watched, plan.checkpoint.every_seconds
    )
    steps = in_library(StepLogger, library)(
        directory,
        on_step or (lambda step, values: None),
        on_file or (lambda path, folder: None),
        run_id or "",
    )
    callbacks = _callbacks(plan, watched, library)
    callbacks += [in_library(RandomState, library)(), recorder, checkpoints]
    if plan.trainer.get("ema") is not None:
        raise UserError(
            f"trainer.ema={plan.trainer['ema']}: a LightningModule trains itself; Lightning has a callback for it: "
            "+callbacks.ema._target_=pytorch_lightning.callbacks.EMAWeightAveraging"
        )
    ours = (*FIT_ONLY, "steps_per_call", "ema")
    settings = {key: value for key, value in plan.trainer.items() if key not in ours}
    settings["precision"] = "32-true" if settings.get("precision") == "auto" else settings.get("precision")
    settings["profiler"] = lightning_profiler(settings.get("profiler"), directory)
    if library != "pytorch_lightning":
        settings["profiler"] = None
    if settings.get("strategy") == "ddp" and settings.get("accelerator") == "cpu":
        strategies = import_module(f"{library}.strategies")
        settings["strategy"] = strategies.DDPStrategy(process_group_backend="gloo")
    try:
        trainer = import_module(library).Trainer(
            **{
                **settings,
                "default_root_dir": str(directory),
                "plugins": [in_library(AtomicCheckpointIO, library)(), *environment_plugins(library)],
                "callbacks": callbacks,
                "logger": _in_order(steps, _loggers(plan.loggers, directory, library)),
                "enable_checkpointing": True,
                # Lightning refuses a person's own bar or summary where these say that there is none.
                "enable_model_summary": _has(callbacks, "ModelSummary"),
                "enable_progress_bar": _has(callbacks, "ProgressBar"),
            }
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"Lightning's Trainer refuses these settings: {error}") from None
    except Exception as error:
        if type(error).__name__ != "MisconfigurationException":
            raise
        raise UserError(f"Lightning's Trainer refuses these settings: {error}") from None
    resume_at_epoch_ends(trainer)
    steps.follow(trainer)
    return OwnFit(plan, data, module, trainer, recorder, checkpoints, steps)


def run_own_fit(fit: OwnFit, resume_from: Path | None = None) -> None:
    """Train until the end, from the beginning or from the end of an epoch.

    Raises:
        UserError: Lightning refuses the module or the settings, or the objective is not logged.
        Interrupted: Ctrl-C or SIGTERM came; the state of the last epoch's end is kept.
    """
    library = cast(str, library_of(fit.module))
    signals = in_library(Signals, library)(fit.checkpoints)
    fit.trainer.callbacks[:0] = [signals]
    fit.started = time.time()
    began = time.perf_counter()
    advanced = fit.plan.trainer.get("profiler") == "advanced"
    threads = fixed_threads(fit.plan.trainer.get("threads", "auto"))
    try:
        with signals, threads, profiled(advanced, Path(fit.trainer.default_root_dir)):
            fit.trainer.fit(
                fit.module,
                **_data_for(fit, training=True),
                ckpt_path=None if resume_from is None else str(resume_from),
                weights_only=True,
            )
            signals.agree(fit.trainer, fit.module)
            signals.check()
    except Exception as error:
        # A callback that waits for a metric which the module does not log names those that it does.
        unknown = isinstance(error, RuntimeError) and "conditioned on metric" in str(error)
        if unknown or type(error).__name__ == "MisconfigurationException":
            raise UserError(f"Lightning refuses this model or these settings: {error}") from error
        raise
    finally:
        fit.seconds = time.perf_counter() - began


def test_own(fit: OwnFit) -> dict[str, float]:
    """What the module logs in its test, empty where it has none, or no data for it."""
    if not_tested(fit):
        return {}
    fit.trainer.test(fit.module, **_data_for(fit, training=False), verbose=False)
    return {name: float(value) for name, value in fit.trainer.callback_metrics.items()}


def not_tested(fit: OwnFit) -> str | None:
    """Why there is no test, None where there is one."""
    if not overrides(fit.module, "test_step"):
        return f"{type(fit.module).__name__} has no test_step"
    inner = getattr(fit.data, "inner", None)
    bringing = fit.module if isinstance(inner, OwnLoaders) else inner
    if bringing is not None and not overrides(bringing, "test_dataloader"):
        return f"{type(bringing).__name__} has no test_dataloader"
    return None


def _data_for(fit: OwnFit, training: bool) -> dict[str, Any]:
    """The arguments of ``fit`` or ``test`` that say what to go through: a person's data module as it is, or ours."""
    data, trainer = fit.data, fit.trainer
    inner = getattr(data, "inner", None)
    if isinstance(inner, OwnLoaders):
        return {}
    if inner is not None:
        return {"datamodule": adopt_data_module(inner, cast(str, library_of(fit.module)))}
    if not training:
        return {"dataloaders": Batches(data.loader_of(cast(Any, data.test)), data.spec)}
    loader = data.training_loader(fit.plan.seed, rank=trainer.global_rank, world_size=trainer.world_size)
    held_out = data.validation
    validation = (
        None if held_out is None or not len(held_out) else Batches(data.loader_of(held_out), data.spec)
    )
    return {"train_dataloaders": Batches(loader, data.spec), "val_dataloaders": validation}


def _callbacks(plan: FitPlan, watched: Watched, library: str) -> list[Callback]:
    callbacks: list[Callback] = []
    for name, node in plan.callbacks.items():
        if node and "_target_" in node:
            callbacks.append(_built(node, f"callbacks.{name}", library))
        elif name == "early_stopping" and node and node.get("patience") is not None:
            callbacks.append(in_library(Patience, library)(watched, **node))
    progress = plan.callbacks.get("progress")
    if progress and plan.trainer.get("enable_progress_bar", True) and not _has(callbacks, "ProgressBar"):
        callbacks.append(in_library(Progress, library)(float(progress.get("refresh_seconds", 0.25))))
    return callbacks


def _has(callbacks: list[Callback], kind: str) -> bool:
    """Whether one of the callbacks descends from a class of Lightning's of this name."""
    return any(base.__name__ == kind for callback in callbacks for base in type(callback).__mro__)


def _loggers(settings: Node, directory: Path, library: str) -> list[Any]:
    """Lightning's own loggers that the settings name: ``csv``, ``tensorboard``, or nodes with ``_target_``."""
    loggers = import_module(f"{library}.loggers")
    found: list[Any] = []
    for name, node in settings.items():
        if isinstance(node, dict) and "_target_" in node:
            found.append(_built(node, f"logger.{name}", library))
        elif name == "csv" and node:
            found.append(loggers.CSVLogger(str(directory), name="csv", version=""))
        elif name == "tensorboard" and node:
            found.append(loggers.TensorBoardLogger(str(directory), name="tensorboard", version=""))
    return found


def _in_order(steps: StepLogger, loggers: list[Any]) -> list[Any]:
    """All loggers, first the one that the module finds as ``self.logger``: a person's own, TensorBoard's, or ours."""
    rows_only = [logger for logger in loggers if type(logger).__name__ == "CSVLogger"]
    return [*(logger for logger in loggers if logger not in rows_only), steps, *rows_only]


def _built(node: Node, key: str, library: str) -> Any:
    return build({**node, "_target_": name_in_library(str(node["_target_"]), library)}, key=key)
