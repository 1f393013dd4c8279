"""The Hydra sweepers: from `hydra.sweeper.*` and the command line to a sweep."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from hydra.core.config_loader import ConfigLoader
from hydra.types import HydraContext
from omegaconf import DictConfig, ListConfig, OmegaConf
from optuna.trial import TrialState

from pipeline.config.checks import check_classes
from pipeline.config.masking import holds_secret
from pipeline.config.trackers import refuse_missing, trackers_of
from pipeline.errors import UserError
from pipeline.runs.settings import NOT_OF_A_STUDY, settings_of
from pipeline.sweeps import algorithms, space, study
from pipeline.sweeps.addresses import refuse_written_password, storage_url
from pipeline.sweeps.composing import Composer, source_of
from pipeline.sweeps.engine import Finished, run_sweep
from pipeline.sweeps.engines.environment import visible_gpus
from pipeline.sweeps.engines.ray import Ray, is_ray
from pipeline.sweeps.objective import read_objectives
from pipeline.sweeps.parent import NoParent, Parent
from pipeline.sweeps.plan import Plan
from pipeline.sweeps.running import read_search_space_function
from pipeline.sweeps.storage import GRACE_SECONDS, HEARTBEAT_SECONDS, open_storage
from pipeline.sweeps.time_limit import limits
from pipeline.sweeps.trials import JOB, TRIAL
from pipeline.tracking import Reference, absolute_uri

log = logging.getLogger(__name__)

_LAUNCHING = ("ddp", "fsdp", "deepspeed", "xla")


def optimise(
    config: DictConfig,
    context: HydraContext,
    arguments: Sequence[str],
    nested_under: Reference | None = None,
    started: float | None = None,
) -> Finished:
    """Run an Optuna sweep (`hydra/sweeper=optuna`).

    Args:
        config: Configuration as composed for the multirun, Hydra's part included.
        context: Hydra's context, for its loader.
        arguments: Overrides as typed, without Hydra's own.
        nested_under: Tracked run that the study's run is nested under.
        started: When the command began (seconds since 1970), from which on `timeout` counts; None for now.

    Raises:
        UserError: The sweep cannot work; nothing was run yet.
    """
    settings = config.hydra.sweeper
    _refuse_common(config)
    found = space.read_space(_plain(settings.get("params")), arguments, context.config_loader)
    custom = settings.get("custom_search_space")
    read_search_space_function(custom)
    if not found.distributions and custom is None:
        raise UserError(
            "The sweep has nothing to vary: give a search space (+sweep=mlp), a sweep on the command line"
            " ('optimizer.lr=tag(log,interval(1e-4,1e-1))'), or hydra.sweeper.params."
        )
    draft = _draft(config, context, found, started)
    base = Composer(draft, context.config_loader).compose(_first_classes(found))
    _refuse_experiment(config, base)
    check_classes(base)
    _refuse_varied_trainers(found, Composer(draft, context.config_loader))
    metrics, directions = read_objectives(base, settings.get("metrics"), settings.get("direction"))
    folds = bool(OmegaConf.select(base, "data.folds"))
    epochs = OmegaConf.select(base, "trainer.max_epochs")
    pruner = algorithms.read_pruner(
        settings.get("pruner"),
        objectives=len(metrics),
        folds=folds,
        epochs=epochs if isinstance(epochs, int) and epochs > 0 else None,
    )
    sampler = algorithms.read_sampler(settings.get("sampler"))
    own = _own_settings(found, base)
    plan = _with(
        draft,
        runner=TRIAL,
        metrics=metrics,
        directions=directions,
        space=found.as_json(),
        sampler=sampler,
        pruner=pruner,
        n_trials=_total(int(settings.n_trials), sampler, found),
        fold_reports=folds,
        custom_search_space=custom,
        max_parameters=settings.get("max_parameters"),
        skip_duplicates=bool(settings.get("skip_duplicates", True)),
        max_failure_rate=float(settings.max_failure_rate),
    )
    algorithms.build_sampler(sampler, plan.seed, 0)
    algorithms.build_pruner(pruner)
    now = study.identity(plan, experiment_of(base, found.distributions))
    plan = _with(plan, study_name=settings.get("study_name") or f"{base.name}-{_digest(now)}")
    seeds = study.read_seed_trials(_plain(settings.get("seed_trials")), found)
    return _run(config, context, plan, now, own=own, seeds=seeds, nested_under=nested_under)


def _first_classes(found: space.SearchSpace) -> list[str]:
    """The first of each class that varies, without which what is common to all trials fits none."""
    return [
        f"{key}={kind.choices[0]}"
        for key, kind in found.distributions.items()
        if key.endswith("._target_") and isinstance(kind, optuna.distributions.CategoricalDistribution)
    ]


def best_settings(
    config: DictConfig, loads: ConfigLoader, arguments: Sequence[str], nested_under: Reference | None = None
) -> list[str] | None:
    """The best settings of a sweep that another task starts, as overrides; None where no trial was completed.

    Args:
        config: Configuration as ``loads`` composed it for a multirun, Hydra's part included.
        loads: Loader that composes the trials.
        arguments: Overrides, see :func:`optimise`.
        nested_under: Tracked run, likewise.
    """
    from pipeline.config.hydra_inside import Callbacks

    context = HydraContext(config_loader=loads, callbacks=Callbacks(config))
    best = optimise(config, context, arguments, nested_under).best
    return [space.as_override(key, value) for key, value in best[0].params.items()] if best else None


def multirun(
    config: DictConfig, context: HydraContext, arguments: Sequence[str], started: float | None = None
) -> Finished:
    """Run every combination of the values typed (`hydra/sweeper=multirun`), under one parent.

    A multirun that was not completed is gone on with by the same command: jobs that are done stay, failed and missing
    ones run. A completed one starts anew.

    Args:
        config: Configuration, see :func:`optimise`.
        context: Hydra's context, likewise.
        arguments: Overrides, likewise.
        started: When the command began, likewise.

    Raises:
        UserError: The configuration of a job cannot work; nothing was run yet.
    """
    settings = config.hydra.sweeper
    _refuse_common(config)
    typed = [f"{key}={value}" for key, value in (_plain(settings.get("params")) or {}).items()]
    everything = [*typed, *arguments]
    jobs = space.jobs(everything, context.config_loader)
    found = space.SearchSpace(
        {key: optuna.distributions.CategoricalDistribution(_distinct(jobs, key)) for key in jobs[0]},
        space.read_space(None, everything, context.config_loader).fixed,
    )
    draft = _with(
        _draft(config, context, found, started),
        runner=JOB,
        jobs=jobs,
        n_trials=len(jobs),
        space=found.as_json(),
    )
    draft = _with(
        draft, max_failure_rate=1.0, skip_duplicates=False, metrics=["objective"], directions=["minimize"]
    )
    composer = Composer(draft, context.config_loader)
    composed = [composer.compose([f"{key}={value}" for key, value in job.items()]) for job in jobs]
    for job in composed:
        _refuse_launching(job)
        if job.task.name == "train":
            check_classes(job)
    now = study.identity(draft, experiment_of(composed[0], found.distributions))
    url = _url(config, composed[0])
    name = f"multirun-{composed[0].name}-{_digest(now)}"
    name = settings.get("study_name") or _unfinished_name(url, name, len(jobs))
    return _run(config, context, _with(draft, study_name=name), now)


def _run(
    config: DictConfig,
    context: HydraContext,
    plan: Plan,
    now: study.Identity,
    own: Mapping[str, space.Value] | None = None,
    seeds: Sequence[Mapping[str, space.Value]] = (),
    nested_under: Reference | None = None,
) -> Finished:
    loader = context.config_loader
    base = Composer(plan, loader).compose([f"{key}={value}" for key, value in (plan.jobs or [{}])[0].items()])
    if plan.launcher:
        _refuse_out_of_reach(_url(config, base), base)
        if is_ray(plan.launcher):
            Ray.read(plan.launcher).remote(lambda: None)
    directory = Path(plan.directory)
    directory.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, directory / "multirun.yaml")
    typed = any(str(override).startswith("hydra.sweep.dir=") for override in config.hydra.overrides.hydra)
    return run_sweep(
        plan,
        _url(config, base),
        now,
        own=own,
        seeds=seeds,
        loader=loader,
        parent=_parent(base, plan, nested_under),
        keep_directory=typed,
    )


def _draft(
    config: DictConfig, context: HydraContext, found: space.SearchSpace, started: float | None
) -> Plan:
    settings = config.hydra.sweeper
    began = time.time() if started is None else started
    sampler_seed = OmegaConf.select(settings, "sampler.seed")
    return Plan(
        study_name="",
        directory=str(Path(str(config.hydra.sweep.dir)).expanduser().absolute()),
        n_trials=1,
        source=source_of(context.config_loader, config),
        runner=TRIAL,
        fixed=found.fixed,
        seed=int(config.seed if sampler_seed is None else sampler_seed),
        n_jobs=int(settings.get("n_jobs", 1)),
        retries=int(settings.get("retries", 3)),
        **limits(began, settings.get("timeout")),
        grace=float(settings.get("grace", GRACE_SECONDS)),
        launcher={} if _is_basic(config) else _plain(config.hydra.launcher),
        working_directory=str(Path.cwd()),
    )


def _is_basic(config: DictConfig) -> bool:
    return str(config.hydra.launcher._target_).endswith(".BasicLauncher")


def _with(plan: Plan, **changes: Any) -> Plan:
    from dataclasses import replace

    return replace(plan, **changes)


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _refuse_common(config: DictConfig) -> None:
    grace, least = float(config.hydra.sweeper.get("grace", GRACE_SECONDS)), 3 * HEARTBEAT_SECONDS
    if grace < least:
        raise UserError(
            f"hydra.sweeper.grace={grace:g}: workers give a sign of life every {HEARTBEAT_SECONDS} seconds; expected at"
            f" least {least}."
        )
    if OmegaConf.select(config, "resume") is not None:
        raise UserError(
            f"resume={config.resume}: a sweep goes on by itself when its command is given again; leave resume out."
        )
    refuse_written_password(_plain_raw(config.hydra.sweeper).get("storage"))


def _refuse_out_of_reach(url: str, base: DictConfig) -> None:
    """Refuse what workers on other machines could not reach, or what an engine would have to keep."""
    missing = []
    if url.startswith("sqlite"):
        missing.append("hydra.sweeper.storage=postgresql+psycopg://USER@HOST/DATABASE (or PIPELINE_STORAGE)")
    if OmegaConf.select(base, "logger.mlflow"):
        store = absolute_uri(base.logger.get("tracking_uri"), Path(str(base.paths.experiments_dir)))
        if store.startswith(("sqlite:", "file:")):
            missing.append("logger.tracking_uri=http://HOST:5000 (or MLFLOW_TRACKING_URI; or logger=none)")
    if missing:
        raise UserError(
            "hydra/launcher: workers on other machines cannot share files of this one. Set "
            + " and ".join(missing)
        )
    if holds_secret(url) or (os.environ.get("PGPASSWORD") and not _has_password_file()):
        raise UserError(
            "hydra/launcher: a password would be kept by the engine where others read it. Put it into ~/.pgpass "
            "(HOST:PORT:DATABASE:USER:PASSWORD, mode 600) on the workers' machines, and leave it out of the address"
        )


def _has_password_file() -> bool:
    return Path(os.environ.get("PGPASSFILE") or Path.home() / ".pgpass").is_file()


def _refuse_experiment(config: DictConfig, base: DictConfig) -> None:
    task = OmegaConf.select(base, "task.name", default="train")
    if task != "train":
        raise UserError(f"task={task}: an Optuna sweep optimises training (task=train).")
    _refuse_launching(base)
    fits = config.hydra.sweeper.get("fits_model")
    if fits is None:
        return
    choice = str(base.hydra.runtime.choices.get("model"))
    target = str(OmegaConf.select(base, "model._target_", default=""))
    cell = OmegaConf.select(base, "model.cell")
    if fits not in (choice, target.rpartition(".")[2].lower() if cell is None else cell):
        sweep = base.hydra.runtime.choices.get("sweep")
        raise UserError(
            f"sweep={sweep} is made for model={fits}, but the experiment's model is {choice} ({target})."
            f" Use +sweep={choice} or an experiment with model={fits}."
        )


def _refuse_varied_trainers(found: space.SearchSpace, composer: Composer) -> None:
    for key, distribution in found.distributions.items():
        if space.plain_key(key).split(".")[0] == "trainer":
            for choice in getattr(distribution, "choices", ()):
                _refuse_launching(composer.compose([space.as_override(key, choice)]))


def _refuse_launching(config: DictConfig) -> None:
    """Refuse a trainer that starts processes of its own, each of which would start the whole sweep again."""
    trainer = config.get("trainer")
    if trainer is None:
        return
    strategy = trainer.get("strategy", "auto")
    name = str(strategy.get("_target_", "")) if isinstance(strategy, DictConfig) else str(strategy)
    launching = any(word in name.lower() for word in _LAUNCHING)
    devices, nodes = trainer.get("devices", 1), int(trainer.get("num_nodes") or 1)
    if devices in ("auto", -1, "-1") and str(trainer.get("accelerator")) in ("auto", "gpu", "cuda"):
        several = len(visible_gpus()) > 1 or launching
    else:
        one = devices in (1, "1", "auto", -1, "-1") or (isinstance(devices, ListConfig) and len(devices) == 1)
        several = not one
    if nodes > 1 or several:
        raise UserError(
            f"trainer.strategy={name} with trainer.devices={devices}: this trainer starts processes that run the whole"
            " command again, sweep included, so it cannot run inside a sweep. Use trainer=auto, trainer=cpu or"
            " trainer=gpu with trainer.devices=1; hydra.sweeper.n_jobs spreads trials over the GPUs."
        )


def experiment_of(base: DictConfig, varied: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that make the experiment: resolved, by dotted key, without what varies or is about the machine."""
    content = settings_of(base, ())
    raw = dict(_flat(_plain_raw(base)))
    left_out = [*NOT_OF_A_STUDY, *(space.plain_key(key).replace("/", ".") for key in varied)]
    if any(space.plain_key(key) in ("experiment", "debug") for key in varied):
        return {"overrides": list(base.hydra.overrides.task)}
    return {
        key: value
        for key, value in _flat(content)
        if not any(key == entry or key.startswith(f"{entry}.") for entry in left_out)
        # Where the data lies on this machine is not what it is.
        and "${paths." not in str(raw.get(key))
    }


def _plain_raw(node: DictConfig) -> dict[Any, Any]:
    content = OmegaConf.to_container(node, resolve=False)
    assert isinstance(content, dict)
    return content


def _flat(content: Mapping[Any, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found


def _digest(now: study.Identity) -> str:
    return hashlib.sha256(json.dumps(now, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _own_settings(found: space.SearchSpace, base: DictConfig) -> dict[str, space.Value]:
    own, outside = space.own_settings(found, base)
    if not outside:
        return own
    log.info(
        "No trial runs the experiment's own settings, since the search space does not contain them: %s",
        "; ".join(outside),
    )
    return {}


def _total(asked: int, sampler: Mapping[str, Any], found: space.SearchSpace) -> int:
    if sampler["_target_"] != algorithms.GRID:
        return asked
    points = len(space.grid(found))
    if points != asked:
        log.info("The grid has %d points: %d trials", points, min(points, asked))
    return min(points, asked)


def _distinct(jobs: Sequence[Mapping[str, str]], key: str) -> list[str]:
    return list(dict.fromkeys(job[key] for job in jobs))


def _url(config: DictConfig, base: DictConfig) -> str:
    return storage_url(config.hydra.sweeper.get("storage"), Path(str(base.paths.experiments_dir)))


def _unfinished_name(url: str, name: str, jobs: int) -> str:
    """The name of this multirun's study that is not completed yet, or the next new one."""
    storage = open_storage(url)
    existing = {entry.study_name for entry in storage.get_all_studies()}
    candidate, number = name, 1
    while candidate in existing:
        trials = storage.get_all_trials(storage.get_study_id_from_name(candidate), deepcopy=False)
        if sum(trial.state == TrialState.COMPLETE for trial in trials) < jobs:
            return candidate
        number += 1
        candidate = f"{name}-{number}"
    return candidate


def _parent(base: DictConfig, plan: Plan, nested_under: Reference | None) -> Parent | NoParent:
    refuse_missing(base.logger)
    trackers = trackers_of(base.logger)
    if not trackers:
        return NoParent()
    kind = "sweep" if plan.jobs is None else "multirun"
    tags = {"task": kind, "experiment": str(base.name), "seed": str(plan.seed)}
    params = {
        "sweep": {
            "n_trials": plan.n_trials,
            "metrics": ", ".join(plan.metrics),
            "directions": ", ".join(plan.directions),
            "sampler": plan.sampler["_target_"],
            "pruner": (plan.pruner or {}).get("_target_", "none"),
            "space": {
                space.plain_key(k): space.describe(v) for k, v in plan.search_space.distributions.items()
            },
        }
    }
    return Parent(
        experiment=str(base.logger.experiment_name),
        name=plan.study_name,
        tracking_uri=base.logger.get("tracking_uri"),
        experiments_dir=Path(str(base.paths.experiments_dir)),
        tags=tags,
        params=params,
        nested_under=nested_under,
        trackers=trackers,
    )
