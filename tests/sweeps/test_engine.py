"""Sweeps of a function: exact totals, reproducible, resumable, and honest about what went wrong."""

from __future__ import annotations

import io
import math
import os
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import toy_sweeps as toy
import yaml
from omegaconf import DictConfig
from optuna.trial import TrialState
from rich.console import Console

from pipeline.config import compose
from pipeline.errors import Diverged, Interrupted, UserError
from pipeline.process_life import answer, restore
from pipeline.runs.state import read
from pipeline.sweeps import display, engine, time_limit
from pipeline.sweeps.algorithms import build_pruner, read_pruner
from pipeline.sweeps.engine import Finished, run_sweep
from pipeline.sweeps.parent import NoParent
from pipeline.sweeps.plan import Plan
from pipeline.sweeps.running import Context, Outcome, Pruned, TooLarge, load_function
from pipeline.sweeps.storage import open_storage
from pipeline.sweeps.time_limit import deadline
from pipeline.tracking import sender_link

RANDOM = {"_target_": "optuna.samplers.RandomSampler"}
TPE = {"_target_": "optuna.samplers.TPESampler", "n_startup_trials": 3}
MEDIAN = {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 2, "n_warmup_steps": 1}


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "write_plots", lambda *_: [])


def sweep(plan: Plan, directory: Path, run: Callable[..., Outcome] = toy.quadratic, **more: Any) -> Finished:
    console = Console(file=io.StringIO(), width=200)
    finished = run_sweep(plan, toy.url(directory), toy.identity_of(plan), run=run, console=console, **more)
    finished.text = console.file.getvalue()  # type: ignore[attr-defined]
    return finished


def values(finished: Finished) -> list[tuple[Any, ...]]:
    return [(trial.number, trial.state.name, trial.values, dict(trial.params)) for trial in finished.trials]


def test_the_same_seed_gives_the_same_trials_also_after_an_interruption(tmp_path: Path) -> None:
    plan = toy.plan(tmp_path / "a", n_trials=8, sampler=TPE, pruner=MEDIAN)
    whole = sweep(plan, tmp_path / "a")
    assert whole.complete
    calls = 0

    def interrupted(config: DictConfig, context: Context) -> Outcome:
        nonlocal calls
        calls += 1
        if calls in (3, 6):
            context.on_report(0, {"val/loss": 1.0})
            raise KeyboardInterrupt
        return toy.quadratic(config, context)

    other = toy.plan(tmp_path / "b", n_trials=8, sampler=TPE, pruner=MEDIAN)
    for _ in range(2):
        with pytest.raises(Interrupted) as stopped:
            sweep(other, tmp_path / "b", interrupted)
        assert stopped.value.exit_code == 130
    assert values(sweep(other, tmp_path / "b", interrupted)) == values(whole)
    another_seed = toy.plan(tmp_path / "c", n_trials=8, sampler=TPE, pruner=MEDIAN, seed=1)
    assert values(sweep(another_seed, tmp_path / "c")) != values(whole)


def test_the_total_is_the_studys_however_often_it_is_called(tmp_path: Path) -> None:
    assert len(sweep(toy.plan(tmp_path, n_trials=3), tmp_path).trials) == 3
    again = sweep(toy.plan(tmp_path, n_trials=3), tmp_path, run=_must_not_run)
    assert [trial.number for trial in again.trials] == [0, 1, 2]
    more = sweep(toy.plan(tmp_path, n_trials=5), tmp_path)
    assert [trial.number for trial in more.trials] == [0, 1, 2, 3, 4]
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir() if path.name.isdigit()) == list(
        "01234"
    )


def _must_not_run(config: DictConfig, context: Context) -> Outcome:
    raise AssertionError("all trials are done")


def test_a_changed_space_direction_or_experiment_is_refused_with_the_difference(tmp_path: Path) -> None:
    plan = toy.plan(tmp_path, n_trials=1)
    sweep(plan, tmp_path)
    other_space = toy.plan(tmp_path, "model.dropout=interval(0.0,0.5)", "optimizer.lr=choice(0.1,0.2)")
    with pytest.raises(UserError) as refused:
        sweep(other_space, tmp_path)
    assert "model.dropout: interval(0.0, 0.9) -> interval(0.0, 0.5)" in str(refused.value)
    assert "optimizer.lr: not varied -> choice(0.1, 0.2)" in str(refused.value)
    with pytest.raises(UserError, match="val/loss: minimize -> maximize"):
        sweep(toy.plan(tmp_path, directions=["maximize"]), tmp_path)
    with pytest.raises(UserError, match="epochs: 4 -> 5"):
        run_sweep(plan, toy.url(tmp_path), {**toy.identity_of(plan), "experiment": {"epochs": 5}})


def test_own_settings_come_first_then_the_known_good_ones(tmp_path: Path) -> None:
    plan = toy.plan(tmp_path, "model.dropout=interval(0.0,0.9)", "optimizer.lr=interval(0.0,1.0)", n_trials=3)
    own = {"model.dropout": 0.5, "optimizer.lr": 0.25}
    finished = sweep(plan, tmp_path, own=own, seeds=[{"model.dropout": 0.125}])
    assert finished.trials[0].params == own
    assert finished.trials[1].params["model.dropout"] == 0.125
    assert "default settings (trial 0)" in finished.text  # type: ignore[attr-defined]
    assert "baseline" in finished.text  # type: ignore[attr-defined]


def test_failures_are_recorded_with_their_reason_and_the_study_goes_on(tmp_path: Path) -> None:
    def failing(config: DictConfig, context: Context) -> Outcome:
        if context.number == 0:
            raise ValueError("wrong shape")
        if context.number == 1:
            raise Diverged("the loss became NaN in step 7")
        if context.number == 2:
            return Outcome({"val/loss": math.inf})
        if context.number == 3:
            context.on_report(0, {"val/loss": math.nan})
        if context.number == 4:
            raise MemoryError
        if context.number == 5:
            return Outcome({"val/accuracy": 1.0})
        return toy.quadratic(config, context)

    finished = sweep(toy.plan(tmp_path, n_trials=8, max_failure_rate=0.75), tmp_path, failing)
    assert finished.exit_code == 0
    assert [trial.state.name for trial in finished.trials] == ["FAIL"] * 6 + ["COMPLETE"] * 2
    reasons = [trial.user_attrs["reason"] for trial in finished.trials[:6]]
    assert reasons == [
        "ValueError: wrong shape",
        "diverged: the loss became NaN in step 7",
        "val/loss is inf",
        "val/loss is nan",
        "out of memory",
        "it did not measure val/loss (it has val/accuracy)",
    ]
    assert all(reason in finished.text for reason in reasons)  # type: ignore[attr-defined]


def test_the_study_is_given_up_when_too_many_fail(tmp_path: Path) -> None:
    def failing(config: DictConfig, context: Context) -> Outcome:
        raise ValueError("always")

    finished = sweep(toy.plan(tmp_path, n_trials=8, max_failure_rate=0.25), tmp_path, failing)
    assert finished.exit_code == 1
    states = [trial.state.name for trial in finished.trials]
    assert states == ["FAIL"] * 3
    assert "3 failed, 5 waiting" in finished.text  # type: ignore[attr-defined]


def test_pruning_ends_a_trial_and_removes_its_checkpoint(tmp_path: Path) -> None:
    reported: list[tuple[int, int]] = []

    def training(config: DictConfig, context: Context) -> Outcome:
        directory = tmp_path / "sweep" / str(context.number) / "checkpoints"
        directory.mkdir(parents=True)
        (directory / "last.ckpt").touch()
        # A run that an error ends can be resumed, and is kept.
        (directory.parent / "state.json").write_text('{"status": "interrupted"}')
        for epoch in range(4):
            reported.append((context.number, epoch))
            context.on_report(epoch, {"val/loss": float(context.number)})
        return Outcome({"val/loss": float(context.number)})

    finished = sweep(toy.plan(tmp_path, n_trials=4, pruner=MEDIAN), tmp_path, training)
    # The two first run to their end; each later one is worse than the median of those before it after two epochs.
    assert [trial.state.name for trial in finished.trials] == ["COMPLETE", "COMPLETE", "PRUNED", "PRUNED"]
    assert [epoch for number, epoch in reported if number == 3] == [0, 1]
    assert (tmp_path / "sweep" / "0" / "checkpoints").exists()
    assert not (tmp_path / "sweep" / "3" / "checkpoints").exists()
    states = [read(tmp_path / "sweep" / str(number))["status"] for number in range(4)]
    assert states == ["interrupted", "interrupted", "finished", "finished"]


def test_hours_saved_is_what_pruned_trials_lack_to_a_full_one() -> None:
    def trial(state: TrialState, seconds: float, **more: Any) -> optuna.trial.FrozenTrial:
        value = {"value": 1.0} if state == TrialState.COMPLETE else {}
        return optuna.trial.create_trial(state=state, user_attrs={"seconds": seconds, **more}, **value)

    full = [10.0, 20.0, 90.0]
    trials = [trial(TrialState.COMPLETE, seconds) for seconds in full]
    trials += [trial(TrialState.PRUNED, 5.0), trial(TrialState.PRUNED, 25.0)]
    trials += [trial(TrialState.PRUNED, 1.0, rejected="x")]
    assert display.hours_saved(trials) == pytest.approx((statistics.median(full) - 5.0) / 3600)


def test_settings_that_were_tried_get_the_known_result(tmp_path: Path) -> None:
    ran: list[int] = []

    def counted(config: DictConfig, context: Context) -> Outcome:
        ran.append(context.number)
        return toy.quadratic(config, context)

    finished = sweep(toy.plan(tmp_path, "model.dropout=choice(0.1,0.2)", n_trials=8), tmp_path, counted)
    assert len(ran) == 2
    by_setting: dict[float, set[float]] = {}
    for trial in finished.trials:
        by_setting.setdefault(trial.params["model.dropout"], set()).add(trial.values[0])
    assert {setting: len(found) for setting, found in by_setting.items()} == {0.1: 1, 0.2: 1}
    (tmp_path / "b").mkdir()
    always = toy.plan(tmp_path / "b", "model.dropout=choice(0.1,0.2)", n_trials=4, skip_duplicates=False)
    sweep(always, tmp_path / "b", counted)
    assert len(ran) == 2 + 4


def test_models_over_the_limit_are_rejected_without_training(tmp_path: Path) -> None:
    def sized(config: DictConfig, context: Context) -> Outcome:
        assert context.max_parameters == 100
        if context.number % 2:
            raise TooLarge(312_004, 100)
        return toy.quadratic(config, context)

    finished = sweep(toy.plan(tmp_path, n_trials=4, max_parameters=100), tmp_path, sized)
    assert [display.state_of(trial) for trial in finished.trials] == ["complete", "rejected"] * 2
    assert finished.trials[1].constraints == {"parameters": 311_904.0}
    assert "312,004 parameters, more than 100" in finished.text  # type: ignore[attr-defined]
    assert finished.exit_code == 0


def test_several_objectives_give_a_pareto_front(tmp_path: Path) -> None:
    def two(config: DictConfig, context: Context) -> Outcome:
        x = config.model.dropout
        context.on_report(0, {"val/loss": x})
        return Outcome({"val/loss": x, "parameters": (x - 0.5) ** 2})

    plan = toy.plan(
        tmp_path,
        n_trials=8,
        metrics=["val/loss", "parameters"],
        directions=["minimize", "minimize"],
        sampler=TPE,
    )
    finished = sweep(plan, tmp_path, two)
    points = [tuple(trial.values) for trial in finished.trials]
    front = [p for p in points if not any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in points)]
    assert sorted(tuple(trial.values) for trial in finished.best) == sorted(front)
    written = yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text())
    assert sorted(tuple(entry["values"]) for entry in written["solutions"]) == sorted(front)


def test_a_grid_is_gone_through_once_each(tmp_path: Path) -> None:
    plan = toy.plan(
        tmp_path,
        "model.dropout=choice(0.1,0.2)",
        "optimizer.lr=choice(1,2)",
        n_trials=4,
        sampler={"_target_": "optuna.samplers.GridSampler"},
    )
    finished = sweep(plan, tmp_path)
    found = [(trial.params["model.dropout"], trial.params["optimizer.lr"]) for trial in finished.trials]
    assert found == [(0.1, 1), (0.1, 2), (0.2, 1), (0.2, 2)]


def conditional(config: DictConfig, trial: optuna.Trial) -> None:
    """A deeper network for small dropout only."""
    if trial.params["model.dropout"] < 0.45:
        trial.suggest_int("model.layers", 1, 3)
        trial.suggest_categorical("model.hidden_units", [32])


def test_a_custom_space_may_depend_on_what_was_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sweeps.worker.read_search_space_function", lambda name: conditional)
    layers: dict[int, Any] = {}

    def run(config: DictConfig, context: Context) -> Outcome:
        layers[context.number] = config.model.layers
        return toy.quadratic(config, context)

    finished = sweep(toy.plan(tmp_path, n_trials=8, custom_search_space="mine.conditional"), tmp_path, run)
    for trial in finished.trials:
        assert ("model.layers" in trial.params) == (trial.params["model.dropout"] < 0.45)
        assert layers[trial.number] == trial.params.get("model.layers")


def test_a_function_for_the_space_must_be_allowed() -> None:
    from pipeline.sweeps.running import read_search_space_function

    with pytest.raises(UserError, match=r"os\.system is not on the list"):
        read_search_space_function("os.system")


def test_best_yaml_is_an_experiment_that_composes_to_the_winner(tmp_path: Path) -> None:
    composed: dict[int, Any] = {}

    def run(config: DictConfig, context: Context) -> Outcome:
        composed[context.number] = config.copy()
        return toy.quadratic(config, context)

    plan = toy.plan(
        tmp_path,
        "model.dropout=interval(0.0,0.9)",
        "model.hidden_units=choice([8],[16,4])",
        "scheduler=choice(none,cosine)",
    )
    finished = sweep(plan, tmp_path, run)
    best = finished.best[0]
    again = compose(["experiment=best", "logger=none"], config_dir=tmp_path / "sweep")
    winner = composed[best.number]
    for section in (
        "data",
        "model",
        "optimizer",
        "scheduler",
        "trainer",
        "callbacks",
        "name",
        "seed",
        "objective",
    ):
        assert again[section] == winner[section], section
    assert (again.test, winner.test) == (True, False)
    results = yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text())
    assert results == {"name": "optuna", "best_params": dict(best.params), "best_value": best.value}
    rows = yaml.safe_load((tmp_path / "sweep" / "trials.yaml").read_text())
    assert [row["number"] for row in rows] == list(range(6))


def test_folds_are_compared_by_their_mean_so_far(tmp_path: Path) -> None:
    plan = toy.plan(tmp_path, n_trials=3, fold_reports=True, pruner=MEDIAN)

    def folds(config: DictConfig, context: Context) -> Outcome:
        assert context.by_fold
        for fold, value in enumerate((1.0, 2.0, 6.0)):
            context.on_report(fold, {"val/loss": value + context.number})
        return Outcome({"val/loss": 3.0 + context.number})

    finished = sweep(plan, tmp_path, folds)
    assert finished.trials[0].intermediate_values == {0: 1.0, 1: 1.5, 2: 3.0}
    assert finished.trials[2].state == TrialState.PRUNED


def test_time_is_up_leaves_the_rest_waiting_for_the_next_call(tmp_path: Path) -> None:
    plan = toy.plan(tmp_path, n_trials=5, deadline=0.0)
    first = sweep(plan, tmp_path)
    assert (first.trials, first.complete) == ([], False)
    assert "5 waiting" in first.text  # type: ignore[attr-defined]
    assert sweep(toy.plan(tmp_path, n_trials=5), tmp_path).complete


def test_time_is_up_ends_the_trial_that_runs_and_it_goes_on_with_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers = []

    class Timer(threading.Timer):
        def start(self) -> None:
            timers.append(self.function)

    def endless(config: DictConfig, context: Context) -> Outcome:
        if context.number == 1:
            # The moment comes now.
            threading.Thread(target=timers[-1]).start()
            while True:
                time.sleep(0.02)
        return toy.quadratic(config, context)

    monkeypatch.setattr(time_limit.threading, "Timer", Timer)
    first = sweep(toy.plan(tmp_path, n_trials=3, deadline=time.time() + 1000), tmp_path, endless)
    assert [trial.state for trial in first.trials] == [TrialState.COMPLETE, TrialState.WAITING]
    assert first.exit_code == 0
    again = sweep(toy.plan(tmp_path, n_trials=3), tmp_path)
    assert again.complete
    assert again.trials[0].params == first.trials[0].params


@pytest.mark.parametrize(
    ("number", "code"), [(None, None), (signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=str
)
def test_a_signal_from_outside_is_told_from_the_end_of_the_time(
    number: signal.Signals | None, code: int | None
) -> None:
    came: list[int] = []
    before = answer(lambda got, frame: came.append(got), signal.SIGINT, signal.SIGTERM)
    limit = time_limit.TimeLimit(time.time() + 0.05)
    try:
        with limit.of_a_trial():
            until = time.monotonic() + 20
            while not came and time.monotonic() < until:
                time.sleep(0.01)
            # While the trial saves its state.
            if number is not None:
                os.kill(os.getpid(), number)
    finally:
        restore(before)
    assert limit.ended and limit.outside == code
    assert came == [signal.SIGTERM, *([number] if number else [])]


def test_a_sweep_without_all_of_its_trials_is_recorded_as_killed_and_waits_no_longer_than_its_time(
    tmp_path: Path,
) -> None:
    told: list[Any] = []

    class Recorded(NoParent):
        def finish(self, plan: Plan, metrics: Any, files: Any, status: Any) -> None:
            told.append(status)

        def wait(self, trials: Any, ends: float | None = None) -> None:
            told.append(ends)

    assert (
        sweep(toy.plan(tmp_path, n_trials=2, deadline=0.0, ends=7.0), tmp_path, parent=Recorded()).trials
        == []
    )
    assert sweep(toy.plan(tmp_path, n_trials=2), tmp_path, parent=Recorded()).complete
    assert told == ["KILLED", 7.0, "FINISHED", None]


def test_the_end_of_a_process_waits_for_deliveries_no_longer_than_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    link = sender_link.SenderLink(tmp_path)
    monkeypatch.setattr(sender_link.SenderLink, "ends", None)
    monkeypatch.setattr(link, "wait", lambda directories, timeout: waited.append(timeout) or True)
    for moment in (None, time.time() + 5, time.time() - 5):
        link._process = subprocess.Popen(["true"], stdin=subprocess.PIPE)
        sender_link.end_by(moment)
        started = link._process
        link.close()
        started.wait()
    assert waited[0] == 60 and 0 < waited[1] <= 5 and waited[2] == 0
    assert time_limit.seconds_left(None, 60.0) == 60 and time_limit.seconds_left(time.time() - 1, 60.0) == 0


def test_a_command_ends_in_time_with_its_results() -> None:
    # Of a minute the last six seconds, of ten seconds the last one.
    assert deadline(1000.0, 60.0) == 1054.0
    assert deadline(1000.0, 10.0) == 1009.0


@pytest.mark.parametrize(("epochs", "warm_up"), [(30, 3), (8, 1), (None, 5)])
def test_the_default_pruner_ends_what_is_behind_two_thirds_after_a_tenth(
    epochs: int | None, warm_up: int
) -> None:
    settings = read_pruner("auto", objectives=1, folds=False, epochs=epochs)
    study = optuna.create_study(pruner=build_pruner(settings))
    length = epochs or 30
    for place in range(6):
        trial = study.ask()
        for step in range(length):
            trial.report(place + 1 / (step + 1), step)
        study.tell(trial, float(place))

    def ends(behind: float) -> int | None:
        trial = study.ask()
        for step in range(length):
            trial.report(behind + 1 / (step + 1), step)
            if trial.should_prune():
                return step
        study.tell(trial, state=TrialState.FAIL)
        return None

    # Six are complete, of which the best four are two thirds.
    assert ends(4.5) == warm_up
    assert ends(2.9) is None


def test_lines_say_what_each_trial_came_to(tmp_path: Path) -> None:
    finished = sweep(toy.plan(tmp_path, n_trials=2), tmp_path)
    lines = [line for line in finished.text.splitlines() if line.startswith("trial ")]  # type: ignore[attr-defined]
    for trial, line in zip(finished.trials, lines, strict=True):
        assert f"trial {trial.number} complete  val/loss={trial.values[0]:.5g}" in line
        assert f"model.dropout={trial.params['model.dropout']:.5g}" in line


def test_on_a_terminal_there_is_one_table_with_all_that_run(tmp_path: Path) -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=160)
    plan = toy.plan(tmp_path, n_trials=2)
    run_sweep(plan, toy.url(tmp_path), toy.identity_of(plan), run=toy.quadratic, console=console)
    assert "val/loss" in output.getvalue()
    assert "2/2" in output.getvalue()


def test_a_multirun_sums_up_over_seeds_and_runs_failed_jobs_again(tmp_path: Path) -> None:
    jobs = [{"model.dropout": str(d), "seed": str(seed)} for d in (0.1, 0.2) for seed in (1, 2, 3)]
    plan = toy.plan(
        tmp_path,
        "model.dropout=choice(0.1,0.2)",
        jobs=jobs,
        space={},
        n_trials=6,
        max_failure_rate=1.0,
        metrics=["o"],
    )
    ran: list[int] = []

    def job(config: DictConfig, context: Context) -> Outcome:
        ran.append(context.number)
        assert config.test
        if context.number == 4 and len(ran) <= 6:
            raise ValueError("once")
        return Outcome({"test/accuracy": config.seed * 0.1 + config.model.dropout})

    first = sweep(plan, tmp_path, job)
    assert (first.exit_code, ran) == (1, [0, 1, 2, 3, 4, 5])
    second = sweep(plan, tmp_path, job)
    assert (second.exit_code, ran) == (0, [0, 1, 2, 3, 4, 5, 4])
    groups = yaml.safe_load((tmp_path / "sweep" / "multirun_results.yaml").read_text())
    assert [group["settings"] for group in groups] == [{"model.dropout": "0.1"}, {"model.dropout": "0.2"}]
    for group, dropout in zip(groups, (0.1, 0.2), strict=True):
        expected = [seed * 0.1 + dropout for seed in (1, 2, 3)]
        assert group["seeds"] == [1, 2, 3]
        assert group["mean"]["test/accuracy"] == pytest.approx(statistics.fmean(expected))
        assert group["std"]["test/accuracy"] == pytest.approx(statistics.stdev(expected))


def test_runners_are_found_by_name() -> None:
    assert load_function("toy_sweeps.quadratic") is toy.quadratic


@pytest.mark.parametrize("ends", ["whole", "failed", "pruned", "two objectives"])
def test_a_worker_whose_trial_was_given_away_drops_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    several = ends == "two objectives"
    # Without a sign of life between, the end is the first that finds the trial in other hands.
    beat = 0.1 if ends in ("whole", "two objectives") else 60.0
    monkeypatch.setattr("pipeline.sweeps.worker.HEARTBEAT_SECONDS", beat)
    attempts: list[int] = []

    def taken_away(config: DictConfig, context: Context) -> Outcome:
        attempts.append(context.number)
        if len(attempts) == 1:
            # As another machine does, after this one was silent for too long.
            storage = open_storage(toy.url(tmp_path), grace=-1.0)
            assert [lost.number for lost in storage.reclaim(1, retries=1)] == [0]
            saved = tmp_path / "sweep" / "0" / "checkpoints"
            saved.mkdir(parents=True)
            if ends == "failed":
                raise RuntimeError("of the attempt that was given away")
            if ends == "pruned":
                raise Pruned("of the attempt that was given away")
            time.sleep(0.5)
            if several:
                context.on_report(0, {"val/loss": 1.0, "val/accuracy": 0.0})
                raise AssertionError("the report tells that the trial is in other hands")
        return toy.quadratic(config, context)

    changes: dict[str, Any] = (
        {"metrics": ("val/loss", "val/accuracy"), "directions": ("minimize", "maximize")} if several else {}
    )
    finished = sweep(toy.plan(tmp_path, n_trials=2, **changes), tmp_path, taken_away)
    assert attempts == [0, 0, 1]
    assert (tmp_path / "sweep" / "0" / "checkpoints").exists()
    assert [trial.state.name for trial in finished.trials] == ["COMPLETE"] * 2
    assert finished.trials[0].user_attrs["directory"].endswith("0-attempt2")


def test_how_a_study_stands_is_read_from_its_storage_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.__main__ import main

    sweep(toy.plan(tmp_path, n_trials=3), tmp_path)
    sweep(toy.plan(tmp_path, n_trials=5, study_name="other", deadline=0.0), tmp_path)
    monkeypatch.setenv("PIPELINE_STORAGE", toy.url(tmp_path))
    words = ["task=sweep_status", f"paths.experiments_dir={tmp_path}"]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "toy: 3 trials: 3 complete",
        "other: 5 trials: 5 waiting",
    ]
    assert main([*words, "task.study=toy"]) == 0
    assert "toy: 3/3" in capsys.readouterr().out
    assert main([*words, "task.study=tox"]) == 2
    assert "Did you mean toy" in capsys.readouterr().err
