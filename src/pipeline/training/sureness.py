"""How sure a fitted model is: temperature, threshold and intervals from validation data, never from the test's.

What is found becomes a part of the model (:meth:`pipeline.models.base.BaseModule.settle`), which is saved with it, so
that a test, a prediction, a server and an export all answer alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from pipeline import metrics
from pipeline.config.nearest import suggest
from pipeline.errors import UserError
from pipeline.models.base import BaseModule
from pipeline.models.settled import Settled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.data.core.module import DataModule

    Array = NDArray[Any]

LEAST_SAMPLES = 50
"""Validation samples below which intervals are equally wide."""
LEAST_TO_CALIBRATE = 20
"""Validation samples below which no temperature is fitted."""
LEAST_OF_A_CLASS = 10
"""Validation samples of each class below which no threshold is chosen."""
_RESAMPLES = 50
_SPREAD = 0.35
"""Of the logarithm of temperatures: 19 of 20 models are right between 0.5 and 2; few samples say little against it."""
_WORTH_IT = 0.001
"""Share of the log loss that a temperature has to save."""
_SURELY = 0.01
"""Chance below which the size of residuals is taken to depend on the prediction (Spearman's rank correlation)."""
_LEAST_SIZE = 0.2
_BY_THRESHOLD = ("f1", "balanced_accuracy")


@dataclass(frozen=True)
class Wanted:
    """What is to be settled.

    Args:
        calibrate: Whether probabilities are calibrated.
        interval: Share of true values that intervals are to hold, None for no intervals.
        costs: Cost of each mistake, (true classes, predicted classes); empty for none.
        metric: Metric that the threshold of two classes is chosen for, None where it stays 0.5.
    """

    calibrate: bool = False
    interval: float | None = None
    costs: tuple[tuple[float, ...], ...] = ()
    metric: str | None = None

    @property
    def needs_validation(self) -> bool:
        """Whether any of it is read off validation data."""
        return self.calibrate or self.interval is not None or self.metric is not None

    def decision(self) -> Settled:
        """What needs no validation data: the class that costs least."""
        if not self.costs:
            return Settled()
        if len(self.costs) == 2:
            return Settled(threshold=least_cost_threshold(self.costs))
        return Settled(costs=self.costs)

    def said(self, classes: Sequence[str]) -> list[str]:
        """What there is to say of :meth:`decision`."""
        if not self.costs:
            return []
        if len(classes) == 2:
            return [f"{_says(classes, self.decision().threshold)}, which costs least (data.costs)"]
        return ["the class with the least expected cost is predicted (data.costs)"]


@dataclass(frozen=True)
class Found:
    """What was settled.

    Args:
        settled: The model's new part.
        notes: What there is to say about it, a sentence each.
    """

    settled: Settled = field(default_factory=Settled)
    notes: list[str] = field(default_factory=list)


def wanted(data: DataModule, metric: str) -> Wanted:
    """What a data set's settings and the metric that a run is judged by ask for.

    Args:
        data: The data.
        metric: ``objective.metric``.

    Raises:
        UserError: ``data.costs`` does not fit the classes.
    """
    spec = data.known_spec
    if spec is None:
        return Wanted()
    if spec.task == "regression":
        if data.costs is not None:
            raise UserError(f"data.costs is for classes, but {spec.target_name!r} is predicted as a number")
        single = spec.outputs == 1 and not spec.per_step
        return Wanted(interval=data.interval if single or spec.horizon else None)
    if spec.task == "multilabel" and data.costs is not None:
        raise UserError(
            "data.costs is for samples with one class each, but this data has several labels a sample"
        )
    costs = () if data.costs is None else cost_matrix(data.costs, spec.classes)
    found = metrics.find(metric)
    by = found.name if found is not None and found.name in _BY_THRESHOLD else None
    chosen = spec.task == "binary" and not spec.per_step and not costs
    return Wanted(data.calibrate, None, costs, by if chosen else None)


def settle(model: BaseModule, logits: Tensor, targets: Tensor, asked: Wanted) -> Found:
    """Read off validation outputs how sure the model is.

    Args:
        model: The fitted model, not yet settled.
        logits: Its outputs on validation data, (samples, …).
        targets: What is true there.
        asked: What is to be settled.
    """
    spec = model.spec
    if spec.task == "regression":
        return _intervals(logits, targets, asked.interval, spec.target_unit)
    logits, targets = model.objective.known(logits, targets) if spec.per_step else (logits, targets)
    rows = len(targets)
    if spec.task == "multilabel":
        # Each label is a question of its own, all with one temperature.
        logits = logits.reshape(-1, 1)
    labels = targets.reshape(-1).long().numpy()
    temperature, threshold, notes = 1.0, 0.5, []
    if asked.calibrate and not model.objective.gives_probabilities:
        temperature, said = _temperature(logits.double().numpy(), labels, rows)
        notes.append(said)
    if asked.metric is not None:
        p = model.objective.probabilities(logits.double() / temperature)[:, 1].numpy()
        threshold, said = _threshold(p, labels, asked.metric, spec.classes)
        notes.append(said)
    if asked.costs and spec.task == "binary":
        threshold = asked.decision().threshold
    notes += asked.said(spec.classes)
    return Found(Settled(temperature, threshold, asked.decision().costs), notes)


def interval_words(settled: Settled, unit: str, held: float | None = None) -> str:
    """The width of a model's intervals in words, with the share of test rows that they hold for."""
    assert settled.level is not None and settled.half_width is not None
    ends = sorted({f"{size:.3g}": size for _, size in settled.widths}.items(), key=lambda end: end[1])
    wide = f"{ends[0][0]} to ± {ends[-1][0]}" if len(ends) > 1 else f"{settled.half_width:.3g}"
    words = f"{settled.level * 100:g} % intervals: ± {wide}{f' {unit}' if unit else ''}"
    if len(ends) > 1:
        wider = "larger" if settled.widths[-1][1] > settled.widths[0][1] else "smaller"
        words += f", wider where the prediction is {wider}"
    return words if held is None else f"{words}; hold for {100 * held:.1f} % of test rows"


def sureness_words(settled: Settled, unit: str, held: float | None = None) -> str:
    """All that is settled of a model, in a sentence; empty where nothing is.

    Args:
        settled: What is settled.
        unit: Unit of a predicted number.
        held: Share of test rows that intervals hold for.
    """
    said = []
    if settled.temperature != 1.0:
        said.append(f"logits are divided by {settled.temperature:.3f} before they become probabilities")
    if settled.threshold != 0.5:
        said.append(f"the second class is predicted above a probability of {settled.threshold:.3g}")
    if settled.costs:
        said.append("the class with the least expected cost is predicted")
    if settled.half_width is not None:
        said.append(interval_words(settled, unit, held))
    return "; ".join(said)


def fit_temperature(logits: Array, targets: Array, spread: float = math.inf) -> float:
    """The number that logits are divided by so that the likelihood of the targets is largest.

    Args:
        logits: Logits, (samples, classes); for two classes also (samples,) or (samples, 1), of the second class.
        targets: Class numbers, (samples,).
        spread: Standard deviation that the logarithm of temperatures is expected to have, around 0. Few samples say
            little, and those that are all right by themselves would say that the model is certain.

    Returns:
        The temperature, between 0.05 and 20: above 1 where the model is too sure of itself.
    """
    from scipy.optimize import minimize_scalar

    logits, labels = _two_columns(logits), np.asarray(targets).astype(int).reshape(-1)

    def loss(log_temperature: float) -> float:
        unexpected = (log_temperature / spread) ** 2 / 2
        return float(_losses(logits / math.exp(log_temperature), labels).mean()) + unexpected / len(labels)

    found = minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded")
    return math.exp(float(found.x))


def _two_columns(logits: Array) -> Array:
    logits = np.asarray(logits, dtype=np.float64)
    logits = logits.reshape(len(logits), -1)
    return np.concatenate([np.zeros_like(logits), logits], axis=1) if logits.shape[1] == 1 else logits


def _losses(logits: Array, labels: Array) -> Array:
    """Minus the logarithm of each true class's probability."""
    logits = logits - logits.max(1, keepdims=True)
    losses: Array = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]
    return losses


def _temperature(logits: Array, labels: Array, rows: int) -> tuple[float, str]:
    """The temperature, 1 where another one does not pay, and what there is to say of it."""
    if rows < LEAST_TO_CALIBRATE:
        return 1.0, (
            f"probabilities are not calibrated: {rows} validation rows are too few (at least "
            f"{LEAST_TO_CALIBRATE})"
        )
    temperature, logits = fit_temperature(logits, labels, _SPREAD), _two_columns(logits)
    before, after = _losses(logits, labels), _losses(logits / temperature, labels)
    if after.mean() > (1 - _WORTH_IT) * before.mean():
        return 1.0, (
            f"probabilities stay as they are: a temperature ({temperature:.2f}) would not improve the log loss on "
            f"{rows:,} validation rows"
        )
    return temperature, (
        f"probabilities are calibrated on {rows:,} validation rows: temperature {temperature:.2f} "
        f"(log loss there {after.mean():.4f} instead of {before.mean():.4f})"
    )


def _intervals(said: Tensor, true: Tensor, level: float | None, unit: str) -> Found:
    """Split-conformal intervals (Lei et al. 2018): as wide as validation residuals are (section 2.2), or, where they
    grow or shrink with the prediction, as these are there (section 5.2, residuals divided by their usual size).
    """
    if level is None:
        return Found()
    predicted = said.reshape(-1).double().numpy()
    residuals = np.abs(predicted - true.reshape(-1).double().numpy())
    # The new row's residual is as likely to be in any place among them: (n + 1) instead of n.
    place = math.ceil((len(residuals) + 1) * level - 1e-9)
    if place > len(residuals):
        least = math.ceil(level / (1 - level) - 1e-9)
        return Found(
            notes=[
                f"no {level * 100:g} % intervals: {len(residuals)} validation rows are too few (at least {least})"
            ]
        )
    settled = Settled(level=level, half_width=float(np.sort(residuals)[place - 1]))
    sizes = usual_sizes(predicted, residuals)
    if sizes is not None:
        knots, usual = sizes
        scale = float(np.sort(residuals / usual)[place - 1])
        widths = tuple((number, scale * size) for number, size in knots)
        settled = Settled(level=level, half_width=float(np.median(scale * usual)), widths=widths)
    return Found(settled, [interval_words(settled, unit)])


def usual_sizes(predicted: Array, residuals: Array) -> tuple[list[tuple[float, float]], Array] | None:
    """The size that a residual usually has, by the prediction; None where it does not surely depend on it.

    A line through their sizes, never below a fifth of the mean, from one end of the predictions to the other.

    Args:
        predicted: Predicted numbers, (samples,).
        residuals: Sizes of their errors, (samples,).

    Returns:
        Predictions with the size there, between which it lies on a line, and the size for each sample.
    """
    from scipy.stats import spearmanr

    if len(residuals) < LEAST_SAMPLES or np.ptp(predicted) == 0 or np.ptp(residuals) == 0:
        return None
    if spearmanr(predicted, residuals).pvalue >= _SURELY:
        return None
    # A few large ones would turn the line.
    clipped = np.minimum(residuals, np.quantile(residuals, 0.95))
    slope, start = np.polyfit(predicted, clipped, 1)
    least = _LEAST_SIZE * float(clipped.mean())
    low, high = float(predicted.min()), float(predicted.max())
    turn = (least - start) / slope if slope else math.nan
    places = sorted({low, high, *([float(turn)] if low < turn < high else [])})
    knots = [(number, max(float(start + slope * number), least)) for number in places]
    return knots, np.interp(predicted, places, [size for _, size in knots])


def _threshold(p: Array, labels: Array, metric: str, classes: Sequence[str]) -> tuple[float, str]:
    """The threshold that is best for a metric, 0.5 where there is too little to tell, and what there is to say."""
    fewest = min(int((labels == c).sum()) for c in (0, 1))
    if fewest < LEAST_OF_A_CLASS:
        return 0.5, (
            f"{_says(classes, 0.5)}: {fewest} validation rows of one class are too few to choose another threshold "
            f"for {metric} (at least {LEAST_OF_A_CLASS})"
        )
    threshold = best_threshold(p, labels, metric)
    return threshold, f"{_says(classes, threshold)}, which is best for {metric} on validation data"


def _says(classes: Sequence[str], threshold: float) -> str:
    return f"{classes[1]!r} is predicted above a probability of {threshold:.3g}"


def best_threshold(p: Array, labels: Array, metric: str, seed: int = 0) -> float:
    """The probability above which the second class is to be said so that a metric is largest.

    The median of what is best in each of 50 resamples: the best of a single sample jumps about.

    Args:
        p: Probability of the second class, (samples,).
        labels: 0 or 1 for each sample; both occur.
        metric: ``f1`` (the mean over both classes) or ``balanced_accuracy``.
        seed: Seed of the resampling.
    """
    values, place = np.unique(p, return_inverse=True)
    cuts = (values[:-1] + values[1:]) / 2
    draw = np.random.default_rng(seed)
    best = []
    for _ in range(_RESAMPLES):
        weights = np.bincount(draw.integers(0, len(p), len(p)), minlength=len(p))
        no = np.bincount(place, weights * (labels == 0), len(values))
        yes = np.bincount(place, weights * (labels == 1), len(values))
        if len(values) > 1 and no.any() and yes.any():
            best.append(float(cuts[int(_values(no, yes, metric)[:-1].argmax())]))
    return float(np.median(best)) if best else 0.5


def _values(no: Array, yes: Array, metric: str) -> Array:
    """The metric with a threshold just above each of the probabilities, of whose rows so many are of each class."""
    true_no, missed = np.cumsum(no), np.cumsum(yes)
    false_yes, hits = no.sum() - true_no, yes.sum() - missed
    if metric == "balanced_accuracy":
        shares: Array = (hits / yes.sum() + true_no / no.sum()) / 2
        return shares
    mistakes = missed + false_yes
    sums: Array = hits / np.maximum(2 * hits + mistakes, 1) + true_no / np.maximum(2 * true_no + mistakes, 1)
    return sums


def cost_matrix(costs: Mapping[str, Any], classes: Sequence[str]) -> tuple[tuple[float, ...], ...]:
    """The cost of each mistake, a row for each true class and a column for each predicted one.

    Args:
        costs: ``{false_positive: 1, false_negative: 5}`` for two classes, the second one being the positive; or by
            names, ``{TRUE: {PREDICTED: cost}}``. A mistake that is not named costs 1, and what is right nothing.
        classes: Names of the classes.

    Raises:
        UserError: A class is unknown, or a cost is no number above 0.

    Example:
        >>> cost_matrix({"false_negative": 5}, ("no", "yes"))
        ((0.0, 1.0), (5.0, 0.0))
    """
    names = {str(name): number for number, name in enumerate(classes)}
    matrix = [[float(a != b) for b in range(len(classes))] for a in range(len(classes))]
    words = {"false_positive": (0, 1), "false_negative": (1, 0)}
    if len(classes) == 2 and costs and all(str(key) in words for key in costs):
        for key, cost in costs.items():
            true, said = words[str(key)]
            matrix[true][said] = _cost(f"data.costs.{key}", cost)
        return tuple(map(tuple, matrix))
    for true_name, row in costs.items():
        if str(true_name) not in names or not isinstance(row, Mapping):
            known = [*words, *names] if len(classes) == 2 else list(names)
            raise UserError(
                f"data.costs.{true_name}={row}: expected {{TRUE: {{PREDICTED: cost}}}} with names of classes"
                f"{', or {false_positive: 1, false_negative: 5}' if len(classes) == 2 else ''}. "
                f"{suggest(str(true_name), known)}"
            )
        for said_name, cost in row.items():
            key = f"data.costs.{true_name}.{said_name}"
            if str(said_name) not in names or str(said_name) == str(true_name):
                raise UserError(f"{key}={cost}: expected another one of the classes {list(names)[:12]}")
            matrix[names[str(true_name)]][names[str(said_name)]] = _cost(key, cost)
    return tuple(map(tuple, matrix))


def _cost(key: str, value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < math.inf:
        raise UserError(f"{key}={value}: expected a cost above 0")
    return float(value)


def least_cost_threshold(costs: Sequence[Sequence[float]]) -> float:
    """The probability of the second class above which saying it costs less: with 1 for a false alarm, 5 for a miss 1/6.

    A false alarm is expected to cost (1 − p) · costs[0][1], a miss p · costs[1][0].
    """
    return costs[0][1] / (costs[0][1] + costs[1][0])
