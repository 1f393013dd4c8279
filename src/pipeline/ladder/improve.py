"""Climb the ladder: baseline, linear, small, overfitting, tuned; then one look at the test split and one report."""

from __future__ import annotations

import gc
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pipeline.config import resolve
from pipeline.config.trackers import trackers_of
from pipeline.config.typed import key_of
from pipeline.data.core.memory import give_back
from pipeline.data.images.folder import ImageFolder
from pipeline.data.orders.module import OrdersModule
from pipeline.data.tables.table import TableData
from pipeline.data.text.documents import Documents
from pipeline.errors import Diverged, UserError
from pipeline.evaluation.outputs import result_directory, test_split
from pipeline.ladder.blending import add_blend, seconds_of_blend
from pipeline.ladder.budget import Budget
from pipeline.ladder.choosing import choose
from pipeline.ladder.costs import seconds_at_the_end, seconds_for_a_row
from pipeline.ladder.goals import Wish, check_groups, goal_lines, weighed, wishes
from pipeline.ladder.holding_out import held_out
from pipeline.ladder.pace import epochs_within, seconds_for, seconds_of_features
from pipeline.ladder.registering import register
from pipeline.ladder.rungs import Climb, Rung, common_sense, judge, judged_by
from pipeline.ladder.testing import answers_of, load_model, read_test
from pipeline.metrics import four_places
from pipeline.models.base import BaseModule
from pipeline.models.sentences import at_hand
from pipeline.models.settled import Settled
from pipeline.runs.finished import data_of
from pipeline.runs.hooks import Hooks
from pipeline.runs.recording import AnyRun, NoRun, git_state, open_run, recorded
from pipeline.runs.result import RunResult
from pipeline.runs.settings import OF_A_LADDER
from pipeline.tracking.mlflow_inside import shown_as_tables
from pipeline.training.stopping import in_full

log = logging.getLogger(__name__)

LEADER = "leader"
"""What stands for the settings of the best rung so far."""
_WEIGHTS = "weights:"
"""What a rung needs: a package, or, behind this, a network whose weights are on this machine."""
_OF_A_SEARCH = 0.75
_OF_FEATURES = 0.4
"""What features of a pretrained network may take of the time that is left."""
_LEAST_SECONDS = 1.5
_LONGER = 1.5
"""How much longer the winner takes on training and validation data together, with what is around its fit."""


def improve(cfg: DictConfig, typed: Sequence[str] = ()) -> Climb:
    """Climb the ladder of ``cfg`` (``+ladder=NAME``, or the default one for the data that was typed).

    Args:
        cfg: Configuration of this command.
        typed: Overrides that hold for every rung.

    Raises:
        UserError: The ladder or the data cannot be used.
    """
    from pipeline.ladder.report import write_report

    began = time.time()
    budget = Budget(cfg.task.get("budget"))
    directory, ladder = result_directory(cfg), _ladder(cfg, typed)
    # The command's own data and model are those of no rung.
    asked = wishes(ladder)
    own = OmegaConf.masked_copy(cfg, [key for key in OF_A_LADDER if key in cfg])
    OmegaConf.update(own, "ladder", ladder, force_add=True)
    parent = open_run(own, directory, Hooks(), str(cfg.name))
    with recorded(parent):
        climb = _climbed(cfg, ladder, typed, directory, parent, budget)
        if climb.chosen.result is not None:
            _retrain(cfg, climb, directory, parent, budget)
        tested = read_test(climb, parent, budget)
        climb.goals = weighed(asked, climb)
        climb.registered = register(cfg, climb, tested, budget)
        climb.seconds = time.time() - began
        for path in write_report(climb, cfg, directory):
            parent.log_artifact(path, "report")
        _record(climb, cfg, directory, parent)
    parent.finish("FINISHED")
    parent.wait(60.0)
    return climb


def _ladder(cfg: DictConfig, typed: Sequence[str]) -> dict[str, Any]:
    from pipeline.config import config_directory

    node = cfg.get("ladder")
    wanted = {key: node[key] for key in ("goal", "constraints") if node is not None and key in node}
    if node is None or set(node) <= set(wanted):
        data = data_of(_composed([*typed, *_places(cfg)]))
        name = "sequences" if data.spec.per_step or data.spec.input in ("tokens", "series") else "default"
        name = "table" if isinstance(data, TableData) else name
        name = "orders" if isinstance(data, OrdersModule) else name
        name = "text" if isinstance(data, Documents) and data.input == "bag" else name
        name = "images" if isinstance(data, ImageFolder) else name
        node = OmegaConf.load(config_directory() / "ladder" / f"{name}.yaml").ladder
    values: Any = {**OmegaConf.to_container(node, resolve=True), **wanted}  # type: ignore[dict-item]
    if missing := {"base", "rungs", "tuned", "sweep"} - set(values):
        raise UserError(f"ladder lacks {', '.join(sorted(missing))}; see conf/ladder/default.yaml")
    return dict(values)


def _there(ladder: Mapping[str, Any], data_dir: Path) -> dict[str, Any]:
    """The rungs without those that need a package which is not installed, or weights which are not here."""
    rungs = dict(ladder["rungs"])
    for name, needed in (ladder.get("needs") or {}).items():
        reasons = (_lacking(what, data_dir) for what in ([needed] if isinstance(needed, str) else needed))
        if reason := next(filter(None, reasons), None):
            log.info("%s is left out, since %s", name, reason)
            rungs.pop(name, None)
    return rungs


def _lacking(what: str, data_dir: Path) -> str | None:
    """Why a package or weights cannot be used, None where they can."""
    if not what.startswith(_WEIGHTS):
        return None if find_spec(what) else f"{what} is not installed"
    network = what.removeprefix(_WEIGHTS)
    return None if at_hand(network, data_dir) else f"the weights of {network} are not on this machine"


def _places(cfg: DictConfig) -> list[str]:
    """Overrides by which every rung finds its data where the command does, and is recorded beside the others."""
    places = [f"paths.data_dir={cfg.paths.data_dir}", f"paths.experiments_dir={cfg.paths.experiments_dir}"]
    trackers = trackers_of(cfg.logger)
    if trackers:
        names = ",".join(trackers)
        return [*places, f"logger=[{names}]", f"logger.experiment_name={cfg.logger.experiment_name}"]
    return [*places, "logger=none"]


def _composed(overrides: Sequence[str]) -> DictConfig:
    from pipeline.config.loading import compose, user_directory

    return compose(overrides, config_dir=user_directory())


def _climbed(
    cfg: DictConfig,
    ladder: dict[str, Any],
    typed: Sequence[str],
    directory: Path,
    parent: AnyRun,
    budget: Budget,
) -> Climb:
    """Climb every rung, judged on validation data alone."""
    steps = {**_there(ladder, Path(cfg.paths.data_dir)), "tuned": ladder["tuned"]}
    lowest, after = [*ladder["base"], *next(iter(steps.values()))], [*typed, *_places(cfg)]
    after += held_out(_composed([*lowest, *after]), typed)
    climb = _baseline(_composed([*lowest, *after]), directory / "baseline", parent, wishes(ladder))
    climb.tried = len(steps) + (int(cfg.task.trials) if ladder["sweep"] else 0) + bool(ladder.get("blend"))
    log.info("baseline: %s", climb.rungs[0].showed)
    for number, (name, overrides) in enumerate(steps.items()):
        started = time.time()
        rung = Rung(name, directory / name, [*ladder["base"], *overrides, *after])
        sweep = ladder["sweep"] if name == "tuned" else None
        if overrides == LEADER:
            leader = _leader(climb, ladder["sweep"])
            if leader is None:
                continue
            rung.overrides, sweep = list(leader.overrides), ladder["sweep"][leader.name]
        climb.rungs.append(rung)
        blend = seconds_of_blend(climb) if sweep and ladder.get("blend") else None
        after_it = len(steps) - 1 - number
        left = budget.left() - _around(climb)
        seconds = seconds_for(after_it, left, blend) if budget.limited else None
        if seconds is not None and seconds < _LEAST_SECONDS:
            rung.showed = f"left out, since the time {'goes to the blend' if blend else 'was over'}"
            log.info("%s: %s", name, rung.showed)
            continue
        if seconds is not None and (takes := seconds_of_features(_composed(rung.overrides))) is not None:
            # They are computed once, for all that is learnt from them later on.
            if takes > _OF_FEATURES * budget.left():
                rung.showed = f"left out, since its features would take {takes:.0f} s"
                log.info("%s: %s", name, rung.showed)
                continue
            seconds += takes
        try:
            trial = [*ladder.get("trial", []), *after]
            _fit_rung(cfg, rung, sweep, trial, parent, seconds)
            _validate(rung, climb.metric)
            assert rung.cfg is not None
            budget.keep_back(seconds_at_the_end(rung.asking, data_of(rung.cfg)))
            rung.seconds = time.time() - started
            if judge(climb, rung, 0.05 / climb.tried):
                climb.chosen = rung
        except Diverged as error:
            rung.seconds = time.time() - started
            rung.showed = f"left out, since it diverged: {error}"
        log.info("%s: %s", name, rung.showed)
        # A fit's parts know each other: what it held would stay beside what the next one takes.
        gc.collect()
        give_back()
    if ladder.get("blend"):
        add_blend(climb, directory / "blend", parent, budget, ladder.get("variants"))
    choose(climb, str(cfg.task.get("prefer") or "best"), 0.05 / climb.tried)
    return climb


def _fit_rung(
    cfg: DictConfig,
    rung: Rung,
    sweep: str | None,
    trial: Sequence[str],
    parent: AnyRun,
    seconds: float | None,
) -> None:
    """Train a rung, after a search for its settings where it has one."""
    if sweep:
        search = None if seconds is None else _OF_A_SEARCH * seconds
        rung.overrides += _best_settings(cfg, sweep, rung, trial, parent, search)
        seconds = None if seconds is None else (1 - _OF_A_SEARCH) * seconds
    rung.cfg = _composed(rung.overrides)
    if seconds is not None:
        rung.overrides.append(f"trainer.max_time={in_full(seconds)}")
        if epochs := epochs_within(rung.cfg, seconds):
            rung.overrides.append(f"trainer.max_epochs={epochs}")
        rung.cfg = _composed(rung.overrides)
    rung.result = _trained(rung, parent)


def _around(climb: Climb) -> float:
    """What a rung takes beside its fit at least, in seconds: the data, plots and saving, by those that were fitted."""
    fitted = [rung for rung in climb.rungs if rung.result is not None]
    return min((rung.seconds - rung.fit_seconds for rung in fitted), default=0.0)


def _leader(climb: Climb, sweeps: dict[str, str]) -> Rung | None:
    """The rung with the best validation figure, of those whose settings can be searched."""
    fitted = [rung for rung in climb.rungs if rung.result is not None and sweeps.get(rung.name)]
    best = max if climb.higher else min
    return best(fitted, key=lambda rung: rung.validation) if fitted else None


def _baseline(cfg: DictConfig, directory: Path, parent: AnyRun, asked: list[Wish]) -> Climb:
    """The rung that needs no learning, recorded beside the others."""
    started = time.time()
    data = data_of(cfg)
    if cfg.data.get("folds"):
        raise UserError(f"data.folds={cfg.data.folds}: a ladder climbs by one validation split; leave it out")
    if data.validation is None or len(data.validation) == 0:
        raise UserError("a ladder needs validation data to climb by; set data.validation_fraction above 0")
    test_split(data, f"data={data.name}")
    check_groups(asked, data)
    name, baseline = next(iter(data.baselines().items()))
    metrics = baseline(data.train, data.validation, data.spec)
    rung = Rung("baseline", directory, cfg=cfg)
    metric = judged_by(data.spec, str(cfg.objective.metric))
    rung.judged = common_sense(data, data.validation, metric)
    rung.validation = float(rung.judged.mean())
    rung.showed = f"{metric} {four_places(rung.validation)} without learning anything ({name})"
    rung.seconds = time.time() - started
    run = open_run(cfg, directory, _hooks(rung, parent), f"{cfg.name}-baseline")
    with recorded(run):
        run.log_metrics({f"best/val/{key}": value for key, value in metrics.items()})
    run.finish("FINISHED")
    return Climb(metric, [rung], rung, baseline=name)


def _hooks(rung: Rung, parent: AnyRun, settled: Settled | None = None) -> Hooks:
    assert rung.cfg is not None
    tags = {"rung": rung.name, "mlflow.runName": f"{rung.cfg.name}-{rung.name}"}
    tracked = None if isinstance(parent, NoRun) else parent
    return Hooks(directory=rung.directory, parent=tracked, tags=tags, test=False, settled=settled)


def _trained(rung: Rung, parent: AnyRun, settled: Settled | None = None) -> RunResult:
    from pipeline.runs.train import train

    assert rung.cfg is not None
    return train(rung.cfg, _hooks(rung, parent, settled))


def _validate(rung: Rung, metric: str) -> None:
    """Judge a rung on validation data, and note how long it takes to answer."""
    assert rung.cfg is not None
    data = data_of(rung.cfg)
    assert data.validation is not None
    model = load_model(rung)
    rung.judged = answers_of(model, rung, data, data.validation, metric).judged()[1]
    rung.validation = float(rung.judged.mean())
    rung.asking = seconds_for_a_row(model, data, data.validation)


def _best_settings(
    cfg: DictConfig, sweep: str, rung: Rung, trial: Sequence[str], parent: AnyRun, seconds: float | None
) -> list[str]:
    """The best settings that the sweeper finds on validation data, as overrides.

    The rung's own settings of what the space varies are where the search begins. What holds for every trial (``trial``)
    is not varied.
    """
    from hydra.types import RunMode
    from omegaconf import open_dict, read_write

    from pipeline.config.loading import loader, user_directory
    from pipeline.sweeps.sweeper import best_settings

    loads = loader(user_directory())
    words = [*rung.overrides, *trial, f"sweep={sweep}"]
    if seconds is not None:
        # One trial more than the time allows must not take long.
        words += [f"hydra.sweeper.timeout={seconds:.1f}", f"trainer.max_time={in_full(seconds / 3)}"]
    words += [
        f"hydra.sweeper.n_trials={cfg.task.trials}",
        f"hydra.sweep.dir={rung.directory.parent / 'sweep'}",
    ]
    # A ladder that is climbed again searches again.
    words.append(f"hydra.sweeper.study_name={cfg.name}-{parent.key[:8] or time.time_ns()}")
    config = loads.load_configuration("config", words, RunMode.MULTIRUN)
    varied = set(config.hydra.sweeper.params or {}) - {key_of(word) for word in trial}
    arguments = [str(word) for word in config.hydra.overrides.task if key_of(str(word)) not in varied]
    with read_write(config), open_dict(config):
        config.hydra.sweeper.seed_trials = _first_trial(rung, config, arguments, loads)
    best = best_settings(config, loads, arguments, nested_under=parent.reference)
    if best is None:
        log.warning("No trial of the sweep was completed: the tuning rung keeps its own settings")
    return best or []


def _first_trial(
    rung: Rung, config: DictConfig, arguments: Sequence[str], loads: Any
) -> list[dict[str, Any]] | None:
    """The rung's own settings, where the search space contains them."""
    from pipeline.sweeps.space import own_settings, plain_key, read_space

    params: Any = OmegaConf.to_container(config.hydra.sweeper.params, resolve=True)
    space, own = read_space(params, arguments, loads), _composed(rung.overrides)
    outside = own_settings(space, own)[1]
    if outside:
        log.info("The search does not begin with the rung's own settings: %s", "; ".join(outside))
        return None
    values: Any = {key: OmegaConf.select(own, plain_key(key)) for key in space.distributions}
    return [OmegaConf.to_container(OmegaConf.create(values))]  # type: ignore[list-item]


def _retrain(cfg: DictConfig, climb: Climb, directory: Path, parent: AnyRun, budget: Budget) -> None:
    """Train the winner on training and validation data together, once for each seed."""
    chosen = climb.chosen
    assert chosen.cfg is not None and chosen.result is not None
    if chosen.made_of:
        # Every row that is not of the test has been learnt from by most of its models.
        climb.final.append(_as_it_is(chosen))
        climb.length = chosen.made_of
        return
    if budget.left() < _LONGER * chosen.result.seconds["fit"]:
        log.info("The winner is kept as it is: the time to train it once more on all rows is over")
        climb.final.append(_as_it_is(chosen))
        climb.retrained = False
        return
    scheduler, best_epoch = chosen.cfg.get("scheduler") or {}, chosen.result.best_epoch
    fixed = ["data.train_on_all=true", "checkpoint.monitor=null", "callbacks.early_stopping.patience=null"]
    epochs = chosen.cfg.trainer.max_epochs
    climb.length = "as many epochs as suit the data" if epochs == "auto" else f"{epochs} epochs"
    if "T_max" in scheduler or "total_steps" in scheduler:
        climb.length += ", to the end of the learning rate's schedule"
    elif kept := _kept_length(chosen):
        fixed += kept
        climb.length = f"as long as it was before ({', '.join(chosen.result.notes[-1:])})"
    elif best_epoch:
        fixed.append(f"trainer.max_epochs={best_epoch}")
        climb.length = f"{best_epoch} epochs, after which the validation figure was best"
    if not str(scheduler.get("monitor", "")).startswith("val/"):
        # Nothing is held out any more: a validation figure would only mislead.
        fixed.append("+trainer.limit_val_batches=0")
    # Nothing is held out any more: how sure the model is was read off validation data before.
    settled = Settled.from_dict(chosen.result.model.get("sureness"))
    for seed in cfg.task.seeds:
        started = time.time()
        if climb.final and budget.left() < 1.2 * climb.final[-1].seconds:
            log.info("The other seeds are left out: the time is over")
            break
        name = f"final-seed-{seed}"
        rung = Rung(name, directory / name, [*chosen.overrides, *fixed, f"seed={seed}"])
        rung.cfg = _composed(rung.overrides)
        rung.result = _trained(rung, parent, settled)
        rung.seconds = time.time() - started
        climb.final.append(rung)


def _as_it_is(chosen: Rung) -> Rung:
    """The winner as the model that goes into service."""
    return replace(chosen, name="final", showed="", test=None, gain=None, metrics={})


def _kept_length(chosen: Rung) -> list[str]:
    """What validation data decided of a model that is fitted at once: it is kept where nothing is held out any more."""
    assert chosen.cfg is not None and chosen.result is not None
    cls, result = resolve(chosen.cfg.model["_target_"]), chosen.result
    if not (isinstance(cls, type) and issubclass(cls, BaseModule)):
        return []
    kept = cls.kept(chosen.cfg.model, result.model, result.best_epoch) or {}
    return [f"model.{name}={value}" for name, value in kept.items()]


def _record(climb: Climb, cfg: DictConfig, directory: Path, parent: AnyRun) -> None:
    """Record the ladder as a whole: metrics and a table in the tracking store, ``result.json`` on disk."""
    from pipeline.ladder.report import columns, entries, rows

    shown = climb.final[0] if climb.final else climb.chosen
    baseline = climb.rungs[0]
    metrics = {
        f"val/{climb.metric}": climb.chosen.validation,
        **{f"test/{name}": value for name, value in shown.metrics.items()},
        f"baseline/test/{climb.metric}": baseline.metrics[climb.metric],
    }
    if shown.test is not None:
        metrics |= {
            f"test/{climb.metric}_low": shown.test.low,
            f"test/{climb.metric}_high": shown.test.high,
        }
    parent.log_metrics({**metrics, "seconds/total": climb.seconds})
    parent.log_text(json.dumps({"columns": columns(climb), "data": rows(climb)}), "ladder.json")
    simplest = {"simplest_within_noise": climb.simplest.name} if climb.simplest else {}
    parent.set_tags({"chosen": climb.chosen.name, **simplest, **shown_as_tables("ladder.json")})
    described = next((rung.result for rung in (shown, *climb.rungs[1:]) if rung.result), None)
    RunResult(
        directory=directory,
        run_id=parent.run_id,
        experiment=str(cfg.name),
        data=described.data if described else {},
        model=shown.result.model if shown.result else {"class": climb.baseline, "parameters": 0},
        metrics=metrics,
        baseline={
            "name": climb.baseline,
            **{f"test/{key}": value for key, value in baseline.metrics.items()},
        },
        seconds={"total": climb.seconds},
        samples_per_second=shown.result.samples_per_second if shown.result else 0.0,
        seed=int(cfg.seed),
        git_commit=git_state()[0],
        notes=[climb.registered, *goal_lines(climb)],
        guesses=described.guesses if described else [],
        nested=entries(climb),
    ).write()
