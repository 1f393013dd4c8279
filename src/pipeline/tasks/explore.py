"""What is in the data: sizes, balance, missing values, outliers, duplicates, leaks, suspicious labels."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from omegaconf import DictConfig

from pipeline.data.splits import Rows
from pipeline.reports.html import Page
from pipeline.tasks.finished import data_of
from pipeline.tasks.outputs import result_directory

if TYPE_CHECKING:
    from pipeline.data.module import DataModule

MOST_LOOKED_AT, MOST_FITTED = 20_000, 3_000
OUTLIER = 6.0
"""Standard deviations from the mean beyond which a value is called an outlier."""


@dataclass
class Findings:
    """What was seen in the training and validation data; of the test split nothing but hashes is looked at.

    Args:
        sizes: samples of each split.
        targets: samples of each class, or quantiles of the numbers to predict (training split).
        inputs: a row for each column, or for each statistic of images and texts.
        duplicates: how many samples of a split occur in another one, or twice in the same.
        contradictions: training samples with the same input and different targets.
        suspects: rows of the training split whose label a simple model finds very unlikely.
        warnings: in words.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    targets: dict[str, float] = field(default_factory=dict)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    duplicates: dict[str, int] = field(default_factory=dict)
    contradictions: int = 0
    suspects: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def run(cfg: DictConfig) -> None:
    """The task behind ``task=explore``."""
    from pipeline.tasks.hooks import Hooks
    from pipeline.tasks.recording import open_run, recorded

    directory = result_directory(cfg)
    data = data_of(cfg)
    findings = explore(data)
    files = write_report(data, findings, directory)
    tracked = open_run(cfg, directory, Hooks(), f"{data.used}-explore")
    with recorded(tracked):
        tracked.set_tags({"data.requested": data.requested, "data.used": data.used})
        tracked.log_metrics({f"explore/{name}": count for name, count in findings.sizes.items()})
        for file in files:
            tracked.log_artifact(file, "explore")
    tracked.finish("FINISHED")
    tracked.wait(60.0)
    sizes = ", ".join(f"{count:,} {name}" for name, count in findings.sizes.items())
    print("\n".join([f"{data.used}: {sizes}", *(f"WARNING: {warning}" for warning in findings.warnings)]))
    print(f"report: {files[0]}")


def explore(data: DataModule) -> Findings:
    """Look at a data set."""
    findings = Findings()
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    there = {name: split for name, split in splits.items() if split is not None and len(split)}
    findings.sizes = {name: split.samples for name, split in there.items()}
    if data.used != data.requested:
        findings.warnings.append(f"{data.requested} was not available: this is the stand-in {data.used}")
    _look_at_targets(data, findings)
    if not data.spec.per_step:
        _look_for_duplicates(there, findings)
    _look_at_inputs(data, findings)
    if data.spec.task != "regression" and not data.spec.per_step:
        _look_for_wrong_labels(data, findings)
    return findings


def _look_at_targets(data: DataModule, findings: Findings) -> None:
    spec, y = data.spec, data.train.y.reshape(-1)
    if spec.task == "regression":
        values = y.double().numpy()
        names = ("minimum", "5 %", "median", "95 %", "maximum")
        quantiles = np.quantile(values, [0, 0.05, 0.5, 0.95, 1])
        findings.targets = dict(zip(names, map(float, quantiles), strict=True))
        return
    counts = torch.bincount(y[y >= 0].long(), minlength=len(spec.classes)).tolist()
    findings.targets = dict(zip(spec.classes, counts, strict=False))
    if spec.per_step:
        return
    if absent := [name for name, count in findings.targets.items() if count == 0]:
        findings.warnings.append(f"no training sample of the classes {absent[:10]}")
    if min(counts) and max(counts) > 10 * min(counts):
        findings.warnings.append(
            f"the classes are unbalanced: {max(counts)} samples of the largest, {min(counts)} of the smallest "
            "(data.balance=class_weights or oversample; read F1 beside accuracy)"
        )


def _look_for_duplicates(splits: dict[str, Rows], findings: Findings) -> None:
    hashes = {name: sample_hashes(split) for name, split in splits.items()}
    for name, values in hashes.items():
        if repeated := len(values) - len(set(values)):
            findings.duplicates[f"twice in {name}"] = repeated
    known = set(hashes["train"])
    for name in ("validation", "test"):
        if shared := sum(value in known for value in hashes.get(name, [])):
            findings.duplicates[f"{name} also in train"] = shared
            findings.warnings.append(
                f"LEAK: {shared} of {len(hashes[name])} {name} samples also are in the training split: "
                f"what is measured on {name} is too good"
            )
    seen: dict[bytes, set[float]] = {}
    for value, target in zip(
        hashes["train"], splits["train"].y.reshape(len(hashes["train"]), -1)[:, 0], strict=True
    ):
        seen.setdefault(value, set()).add(float(target))
    findings.contradictions = sum(len(targets) > 1 for targets in seen.values())
    if findings.contradictions:
        findings.warnings.append(f"{findings.contradictions} inputs occur in training with different targets")


def sample_hashes(split: Rows) -> list[bytes]:
    """A hash of every sample's input."""
    found: list[bytes] = []
    for rows in torch.arange(len(split)).split(2048):
        x = np.ascontiguousarray(split.take(rows)[0].cpu().numpy())
        # What one batch of texts was padded to must not make the same text another one.
        samples = [
            row.rstrip(b"\0") if x.dtype == np.int64 else row for row in (sample.tobytes() for sample in x)
        ]
        found += [hashlib.blake2b(sample, digest_size=12).digest() for sample in samples]
    return found


def _look_at_inputs(data: DataModule, findings: Findings) -> None:
    spec = data.spec
    if spec.per_step:
        return
    x = _sample(data.train, MOST_LOOKED_AT)
    if spec.input == "vector":
        names = list(getattr(data.encoder, "columns", []))
        names = names if len(names) == x.shape[1] else [f"input {i}" for i in range(x.shape[1])]
        for name, column in zip(names, x.double().numpy().T, strict=True):
            findings.inputs.append(_described(name, column))
        flat = [row["input"] for row in findings.inputs if row["deviation"] == 0]
        if flat:
            findings.warnings.append(f"the same value everywhere: {', '.join(flat[:10])}")
    elif spec.input == "image":
        pixels = x.double().flatten(1).numpy()
        findings.inputs = [_described("brightness", pixels.mean(1)), _described("contrast", pixels.std(1))]
    elif spec.input in ("tokens", "bag"):
        findings.inputs = [
            _described("different words" if spec.input == "bag" else "words", (x > 0).sum(1).numpy())
        ]
        findings.inputs += [{"input": f"word: {word}", "texts": n} for word, n in frequent_words(data, x)]


def frequent_words(data: DataModule, x: torch.Tensor, most: int = 20) -> list[tuple[str, int]]:
    """Words with the number of texts that hold them, most frequent first."""
    words: list[str] = list(getattr(data.encoder, "words", []))
    if data.spec.input == "bag":
        counts = Counter(dict(enumerate(x.sum(0).int().tolist())))
        offset = 0
    else:
        counts = Counter(word for row in x.tolist() for word in set(row))
        offset = 2
    named = [(words[i - offset], n) for i, n in counts.most_common(most + 2) if 0 <= i - offset < len(words)]
    return named[:most]


def _described(name: str, values: np.ndarray) -> dict[str, Any]:
    values = np.asarray(values, dtype=np.float64)
    known = values[np.isfinite(values)]
    deviation = float(known.std()) if len(known) else 0.0
    distance = np.abs(known - known.mean()) if len(known) else known
    return {
        "input": name,
        "mean": float(known.mean()) if len(known) else 0.0,
        "deviation": deviation,
        "minimum": float(known.min()) if len(known) else 0.0,
        "maximum": float(known.max()) if len(known) else 0.0,
        "missing": int(len(values) - len(known)),
        "outliers": int((distance > OUTLIER * deviation).sum()) if deviation else 0,
    }


def _look_for_wrong_labels(data: DataModule, findings: Findings) -> None:
    """Samples whose label a cross-validated linear classifier gives less than two percent."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = _rows(data.train, MOST_FITTED)
    x, y = data.train.take(rows)
    labels = y.reshape(-1).long().numpy()
    inputs = x.float().flatten(1).numpy()
    counts = np.bincount(labels)
    if (
        data.spec.input == "tokens"
        or inputs.shape[1] > 2_000
        or min(counts[counts > 0]) < 3
        or (counts > 0).sum() < 2
    ):
        return
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=200))
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    p = cross_val_predict(model, inputs, labels, cv=folds, method="predict_proba")
    place = np.searchsorted(np.unique(labels), labels)
    own = p[np.arange(len(labels)), place]
    for i in np.argsort(own)[:25]:
        if own[i] < 0.02 and p[i].max() > 0.9:
            said = np.unique(labels)[p[i].argmax()]
            names = data.spec.classes
            found = {"row": int(rows[i]), "label": names[labels[i]], "looks like": names[said]}
            findings.suspects.append({**found, "probability of the label": float(own[i])})


def _rows(split: Rows, most: int) -> torch.Tensor:
    return torch.arange(len(split)) if len(split) <= most else torch.linspace(0, len(split) - 1, most).long()


def _sample(split: Rows, most: int) -> torch.Tensor:
    return split.take(_rows(split, most))[0]


def write_report(data: DataModule, findings: Findings, directory: Path) -> list[Path]:
    """The report as HTML, and the findings as JSON."""
    page = Page(f"What is in {data.used}")
    for warning in findings.warnings:
        page.warning(warning)
    page.text(f"Task: {data.spec.task}. Input: {data.spec.input} of shape {data.spec.input_shape}.")
    page.table(["split", "samples"], list(findings.sizes.items()))
    page.heading(f"Target: {data.spec.target_name}")
    page.table(
        ["class" if data.spec.classes else "quantile", "training split"], list(findings.targets.items())[:100]
    )
    page.image(_target_plot(data, findings, directory / "targets.png"), "distribution of the target")
    if findings.inputs:
        page.heading("Inputs (training split)")
        columns = list(findings.inputs[0])
        statistics = [row for row in findings.inputs if list(row) == columns]
        page.table(columns, [list(row.values()) for row in statistics])
        if words := [row for row in findings.inputs if "texts" in row]:
            page.table(["frequent words", "texts"], [list(row.values()) for row in words])
    if data.spec.input == "image":
        page.image(_images(data, directory / "samples.png"), "some training images")
    page.heading("Duplicates")
    page.table(["where", "samples"], list(findings.duplicates.items()) or [["none", 0]])
    if findings.suspects:
        page.heading("Labels to look at")
        page.text("A simple model, trained on the other samples, finds these labels very unlikely.")
        page.table(list(findings.suspects[0]), [list(row.values()) for row in findings.suspects])
    path = directory / "findings.json"
    path.write_text(json.dumps(vars(findings), indent=2) + "\n", encoding="utf-8")
    return [page.write(directory / "explore.html"), path]


def _target_plot(data: DataModule, findings: Findings, path: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axis = figure.add_subplot()
    if data.spec.classes:
        shown = sorted(findings.targets.items(), key=lambda item: -item[1])[:40]
        axis.bar([name[:16] for name, _ in shown], [count for _, count in shown], color="#4878a8")
        axis.tick_params(axis="x", rotation=90 if len(shown) > 12 else 0)
    else:
        axis.hist(data.train.y.reshape(-1).double().numpy(), bins=40, color="#4878a8")
        axis.set_xlabel(f"{data.spec.target_name} {data.spec.target_unit}".strip())
    axis.set_ylabel("training samples")
    figure.savefig(path, dpi=110)
    return path


def _images(data: DataModule, path: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.4), layout="constrained")
    axes: Any = figure.subplots(2, 8)
    images, y = data.train.take(torch.arange(min(16, len(data.train))))
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, image, label in zip(axes.flat, images.numpy(), y.tolist(), strict=False):
        axis.imshow(image[0], cmap="gray_r", vmin=0, vmax=255)
        axis.set_title(data.spec.classes[int(label)], fontsize=8)
    figure.savefig(path, dpi=110)
    return path
