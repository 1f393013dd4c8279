"""Trials that compute a function instead of training, and plans for them; importable by worker processes."""

from __future__ import annotations

import os
import signal
import time
from itertools import count
from pathlib import Path
from typing import Any

import optuna
from hydra.types import RunMode
from omegaconf import DictConfig
from optuna.trial import FrozenTrial

from pipeline.config.loading import loader
from pipeline.sweeps.composing import source_of
from pipeline.sweeps.plan import Plan
from pipeline.sweeps.running import Context, Outcome
from pipeline.sweeps.space import read_space
from pipeline.sweeps.storage import open_storage
from pipeline.sweeps.study import Identity, identity

QUADRATIC = "toy_sweeps.quadratic"
EPOCHS = 4
EXPERIMENT = ("experiment=digits_mlp", "logger=none")


def quadratic(config: DictConfig, context: Context) -> Outcome:
    """(dropout - 0.3)², approached over four epochs."""
    end = (config.model.dropout - 0.3) ** 2
    for epoch in range(EPOCHS):
        context.on_report(epoch, {"val/loss": end + 1.0 / (epoch + 1)})
    return Outcome({"val/loss": end, "val/accuracy": 1 - end}, {"name": "zero", "val/loss": 0.5})


def slow(config: DictConfig, context: Context) -> Outcome:
    """`quadratic`, a tenth of a second an epoch."""
    for epoch in range(EPOCHS):
        time.sleep(0.1)
        context.on_report(epoch, {"val/loss": config.model.dropout + 1.0 / (epoch + 1)})
    return Outcome({"val/loss": config.model.dropout})


def seconds(config: DictConfig, context: Context) -> Outcome:
    """`slow`, half a second an epoch."""
    for epoch in range(EPOCHS):
        time.sleep(0.5)
        context.on_report(epoch, {"val/loss": config.model.dropout + 1.0 / (epoch + 1)})
    return Outcome({"val/loss": config.model.dropout})


def seconds_to_sleep(dropout: float) -> float:
    """1 to 10 s for a dropout in [0, 0.9]."""
    return 1.0 + 10.0 * dropout


def sleeping(config: DictConfig, context: Context) -> Outcome:
    """Sleeps instead of training."""
    time.sleep(seconds_to_sleep(config.model.dropout))
    return Outcome({"val/loss": config.model.dropout})


def held(config: DictConfig, context: Context) -> Outcome:
    """`quadratic`, but trials from number TOY_HOLD on go on reporting until they are ended."""
    for epoch in count():
        context.on_report(epoch, {"val/loss": config.model.dropout + 1.0 / (epoch + 1)})
        if context.number < int(os.environ["TOY_HOLD"]):
            break
        time.sleep(0.1)
    return Outcome({"val/loss": config.model.dropout})


def deaf(config: DictConfig, context: Context) -> Outcome:
    """Hears no signal, and does not end."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
    context.on_report(0, {"val/loss": 1.0})
    while True:
        time.sleep(1)


def killed_once(config: DictConfig, context: Context) -> Outcome:
    """The first attempt at trials 2, 5 and 8 kills its process."""
    marker = Path(os.environ["TOY_MARKERS"]) / str(context.number)
    context.on_report(0, {"val/loss": 1.0})
    if context.number in (2, 5, 8) and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return quadratic(config, _later(context))


def _later(context: Context) -> Context:
    report = context.on_report
    return Context(context.number, context.metrics, lambda step, metrics: report(step + 1, metrics))


def plan(root: Path, *overrides: str, **changes: Any) -> Plan:
    """A plan to minimise `quadratic`; by default over the dropout in [0, 0.9]."""
    hydra_loader = loader(None)
    found = read_space(None, [*EXPERIMENT, *(overrides or ["model.dropout=interval(0.0,0.9)"])])
    base = hydra_loader.load_configuration("config", list(found.fixed), RunMode.RUN)
    settings: dict[str, Any] = {
        "study_name": "toy",
        "directory": str(root / "sweep"),
        "n_trials": 6,
        "source": source_of(hydra_loader, base),
        "runner": QUADRATIC,
        "space": found.as_json(),
        "fixed": found.fixed,
        "sampler": {"_target_": "optuna.samplers.RandomSampler"},
    }
    return Plan(**{**settings, **changes})


def identity_of(made: Plan) -> Identity:
    """What must not change of a plan."""
    return identity(made, {"epochs": EPOCHS})


def trials(url: str, name: str = "toy") -> list[FrozenTrial]:
    """The trials of a study, none where it has not begun; read beside processes that make its tables."""
    storage = open_storage(url)
    try:
        return optuna.load_study(study_name=name, storage=storage).trials
    except KeyError:
        return []
    finally:
        storage.engine.dispose()


def url(directory: Path) -> str:
    """A SQLite storage in the directory."""
    return f"sqlite:///{directory / 'optuna.db'}"
