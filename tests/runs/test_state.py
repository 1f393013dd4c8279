"""What a state file proves of the process that wrote it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from pipeline.runs.state import FILE, RunState, left_behind, read
from pipeline.sweeps.attempt import _saved_epoch
from pipeline.tracking.process import this_process


@pytest.fixture
def untracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a run with ``logger=none`` that has saved its third epoch."""
    directory = tmp_path / "trial"
    (directory / "checkpoints").mkdir(parents=True)
    torch.save({}, directory / "checkpoints/last.ckpt")
    RunState(directory).begin(OmegaConf.create({"name": "x", "trainer": {"max_epochs": 9}}))
    monkeypatch.setattr("pipeline.runs.describing.resumed_at", lambda path: (3, 30))
    return directory


def written_by(directory: Path, **owner: object) -> None:
    state = read(directory)
    (directory / FILE).write_text(json.dumps({**state, "owner": {**state["owner"], **owner}}))


def test_an_untracked_trial_is_taken_over_once_its_process_is_gone_for_certain(
    untracked: Path, tmp_path: Path
) -> None:
    assert read(untracked)["owner"] == this_process()
    # Still there: this very process.
    assert not left_behind(untracked) and _saved_epoch(untracked, tmp_path) is None
    # On another machine, of which nothing can be known here.
    written_by(untracked, host="elsewhere")
    assert _saved_epoch(untracked, tmp_path) is None
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    written_by(untracked, host=this_process()["host"], pid=gone.pid, started="1")
    assert left_behind(untracked) and _saved_epoch(untracked, tmp_path) == 3


def test_states_of_earlier_versions_name_a_process_by_its_number(untracked: Path) -> None:
    state = read(untracked)
    del state["owner"]
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (untracked / FILE).write_text(json.dumps({**state, "pid": gone.pid}))
    assert left_behind(untracked)
    (untracked / FILE).write_text(json.dumps({**state, "pid": os.getppid()}))
    assert not left_behind(untracked)
    (untracked / FILE).write_text(json.dumps({**state, "status": "interrupted", "pid": os.getppid()}))
    assert left_behind(untracked)
