"""Where a run stands, in a small file of its directory: what resuming looks for."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.runs.recording import is_main_process
from pipeline.runs.settings import NOT_RESUMED_BY, settings_of
from pipeline.tracking.process import is_alive, this_process

FILE = "state.json"


class RunState:
    """The state file of the run in ``directory``: ``running``, ``interrupted`` or ``finished``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def begin(self, cfg: DictConfig) -> None:
        """Note that a process takes the run up."""
        self._write(
            "running",
            fingerprint=fingerprint(cfg),
            experiment=str(cfg.name),
            started=time.time(),
            max_epochs=OmegaConf.select(cfg, "trainer.max_epochs"),
        )

    @contextmanager
    def ended_by(self) -> Iterator[None]:
        """Mark the run as interrupted if an error or a signal ends the block: it can be resumed from its last state."""
        try:
            yield
        except BaseException:
            # On a full disk it stays "running": as good, once the process is gone.
            with suppress(OSError):
                self._write("interrupted")
            raise

    def finish(self) -> None:
        """Note that the run is complete."""
        self._write("finished")

    def checkpoint(self) -> Path | None:
        """The last state that was saved, if there is one."""
        path = self.directory / "checkpoints" / "last.ckpt"
        return path if path.is_file() else None

    def _write(self, status: str, **more: Any) -> None:
        if not is_main_process():
            return
        values = {
            **read(self.directory),
            **more,
            "status": status,
            "pid": os.getpid(),
            "owner": this_process(),
        }
        write_json(self.directory / FILE, values)


def read(directory: Path) -> dict[str, Any]:
    """What the state file says, empty where there is none."""
    try:
        values: dict[str, Any] = json.loads((directory / FILE).read_text(encoding="utf-8"))
        return values
    except (OSError, ValueError):
        return {}


def fingerprint(cfg: DictConfig) -> str:
    """A hash of everything in the configuration that has to be the same where a run goes on."""
    text = json.dumps(settings_of(cfg, NOT_RESUMED_BY), sort_keys=True, default=str)
    # Callbacks and loggers of one's own may be told where the run lies, which is another place each time.
    if directory := OmegaConf.select(cfg, "paths.run_dir"):
        text = text.replace(str(directory), "")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def find_resumable(cfg: DictConfig) -> Path | None:
    """The directory of the run that ``resume`` asks for.

    ``auto`` is the newest unfinished run of the same configuration; None where there is none, so that one command
    serves for the first start and for every restart. The processes that a data-parallel launch starts are told their
    directory: for them it is None too.

    A finished run goes on where ``trainer.max_epochs`` asks for more than it was trained for.

    Raises:
        UserError: There is no run of that id, it is finished, or it still runs.
    """
    if not is_main_process():
        return None
    runs = Path(cfg.paths.experiments_dir) / "runs"
    if cfg.resume == "auto":
        wanted = fingerprint(cfg)
        found = [
            (float(state.get("started", 0)), directory)
            for directory in _runs(runs)
            if (state := read(directory)).get("fingerprint") == wanted
            and state.get("status") != "finished"
            and not _alive(state)
            and saved_states(directory)
        ]
        return max(found)[1] if found else None
    from pipeline.tracking import find_directory

    directory = find_directory(Path(cfg.paths.experiments_dir), str(cfg.resume))
    if directory is None and (runs / str(cfg.resume)).is_dir():
        directory = runs / str(cfg.resume)
    if directory is None:
        raise UserError(
            f"resume={cfg.resume}: no run of that id in {cfg.paths.experiments_dir}; use the id that result.json names"
        )
    state = read(directory)
    if state.get("status") == "finished":
        _check_longer(cfg, directory, state)
    if _alive(state):
        raise UserError(
            f"resume={cfg.resume}: the run in {directory} is still running as process {state['pid']}"
        )
    return directory


def _check_longer(cfg: DictConfig, directory: Path, state: dict[str, Any]) -> None:
    """Refuse to go on with a finished run, unless it is to be trained for more epochs and can be."""
    before, wanted = state.get("max_epochs"), OmegaConf.select(cfg, "trainer.max_epochs")
    checkpoint = RunState(directory).checkpoint()
    finished = f"resume={cfg.resume}: the run in {directory} is finished"
    weights = (
        ""
        if checkpoint is None
        else f"; a run of its own that begins with its weights: ckpt_path={checkpoint} instead of resume"
    )
    if checkpoint is None or not isinstance(before, int):
        raise UserError(f"{finished}; there is nothing left to do{weights}")
    if not isinstance(wanted, int) or 0 <= wanted <= before:
        more = f"trainer.max_epochs={before + max(1, before)}"
        raise UserError(f"{finished} after {before} epochs; more of them goes on: {more}{weights}")
    laid_out = OmegaConf.to_container(cfg.scheduler) if cfg.scheduler else {}
    if isinstance(laid_out, dict) and "auto" in laid_out.values():
        raise UserError(
            f"{finished}, and its scheduler was laid out for {before} epochs: it cannot go on as if it had known"
            f"{weights}"
        )


def _runs(directory: Path) -> Iterator[Path]:
    """Every run below a directory; the fits of a run of several are taken up as a whole with it."""
    # What other runs delete meanwhile is passed over, where a pattern of pathlib would raise.
    for place, folders, files in os.walk(directory):
        if FILE in files:
            folders.clear()
            yield Path(place)


def saved_states(directory: Path) -> list[Path]:
    """The last states to go on from: that of the run, or those of its fits."""
    places = ("checkpoints/last.ckpt", "*/checkpoints/last.ckpt")
    return [path for place in places for path in directory.glob(place)]


def left_behind(directory: Path) -> bool:
    """Whether it is certain that no process writes a run in or below a directory any more.

    Of a process of another machine nothing is certain here.
    """
    states = [read(path.parent) for path in directory.rglob(FILE)]
    running = [state for state in states if state.get("status") == "running"]
    return not any(is_alive(state["owner"]) if "owner" in state else _alive(state) for state in running)


def _alive(state: dict[str, Any]) -> bool:
    if state.get("status") != "running" or state.get("pid") == os.getpid():
        return False
    import psutil

    try:
        process = psutil.Process(int(state["pid"]))
        return bool(process.create_time() <= float(state.get("started", 0)) + 1)
    except (psutil.Error, KeyError, ValueError):
        return False
