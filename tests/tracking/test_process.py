"""Which process wrote a record, and whether it is still there."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.tracking import Run, journal, process, registry
from pipeline.tracking.process import Owner, is_alive, is_hidden, this_process

IN_A_CONTAINER = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]
PROGRAM = """
import sys
from pathlib import Path
from pipeline.tracking import Run
from pipeline.tracking.sender_link import SenderLink
SenderLink.start = lambda self: None
Run.start(Path(sys.argv[1]), experiment="e", name="n", tracking_uri=None, experiments_dir=Path(sys.argv[2]))
print("ready", flush=True)
sys.stdin.read()
"""


def sleeper() -> subprocess.Popen[str]:
    program = "import sys; print('ready', flush=True); sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def owner_of(pid: int) -> Owner:
    return {**this_process(), "pid": pid, "started": process._started(pid) or ""}


def test_this_process_is_alive_and_the_same_at_every_look() -> None:
    assert this_process() == this_process()
    assert is_alive(this_process())


def test_a_process_is_alive_until_it_ends_though_nobody_waits_for_it() -> None:
    child = sleeper()
    owner = owner_of(child.pid)
    assert is_alive(owner)
    child.kill()
    # Ended, and still in the table of processes: nobody has asked how.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(owner)
    child.communicate()
    assert not is_alive(owner)


def test_another_process_with_the_same_id_is_not_taken_for_it() -> None:
    earlier: Owner = {**this_process(), "started": "0"}
    assert not is_alive(earlier)
    assert not is_alive({**this_process(), "started": ""})


@pytest.mark.skipif(sys.platform != "linux", reason="how earlier versions read Linux's table of processes")
def test_identities_of_earlier_versions_are_read() -> None:
    fields = Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()
    earlier: Owner = {"host": process._host(), "pid": os.getpid(), "started": fields[19]}
    assert is_alive(earlier)
    assert not is_hidden(earlier)
    assert not is_alive({**earlier, "started": str(int(fields[19]) - 100_000)})


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process's start is a time of day")
def test_setting_the_clock_does_not_end_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = this_process()
    boot, create = process.psutil.boot_time(), process.psutil.Process().create_time()
    monkeypatch.setattr(process.psutil, "boot_time", lambda: boot + 3600)
    monkeypatch.setattr(process.psutil.Process, "create_time", lambda self: create + 3600)
    assert is_alive(owner)


def test_another_machine_is_not_seen_from_here() -> None:
    assert is_alive({**this_process(), "host": "elsewhere", "pid": 1, "started": "1"})


def test_a_run_of_another_container_goes_on_as_long_as_its_journal_is_open(
    start_run: Callable[..., Run], tmp_path: Path
) -> None:
    run = start_run()
    hidden: Owner = {**this_process(), "namespace": "pid:[1]", "pid": 1}
    assert is_hidden(hidden)
    assert is_alive(hidden)
    assert registry.is_running(run.directory, hidden)
    run.finish()
    assert not registry.is_running(run.directory, hidden)
    assert registry.is_running(tmp_path / "not-begun", hidden)


def test_a_journal_is_open_while_any_writer_has_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    first, second = journal.Writer(path), journal.Writer(path)
    first.close()
    assert journal.is_open(path)
    second.close()
    assert not journal.is_open(path)


@pytest.mark.parametrize("number", [errno.EBADF, errno.ENOLCK])
def test_a_journal_counts_as_open_where_its_file_system_does_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """NFS locks nothing that is opened for reading alone (EBADF); others lock nothing at all."""
    path = tmp_path / "journal.jsonl"
    journal.Writer(path).close()

    def flock(file: Any, operation: int) -> None:
        writable = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
        if number == errno.ENOLCK or not writable:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr("pipeline.tracking.journal.fcntl.flock", flock)
    assert journal.is_open(path) is (number == errno.ENOLCK)


def test_a_live_process_of_another_pid_namespace_keeps_its_run(tmp_path: Path, no_sender: Any) -> None:
    try:
        subprocess.run([*IN_A_CONTAINER, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no pid namespaces here: {error}")
    directory, experiments = tmp_path / "run", tmp_path / "experiments"
    command = [*IN_A_CONTAINER, sys.executable, "-c", PROGRAM, str(directory), str(experiments)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    settings = {"experiment": "e", "name": "n", "tracking_uri": None, "experiments_dir": experiments}
    assert registry.recover(experiments) == []
    with pytest.raises(UserError, match="still being written"):
        Run.start(directory, resume=True, **settings)
    child.kill()
    child.communicate()
    deadline = time.monotonic() + 30
    while journal.is_open(registry.tracking_folder(directory) / journal.JOURNAL):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert registry.recover(experiments) == [directory]
    assert registry.life(directory).status == "KILLED"
    Run.start(directory, resume=True, **settings).finish()
