"""Real commands that are killed at random moments and taken up again: at the end, the same bits as without."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.runs.result import RunResult
from pipeline.tracking import absolute_uri, drain
from pipeline.tracking.queries import Store
from pipeline.tracking.store import open_client

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.delivered]

FaultRecorder = Callable[[str, int, int, int], None]
WithStore = Callable[[Path], Path]
TIMELESS = ("train/samples_per_second",)

VECTORS = [
    *("experiment=digits_mlp", "data.batch_size=64", "model.hidden_units=[16]", "model.dropout=0.3"),
    *("scheduler=one_cycle", "optimizer=sgd", "optimizer.momentum=0.9", "optimizer.lr=0.1"),
    *("trainer.max_epochs=16", "callbacks.early_stopping.patience=4", "checkpoint.every_n_steps=3"),
]
STREAMS = [
    *("experiment=kafka_char_lstm", "data.path=text.txt", "data.characters=6000", "data.batch_size=4"),
    *("data.steps=20", "model.hidden_units=12", "model.dropout=0.3", "trainer.max_epochs=4"),
    *("callbacks.samples=null", "checkpoint.every_n_steps=5", "optimizer=adam"),
]
FOLDS = [
    *("experiment=digits_mlp", "data.batch_size=64", "model.hidden_units=[16]", "model.dropout=0.3"),
    *("data.folds=2", "trainer.max_epochs=4", "checkpoint.every_n_steps=7"),
]
TEXT = "Gregor opened the door, and then the door was shut again; nobody said why it was. "
PAUSES = """
import os
import time
from pathlib import Path

from pytorch_lightning.callbacks import Callback


class Pauses(Callback):
    # In the second epoch of a process, before a step: until it may go on.
    epochs = 0

    def on_train_epoch_start(self, trainer, module):
        self.epochs += 1

    def on_train_batch_start(self, trainer, module, batch, number):
        if self.epochs == 2 and not Path("waiting").exists():
            Path("draft").write_text(str(trainer.global_step))
            os.rename("draft", "waiting")
            while not Path("go").exists():
                time.sleep(0.01)
"""


class Machine:
    """A directory in which one command is run, killed and run again."""

    def __init__(self, directory: Path, words: list[str], with_store: WithStore) -> None:
        self.directory, self.words = directory, words
        directory.mkdir()
        with_store(self.experiments)
        (directory / "text.txt").write_text(TEXT * 90, encoding="utf-8")
        self.kills = 0

    def start(self, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline", *self.words, "trainer=cpu", *more],
            cwd=self.directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def finish(self, *more: str) -> None:
        process = self.start(*more)
        _, error = process.communicate(timeout=240)
        assert process.returncode == 0, error
        assert drain(self.experiments, 60)

    def run_killed(self, seconds: float, after: str = "") -> subprocess.Popen[str] | None:
        """Start, wait for a file (a pattern) of this run to be written, then some seconds, then kill.

        None where the command was quicker.
        """
        process = self.start(self.resume())
        began = time.time()
        while after and process.poll() is None and not self._written_since(after, began):
            assert time.time() - began < 120
            time.sleep(0.002)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kills += 1
            process.kill()
            return process
        assert process.returncode == 0, process.stderr.read() if process.stderr else ""
        return None

    def resume(self) -> str:
        """By turns the newest unfinished run, and the run by its id."""
        if self.kills % 2 and (runs := self.unfinished()):
            return f"resume={runs[0]}"
        return "resume=auto"

    def unfinished(self) -> list[str]:
        """Ids of runs with a saved state that were not finished, the newest first."""
        assert drain(self.experiments, 60)
        if not (self.experiments / "mlflow.db").exists():
            return []
        records = Store(None, self.experiments).runs()
        mine = [r for r in records if "mlflow.parentRunId" not in r.tags and r.status != "FINISHED"]
        saved = [
            r
            for r in mine
            if [p for place in (LAST, f"*/{LAST}") for p in Path(r.tags["pipeline.directory"]).glob(place)]
        ]
        return [r.run_id for r in saved]

    @property
    def experiments(self) -> Path:
        return self.directory / "experiments"

    @property
    def is_finished(self) -> bool:
        """Whether the run has come to its end: the next command would begin another one."""
        states = [json.loads(path.read_text()) for path in self.experiments.glob("runs/*/*/state.json")]
        return any(state["status"] == "finished" for state in states)

    @property
    def result(self) -> RunResult:
        """Of the finished run; there is one."""
        found = list(self.experiments.glob("runs/*/*/result.json"))
        assert len(found) == 1, found
        return RunResult.read(found[0])

    def _written_since(self, pattern: str, began: float) -> bool:
        return any(path.stat().st_mtime > began for path in self.experiments.glob(f"runs/*/*/{pattern}"))


def _saved(directory: Path) -> bool:
    return any(next(directory.glob(place), None) for place in (LAST, f"*/{LAST}"))


def computed(result: RunResult) -> dict[str, Any]:
    """Everything in a result that must not depend on interruptions."""
    return {
        "metrics": {k: v for k, v in result.metrics.items() if k not in TIMELESS and "per_second" not in k},
        "history": {k: v for k, v in result.history.items() if k not in TIMELESS},
        "baseline": result.baseline,
        "best": result.best_epoch,
        "nested": [(fit["name"], fit["best_epoch"]) for fit in result.nested],
    }


def weights(result: RunResult) -> dict[str, torch.Tensor]:
    found = {}
    for path in sorted(result.directory.glob("**/checkpoints/*.ckpt")):
        state = torch.load(path, weights_only=True)["state_dict"]
        found |= {f"{path.relative_to(result.directory)}/{name}": tensor for name, tensor in state.items()}
    assert len(list(result.directory.glob("**/checkpoints/*.ckpt"))) >= 2
    return found


def recorded(machine: Machine) -> dict[str, Any]:
    """What the tracking store has: every run's curve, point by point, and how it ended."""
    client = open_client(absolute_uri(None, machine.experiments))
    runs = {}
    for record in Store(None, machine.experiments).runs():
        # After one that was killed before it had saved anything, the next is called the second of that name.
        name = re.sub(r" \(\d+\)", "", record.tags["mlflow.runName"])
        if Path(record.tags["pipeline.directory"]).is_relative_to(machine.result.directory):
            points = {
                key: [(p.step, p.value) for p in client.get_metric_history(record.run_id, key)]
                for key in record.metrics
                if key in ("train/loss", "val/loss", "train/lr")
            }
            runs[name] = (record.status, points)
    return runs


def assert_same(machine: Machine, whole: Machine) -> int:
    """The same to the last bit; gives the number of points of curves that are missing in the tracking store."""
    assert computed(machine.result) == computed(whole.result)
    expected = weights(whole.result)
    found = weights(machine.result)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    records, all_records = recorded(machine), recorded(whole)
    lost = 0
    for name, (status, points) in all_records.items():
        assert records[name][0] == status == "FINISHED"
        for key, values in points.items():
            lost += len(set(values) - set(records[name][1][key]))
            assert records[name][1][key] == values, (name, key)
    assert records.keys() == all_records.keys()
    statuses = {record.status for record in Store(None, machine.experiments).runs()}
    assert statuses <= {"FINISHED", "KILLED"}
    return lost


CASES = {"vectors": VECTORS, "streams": STREAMS, "folds": FOLDS}
LAST = "checkpoints/last.ckpt"
SAVED = {"vectors": LAST, "streams": LAST, "folds": f"*/{LAST}"}


@pytest.mark.timeout(800)
@pytest.mark.parametrize(
    ("case", "short", "long"),
    [("vectors", 3, 9), ("streams", 0, 6), ("folds", 0, 5)],
    ids=lambda value: str(value),
)
def test_a_run_killed_at_random_moments_ends_as_if_nothing_had_been(
    tmp_path: Path,
    case: str,
    short: int,
    long: int,
    long_form: bool,
    record_fault: FaultRecorder,
    with_store: WithStore,
) -> None:
    wanted = long if long_form else short
    if not wanted:
        pytest.skip("in the long form (--long)")
    whole = Machine(tmp_path / "whole", CASES[case], with_store)
    whole.finish()
    seconds = whole.result.seconds
    seed = random.SystemRandom().randrange(10**6)
    draw = random.Random(seed)
    print(f"seed of the moments: {seed}")
    kills = lost = number = 0
    while kills < wanted:
        number += 1
        machine = Machine(tmp_path / f"killed{number}", CASES[case], with_store)
        # A few in a row in each run, most of them while it trains and writes checkpoints, some at any time.
        for _ in range(min(3, wanted - kills)):
            anywhere = draw.random() < 0.2
            late = draw.uniform(0, seconds["total"] if anywhere else seconds["fit"])
            process = machine.run_killed(late, after="" if anywhere else SAVED[case])
            if process is None:
                break
            process.communicate()
            if machine.is_finished:
                # Killed when all was written, on the way out.
                break
        else:
            machine.finish(machine.resume())
        assert drain(machine.experiments, 60)
        kills += machine.kills
        lost += assert_same(machine, whole)
    record_fault(f"process killed at a random moment ({case})", kills, kills, lost)


def test_sigterm_saves_the_state_within_ten_seconds(
    tmp_path: Path, long_form: bool, record_fault: FaultRecorder, with_store: WithStore
) -> None:
    if not long_form:
        pytest.skip("in the long form (--long); tests/scenarios/test_processes.py has a short one")
    times = 3
    words = [*VECTORS[:-1], "checkpoint.every_seconds=1000", "checkpoint.every_n_steps=1000"]
    words += ["trainer.max_epochs=400", "callbacks.early_stopping.patience=null"]
    machine = Machine(
        tmp_path / "cut",
        [*words, "+callbacks.pauses._target_=pauses.Pauses", "--allow", "pauses.Pauses"],
        with_store,
    )
    (machine.directory / "pauses.py").write_text(PAUSES, encoding="utf-8")
    waiting, go = machine.directory / "waiting", machine.directory / "go"
    for _ in range(times):
        process = machine.start("resume=auto")
        step = int(until_written(waiting, process))
        (last,) = machine.experiments.glob("runs/*/*/checkpoints/last.ckpt")
        assert steps_in(last) <= step
        sent = time.time()
        process.send_signal(signal.SIGTERM)
        go.touch()
        _, error = process.communicate(timeout=60)
        assert process.returncode == 143
        assert "Traceback" not in error
        assert steps_in(last) > step
        assert last.stat().st_mtime - sent < 10
        state = json.loads((last.parents[1] / "state.json").read_text(encoding="utf-8"))
        assert state["status"] == "interrupted"
        assert drain(machine.experiments, 60)
        (record,) = Store(None, machine.experiments).runs()
        assert record.status == "KILLED"
        waiting.unlink()
        go.unlink()
    record_fault("SIGTERM: state saved, run marked, resumable", times, times, 0)


def steps_in(checkpoint: Path) -> int:
    """How many steps a saved state has made."""
    return int(torch.load(checkpoint, weights_only=True)["global_step"])


def until_written(path: Path, process: subprocess.Popen[str]) -> str:
    """What a file holds once it is there."""
    began = time.monotonic()
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() - began < 120
        time.sleep(0.01)
    return path.read_text(encoding="utf-8")
