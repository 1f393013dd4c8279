"""What was seen in a data set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.data.tables.columns import Category


@dataclass
class Findings:
    """What was seen in the training and validation data; of the test split nothing but hashes is looked at,
    and, where its rows are others by time or file, whether its inputs differ.

    Args:
        sizes: Number of samples of each split.
        targets: Number of samples of each class, or quantiles of the numbers to predict (training split).
        inputs: A row for each column of numbers, in its own units, or for each statistic of images and texts.
        categories: The columns of words.
        words: Number of training texts in which each of the most frequent words occurs.
        duplicates: Number of samples of a split that occur in another one, or twice in the same.
        near: Rows of the validation split that nearly are a training image, with the row of that one.
        contradictions: Number of training samples with the same input and different targets.
        suspects: Rows of the training split whose label a simple model finds very unlikely.
        columns: For a table: a row for each column as it is in the file, the one that alone predicts best first.
        baseline: What the scores of single columns are (``metric``), and what predicting without any gives.
        drift: For a table whose test rows are others by time or file: a row for each column.
        drift_auc: How well a classifier tells training from test rows (0.5: not at all).
        orders: For orders: counts by hour, weekday, area and item, gaps, returns, and the busiest customers.
        guesses: What the data left open, each guess with the key that decides otherwise.
        warnings: Warnings, in words.
        notes: Messages of the reading of the data (columns left out, files skipped).
    """

    sizes: dict[str, int] = field(default_factory=dict)
    targets: dict[str, float] = field(default_factory=dict)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    categories: list[Category] = field(default_factory=list)
    words: dict[str, int] = field(default_factory=dict)
    duplicates: dict[str, int] = field(default_factory=dict)
    near: list[dict[str, Any]] = field(default_factory=list)
    contradictions: int = 0
    suspects: list[dict[str, Any]] = field(default_factory=list)
    columns: list[dict[str, Any]] = field(default_factory=list)
    baseline: dict[str, Any] = field(default_factory=dict)
    drift: list[dict[str, Any]] = field(default_factory=list)
    drift_auc: float | None = None
    orders: dict[str, Any] = field(default_factory=dict)
    guesses: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
