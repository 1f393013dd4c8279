"""A process of the pipeline ends at once, and nothing that has to happen at its end is left out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import __main__ as command
from pipeline.errors import Interrupted
from pipeline.process_life import answer, interrupt, restore, terminable


def sent(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    # The interpreter runs the handler between two instructions.
    time.sleep(0.01)


def test_a_terminated_block_is_interrupted_and_leaves_the_handler_that_was_there() -> None:
    heard: list[int] = []
    before = answer(lambda number, _: heard.append(number), signal.SIGTERM)
    try:
        with pytest.raises(Interrupted) as stop, terminable():
            sent(signal.SIGTERM)
        assert stop.value.exit_code == 143
        assert not heard
        sent(signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    finally:
        restore(before)


def test_a_thread_leaves_the_handlers_of_its_process_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    inside: list[Any] = []

    def work() -> None:
        with terminable():
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_command_inside_a_program_that_answers_the_signal_leaves_it_to_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(command, "_main", lambda words: seen.append(signal.getsignal(signal.SIGTERM)) or 0)
    before = answer(signal.SIG_DFL, signal.SIGTERM)
    try:
        command.main([])
        answer(signal.SIG_IGN, signal.SIGTERM)
        command.main([])
        assert seen == [interrupt, signal.SIG_IGN]
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        restore(before)


BEGINNING = """
import atexit, logging, sys, threading, time
from pipeline.process_life import run_process

class Loud:
    def __del__(self):
        # Reached when the interpreter takes itself apart.
        import os
        os.write(2, b"taken apart")

kept = Loud()

def main():
    atexit.register(lambda: print("handler"))
    threading.Thread(target=lambda: (time.sleep(0.3), print("thread"))).start()
    logging.basicConfig(filename="log.txt", level=logging.INFO)
    logging.info("logged")
    print("main")
"""


def run(tmp_path: Path, rest: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BEGINNING + rest],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("code", [0, 3])
def test_threads_handlers_and_output_come_before_the_end(tmp_path: Path, code: int) -> None:
    done = run(tmp_path, f"    return {code}\nrun_process(main)\n")
    assert (done.returncode, done.stdout, done.stderr) == (code, "main\nthread\nhandler\n", "")
    assert "logged" in (tmp_path / "log.txt").read_text()


def test_an_unexpected_exception_is_shown_by_the_interpreter(tmp_path: Path) -> None:
    done = run(tmp_path, "    raise ValueError('unexpected')\nrun_process(main)\n")
    assert done.returncode == 1
    assert "ValueError: unexpected" in done.stderr
    assert done.stdout == "main\nthread\nhandler\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_output_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    program = "from pipeline.process_life import run_process\nrun_process(lambda: print('x') or 0)\n"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdout=full,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: the output could not be written: ")
    assert done.stderr.count("\n") == 1


def test_a_process_without_a_standard_output_ends_as_well(tmp_path: Path) -> None:
    program = "from pipeline.process_life import run_process; run_process(lambda: 4)"
    done = subprocess.run(
        f"{sys.executable} -c '{program}' >&-",
        shell=True,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (4, "")
