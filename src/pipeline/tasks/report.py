"""One page about everything that the stages of ``dvc.yaml`` did, and which model they end with."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from pipeline.errors import UserError
from pipeline.evaluation.outputs import result_directory
from pipeline.evaluation.statistics import PairedTest, compare_hits, compare_values
from pipeline.files import write_json
from pipeline.metrics import four_places, higher_is_better, judged_by
from pipeline.reports.html import Page
from pipeline.reports.summary import verdict
from pipeline.runs.handover import HISTORY, METRICS, Delivered, read_delivered, read_json
from pipeline.runs.verdicts import unless_unfinished

MODELS = {"train": "as configured", "sweep": "tuned by the sweep"}


@dataclass(frozen=True)
class Candidate:
    """A model of the chain.

    Args:
        stage: Stage of ``dvc.yaml`` that trained it.
        delivered: What the stage handed on.
        tested: Figures of its evaluation.
        predictions: Truth and prediction of each test sample; empty where a sample has more than one.
    """

    stage: str
    delivered: Delivered
    tested: dict[str, Any]
    predictions: list[tuple[str, str]]


def run(cfg: DictConfig) -> None:
    """The task behind ``task=report``."""
    source, directory = Path(str(cfg.task.input)).expanduser(), result_directory(cfg)
    if not source.is_dir():
        raise UserError(f"task.input={source}: there is no such directory; run the stages first: dvc repro")
    candidates = [_read(source, stage) for stage in MODELS]
    metric = _metric(candidates)
    chosen = choose(candidates, metric)
    baseline = next(iter(read_json(source / "baseline" / METRICS).values()))
    test = chosen.tested[f"test/{metric}"]
    summary = {
        "chosen": chosen.stage,
        f"val/{metric}": chosen.delivered.metrics[f"val/{metric}"],
        f"test/{metric}": test,
        "gain over the baseline": _gain(metric, chosen.tested["baseline"][metric], test),
    }
    write_json(directory / METRICS, summary)
    page = write_page(source, candidates, chosen, metric, baseline, directory)
    print(f"{conclusion(candidates, chosen, metric)}\nreport: {page}")


def choose(candidates: list[Candidate], metric: str) -> Candidate:
    """The best one on validation data; of equals the first, which is the simpler one."""
    worst = -math.inf if higher_is_better(metric) else math.inf

    def gain(candidate: Candidate) -> float:
        return _gain(metric, 0.0, candidate.delivered.metrics.get(f"val/{metric}", worst))

    return max(candidates, key=gain)


def conclusion(candidates: list[Candidate], chosen: Candidate, metric: str) -> str:
    """Which model, why, and whether it is worth having, in words."""
    test, sense = chosen.tested[f"test/{metric}"], chosen.tested["baseline"][metric]
    words = (
        f"Chosen on validation data: the model {MODELS[chosen.stage]} "
        f"({metric} {four_places(chosen.delivered.metrics[f'val/{metric}'])}). Test {metric} {four_places(test)}"
    )
    if low := chosen.tested.get("interval"):
        words += f" (95 % interval {four_places(low['low'])} to {four_places(low['high'])})"
    words += f"; common sense {four_places(sense)}."
    if judged := chosen.tested.get("verdict"):
        judged = unless_unfinished([judged], str(chosen.delivered.run.get("unfinished", "")))
        words += f" {verdict({'verdicts': judged})[0]}"
    paired = _paired(candidates, metric)
    if paired is not None:
        significant = "significant" if paired.significant() else "not significant"
        words += (
            f" Tuned against as configured, on the same test samples: {four_places(paired.difference.value, '+')} "
            f"({paired.method}, p = {paired.p_value:.2g}: {significant})."
        )
    return words


def write_page(
    source: Path,
    candidates: list[Candidate],
    chosen: Candidate,
    metric: str,
    baseline: dict[str, float],
    directory: Path,
) -> Path:
    """Write ``report.html``: data, models, learning curves, which was chosen."""
    data, findings = read_json(source / "prepare/data.json"), read_json(source / "explore/findings.json")
    page = Page(f"From {data['used']} to a tested model")
    if data["used"] != data["requested"]:
        page.warning(f"{data['requested']} was not available: this is the stand-in {data['used']}")
    for warning in findings["warnings"]:
        page.warning(warning)
    for candidate in candidates:
        digest = candidate.delivered.run.get("data_digest")
        if digest not in (None, data["digest"]):
            page.warning(
                f"{candidate.stage} was trained on other data ({digest}) than was prepared ({data['digest']})"
            )
    page.text(conclusion(candidates, chosen, metric))
    page.text(
        "Both models were trained and chosen without the test data, which was read once, after that, for both."
    )
    page.table(
        [
            "model",
            "parameters",
            f"validation {metric}",
            f"test {metric}",
            "95 % interval",
            "seconds to train",
        ],
        [
            ["common sense", 0, baseline[f"val/{metric}"], chosen.tested["baseline"][metric], "", ""],
            *(_row(candidate, metric) for candidate in candidates),
        ],
    )
    page.heading("Data")
    page.table(["split", "samples"], list(data["samples"].items()))
    _picture(page, source / "explore/targets.png", "distribution of the target")
    _picture(page, source / "explore/samples.png", "some training images")
    for candidate in candidates:
        page.heading(f"The model {MODELS[candidate.stage]}")
        curves = _curves(candidate, directory)
        if curves is not None:
            _picture(page, curves, "learning curves")
        _picture(page, source / "evaluate" / candidate.stage / "confusion_matrix.png", "confusion matrix")
        _picture(page, source / "evaluate" / candidate.stage / "predicted_against_true.png", "predictions")
    page.heading("Where it is recorded")
    page.table(["model", "MLflow run", "DVC experiment", "git commit"], [_ids(one) for one in candidates])
    return page.write(directory / "report.html")


def _read(source: Path, stage: str) -> Candidate:
    folder = source / "evaluate" / stage
    tested = read_json(folder / METRICS)
    predictions: list[tuple[str, str]] = []
    if (folder / "predictions.csv").is_file():
        with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
            predictions = [(row["actual"], row["predicted"]) for row in csv.DictReader(file)]
    return Candidate(stage, read_delivered(source / stage), tested, predictions)


def _metric(candidates: list[Candidate]) -> str:
    """The metric that all of them are judged by."""
    shared = set.intersection(*(set(one.delivered.metrics) for one in candidates))
    metric = judged_by(name.removeprefix("val/") for name in shared if name.startswith("val/"))
    if metric is None:
        raise UserError(
            "the models have no validation metric in common; set data.validation_fraction above 0"
        )
    return metric


def _gain(metric: str, before: float, now: float) -> float:
    return now - before if higher_is_better(metric) else before - now


def _paired(candidates: list[Candidate], metric: str) -> PairedTest | None:
    first, second = (one.predictions for one in candidates)
    # The value of any other metric does not follow from a prediction alone.
    if metric not in ("accuracy", "mae") or not first or [t for t, _ in first] != [t for t, _ in second]:
        return None
    if metric == "accuracy":
        hits = [np.asarray([true == said for true, said in some]) for some in (first, second)]
        return compare_hits(hits[0], hits[1])
    errors = [np.asarray([abs(float(true) - float(said)) for true, said in some]) for some in (first, second)]
    return compare_values(errors[0], errors[1])


def _row(candidate: Candidate, metric: str) -> list[Any]:
    interval = candidate.tested.get("interval")
    return [
        MODELS[candidate.stage],
        candidate.delivered.run.get("parameters", ""),
        candidate.delivered.metrics[f"val/{metric}"],
        candidate.tested[f"test/{metric}"],
        f"{four_places(interval['low'])} to {four_places(interval['high'])}" if interval else "",
        (candidate.delivered.run.get("seconds") or {}).get("fit", ""),
    ]


def _ids(candidate: Candidate) -> list[str]:
    run = candidate.delivered.run
    return [
        MODELS[candidate.stage],
        *(str(run.get(key) or "–") for key in ("run_id", "dvc_experiment", "git_commit")),
    ]


def _curves(candidate: Candidate, directory: Path) -> Path | None:
    from pipeline.reports.curves import learning_curves

    path = candidate.delivered.directory / HISTORY
    if not path.is_file():
        return None
    history: dict[str, list[tuple[int, float]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if name != "epoch" and value:
                    history.setdefault(name, []).append((int(row["epoch"]), float(value)))
    return learning_curves(history, None, directory / f"learning_curves_{candidate.stage}.png")


def _picture(page: Page, path: Path, alternative: str) -> None:
    if path.is_file():
        page.image(path, alternative)
