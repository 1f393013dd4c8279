"""What one run came to; written as ``result.json`` into the run's directory."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.files import write_json

SCHEMA_VERSION = 1


@dataclass
class RunResult:
    """The outcome of one run.

    Args:
        directory: the run's directory.
        run_id: MLflow's id of the run, or its client-side key while no server has answered; null without tracking.
        experiment: name of the run.
        data: ``requested``, ``used`` (another one: a stand-in), ``digest``, numbers of samples.
        model: class, number of parameters, hyperparameters.
        metrics: flat, ``val/accuracy`` at the best epoch, ``test/accuracy`` …
        baseline: name and metrics of the common-sense baseline.
        seconds: ``startup`` (process start to first step), ``fit``, ``test``, ``total``.
        samples_per_second: training throughput, validation not counted.
        seed: of the run.
        git_commit: of the working tree, null outside one.
        best_epoch: epoch (from 1) whose weights were tested, null where the last one's were.
        history: every epoch's metrics, as (epoch, value) pairs by name.
        notes: sentences for the reader.
        nested: one entry a fit, where the run was made of several (folds, seeds, variants).
    """

    directory: Path
    run_id: str | None
    experiment: str
    data: dict[str, Any]
    model: dict[str, Any]
    metrics: dict[str, float]
    baseline: dict[str, Any]
    seconds: dict[str, float]
    samples_per_second: float
    seed: int
    git_commit: str | None
    best_epoch: int | None = None
    history: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    nested: list[dict[str, Any]] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION

    def write(self) -> Path:
        """Write ``result.json`` (whole or not at all) and give its path. NaN and infinity become null."""
        values = asdict(self)
        values["directory"] = str(self.directory)
        return write_json(self.directory / "result.json", values)

    @classmethod
    def read(cls, path: Path) -> RunResult:
        """The result written at ``path`` (a ``result.json`` or the directory that holds it)."""
        file = path / "result.json" if path.is_dir() else path
        values = json.loads(file.read_text(encoding="utf-8"))
        values["directory"] = file.parent
        return cls(**values)
