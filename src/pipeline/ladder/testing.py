"""The one look at the test split, for every rung of a ladder, when the choice is made."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.evaluation.groups import grouped
from pipeline.evaluation.outputs import Outputs, loader_of, outputs_on, paired_values, test_split
from pipeline.evaluation.statistics import bootstrap_mean
from pipeline.ladder.budget import Budget
from pipeline.ladder.costs import ROWS, bytes_on_disk, milliseconds_for_a_thousand, seconds_at_the_end
from pipeline.ladder.rungs import Climb, Rung, common_sense, simple_one
from pipeline.runs.finished import data_of
from pipeline.runs.recording import AnyRun, NoRun, reopen_run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.data.core.module import DataModule
    from pipeline.data.core.splits import Rows
    from pipeline.models.base import BaseModule

    Values = NDArray[Any]


def answers_of(model: BaseModule, rung: Rung, data: DataModule, split: Rows, metric: str) -> Outputs:
    """What a rung's model answers on a split, to be judged by the metric of its ladder."""
    assert rung.cfg is not None
    return replace(outputs_on(model, loader_of(data, split), rung.cfg), metric=metric)


def load_model(rung: Rung) -> BaseModule:
    """The model that a rung saved."""
    from pipeline.models.saved import load

    return load(rung.directory / "model").module


def read_test(climb: Climb, parent: AnyRun, budget: Budget | None = None) -> Outputs | None:
    """Look at the test split once, for every rung; the choice is made by then.

    Args:
        climb: The ladder.
        parent: Its run.
        budget: The time: where it is short, what goes into service is tested, and of the rest, the simple one first,
            what can be within it.

    Returns:
        The answers of the model that goes into service, None where none does.
    """
    baseline = climb.rungs[0]
    assert baseline.cfg is not None
    data = data_of(baseline.cfg)
    split = test_split(data, f"data={data.name}")
    predictors = {name: of(data.train, split, data.spec) for name, of in data.baselines().items()}
    baseline.metrics = predictors.pop(climb.baseline)
    climb.others = {name: found[climb.metric] for name, found in predictors.items() if climb.metric in found}
    below = common_sense(data, split, climb.metric)
    baseline.test = bootstrap_mean(below)
    simple = simple_one(climb)
    simple_values: Values | None = None
    first: Outputs | None = None
    # A blend goes into service as it is: large ones are asked once.
    asked: dict[Path, tuple[Outputs, float]] = {}
    for rung in [*climb.final, *([simple] if simple else []), *climb.rungs[1:]]:
        if rung.result is None or rung.cfg is None or rung.directory in asked:
            continue
        data = data_of(rung.cfg)
        takes, left = seconds_at_the_end(rung.asking, data), budget.left_for_tests() if budget else math.inf
        if left < takes and rung not in climb.final:
            continue
        model, began = load_model(rung), time.monotonic()
        answers = answers_of(model, rung, data, test_split(data, f"data={data.name}"), climb.metric)
        rows = answers.targets.numel() if data.spec.per_step else len(answers.targets)
        each = (time.monotonic() - began) / rows
        # Where the time is short, the test itself tells how long it takes to answer.
        measured = left >= takes and (not budget or budget.left_for_tests() >= ROWS * each)
        milliseconds = milliseconds_for_a_thousand(model, data) if measured else 1000 * ROWS * each
        asked[rung.directory] = answers, milliseconds
    for rung in [*climb.rungs[1:], *climb.final]:
        if rung.result is None or rung.cfg is None:
            continue
        if rung.directory not in asked:
            rung.showed += "; not tested, since the time was over"
            continue
        data = data_of(rung.cfg)
        split = test_split(data, f"data={data.name}")
        answers, rung.milliseconds = asked[rung.directory]
        values = answers.judged()[1]
        rung.bytes = bytes_on_disk(rung.directory / "model")
        rung.metrics, rung.test = answers.metrics(), bootstrap_mean(values)
        if rung in climb.final:
            # The baseline has had the validation data, too.
            common = common_sense(data, split, climb.metric)
            rung.gain = paired_values(common, values)
            if first is None:
                first, climb.by = answers, grouped(data, split, answers, common)
        else:
            rung.gain, below = paired_values(below, values), values
        if rung is simple:
            simple_values = values
        elif simple_values is not None and len(simple_values) == len(values):
            rung.over_simple = paired_values(simple_values, values)
    # A blend that was chosen is the model that goes into service, in the same directory.
    for rung in {rung.directory: rung for rung in [*climb.rungs, *climb.final]}.values():
        # What was left out has no run.
        if rung.cfg is not None:
            _note_test(rung, parent)
    return first


def _note_test(rung: Rung, parent: AnyRun) -> None:
    """Add a rung's test figures to its own run, which has ended, and to its ``result.json``."""
    if rung.cfg is None:
        # Left out for want of time: there is no run.
        return
    metrics = {f"test/{name}": value for name, value in rung.metrics.items()}
    if rung.result is not None:
        rung.result.metrics |= metrics
        rung.result.write()
    if isinstance(parent, NoRun) or not metrics:
        return
    run = reopen_run(rung.cfg, rung.directory, {"showed": rung.showed} if rung.showed else {})
    run.log_metrics(metrics)
    run.finish("FINISHED")
