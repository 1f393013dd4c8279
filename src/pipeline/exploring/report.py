"""What was found in a data set, as one HTML page with its plots."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipeline.data.tables.columns import columns_of, some_rows
from pipeline.data.tables.table import TableData
from pipeline.exploring.orders import describe_orders
from pipeline.exploring.tables import METRICS, draw_by_target
from pipeline.files import write_json
from pipeline.reports.html import Page

if TYPE_CHECKING:
    from pipeline.data.core.module import DataModule
    from pipeline.exploring.findings import Findings

FEW_CLASSES = 12


def write_report(data: DataModule, findings: Findings, directory: Path) -> list[Path]:
    """Write the report as HTML, the findings as JSON, and the plots."""
    page = Page(f"What is in {data.used}")
    for warning in findings.warnings:
        page.warning(warning)
    for note in findings.notes:
        page.text(note)
    page.text(_in_words(data))
    page.table(["split", "steps" if data.spec.per_step else "samples"], list(findings.sizes.items()))
    plots = [_target_plot(data, findings, directory / "targets.png")]
    page.heading(f"Target: {data.spec.target_name}")
    page.image(plots[0], "distribution of the target")
    what = (
        f"training {'steps' if data.spec.per_step else 'samples'}" if data.spec.classes else "training split"
    )
    page.table(
        ["class" if data.spec.classes else "quantile", what],
        [[_readable(name), value] for name, value in _ordered(data, findings)[:100]],
    )
    if isinstance(data, TableData):
        plots += _describe_table(page, data, findings, directory)
    if findings.orders:
        plots += describe_orders(page, findings, directory)
        _describe_guesses(page, findings)
    plots += _describe_inputs(page, data, findings, directory)
    page.heading("Duplicates")
    if data.spec.per_step:
        page.text("Not looked for: the samples are pieces of one sequence.")
    elif findings.orders:
        page.text("Not looked for: the same may well be ordered twice.")
    else:
        page.text("Samples are compared as the model sees them.")
        page.table(["where", "samples"], list(findings.duplicates.items()) or [["none", 0]])
    if findings.near:
        plots.append(_near(data, findings, directory / "near_duplicates.png"))
        page.image(plots[-1], "validation images, each followed by the training image that it nearly is")
    if findings.suspects:
        page.heading("Labels to look at")
        page.text(
            "A simple model, trained on the other samples, finds these labels very unlikely. "
            "Rows are counted from 0 in the training split."
        )
        if data.spec.input == "image":
            plots.append(_suspects(data, findings, directory / "suspects.png"))
            page.image(plots[-1], "images whose labels are unlikely")
        page.table(list(findings.suspects[0]), [list(row.values()) for row in findings.suspects])
    path = write_json(directory / "findings.json", asdict(findings))
    return [page.write(directory / "explore.html"), path, *plots]


def _ordered(data: DataModule, findings: Findings) -> list[tuple[str, float]]:
    """Quantiles and a few classes in their own order, many classes by their number of samples."""
    found = list(findings.targets.items())
    few = not data.spec.classes or len(found) <= FEW_CLASSES
    return found if few else sorted(found, key=lambda item: -item[1])


def _in_words(data: DataModule) -> str:
    spec = data.spec
    shape = " × ".join("any number" if size == 0 else f"{size:,}" for size in spec.input_shape)
    classes = f" of {len(spec.classes)} classes" if spec.classes else ""
    return f"Task: {spec.task}{classes}. Input: {spec.input}, {shape or 'one value'}."


def _describe_inputs(page: Page, data: DataModule, findings: Findings, directory: Path) -> list[Path]:
    """Add the section about the inputs; gives the plots that it shows."""
    plots: list[Path] = []
    if not (findings.inputs or findings.categories):
        return plots
    page.heading("Inputs (training split)")
    if data.spec.input == "image":
        plots.append(_images(data, directory / "samples.png"))
        page.image(plots[-1], "some training images")
    if findings.inputs:
        page.table(list(findings.inputs[0]), [list(row.values()) for row in findings.inputs])
    if data.spec.input == "vector" and findings.inputs:
        plots.append(_histograms(data, directory / "columns.png"))
        page.image(plots[-1], "distribution of the columns")
    if findings.categories:
        rows = []
        for column in findings.categories:
            first = ", ".join(f"{_readable(word)} {n:,}" for word, n in list(column.counts.items())[:5])
            rows.append([column.name, len(column.counts), column.missing, first])
        page.table(["column of words", "different", "missing", "most frequent"], rows)
    if findings.words:
        looked_at = f"texts, of {len(some_rows(data.train)):,}"
        page.table(["frequent words", looked_at], list(findings.words.items()))
    return plots


def _describe_table(page: Page, data: TableData, findings: Findings, directory: Path) -> list[Path]:
    """Add what single columns tell, drift, and what was guessed; gives the plots that it shows."""
    metric = METRICS[findings.baseline["metric"]]
    page.heading("What each column tells alone")
    page.text(
        f"{metric} on rows that were not learnt from, when nothing but this column is known (4-fold); "
        f"without any column it is {findings.baseline['value']:.3f}."
    )
    rows = [
        [row["column"], row["kind"], f"{row['score']:.3f}", f"{row['missing']:.1%}", row["different"]]
        for row in findings.columns
    ]
    page.table(["column", "what it is", metric, "missing", "different values"], rows)
    plots = [draw_by_target(data, findings, directory / "by_target.png")]
    page.image(plots[0], f"the columns that tell most, by {data.spec.target_name}")
    if findings.drift:
        page.heading("Training and test rows")
        page.text(
            f"A classifier tells them apart with an area under the ROC curve of {findings.drift_auc:.3f} "
            "(0.5 is chance). Probabilities are corrected for the number of columns."
        )
        shown = [
            [
                row["column"],
                "yes" if row["drifted"] else "",
                f"{row['difference']:.3f}",
                f"{row['p']:.2g}",
                row["missing"],
                row["test"],
            ]
            for row in findings.drift
        ]
        page.table(["column", "differs", "difference", "probability by chance", "missing", "test"], shown)
    _describe_guesses(page, findings)
    return plots


def _describe_guesses(page: Page, findings: Findings) -> None:
    if findings.guesses:
        page.heading("What was guessed")
        page.table(
            ["guess", "to decide otherwise"],
            [[guess["what"], f"{guess['key']} {guess['effect']}".strip()] for guess in findings.guesses],
        )


def _readable(name: str) -> str:
    """A class as text that can be seen: blanks and line ends are characters too."""
    return name if name.strip() == name and name.isprintable() and name else repr(name)


def _target_plot(data: DataModule, findings: Findings, path: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    axis = figure.add_subplot()
    if data.spec.classes:
        shown = _ordered(data, findings)[:40]
        axis.bar(range(len(shown)), [count for _, count in shown], color="#4878a8")
        labels = [_readable(name)[:16] for name, _ in shown]
        axis.set_xticks(range(len(shown)), labels, rotation=90 if len(shown) > FEW_CLASSES else 0, fontsize=8)
        if len(findings.targets) > len(shown):
            axis.set_title(f"the {len(shown)} most frequent of {len(findings.targets)}", fontsize=9)
    else:
        axis.hist(data.train.y.reshape(-1).double().numpy(), bins=40, color="#4878a8")
        unit = f" ({data.spec.target_unit})" if data.spec.target_unit else ""
        axis.set_xlabel(f"{data.spec.target_name}{unit}")
    axis.set_ylabel("training steps" if data.spec.per_step else "training samples")
    figure.savefig(path, dpi=110)
    return path


def _histograms(data: DataModule, path: Path, most: int = 16) -> Path:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    columns = columns_of(data, data.train.take(some_rows(data.train))[0].double().numpy())
    numbers = list(columns.numbers.items())[:most]
    across = 4
    figure = Figure(figsize=(9, 1.7 * -(-len(numbers) // across)), layout="constrained")
    axes: Any = figure.subplots(-(-len(numbers) // across), across, squeeze=False)
    for axis in axes.flat[len(numbers) :]:
        axis.set_axis_off()
    for axis, (name, values) in zip(axes.flat, numbers, strict=False):
        axis.hist(values[np.isfinite(values)], bins=30, color="#4878a8")
        axis.set_title(name[:28], fontsize=9)
        axis.tick_params(labelsize=7)
        if name in columns.dates:
            axis.xaxis.set_major_locator(AutoDateLocator(maxticks=4))
            axis.xaxis.set_major_formatter(ConciseDateFormatter(axis.xaxis.get_major_locator()))
    figure.savefig(path, dpi=110)
    return path


def _images(data: DataModule, path: Path) -> Path:
    """Draw two images of each class, as far as there is room."""
    spec, labels = data.spec, data.train.y.long()
    of_class = (
        labels.T == 1
        if spec.task == "multilabel"
        else labels.reshape(-1) == torch.arange(len(spec.classes))[:, None]
    )
    rows = [row for own in of_class for row in torch.nonzero(own)[:2, 0].tolist()][:24]
    images = data.train.take(torch.tensor(rows))[0].numpy()
    return _grid(images, [spec.named(labels[row]) for row in rows], path)


def _near(data: DataModule, findings: Findings, path: Path) -> Path:
    assert data.validation is not None
    images, titles = [], []
    for pair in findings.near:
        for split, row in ((data.validation, pair["row"]), (data.train, pair["train row"])):
            images.append(split.take(torch.tensor([row]))[0][0].numpy())
            titles.append(data.spec.named(split.y[row]) if data.spec.classes else str(row))
    return _grid(np.stack(images), titles, path)


def _suspects(data: DataModule, findings: Findings, path: Path) -> Path:
    suspects = findings.suspects[:16]
    images = data.train.take(torch.tensor([row["row"] for row in suspects]))[0].numpy()
    return _grid(images, [f"{row['label']}, like {row['looks like']}" for row in suspects], path)


def _grid(images: np.ndarray, titles: list[str], path: Path, across: int = 8) -> Path:
    from matplotlib.figure import Figure

    down = max(1, -(-len(images) // across))
    figure = Figure(figsize=(9, 1.3 * down), layout="constrained")
    axes: Any = figure.subplots(down, across, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, image, title in zip(axes.flat, images, titles, strict=False):
        if len(image) >= 3:
            axis.imshow(image[:3].transpose(1, 2, 0))
        else:
            axis.imshow(image[0], cmap="gray_r", vmin=0, vmax=255)
        axis.set_title(title[:24], fontsize=8)
    figure.savefig(path, dpi=110)
    return path
