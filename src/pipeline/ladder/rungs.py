"""The steps of a ladder, and what each of them showed."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig

from pipeline.data.core.baselines import losses
from pipeline.evaluation.outputs import paired_values
from pipeline.evaluation.statistics import PairedTest
from pipeline.metrics import difference_in_words, four_places, higher_is_better, unit_of
from pipeline.runs.result import RunResult
from pipeline.training.gains import Interval, Sampled, gain_of
from pipeline.training.judging import metric_by, metric_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.data.core.module import DataModule
    from pipeline.data.core.spec import Spec
    from pipeline.data.core.splits import Rows

    Values = NDArray[Any]

log = logging.getLogger(__name__)

# A model overfits if it makes so many times fewer mistakes on what it has learnt than on what it has not, and if that
# is more than a few samples.
_RATIO_OF_WRONG, _GAP_OF_WRONG = 2.0, 0.005
_RATIO_OF_ERRORS = 1.25
_MINUTE = 60.0
"""Seconds from which on it is said whether a rung was worth its time."""


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
        over_simple: Paired test on the test split against the best simple model of the ladder.
        milliseconds: Time that its model takes to predict 1,000 rows, in milliseconds; NaN where it was not measured.
        bytes: Size of its saved model on disk.
        asking: Time that its model takes to answer for a row, in seconds.
        folds: Value of the judged metric for each training and validation row, by models that have not seen it; empty
            where its model was fitted once.
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
    over_simple: PairedTest | None = None
    milliseconds: float = math.nan
    bytes: int = 0
    asking: float = 0.0
    folds: Values = field(default_factory=lambda: np.zeros(0))
    made_of: str = ""

    @property
    def parameters(self) -> int:
        """Trainable numbers; none for the baseline."""
        return 0 if self.result is None else int(self.result.model["parameters"])

    @property
    def fit_seconds(self) -> float:
        """Seconds that the fit took, without a search for its settings; NaN where there was none."""
        return math.nan if self.result is None else float(self.result.seconds.get("fit", math.nan))

    @property
    def is_linear(self) -> bool:
        """Whether its model is a linear one."""
        return self.result is not None and str(self.result.model.get("class")) == "Linear"


@dataclass
class Climb:
    """What came of a ladder.

    Args:
        metric: Metric that everything is judged by: ``accuracy``, ``hit_rate_at_5``, ``mae`` or ``bits_per_char``, or
            what :func:`~pipeline.training.judging.metric_by` gives for the command's objective.
        rungs: All rungs, the baseline first.
        chosen: The winner on validation data: the best rung, or the simplest within noise of it if that is preferred.
        baseline: Name of the baseline.
        tried: Number of fits that were looked at on validation data.
        final: The winner trained on training and validation data, once for each seed.
        length: Length of those trainings and the reason for it, in words.
        retrained: Whether there was the time for those trainings; else the winner stands as it was judged.
        others: Whatever else needs no training loop, on the test split: name → judged metric.
        registered: What became of the winner in the model registry, in words.
        seconds: Time that all of it took, in seconds.
        best: The best rung on validation data; None where none beats the baseline.
        simplest: The simplest rung that cannot be told apart from it on validation data; None likewise.
        by: Test figures of what goes into service by group, see :func:`~pipeline.evaluation.groups.grouped`, with
            ``baseline`` in each row; empty where the data has no groups.
        goals: Goal and constraints with what was reached, see :func:`~pipeline.ladder.goals.weighed`.
    """

    metric: str
    rungs: list[Rung]
    chosen: Rung
    baseline: str
    tried: int = 0
    final: list[Rung] = field(default_factory=list)
    length: str = ""
    retrained: bool = True
    others: dict[str, float] = field(default_factory=dict)
    registered: str = ""
    seconds: float = 0.0
    best: Rung | None = None
    simplest: Rung | None = None
    by: dict[str, Any] = field(default_factory=dict)
    goals: list[dict[str, Any]] = field(default_factory=list)

    @property
    def unit(self) -> str:
        """Unit of the metric's figures; empty where they have none."""
        data = next((rung.result.data for rung in self.rungs if rung.result is not None), {})
        return unit_of(self.metric, str(data.get("unit") or ""))

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


def judged_by(spec: Spec, objective: str) -> str:
    """The metric of a ladder: that of the command's objective, where it has a value for each sample."""
    metric = metric_by(spec, objective)
    if metric is not None:
        return metric
    log.warning(
        "objective.metric=%s: every rung is fitted and stopped by it; rungs are compared by %s, since single samples "
        "have no %s",
        *(objective, metric_of(spec), objective.removeprefix("val/")),
    )
    return metric_of(spec)


def common_sense(data: DataModule, split: Rows, metric: str) -> Values:
    """What the data's baseline scores on each prediction of a split, by the metric of a ladder."""
    if metric == metric_of(data.spec):
        return data.baseline_values(split).numpy()
    return losses(data.train, split, data.spec, metric).numpy()


def judge(climb: Climb, rung: Rung, level: float) -> bool:
    """Say what a fitted rung showed, and whether it is better than the best below it.

    What is said of a rung is said at level 0.05. To be chosen over the baseline takes more, since every fit that was
    looked at is one more chance to look better than the baseline by luck.

    Args:
        climb: The ladder so far.
        rung: The rung, with its validation figures.
        level: Level of significance that the first model has to reach against the baseline.
    """
    below = climb.chosen
    test = paired_values(below.judged, rung.judged)
    better = climb.gain(test) > 0
    said, why = standing(climb, test), compared(climb, below, rung, test)
    name = below.name if below.result is not None else "the baseline"
    rung.showed = f"{said} {name} ({why})"
    if below.result is None:
        if said == "better than":
            rung.showed = f"beats the baseline by {amount(climb, test)} ({why})"
        if better and test.p_value < level:
            rung.showed += ": the inputs do predict the target"
        else:
            better = False
            rung.showed += (
                f": kept the baseline, which {climb.tried} fits are given the chance to beat, so that p below "
                f"{level:.2g} is asked for"
                if said == "better than"
                else ": kept the baseline"
            )
    elif better:
        rung.showed += (
            "" if said == "better than" else "; chosen all the same, as its figure is the better one"
        )
    elif climb.gain(test) == 0 and rung.parameters < below.parameters:
        better = True
        rung.showed += "; chosen instead, with fewer parameters"
    else:
        rung.showed += f": kept {below.name}"
        rung.showed += ", the simpler one" if 0 < below.parameters < rung.parameters else ""
    assert rung.result is not None
    if rung.result.unfinished and said != "better than":
        rung.showed = (
            f"no verdict ({why}): {rung.result.unfinished}; {'chosen so far' if better else f'kept {name}'}"
        )
    if found := overfitting(rung, climb.metric):
        rung.showed += f"; {found}"
    if rung.seconds >= _MINUTE and not (rung.result.unfinished and said != "better than"):
        worth = "worth" if said == "better than" else "not worth"
        rung.showed += f"; {worth} its {rung.seconds / _MINUTE:.1f} minutes"
    return better


def standing(climb: Climb, test: PairedTest) -> str:
    """How the second of two that were tested stands to the first, at level 0.05."""
    if not test.significant():
        return "cannot be told apart from"
    return "better than" if climb.gain(test) > 0 else "worse than"


def compared(climb: Climb, below: Rung, rung: Rung, test: PairedTest) -> str:
    """The validation figures of two rungs with the 95 % interval of the gain of the second one, in words.

    The interval of hits is Bonett and Price's (:func:`pipeline.training.gains.gain_of`), which agrees with McNemar's
    test where few samples tell the two apart; that of errors is the bootstrap's.
    """
    low, high = test.difference.low, test.difference.high
    if rung.judged.dtype == bool:
        # As of these two models: what other training samples would bring is no part of it.
        found = gain_of(Sampled(rung.judged.astype(float) - below.judged), train_samples=10**12)
        low, high = found.low, found.high
    low, high = (low, high) if climb.higher else (-high, -low)
    unit = f" {climb.unit}" if climb.unit else ""
    return (
        f"{climb.metric} {four_places(rung.validation)} against {four_places(below.validation)}{unit}, 95 % interval "
        f"of the gain {four_places(low, '+')} to {four_places(high, '+')}, {chance(test)}"
    )


def simple_one(climb: Climb) -> Rung | None:
    """The best of the linear rungs on validation data, without any the first that was fitted."""
    fitted = [rung for rung in climb.rungs if rung.result is not None]
    linear = [rung for rung in fitted if rung.is_linear] or fitted[:1]
    best = max if climb.higher else min
    return best(linear, key=lambda rung: rung.validation) if linear else None


def amount(climb: Climb, test: PairedTest) -> str:
    """A gain in words: points for shares, the metric's own unit for the rest."""
    words = difference_in_words(climb.metric, climb.gain(test))
    return words if words.endswith("points") or not climb.unit else f"{words} {climb.unit}"


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
    fallen = f" after {four_places(best)} in epoch {best_epoch}" if best != last else ""
    advice = "still overfits" if rung.name == "tuned" else "overfits, so regularise"
    figures = f"training {metric} {four_places(learnt)}, validation {four_places(last)}{fallen}"
    return f"in epoch {last_epoch} {figures}: it {advice}"
