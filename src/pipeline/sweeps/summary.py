"""The end of a sweep in words and numbers."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from pipeline.metrics import headline, is_cost
from pipeline.sweeps.display import duration, hours_saved, shown, state_of
from pipeline.sweeps.plan import Plan
from pipeline.sweeps.results import over_seeds
from pipeline.sweeps.space import plain_key
from pipeline.sweeps.study import OWN, best_trials


def counts(plan: Plan, trials: Sequence[FrozenTrial]) -> dict[str, int]:
    """How many trials of the total are complete, pruned, rejected, failed, running and waiting."""
    found = dict.fromkeys(("complete", "pruned", "rejected", "failed", "running", "waiting"), 0)
    for trial in trials:
        found[state_of(trial)] += 1
    found["waiting"] += plan.n_trials - len(trials)
    return found


def summary_metrics(study: optuna.Study, plan: Plan, trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """What the parent run records: counts, hours saved, and the best values or a multirun's means."""
    found: dict[str, float] = {
        f"trials/{name}": float(number) for name, number in counts(plan, trials).items()
    }
    if plan.jobs is not None:
        groups = over_seeds(plan, trials)
        for position, group in enumerate(groups):
            prefix = "" if len(groups) == 1 else f"group{position}/"
            for name in group["mean"]:
                # Rates and times of training are not the model's.
                if not name.startswith("baseline/") and not (name.startswith("train/") and is_cost(name)):
                    found[f"{prefix}mean/{name}"] = group["mean"][name]
                    if group["std"][name] is not None:
                        found[f"{prefix}std/{name}"] = group["std"][name]
        return found
    found["hours_saved_by_pruning"] = hours_saved(trials)
    best = best_trials(study, trials)
    if len(best) == 1 and len(plan.metrics) == 1:
        assert best[0].value is not None
        found[f"best/{plan.metrics[0]}"] = best[0].value
        found["best/trial"] = float(best[0].number)
    return found


def print_summary(study: optuna.Study, plan: Plan, trials: Sequence[FrozenTrial], console: Console) -> None:
    """Print how the sweep ended: counts, the winner beside the baseline and the default settings, where things are."""
    told = ", ".join(f"{number} {name}" for name, number in counts(plan, trials).items() if number)
    saved = hours_saved(trials) if plan.jobs is None else 0.0
    extra = f"; pruning saved about {duration(saved * 3600)} of computing" if saved else ""
    _say(console, f"Study {plan.study_name}: {told}{extra}")
    what = "trial" if plan.jobs is None else "job"
    for trial in trials:
        if trial.state == TrialState.FAIL:
            _say(
                console,
                f"  {what} {trial.number} failed: {trial.user_attrs.get('reason', 'no reason recorded')}",
            )
    if plan.jobs is not None:
        _print_groups(plan, trials, console)
    else:
        _print_best(study, plan, trials, console)
    _say(console, f"Results: {plan.directory}")


def _print_best(study: optuna.Study, plan: Plan, trials: Sequence[FrozenTrial], console: Console) -> None:
    best = best_trials(study, trials)
    if not best:
        _say(console, "No trial was completed, so there is no winner.")
        return
    table = Table()
    for column in ("", *plan.metrics, "settings"):
        table.add_column(column, overflow="fold")
    for trial in best:
        table.add_row(_name(trial, len(best)), *map(_number, trial.values or []), _settings(trial))
    if baseline := next((found for trial in trials if (found := trial.user_attrs.get("baseline"))), None):
        row = [_number(baseline.get(metric)) for metric in plan.metrics]
        table.add_row("baseline", *row, str(baseline.get("name", "")))
    own = [trial for trial in trials if trial.system_attrs.get("sweep:origin") == OWN]
    if own and own[0].values is not None:
        table.add_row("default settings (trial 0)", *map(_number, own[0].values), _settings(own[0]))
    console.print(table)
    if len(plan.metrics) == 1:
        words = ["python", "-m", "pipeline", "--config-dir", str(plan.directory), "+experiment=best"]
        _say(console, f"Run the winner again: {shlex.join(words)}")


def _print_groups(plan: Plan, trials: Sequence[FrozenTrial], console: Console) -> None:
    groups = over_seeds(plan, trials)
    measured = groups[0]["mean"] if groups else {}
    # What fits on a line; the rest is in multirun_results.yaml.
    names = [
        name for split in ("val/", "test/") for name in headline(n for n in measured if n.startswith(split))
    ]
    table = Table()
    for column in ("settings", "jobs", *names):
        table.add_column(column, overflow="fold")
    for group in groups:
        settings = " ".join(f"{plain_key(key)}={value}" for key, value in group["settings"].items()) or "-"
        cells = [_mean(group["mean"].get(name), group["std"].get(name)) for name in names]
        table.add_row(settings, str(len(group["jobs"])), *cells)
    console.print(table)


def _mean(mean: Any, std: Any) -> str:
    if mean is None:
        return ""
    return f"{mean:.5g}" if std is None else f"{mean:.5g} ± {std:.2g}"


def _number(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, int | float) else ""


def _settings(trial: FrozenTrial) -> str:
    return " ".join(f"{plain_key(key)}={shown(value)}" for key, value in trial.params.items())


def _name(trial: FrozenTrial, front: int) -> str:
    return f"best (trial {trial.number})" if front == 1 else f"Pareto front (trial {trial.number})"


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
