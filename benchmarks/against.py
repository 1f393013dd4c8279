"""A ladder within a budget against another tool with the same time, cores, metric and split, table by table.

``python -m benchmarks.tables --against autogluon --python PYTHON --budget 60s [--only TABLE …]``; PYTHON has
``autogluon.tabular[lightgbm,catboost]`` in an environment of its own.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import tables

_RESAMPLES = 9999
_OVER = 1.05
"""A budget is kept by a command that takes so many times it at most."""
RIVALS = ("sklearn-linear", "sklearn-boosting", "sklearn-forest")

Row = dict[str, Any]


def seconds_of(budget: str) -> float:
    """``60s``, ``3m`` or ``90`` in seconds."""
    units = {"s": 1, "m": 60, "h": 3600}
    return float(budget[:-1]) * units[budget[-1]] if budget[-1:] in units else float(budget)


def by_autogluon(table: str, seconds: float, python: str) -> Row:
    """AutoGluon's figures on a table."""
    kind = "number" if table in tables.NUMBERS else "class"
    script = Path(__file__).with_name("autogluon_side.py")
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "out.json"
        words = [
            python,
            str(script),
            str(tables.directory() / table),
            tables.TARGETS[table],
            f"{seconds:g}",
            kind,
        ]
        done = subprocess.run(
            [*words, str(len(os.sched_getaffinity(0))), f"{place}/models", str(out)],
            capture_output=True,
            text=True,
            # What this package is found by is not the other's affair.
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
        found = json.loads(out.read_text())
    return _row(table, found["losses"], found["accuracy"])


def losses_of(table: str, run: Path) -> Row:
    """What each test row adds to the metric, by the model that a ladder put into service.

    Args:
        table: Name of the table.
        run: Directory of the ladder's run.
    """
    import pandas as pd

    from pipeline.models.saved import load

    target = tables.TARGETS[table]
    train, test = (pd.read_csv(tables.directory() / table / f"{part}.csv") for part in ("train", "test"))
    result = json.loads((run / "result.json").read_text())
    names = [entry["rung"] for entry in result["nested"]]
    last = {"final": "blend", "final-seed-0": "final-seed-0"}.get(
        next((name for name in names if name.startswith("final")), ""), ""
    )
    said = load(run / last / "model").predict(test.drop(columns=target)) if last else None
    if table in tables.NUMBERS:
        answers = train[target].mean() if said is None else said["prediction"].to_numpy()
        return _row(table, np.abs(answers - test[target].to_numpy()).tolist(), None)
    classes = test[target].astype(str)
    if said is None:
        # No model was better than the shares of the classes.
        shares = train[target].astype(str).value_counts(normalize=True)
        p, right = classes.map(shares).fillna(0).to_numpy(), float((classes == shares.idxmax()).mean())
    else:
        p = np.array([said[f"p_{name}"].iloc[place] for place, name in enumerate(classes)])
        right = float((said["label"].astype(str).to_numpy() == classes.to_numpy()).mean())
    return _row(table, (-np.log(np.clip(p, 1e-15, 1.0))).tolist(), right)


def _row(table: str, losses: Sequence[float], right: float | None) -> Row:
    key = "mae" if table in tables.NUMBERS else "log_loss"
    accuracy = {} if right is None else {"accuracy": right}
    return {key: statistics.fmean(losses), **accuracy, "losses": [round(loss, 7) for loss in losses]}


def interval_of_ratio(ours: Sequence[float], theirs: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the ratio of two mean losses on the same rows: both are drawn together."""
    draw, pairs = np.random.default_rng(seed), np.stack([ours, theirs])
    ratios = []
    for _ in range(_RESAMPLES):
        means = pairs[:, draw.integers(0, pairs.shape[1], pairs.shape[1])].mean(1)
        ratios.append(means[0] / max(means[1], 1e-12))
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)


def report(rows: Sequence[Row], names: Sequence[str], seconds: float) -> str:
    """Each table's figures, ratio with its interval and time, and what they come to together.

    Args:
        rows: All that was measured.
        names: The tables.
        seconds: The budget.
    """
    lines = [
        f"| table | ours | AutoGluon | ratio (95 % interval) | | our command, of {seconds:g} s |",
        "|---|---|---|---|---|---|",
    ]
    ratios, ranks, times, not_worse = [], [], [], 0
    for table in names:
        key = "mae" if table in tables.NUMBERS else "log_loss"
        mine, theirs = (
            [row for row in rows if row["table"] == table and row["what"] == f"{what}-{seconds:g}"]
            for what in ("improve", "autogluon")
        )
        if not mine or not theirs:
            continue
        own, other = (statistics.median(row[key] for row in some) for some in (mine, theirs))
        low, high = interval_of_ratio(
            *(np.mean([row["losses"] for row in some], 0) for some in (mine, theirs))
        )
        ratios.append(own / other)
        not_worse += low <= 1
        took = [row["seconds"] for row in mine]
        times += took
        said = "better" if high < 1 else "worse" if low > 1 else "cannot be told apart"
        kept = f"{max(took):.0f} s{'' if max(took) <= _OVER * seconds else ', **not kept**'}"
        lines.append(
            f"| {table} | {own:.4g} | {other:.4g} | {own / other:.3f} ({low:.3f} to {high:.3f}) | {said} | {kept} |"
        )
        if simple := _simple(rows, table, key):
            ranks.append(1 + sum(figure < own for figure in simple.values()))
    if ratios:
        kept = sum(took <= _OVER * seconds for took in times)
        lines += [
            "",
            f"geometric mean of the ratios: {math.exp(statistics.fmean(map(math.log, ratios))):.3f}",
            f"not significantly worse: {not_worse} of {len(ratios)} tables",
            f"budget kept (at most {_OVER:g} times it): {kept} of {len(times)} commands, the longest "
            f"{max(times):.1f} s",
        ]
    if ranks:
        lines.append(f"mean rank among linear, boosting, forest and ours: {statistics.fmean(ranks):.2f}")
    return "\n".join(lines)


def _simple(rows: Sequence[Row], table: str, key: str) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for what in RIVALS:
        some = [row[key] for row in rows if (row["table"], row["what"]) == (table, what)]
        if some:
            found[what] = statistics.median(some)
    return found
