"""The steps of a ladder, and what each of them showed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig

from pipeline.evaluation.outputs import paired_values
from pipeline.evaluation.statistics import Interval, PairedTest
from pipeline.metrics import difference_in_words, higher_is_better
from pipeline.runs.result import RunResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[Any]

# A model overfits if it makes so many times fewer mistakes on what it has learnt than on what it has not, and if that
# is more than a few samples.
_RATIO_OF_WRONG, _GAP_OF_WRONG = 2.0, 0.005
_RATIO_OF_ERRORS = 1.25


@dataclass(eq=False)
class Rung:
    """One step of the ladder.

    Args:
        name: Name of the rung.
        directory: Directory of its run.
        overrides: Overrides that it was composed with; none for the baseline.
        cfg: Its configuration; None for the baseline.
        result: Result of its fit; None for the baseline, and where the fit diverged.
        validation: Judged metric on validation data; NaN where there is none.
        judged: Value of the judged metric for each validation sample.
        showed: What the step showed, in words.
        seconds: Time that the step took, in seconds.
        metrics: Every metric on the test split by plain name, once that was read.
        test: Judged metric on the test split with its interval, likewise.
        gain: Paired test on the test split against the rung below; of a last training, against the baseline.
        made_of: Models that a blend is made of, in words; empty for every other rung.
    """

    name: str
    directory: Path
    overrides: list[str] = field(default_factory=list)
    cfg: DictConfig | None = None
    result: RunResult | None = None
    validation: float = math.nan
    judged: Values = field(default_factory=lambda: np.zeros(0))
    showed: str = ""
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    test: Interval | None = None
    gain: PairedTest | None = None
    made_of: str = ""

    @property
    def parameters(self) -> int:
        """Trainable numbers; none for the baseline."""
        return 0 if self.result is None else int(self.result.model["parameters"])


@dataclass
class Climb:
    """What came of a ladder.

    Args:
        metric: Metric that everything is judged by: ``accuracy``, ``hit_rate_at_5``, ``mae`` or ``bits_per_char``.
        rungs: All rungs, the baseline first.
        chosen: The winner on validation data.
        baseline: Name of the baseline.
        tried: Number of fits that were looked at on validation data.
        final: The winner trained on training and validation data, once for each seed.
        length: Length of those trainings and the reason for it, in words.
        others: Whatever else needs no training loop, on the test split: name → judged metric.
        registered: What became of the winner in the model registry, in words.
        seconds: Time that all of it took, in seconds.
    """

    metric: str
    rungs: list[Rung]
    chosen: Rung
    baseline: str
    tried: int = 0
    final: list[Rung] = field(default_factory=list)
    length: str = ""
    others: dict[str, float] = field(default_factory=dict)
    registered: str = ""
    seconds: float = 0.0

    @property
    def higher(self) -> bool:
        """Whether more of the metric is better."""
        return higher_is_better(self.metric)

    def gain(self, test: PairedTest) -> float:
        """By how much the second of two that were tested is better; below 0 if it is worse."""
        return test.difference.value if self.higher else -test.difference.value

    @property
    def confirmed(self) -> bool:
        """Whether the winner also beats the baseline on the test split."""
        test = self.final[0].gain if self.final else None
        return test is not None and test.significant() and self.gain(test) > 0


def judge(climb: Climb, rung: Rung, level: float) -> bool:
    """Say what a fitted rung showed, and whether it is better than the best below it.

    Args:
        climb: The ladder so far.
        rung: The rung, with its validation figures.
        level: Level of significance that the first model has to reach against the baseline: every fit that was looked
            at is one more chance to look better than the baseline by luck.
    """
    below = climb.chosen
    test = paired_values(below.judged, rung.judged)
    better = climb.gain(test) > 0
    against = f"{climb.metric} {rung.validation:.4f} against {below.validation:.4f}"
    if below.result is not None:
        if better:
            rung.showed = f"better than {below.name} ({against}, {chance(test)})"
        elif climb.gain(test) == 0 and rung.parameters < below.parameters:
            better = True
            rung.showed = f"as good as {below.name} ({against}) with fewer parameters"
        else:
            kept = "the simpler one" if below.parameters < rung.parameters else below.name
            rung.showed = f"not better than {below.name} ({against}, {chance(test)}): kept {kept}"
    elif better and test.p_value < level:
        rung.showed = f"beats the baseline by {amount(climb, test)} ({against}, {chance(test)}): " + (
            "the inputs do predict the target"
        )
    else:
        better = False
        rung.showed = (
            f"does not beat the baseline ({against}, {chance(test)}; expected below {level:.2g}, since "
            f"{climb.tried} fits are given the chance): kept the baseline"
        )
    if found := overfitting(rung, climb.metric):
        rung.showed += f"; {found}"
    return better


def amount(climb: Climb, test: PairedTest) -> str:
    """A gain in words: points for shares, the metric's own unit for the rest."""
    return difference_in_words(climb.metric, climb.gain(test))


def chance(test: PairedTest) -> str:
    """The p-value as one reads it."""
    return "p < 0.0001" if test.p_value < 0.0001 else f"p = {test.p_value:.2g}"


def overfitting(rung: Rung, metric: str) -> str:
    """How far training and validation are apart in the last epoch, in words; empty where they are not."""
    assert rung.result is not None
    train = rung.result.history.get(f"train/{metric}", [])
    validation = rung.result.history.get(f"val/{metric}", [])
    if not train or not validation:
        return ""
    higher = higher_is_better(metric)
    learnt, (last_epoch, last) = train[-1][1], validation[-1]
    best_epoch, best = (max if higher else min)(validation, key=lambda point: point[1])
    if higher:
        apart = 1 - last > _RATIO_OF_WRONG * (1 - learnt) and learnt - last > _GAP_OF_WRONG
    else:
        apart = last > _RATIO_OF_ERRORS * learnt
    if not apart:
        return ""
    fallen = f" after {best:.4f} in epoch {best_epoch}" if best != last else ""
    advice = "still overfits" if rung.name == "tuned" else "overfits, so regularise"
    return f"in epoch {last_epoch} training {metric} {learnt:.4f}, validation {last:.4f}{fallen}: it {advice}"
