"""The queue of trials: exact under concurrency, and nothing lost when a worker is."""

from __future__ import annotations

import contextlib
import multiprocessing
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
import toy_sweeps as toy
from optuna.trial import TrialState

from pipeline.errors import UserError
from pipeline.sweeps.addresses import refuse_written_password, storage_url
from pipeline.sweeps.optuna_inside import FIXED, trial_of
from pipeline.sweeps.rows import ATTEMPT, COMPLETE_SETTINGS, REPORTS
from pipeline.sweeps.storage import LostClaim, SweepStorage, open_storage


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
    while (claim := storage.claim(study._study_id, total)) is not None:
        trial = trial_of(study, claim.trial_id)
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


def test_a_claim_makes_the_next_trial_until_the_study_has_its_total(storage: SweepStorage) -> None:
    study = new_study(storage)
    prepared = [{FIXED: {"x": 0.5}}, {}, {FIXED: {"x": 0.25}}]
    claims = [storage.claim(study._study_id, 3, prepared.__getitem__) for _ in range(4)]
    assert [claim and claim.number for claim in claims] == [0, 1, 2, None]
    assert [trial.system_attrs.get(FIXED) for trial in study.trials] == [{"x": 0.5}, None, {"x": 0.25}]
    assert claims[1] is not None
    storage.give_back(claims[1])
    again = [storage.claim(study._study_id, total) for total in (1, 3, 4, 4)]
    assert [claim and claim.number for claim in again] == [None, 1, 3, None]


def test_a_study_is_looked_at_no_longer_for_its_total(storage: SweepStorage) -> None:
    """What a look reads are the trials that are not done: two here, of ten thousand to come."""
    study = new_study(storage)
    for _ in range(2):
        storage.claim(study._study_id, 10_000)
    assert len(storage.get_all_trials(study._study_id)) == 2


class Answerless:
    """Has the answer to each of the next transactions get lost on its way, once it was written."""

    def __init__(self, storage: SweepStorage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lost, transaction = 0, storage._transaction

        @contextlib.contextmanager
        def answerless() -> Iterator[Any]:
            with transaction() as session:
                yield session
            if self.lost:
                self.lost -= 1
                raise sqlalchemy.exc.OperationalError("COMMIT", {}, ConnectionError("server closed"))

        monkeypatch.setattr(storage, "_transaction", answerless)


def test_what_was_written_though_the_answer_was_lost_is_not_written_twice(
    storage: SweepStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, answerless = new_study(storage), Answerless(storage, monkeypatch)
    answerless.lost = 2
    claim = storage.claim(study._study_id, 5)
    assert claim is not None and answerless.lost == 0
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]
    answerless.lost = 1
    storage.finish(claim, TrialState.COMPLETE, [1.0], {"seconds": 2.0})
    assert (study.trials[0].value, study.trials[0].user_attrs) == (1.0, {"seconds": 2.0})


def test_a_server_that_stays_away_ends_it_after_the_grace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(toy.url(tmp_path), grace=0.5)
    study, answerless = new_study(storage), Answerless(storage, monkeypatch)
    answerless.lost = 1000
    began = time.monotonic()
    with pytest.raises(sqlalchemy.exc.OperationalError):
        storage.reclaim(study._study_id, retries=3)
    # Tried after 0.1 and 0.3 s; 0.7 s would be past it.
    assert 0.3 <= time.monotonic() - began < 5 and answerless.lost == 1000 - 3


@pytest.mark.parametrize("how", ["IMMEDIATE", "EXCLUSIVE"])
def test_a_file_that_is_locked_when_it_is_opened_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """By another program that writes: SQLite cannot change a file's journal meanwhile, and does not wait for it."""
    monkeypatch.setattr("pipeline.sweeps.addresses.BUSY_SECONDS", 0.2)
    holder = sqlite3.connect(tmp_path / "optuna.db", isolation_level=None, check_same_thread=False)
    holder.execute("CREATE TABLE theirs (x)")
    holder.execute(f"BEGIN {how}")
    release = threading.Timer(1.5, lambda: holder.execute("COMMIT"))
    release.start()
    began = time.monotonic()
    with contextlib.closing(holder):
        storage = open_storage(toy.url(tmp_path), grace=30)
        assert time.monotonic() - began > 1.0
        release.join()
    assert storage.claim(new_study(storage)._study_id, 1) is not None


def test_a_file_that_stays_locked_is_given_up_after_the_grace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.sweeps.addresses.BUSY_SECONDS", 0.1)
    with contextlib.closing(sqlite3.connect(tmp_path / "optuna.db", isolation_level=None)) as holder:
        holder.execute("CREATE TABLE theirs (x)")
        holder.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        with pytest.raises(UserError, match="database is locked"):
            open_storage(toy.url(tmp_path), grace=1.0)
    assert 0.3 <= time.monotonic() - began < 10


def test_an_interrupted_trial_waits_again_with_its_values_and_number(storage: SweepStorage) -> None:
    study = new_study(storage)
    claim = storage.claim(study._study_id, 2)
    assert claim is not None
    trial = trial_of(study, claim.trial_id)
    x = trial.suggest_float("x", 0.0, 1.0)
    storage.set_trial_system_attr(claim.trial_id, COMPLETE_SETTINGS, trial.params)
    trial.report(1.0, 0)
    storage.give_back(claim)
    waiting = study.trials[0]
    assert (waiting.state, waiting.params, waiting.intermediate_values) == (TrialState.WAITING, {}, {})
    again = storage.claim(study._study_id, 2)
    assert again is not None
    assert again.number == 0
    assert trial_of(study, again.trial_id).suggest_float("x", 0.0, 1.0) == x


def test_a_worker_that_lost_its_trial_cannot_write_to_it(storage: SweepStorage) -> None:
    study = new_study(storage)
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


def test_attempts_that_get_further_do_not_count_as_retries(
    storage: SweepStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = new_study(storage)
    monkeypatch.setattr("pipeline.sweeps.storage.process.is_alive", lambda owner: False)
    lost = []
    for until in (1, 2, 4, 4, 3, 5, 5, 5, 5):
        claim = storage.claim(study._study_id, 1)
        assert claim is not None
        storage.set_trial_system_attr(claim.trial_id, ATTEMPT, "0")
        trial = trial_of(study, claim.trial_id)
        for step in range(until):
            trial.report(float(step), step)
        lost += storage.reclaim(study._study_id, retries=2)
    assert [entry.times for entry in lost] == [0, 0, 0, 1, 2, 0, 1, 2, 3]
    assert [entry.again for entry in lost] == [True] * 8 + [False]
    assert storage.claim(study._study_id, 1) is None
    reports = study.trials[0].system_attrs[REPORTS]
    assert reports == {str(step): float(step) for step in range(5)}


def test_a_silent_worker_of_another_machine_is_noticed_by_its_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(toy.url(tmp_path), grace=1.0)
    study = new_study(storage)
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
