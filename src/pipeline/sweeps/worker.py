"""A worker: takes a study's waiting trials one after the other until none is left, and asks for the next at once.

The sweep's own process is one where `n_jobs` is 1; otherwise this module is run as a process of its own:
`python -m pipeline.sweeps.worker --study NAME`, with the storage's address in PIPELINE_STORAGE.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import optuna
from hydra.core.utils import JobRuntime
from omegaconf import DictConfig, OmegaConf
from optuna.trial import TrialState

from pipeline.config.hydra_inside import outcome
from pipeline.errors import Interrupted, UserError
from pipeline.process_life import answer, interrupt, run_process, watch_parent
from pipeline.runs.naming import differences
from pipeline.sweeps.addresses import storage_url
from pipeline.sweeps.algorithms import WILCOXON, build_pruner, build_sampler
from pipeline.sweeps.attempt import Attempt, report_lost
from pipeline.sweeps.composing import Composer
from pipeline.sweeps.optuna_inside import suggest, trial_of
from pipeline.sweeps.plan import Plan
from pipeline.sweeps.rows import COMPLETE_SETTINGS, STEP
from pipeline.sweeps.running import (
    Context,
    Outcome,
    Pruned,
    Runner,
    as_outcome,
    load_function,
    objective_values,
    read_search_space_function,
)
from pipeline.sweeps.space import as_override
from pipeline.sweeps.storage import HEARTBEAT_SECONDS, Claim, LostClaim, SweepStorage, open_storage
from pipeline.sweeps.study import plan_of, prepared
from pipeline.sweeps.time_limit import TimeLimit, halfway
from pipeline.sweeps.trials import JOB, TRIAL
from pipeline.tracking import Reference
from pipeline.tracking.sender_link import end_by

log = logging.getLogger(__name__)

# How often a worker with nothing to do looks whether a trial came back.
_IDLE_SECONDS = 0.5
_RECLAIM_SECONDS = 5.0
_NOTE_SECONDS = 1.0


class Pulse:
    """Gives a sign of life for the trial that is running, from a thread of its own.

    Args:
        storage: Storage that takes the signs of life.
    """

    def __init__(self, storage: SweepStorage) -> None:
        self._storage = storage
        self._claim: Claim | None = None
        self._lost: Claim | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweep-pulse", daemon=True)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Beat for as long as the block lasts."""
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()

    @contextlib.contextmanager
    def of(self, claim: Claim) -> Iterator[None]:
        """Beat for this trial for as long as the block lasts."""
        self._claim = claim
        try:
            yield
        finally:
            self._claim = None

    def check(self, claim: Claim) -> None:
        """Raise where a sign of life found the trial in other hands.

        Raises:
            LostClaim: The trial is no longer this worker's.
        """
        if self._lost == claim:
            raise LostClaim(f"trial {claim.number} was given to another worker")

    def _run(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            claim = self._claim
            # A storage that is away for a while must not end the trial: the next report will say so if it stays away.
            with contextlib.suppress(Exception):
                if claim is not None and not self._storage.beat(claim):
                    self._lost = claim


class Worker:
    """Runs trials.

    Args:
        plan: The sweep.
        storage: Storage of the study.
        composer: Composer of the trials' configurations.
        run: Function that runs one trial.
        on_change: Function called when a trial starts, reports or ends.
    """

    def __init__(
        self,
        plan: Plan,
        storage: SweepStorage,
        composer: Composer,
        run: Runner,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._plan = plan
        self._storage = storage
        self._composer = composer
        self._run = run
        self._on_change = on_change
        self._space = plan.search_space
        self._extend = read_search_space_function(plan.custom_search_space)
        self._study = optuna.load_study(
            study_name=plan.study_name,
            storage=storage,
            pruner=build_pruner(plan.pruner),
            sampler=self._sampler(0),
        )
        self._study_id = storage.get_study_id_from_name(plan.study_name)
        self._prepared = prepared(plan)
        self._pulse = Pulse(storage)
        self._limit = TimeLimit(plan.deadline)
        self.ends = halfway(plan.deadline, plan.ends)
        self._looked = self._noted = 0.0

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        return build_sampler(self._plan.sampler, self._plan.seed, number)

    def work(self) -> None:
        """Run trials until the study has its total, too many failed, or the time is up.

        Returns only when no trial of any worker is running any more, so that a lost one is not left behind.

        Raises:
            KeyboardInterrupt, Interrupted: A signal came; the running trial was given back.
        """
        if self._plan.runner == TRIAL or self._plan.runner == JOB:
            # Imported before the first trial, whose time is its own.
            import pipeline.training.fit  # noqa: F401
        if self._plan.jobs is None:
            self._composer.get_ready(self._space.distributions)
        with self._pulse.running():
            while not self._is_over():
                claim = self._storage.claim(self._study_id, self._plan.n_trials, self._prepared)
                if claim is not None:
                    with self._pulse.of(claim):
                        self._run_trial(claim)
                elif not self._others_running():
                    return
                else:
                    self._on_change()
                    time.sleep(_IDLE_SECONDS)

    def _is_over(self) -> bool:
        if self._limit.over:
            return True
        failed = self._study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        return len(failed) > self._plan.allowed_failures

    def _others_running(self) -> bool:
        if time.monotonic() - self._looked > _RECLAIM_SECONDS:
            self._looked = time.monotonic()
            report_lost(self._storage.reclaim(self._study_id, self._plan.retries))
        states = (TrialState.RUNNING, TrialState.WAITING)
        trials = self._study.get_trials(deepcopy=False, states=states)
        return any(trial.number < self._plan.n_trials for trial in trials)

    def _run_trial(self, claim: Claim) -> None:
        started = time.monotonic()
        attempt = Attempt(self._plan, self._study, self._storage, claim, started)
        try:
            self._study.sampler = self._sampler(claim.number)
            trial = attempt.trial = trial_of(self._study, claim.trial_id)
            overrides = self._suggest(trial, claim)
            self._on_change()
            if self._plan.skip_duplicates and self._plan.jobs is None and attempt.copy_known_result(trial):
                return
            with self._limit.of_a_trial():
                self._train(trial, overrides, attempt)
        except LostClaim as error:
            log.warning("%s; its result here is dropped", error)
        except (KeyboardInterrupt, Interrupted):
            with contextlib.suppress(LostClaim):
                self._storage.give_back(claim)
            if not self._limit.ended:
                raise
            if self._limit.outside is not None:
                # Whoever wants the command to end is told that it did.
                raise Interrupted(self._limit.outside) from None
            log.info(
                "The time is up (hydra.sweeper.timeout): trial %d goes on when the command is given again",
                claim.number,
            )
        except Exception as error:
            try:
                attempt.fail(error)
            except LostClaim as lost:
                log.warning("%s; its end here is dropped", lost)
        finally:
            self._on_change()

    def _suggest(self, trial: optuna.Trial, claim: Claim) -> list[str]:
        if self._plan.jobs is not None:
            job = self._plan.jobs[trial.number]
            for key, distribution in self._space.distributions.items():
                suggest(trial, key, distribution)
            return [f"{key}={value}" for key, value in job.items()]
        for key, distribution in self._space.distributions.items():
            suggest(trial, key, distribution)
        if self._extend is not None:
            self._extend(self._composer.compose([]), trial)
        self._storage.set_trial_system_attr(claim.trial_id, COMPLETE_SETTINGS, trial.params)
        return [as_override(key, value) for key, value in trial.params.items()]

    def _train(self, trial: optuna.Trial, overrides: list[str], attempt: Attempt) -> None:
        config = self._composer.compose(overrides)
        if self._plan.jobs is None:
            # The test split is for the end: a sweep that looks at it would choose by it.
            config.test = False
        place = self._composer.subdirectory(config, trial.number)
        subdir = attempt.begin(place, Path(str(config.paths.experiments_dir)))
        if attempt.resumes:
            config.resume = "auto"
            # Hydra's files are there already.
            config.hydra.output_subdir = None
        context = Context(
            number=trial.number,
            metrics=self._plan.metrics,
            on_report=self._reporter(trial, attempt, config),
            by_fold=self._plan.fold_reports,
            parent=Reference(self._plan.parent[0], Path(self._plan.parent[1])) if self._plan.parent else None,
            tags={"sweep.study": self._plan.study_name, "sweep.trial": str(trial.number)},
            max_parameters=self._plan.max_parameters,
            settings=differences(overrides),
        )

        def task(job: DictConfig) -> Outcome:
            return as_outcome(self._run(job, context))

        result = outcome(self._composer.run(config, subdir, task))
        if isinstance(result, BaseException):
            raise result
        attempt.complete(result)

    def _note_step(self, attempt: Attempt) -> None:
        # It tells a trial that gets on from one that does not; short epochs need not wait for the storage.
        if time.monotonic() - self._noted >= _NOTE_SECONDS:
            self._noted = time.monotonic()
            self._storage.set_trial_system_attr(attempt.claim.trial_id, STEP, attempt.steps)

    def _reporter(
        self, trial: optuna.Trial, attempt: Attempt, config: DictConfig
    ) -> Callable[[int, Mapping[str, float]], None]:
        prunes = self._plan.pruner is not None
        steps = OmegaConf.select(config, "data.folds" if self._plan.fold_reports else "trainer.max_epochs")
        running_mean = self._plan.fold_reports and (self._plan.pruner or {}).get("_target_") != WILCOXON
        seen: list[float] = []

        def report(step: int, metrics: Mapping[str, float]) -> None:
            attempt.steps = step + 1
            self._pulse.check(attempt.claim)
            if len(self._plan.metrics) > 1 or self._plan.jobs is not None:
                self._note_step(attempt)
                return
            validated = any(name.startswith("val/") for name in metrics)
            if self._plan.metrics[0].startswith("val/") and not validated:
                return
            value = objective_values(metrics, self._plan.metrics)[0]
            seen.append(value)
            # Wilcoxon compares fold with fold; the others compare where two trials stand.
            trial.report(sum(seen) / len(seen) if running_mean else value, step)
            self._on_change()
            # A trial that has nothing left to do is worth more whole.
            if prunes and step + 1 != steps and trial.should_prune():
                raise Pruned(f"worse than the others after step {step}")

        return report


def main(arguments: list[str] | None = None) -> int:
    """Run as a worker process; its exit code says how it ended."""
    asked = _parser().parse_args(arguments)
    if "SLURM_JOB_ID" in os.environ:
        # As many as `srun` starts are as many workers, not the parts of one training.
        os.environ["SLURM_JOB_NAME"] = "interactive"
    answer(interrupt, signal.SIGTERM)
    answer(signal.default_int_handler, signal.SIGINT)
    if asked.parent is not None:
        watch_parent(asked.parent, lambda: os.kill(os.getpid(), signal.SIGTERM))
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s][%(name)s][%(levelname)s] %(message)s")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    JobRuntime.instance().set("name", "pipeline")
    try:
        worker = _worker(asked.study)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, Interrupted) as interruption:
        return getattr(interruption, "exit_code", 130)
    try:
        worker.work()
    except KeyboardInterrupt:
        return 130
    except Interrupted as interruption:
        return interruption.exit_code
    finally:
        end_by(worker.ends)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.sweeps.worker",
        description="Run trials of a study until it has its total. The address of its storage is in PIPELINE_STORAGE.",
    )
    parser.add_argument(
        "--study", required=True, metavar="NAME", help="hydra.sweeper.study_name of the sweep"
    )
    # Number of the process that started it: such a worker ends with it.
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    return parser


def _worker(name: str) -> Worker:
    url = os.environ.get("PIPELINE_STORAGE")
    if not url:
        raise UserError(
            "PIPELINE_STORAGE is not set: expected the address of the sweep's storage, "
            "such as postgresql+psycopg://USER@HOST/DATABASE"
        )
    storage = open_storage(storage_url(url, Path()), waits=True)
    plan = plan_of(storage, name)
    storage.be_patient(plan.grace)
    if plan.working_directory and Path(plan.working_directory).is_dir():
        os.chdir(plan.working_directory)
    return Worker(plan, storage, Composer(plan), load_function(plan.runner))


if __name__ == "__main__":
    run_process(main)
