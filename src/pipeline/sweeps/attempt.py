"""One attempt at a trial: where it runs, what it goes on from, and how its end is written down."""

from __future__ import annotations

import contextlib
import gc
import logging
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from pipeline.config.masking import mask
from pipeline.errors import Diverged, UserError
from pipeline.sweeps.optuna_inside import filter_study
from pipeline.sweeps.plan import Plan
from pipeline.sweeps.rows import ATTEMPT, REPORTS
from pipeline.sweeps.running import BadObjective, Outcome, TooLarge, fresh_subdirectory, objective_values
from pipeline.sweeps.storage import Claim, Lost, SweepStorage
from pipeline.tracking import take_over
from pipeline.tracking.journal import JOURNAL

log = logging.getLogger(__name__)


class Attempt:
    """One attempt at one trial, and how it is written down."""

    def __init__(
        self, plan: Plan, study: optuna.Study, storage: SweepStorage, claim: Claim, started: float
    ) -> None:
        self.claim = claim
        self.trial: optuna.Trial | None = None
        self.directory: Path | None = None
        self.resumes = False
        self.steps = 0
        self._plan = plan
        self._study = study
        self._storage = storage
        self._started = started

    def begin(self, place: str, experiments_dir: Path) -> str:
        """Choose the directory, and note it for the next attempt.

        That of the attempt before where its last checkpoint can be read and nobody writes there any more: the trial
        then goes on from it (`resumes`), with what was reported until then. A new one otherwise.

        Args:
            place: Name of a trial's directory below the sweep's, as configured.
            experiments_dir: Directory in which tracked runs are kept track of.

        Returns:
            The directory, relative to the sweep's.
        """
        assert self.trial is not None
        root, attributes = Path(self._plan.directory), self._frozen().system_attrs
        before = attributes.get(ATTEMPT)
        epoch = None if before is None else _saved_epoch(Path(before), experiments_dir)
        if before is None or epoch is None:
            subdir = fresh_subdirectory(root, place)
            self.directory = root / subdir
            self._storage.set_trial_system_attr(self.claim.trial_id, ATTEMPT, str(self.directory))
            return subdir
        self.directory, self.resumes = Path(before), True
        log.info("Trial %d goes on in %s", self.claim.number, before)
        if not self._plan.fold_reports:
            # Folds that are done are reported again when their results are read.
            for step, value in attributes.get(REPORTS, {}).items():
                if int(step) < epoch:
                    self.trial.report(value, int(step))
        # An absolute path stays what it is where it is joined to the sweep's directory.
        return str(before)

    def complete(self, outcome: Outcome) -> None:
        """Record what it came to."""
        attributes = {"metrics": outcome.metrics, "baseline": outcome.baseline, "run_id": outcome.run_id}
        if self._plan.jobs is not None:
            # A plain multirun optimises nothing: Optuna still wants a number for a finished trial.
            values = [outcome.metrics.get(name, 0.0) for name in self._plan.metrics]
        else:
            values = objective_values(outcome.metrics, self._plan.metrics)
        self._finish(TrialState.COMPLETE, values, attributes)

    def copy_known_result(self, trial: optuna.Trial) -> bool:
        """Take the result of an earlier trial with the same settings; gives whether there was one."""
        done = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        for other in done:
            if other.params == trial.params and "duplicate_of" not in other.user_attrs:
                for step, value in other.intermediate_values.items():
                    trial.report(value, step)
                copied = ("metrics", "baseline", "rejected")
                kept = {key: value for key, value in other.user_attrs.items() if key in copied}
                self._finish(other.state, other.values, {**kept, "duplicate_of": other.number})
                log.info(
                    "Trial %d has the settings of trial %d and takes its result", trial.number, other.number
                )
                return True
        return False

    def fail(self, error: Exception) -> None:
        """Record a trial that raised: pruned, refused for its size, or failed.

        Raises:
            LostClaim: The trial is no longer this worker's; its files stay as they are.
        """
        if isinstance(error, optuna.TrialPruned):
            self._finish(TrialState.PRUNED, self._last_value(), {"reason": str(error)})
            self._let_go()
        elif isinstance(error, TooLarge):
            assert self.trial is not None
            self.trial.set_constraint("parameters", error.parameters - error.limit)
            self._finish(TrialState.PRUNED, None, {"rejected": str(error)})
        else:
            log.warning(
                "Trial %d failed: %s", self.claim.number, reason_of(error), exc_info=_unexpected(error)
            )
            self._finish(TrialState.FAIL, None, {"reason": reason_of(error)})
            _free_memory(error)

    def _last_value(self) -> list[float] | None:
        values = self._frozen().intermediate_values
        return [values[max(values)]] if values else None

    def _frozen(self) -> FrozenTrial:
        return self._storage.get_trial(self.claim.trial_id)

    def _let_go(self) -> None:
        """Remove the checkpoints; what nobody goes on with counts as finished, and can be cleaned away."""
        from pipeline.runs.state import FILE, RunState

        if self.directory is None:
            return
        for folder in self.directory.rglob("checkpoints"):
            shutil.rmtree(folder, ignore_errors=True)
        # On a full disk it stays as it is: as good, but for the room that it takes.
        with contextlib.suppress(OSError):
            for path in list(self.directory.rglob(FILE)):
                RunState(path.parent).finish()

    def _finish(self, state: TrialState, values: list[float] | None, attributes: Mapping[str, Any]) -> None:
        seconds = round(time.monotonic() - self._started, 3)
        own = {
            "seconds": seconds,
            "steps": self.steps,
            "directory": str(self.directory) if self.directory else None,
        }
        frozen = self._frozen()
        study = filter_study(self._study, frozen)
        study.sampler.after_trial(study, frozen, state, values)
        self._storage.finish(self.claim, state, values, {**own, **attributes})


def reason_of(error: BaseException) -> str:
    """Why a trial failed, in one line and without secrets."""
    if isinstance(error, BadObjective):
        return str(error)
    kind = {"OutOfMemoryError": "out of memory", "MemoryError": "out of memory", "Diverged": "diverged"}
    name = kind.get(type(error).__name__, type(error).__name__)
    text = mask(str(error)).strip()
    return f"{name}: {text.splitlines()[0]}" if text else name


def report_lost(lost: list[Lost]) -> None:
    """Say in the log which trials' workers vanished."""
    for entry in lost:
        end = "it is queued again" if entry.again else "it is not tried again"
        times = f" ({entry.times}. time at this place)" if entry.times else ""
        log.warning("The worker of trial %d vanished%s: %s", entry.number, times, end)


def _unexpected(error: BaseException) -> bool:
    return not isinstance(error, UserError | Diverged | BadObjective | MemoryError)


def _free_memory(error: BaseException) -> None:
    """Let go of what a trial that ran out of memory held: the traceback's frames keep the tensors alive."""
    error.__traceback__ = None
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _saved_epoch(directory: Path, experiments_dir: Path) -> int | None:
    """How many epochs are done in the checkpoints that a run can go on from; None where it cannot."""
    from pipeline.runs.state import left_behind, saved_states

    found = saved_states(directory)
    if not found:
        return None
    # A run that is tracked says by its journal whether it is being written, wherever its process is.
    tracked = next(directory.rglob(f"tracking/{JOURNAL}"), None) is not None
    if not tracked and not left_behind(directory):
        log.warning("The trial begins again: its run in %s may still be written (logger=none)", directory)
        return None
    from pipeline.runs.describing import resumed_at

    try:
        epochs = [resumed_at(path)[0] for path in found]
    except UserError as error:
        log.warning("The trial begins again: %s", error)
        return None
    return min(epochs) if take_over(directory, experiments_dir) else None
