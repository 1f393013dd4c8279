"""Train a model, test it, record it: the way of one run from top to bottom."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from pipeline.errors import Diverged, Interrupted, UserError
from pipeline.runs.environment import environment
from pipeline.runs.hooks import Hooks
from pipeline.runs.recording import (
    AnyRun,
    class_signature,
    git_state,
    is_main_process,
    open_run,
    recorded,
    requirements,
)
from pipeline.runs.result import RunResult
from pipeline.runs.state import RunState, process_start, read

if TYPE_CHECKING:
    from pipeline.data.core.module import DataModule
    from pipeline.models.base import BaseModule
    from pipeline.training.fit import Fit

log = logging.getLogger(__name__)


def train(cfg: DictConfig, hooks: Hooks | None = None) -> RunResult:
    """Train, test and record the model that ``cfg`` describes.

    A configuration with ``data.folds``, ``seeds`` or ``variants`` is several fits under one parent run.

    Args:
        cfg: a composed and checked configuration.
        hooks: what the caller adds.

    Returns:
        The result that also lies in the run directory as ``result.json``.

    Raises:
        UserError: bad configuration or data; nothing is left in the tracking store.
        Diverged: the loss became NaN or infinite.
        Interrupted: by a signal, with the state saved.
    """
    hooks = hooks or Hooks()
    directory = hooks.directory or output_directory()
    if cfg.logger.get("mlflow") and is_main_process():
        from pipeline.tracking import start_sender

        # It imports the tracking library while this process imports torch.
        start_sender(Path(cfg.paths.experiments_dir))
    from pipeline.config.checks import check_classes
    from pipeline.runs.several import parts, train_many

    check_classes(cfg)
    if fits := parts(cfg):
        return train_many(cfg, fits, hooks, directory, train_one)
    return train_one(cfg, hooks, directory)


def output_directory() -> Path:
    """The run directory that Hydra made."""
    from hydra.core.hydra_config import HydraConfig

    return Path(HydraConfig.get().runtime.output_dir)


def train_one(cfg: DictConfig, hooks: Hooks, directory: Path) -> RunResult:
    """One fit and its test, recorded in ``directory``."""
    started = process_start() if hooks.parent is None else time.time()
    directory.mkdir(parents=True, exist_ok=True)
    state = RunState(directory)
    resuming = cfg.resume is not None and bool(read(directory))
    try:
        data, model = _prepared(cfg, hooks)
    except UserError:
        raise
    except Exception:
        # Not the user's doing: worth a failed run that others can see.
        tracked = open_run(cfg, directory, hooks, run_name(cfg, hooks), resume=resuming)
        with recorded(tracked):
            raise
    tracked = open_run(cfg, directory, hooks, run_name(cfg, hooks), resume=resuming)
    state.begin(cfg)
    with recorded(tracked), state.ended_by():
        result = _fit_and_test(
            cfg, hooks, directory, data, model, tracked, state if resuming else None, started
        )
    tracked.finish("FINISHED")
    if hooks.parent is None:
        tracked.wait(hooks.wait)
    result.run_id = tracked.run_id
    result.seconds["total"] = time.time() - started
    if is_main_process():
        result.write()
    state.finish()
    return result


def run_name(cfg: DictConfig, hooks: Hooks) -> str:
    """The name of the run in the tracking store."""
    return hooks.tags.get("mlflow.runName") or f"{cfg.name}-seed{cfg.seed}"


def _prepared(cfg: DictConfig, hooks: Hooks) -> tuple[DataModule, BaseModule]:
    import pytorch_lightning as pl

    from pipeline.training.building import build_data, build_model
    from pipeline.training.trainer import quieten

    quieten()
    pl.seed_everything(int(cfg.seed), verbose=False)
    data = build_data(cfg)
    if hooks.on_data:
        hooks.on_data(data)
    # Again: how many numbers the data drew must not decide the model's starting weights.
    pl.seed_everything(int(cfg.seed), verbose=False)
    model = build_model(cfg, data)
    if hooks.on_model:
        hooks.on_model(data, model)
    return data, model


def _fit_and_test(
    cfg: DictConfig,
    hooks: Hooks,
    directory: Path,
    data: DataModule,
    model: BaseModule,
    tracked: AnyRun,
    resumed: RunState | None,
    started: float,
) -> RunResult:
    from pipeline.training.building import parameters
    from pipeline.training.fit import prepare_fit, run_fit, start_from
    from pipeline.training.memory import BatchParts

    _record_data(data, model, tracked)
    if cfg.ckpt_path:
        start_from(model, cfg.ckpt_path)

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        tracked.log_metrics(metrics, step=epoch)
        if hooks.on_epoch:
            hooks.on_epoch(epoch, metrics)

    def on_rewind(checkpoint: Path) -> None:
        tracked.rewind(resumed_epoch(checkpoint))

    fit = prepare_fit(cfg, data, model, directory, on_epoch, on_rewind)
    result = RunResult(
        directory=directory,
        run_id=tracked.run_id,
        experiment=str(cfg.name),
        data=_describe(data),
        model={"class": type(model).__name__, "parameters": parameters(model), **_hyperparameters(model)},
        metrics={},
        baseline={},
        seconds={},
        samples_per_second=0.0,
        seed=int(cfg.seed),
        git_commit=git_state()[0],
    )
    if cfg.train:
        checkpoint = resumed.checkpoint() if resumed else None
        if resumed is not None:
            tracked.rewind(resumed_epoch(checkpoint) if checkpoint else 0)
        try:
            run_fit(cfg, fit, data, model, checkpoint)
        except (Interrupted, Diverged):
            _keep_partial_plots(fit, directory, tracked)
            raise
        _note_fit(fit, model, result)
    result.seconds |= {"startup": (fit.started or time.time()) - started, "fit": fit.seconds, "test": 0.0}
    tested = bool(cfg.test) and hooks.test
    if tested and data.test is not None and is_main_process():
        parts = BatchParts(data, model, bool(cfg.trainer.get("auto_batch_size")))
        parts.within(lambda: _test(fit, data, model, result))
    if is_main_process():
        if hooks.baseline:
            _baseline(data, result, tested=tested)
        tracked.log_metrics(final_metrics(result))
        if hooks.reports:
            _report(fit, data, model, result, tracked)
    return result


def final_metrics(result: RunResult) -> dict[str, float]:
    """What is recorded of a run as a whole: its curves end with the last epoch, ``best/…`` is the chosen one's."""
    return {
        f"best/{name}" if name.startswith("val/") else name: value
        for name, value in result.metrics.items()
        if not name.startswith("train/")
    }


def resumed_epoch(checkpoint: Path) -> int:
    """The last epoch (from 1) whose metrics were recorded before ``checkpoint`` was written."""
    from pipeline.training.checkpoints import load_checkpoint

    return int(load_checkpoint(checkpoint)["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])


def _record_data(data: DataModule, model: BaseModule, tracked: AnyRun) -> None:
    tracked.set_tags(
        {"data.requested": data.requested, "data.used": data.used, "model": type(model).__name__}
    )
    if not tracked.key:
        return
    tracked.log_dataset(
        data.used,
        data.digest,
        data.source or data.used,
        "training",
        schema=data.spec.to_dict() if len(data.spec.classes) < 100 else None,
        profile={
            "train": len(data.train),
            "validation": len(data.validation or ()),
            "test": len(data.test or ()),
        },
    )
    tracked.set_tags({"data.digest": data.digest})
    tracked.log_text(str(model), "model_summary.txt")
    # What a later reproduction is compared with.
    tracked.log_text(json.dumps(environment(), indent=2), "environment.json")


def _describe(data: DataModule) -> dict[str, Any]:
    return {
        "requested": data.requested,
        "used": data.used,
        "digest": data.digest,
        "train": data.train.samples,
        "validation": 0 if data.validation is None else data.validation.samples,
        "test": 0 if data.test is None else data.test.samples,
        "target": data.spec.target_name,
        "unit": data.spec.target_unit,
    }


def _hyperparameters(model: BaseModule) -> dict[str, Any]:
    return {key: value for key, value in dict(model.hparams).items() if key != "spec"}


def _note_fit(fit: Fit, model: BaseModule, result: RunResult) -> None:
    """The weights of the best epoch, and that epoch's metrics."""
    fit.checkpoints.restore_best(model)
    recorder = fit.recorder
    result.history = recorder.history
    result.samples_per_second = recorder.samples / recorder.seconds if recorder.seconds else 0.0
    best = fit.checkpoints.best_epoch
    result.best_epoch = None if best is None or fit.checkpoints.monitor is None else best + 1
    for name, points in recorder.history.items():
        # Where not every epoch is validated, the best one's values may be those of the epoch before.
        until = [value for epoch, value in points if epoch <= (result.best_epoch or epoch)]
        if until and name.startswith(("train/", "val/")):
            result.metrics[name] = until[-1]


def _test(fit: Fit, data: DataModule, model: BaseModule, result: RunResult) -> None:
    """The one look at the test split."""
    from pipeline.training.evaluating import outputs_of, scores

    began = time.perf_counter()
    logits, targets = outputs_of(fit.trainer, model, data.test_dataloader())
    result.metrics |= {f"test/{name}": value for name, value in scores(model, logits, targets).items()}
    model.outputs = [(logits, targets)]
    result.seconds["test"] = time.perf_counter() - began


def _baseline(data: DataModule, result: RunResult, tested: bool) -> None:
    for position, (name, baseline) in enumerate(data.baselines().items()):
        found: dict[str, float] = {}
        if data.validation is not None and len(data.validation):
            found |= {
                f"val/{key}": value for key, value in baseline(data.train, data.validation, data.spec).items()
            }
        if tested and data.test is not None:
            found |= {
                f"test/{key}": value for key, value in baseline(data.train, data.test, data.spec).items()
            }
        if not found:
            found = {
                f"train/{key}": value for key, value in baseline(data.train, data.train, data.spec).items()
            }
        if position == 0:
            result.baseline = {"name": name, **found}
        else:
            result.baseline.setdefault("others", {})[name] = found
        prefix = "baseline" if position == 0 else f"baseline/{name}"
        result.metrics |= {
            f"{prefix}/{key.replace('/', '_') if position else key}": value for key, value in found.items()
        }


def _report(fit: Fit, data: DataModule, model: BaseModule, result: RunResult, tracked: AnyRun) -> None:
    """Plots, the saved model and the checkpoints, on disk and in the tracking store."""
    from pipeline.models.saved import save
    from pipeline.runs.plotting import plots_of_run
    from pipeline.training.watching import WRITTEN

    for plot in plots_of_run(data, model, result):
        tracked.log_artifact(plot, "plots")
    if (written := result.directory / WRITTEN).exists():
        tracked.log_artifact(written)
    bundle = save(model, data.encoder, result.directory / "model")
    if tracked.key:
        tracked.log_model(
            bundle,
            signature=class_signature(
                data.encoder.signature(),
                data.spec.classes,
                data.spec.per_step,
                data.spec.task == "regression",
            ),
            input_example=_example(data, result.directory),
            requirements=requirements(),
        )
        for checkpoint in (fit.checkpoints.best, fit.checkpoints.last):
            if checkpoint.exists():
                tracked.log_artifact(checkpoint, "checkpoints", link_only=True)


def _example(data: DataModule, directory: Path) -> Any:
    """The encoder's example as MLflow takes it: an array in a file, or JSON values."""
    import numpy as np

    example = data.encoder.example()
    if isinstance(example, np.ndarray):
        path = directory / "input_example.npy"
        np.save(path, example, allow_pickle=False)
        return path
    return example.to_dict(orient="records") if hasattr(example, "to_dict") else example


def _keep_partial_plots(fit: Fit, directory: Path, tracked: AnyRun) -> None:
    from pipeline.reports.curves import learning_curves

    if fit.recorder.history and is_main_process():
        path = directory / "plots" / "learning_curves.png"
        tracked.log_artifact(learning_curves(fit.recorder.history, None, path), "plots")
