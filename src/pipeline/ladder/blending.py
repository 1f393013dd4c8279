"""The last rung of a table's ladder: the models below it, each fitted to several parts of the data, answer together."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import torch

from pipeline.data.tables.table import TableData
from pipeline.evaluation.outputs import Outputs, paired_values
from pipeline.ladder.bagging import bagged, blended, folds_in, least_seconds_of_fit, seconds_of_fit
from pipeline.ladder.budget import Budget
from pipeline.ladder.rungs import Climb, Rung, chance, standing
from pipeline.models.blend import Blend, as_logits
from pipeline.runs.describing import describe
from pipeline.runs.finished import data_of
from pipeline.runs.hooks import Hooks
from pipeline.runs.keeping import keep
from pipeline.runs.recording import AnyRun, NoRun, git_state, open_run, recorded
from pipeline.runs.result import RunResult
from pipeline.training.sureness import settle, wanted

log = logging.getLogger(__name__)


def add_blend(climb: Climb, directory: Path, parent: AnyRun, budget: Budget) -> None:
    """Add the blend to a ladder's rungs, and choose it where it is better than the best of its parts alone.

    Both are compared on every row that is not of the test, by models that have not seen it. Where the data cannot be
    dealt out anew, or the time is over, there is none.

    Args:
        climb: The rungs so far.
        directory: Directory of the blend's run.
        parent: The ladder's run.
        budget: The time that is left.
    """
    started = time.time()
    candidates = _candidates(climb)
    if not candidates or candidates[0].cfg is None:
        return
    data = data_of(candidates[0].cfg)
    if not isinstance(data, TableData) or not data.can_be_refolded:
        return
    folds = 0
    while candidates and not (
        folds := folds_in(budget.left(), [least_seconds_of_fit(rung) for rung in candidates])
    ):
        # The slowest one goes.
        candidates.remove(max(candidates, key=least_seconds_of_fit))
    bags = bagged(candidates, data, folds, budget.left) if candidates else []
    if not bags:
        log.info("No blend: the time does not allow to fit any model to several parts of the data")
        return
    found = blended(bags, data, budget.left)
    best, total = found.best.rung, sum(found.parts.values())
    rung = Rung("blend", directory, list(best.overrides), cfg=best.cfg)
    rung.made_of = ", ".join(
        f"{weight / total:.0%} {name}"
        for name, weight in sorted(found.parts.items(), key=lambda part: -part[1])
    )
    alone, together = (
        Outputs(found.model, as_logits(answers, data.spec), data.pooled_targets)
        for answers in (found.best.answers, found.answers)
    )
    assert data.validation is not None and best.cfg is not None
    # Each row's answer is of models that have not seen it: all of them tell how sure the blend is.
    sure = settle(
        found.model, together.logits, together.targets, wanted(data, str(best.cfg.objective.metric))
    )
    found.model.settle(sure.settled)
    held_out = together.subset(torch.arange(len(data.train), len(data.pooled_targets)))
    rung.judged = held_out.judged()[1]
    rung.validation = float(rung.judged.mean())
    test = paired_values(alone.judged()[1], together.judged()[1])
    figures = (
        f"{climb.metric} {together.judged()[1].mean():.4f} against {alone.judged()[1].mean():.4f} for {best.name} "
        f"alone, over all rows, each by models that have not seen it ({folds} folds, {chance(test)})"
    )
    better = len(found.parts) > 1 and climb.gain(test) > 0
    if climb.chosen.result is None:
        # No rung has beaten the baseline: the blend has to, by itself.
        over = paired_values(climb.chosen.judged, rung.judged)
        better = climb.gain(over) > 0 and over.p_value < 0.05 / climb.tried
        figures += f"; against the baseline on validation data {chance(over)}"
    rung.showed = f"{rung.made_of}: {standing(climb, test)} its best part alone ({figures})"
    rung.result = _recorded(rung, data, found.model, held_out, parent, time.time() - started, sure.notes)
    rung.seconds = time.time() - started
    climb.rungs.append(rung)
    if better:
        climb.chosen = rung
    log.info("blend: %s", rung.showed)


def seconds_of_blend(climb: Climb) -> list[float]:
    """What a fit of each model of a blend takes, as far as is known."""
    return [seconds_of_fit(rung) for rung in _candidates(climb)]


def _candidates(climb: Climb) -> list[Rung]:
    """One rung for each kind of model, the best on validation data first."""
    fitted = [rung for rung in climb.rungs if rung.result is not None and rung.cfg is not None]
    fitted.sort(key=lambda rung: -rung.validation if climb.higher else rung.validation)
    kinds: dict[str, Rung] = {}
    for rung in fitted:
        assert rung.cfg is not None
        kinds.setdefault(str(rung.cfg.model.get("_target_")), rung)
    return list(kinds.values())


def _recorded(
    rung: Rung,
    data: TableData,
    model: Blend,
    outputs: Outputs,
    parent: AnyRun,
    seconds: float,
    notes: list[str],
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
            **({"sureness": sureness} if (sureness := model.settled.to_dict()) else {}),
        },
        metrics=metrics,
        baseline={},
        seconds={"fit": seconds, "total": seconds},
        samples_per_second=0.0,
        seed=int(rung.cfg.seed),
        git_commit=git_state()[0],
        notes=[rung.made_of, *notes],
    )
    with recorded(tracked):
        tracked.log_metrics({f"best/{name}": value for name, value in metrics.items()})
        with torch.inference_mode():
            keep(data, model, result, tracked)
    tracked.finish("FINISHED")
    result.run_id = tracked.run_id
    result.write()
    return result
