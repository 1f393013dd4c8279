"""A sweep from its first trial to its summary: the study, the workers, and what is left behind."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
from hydra.core.config_loader import ConfigLoader
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from pipeline.errors import Interrupted
from pipeline.process_life import terminable
from pipeline.sweeps import results
from pipeline.sweeps.attempt import report_lost
from pipeline.sweeps.composing import Composer
from pipeline.sweeps.display import Display
from pipeline.sweeps.engines import Engine, Work, WorkersFailed
from pipeline.sweeps.engines.attending import Left, attend
from pipeline.sweeps.engines.local import LocalWorkers
from pipeline.sweeps.engines.ray import Ray, RayWorkers, is_ray
from pipeline.sweeps.engines.slurm import Slurm, SlurmWorkers
from pipeline.sweeps.parent import NoParent, Parent
from pipeline.sweeps.plan import Plan
from pipeline.sweeps.plots import write_plots
from pipeline.sweeps.running import Runner, load_function
from pipeline.sweeps.space import Value
from pipeline.sweeps.storage import SweepStorage, open_storage
from pipeline.sweeps.study import (
    DIRECTORY,
    Identity,
    best_trials,
    first_trials,
    is_complete,
    keep_plan,
    open_study,
    trials_of,
)
from pipeline.sweeps.summary import print_summary, summary_metrics
from pipeline.sweeps.worker import Worker

log = logging.getLogger(__name__)


@dataclass
class Finished:
    """How a sweep ended.

    Args:
        study: Optuna's study.
        plan: Plan as it was run.
        trials: Trials of the total, by number.
        best: The winner, or the Pareto front.
        complete: Whether all trials of the total are done.
        gave_up: Whether more trials failed than `max_failure_rate` allows.
    """

    study: optuna.Study
    plan: Plan
    trials: list[FrozenTrial]
    best: list[FrozenTrial]
    complete: bool
    gave_up: bool

    @property
    def exit_code(self) -> int:
        """0 where the sweep did what it should; 1 where too many trials, or any job of a multirun, failed."""
        failed = any(trial.state == TrialState.FAIL for trial in self.trials)
        return 1 if self.gave_up or (self.plan.jobs is not None and failed) else 0


def run_sweep(
    plan: Plan,
    url: str,
    identity: Identity,
    *,
    own: Mapping[str, Value] | None = None,
    seeds: Sequence[Mapping[str, Value]] = (),
    loader: ConfigLoader | None = None,
    run: Runner | None = None,
    parent: Parent | NoParent | None = None,
    console: Console | None = None,
    keep_directory: bool = False,
) -> Finished:
    """Run what a study still lacks to its total, and leave its results.

    Args:
        plan: The sweep.
        url: Address of the storage.
        identity: What must not change while the study goes on.
        own: The experiment's own settings, for trial 0; none where the space does not contain them.
        seeds: Known-good settings for the trials after it.
        loader: Hydra's loader, where this process has one.
        run: Function that runs a trial in this process (`n_jobs=1`); by default what `plan.runner` names.
        parent: Record of the study in the tracking store.
        console: Console for progress and summary.
        keep_directory: Whether `plan.directory` was asked for, so that an older directory of the study is not gone back
            to.

    Raises:
        UserError: The study was about something else, or the storage cannot be used.
        WorkersFailed: No worker could be kept alive.
        Interrupted: A signal came; the summary was printed.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    console = console or Console(stderr=False)
    storage = open_storage(url, plan.grace)
    study = open_study(storage, plan, identity)
    plan = replace(_in_its_directory(plan, study, keep_directory), first=first_trials(own or {}, seeds))
    Path(plan.directory).mkdir(parents=True, exist_ok=True)
    _pick_up(storage, study, plan)
    parent = parent or NoParent()
    parent.start(plan, study)
    plan = replace(plan, parent=parent.reference)
    keep_plan(study, plan)
    composer = Composer(plan, loader)
    failure: BaseException | None = None
    try:
        _run_trials(plan, url, storage, study, composer, run, console, parent)
    except (KeyboardInterrupt, Interrupted, WorkersFailed) as error:
        failure = error
    except BaseException:
        parent.finish(plan, {}, [], "FAILED")
        raise
    finished = _finished(study, plan)
    if isinstance(failure, Left):
        # The next command writes the results, or the one after it.
        parent.finish(plan, {}, [], "KILLED")
        _say_left(plan, finished, console)
        if failure.exit_code:
            raise failure
        return finished
    _leave_results(finished, composer, parent, console, failure)
    if isinstance(failure, WorkersFailed):
        raise failure
    if failure is not None:
        raise failure if isinstance(failure, Interrupted) else Interrupted(130)
    return finished


def _in_its_directory(plan: Plan, study: optuna.Study, keep: bool) -> Plan:
    """The plan in the directory that its study began in, where that is to be had."""
    before = study.user_attrs.get(DIRECTORY)
    return replace(plan, directory=before) if before and not keep and Path(before).is_dir() else plan


def _pick_up(storage: SweepStorage, study: optuna.Study, plan: Plan) -> None:
    study_id = storage.get_study_id_from_name(study.study_name)
    report_lost(storage.reclaim(study_id, plan.retries))
    if plan.jobs is not None:
        # Before the first look at the trials: Optuna never looks again at one that it has seen finished.
        storage.requeue_failed(study_id)
    done = sum(trial.state.is_finished() for trial in trials_of(study, plan))
    if done:
        log.info("The study %s goes on: %d of %d trials are done", plan.study_name, done, plan.n_trials)


def _run_trials(
    plan: Plan,
    url: str,
    storage: SweepStorage,
    study: optuna.Study,
    composer: Composer,
    run: Runner | None,
    console: Console,
    parent: Parent | NoParent,
) -> None:
    if is_complete(trials_of(study, plan), plan):
        return
    with Display(plan, study, console) as display, terminable():
        if plan.n_jobs == 1 and not plan.launcher:
            runner = run or load_function(plan.runner)
            Worker(plan, storage, composer, runner, on_change=display.update).work()
            return
        engine = _engine(plan, url, storage, study, parent)
        if not engine.outlives or plan.launcher.get("wait", True):
            attend(engine, display.update, plan.deadline, plan.ends)
            return
        engine.start()
        raise Left(0)


def _engine(
    plan: Plan, url: str, storage: SweepStorage, study: optuna.Study, parent: Parent | NoParent
) -> Engine:
    """What runs the workers."""
    study_id = storage.get_study_id_from_name(study.study_name)

    def finished() -> int:
        return sum(trial.state.is_finished() for trial in trials_of(study, plan))

    def running() -> int:
        return sum(trial.state == TrialState.RUNNING for trial in trials_of(study, plan))

    def wanted() -> int:
        failed = sum(trial.state == TrialState.FAIL for trial in trials_of(study, plan))
        late = plan.deadline is not None and time.time() > plan.deadline
        over = late or failed > plan.allowed_failures
        return 0 if over else min(plan.n_jobs, plan.n_trials - finished())

    def lost() -> None:
        report_lost(storage.reclaim(study_id, plan.retries))
        parent.recover()

    if not plan.launcher:
        return LocalWorkers(plan, url, storage, study_id, finished, parent.recover)
    work = Work(plan.study_name, url, Path(plan.directory), wanted, running, finished, lost)
    if is_ray(plan.launcher):
        return RayWorkers(Ray.read(plan.launcher), work)
    return SlurmWorkers(Slurm.read(plan.launcher), work)


def _say_left(plan: Plan, finished: Finished, console: Console) -> None:
    done = sum(trial.state.is_finished() for trial in finished.trials)
    console.print(
        f"Study {plan.study_name}: {done} of {plan.n_trials} trials are done; its workers go on. Give the same command "
        "again to watch them, to start those that are missing, and for the results.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _finished(study: optuna.Study, plan: Plan) -> Finished:
    trials = trials_of(study, plan)
    failed = sum(trial.state == TrialState.FAIL for trial in trials)
    best = [] if plan.jobs is not None else best_trials(study, trials)
    return Finished(study, plan, trials, best, is_complete(trials, plan), failed > plan.allowed_failures)


def _leave_results(
    finished: Finished,
    composer: Composer,
    parent: Parent | NoParent,
    console: Console,
    failure: BaseException | None,
) -> None:
    plan, directory = finished.plan, Path(finished.plan.directory)
    files = [results.write_trials(directory, plan, finished.trials)]
    if plan.jobs is not None:
        groups = results.over_seeds(plan, finished.trials)
        files.append(results.write_multirun_results(directory, groups))
    elif finished.best:
        files.append(results.write_optimization_results(directory, finished.best, len(plan.metrics)))
        if len(plan.metrics) == 1:
            files.append(results.write_best_experiment(directory, plan, composer, finished.best[0]))
        files += write_plots(finished.study, plan.metrics, directory / "plots", plan.ends)
    status = "FINISHED" if failure is None and finished.exit_code == 0 else "FAILED"
    if isinstance(failure, KeyboardInterrupt | Interrupted):
        status = "KILLED"
    elif status == "FINISHED" and not finished.complete:
        # Its time was up (hydra.sweeper.timeout) before its trials were done.
        status = "KILLED"
    parent.finish(plan, summary_metrics(finished.study, plan, finished.trials), files, status)
    print_summary(finished.study, plan, finished.trials, console)
    parent.wait(finished.trials, plan.ends)
