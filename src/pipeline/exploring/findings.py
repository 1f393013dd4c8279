"""What was seen in a data set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.data.tables.columns import Category


@dataclass
class Findings:
    """What was seen in the training and validation data; of the test split nothing but hashes is looked at.

    Args:
        sizes: Number of samples of each split.
        targets: Number of samples of each class, or quantiles of the numbers to predict (training split).
        inputs: A row for each column of numbers, in its own units, or for each statistic of images and texts.
        categories: The columns of words.
        words: Number of training texts in which each of the most frequent words occurs.
        duplicates: Number of samples of a split that occur in another one, or twice in the same.
        contradictions: Number of training samples with the same input and different targets.
        suspects: Rows of the training split whose label a simple model finds very unlikely.
        warnings: Warnings, in words.
        notes: Messages of the reading of the data (columns left out, files skipped).
    """

    sizes: dict[str, int] = field(default_factory=dict)
    targets: dict[str, float] = field(default_factory=dict)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    categories: list[Category] = field(default_factory=list)
    words: dict[str, int] = field(default_factory=dict)
    duplicates: dict[str, int] = field(default_factory=dict)
    contradictions: int = 0
    suspects: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
