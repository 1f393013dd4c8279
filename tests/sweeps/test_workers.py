"""Worker processes: spread, killed, replaced, interrupted; several sweeps on one study; a database server."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import postgres
import psutil
import pytest
import toy_sweeps as toy
from omegaconf import OmegaConf
from optuna.trial import TrialState
from postgres import free_port, wait_for
from rich.console import Console

from pipeline.errors import Interrupted
from pipeline.process_life import answer, interrupt, restore
from pipeline.sweeps import engine
from pipeline.sweeps.engine import Finished, run_sweep
from pipeline.sweeps.engines.environment import names_to_carry, visible_gpus, worker_environment
from pipeline.sweeps.plan import Plan
from pipeline.sweeps.storage import open_storage
from pipeline.sweeps.study import keep_plan

FaultRecorder = Callable[[str, int, int, int], None]

# A sweep in a process of its own: python -c SWEEP PLAN URL.
SWEEP = """
import json
import sys
from pathlib import Path
import toy_sweeps
from pipeline.errors import Interrupted
from pipeline.sweeps import engine
from pipeline.sweeps.plan import Plan
engine.write_plots = lambda *_: []
plan = Plan.from_dict(json.loads(Path(sys.argv[1]).read_text()))
try:
    finished = engine.run_sweep(plan, sys.argv[2], toy_sweeps.identity_of(plan), keep_directory=True)
except Interrupted as interruption:
    sys.exit(interruption.exit_code)
sys.exit(finished.exit_code)
"""

DASHBOARD = "from optuna_dashboard._cli import main; main()"


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "write_plots", lambda *_: [])


def sweep(plan: Plan, url: str) -> Finished:
    return run_sweep(plan, url, toy.identity_of(plan), console=Console(file=io.StringIO()))


def start(plan: Plan, url: str, name: str) -> subprocess.Popen[bytes]:
    path = Path(plan.directory).parent / f"{name}.json"
    path.write_text(json.dumps(plan.as_dict()))
    return subprocess.Popen([sys.executable, "-c", SWEEP, str(path), url], start_new_session=True)


def assert_exact(study: optuna.Study, total: int) -> None:
    trials = study.get_trials()
    assert [trial.number for trial in trials] == list(range(total))
    assert all(trial.state == TrialState.COMPLETE for trial in trials)


@pytest.mark.faults
def test_workers_killed_in_mid_trial_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_fault: FaultRecorder
) -> None:
    (tmp_path / "markers").mkdir()
    monkeypatch.setenv("TOY_MARKERS", str(tmp_path / "markers"))
    plan = toy.plan(tmp_path, n_trials=12, n_jobs=2, runner="toy_sweeps.killed_once")
    finished = sweep(plan, toy.url(tmp_path))
    assert_exact(finished.study, 12)
    assert len(list((tmp_path / "markers").iterdir())) == 3
    alone = sweep(toy.plan(tmp_path, n_trials=12, study_name="alone"), toy.url(tmp_path))
    assert [trial.params for trial in finished.trials] == [trial.params for trial in alone.trials]
    record_fault("worker of a sweep killed in mid-trial", 3, 3, 12 - len(finished.trials))


def test_workers_that_cannot_live_end_the_sweep_with_their_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.sweeps.engines.local.DEATHS_IN_A_ROW", 1)
    plan = toy.plan(tmp_path, n_trials=2, n_jobs=2, runner="no_such_module.run")
    with pytest.raises(Exception, match="no_such_module"):
        sweep(plan, toy.url(tmp_path))


@pytest.mark.parametrize(("number", "n_jobs"), [(signal.SIGINT, 2), (signal.SIGTERM, 1)])
def test_a_signal_stops_all_workers_and_the_trials_wait_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, n_jobs: int
) -> None:
    monkeypatch.setenv("TOY_HOLD", "2")
    plan = toy.plan(tmp_path, n_trials=40, n_jobs=n_jobs, runner="toy_sweeps.held")
    process = start(plan, toy.url(tmp_path), "plan")
    begun = [TrialState.COMPLETE] * 2
    wait_for(lambda: _states(toy.url(tmp_path)) == begun + [TrialState.RUNNING] * n_jobs)
    process.send_signal(number)
    assert process.wait(30) == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert _states(toy.url(tmp_path)) == begun + [TrialState.WAITING] * n_jobs
    assert (tmp_path / "sweep" / "trials.yaml").exists()


def test_workers_end_with_the_process_that_started_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_HOLD", "1")
    plan = toy.plan(tmp_path, n_trials=24, n_jobs=2, runner="toy_sweeps.held")
    process = start(plan, toy.url(tmp_path), "plan")
    wait_for(lambda: TrialState.COMPLETE in _states(toy.url(tmp_path)))
    process.kill()
    process.wait()
    wait_for(lambda: TrialState.RUNNING not in _states(toy.url(tmp_path)))
    assert TrialState.WAITING in _states(toy.url(tmp_path))
    finished = sweep(replace(plan, n_jobs=1, runner=toy.QUADRATIC), toy.url(tmp_path))
    assert_exact(finished.study, 24)


# Found at the start of every interpreter: a worker says that it begins, and waits there.
GATE = """
import os, sys, time
from pathlib import Path

if "pipeline.sweeps.worker" in sys.orig_argv:
    gate = Path(os.environ["TOY_GATE"])
    (gate / str(os.getpid())).touch()
    while not (gate / "open").exists():
        time.sleep(0.05)
"""


def close_the_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gate").mkdir()
    (tmp_path / "sitecustomize.py").write_text(GATE, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}")
    monkeypatch.setenv("TOY_GATE", str(tmp_path / "gate"))


def test_workers_that_are_still_starting_end_with_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close_the_gate(tmp_path, monkeypatch)
    monkeypatch.setenv("TOY_HOLD", "0")
    process = start(toy.plan(tmp_path, n_jobs=2, runner="toy_sweeps.held"), toy.url(tmp_path), "plan")
    wait_for(lambda: len(list((tmp_path / "gate").iterdir())) == 2)
    workers = [psutil.Process(int(path.name)) for path in (tmp_path / "gate").iterdir()]
    process.kill()
    process.wait()
    (tmp_path / "gate" / "open").touch()
    try:
        _, alive = psutil.wait_procs(workers, 40)
        assert not alive
    finally:
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()
    assert TrialState.RUNNING not in _states(toy.url(tmp_path))


@pytest.mark.parametrize("they", ["have not started", "hear nothing"])
def test_workers_do_not_keep_a_command_from_ending_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, they: str
) -> None:
    if they == "have not started":
        close_the_gate(tmp_path, monkeypatch)
    plan = toy.plan(tmp_path, n_trials=4, n_jobs=2, runner="toy_sweeps.deaf")
    seconds = 8 if they == "have not started" else 20
    now = time.time()
    finished = sweep(replace(plan, deadline=now + seconds - 6, ends=now + seconds), toy.url(tmp_path))
    assert time.time() < now + seconds
    assert set(_states(toy.url(tmp_path))) <= {TrialState.WAITING}
    assert (finished.complete, finished.exit_code) == (False, 0)


def test_a_killed_sweep_goes_on_with_the_trial_that_it_was_killed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_HOLD", "1")
    plan = toy.plan(tmp_path, n_trials=4, runner="toy_sweeps.held")
    process = start(plan, toy.url(tmp_path), "plan")
    wait_for(lambda: _reports(toy.url(tmp_path), 1) > 0)
    process.kill()
    process.wait()
    assert _states(toy.url(tmp_path))[1] == TrialState.RUNNING
    # The kill may come before the attempt made its directory, which is then still there to be used.
    place = "1-attempt2" if (tmp_path / "sweep" / "1").exists() else "1"
    finished = sweep(replace(plan, runner=toy.QUADRATIC), toy.url(tmp_path))
    assert_exact(finished.study, 4)
    assert Path(finished.trials[1].user_attrs["directory"]).name == place


@pytest.mark.faults
def test_a_database_that_is_away_for_a_while_ends_nothing(
    tmp_path: Path, postgresql: postgres.Server, record_fault: FaultRecorder
) -> None:
    plan = toy.plan(tmp_path, n_trials=24, n_jobs=2, runner="toy_sweeps.slow")
    process = start(plan, postgresql.url, "plan")
    wait_for(lambda: _states(postgresql.url).count(TrialState.COMPLETE) >= 2)
    postgresql.stop()
    time.sleep(5)
    postgresql.start()
    # What ran meanwhile is not lost either: it waits for the database as well.
    assert process.wait(120) == 0
    study = optuna.load_study(study_name="toy", storage=open_storage(postgresql.url))
    assert_exact(study, 24)
    assert not list((tmp_path / "sweep").glob("*-attempt2"))
    record_fault("sweep's database away for seconds", 1, 1, 0)


def test_a_connection_that_breaks_in_the_middle_of_an_answer_is_made_again(
    postgresql: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    storage = open_storage(postgresql.url)
    optuna.create_study(storage=storage, study_name="toy")
    execute, broken = psycopg.Cursor.execute, []

    def break_once(cursor: Any, *words: Any, **named: Any) -> Any:
        if not broken and "FROM studies" in str(words[0]):
            broken.append(cursor)
            cursor.connection.close()
            # What psycopg makes of a failure that the server gave no code for, since it was gone.
            raise psycopg.DatabaseError("server closed the connection unexpectedly")
        return execute(cursor, *words, **named)

    monkeypatch.setattr(psycopg.Cursor, "execute", break_once)
    assert [study.study_name for study in storage.get_all_studies()] == ["toy"]
    assert broken


def test_a_signal_that_comes_while_the_database_is_asked_is_no_error(postgresql: postgres.Server) -> None:
    storage = open_storage(postgresql.url)
    optuna.create_study(storage=storage, study_name="toy")
    before = answer(interrupt, signal.SIGTERM)
    sends = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
    try:
        with postgresql.silent(), pytest.raises(Interrupted):
            sends.start()
            storage.get_all_studies()
    finally:
        restore(before)
    assert [study.study_name for study in storage.get_all_studies()] == ["toy"]


def test_a_worker_has_two_connections_at_most(postgresql: postgres.Server) -> None:
    storage = open_storage(postgresql.url)
    study = optuna.create_study(storage=storage)
    threads = [threading.Thread(target=study.get_trials) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def counted() -> int:
        # A transaction sees the server's processes as they were when it first looked.
        connection.rollback()
        question = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        return int(connection.exec_driver_sql(question).scalar_one())

    with storage.engine.connect() as connection:
        # The one that made the tables has been closed; the server may take a moment to say so.
        wait_for(lambda: 1 <= counted() <= 2)
        timeouts = connection.connection.dbapi_connection.info.get_parameters()  # type: ignore[union-attr]
    assert (timeouts["connect_timeout"], timeouts["tcp_user_timeout"]) == ("10", "20000")


def test_a_worker_anywhere_needs_the_name_of_the_study_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a Kubernetes Job or a shell of another machine starts it, beside a command that has long begun."""
    url = toy.url(tmp_path)
    begun = sweep(toy.plan(tmp_path, n_trials=4, deadline=0.0), url)
    assert begun.trials == []
    keep_plan(begun.study, toy.plan(tmp_path, n_trials=4))
    command = [sys.executable, "-m", "pipeline.sweeps.worker", "--study"]
    environment = {**os.environ, "PIPELINE_STORAGE": url}
    done = subprocess.run([*command, "toy"], env=environment, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    assert_exact(begun.study, 4)
    wrong = subprocess.run([*command, "tox"], env=environment, capture_output=True, text=True)
    assert (wrong.returncode, "Did you mean toy" in wrong.stderr) == (2, True)
    assert "Traceback" not in wrong.stderr


def test_workers_elsewhere_take_no_password_along() -> None:
    given = {
        "PATH": "/bin",
        "PGPASSWORD": "geheim",
        "MLFLOW_TRACKING_TOKEN": "geheim",
        "HF_TOKEN": "geheim",
        "PIPELINE_CLIENT_SECRET": "geheim",
        "MLFLOW_S3_ACCESS_KEY": "geheim",
        # The name of a file.
        "PGSSLKEY": "/home/me/.ssl/key",
        "PGHOST": "db",
        "MLFLOW_TRACKING_URI": "https://me:geheim@host",
        "PIPELINE_STORAGE": "postgresql+psycopg://me@db/x",
        "SHELL": "/bin/sh",
    }
    assert names_to_carry(given) == ["PATH", "PGHOST", "PGSSLKEY", "PIPELINE_STORAGE"]


def test_two_sweeps_on_postgresql_share_an_exact_total(tmp_path: Path, postgresql: postgres.Server) -> None:
    url = postgresql.url
    directories = [str(tmp_path / f"sweep{i}") for i in (0, 1)]
    plans = [
        toy.plan(tmp_path, n_trials=12, directory=place, runner="toy_sweeps.slow") for place in directories
    ]
    processes = [start(plan, url, f"plan{i}") for i, plan in enumerate(plans)]
    assert [process.wait(120) for process in processes] == [0, 0]
    study = optuna.load_study(study_name="toy", storage=open_storage(url))
    assert_exact(study, 12)
    owners = {trial.system_attrs["sweep:claim"]["owner"]["pid"] for trial in study.trials}
    assert len(owners) == 2
    ran = [
        int(path.name) for i in (0, 1) for path in (tmp_path / f"sweep{i}").iterdir() if path.name.isdigit()
    ]
    assert sorted(ran) == list(range(12))


def _states(url: str) -> list[TrialState]:
    return [trial.state for trial in toy.trials(url)]


def _reports(url: str, number: int) -> int:
    return sum(len(trial.intermediate_values) for trial in toy.trials(url)[number : number + 1])


def test_the_dashboard_reads_the_study(tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard")
    plan = toy.plan(tmp_path, n_trials=3)
    finished = sweep(plan, toy.url(tmp_path))
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", DASHBOARD, toy.url(tmp_path), "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        address = f"http://127.0.0.1:{port}/api/studies"
        wait_for(lambda: bool(_get(address)))
        summary = _get(address)["study_summaries"][0]
        detail = _get(f"{address}/{summary['study_id']}")
    finally:
        process.terminate()
        process.wait(30)
    assert summary["study_name"] == "toy"
    assert [(trial["number"], trial["state"]) for trial in detail["trials"]] == [
        (n, "Complete") for n in range(3)
    ]
    shown = [trial["values"][0] for trial in detail["trials"]]
    assert [float(value) for value in shown] == [trial.value for trial in finished.trials]


def _get(address: str) -> dict:
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return json.load(answer)
    except OSError:
        return {}


def test_workers_are_spread_over_the_gpus_and_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert visible_gpus() == ["2", "5"]
    found = [worker_environment(number, 4, "sqlite:///x") for number in range(4)]
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in found] == ["2", "5", "2", "5"]
    cores = len(os.sched_getaffinity(0))
    assert {environment["OMP_NUM_THREADS"] for environment in found} == {str(max(cores // 4, 1))}
    assert {environment["PIPELINE_STORAGE"] for environment in found} == {"sqlite:///x"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


def test_a_signal_passes_through_a_library_that_reports_errors_as_its_own() -> None:
    def signalled() -> None:
        raise Interrupted(143)

    OmegaConf.register_new_resolver("signalled", signalled, replace=True)
    try:
        with pytest.raises(Interrupted) as stopped:
            OmegaConf.to_container(OmegaConf.create({"key": "${signalled:}"}), resolve=True)
    finally:
        OmegaConf.clear_resolver("signalled")
    assert stopped.value.exit_code == 143
