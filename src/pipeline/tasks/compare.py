"""Compare runs on the same test samples: is the one better, or is it chance? With a page of their curves."""

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
from pipeline.metrics import four_places, higher_is_better
from pipeline.reports.comparison import PAGE, comparison_page
from pipeline.runs.finished import FinishedRun, data_for, find_run, load_predictor, open_store
from pipeline.runs.listing import Row, row_of, with_settings
from pipeline.tasks.runs import cells
from pipeline.tracking.queries import Store


def run(cfg: DictConfig) -> None:
    """The task behind ``task=compare``."""
    result = compare(cfg)
    print("\n".join(in_words(result)))
    print(f"page: {result_directory(cfg) / PAGE}")


def compare(cfg: DictConfig) -> dict[str, Any]:
    """Put the runs of ``task.runs`` side by side: their figures, their settings, their curves, and paired tests.

    Two runs have to be finished ones that were tested on the same samples. Of several, each is tested against the
    first one where that can be done, and the reason stands there where it cannot.

    Returns:
        What is written as ``comparison.json``. Of two runs both runs' metrics, the paired test and the effect on each
        class; of several that of each against the first, as ``against_first``. And ``table``, a row a run.

    Raises:
        UserError: There is no such run, or two were not tested on the same samples.
    """
    names = [str(name) for name in cfg.task.runs]
    if len(names) < 2 or len(set(names)) != len(names):
        raise UserError(f"task.runs={names}: expected two different run ids or more, like task.runs=[A,B]")
    directory = result_directory(cfg)
    store = open_store(cfg)
    if len(names) == 2:
        result = _paired(store, names, cfg)
    else:
        # Of many tests some come out by chance: each is held to its share of one in twenty.
        level = 0.05 / (len(names) - 1)
        result = {
            "level": level,
            "against_first": [_tried(store, [names[0], name], cfg, level) for name in names[1:]],
        }
    rows = with_settings([row_of(store.run(name)) for name in names])
    result["table"] = [row.as_dict() for row in rows]
    write_json(directory / "comparison.json", result)
    columns, lines = cells(rows, rows[0].objective)
    comparison_page(columns, lines, _curves(store, rows), in_words(result), directory)
    return result


def _tried(store: Store, names: list[str], cfg: DictConfig, level: float) -> dict[str, Any]:
    try:
        return _paired(store, names, cfg, level)
    except UserError as error:
        return {"runs": [{"run_id": name} for name in names], "untested": str(error)}


def _paired(store: Store, names: list[str], cfg: DictConfig, level: float | None = None) -> dict[str, Any]:
    found = [find_run(store, name, cfg) for name in names]
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
    a, b = (one.record.name for one in found)
    result = compared(found, tested) if level is None else compared(found, tested, (a, b), level)
    result["same_inputs"] = a_digest == b_digest
    return result


def _curves(store: Store, rows: list[Row]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """The curves of the objective and the losses, by metric and run."""
    wanted = dict.fromkeys(filter(None, (rows[0].objective, "val/loss", "train/loss")))
    found = {row.name: store.curves(row.run_id, list(wanted)) for row in rows}
    return {metric: {name: own[metric] for name, own in found.items() if metric in own} for metric in wanted}


def compared(
    runs: list[FinishedRun], tested: list[Outputs], called: tuple[str, str] = ("A", "B"), level: float = 0.05
) -> dict[str, Any]:
    """The paired test of two runs' answers, and the effect on each class.

    Args:
        runs: The runs.
        tested: Outputs of each on the test samples.
        called: What the verdict calls them.
        level: Largest probability of chance at which a difference is significant.
    """
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
        "significant": test.significant(level),
        "verdict": verdict(metric, test, *called, level),
        "per_class": _per_class(a, b),
    }


def verdict(metric: str, test: PairedTest, a: str, b: str, level: float = 0.05) -> str:
    """The outcome of a paired test in words."""
    difference = test.difference
    value, low, high = (four_places(it, "+") for it in (difference.value, difference.low, difference.high))
    measured = f"{metric} {value} (95 % interval {low} to {high}, {test.method}: p = {test.p_value:.3g}"
    # One of several comparisons has to be surer than its own interval says.
    measured += ")" if level == 0.05 else f", of several comparisons significant below {level:.2g})"
    if not test.significant(level):
        return f"No significant difference between {a} and {b}: {measured}."
    better = (difference.value > 0) == higher_is_better(metric)
    return f"{b} is significantly {'better' if better else 'worse'} than {a}: {measured}."


def _per_class(a: Outputs, b: Outputs) -> dict[str, dict[str, Any]]:
    """The share of each true class that each of the two got right; of several labels, of the samples with each."""
    if a.spec.task == "regression":
        return {}
    labels, first, second = a.labels(), a.values()[1], b.values()[1]
    several = a.spec.task == "multilabel"
    if several:
        first, second = a.decided() == labels, b.decided() == labels
    rows = {}
    for number, name in enumerate(a.spec.classes):
        of_class = np.flatnonzero(labels[:, number] if several else labels == number)
        if len(of_class):
            place = (of_class, number) if several else of_class
            test = compare_hits(first[place], second[place])
            rows[name] = {
                "samples": len(of_class),
                "a": float(first[place].mean()),
                "b": float(second[place].mean()),
                "difference": test.difference.value,
                "p_value": test.p_value,
            }
    return rows


def in_words(result: dict[str, Any]) -> list[str]:
    """What a comparison showed, line by line."""
    if "against_first" in result:
        return [line for one in result["against_first"] for line in _against_first(one)]
    lines = [
        f"{letter}: {run['name']} ({run['run_id']}): {result['metric']} {four_places(run['value'])} "
        f"({four_places(run['low'])} to {four_places(run['high'])})"
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


def _against_first(one: dict[str, Any]) -> list[str]:
    if "untested" not in one:
        return [one["verdict"]]
    first, other = (run["run_id"] for run in one["runs"])
    return [f"{other} is not tested against {first}: {one['untested']}"]
