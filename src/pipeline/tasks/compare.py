"""Compare two finished runs on the same test samples: is the one better, or is it chance?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from omegaconf import DictConfig

from pipeline.errors import UserError
from pipeline.evaluation.outputs import (
    Outputs,
    loader_of,
    outputs_on,
    paired,
    result_directory,
    split_digest,
    test_split,
)
from pipeline.evaluation.statistics import PairedTest, bootstrap_mean, compare_hits
from pipeline.files import write_json
from pipeline.metrics import higher_is_better
from pipeline.runs.finished import FinishedRun, data_for, find_run, load_predictor, open_store


def run(cfg: DictConfig) -> None:
    """The task behind ``task=compare``."""
    print("\n".join(in_words(compare(cfg))))


def compare(cfg: DictConfig) -> dict[str, Any]:
    """Test both runs of ``task.runs`` on their test split and compare them sample by sample.

    Returns:
        What is written as ``comparison.json``: both runs' metrics, the paired test, the effect on each class.

    Raises:
        UserError: There is no such run, or the two were not tested on the same samples.
    """
    runs = [str(name) for name in cfg.task.runs]
    if len(runs) != 2 or runs[0] == runs[1]:
        raise UserError(f"task.runs={runs}: expected two different run ids, like task.runs=[A,B]")
    directory = result_directory(cfg)
    store = open_store(cfg)
    found = [find_run(store, name, cfg) for name in runs]
    tested, digests = [], []
    for one in found:
        predictor = load_predictor(store, one.record.run_id)
        data = data_for(one.cfg, predictor)
        split = test_split(data, one.title)
        digests.append((split_digest(split), data.used))
        tested.append(outputs_on(predictor.module, loader_of(data, split), one.cfg))
    (a_digest, a_data), (b_digest, b_data) = digests
    if a_data != b_data:
        raise UserError(
            f"{found[0].title} was tested on {a_data}, {found[1].title} on {b_data}: nothing to compare"
        )
    result = compared(found, tested)
    result["same_inputs"] = a_digest == b_digest
    write_json(directory / "comparison.json", result)
    return result


def compared(runs: list[FinishedRun], tested: list[Outputs]) -> dict[str, Any]:
    """The paired test of two runs' answers, and the effect on each class."""
    a, b = tested
    test = paired(a, b)
    metric, values = a.judged()
    return {
        "metric": metric,
        "samples": len(values),
        "runs": [
            {"run_id": run.record.run_id, "name": run.record.name, **asdict(bootstrap_mean(one.judged()[1]))}
            for run, one in zip(runs, tested, strict=True)
        ],
        "difference": asdict(test.difference),
        "p_value": test.p_value,
        "method": test.method,
        "only_a": test.only_a,
        "only_b": test.only_b,
        "significant": test.significant(),
        "verdict": verdict(metric, test, "A", "B"),
        "per_class": _per_class(a, b),
    }


def verdict(metric: str, test: PairedTest, a: str, b: str) -> str:
    """The outcome of a paired test in words."""
    difference = test.difference
    measured = (
        f"{metric} {difference.value:+.4f} (95 % interval {difference.low:+.4f} to {difference.high:+.4f}, "
        f"{test.method}: p = {test.p_value:.3g})"
    )
    if not test.significant():
        return f"No significant difference between {a} and {b}: {measured}."
    better = (difference.value > 0) == higher_is_better(metric)
    return f"{b} is significantly {'better' if better else 'worse'} than {a}: {measured}."


def _per_class(a: Outputs, b: Outputs) -> dict[str, dict[str, Any]]:
    """The share of each true class that each of the two got right."""
    if a.spec.task == "regression":
        return {}
    labels, first, second = a.labels(), a.values()[1], b.values()[1]
    rows = {}
    for number, name in enumerate(a.spec.classes):
        of_class = np.flatnonzero(labels == number)
        if len(of_class):
            test = compare_hits(first[of_class], second[of_class])
            rows[name] = {
                "samples": len(of_class),
                "a": float(first[of_class].mean()),
                "b": float(second[of_class].mean()),
                "difference": test.difference.value,
                "p_value": test.p_value,
            }
    return rows


def in_words(result: dict[str, Any]) -> list[str]:
    """What a comparison showed, line by line."""
    lines = [
        f"{letter}: {run['name']} ({run['run_id']}): {result['metric']} {run['value']:.4f} "
        f"({run['low']:.4f} to {run['high']:.4f})"
        for letter, run in zip("AB", result["runs"], strict=True)
    ]
    lines.append(f"samples: {result['samples']:,}, the same for both")
    if result["only_a"] is not None:
        lines.append(f"right in A alone: {result['only_a']}, right in B alone: {result['only_b']}")
    tested = len(result["per_class"])
    for name, row in result["per_class"].items():
        # Of many classes some differ by chance: each is held to its share of one in twenty.
        mark = " (significant)" if row["p_value"] < 0.05 / tested else ""
        lines.append(f"class {name}: A {row['a']:.4f}, B {row['b']:.4f}, {row['difference']:+.4f}{mark}")
    return [*lines, result["verdict"]]
