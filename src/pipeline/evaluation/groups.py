"""A model's figures group by group, and what it cannot get right since it does not know it."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.evaluation.statistics import bootstrap_mean, bootstrap_mean_of_few
from pipeline.metrics import four_digits, four_places

if TYPE_CHECKING:
    from pipeline.data.core.module import DataModule
    from pipeline.data.core.splits import Rows
    from pipeline.evaluation.outputs import Outputs

MOST = 50
"""Largest number of groups: the ones with most samples."""
_SHOWN = 20
"""Classes that are named line by line."""


def grouped(
    data: DataModule, split: Rows, outputs: Outputs, common: np.ndarray | None = None
) -> dict[str, Any]:
    """The metric that single samples are judged by in each group that the data knows of.

    Args:
        data: The data, which says what its groups are (:meth:`~pipeline.data.core.module.DataModule.groups`).
        split: The samples.
        outputs: What the model gives for them.
        common: What common sense scores on each sample; its mean stands in each row as ``baseline``.

    Returns:
        ``name`` of what groups them, ``metric``, and ``groups``: a row for each with its samples, value and 95 %
        interval (of customers, where samples are of some), those with most samples first; empty without groups.
    """
    found = data.groups(split)
    metric, values = outputs.judged()
    if found is None or len(found[1]) != len(values):
        return {}
    name, groups = found
    whose = data.whose(split)
    names, counts = np.unique(groups.astype(str), return_counts=True)
    rows = []
    for place in np.argsort(-counts, kind="stable")[:MOST]:
        own = groups == names[place]
        some = values[own]
        interval = asdict(bootstrap_mean(some) if whose is None else bootstrap_mean_of_few(some, whose[own]))
        del interval["confidence"]
        baseline = {} if common is None else {"baseline": float(common[own].mean())}
        rows.append({"group": str(names[place]), "samples": int(counts[place]), **interval, **baseline})
    return {"name": name, "metric": metric, "groups": rows}


def beside(
    unknown: Mapping[str, int], value: float, known: int, target: str, cut: Container[str] = ()
) -> dict[str, Any]:
    """What classes that a model does not know cost it, since it can never name them.

    Args:
        unknown: How often each was the true one.
        value: The judged metric on all others, where more is better and a miss counts 0.
        known: Number of those others.
        target: Name of what is predicted.
        cut: Those that were there in training and were left out as too rare.
    """
    count = sum(unknown.values())
    return {
        "target": target,
        "samples": count,
        "share": count / (count + known),
        "cut": sum(number for name, number in unknown.items() if name in cut),
        "classes": dict(sorted(unknown.items(), key=lambda item: -item[1])[:MOST]),
        "value_with_them": value * known / (count + known),
    }


def called(name: str, group: str) -> str:
    """A group by what groups them and its own name, which may say both."""
    return group if group.startswith(name) else f"{name} {group}"


def classes_in_words(rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A line for each class, without what is undefined for it: the precision where it is never predicted."""
    lines = []
    for name, row in list(rows.items())[:_SHOWN]:
        figures = [
            f"{key.replace('_', ' ')} {four_digits(value)}"
            for key, value in row.items()
            if not math.isnan(value)
        ]
        lines.append(f"class {name}: {', '.join(figures)}")
    if len(rows) > _SHOWN:
        lines.append(f"and {len(rows) - _SHOWN} more classes, all in evaluation.json")
    return lines


def in_words(result: Mapping[str, Any]) -> list[str]:
    """The lines of an evaluation about groups and about what the model does not know."""
    lines = []
    if by := result.get("by"):
        lines += [
            f"{called(by['name'], row['group'])}: {by['metric']} {four_places(row['value'])} "
            f"({four_places(row['low'])} to {four_places(row['high'])}), {row['samples']:,} samples"
            for row in by["groups"]
        ]
    if strange := result.get("unknown"):
        named = ", ".join(f"{name} ({count:,})" for name, count in list(strange["classes"].items())[:8])
        rare = (
            f"; {strange['cut']:,} of them training had, beyond data.max_items" if strange.get("cut") else ""
        )
        lines.append(
            f"{strange['share']:.1%} are of a {strange['target']} that the model does not know: {named}{rare}; "
            f"counted as misses, {result['interval']['metric']} is {four_places(strange['value_with_them'])}"
        )
    return lines
