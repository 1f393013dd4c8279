"""The pipeline from Python: the same runs as the command line makes, in a script or a notebook."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.quoting import understood
from pipeline.errors import UserError
from pipeline.jobs import hydra_of, refuse_lists_of_values, run_once
from pipeline.process_life import let_threads_sleep

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig

    from pipeline.models.saved import Predictor
    from pipeline.runs.result import RunResult


def train(
    *overrides: str,
    data: Any = None,
    config_dir: str | Path | None = None,
    allow: Sequence[str] = (),
) -> RunResult:
    """Train, test and record a model: ``python -m pipeline OVERRIDES`` with the same bits.

    Args:
        *overrides: Words of the command line.
        data: A data frame of pandas or polars, or an Arrow table, to train on in the place of a file (``data=csv`` is
            understood). It is kept as a Parquet file named after its content, so that the run can be reproduced,
            searched and resumed.
        config_dir: Directory of configurations of one's own.
        allow: Packages, or names of classes, that the configuration may name.

    Returns:
        The result, which also lies in the run's directory.

    Raises:
        UserError: Something is wrong with the configuration or the data.
        Diverged: The loss became NaN or infinite.

    Example:
        >>> result = train("+experiment=digits_mlp", "model.dropout=0.2")
        >>> result.metrics["test/accuracy"]
        >>> train("data.target=price", data=frame)
    """
    from hydra.types import RunMode

    started = time.time()
    with _session(config_dir, allow) as hydra:
        words = understood(overrides)
        refuse_lists_of_values(words)
        if data is not None:
            words = _with_frame(hydra, words, data)
        cfg = hydra.config_loader.load_configuration("config", words, RunMode.RUN)
        if cfg.task.name != "train":
            raise UserError(f"task={cfg.task.name}: train() trains; for other tasks use python -m pipeline")
        result: RunResult = run_once(hydra, "config", cfg, lambda cfg: _trained(cfg, started))
        return result


@dataclass(frozen=True)
class SweepResult:
    """What a sweep came to.

    Args:
        trials: A row a trial: its number, state, values and parameters.
        best_params: Settings of the best trial, by key.
        best_value: Value of the objective in that trial; None where no trial was completed.
        directory: Directory of the sweep.
    """

    trials: pd.DataFrame
    best_params: dict[str, Any]
    best_value: float | None
    directory: Path


def sweep(
    *overrides: str,
    n_trials: int | None = None,
    config_dir: str | Path | None = None,
    allow: Sequence[str] = (),
) -> SweepResult:
    """Search for better settings with Optuna: ``python -m pipeline -m OVERRIDES``.

    Args:
        *overrides: Words of the command line, a search space among them (``+sweep=mlp``).
        n_trials: Number of trials in all.
        config_dir: Directory of configurations of one's own.
        allow: Packages, or names of classes, that the configuration may name.

    Raises:
        UserError: The sweep cannot work.

    Example:
        >>> sweep("+experiment=digits_mlp", "+sweep=mlp", n_trials=3).best_params
    """
    from hydra.core.utils import configure_log
    from hydra.types import HydraContext, RunMode

    from pipeline.config.hydra_inside import Callbacks

    words = [*understood(overrides), "hydra.mode=MULTIRUN"]
    if n_trials is not None:
        words.append(f"hydra.sweeper.n_trials={n_trials}")
    with _session(config_dir, allow) as hydra:
        cfg = hydra.config_loader.load_configuration("config", words, RunMode.MULTIRUN)
        from pipeline.sweeps.sweeper import optimise

        configure_log(cfg.hydra.hydra_logging, cfg.hydra.verbose)
        context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(cfg))
        found = optimise(cfg, context, [str(word) for word in cfg.hydra.overrides.task])
    best = found.best[0] if found.best else None
    return SweepResult(
        trials=found.study.trials_dataframe(),
        best_params=dict(best.params) if best else {},
        best_value=best.values[0] if best and best.values else None,
        directory=Path(found.plan.directory),
    )


def load(model: str | Path) -> Predictor:
    """A trained model with its encoder: raw input in, predictions out.

    Args:
        model: Directory of a run or of a saved model, or a run's id, key or name in the tracking store.

    Raises:
        UserError: There is no such model.

    Example:
        >>> load("experiments/runs/digits_mlp/TIME").predict(images)
    """
    from pipeline.models.saved import load as read

    place = Path(model).expanduser()
    if place.is_dir():
        return read(place / "model" if (place / "model").is_dir() else place)
    from pipeline.config import compose
    from pipeline.runs.finished import load_predictor, open_store

    store = open_store(compose(["data=digits"], for_this_machine=False))
    return load_predictor(store, store.model_uri(str(model)))


def _trained(cfg: DictConfig, started: float) -> RunResult:
    from pipeline.runs.hooks import Hooks
    from pipeline.runs.train import train as run

    # What is recorded names the directory itself, not how it was found.
    cfg.paths.run_dir = cfg.paths.run_dir
    return run(cfg, Hooks(started=started))


def _with_frame(hydra: Any, words: list[str], frame: Any) -> list[str]:
    """The words of a command with a frame as its table."""
    from hydra.types import RunMode

    from pipeline.config.quoting import quoted
    from pipeline.data.tables.frames import keep_frame

    if any(word.startswith(("data.path=", "+data.path=")) for word in words):
        raise UserError(
            "data.path names a file, but a frame was passed as data as well: leave one of them out"
        )
    if not any(word.split("=")[0] == "data" for word in words):
        words = ["data=csv", *words]
    cfg = hydra.config_loader.load_configuration("config", [*words, "data.path=frame"], RunMode.RUN)
    path = keep_frame(frame, Path(cfg.paths.experiments_dir).absolute() / "frames")
    return [*words, f"data.path={quoted(str(path))}", "data.format=parquet"]


@contextmanager
def _session(config_dir: str | Path | None, allow: Sequence[str]) -> Iterator[Any]:
    """Hydra for one call; logging is as it was before, afterwards."""
    from pipeline.config.allowing import allowing

    let_threads_sleep()
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        with allowing(list(allow)), hydra_of(None if config_dir is None else str(config_dir), True) as hydra:
            yield hydra
    finally:
        for handler in [handler for handler in root.handlers if handler not in handlers]:
            root.removeHandler(handler)
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
