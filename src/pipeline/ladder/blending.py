"""The last rung of a table's ladder: the models below it, each fitted to several parts of the data, answer together."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import torch

from pipeline.data.tables.table import TableData
from pipeline.evaluation.outputs import Outputs
from pipeline.ladder.bagging import bagged, blended, folds_in
from pipeline.ladder.budget import Budget
from pipeline.ladder.rungs import Climb, Rung
from pipeline.models.blend import as_logits
from pipeline.runs.describing import describe
from pipeline.runs.finished import data_of
from pipeline.runs.hooks import Hooks
from pipeline.runs.keeping import keep
from pipeline.runs.recording import AnyRun, NoRun, git_state, open_run, recorded
from pipeline.runs.result import RunResult

log = logging.getLogger(__name__)


def add_blend(climb: Climb, directory: Path, parent: AnyRun, budget: Budget) -> Rung | None:
    """Add the blend to a ladder's rungs, with its figures on the validation rows.

    Args:
        climb: The rungs so far.
        directory: Directory of the blend's run.
        parent: The ladder's run.
        budget: The time that is left.

    Returns:
        The rung; None where the data cannot be dealt out anew or the time is over.
    """
    started = time.time()
    candidates = _candidates(climb)
    if not candidates or candidates[0].cfg is None:
        return None
    data = data_of(candidates[0].cfg)
    if not isinstance(data, TableData) or not data.can_be_refolded:
        return None
    folds = 0
    while candidates and not (folds := folds_in(budget.left(), [_seconds(rung) for rung in candidates])):
        # The slowest one goes.
        candidates.remove(max(candidates, key=_seconds))
    bags = bagged(candidates, data, folds, budget.left) if candidates else []
    if not bags:
        log.info("No blend: the time does not allow to fit any model to several parts of the data")
        return None
    model, answers, parts = blended(bags, data)
    best = next(bag.rung for bag in bags if bag.rung.name in parts)
    rung = Rung("blend", directory, list(best.overrides), cfg=best.cfg)
    total = sum(parts.values())
    rung.made_of = f"{folds} folds of " + ", ".join(
        f"{name} ({weight / total:.0%})" for name, weight in sorted(parts.items(), key=lambda part: -part[1])
    )
    assert data.validation is not None
    held_out = answers[len(data.train) :]
    outputs = Outputs(model, as_logits(held_out, data.spec), data.validation.y)
    rung.judged = outputs.judged()[1]
    rung.validation = float(rung.judged.mean())
    rung.result = _recorded(rung, climb, data, model, outputs, parent, time.time() - started)
    rung.seconds = time.time() - started
    climb.rungs.append(rung)
    return rung


def _candidates(climb: Climb) -> list[Rung]:
    """One rung for each kind of model, the best on validation data first."""
    fitted = [rung for rung in climb.rungs if rung.result is not None and rung.cfg is not None]
    fitted.sort(key=lambda rung: -rung.validation if climb.higher else rung.validation)
    kinds: dict[str, Rung] = {}
    for rung in fitted:
        assert rung.cfg is not None
        kinds.setdefault(str(rung.cfg.model.get("_target_")), rung)
    return list(kinds.values())


def _seconds(rung: Rung) -> float:
    assert rung.result is not None
    return float(rung.result.seconds["fit"]) + 0.3


def _recorded(
    rung: Rung, climb: Climb, data: TableData, model: Any, outputs: Outputs, parent: AnyRun, seconds: float
) -> RunResult:
    """The blend's own run."""
    assert rung.cfg is not None
    tags = {"rung": rung.name, "blend": rung.made_of, "mlflow.runName": f"{rung.cfg.name}-{rung.name}"}
    hooks = Hooks(directory=rung.directory, parent=None if isinstance(parent, NoRun) else parent, tags=tags)
    rung.directory.mkdir(parents=True, exist_ok=True)
    tracked = open_run(rung.cfg, rung.directory, hooks, tags["mlflow.runName"])
    metrics = {f"val/{name}": value for name, value in outputs.metrics().items()}
    result = RunResult(
        directory=rung.directory,
        run_id=tracked.run_id,
        experiment=str(rung.cfg.name),
        data=describe(data),
        model={
            "class": "Blend",
            "parameters": sum(tensor.numel() for tensor in model.state_dict().values()),
            "members": len(model.members),
        },
        metrics=metrics,
        baseline={},
        seconds={"fit": seconds, "total": seconds},
        samples_per_second=0.0,
        seed=int(rung.cfg.seed),
        git_commit=git_state()[0],
        notes=[rung.made_of],
    )
    with recorded(tracked):
        tracked.log_metrics({f"best/{name}": value for name, value in metrics.items()})
        with torch.inference_mode():
            keep(data, model, result, tracked)
    tracked.finish("FINISHED")
    result.run_id = tracked.run_id
    result.write()
    return result
