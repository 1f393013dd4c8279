"""What one run came to; written as ``result.json`` into the run's directory."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.files import write_json
from pipeline.metrics import with_slash

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SCHEMA_VERSION = 1


def defined(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics without those that are undefined (NaN), as R² is for a single sample."""
    return {name: value for name, value in metrics.items() if value == value}


@dataclass
class RunResult:
    """The outcome of one run.

    Args:
        directory: Directory of the run.
        run_id: MLflow's id of the run, or its client-side key while no server has answered; null without tracking.
        experiment: Name of the run.
        data: ``requested``, ``used`` (another one: a stand-in), ``digest``, numbers of samples.
        model: Class, number of parameters and hyperparameters.
        metrics: Metrics by name: ``val/accuracy`` (of the best epoch), ``test/accuracy`` …
        baseline: Name and metrics of the common-sense baseline.
        seconds: Times in seconds: ``startup`` (process start to first step), ``fit``, ``test``, ``total``.
        samples_per_second: Training throughput, validation not counted.
        seed: Seed of the run.
        git_commit: Commit of the working tree, null outside one.
        best_epoch: Number (from 1) of the epoch whose weights were tested, null where the last one's were.
        history: Every epoch's metrics, as (epoch, value) pairs by name.
        steps: Points within epochs, as (optimiser step, value) pairs by name: ``step/loss``, ``step/grad_norm`` …
        notes: Sentences for the reader.
        guesses: What the data left open and how it was decided: ``what``, the ``key`` that decides otherwise and
            its ``effect``, whether a wrong guess would be ``costly``, and the ``columns`` that it is about.
        verdicts: What is said of the model and each baseline: ``verdict`` (``beats``, ``is worse than``, ``cannot be
            told apart from``, or empty with the reason in ``why``), ``against``, ``split``, ``metric``, ``gain`` and
            the ends ``low`` and ``high`` of its interval (see :class:`pipeline.runs.verdicts.Verdict`).
        unfinished: In words, why the model may not have learnt all that it can; empty where it stopped improving.
        threads: Pairs of an optimiser step and the number of threads that computed from there on.
        nested: One entry a fit, where the run was made of several (folds, seeds, variants).
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
    guesses: list[dict[str, Any]] = field(default_factory=list)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    unfinished: str = ""
    nested: list[dict[str, Any]] = field(default_factory=list)
    steps: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    threads: list[list[int]] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION

    def write(self) -> Path:
        """Write ``result.json`` (whole or not at all) and give its path.

        A metric that is undefined (NaN) is left out; any other NaN and infinity become null.
        """
        values = asdict(self)
        values["metrics"] = defined(self.metrics)
        values["directory"] = str(self.directory)
        return write_json(self.directory / "result.json", values)

    def frame(self) -> pd.DataFrame:
        """The history: a row an epoch (from 1), a column a metric."""
        import pandas as pd

        columns = {name: pd.Series(dict(points), dtype=float) for name, points in self.history.items()}
        return pd.DataFrame(columns).rename_axis("epoch")

    def table(self) -> pd.DataFrame:
        """The metrics of the chosen epoch and of the test: a row a metric, a column a split."""
        import pandas as pd

        rows: dict[str, dict[str, float]] = {}
        for name, value in self.metrics.items():
            split, slash, metric = with_slash(name).partition("/")
            if slash and split in ("train", "val", "test", "baseline"):
                rows.setdefault(metric, {})[split] = value
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("metric")

    def figures(self) -> dict[str, Figure]:
        """The plots of the run by name, each as a figure."""
        from matplotlib.figure import Figure
        from matplotlib.image import imread

        found = {}
        for path in sorted((self.directory / "plots").glob("*.png")):
            image = imread(path)
            height, width = image.shape[:2]
            figure = Figure(figsize=(width / 130, height / 130), dpi=130)
            axis = figure.add_axes((0, 0, 1, 1))
            axis.imshow(image)
            axis.set_axis_off()
            found[path.stem] = figure
        return found

    @classmethod
    def read(cls, path: Path) -> RunResult:
        """The result written at ``path`` (a ``result.json`` or the directory that holds it)."""
        file = path / "result.json" if path.is_dir() else path
        values = json.loads(file.read_text(encoding="utf-8"))
        values["directory"] = file.parent
        return cls(**values)
