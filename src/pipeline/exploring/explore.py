"""What is in the data: sizes, balance, missing values, outliers, duplicates, leaks, suspicious labels."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipeline.data.core.splits import Rows
from pipeline.data.orders.module import OrdersModule
from pipeline.data.tables.columns import columns_of, some_rows
from pipeline.data.tables.table import TableData
from pipeline.exploring.findings import Findings
from pipeline.exploring.near import look_for_near_duplicates
from pipeline.exploring.orders import look_at_orders
from pipeline.exploring.tables import look_at_table

if TYPE_CHECKING:
    from pipeline.data.core.module import DataModule

MOST_FITTED = 3_000
OUTLIER = 6.0
"""Standard deviations from the mean beyond which a value is called an outlier."""


@contextmanager
def noted() -> Iterator[list[str]]:
    """Collects what is said about the data while it is read."""
    notes: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: notes.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("pipeline.data")
    logger.addHandler(handler)
    try:
        yield notes
    finally:
        logger.removeHandler(handler)


def explore(data: DataModule) -> Findings:
    """Look at a data set."""
    findings = Findings()
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    there = {name: split for name, split in splits.items() if split is not None and len(split)}
    findings.sizes = {name: split.samples for name, split in there.items()}
    if data.used != data.requested:
        findings.warnings.append(f"{data.requested} was not available: this is the stand-in {data.used}")
    _look_at_targets(data, findings)
    if isinstance(data, OrdersModule):
        # The same order twice, and other dishes for the same customer and hour, are what orders are like.
        look_at_orders(data, findings)
        return findings
    if not data.spec.per_step:
        _look_for_duplicates(there, findings, data.spec.task == "multilabel")
    if data.spec.input == "image":
        look_for_near_duplicates(there, findings)
    _look_at_inputs(data, findings)
    if isinstance(data, TableData):
        look_at_table(data, findings)
    if data.spec.task in ("binary", "multiclass") and not data.spec.per_step:
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
    if spec.task == "multilabel":
        counts = data.train.y.long().sum(0).tolist()
    else:
        counts = torch.bincount(y[y >= 0].long(), minlength=len(spec.classes)).tolist()
    findings.targets = dict(zip(spec.classes, counts, strict=False))
    if spec.per_step:
        return
    if absent := [name for name, count in findings.targets.items() if count == 0]:
        findings.warnings.append(f"no training sample of the classes {absent[:10]}")
    if min(counts) and not spec.top_k and spec.task != "multilabel" and max(counts) > 10 * min(counts):
        findings.warnings.append(
            f"the classes are unbalanced: {max(counts)} samples of the largest, {min(counts)} of the smallest "
            "(data.balance=class_weights or oversample; read F1 beside accuracy)"
        )


def _look_for_duplicates(splits: dict[str, Rows], findings: Findings, several: bool) -> None:
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
    seen: dict[bytes, set[Any]] = {}
    y = splits["train"].y.reshape(len(hashes["train"]), -1)
    for value, target in zip(hashes["train"], y.tolist() if several else y[:, 0].tolist(), strict=True):
        seen.setdefault(value, set()).add(tuple(target) if several else target)
    findings.contradictions = sum(len(targets) > 1 for targets in seen.values())
    if findings.contradictions:
        findings.warnings.append(
            f"the same input occurs in training with different targets: {findings.contradictions} inputs"
        )


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
    if spec.input == "vector":
        _look_at_columns(data, findings)
    elif spec.input == "image":
        pixels = data.train.take(some_rows(data.train))[0].double().flatten(1).numpy()
        findings.inputs = [_described("brightness", pixels.mean(1)), _described("contrast", pixels.std(1))]
    elif spec.input in ("tokens", "bag"):
        lengths, words = _words(data)
        what = "different known words" if spec.input == "bag" else "words"
        findings.inputs = [_described(what, lengths)]
        findings.words = dict(words)
        if empty := int((lengths == 0).sum()):
            findings.warnings.append(f"{empty} training texts hold no word that the model knows")


def _look_at_columns(data: DataModule, findings: Findings) -> None:
    """Note statistics in the columns' own units."""
    columns = columns_of(data, data.train.take(some_rows(data.train))[0].double().numpy())
    findings.categories = list(columns.categories)
    findings.inputs = [_described(name, values) for name, values in columns.numbers.items()]
    rows = len(some_rows(data.train))
    if flat := [
        row["input"] for row in findings.inputs if row["deviation"] < 1e-9 * abs(row["mean"]) + 1e-12
    ]:
        findings.warnings.append(f"the same value everywhere: {', '.join(flat[:10])}")
    gaps = {row["input"]: row["missing"] for row in findings.inputs}
    gaps |= {column.name: column.missing for column in findings.categories}
    if gappy := [f"{name} ({count / rows:.0%})" for name, count in gaps.items() if count > 0.2 * rows]:
        findings.warnings.append(f"many values are missing: {', '.join(gappy[:10])}")
    for row in findings.inputs:
        if row["input"] in columns.dates:
            row |= {key: _date(row[key]) for key in ("mean", "minimum", "maximum")}
            row["deviation"] = f"{row['deviation']:.0f} days"


def _date(days: float) -> str:
    return str(np.datetime64("1970-01-01") + np.timedelta64(int(days), "D"))


def _words(data: DataModule, most: int = 20) -> tuple[np.ndarray, list[tuple[str, int]]]:
    """Words of each text, and in how many texts the most frequent ones occur."""
    words: list[str] = list(getattr(data.encoder, "words", []))
    offset = 0 if data.spec.input == "bag" else 2
    texts: Counter[int] = Counter()
    lengths = []
    # Bags are wide: a thousand at a time are some ten megabytes.
    for rows in some_rows(data.train).split(1000):
        x = data.train.take(rows)[0]
        lengths.append((x > 0).sum(1).numpy())
        if data.spec.input == "bag":
            texts.update(dict(enumerate((x > 0).sum(0).tolist())))
        else:
            texts.update(word for row in x.tolist() for word in set(row))
    named = [
        (words[i - offset], n) for i, n in texts.most_common(most + offset) if 0 <= i - offset < len(words)
    ]
    return np.concatenate(lengths), named[:most]


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
    """Note samples whose label a cross-validated linear classifier gives less than two percent."""
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    rows = some_rows(data.train, MOST_FITTED)
    x, y = data.train.take(rows)
    labels = y.reshape(-1).long().numpy()
    counts = np.bincount(labels)
    if data.spec.input == "tokens" or (counts > 0).sum() < 2:
        return
    # Each fold needs some of every class; of a rarer one nothing could be said.
    kept = np.flatnonzero(counts[labels] >= 3)
    rows, labels = rows[torch.from_numpy(kept)], labels[kept]
    if len(np.unique(labels)) < 2:
        return
    model, inputs = _simple_classifier(data, x.flatten(1)[torch.from_numpy(kept)])
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    p = cross_val_predict(model, inputs, labels, cv=folds, method="predict_proba")
    known, names = np.unique(labels), data.spec.classes
    own = p[np.arange(len(labels)), np.searchsorted(known, labels)]
    for i in np.argsort(own)[:25]:
        if own[i] < 0.02 and p[i].max() > 0.9:
            found = {
                "row": int(rows[i]),
                "label": names[labels[i]],
                "looks like": names[known[p[i].argmax()]],
            }
            findings.suspects.append({**found, "probability of the label": float(own[i])})


def _simple_classifier(data: DataModule, x: torch.Tensor) -> tuple[Any, Any]:
    """A linear classifier and its inputs; bags of words stay sparse."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if data.spec.input == "bag":
        from scipy.sparse import csr_matrix

        return LogisticRegression(C=0.3, max_iter=200), csr_matrix(x.numpy())
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=200)), x.float().numpy()
