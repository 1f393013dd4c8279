"""What was seen in a data set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.data.tables.columns import Category


@dataclass
class Findings:
    """What was seen in the training and validation data; of the test split nothing but hashes is looked at.

    Args:
        sizes: samples of each split.
        targets: samples of each class, or quantiles of the numbers to predict (training split).
        inputs: a row for each column of numbers, in its own units, or for each statistic of images and texts.
        categories: the columns of words.
        words: in how many training texts the most frequent words occur.
        duplicates: how many samples of a split occur in another one, or twice in the same.
        contradictions: training samples with the same input and different targets.
        suspects: rows of the training split whose label a simple model finds very unlikely.
        warnings: in words.
        notes: what was said while the data was read (columns left out, files skipped).
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
