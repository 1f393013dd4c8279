"""What a sweep shows while it runs: one live table on a terminal, a line for each finished trial elsewhere."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.live import Live
from rich.table import Table

from pipeline.sweeps.plan import Plan
from pipeline.sweeps.study import best_trials

# The live table shows the trials that run and the latest that ended; a long study would not fit on a screen.
_SHOWN = 12
_REFRESH_SECONDS = 0.5


class Display:
    """Shows a study's trials as they come.

    Args:
        plan: The sweep.
        study: Optuna's study.
        console: Console to show them on; a terminal gets the live table.
    """

    def __init__(self, plan: Plan, study: Any, console: Console) -> None:
        self._plan = plan
        self._study = study
        self._console = console
        self._what = "trial" if plan.jobs is None else "job"
        self._live: Live | None = None
        self._reported: set[int] = {trial.number for trial in self._trials() if trial.state.is_finished()}
        self._before = len(self._reported)
        self._started = time.monotonic()
        self._updated = 0.0

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            self._live = Live(self.table(self._trials()), console=self._console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.update(force=True)
        if self._live is not None:
            self._live.stop()

    def update(self, force: bool = False) -> None:
        """Look at the study and show what changed; at most twice a second unless forced."""
        if not force and time.monotonic() - self._updated < _REFRESH_SECONDS:
            return
        self._updated = time.monotonic()
        trials = self._trials()
        if self._live is not None:
            self._live.update(self.table(trials), refresh=True)
            return
        for trial in trials:
            if trial.state.is_finished() and trial.number not in self._reported:
                self._reported.add(trial.number)
                self._console.print(self.line(trial, trials), markup=False, highlight=False, soft_wrap=True)

    def table(self, trials: Sequence[FrozenTrial]) -> Table:
        """The live table."""
        table = Table(
            title=f"{self._plan.study_name}: {self._progress(trials)}", caption=self._caption(trials)
        )
        columns = (self._what, "state", "step", *self._headings(), *self._keys())
        for column in columns:
            table.add_column(column, justify="right" if column in (self._what, "step") else "left")
        for trial in _latest(trials):
            table.add_row(*self._row(trial))
        return table

    def line(self, trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> str:
        """One finished trial on one line."""
        parts = [f"{self._what} {trial.number} {state_of(trial)}"]
        parts += self._values(trial)
        parts += [f"{key}={value}" for key, value in self._settings(trial).items()]
        if reason := reason_of(trial):
            parts.append(f"({reason})")
        if seconds := trial.user_attrs.get("seconds"):
            parts.append(f"{seconds:.1f} s")
        return "  ".join(parts) + f"  [{self._progress(trials)}]"

    def _trials(self) -> list[FrozenTrial]:
        return [
            trial for trial in self._study.get_trials(deepcopy=False) if trial.number < self._plan.n_trials
        ]

    def _progress(self, trials: Sequence[FrozenTrial]) -> str:
        done = sum(trial.state.is_finished() for trial in trials)
        text = f"{done}/{self._plan.n_trials}"
        best = [] if self._plan.jobs is not None else best_trials(self._study, trials)
        if len(best) == 1:
            text += f", best {', '.join(self._values(best[0]))} (trial {best[0].number})"
        return text

    def _caption(self, trials: Sequence[FrozenTrial]) -> str:
        done = sum(trial.state.is_finished() for trial in trials)
        here = done - self._before
        if not here or done >= self._plan.n_trials:
            return ""
        left = (time.monotonic() - self._started) / here * (self._plan.n_trials - done)
        return f"about {duration(left)} left"

    def _headings(self) -> list[str]:
        return [] if self._plan.jobs is not None else list(self._plan.metrics)

    def _keys(self) -> list[str]:
        if self._plan.jobs is not None:
            return list(self._plan.jobs[0])
        return list(self._plan.space)

    def _row(self, trial: FrozenTrial) -> list[str]:
        if trial.values is not None and trial.state != TrialState.RUNNING:
            values = [f"{value:.5g}" for value in trial.values]
        else:
            values = [
                f"{trial.intermediate_values[trial.last_step]:.5g}" if trial.last_step is not None else ""
            ]
            values += [""] * (len(self._headings()) - 1)
        step = "" if trial.last_step is None else str(trial.last_step + 1)
        settings = self._settings(trial)
        shown = [settings.get(key, "") for key in self._keys()]
        return [str(trial.number), state_of(trial), step, *values[: len(self._headings())], *shown]

    def _values(self, trial: FrozenTrial) -> list[str]:
        if self._plan.jobs is not None or trial.values is None:
            return []
        pairs = zip(self._plan.metrics, trial.values, strict=True)
        return [f"{name}={value:.5g}" for name, value in pairs]

    def _settings(self, trial: FrozenTrial) -> dict[str, str]:
        if self._plan.jobs is not None:
            return self._plan.jobs[trial.number]
        return {key: shown(value) for key, value in trial.params.items()}


def shown(value: Any) -> str:
    """A setting, numbers to five digits."""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def state_of(trial: FrozenTrial) -> str:
    """A trial's state in a word."""
    if "rejected" in trial.user_attrs:
        return "rejected"
    return {"COMPLETE": "complete", "FAIL": "failed"}.get(trial.state.name, trial.state.name.lower())


def reason_of(trial: FrozenTrial) -> str:
    """Why a trial did not end as others do, empty where it did."""
    if "duplicate_of" in trial.user_attrs:
        return f"same settings as trial {trial.user_attrs['duplicate_of']}"
    return str(trial.user_attrs.get("rejected") or trial.user_attrs.get("reason") or "")


def duration(seconds: float) -> str:
    """Seconds in words: `45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def hours_saved(trials: Sequence[FrozenTrial]) -> float:
    """Hours that pruning saved: what each pruned trial lacks to the median time of those that ran to their end.

    Zero where none was completed (nothing to compare with). Trials that were not trained do not count.
    """
    trained = [trial for trial in trials if not {"duplicate_of", "rejected"} & trial.user_attrs.keys()]
    full: list[float] = [
        trial.user_attrs["seconds"] for trial in trained if trial.state == TrialState.COMPLETE
    ]
    if not full:
        return 0.0
    typical = statistics.median(full)
    cut: list[float] = [trial.user_attrs["seconds"] for trial in trained if trial.state == TrialState.PRUNED]
    return sum(max(typical - seconds, 0.0) for seconds in cut) / 3600


def _latest(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    visible = [trial for trial in trials if trial.state != TrialState.WAITING]
    running = [trial for trial in visible if trial.state == TrialState.RUNNING]
    ended = sorted(
        (trial for trial in visible if trial.datetime_complete is not None),
        key=lambda trial: (
            trial.datetime_complete is not None and trial.datetime_complete.timestamp(),
            trial.number,
        ),
    )
    return sorted([*running, *ended[-_SHOWN:]], key=lambda trial: trial.number)
