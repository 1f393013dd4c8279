"""Processes of one training that `srun` or `torchrun` started: they work in one directory, as one run."""

from __future__ import annotations

import json
import os
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import write_text

WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Place:
    """This process among those of its training.

    Args:
        rank: Number of the process, from 0.
        size: Number of processes.
        key: Name of the launch, the same for all of them.
    """

    rank: int
    size: int
    key: str


def place() -> Place | None:
    """Where this process stands, as SLURM or torchrun says; None where it was started alone, or by Lightning."""
    environment = os.environ
    if "TORCHELASTIC_RUN_ID" in environment:
        key = _joined("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
        return Place(int(environment["RANK"]), int(environment["WORLD_SIZE"]), key)
    # As Lightning does: a job of these names is a person at a terminal.
    by_srun = "SLURM_STEP_ID" in environment and environment.get("SLURM_JOB_NAME") not in (
        "bash",
        "interactive",
    )
    if by_srun and int(environment.get("SLURM_NTASKS", "1")) > 1:
        key = _joined("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
        return Place(int(environment["SLURM_PROCID"]), int(environment["SLURM_NTASKS"]), key)
    return None


def _joined(*names: str) -> str:
    return "-".join(os.environ.get(name, "") for name in names)


def tell(folder: Path, here: Place, message: dict[str, Any], seconds: float = WAIT_SECONDS) -> None:
    """Tell all other processes something, and wait until each has read it.

    Each asks with a word of its own, so that what an earlier launch left behind answers nobody.

    Args:
        folder: Directory that all of them see.
        here: This process, which has rank 0.
        message: Plain values.
        seconds: Longest time to wait.

    Raises:
        UserError: Some did not come in time; the message says which.
    """
    place = _folder(folder, here)
    deadline, answered = time.monotonic() + seconds, set[int]()
    while len(answered) < here.size - 1:
        for rank in range(1, here.size):
            asked, answer = place / f"{rank}.asks", place / f"{rank}.answer"
            try:
                word = asked.read_text(encoding="utf-8")
            except OSError:
                # It takes its question away once it has read the answer.
                if answer.exists():
                    answered.add(rank)
                    answer.unlink(missing_ok=True)
                continue
            write_text(answer, json.dumps({**message, "word": word}))
        if time.monotonic() > deadline:
            missing = [rank for rank in range(1, here.size) if rank not in answered]
            raise UserError(
                f"{len(missing)} of {here.size} processes did not come within {seconds:g} s (ranks "
                f"{', '.join(map(str, missing))}): do all nodes run, and do they see {folder}?"
            )
        time.sleep(_POLL_SECONDS)
    # Nobody comes any more; on some file systems a file that was just deleted is still seen.
    with suppress(OSError):
        place.rmdir()
        place.parent.rmdir()


def hear(folder: Path, here: Place, seconds: float = WAIT_SECONDS) -> dict[str, Any]:
    """What the process of rank 0 tells.

    Args:
        folder: Directory that all of them see.
        here: This process.
        seconds: Longest time to wait.

    Raises:
        UserError: It told nothing in time.
    """
    place, word = _folder(folder, here), uuid.uuid4().hex
    asked, answer = place / f"{here.rank}.asks", place / f"{here.rank}.answer"
    write_text(asked, word)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            told: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            told = {}
        if told.get("word") == word:
            asked.unlink(missing_ok=True)
            return told
        time.sleep(_POLL_SECONDS)
    asked.unlink(missing_ok=True)
    raise UserError(
        f"the process of rank 0 did not answer rank {here.rank} within {seconds:g} s: does its node run, and do both "
        f"see {folder}?"
    )


def _folder(folder: Path, here: Place) -> Path:
    found = folder / ".together" / "".join(c if c.isalnum() or c in "-." else "_" for c in here.key)
    found.mkdir(parents=True, exist_ok=True)
    return found
