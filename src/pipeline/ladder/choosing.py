"""Which rung goes into service: the best one on validation data, or the simplest that cannot be told apart from it."""

from __future__ import annotations

from pipeline.evaluation.outputs import paired_values
from pipeline.ladder.rungs import Climb, Rung


def choose(climb: Climb, prefer: str, level: float) -> None:
    """Note the best rung and the simplest within noise of it, and choose the one that is preferred.

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
    climb.simplest = min(close, key=lambda rung: rung.parameters)
    if prefer == "simple":
        climb.chosen = climb.simplest


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
