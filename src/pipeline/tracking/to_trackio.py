"""Runs in Trackio's local database, in the experiments directory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pipeline.tracking.journal import Record
from pipeline.tracking.others import Described, Sent
from pipeline.tracking.to_wandb import IMAGES


class TrackioWriter:
    """Writes one run into the project that bears its experiment's name.

    Args:
        run: The run.
    """

    live = True
    keeps_at_once = True

    def __init__(self, run: Described) -> None:
        # Read once, when the library is imported.
        os.environ.setdefault("TRACKIO_DIR", str(run.kept_in))
        from pipeline.tracking import trackio_inside

        self._inside = trackio_inside
        self._described = run
        self._config: dict[str, Any] = {f"tags.{name}": value for name, value in run.tags.items()}
        if run.group:
            self._config["group"] = run.group
        # The configuration is replaced as a whole whenever it is written.
        for record in run.earlier:
            self._configure(record)

    def send(self, entries: Sequence[Sent]) -> None:
        """Take records, see :class:`~pipeline.tracking.others.Writer`."""
        run = self._described
        rows: list[tuple[str, str, int, dict[str, Any]]] = []
        before = dict(self._config)
        for entry in entries:
            record, number = entry.record, entry.number
            step = record.get("step") or 0
            if record["t"] == "metrics" and entry.values:
                rows.append((f"{run.key}-{number}", _time(record["time"]), step, dict(entry.values)))
            self._configure(record)
            now = _time(record.get("time"))
            for place, (path, name) in enumerate(entry.files(run.folder)):
                if path.suffix.lower() in IMAGES:
                    image = self._inside.image(path, run.project, run.name, step)
                    rows.append((f"{run.key}-{number}-{place}", now, step, {name: image}))
        if rows or self._config != before:
            self._inside.write(run.project, run.name, run.key, rows, self._config)

    def _configure(self, record: Record) -> None:
        if record["t"] == "params":
            self._config |= record["v"]
        elif record["t"] == "tags":
            self._config |= {f"tags.{name}": value for name, value in record["v"].items()}
        elif record["t"] == "dataset":
            self._config[f"dataset.{record['context']}"] = f"{record['name']} {record['digest']}"
        elif record["t"] == "finish":
            self._config |= {"status": record["status"], "error": record["error"] or ""}
        elif record["t"] == "resume":
            self._config = {key: self._config[key] for key in self._config if key not in ("status", "error")}

    def end(self) -> None:
        """Nothing is left to do: what was sent is in the database."""

    def give_up(self) -> None:
        """Nothing is left to do: what was sent is in the database, and counts once."""


def _time(milliseconds: int | None) -> str:
    moment = datetime.now(UTC) if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat()
