"""A batch that is too large for memory: named, or taken in parts that train like the whole."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.config.loading import compose
from pipeline.models.mlp import MLP
from pipeline.models.recurrent import Recurrent
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.train import train
from pipeline.training.memory import is_out_of_memory

SMALL = [
    *(
        "experiment=digits_mlp",
        "logger=none",
        "callbacks.progress=null",
        "trainer=cpu",
        "trainer.max_epochs=2",
    ),
    *("model.hidden_units=[16]", "model.batch_norm=false", "model.dropout=0", "data.batch_size=100"),
]


def run(directory: Path, *words: str) -> RunResult:
    return train(compose([*SMALL, *words]), Hooks(directory=directory, reports=False, baseline=False))


class Room:
    """Memory for so many samples at once, in training and in evaluation; counts how often it ran out."""

    def __init__(self, training: int, evaluation: int = 10**6) -> None:
        self.training, self.evaluation, self.ran_out = training, evaluation, 0
        self.from_step = self.steps = 0

    def check(self, model: Any, x: Tensor) -> None:
        if self.steps >= self.from_step and len(x) > (self.training if model.training else self.evaluation):
            self.ran_out += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    room = Room(10**6)
    forward, forward_state = MLP.forward, Recurrent.forward_state

    def tight(self: MLP, x: Tensor) -> Tensor:
        room.check(self, x)
        return forward(self, x)

    def tight_state(self: Recurrent, x: Tensor, state: Any) -> Any:
        room.check(self, x)
        return forward_state(self, x, state)

    step = torch.optim.SGD.step

    def counted(self: torch.optim.SGD, *arguments: Any) -> Any:
        room.steps += 1
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.SGD, "step", counted)
    monkeypatch.setattr(MLP, "forward", tight)
    monkeypatch.setattr(Recurrent, "forward_state", tight_state)
    return room


def weights(result: RunResult) -> dict[str, Tensor]:
    path = result.directory / "checkpoints/last.ckpt"
    state: dict[str, Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def assert_close(found: RunResult, expected: RunResult) -> None:
    """Equal up to the rounding of sums in another order."""
    for name, tensor in weights(expected).items():
        torch.testing.assert_close(weights(found)[name], tensor, rtol=1e-3, atol=1e-5)
    assert found.history.keys() == expected.history.keys()
    for name in ("train/loss", "val/loss", "train/lr"):
        assert [step for step, _ in found.history[name]] == [step for step, _ in expected.history[name]]
        pairs = zip(found.history[name], expected.history[name], strict=True)
        assert all(a[1] == pytest.approx(b[1], rel=1e-3) for a, b in pairs)


def test_the_message_names_the_batch_size_and_what_to_do(tmp_path: Path, room: Room) -> None:
    room.training = 99
    with pytest.raises(torch.OutOfMemoryError) as error:
        run(tmp_path / "a")
    message = str(error.value)
    assert "data.batch_size=100" in message and "data.batch_size=50" in message
    assert "trainer.auto_batch_size=true" in message and "20.00 GiB" in message
    assert "\n" not in message
    room.training, room.evaluation = 10**6, 99
    with pytest.raises(torch.OutOfMemoryError, match=r"data\.eval_batch_size=1000"):
        run(tmp_path / "b")


@pytest.mark.parametrize("from_step", [0, 15])
def test_halves_of_a_batch_train_like_the_whole(
    tmp_path: Path, room: Room, from_step: int, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["optimizer=sgd", "optimizer.lr=0.1", "scheduler=one_cycle", "model.l2=0.001"]
    whole = run(tmp_path / "whole", *words)
    room.training, room.from_step, room.steps = 30, from_step, 0
    with caplog.at_level(logging.WARNING):
        # Accumulated batches keep their number of steps too.
        parts = run(tmp_path / "parts", *words, "trainer.auto_batch_size=true")
    assert room.ran_out == 2
    assert "going on with 50" in caplog.text and "going on with 25" in caplog.text
    assert "accumulated to batches of 100" in caplog.text
    assert_close(parts, whole)
    assert parts.metrics["test/loss"] == pytest.approx(whole.metrics["test/loss"], rel=1e-3)


def test_a_batch_that_is_accumulated_already_is_taken_in_parts(tmp_path: Path, room: Room) -> None:
    words = ["optimizer=sgd", "trainer.accumulate_grad_batches=3", "checkpoint.every_n_steps=2"]
    whole = run(tmp_path / "whole", *words)
    room.training = 50
    assert_close(run(tmp_path / "parts", *words, "trainer.auto_batch_size=true"), whole)


@pytest.mark.parametrize("words", [[], ["data.validation_fraction=0"]])
def test_evaluation_is_halved_by_itself(tmp_path: Path, room: Room, words: list[str]) -> None:
    whole = run(tmp_path / "whole", *words)
    room.evaluation = 60
    with pytest.raises(torch.OutOfMemoryError, match=r"data\.eval_batch_size=1000"):
        run(tmp_path / "refused", *words)
    parts = run(tmp_path / "parts", *words, "trainer.auto_batch_size=true")
    for name, tensor in weights(whole).items():
        assert torch.equal(weights(parts)[name], tensor)
    assert parts.metrics["test/accuracy"] == whole.metrics["test/accuracy"]


def test_carried_state_is_that_of_each_part(tmp_path: Path, room: Room) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Gregor opened the door, and then the door was shut again. " * 60, encoding="utf-8")
    words = ["+experiment=kafka_char_lstm", f"data.path={text}", "data.characters=3000", "logger=none"]
    words += ["model.hidden_units=8", "data.batch_size=4", "trainer.max_epochs=2", "callbacks=default"]
    words += ["callbacks.progress=null", "trainer=cpu", "model.dropout=0", "optimizer.lr=0.01"]

    def once(name: str, *more: str) -> RunResult:
        hooks = Hooks(directory=tmp_path / name, reports=False, baseline=False)
        return train(compose([*words, *more]), hooks)

    whole = once("whole")
    room.training = 2
    assert_close(once("parts", "trainer.auto_batch_size=true"), whole)
    assert room.ran_out == 1


def test_one_sample_too_large_ends_the_run(tmp_path: Path, room: Room) -> None:
    room.training = 0
    with pytest.raises(torch.OutOfMemoryError, match="single sample"):
        run(tmp_path, "trainer.auto_batch_size=true")


def test_what_counts_as_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50, dtype=torch.uint8)
    assert is_out_of_memory(error.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
