"""The queue of trials: exact under concurrency, and nothing lost when a worker is."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
import toy_sweeps as toy
from optuna.trial import TrialState

from pipeline.errors import UserError
from pipeline.sweeps.optuna_inside import FIXED
from pipeline.sweeps.storage import (
    COMPLETE_SETTINGS,
    LostClaim,
    SweepStorage,
    open_storage,
    refuse_written_password,
    storage_url,
)


@pytest.fixture
def storage(tmp_path: Path) -> SweepStorage:
    return open_storage(toy.url(tmp_path))


def new_study(storage: SweepStorage) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(storage=storage, study_name="s", load_if_exists=True)


def worker(url: str, total: int, taken: Any) -> None:
    """Opens the storage, queues, and runs trials to the end, writing as much as a real one does."""
    storage = open_storage(url)
    study = new_study(storage)
    storage.enqueue_up_to(study._study_id, total)
    while (claim := storage.claim(study._study_id, total)) is not None:
        trial = optuna.Trial(study, claim.trial_id)
        x = trial.suggest_float("x", 0.0, 1.0)
        for step in range(3):
            trial.report(x, step)
            storage.beat(claim)
        storage.finish(claim, TrialState.COMPLETE, [x], {"seconds": 0.1})
        taken.put(claim.number)
    taken.put(None)


def test_eight_processes_on_a_new_sqlite_file_run_each_trial_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    taken = context.Queue()
    processes = [context.Process(target=worker, args=(toy.url(tmp_path), 40, taken)) for _ in range(8)]
    for process in processes:
        process.start()
    found = [taken.get(timeout=120) for _ in range(48)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 8
    assert Counter(found) == {**dict.fromkeys(range(40), 1), None: 8}
    trials = new_study(open_storage(toy.url(tmp_path))).trials
    assert [trial.number for trial in trials] == list(range(40))
    assert all(trial.state == TrialState.COMPLETE and len(trial.intermediate_values) == 3 for trial in trials)


def test_queueing_again_adds_only_what_is_missing(storage: SweepStorage) -> None:
    study = new_study(storage)
    assert storage.enqueue_up_to(study._study_id, 3, [{FIXED: {"x": 0.5}}]) == 3
    assert storage.enqueue_up_to(study._study_id, 3) == 0
    assert storage.enqueue_up_to(study._study_id, 5) == 2
    assert [trial.system_attrs.get(FIXED) for trial in study.trials] == [{"x": 0.5}, None, None, None, None]


def test_a_lower_total_leaves_later_trials_waiting(storage: SweepStorage) -> None:
    study = new_study(storage)
    storage.enqueue_up_to(study._study_id, 4)
    assert [claim.number for _ in range(2) if (claim := storage.claim(study._study_id, 2))] == [0, 1]
    assert storage.claim(study._study_id, 2) is None


def test_an_interrupted_trial_waits_again_with_its_values_and_number(storage: SweepStorage) -> None:
    study = new_study(storage)
    storage.enqueue_up_to(study._study_id, 2)
    claim = storage.claim(study._study_id, 2)
    assert claim is not None
    trial = optuna.Trial(study, claim.trial_id)
    x = trial.suggest_float("x", 0.0, 1.0)
    storage.set_trial_system_attr(claim.trial_id, COMPLETE_SETTINGS, trial.params)
    trial.report(1.0, 0)
    storage.give_back(claim)
    waiting = study.trials[0]
    assert (waiting.state, waiting.params, waiting.intermediate_values) == (TrialState.WAITING, {}, {})
    again = storage.claim(study._study_id, 2)
    assert again is not None
    assert again.number == 0
    assert optuna.Trial(study, again.trial_id).suggest_float("x", 0.0, 1.0) == x


def test_a_worker_that_lost_its_trial_cannot_write_to_it(storage: SweepStorage) -> None:
    study = new_study(storage)
    storage.enqueue_up_to(study._study_id, 1)
    first = storage.claim(study._study_id, 1)
    assert first is not None
    storage.give_back(first)
    second = storage.claim(study._study_id, 1)
    assert second is not None
    assert not storage.beat(first)
    assert storage.beat(second)
    with pytest.raises(LostClaim):
        storage.finish(first, TrialState.COMPLETE, [1.0])
    storage.finish(second, TrialState.COMPLETE, [2.0])
    assert study.best_value == 2.0


def test_a_trial_of_a_dead_process_is_queued_again_until_retries_are_used_up(tmp_path: Path) -> None:
    storage = open_storage(toy.url(tmp_path))
    study = new_study(storage)
    storage.enqueue_up_to(study._study_id, 1)
    code = (
        "import sys, optuna; from pipeline.sweeps.storage import open_storage\n"
        "storage = open_storage(sys.argv[1]); print(storage.claim(1, 1).number)"
    )
    for lost in (1, 2):
        command = [sys.executable, "-c", code, toy.url(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "0"
        [entry] = storage.reclaim(study._study_id, retries=1)
        assert (entry.number, entry.times, entry.again) == (0, lost, lost == 1)
    trial = study.trials[0]
    assert trial.state == TrialState.FAIL
    assert "vanished 2 times" in trial.user_attrs["reason"]


def test_a_silent_worker_of_another_machine_is_noticed_by_its_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(toy.url(tmp_path), grace=1.0)
    study = new_study(storage)
    storage.enqueue_up_to(study._study_id, 1)
    elsewhere = {"host": "elsewhere", "pid": 1, "started": "1"}
    monkeypatch.setattr("pipeline.sweeps.storage.process.this_process", lambda: elsewhere)
    claim = storage.claim(study._study_id, 1)
    assert claim is not None
    assert storage.reclaim(study._study_id, 1) == []
    # The database's clock has whole seconds.
    time.sleep(2.2)
    assert storage.beat(claim)
    assert storage.reclaim(study._study_id, 1) == []
    time.sleep(2.2)
    assert [entry.number for entry in storage.reclaim(study._study_id, 1)] == [0]


def test_addresses(tmp_path: Path) -> None:
    assert storage_url(None, tmp_path) == f"sqlite:///{tmp_path / 'optuna.db'}"
    assert storage_url("postgresql://me@db/x", tmp_path) == "postgresql+psycopg://me@db/x"
    for wrong in ("nothing", "sqlite://", "sqlite:///:memory:"):
        with pytest.raises(UserError, match="storage"):
            storage_url(wrong, tmp_path)


def test_passwords_are_refused_in_the_configuration_and_kept_out_of_messages() -> None:
    with pytest.raises(UserError) as refused:
        refuse_written_password("postgresql+psycopg://me:geheim@db/x")
    assert "geheim" not in str(refused.value)
    refuse_written_password("postgresql+psycopg://me@db/x")
    refuse_written_password("${oc.env:PIPELINE_STORAGE}")
    with pytest.raises(UserError) as unreachable:
        open_storage("postgresql+psycopg://me:geheim@127.0.0.1:1/x")
    assert "geheim" not in str(unreachable.value)
    assert "PGPASSWORD" in str(unreachable.value)
