"""The number of threads follows what is fast beside other work, and what was computed can be computed again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from omegaconf import DictConfig

from pipeline.data.core.spec import Spec
from pipeline.models.mlp import MLP
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.train import train
from pipeline.sweeps.engines.environment import worker_environment
from pipeline.tasks import reproduce
from pipeline.training import threads as room
from pipeline.training.threads import Threads, in_words

WORDS = ["+experiment=digits_cnn", "trainer.max_epochs=2", "data.batch_size=256", "trainer.steps_per_call=1"]
CHANGES = [[0, 2], [2, 1], [7, 2]]


class Machine:
    """A machine on which steps take a known time, and others compute for a known share of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
        self.now, self.others, self.seconds = 0.0, 0.0, {1: 0.1, 2: 0.05}
        clock = SimpleNamespace(
            monotonic=lambda: self.now, perf_counter=lambda: self.now, process_time=lambda: 0
        )
        monkeypatch.setattr(room, "time", clock)
        monkeypatch.setattr(room.Neighbours, "share", lambda _: self.others)
        self.trainer: Any = SimpleNamespace(global_step=0, world_size=1)
        self.module: Any = SimpleNamespace(device=torch.device("cpu"), loop=SimpleNamespace(waiting=0))

    def begin(self, threads: Threads) -> None:
        threads.on_train_start(self.trainer, self.module)

    def run(self, threads: Threads, steps: int) -> dict[int, int]:
        """How many steps were computed with each number of threads."""
        found: dict[int, int] = {}
        for index in range(steps):
            threads.on_train_batch_start(self.trainer, self.module, None, index)
            count = torch.get_num_threads()
            found[count] = found.get(count, 0) + 1
            self.now += self.seconds[count]
            self.trainer.global_step += 1
            threads.on_train_batch_end(self.trainer, self.module, None, None, index)
        return found


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield Machine(monkeypatch)
    torch.set_num_threads(before)


def threads_of(**settings: Any) -> Threads:
    return Threads(settings, large_mlp(), 512)


def large_mlp() -> MLP:
    return MLP(Spec("regression", "vector", (1000,), 1), hidden_units=[300, 300])


def test_on_a_machine_of_its_own_a_fit_computes_as_it_always_did(machine: Machine) -> None:
    with threads_of() as threads:
        machine.begin(threads)
        # Whatever else makes steps slow.
        machine.run(threads, 200)
        machine.seconds = {1: 0.1, 2: 0.5}
        assert machine.run(threads, 200) == {2: 200}
    assert threads.changes == [(0, 2)]


def test_beside_busy_processes_it_goes_on_with_what_is_faster_and_comes_back(machine: Machine) -> None:
    with threads_of() as threads:
        machine.begin(threads)
        machine.run(threads, 200)
        machine.others, machine.seconds = 0.6, {1: 0.1, 2: 0.5}
        assert machine.run(threads, 40).get(1, 0) >= 10
        # Of the best that there is at least nine tenths, comparisons counted in.
        began = machine.now
        machine.run(threads, 3000)
        assert 3000 * 0.1 / (machine.now - began) > 0.9
        machine.others, machine.seconds = 0.0, {1: 0.1, 2: 0.05}
        machine.run(threads, 2000)
        assert machine.run(threads, 100) == {2: 100}
    assert torch.get_num_threads() == 2
    assert [step for step, _ in threads.changes] == sorted(step for step, _ in threads.changes)


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "trainer.threads"])
def test_a_number_that_somebody_chose_is_kept(
    name: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"threads": 2} if name == "trainer.threads" else {}
    if not settings:
        monkeypatch.setenv(name, "2")
    with threads_of(**settings) as threads:
        machine.begin(threads)
        machine.others, machine.seconds = 0.9, {1: 0.1, 2: 5.0}
        assert machine.run(threads, 100) == {2: 100}


def test_a_workers_share_of_the_cores_is_no_choice(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = worker_environment(0, 1, "sqlite://")
    assert int(environment["OMP_NUM_THREADS"]) == len(os.sched_getaffinity(0))
    for name in environment.keys() - os.environ.keys():
        monkeypatch.setenv(name, environment[name])
    with threads_of() as threads:
        machine.begin(threads)
        machine.others, machine.seconds = 0.9, {1: 0.1, 2: 1.0}
        assert machine.run(threads, 200).get(1, 0) > 100


def test_a_resumed_fit_goes_on_with_the_number_that_it_had(machine: Machine) -> None:
    before = threads_of()
    before.changes, before.count = [(0, 2), (40, 1)], 1
    with threads_of() as threads:
        threads.load_state_dict(before.state_dict())
        machine.trainer.global_step = 60
        machine.begin(threads)
        assert machine.run(threads, 20) == {1: 20}
        assert threads.changes == [(0, 2), (40, 1)]
    with threads_of(threads=2) as threads:
        threads.load_state_dict(before.state_dict())
        machine.begin(threads)
        assert machine.run(threads, 20) == {2: 20}
        assert threads.changes[-1][1] == 2


def test_a_repetition_computes_each_batch_and_each_validation_with_the_same_number(machine: Machine) -> None:
    def numbers(threads: Threads, batches: int) -> list[tuple[int, int]]:
        """Of each batch, and of a validation right after it; four batches make a step."""
        machine.trainer.global_step = 0
        machine.begin(threads)
        found = []
        for index in range(batches):
            threads.on_train_batch_start(machine.trainer, machine.module, None, index)
            computed = torch.get_num_threads()
            machine.now += machine.seconds[computed]
            machine.module.loop.waiting = (index + 1) % 4
            machine.trainer.global_step += not machine.module.loop.waiting
            threads.on_train_batch_end(machine.trainer, machine.module, None, None, index)
            found.append((computed, torch.get_num_threads()))
        return found

    machine.others, machine.seconds = 0.6, {1: 0.1, 2: 0.5}
    with threads_of() as threads:
        first = numbers(threads, 400)
    assert len({count for count, _ in first}) == 2
    with Threads({}, large_mlp(), 512, threads.changes) as again:
        assert numbers(again, 400) == first


def test_what_prepares_the_data_is_no_neighbour() -> None:
    program = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\ninput()"
    before = room._times()[2]
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as child:
        process = psutil.Process(child.pid)
        while sum(process.cpu_times()[:2]) < 0.25:
            time.sleep(0.01)
        assert room._times()[2] - before >= 0.25
        child.communicate(b"\n")


def test_a_resumed_fit_obeys_the_environment(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    before = threads_of()
    before.changes, before.count = [(0, 1)], 1
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with threads_of() as threads:
        threads.load_state_dict(before.state_dict())
        machine.begin(threads)
        assert machine.run(threads, 5) == {2: 5}


@pytest.mark.delivered
def test_a_run_whose_number_changed_is_reproduced_bit_for_bit(
    tmp_path: Path, command: Callable[..., DictConfig]
) -> None:
    hooks = Hooks(directory=tmp_path / "run", threads={"": CHANGES})
    result: RunResult = train(command(*WORDS), hooks)
    assert result.threads == CHANGES
    assert any("2 threads at first" in note for note in result.notes)
    asked = ["task=reproduce", f"task.run_id={result.run_id}", f"task.output={tmp_path / 'again'}"]
    assert reproduce.reproduce(command(*asked)).identical
    assert RunResult.read(tmp_path / "again" / "again").threads == CHANGES


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([(0, 2)], []),
        ([(0, 1), (40, 2)], ["1 thread at first and 2 at last"]),
        (
            [(0, 1), (40, 2), (44, 4), (48, 1)],
            ["1 thread at first and at last, in between with 2 or 4 as well"],
        ),
    ],
)
def test_a_reader_is_told_what_the_numbers_were(changes: list[tuple[int, int]], said: list[str]) -> None:
    assert [note.split("computed with ")[1].split(", by what")[0] for note in in_words(changes)] == said


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "PASSIVE 1000"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE None"),
        ({"GOMP_SPINCOUNT": "7"}, "None 7"),
    ],
)
def test_threads_that_wait_soon_sleep_unless_the_environment_decides(
    given: dict[str, str], expected: str
) -> None:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    program = "from pipeline.process_life import run_process; import os\n"
    program += f"run_process(lambda: print(*map(os.environ.get, {names})) or 0)"
    environment = {name: value for name, value in os.environ.items() if name not in names} | given
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected
