"""Runs in Weights & Biases, offline unless someone is logged in."""

from __future__ import annotations

import contextlib
import json
import netrc
import os
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.files import write_text
from pipeline.tracking.journal import Record
from pipeline.tracking.others import Described, Sent

IMAGES = {".png", ".jpg", ".jpeg", ".gif"}
_HOST = "api.wandb.ai"
_SECONDS_TO_BEGIN = 5.0
_SECONDS_TO_ANSWER = 3.0
_BEGUN = "wandb-begun.json"


def mode() -> str:
    """How runs are recorded: as WANDB_MODE says, else ``online`` with WANDB_API_KEY or after ``wandb login``."""
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    known = bool(os.environ.get("WANDB_API_KEY"))
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        known = known or netrc.netrc().authenticators(_HOST) is not None
    return "online" if known and not os.environ.get("PIPELINE_OFFLINE") else "offline"


class WandbWriter:
    """Writes one run by the library's own interface.

    The number of a record is the ``step`` that it is logged with, which a server takes once. What was written offline
    before a crash, of this process or of an earlier one, is thrown away and written again.

    Args:
        run: The run; its experiment is the project.

    Raises:
        Exception: It could not begin, within some seconds; nothing of the attempt is left.
    """

    live = True
    keeps_at_once = False

    def __init__(self, run: Described) -> None:
        import wandb

        self._described = run
        self._status = "FINISHED"
        self._axes: dict[str, str] = {}
        where = Path(os.environ.get("WANDB_DIR") or run.kept_in.parent)
        where.mkdir(parents=True, exist_ok=True)
        _remove_begun(run)
        if mode() == "online":
            # The library may have read its settings before.
            _refuse_unreachable(os.environ.get("WANDB_BASE_URL") or str(wandb.setup().settings.base_url))
        before = _directories(where, run.key)
        note = {"kept_to": run.kept_to, "where": str(where), "before": before}
        write_text(run.folder / _BEGUN, json.dumps(note))
        try:
            self._run: Any = self._begun(where)
        except Exception:
            # The library's own process would call the run in use from now on.
            wandb.teardown(exit_code=1)
            for name in {*_directories(where, run.key)} - {*before}:
                shutil.rmtree(where / name, ignore_errors=True)
            raise
        self._set(run.tags)

    def _begun(self, where: Path) -> Any:
        import wandb

        run = self._described
        return wandb.init(
            project=run.project,
            name=run.name,
            id=run.key,
            group=run.group,
            dir=str(where),
            mode=mode(),
            resume="allow",
            tags=[tag.removeprefix("tag.") for tag in run.tags if tag.startswith("tag.")] or None,
            # Code, console and machine would be those of the process that sends.
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_git=True,
                save_code=False,
                x_disable_stats=True,
                x_disable_meta=True,
                init_timeout=_SECONDS_TO_BEGIN,
            ),
        )

    def send(self, entries: Sequence[Sent]) -> None:
        """Take records, see :class:`~pipeline.tracking.others.Writer`."""
        for entry in entries:
            record = entry.record
            if record["t"] == "metrics":
                self._log(entry)
            elif record["t"] == "params":
                self._config(record["v"])
            elif record["t"] == "tags":
                self._set(record["v"])
            elif record["t"] == "dataset":
                self._config({f"dataset.{record['context']}": f"{record['name']} {record['digest']}"})
            elif record["t"] == "finish":
                self._note_end(record)
            for path, name in entry.files(self._described.folder):
                self._file(path, name, entry.number)

    def end(self) -> None:
        """Write everything to the disk, and online to the server."""
        self._run.finish(exit_code=0 if self._status == "FINISHED" else 1)

    def give_up(self) -> None:
        """Throw away what was written offline."""
        offline, directory = self._run.settings.mode == "offline", Path(self._run.dir).parent
        with contextlib.suppress(Exception):
            self._run.finish(exit_code=1)
        if offline:
            shutil.rmtree(directory, ignore_errors=True)

    def _log(self, entry: Sent) -> None:
        axis = entry.axis
        if axis is None:
            self._run.summary.update(entry.values)
            return
        for name in entry.values:
            if name not in self._axes:
                self._axes[name] = axis
                self._run.define_metric(name, step_metric=axis)
        if entry.values:
            self._run.log({**entry.values, axis: entry.record["step"]}, step=entry.number)

    def _set(self, tags: Any) -> None:
        self._config({f"tags.{name}": value for name, value in tags.items()})

    def _config(self, values: dict[str, Any]) -> None:
        # A resumed run may tell another value of a setting, as a tag may.
        self._run.config.update(values, allow_val_change=True)

    def _note_end(self, record: Record) -> None:
        self._status = record["status"]
        self._run.summary["status"] = self._status
        if record["error"]:
            self._run.summary["error"] = record["error"]

    def _file(self, path: Path, name: str, number: int) -> None:
        import wandb

        if path.suffix.lower() in IMAGES:
            self._run.log({name: wandb.Image(str(path))}, step=number)
            return
        # In the run's own folder: a link to a copy of the journal's would lead nowhere later.
        target = Path(self._run.dir) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
        self._run.save(str(target), base_path=self._run.dir, policy="now")


def _directories(where: Path, key: str) -> list[str]:
    """The directories that the library has made for a run, relative to the one that it was given."""
    found = where.glob(f"*wandb/*run-*-{key}")
    return sorted(str(path.relative_to(where)) for path in found if not path.is_symlink())


def _remove_begun(run: Described) -> None:
    """Remove what a process that was killed wrote offline, unless it was kept: then more of the journal is."""
    try:
        note = json.loads((run.folder / _BEGUN).read_text())
    except (OSError, ValueError):
        return
    if note["kept_to"] == run.kept_to:
        where = Path(note["where"])
        for name in {*_directories(where, run.key)} - {*note["before"]}:
            if "offline-run-" in name:
                shutil.rmtree(where / name, ignore_errors=True)


def _refuse_unreachable(address: str) -> None:
    """Raise OSError where a server does not answer, which the library would find out much later."""
    try:
        urllib.request.urlopen(address, timeout=_SECONDS_TO_ANSWER).close()
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise
    except urllib.error.URLError as error:
        # One whose certificate only the library knows is there.
        if not isinstance(error.reason, ssl.SSLError):
            raise
