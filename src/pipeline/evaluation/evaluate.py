"""Test a finished run: on its own test split, on other data of the same kind, under shifted images."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from pipeline.data.core.loader import Loader
from pipeline.data.core.splits import Rows
from pipeline.errors import UserError
from pipeline.evaluation.drifting import drifted, left_out
from pipeline.evaluation.groups import beside, classes_in_words, grouped
from pipeline.evaluation.groups import in_words as groups_in_words
from pipeline.evaluation.other_data import other_data_of
from pipeline.evaluation.outputs import Outputs, loader_of, outputs_on, result_directory, test_split
from pipeline.files import as_json, write_json, written
from pipeline.metrics import four_digits, four_places
from pipeline.models.settled import Settled
from pipeline.runs.finished import (
    FinishedRun,
    asked_model,
    asked_run,
    data_for,
    delivered_run,
    load_predictor,
    open_store,
)
from pipeline.runs.handover import METRICS, MODEL
from pipeline.runs.verdicts import verdicts_of

if TYPE_CHECKING:
    from pipeline.data.core.module import DataModule
    from pipeline.models.saved import Predictor
    from pipeline.tracking.queries import Store

SHIFTS = ("noise", "blur", "shift", "invert")
STRENGTHS = {"noise": (16, 32, 64, 96), "blur": (1, 2, 3, 4), "shift": (1, 2, 3, 4), "invert": (1,)}
MOST_SHOWN = 60
"""Largest number of classes of which each has a row in the picture of confusions."""
MOST_NAMED = 30
"""Largest number of things that moved which are named in the terminal."""
MOST_CURVES = 3
"""Largest number of classes that curves are drawn for: those with the smallest area under the ROC curve."""


def evaluate(cfg: DictConfig, other_data: bool = False) -> dict[str, Any]:
    """Test the model that ``task.run_id``, ``task.model_uri`` or ``task.run_dir`` names.

    Args:
        cfg: Configuration of this command.
        other_data: Whether to test on ``cfg.data`` instead of the run's own data.

    Returns:
        What is written as ``evaluation.json``: metrics (with the logged ones beside them), per class, calibration,
        shifts, drift. Beside it lie ``metrics.json`` (without the run's id) and ``predictions.csv``.

    Raises:
        UserError: There is no such model, or it cannot be tested on the data.
    """
    _check(cfg)
    finished, predictor, store = asked_model_of(cfg)
    directory = result_directory(cfg)
    own = data_for(finished.cfg, predictor)
    data, split, unknown = own, test_split(own, finished.title), {}
    if other_data:
        other = other_data_of(cfg, own, predictor)
        data, split, unknown = other.data, other.split, other.unknown
    outputs = outputs_on(predictor.module, loader_of(data, split), finished.cfg)
    result = _figures(outputs, finished, own, other_data)
    if "baseline" in result:
        result["verdict"] = _verdict(outputs, own, result["baseline"], finished.cfg)
    if other_data:
        result["drift"] = drifted(own, split, outputs, predictor, finished.cfg, unknown)
        if unknown:
            figures = unknown, result["interval"]["value"], len(split), own.spec.target_name
            result["unknown"] = beside(*figures, left_out(own, unknown)[0])
    if by := grouped(data, split, outputs):
        result["by"] = by
    if cfg.task.get("calibrate"):
        result["calibration"] |= _calibrated(outputs, own, predictor, finished.cfg)
    if cfg.task.get("shift"):
        result["shift"] = _shifted(str(cfg.task.shift), outputs, data, split, finished.cfg)
    plots = _plots(outputs, directory)
    if cfg.task.get("explain"):
        from pipeline.evaluation.explaining import explain

        plots += explain(predictor, own, split, directory)
    files = [*_written(result, outputs, directory), *plots]
    if store is not None:
        for file in files:
            store.log_artifact(finished.record.run_id, file, "evaluation")
    return result


def asked_model_of(cfg: DictConfig) -> tuple[FinishedRun, Predictor, Store | None]:
    """The run, its model, and the store that knows it; None where nothing is tracked there."""
    if not cfg.task.get("run_dir"):
        store = open_store(cfg)
        return asked_run(store, cfg), load_predictor(store, asked_model(store, cfg)), store
    if cfg.task.get("run_id") or cfg.task.get("model_uri"):
        raise UserError(
            f"task={cfg.task.name} needs one model and got several: task.run_id, task.model_uri or task.run_dir"
        )
    from pipeline.models.saved import load

    folder = Path(str(cfg.task.run_dir)).expanduser()
    finished = delivered_run(folder, cfg)
    return finished, load(folder / MODEL), _store_that_knows(finished, cfg)


def _store_that_knows(finished: FinishedRun, cfg: DictConfig) -> Store | None:
    """The store in which results about a run are recorded; None where it is not known there or nothing is tracked."""
    if not cfg.logger.get("mlflow") or not finished.record.run_id:
        return None
    try:
        store = open_store(cfg)
        store.run(finished.record.run_id)
    except UserError:
        return None
    return store


def _written(result: dict[str, Any], outputs: Outputs, directory: Path) -> list[Path]:
    """Write all figures, those that are the same at every repetition, and each sample's truth and prediction."""
    interval, plain = result["interval"], as_json(result)
    metrics = {
        **{f"test/{name}": value for name, value in plain["metrics"].items()},
        "interval": {key: interval[key] for key in ("low", "high")},
        **{key: plain[key] for key in ("baseline", "verdict") if plain.get(key)},
        **{key: plain[key] for key in ("calibration", "shift", "by", "unknown") if plain.get(key)},
    }
    files = [
        write_json(directory / "evaluation.json", plain),
        write_json(directory / METRICS, metrics),
    ]
    if not outputs.spec.per_step:
        files.append(_write_predictions(outputs, directory / "predictions.csv"))
    return files


def _write_predictions(outputs: Outputs, path: Path) -> Path:
    spec = outputs.spec
    if spec.task == "regression":
        truth = outputs.targets.reshape(len(outputs.targets), -1)[:, 0].tolist()
        said = outputs.logits.reshape(len(outputs.logits), -1)[:, 0].tolist()
    else:
        truth = [spec.named(label) for label in outputs.labels()]
        said = [spec.named(label) for label in outputs.decided()]
    with written(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["actual", "predicted"])
        writer.writerows(zip(truth, said, strict=True))
    return path


def _check(cfg: DictConfig) -> None:
    shift = cfg.task.get("shift")
    if shift is not None and shift not in SHIFTS:
        raise UserError(f"task.shift={shift}: expected {', '.join(SHIFTS)}, or null")


def _figures(outputs: Outputs, finished: FinishedRun, own: DataModule, other_data: bool) -> dict[str, Any]:
    metrics = outputs.metrics()
    name, interval = outputs.interval()
    result: dict[str, Any] = {
        "run_id": finished.record.run_id,
        "name": finished.record.name,
        "samples": len(outputs.targets),
        "metrics": metrics,
        "interval": {"metric": name, **asdict(interval)},
    }
    if sureness := outputs.model.settled.to_dict():
        result["sureness"] = sureness
    if not other_data:
        logged = {key.removeprefix("test/"): value for key, value in finished.record.metrics.items()}
        result["logged"] = {key: logged[key] for key in metrics if f"test/{key}" in finished.record.metrics}
        same = [_same(metrics[key], value) for key, value in result["logged"].items()]
        result["identical"] = bool(same) and all(same)
        result["data_digest"] = own.digest
        if own.test is not None:
            # The first is common sense.
            baseline = next(iter(own.baselines().values()))
            result["baseline"] = baseline(own.train, own.test, own.spec)
    if outputs.spec.task != "regression":
        from pipeline.evaluation.statistics import calibration_error

        p = outputs.probabilities()
        result["per_class"] = per_class(outputs.labels(), p, outputs.spec.classes, outputs.decided())
        result["calibration"] = {"error": calibration_error(*outputs.sureness())}
    else:
        result["calibration"] = {}
    return result


def _verdict(
    outputs: Outputs, own: DataModule, baseline: dict[str, float], cfg: DictConfig
) -> dict[str, Any] | None:
    """What the answers on the test split say of the model beside common sense, if its training had come to an end.

    None where the two have no metric in common.
    """
    validated = None
    if own.validation and not outputs.model.knows_validation:
        # As a run's own verdict: what two splits disagree on is no gain.
        found = outputs_on(outputs.model, loader_of(own, own.validation), cfg)
        validated = found.logits, found.targets
    entries = verdicts_of(
        own,
        outputs.model,
        {f"test/{name}": value for name, value in outputs.metrics().items()},
        {"name": next(iter(own.baselines())), **{f"test/{name}": value for name, value in baseline.items()}},
        (outputs.logits, outputs.targets),
        validated,
    )
    return entries[0] if entries else None


def per_class(
    labels: np.ndarray, p: np.ndarray, classes: tuple[str, ...], predicted: np.ndarray | None = None
) -> dict[str, dict[str, float]]:
    """Precision, recall, F1, area under the ROC curve and number of samples of each class; NaN where undefined.

    Args:
        labels: True class of each prediction, (predictions,), or whether it has each label, (predictions, labels).
        p: Probabilities, (predictions, classes).
        classes: Names of the classes.
        predicted: Predicted class of each, or each label; None for the most probable one.
    """
    from sklearn.metrics import roc_auc_score

    predicted = p.argmax(1) if predicted is None else predicted
    rows = {}
    for number, name in enumerate(classes):
        is_it, said = _of_class(labels, number), _of_class(predicted, number)
        hits = int((is_it & said).sum())
        precision, recall = _share(hits, said.sum()), _share(hits, is_it.sum())
        rows[name] = {
            "precision": precision,
            "recall": recall,
            "f1": _share(2 * hits, said.sum() + is_it.sum()),
            "roc_auc": float(roc_auc_score(is_it, p[:, number]))
            if 0 < is_it.sum() < len(labels)
            else math.nan,
            "samples": int(is_it.sum()),
        }
    return rows


def _of_class(labels: np.ndarray, number: int) -> np.ndarray:
    """Which samples are of a class, or have a label."""
    found: np.ndarray = labels[:, number] == 1 if labels.ndim == 2 else labels == number
    return found


def _calibrated(outputs: Outputs, own: DataModule, predictor: Predictor, cfg: DictConfig) -> dict[str, float]:
    """A temperature fitted on the validation split, and what it changes on the test split."""
    from pipeline.evaluation.statistics import calibration_error
    from pipeline.training.sureness import fit_temperature

    if outputs.spec.task == "regression" or predictor.module.objective.gives_probabilities:
        raise UserError("task.calibrate=true is for models that give probabilities of classes")
    if own.validation is None or len(own.validation) == 0:
        raise UserError("task.calibrate=true needs validation data, but this run held none out")
    if predictor.module.knows_validation:
        raise UserError("task.calibrate=true: this model has learnt from all rows, and is calibrated")
    held_out = outputs_on(predictor.module, loader_of(own, own.validation), cfg)
    logits, labels = held_out.known()
    if outputs.spec.task == "multilabel":
        logits, labels = logits.reshape(-1, 1), labels.reshape(-1)
    temperature = fit_temperature(logits.numpy(), labels.numpy())
    # The model may have a temperature of its own, by which its probabilities are divided once more.
    own_one = outputs.model.settled.temperature
    after = Outputs(outputs.model, outputs.logits * (own_one / temperature), outputs.targets)
    return {
        "temperature": temperature,
        "error_after": calibration_error(*after.sureness()),
        "loss_after": Outputs(outputs.model, outputs.logits / temperature, outputs.targets).metrics()["loss"],
    }


def _shifted(
    kind: str, outputs: Outputs, data: DataModule, split: Rows, cfg: DictConfig
) -> list[dict[str, Any]]:
    """How the judged metric falls as the images are changed more and more."""
    if outputs.spec.input != "image":
        raise UserError(f"task.shift={kind} is for images; this model takes {outputs.spec.input}")
    name, interval = outputs.interval()
    rows: list[dict[str, Any]] = [{"strength": 0, name: interval.value}]
    for strength in STRENGTHS[kind]:
        # Batch by batch: the images of a large folder are not in memory.
        loader = loader_of(data, split)
        if not isinstance(loader, Loader):
            raise UserError(
                f"task.shift={kind}: a loader of your own changes its images itself; set task.shift=null"
            )
        loader.augment = partial(shifted, kind=kind, strength=strength, generator=_noise())
        found = outputs_on(outputs.model, loader, cfg).interval()[1]
        rows.append({"strength": strength, name: found.value, "low": found.low, "high": found.high})
    return rows


def _noise() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def shifted(images: Tensor, kind: str, strength: int, generator: torch.Generator | None = None) -> Tensor:
    """Changed ``uint8`` images of the same shape (samples, channels, height, width).

    Args:
        images: Original images.
        kind: Change: ``noise`` (normal, with a standard deviation of ``strength`` pixel units), ``blur`` (mean over
            2·strength + 1 pixels), ``shift`` (``strength`` pixels right and down, filled with black) or ``invert``.
        strength: Size of the change.
        generator: Source of the noise, which goes on from batch to batch; None begins one.
    """
    # On the processor wherever they are: the same figures everywhere.
    values = images.cpu().float()
    if kind == "noise":
        changed = values + strength * torch.randn(values.shape, generator=generator or _noise())
    elif kind == "blur":
        size = 2 * strength + 1
        changed = torch.nn.functional.avg_pool2d(values, size, 1, strength, count_include_pad=False)
    elif kind == "shift":
        changed = torch.zeros_like(values)
        changed[..., strength:, strength:] = values[..., :-strength, :-strength]
    else:
        changed = 255 - values
    return changed.round().clamp(0, 255).to(images.device, torch.uint8)


def _plots(outputs: Outputs, directory: Path) -> list[Path]:
    from pipeline.evaluation.statistics import calibration_error
    from pipeline.reports import curves, plots

    spec = outputs.spec
    if spec.task == "regression":
        if spec.per_step:
            return []
        true, said = outputs.targets.reshape(-1).numpy(), outputs.logits.reshape(-1).numpy()
        path = directory / "predicted_against_true.png"
        return [plots.regression_scatter(true, said, path, spec.target_name, spec.target_unit)]
    p, labels = outputs.probabilities(), outputs.labels()
    confidence, right = outputs.sureness()
    error = calibration_error(confidence, right)
    made = [curves.calibration_curve(confidence, right, directory / "calibration.png", error)]
    if spec.task != "multilabel":
        counts, names = confusions(labels, outputs.decided(), spec.classes)
        made.append(plots.confusion_matrix(counts, names, directory / "confusion_matrix.png"))
    drawn: list[tuple[str, Callable[..., Path]]] = [
        ("roc", curves.roc_curve),
        ("precision_recall", curves.precision_recall_curve),
    ]
    areas = [row["roc_auc"] for row in per_class(labels, p, spec.classes).values()]
    occurring = [number for number, area in enumerate(areas) if math.isfinite(area)]
    shown = (
        [1]
        if len(spec.classes) == 2 and spec.task != "multilabel"
        else sorted(occurring, key=lambda number: areas[number])
    )
    for number in shown[:MOST_CURVES]:
        for name, draw in drawn:
            made.append(
                draw(_of_class(labels, number), p[:, number], directory / f"{name}_class_{number}.png")
            )
    return made


def confusions(
    labels: np.ndarray, predicted: np.ndarray, classes: tuple[str, ...]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """How often each class was taken for each; of very many classes the most frequent ones, and the others together.

    Args:
        labels: True class of each prediction.
        predicted: Predicted class of each.
        classes: Names of the classes.

    Returns:
        Counts (true, predicted), and what the rows and columns are called.
    """
    place, names = np.arange(len(classes)), classes
    if len(classes) > MOST_SHOWN:
        kept = np.sort(
            np.argsort(-np.bincount(labels, minlength=len(classes)), kind="stable")[: MOST_SHOWN // 2]
        )
        place = np.full(len(classes), len(kept))
        place[kept] = np.arange(len(kept))
        names = (*(classes[number] for number in kept), "all others")
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (place[labels], place[predicted]), 1)
    return counts, names


def in_words(result: dict[str, Any]) -> list[str]:
    """What an evaluation showed, line by line."""
    lines = [f"run: {result['name']} ({result['run_id']})", f"samples: {result['samples']:,}"]
    lines += [f"{name}: {value:.6g}" for name, value in result["metrics"].items()]
    from pipeline.training.sureness import sureness_words

    interval = result["interval"]
    low, high = four_places(interval["low"]), four_places(interval["high"])
    lines.append(f"{interval['metric']}, 95 % interval: {low} to {high}")
    if "baseline" in result:
        shared = [name for name in result["metrics"] if name in result["baseline"]]
        lines.append(
            "common sense: " + ", ".join(f"{n} {four_digits(result['baseline'][n])}" for n in shared)
        )
    if result.get("logged"):
        if result["identical"]:
            lines.append("Identical, bit for bit, to what the run logged.")
        else:
            differing = [k for k, v in result["logged"].items() if not _same(result["metrics"][k], v)]
            lines.append(f"DIFFERS from what the run logged: {', '.join(differing)}.")
    lines += classes_in_words(result.get("per_class", {}))
    lines += groups_in_words(result)
    if "sureness" in result:
        lines.append(f"how sure it is: {sureness_words(Settled.from_dict(result['sureness']), '')}")
    calibration = result["calibration"]
    if calibration:
        lines.append(f"calibration error: {calibration['error']:.4f}")
    if "temperature" in calibration:
        after, t = calibration["error_after"], calibration["temperature"]
        lines.append(f"with the temperature {t:.3f} fitted on validation data: {after:.4f}")
    for row in result.get("shift", []):
        lines.append("shifted by " + ", ".join(f"{key} {value:.4g}" for key, value in row.items()))
    if "drift" in result:
        moved = result["drift"]["moved"]
        more = f" and {len(moved) - MOST_NAMED} more" if len(moved) > MOST_NAMED else ""
        named = f"moved against the training data: {', '.join(moved[:MOST_NAMED])}{more}"
        lines.append(named if moved else "No drift was found.")
    return lines


def _same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan
