"""Runs side by side on one page: a table, what a test says of them, and their curves over each other."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.reports.curves import comparison_curves
from pipeline.reports.html import Page

Curve = list[tuple[int, float]]

PAGE = "comparison.html"


def comparison_page(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    curves: Mapping[str, Mapping[str, Curve]],
    words: Sequence[str],
    directory: Path,
) -> Path:
    """Write the page, ``comparison.html``, which needs nothing beside it.

    Args:
        columns: Names of the table's columns.
        rows: A row a run.
        curves: By metric and run, the (epoch, value) pairs.
        words: What was found, a sentence each.
        directory: Directory that it is written to.
    """
    page = Page("Runs compared")
    page.table(columns, rows)
    for sentence in words:
        page.text(sentence)
    with tempfile.TemporaryDirectory() as folder:
        for number, (metric, drawn) in enumerate(curves.items()):
            if drawn:
                page.heading(metric)
                page.image(
                    comparison_curves(drawn, metric, Path(folder) / f"{number}.png"), f"{metric} by epoch"
                )
    return page.write(directory / PAGE)
