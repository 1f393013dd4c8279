"""The last rung of a table's ladder: the models below it, each fitted to several parts of the data, answer together."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pipeline.data.tables.refolding import Refoldable
from pipeline.evaluation.outputs import Outputs, paired_values
from pipeline.ladder.bagging import (
    ENOUGH_FOLDS,
    FOLDS,
    Bag,
    bagged,
    bagged_again,
    blended,
    fitted_once,
    folds_in,
    mean_of,
    rows_of,
    seconds_of_folds,
    weights_of,
)
from pipeline.ladder.budget import Budget
from pipeline.ladder.costs import seconds_at_the_end
from pipeline.ladder.rungs import Climb, Rung, chance, common_sense, compared, standing
from pipeline.ladder.stacking import second_level, seconds_of_second_level
from pipeline.ladder.testing import load_model
from pipeline.metrics import four_places
from pipeline.models.base import BaseModule
from pipeline.models.blend import Blend, as_logits
from pipeline.models.stack import Stack
from pipeline.runs.describing import describe
from pipeline.runs.finished import data_of
from pipeline.runs.hooks import Hooks
from pipeline.runs.keeping import keep
from pipeline.runs.recording import AnyRun, NoRun, git_state, open_run, recorded
from pipeline.runs.result import RunResult
from pipeline.training.sureness import settle, wanted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[Any]

log = logging.getLogger(__name__)

_LEAST_ROWS = 200
"""Validation rows by which weights may be chosen where a model was fitted once."""
_OF_SECOND = 0.25
"""Share of the time that is kept for a second level at most."""
_ROUNDS = 3
"""Times at most that rows are dealt out to folds."""


def add_blend(
    climb: Climb,
    directory: Path,
    parent: AnyRun,
    budget: Budget,
    variants: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Add the blend to a ladder's rungs, and choose it where it is better than the best of its parts alone.

    Both are compared on every row that is not of the test, by models that have not seen it. Where the data cannot be
    dealt out anew, or the time is over, there is none.

    Args:
        climb: The rungs so far.
        directory: Directory of the blend's run.
        parent: The ladder's run.
        budget: The time that is left.
        variants: Other settings by name: ``{rung: NAME, overrides: [...]}``.
    """
    started = time.time()
    candidates = _candidates(climb)
    if not candidates or candidates[0].cfg is None:
        return
    data = data_of(candidates[0].cfg)
    if not isinstance(data, Refoldable) or not data.can_be_refolded:
        return
    # What the second level gains is worth more than other folds, or a longer training, of the first.
    above = (
        min(seconds_of_second_level(candidates, data), _OF_SECOND * budget.left()) if budget.limited else 0.0
    )
    candidates, once = _folded(candidates, budget, above)
    folds = folds_in(budget.left() - above, partial(_seconds, candidates, least=True)) if candidates else 0
    more = [pair for pair in _variants(candidates, variants or {}) if pair[0] in candidates]
    bags = bagged(candidates, more, data, folds, lambda: budget.left() - above) if candidates else []
    for bag in bags:
        bag.rung.folds = _judged(bag.models[0], bag.answers, data, climb.metric)
    if bags and len(data.validation or ()) >= _LEAST_ROWS:
        single = [fitted_once(rung, data, load_model(rung)) for rung in once]
        # Where validation rows cannot tell what it gains, all rows may, without what was fitted once.
        bags += single if _gains([*bags, *single], data, climb) else []
    if not bags:
        log.info("No blend: the time does not allow to fit any model to several parts of the data")
        return
    budget.keep_back(seconds_at_the_end(_asking(bags), data))
    second = second_level(bags, data, folds, budget.left)
    budget.keep_back(seconds_at_the_end(_asking(second), data))
    if budget.limited:
        _use_the_rest(bags, data, folds, budget)
    found = blended(bags, data, budget.left, second)
    best, total = found.best.rung, sum(found.parts.values())
    rung = Rung("blend", directory, list(best.overrides), cfg=best.cfg)
    rung.made_of = ", ".join(
        f"{weight / total:.0%} {name}"
        for name, weight in sorted(found.parts.items(), key=lambda part: -part[1])
    )
    alone, together = (
        Outputs(found.model, as_logits(answers, data.spec), data.pooled_targets[found.rows], climb.metric)
        for answers in (found.best.answers[found.rows], found.answers)
    )
    assert data.validation is not None and best.cfg is not None
    # Each row's answer is of models that have not seen it: all of them tell how sure the blend is.
    sure = settle(
        found.model, together.logits, together.targets, wanted(data, str(best.cfg.objective.metric))
    )
    found.model.settle(sure.settled)
    held_out = together.subset(torch.arange(len(together.targets))[-len(data.validation) :])
    rung.judged = held_out.judged()[1]
    rung.validation = float(rung.judged.mean())
    test = paired_values(alone.judged()[1], together.judged()[1])
    figures = (
        f"{climb.metric} {four_places(together.judged()[1].mean())} against "
        f"{four_places(alone.judged()[1].mean())} for {best.name} alone, "
        f"over {'all' if found.rows.start == 0 else 'the validation'} rows, each by models that have not seen it "
        f"({folds} folds, {chance(test)})"
    )
    several = len(found.parts) > 1
    better = several and climb.gain(test) > 0
    if climb.chosen.result is None:
        # No rung has beaten the baseline: the blend has to, by itself, on all the rows that there are answers for.
        rows = data.pooled().train.subset(torch.arange(len(data.pooled_targets))[found.rows])
        over = paired_values(common_sense(data, rows, climb.metric), together.judged()[1])
        better = climb.gain(over) > 0 and over.p_value < 0.05 / climb.tried
        figures += f"; against the baseline on the same rows {chance(over)}"
    said = f"{standing(climb, test)} its best part alone" if several else "no other part adds to it"
    rung.showed = f"{rung.made_of}: {said} ({figures})"
    better = better and holds_its_own(climb, rung, [bag.rung for bag in bags])
    rung.asking = _asking([*bags, *second])
    rung.result = _recorded(rung, data, found.model, held_out, parent, time.time() - started, sure.notes)
    rung.seconds = time.time() - started
    climb.rungs.append(rung)
    if better:
        climb.chosen = rung
    log.info("blend: %s", rung.showed)


def holds_its_own(climb: Climb, blend: Rung, parts: Sequence[Rung]) -> bool:
    """Whether a blend may be chosen instead of the rung that leads, and note why.

    A blend that is better than the best of its parts need not be better than a rung that is none of them, as one that
    took too long to be fitted to folds: on validation rows it must not be worse than that.

    Args:
        climb: The rungs below.
        blend: The blend, judged on the validation rows by models that have not seen them.
        parts: The rungs that it may be made of.
    """
    leads = climb.chosen
    if leads.result is None or leads in parts:
        return True
    test = paired_values(leads.judged, blend.judged)
    said, why = standing(climb, test), compared(climb, leads, blend, test)
    blend.showed += f"; on validation rows {said} {leads.name}, which is none of its parts ({why})"
    return said != "worse than"


def _judged(
    model: BaseModule, answers: torch.Tensor, data: Refoldable, metric: str, rows: slice = slice(0, None)
) -> Values:
    return Outputs(model, as_logits(answers[rows], data.spec), data.pooled_targets[rows], metric).judged()[1]


def _gains(bags: Sequence[Bag], data: Refoldable, climb: Climb) -> bool:
    """Whether the mean of some bags' answers is judged better than each of them alone, on the rows that all have."""
    rows, model = rows_of(bags, data), bags[0].models[0]
    alone = [float(_judged(model, bag.answers, data, climb.metric, rows).mean()) for bag in bags]
    together = mean_of(bags, weights_of(bags, data), slice(0, None))
    gained = float(_judged(model, together, data, climb.metric, rows).mean())
    return gained > max(alone) if climb.higher else gained < min(alone)


def _asking(bags: Sequence[Bag]) -> float:
    """Seconds that all models of some bags take to answer for a row."""
    return sum(bag.asking * len(bag.models) for bag in bags)


def _folded(candidates: Sequence[Rung], budget: Budget, above: float = 0.0) -> tuple[list[Rung], list[Rung]]:
    """The rungs whose models the time allows to be fitted to folds, the best first, and those that stay as they are.

    Args:
        candidates: The rungs, the best first.
        budget: The time that is left.
        above: Seconds of it that belong to a second level.
    """
    some: list[Rung] = []
    once: list[Rung] = []
    for rung in candidates:
        folds = folds_in(budget.left() - above, partial(_seconds, [*some, rung], least=True))
        # One kind more is worth less than the rows that a fit lacks where there are few folds.
        (some if folds >= (ENOUGH_FOLDS if some else 1) else once).append(rung)
    return some, once


def _seconds(rungs: Sequence[Rung], folds: int, least: bool = False) -> float:
    return sum(seconds_of_folds(rung, folds, least) for rung in rungs)


def _variants(
    candidates: Sequence[Rung], variants: Mapping[str, Mapping[str, Any]]
) -> list[tuple[Rung, Rung]]:
    """Each rung with what would be one by other settings of its model."""
    from pipeline.config.loading import compose, user_directory

    found = []
    for name, variant in variants.items():
        rung = next((rung for rung in candidates if rung.name == variant["rung"]), None)
        if rung is not None:
            words = [*rung.overrides, *variant["overrides"]]
            cfg = compose(words, config_dir=user_directory())
            found.append((rung, replace(rung, name=name, overrides=words, cfg=cfg)))
    return found


def _use_the_rest(bags: Sequence[Bag], data: Refoldable, folds: int, budget: Budget) -> None:
    """Fit what is in the blend to other folds as well, while there is time: the mean of more models is steadier."""
    chosen = [bag for bag, weight in zip(bags, weights_of(bags, data), strict=True) if weight and bag.folded]
    for again in range(1, _ROUNDS):
        for bag in chosen:
            if bagged_again(bag, data, folds, budget.left, data.seed + again):
                budget.keep_back(seconds_at_the_end(bag.asking * folds, data))
                log.info("%s: fitted to %d other folds", bag.rung.name, folds)


def seconds_of_blend(climb: Climb) -> float:
    """What a blend of the rungs is expected to take."""
    return _seconds(_candidates(climb), FOLDS[0])


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
    data: Refoldable,
    model: Blend | Stack,
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
            "class": type(model).__name__,
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
