"""Several fits under one parent run: the folds of a cross-validation, seeds, the variants of an experiment."""

from __future__ import annotations

import json
import logging
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from pipeline.config.own_class import leave_behind
from pipeline.config.typed import key_of
from pipeline.errors import UserError
from pipeline.metrics import four_places, headline
from pipeline.process_life import process_start
from pipeline.runs import naming
from pipeline.runs.describing import ENVIRONMENT, record_threads
from pipeline.runs.environment import environment
from pipeline.runs.hooks import Hooks
from pipeline.runs.recording import NoRun, git_state, is_main_process, open_run, recorded
from pipeline.runs.result import RunResult
from pipeline.runs.state import RunState, read
from pipeline.runs.verdicts import verdicts_of_fits

log = logging.getLogger(__name__)

TrainOne = Callable[[DictConfig, Hooks, Path], RunResult]


@dataclass
class Part:
    """One of the fits.

    Args:
        name: Name of the fit, which is also the name of its directory.
        overrides: Settings that differ from the parent's, by dotted key.
        variant: Name of the variant that it belongs to, empty if there are none.
    """

    name: str
    overrides: dict[str, Any] = field(default_factory=dict)
    variant: str = ""


def parts(cfg: DictConfig) -> list[Part]:
    """The fits that ``cfg`` asks for, empty if it is just one.

    ``variants`` (name → list of ``key=value``) × ``seeds`` (a number of them, or a list) × ``data.folds``.
    """
    found = [Part("")]
    if cfg.get("variants"):
        found = [Part(str(name), _overrides(lines), str(name)) for name, lines in cfg.variants.items()]
    if cfg.get("seeds") is not None:
        seeds = range(int(cfg.seeds)) if isinstance(cfg.seeds, int) else [int(seed) for seed in cfg.seeds]
        found = [_plus(part, f"seed-{seed}", {"seed": seed}) for part in found for seed in seeds]
    expanded = []
    for part in found:
        folds = part.overrides.get("data.folds", cfg.data.get("folds"))
        fold = part.overrides.get("data.fold", cfg.data.get("fold"))
        if folds and fold is None:
            # The test split is not for choosing between folds.
            expanded += [
                _plus(part, f"fold-{k}", {"data.folds": folds, "data.fold": k, "test": False})
                for k in range(folds)
            ]
        else:
            expanded.append(part)
    return [] if len(expanded) == 1 and not expanded[0].name else expanded


def refuse_several(cfg: DictConfig) -> None:
    """Refuse a configuration of several fits for a task whose every step is one fit, before anything is run.

    Raises:
        UserError: The configuration has variants, seeds or folds.
    """
    if not parts(cfg):
        return
    named = {"variants": cfg.get("variants"), "seeds": cfg.get("seeds"), "data.folds": cfg.data.get("folds")}
    asked = " and ".join(key for key, value in named.items() if value)
    raise UserError(
        f"task={cfg.task.name} makes fits of its own and hands on one model, but this configuration asks for several "
        f"fits of each ({asked}); leave that out"
    )


def _overrides(lines: Sequence[str]) -> dict[str, Any]:
    import yaml

    overrides = {}
    for line in lines:
        key, found, value = str(line).lstrip("+").partition("=")
        if not found:
            raise UserError(f"variants: {line!r} is no override; expected key=value")
        overrides[key] = yaml.safe_load(value)
    return overrides


def _plus(part: Part, name: str, overrides: dict[str, Any]) -> Part:
    return Part("-".join(filter(None, (part.name, name))), {**part.overrides, **overrides}, part.variant)


def train_many(
    cfg: DictConfig, fits: list[Part], hooks: Hooks, directory: Path, train_one: TrainOne
) -> RunResult:
    """Run every fit under one parent run and sum them up.

    Args:
        cfg: Configuration that they share.
        fits: The fits, as :func:`parts` gives them.
        hooks: Additions of the caller; ``on_epoch`` hears of every fit's epochs, ``on_fold`` of every finished fold.
        directory: Directory of the parent; each fit has a directory in it.
        train_one: Function that runs one fit.

    Returns:
        The parent's result: means as metrics, standard deviations beside them (``…_std``), a row a fit in ``nested``.
    """
    started = hooks.started or (process_start() if hooks.parent is None else time.time())
    directory.mkdir(parents=True, exist_ok=True)
    state = RunState(directory)
    resuming = cfg.resume is not None and bool(read(directory))
    name = naming.run_name(cfg, naming.typed_words())
    parent = open_run(cfg, directory, hooks, name, resume=resuming)
    state.begin(cfg)
    results: list[RunResult] = []
    with recorded(parent), state.ended_by():
        parent.set_tags({"fits": str(len(fits))})
        # What a later reproduction is compared with.
        parent.log_text(json.dumps(environment(), indent=2), ENVIRONMENT)
        for number, part in enumerate(fits):
            log.info("Fit %d of %d: %s", number + 1, len(fits), part.name)
            inner = replace(
                hooks,
                parent=parent if not isinstance(parent, NoRun) else None,
                directory=directory / part.name,
                started=None,
                tags={**hooks.tags, "mlflow.runName": f"{name}-{part.name}", "fit": part.name},
                reports=hooks.reports and len(fits) <= 12,
                threads={"": hooks.threads.get(part.name, [])},
            )
            result = _finished(directory / part.name) if resuming else None
            if result is None:
                result = _one(cfg, part, inner, train_one)
            results.append(result)
            if hooks.on_fold:
                hooks.on_fold(number, result.metrics)
        total = summed_up(cfg, fits, results, directory)
        parent.log_metrics(
            {name: value for name, value in total.metrics.items() if not name.startswith("train/")}
        )
        parent.set_tags({"data.requested": total.data["requested"], "data.used": total.data["used"]})
        for plot in _plots(cfg, fits, results, directory):
            parent.log_artifact(plot, "plots")
        if total.nested:
            parent.log_text(table_text(total), "table.txt")
        record_threads(
            parent, {part.name: result.threads for part, result in zip(fits, results, strict=True)}
        )
    parent.finish("FINISHED")
    if hooks.parent is None:
        parent.wait(hooks.wait)
    total.run_id = parent.run_id
    total.seconds["total"] = time.time() - started
    if is_main_process():
        total.write()
    state.finish()
    return total


def _finished(directory: Path) -> RunResult | None:
    """The result of a fit that was complete when its run was cut off."""
    if read(directory).get("status") != "finished":
        return None
    result = RunResult.read(directory)
    # JSON has no NaN.
    result.metrics = {name: math.nan if value is None else value for name, value in result.metrics.items()}
    return result


def _one(cfg: DictConfig, part: Part, hooks: Hooks, train_one: TrainOne) -> RunResult:
    own = OmegaConf.create(OmegaConf.to_container(cfg, resolve=False))
    assert isinstance(own, DictConfig)
    with open_dict(own):
        own.variants, own.seeds = None, None
        for key, value in part.overrides.items():
            OmegaConf.update(own, key, value, force_add=True)
        if any(key.endswith("._target_") for key in part.overrides):
            typed = map(key_of, naming.typed_words())
            leave_behind(own, {*part.overrides, *typed})
    if hooks.parent is None:
        # Nothing is tracked, but a nested fit must not take the whole process's time for its own.
        hooks = replace(hooks, wait=0.0)
    return train_one(own, hooks, hooks.directory or Path())


def summed_up(cfg: DictConfig, fits: list[Part], results: list[RunResult], directory: Path) -> RunResult:
    """The parent's result from those of its fits."""
    metrics = means([result.metrics for result in results])
    variants = list(dict.fromkeys(part.variant for part in fits if part.variant))
    for variant in variants:
        own = [result.metrics for part, result in zip(fits, results, strict=True) if part.variant == variant]
        metrics |= {
            f"{variant}/{name}": value
            for name, value in means(own).items()
            if not name.startswith("baseline")
        }
    first = results[0]
    baseline = means([{k: v for k, v in r.baseline.items() if isinstance(v, float)} for r in results])
    others: dict[str, Any] = {}
    for name in first.baseline.get("others", {}):
        others[name] = means([r.baseline["others"][name] for r in results])
    total = RunResult(
        directory=directory,
        run_id=None,
        experiment=str(cfg.name),
        data=first.data,
        model=first.model,
        metrics=metrics,
        baseline={"name": first.baseline.get("name"), **baseline, **({"others": others} if others else {})},
        seconds={
            "startup": first.seconds.get("startup", 0.0),
            "fit": sum(result.seconds["fit"] for result in results),
            "test": sum(result.seconds["test"] for result in results),
        },
        samples_per_second=statistics.fmean(result.samples_per_second for result in results),
        seed=int(cfg.seed),
        git_commit=git_state()[0],
        guesses=first.guesses,
        nested=[
            {
                "name": part.name,
                "variant": part.variant,
                "run_id": result.run_id,
                "directory": str(result.directory),
                "overrides": part.overrides,
                "best_epoch": result.best_epoch,
                "metrics": {k: v for k, v in result.metrics.items() if not k.startswith("baseline")},
            }
            for part, result in zip(fits, results, strict=True)
        ],
    )
    total.verdicts = _verdicts(fits, results, total.baseline)
    total.notes += _successes(cfg, fits, results)
    return total


def _verdicts(fits: list[Part], results: list[RunResult], baseline: dict[str, Any]) -> list[dict[str, Any]]:
    """What the fits say of the model, or of each variant."""
    found = []
    for variant in dict.fromkeys(part.variant for part in fits):
        own = [(part, result) for part, result in zip(fits, results, strict=True) if part.variant == variant]
        shared = not any("data.fold" in part.overrides for part, _ in own)
        found += verdicts_of_fits([result for _, result in own], baseline, shared, variant)
    return found


def means(rows: list[dict[str, float]]) -> dict[str, float]:
    """The mean of every metric that all rows have, and its sample standard deviation as ``…_std``."""
    result = {}
    for name in rows[0]:
        values = [row[name] for row in rows if name in row]
        if len(values) == len(rows):
            if math.isnan(mean := statistics.fmean(values)):
                # What is undefined in one fit is undefined here.
                continue
            result[name] = mean
            # An infinite loss has no deviation: stdev would raise on it.
            if len(values) > 1 and not name.startswith("baseline") and all(map(math.isfinite, values)):
                result[f"{name}_std"] = statistics.stdev(values)
    return result


def _successes(cfg: DictConfig, fits: list[Part], results: list[RunResult]) -> list[str]:
    """How often each variant reached what ``success`` asks for (``{metric: …, below: …}`` or ``above``)."""
    wanted = cfg.get("success")
    if not wanted:
        return []
    counts: dict[str, list[bool]] = {}
    for part, result in zip(fits, results, strict=True):
        value = result.metrics.get(wanted.metric, float("nan"))
        reached = value < wanted.below if wanted.get("below") is not None else value > wanted.above
        counts.setdefault(part.variant or "all", []).append(bool(reached))
    bound = f"below {wanted.below:g}" if wanted.get("below") is not None else f"above {wanted.above:g}"
    return [
        f"{name}: {sum(hits)} of {len(hits)} fits reached {wanted.metric} {bound}"
        for name, hits in counts.items()
    ]


def _plots(cfg: DictConfig, fits: list[Part], results: list[RunResult], directory: Path) -> list[Path]:
    from pipeline.reports.curves import comparison_curves, fold_curves

    folder = directory / "plots"
    folder.mkdir(exist_ok=True)
    made = []
    folds = any("data.fold" in part.overrides for part in fits)
    variants = list(dict.fromkeys(part.variant for part in fits))
    for metric in (*headline(_of("val", results[0].history)), "train/loss"):
        curves = {
            part.name: result.history[metric]
            for part, result in zip(fits, results, strict=True)
            if metric in result.history
        }
        if len(curves) != len(fits):
            continue
        name = metric.replace("/", "_")
        if folds and len(variants) == 1:
            numbered = dict(enumerate(curves.values()))
            made.append(fold_curves(numbered, metric, folder / f"folds_{name}.png"))
        else:
            shown = curves if len(curves) <= 12 else _averaged(fits, curves)
            made.append(comparison_curves(shown, metric, folder / f"comparison_{name}.png"))
    return made


def _of(split: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(f"{split}/")]


def _averaged(
    fits: list[Part], curves: dict[str, list[tuple[int, float]]]
) -> dict[str, list[tuple[int, float]]]:
    """One curve a variant: the mean over its fits, epoch by epoch."""
    result = {}
    for variant in dict.fromkeys(part.variant for part in fits):
        own = [curves[part.name] for part in fits if part.variant == variant]
        result[variant or "mean"] = [
            (points[0][0], statistics.fmean(value for _, value in points))
            for points in zip(*own, strict=False)
        ]
    return result


def table_text(total: RunResult) -> str:
    """The fits, their main metrics and how many reached what ``success`` asks for, as plain text."""
    names = [name for split in ("val", "test") for name in headline(_of(split, total.metrics))]
    names += ["train/loss"] if "train/loss" in total.metrics else []
    rows = [["fit", *names]]
    rows += [
        [fit["name"], *(four_places(fit["metrics"].get(name, float("nan"))) for name in names)]
        for fit in total.nested
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join([*lines, *total.notes]) + "\n"
