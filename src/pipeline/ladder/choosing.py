"""Which rung goes into service: the best one on validation data, or the simplest that cannot be told apart from it."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.evaluation.outputs import paired_values
from pipeline.ladder.rungs import Climb, Rung, chance
from pipeline.metrics import four_places


def choose(climb: Climb, prefer: str, level: float) -> None:
    """Note the best rung and the simplest within noise of it, and choose the one that is preferred.

    Of rungs that the validation samples do not tell apart the best is the one that folds of all rows say is it.
    A rung is within noise of the best if the paired test on the validation samples does not tell it apart at level
    0.05, and if it beats the baseline there as surely as the best one has to. Of those the simplest is the one with
    the fewest parameters (of trees: values in leaves), of equals the first.

    Args:
        climb: The ladder, with the best rung as the chosen one.
        prefer: ``best`` or ``simple``.
        level: Level of significance that a model has to reach against the baseline.
    """
    if climb.chosen.result is None:
        return
    climb.best = climb.chosen
    close = [rung for rung in climb.rungs if _within_noise(climb, rung, level)]
    climb.best = climb.chosen = _best_by_folds(close, climb)
    close = [rung for rung in climb.rungs if _within_noise(climb, rung, level)]
    climb.simplest = min(close, key=lambda rung: rung.parameters)
    if prefer == "simple":
        climb.chosen = climb.simplest


def _best_by_folds(close: Sequence[Rung], climb: Climb) -> Rung:
    """The best by all rows that are not of the test, of the rungs that the validation rows do not tell apart.

    Few rows, or rows that nearly every model is right about, say little: of the rungs within noise of the chosen one,
    that one is the best whose models, fitted once without each fold, are judged best on the rows that they have not
    seen. Where the chosen rung has no such models, it stays.

    Args:
        close: The rungs within noise of the chosen one, itself among them.
        climb: The ladder.
    """
    chosen = climb.chosen
    same = [rung for rung in close if len(rung.folds) and len(rung.folds) == len(chosen.folds)]
    if not same:
        return chosen
    best = max if climb.higher else min
    found = best([chosen, *same], key=lambda rung: float(rung.folds.mean()))
    if found is not chosen:
        test = paired_values(chosen.folds, found.folds)
        found.showed += (
            f"; chosen, as validation rows do not tell it from {chosen.name}: over all rows, each by models that have "
            f"not seen it, {climb.metric} {four_places(found.folds.mean())} against "
            f"{four_places(chosen.folds.mean())} ({chance(test)})"
        )
    return found


def _within_noise(climb: Climb, rung: Rung, level: float) -> bool:
    if rung is climb.best:
        return True
    assert climb.best is not None
    if rung.result is None or len(rung.judged) != len(climb.best.judged):
        return False
    over = paired_values(climb.rungs[0].judged, rung.judged)
    if climb.gain(over) <= 0 or not over.significant(level):
        return False
    behind = paired_values(rung.judged, climb.best.judged)
    return climb.gain(behind) <= 0 or not behind.significant()
