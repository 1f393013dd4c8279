"""What a run hands on to later steps, under the same names every time.

What two runs of the same configuration have in common is kept apart from what they cannot have in common (ids,
times), so that DVC, or any comparison of files, sees that nothing changed.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pipeline.errors import UserError
from pipeline.files import write_json, write_text, written
from pipeline.runs.recording import dvc_experiment
from pipeline.runs.result import RunResult
from pipeline.runs.settings import handed_on

MODEL, CONFIG, METRICS, HISTORY, RUN = "model", "config.yaml", "metrics.json", "history.csv", "run.json"
_TIMED = "samples_per_second"


@dataclass(frozen=True)
class Delivered:
    """What lies in a directory that :func:`deliver` wrote.

    Args:
        directory: The directory.
        cfg: The configuration, without paths and logger.
        metrics: Metrics by name (``val/accuracy``).
        run: Ids and times; empty where run.json was not kept.
    """

    directory: Path
    cfg: DictConfig
    metrics: dict[str, float]
    run: dict[str, Any]

    @property
    def model(self) -> Path:
        """The saved model, for ``pipeline.models.saved.load``."""
        return self.directory / MODEL


def deliver(result: RunResult, cfg: DictConfig, directory: Path) -> None:
    """Write what ``result`` came to into ``directory``; files of an earlier run there are replaced.

    Raises:
        UserError: The run kept no model, or there is a file in the way.
    """
    if not (result.directory / MODEL).is_dir():
        raise UserError(
            f"task.output={directory}: this run kept no model of its own (a run of several fits keeps one for each); "
            "leave task.output out"
        )
    if directory.is_file():
        raise UserError(f"task.output={directory} is a file; expected a directory")
    directory.mkdir(parents=True, exist_ok=True)
    with written(directory / MODEL) as draft:
        shutil.copytree(result.directory / MODEL, draft)
        shutil.rmtree(directory / MODEL, ignore_errors=True)
    write_text(directory / CONFIG, OmegaConf.to_yaml(handed_on(cfg)))
    write_json(directory / METRICS, {k: v for k, v in sorted(result.metrics.items()) if _TIMED not in k})
    _write_history(result, directory / HISTORY)
    run = {
        "run_id": result.run_id,
        "experiment": result.experiment,
        "directory": str(result.directory),
        "git_commit": result.git_commit,
        "data_digest": result.data.get("digest"),
        "parameters": result.model.get("parameters"),
        "unfinished": result.unfinished,
        "seconds": result.seconds,
        _TIMED: result.samples_per_second,
        **{f"dvc_{name}": value for name, value in dvc_experiment().items()},
    }
    write_json(directory / RUN, run)


def read_delivered(directory: Path) -> Delivered:
    """Read what :func:`deliver` wrote.

    Raises:
        UserError: Something is missing, or cannot be read.
    """
    if missing := [name for name in (CONFIG, METRICS, MODEL) if not (directory / name).exists()]:
        raise UserError(
            f"{directory} is not what a run delivered: it lacks {', '.join(missing)}; "
            f"train with task.output={directory}"
        )
    cfg = OmegaConf.load(directory / CONFIG)
    if not isinstance(cfg, DictConfig):
        raise UserError(f"{directory / CONFIG} is not a configuration")
    run = read_json(directory / RUN) if (directory / RUN).is_file() else {}
    # JSON has no NaN.
    metrics = {k: math.nan if v is None else v for k, v in read_json(directory / METRICS).items()}
    return Delivered(directory, cfg, metrics, run)


def read_json(path: Path) -> Any:
    """The values in a file.

    Raises:
        UserError: The file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{path} is not there; run the step that writes it") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None


def _write_history(result: RunResult, path: Path) -> None:
    names = [name for name in result.history if _TIMED not in name]
    rows: dict[int, dict[str, float]] = {}
    for name in names:
        for epoch, value in result.history[name]:
            rows.setdefault(epoch, {})[name] = value
    with written(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", *names], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({"epoch": epoch, **values} for epoch, values in sorted(rows.items()))
