"""The files a sweep leaves: what was best, and an experiment that runs it again."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial, TrialState

from pipeline.files import write_text
from pipeline.runs.settings import NOT_OF_AN_EXPERIMENT
from pipeline.sweeps.composing import Composer
from pipeline.sweeps.plan import Plan
from pipeline.sweeps.space import as_override, plain_key

# Groups that an experiment file does not choose: what it stands on is chosen group by group, and these are the user's.
_NOT_CHOSEN = ("experiment", "recipe", "sweep", "debug", *NOT_OF_AN_EXPERIMENT)


def write_optimization_results(directory: Path, best: Sequence[FrozenTrial], objectives: int) -> Path:
    """`optimization_results.yaml` as Hydra's plugin writes it: best parameters and value, or all Pareto solutions."""
    content: dict[str, Any] = {"name": "optuna"}
    if objectives == 1:
        content["best_params"] = (
            {plain_key(key): value for key, value in best[0].params.items()} if best else {}
        )
        content["best_value"] = best[0].value if best else None
    else:
        content["solutions"] = [
            {"params": dict(trial.params), "values": list(trial.values)} for trial in best
        ]
    return _write(directory / "optimization_results.yaml", yaml.safe_dump(content, sort_keys=False))


def write_best_experiment(directory: Path, plan: Plan, composer: Composer, best: FrozenTrial) -> Path:
    """`best.yaml`: the winner as an experiment, for `--config-dir DIRECTORY +experiment=best`.

    It chooses every group and lists the values that differ from what those groups compose to, so that it needs neither
    the experiment nor the sweep that it came from.
    """
    winner = composer.compose([as_override(key, value) for key, value in best.params.items()])
    groups = {
        group: choice
        for group, choice in winner.hydra.runtime.choices.items()
        if group.split("/")[0] not in _NOT_CHOSEN and "@" not in group
    }
    chosen = [f"{group}={'null' if choice is None else choice}" for group, choice in groups.items()]
    # An experiment has no recipe: what the winner's recipe gave it is listed.
    chosen += ["recipe=none"] * ("recipe" in winner.hydra.runtime.choices)
    # Data of one's own does not compose without a path: with another one, the winner's is listed.
    chosen += ["data.path=-"] * (OmegaConf.select(winner, "data.path") is not None)
    plain = composer.compose_only(chosen)
    # The name goes with it: without one, the run would be called `best`.
    values = {"name": winner.name, **_difference(_container(winner), _container(plain))}
    header = (
        f"# @package _global_\n# Trial {best.number} of the study {plan.study_name}: "
        f"{', '.join(f'{name}={value:.6g}' for name, value in zip(plan.metrics, best.values or [], strict=True))}\n"
    )
    defaults = [{f"override /{group}": choice} for group, choice in groups.items()]
    body = yaml.safe_dump({"defaults": [*defaults, "_self_"], **values}, sort_keys=False)
    return _write(directory / "experiment" / "best.yaml", header + body)


def _container(config: DictConfig) -> dict[str, Any]:
    content = OmegaConf.to_container(config, resolve=False)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items() if key not in NOT_OF_AN_EXPERIMENT}


def _difference(wanted: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in wanted.items():
        if key not in given:
            found[key] = value
        elif isinstance(value, dict) and isinstance(given[key], dict):
            if inner := _difference(value, given[key]):
                found[key] = inner
        elif value != given[key]:
            found[key] = value
    return found


def write_trials(directory: Path, plan: Plan, trials: Sequence[FrozenTrial]) -> Path:
    """`trials.yaml`: every trial with state, values, settings, seconds, reason and directory."""
    rows = [
        {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "values": trial.values,
            "settings": plan.jobs[trial.number] if plan.jobs is not None else dict(trial.params),
            **{
                key: trial.user_attrs[key]
                for key in ("seconds", "reason", "rejected", "duplicate_of", "directory", "run_id")
                if trial.user_attrs.get(key) is not None
            },
        }
        for trial in trials
    ]
    return _write(directory / "trials.yaml", yaml.safe_dump(rows, sort_keys=False))


def over_seeds(plan: Plan, trials: Sequence[FrozenTrial]) -> list[dict[str, Any]]:
    """The jobs of a multirun grouped by everything but the seed.

    Returns:
        For each group its `settings`, the `seeds` that were completed, and `mean` and `std` of each metric (the sample
        standard deviation; null for one seed).
    """
    assert plan.jobs is not None
    settings_of = [
        tuple((key, value) for key, value in job.items() if plain_key(key) != "seed") for job in plan.jobs
    ]
    groups: dict[tuple[tuple[str, str], ...], list[FrozenTrial]] = {settings: [] for settings in settings_of}
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            groups[settings_of[trial.number]].append(trial)
    return [{"settings": dict(settings), **_summary(plan, members)} for settings, members in groups.items()]


def _summary(plan: Plan, members: Sequence[FrozenTrial]) -> dict[str, Any]:
    assert plan.jobs is not None
    metrics = [trial.user_attrs.get("metrics") or {} for trial in members]
    shared = [name for name in (metrics[0] if metrics else {}) if all(name in entry for entry in metrics)]
    columns = {name: [float(entry[name]) for entry in metrics] for name in shared}
    seeds = [plan.jobs[trial.number].get("seed") for trial in members]
    return {
        "jobs": [trial.number for trial in members],
        "seeds": [int(seed) for seed in seeds if seed is not None],
        "mean": {name: statistics.fmean(values) for name, values in columns.items()},
        "std": {
            name: statistics.stdev(values) if len(values) > 1 else None for name, values in columns.items()
        },
    }


def write_multirun_results(directory: Path, groups: Sequence[Mapping[str, Any]]) -> Path:
    """`multirun_results.yaml`: each group with mean and standard deviation over its seeds."""
    text = yaml.safe_dump([dict(group) for group in groups], sort_keys=False)
    return _write(directory / "multirun_results.yaml", text)


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_text(path, text)
