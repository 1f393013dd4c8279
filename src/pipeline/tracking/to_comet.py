"""Runs as archives for Comet, in the experiments directory."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.tracking.others import Described, Sent

_WITHOUT = {
    "log_code": False,
    "log_graph": False,
    "auto_param_logging": False,
    "auto_metric_logging": False,
    "auto_output_logging": False,
    "parse_args": False,
    "log_env_details": False,
    "log_git_metadata": False,
    "log_git_patch": False,
    "display_summary_level": 0,
}


class CometWriter:
    """Writes one archive of a run once it has ended, and another one each time that it went on and ended again.

    Args:
        run: The run; its experiment is the project.
    """

    live = False
    keeps_at_once = False

    def __init__(self, run: Described) -> None:
        self._run = run
        self._experiment: Any = None
        self._folder: Path | None = None
        self._first = 0

    def send(self, entries: Sequence[Sent]) -> None:
        """Take records, see :class:`~pipeline.tracking.others.Writer`."""
        experiment = self._opened(entries[0].number)
        for entry in entries:
            record = entry.record
            if record["t"] == "metrics":
                for name, value in entry.values.items():
                    epoch = record["step"] if entry.axis == "epoch" else None
                    experiment.log_metric(name, value, step=record["step"], epoch=epoch)
            elif record["t"] == "params":
                experiment.log_parameters(record["v"])
            elif record["t"] == "tags":
                self._tags(record["v"])
            elif record["t"] == "dataset":
                experiment.log_other(f"dataset.{record['context']}", f"{record['name']} {record['digest']}")
            elif record["t"] == "finish":
                experiment.log_other("status", record["status"])
                if record["error"]:
                    experiment.log_other("error", record["error"])
            for path, name in entry.files(self._run.folder):
                experiment.log_asset(str(path), file_name=name)

    def end(self) -> None:
        """Close the archive and put it among the others; it counts from then on."""
        assert self._folder is not None
        self._experiment.end()
        made = next(self._folder.glob("*.zip"), None)
        if made is None:
            raise OSError(f"Comet's library wrote no archive into {self._folder}")
        # Where this is done again after a crash, the archive is replaced.
        later = f"-{self._first}" if self._first else ""
        made.replace(self._run.kept_in / f"{self._run.key}{later}.zip")
        shutil.rmtree(self._folder, ignore_errors=True)

    def give_up(self) -> None:
        """Throw away what was written."""
        if self._experiment is not None:
            with contextlib.suppress(Exception):
                self._experiment.end()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _opened(self, number: int) -> Any:
        if self._experiment is not None:
            return self._experiment
        self._first = number
        os.environ.setdefault("COMET_LOGGING_CONSOLE", "ERROR")
        os.environ.setdefault("COMET_DISABLE_AUTO_LOGGING", "1")
        from comet_ml import ExistingOfflineExperiment, OfflineExperiment

        run = self._run
        run.kept_in.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix=".open-", dir=run.kept_in))
        where = {"offline_directory": str(self._folder), **_WITHOUT}
        if number:
            self._experiment = ExistingOfflineExperiment(previous_experiment=run.key, **where)
        else:
            self._experiment = OfflineExperiment(project_name=run.project, experiment_key=run.key, **where)
            self._experiment.set_name(run.name)
            if run.group:
                self._experiment.log_other("group", run.group)
            self._tags(run.tags)
        return self._experiment

    def _tags(self, tags: Any) -> None:
        words = [tag.removeprefix("tag.") for tag in tags if tag.startswith("tag.")]
        if words:
            self._experiment.add_tags(words)
        self._experiment.log_others({k: v for k, v in tags.items() if not k.startswith("tag.")})
