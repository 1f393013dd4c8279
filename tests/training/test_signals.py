"""A signal to one of several processes: all of them decide alike, at one place."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import Interrupted
from pipeline.training import signals as module
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.signals import Signals


class Notes(Checkpoints):
    """Counts the saves instead of writing them."""

    saved = 0

    def save_within_epoch(self, trainer: Any) -> None:
        self.saved += 1


@pytest.mark.parametrize("place", ["batch", "epoch"])
def test_a_signal_while_a_process_waits_for_the_others_counts_at_the_next_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """What it answered was "no signal", so the others go on, and would wait for it for ever."""
    notes = Notes(tmp_path, None, "min")
    signals: Any = Signals(notes)
    trainer = SimpleNamespace(world_size=2, num_training_batches=10)
    signals.on_train_start(trainer, None)
    late = iter([True, False])

    def largest(_: Any, *numbers: int) -> list[int]:
        if next(late):
            signals._received(signal.SIGTERM, None)
        return list(numbers)

    monkeypatch.setattr(module, "largest", largest)

    def next_place() -> None:
        if place == "batch":
            signals.on_train_batch_end(trainer, None, None, None, 3)
        else:
            signals.on_train_epoch_start(trainer, None)

    next_place()
    assert notes.saved == 0
    with pytest.raises(Interrupted) as raised:
        next_place()
    assert (raised.value.exit_code, notes.saved) == (143, int(place == "batch"))
