"""What is said of a model beside its baselines: it beats them, is worse, or cannot be told apart from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.metrics import find, higher_is_better, judged_by, without_deviations
from pipeline.runs.describing import samples_in
from pipeline.training.gains import Gain, Sampled, gain_of, gain_of_fits, gain_of_shares

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.data.core.module import DataModule
    from pipeline.data.core.splits import Rows
    from pipeline.models.base import BaseModule
    from pipeline.runs.result import RunResult

    Answers = tuple[Tensor, Tensor]

_SIZES = {"test": "test", "val": "validation", "train": "train"}


@dataclass
class Verdict:
    """What is said of a model and one baseline.

    Args:
        against: Name of the baseline.
        split: ``test``, ``val`` or ``train``.
        metric: Metric that both are judged by.
        model, baseline: Its value for each of them.
        verdict: ``beats``, ``is worse than``, ``cannot be told apart from``; empty where nothing can be said.
        gain: By how much the model is better; below 0 it is worse.
        low, high: Ends of the gain's interval; NaN where there is none.
        confidence: Share of such intervals that hold the gain of this kind of model on new samples.
        why: Why nothing can be said, or what to bear in mind, in words; empty else.
        variant: Variant of the experiment that it is said of; empty where there are none.
        error: Standard error of the gain.
    """

    against: str
    split: str
    metric: str
    model: float
    baseline: float
    verdict: str
    gain: float
    low: float
    high: float
    confidence: float
    why: str = ""
    variant: str = ""
    error: float = math.nan


def verdicts_of(
    data: DataModule,
    model: BaseModule,
    metrics: dict[str, float],
    baseline: dict[str, Any],
    tested: Answers | None,
    validated: Answers | None,
) -> list[dict[str, Any]]:
    """What a fit's answers say of it and each of its baselines.

    Args:
        data: The data, for the baselines' own answers.
        model: The trained model.
        metrics: Its metrics by name (``test/accuracy``).
        baseline: Name and metrics of the baselines, as a run's result has them.
        tested: Outputs and targets of the test split; None where it was not read.
        validated: Those of the validation split; None where nothing is held out.
    """
    functions = data.baselines()
    sizes = {name: samples_in(getattr(data, name)) for name in _SIZES.values()}
    found = []
    for name, values in baselines_of(baseline).items():
        split, metric = _judged(metrics, values)
        if metric is None:
            continue
        own, other = metrics[f"{split}/{metric}"], values[f"{split}/{metric}"]
        gain, why = None, ""
        heard = split == "train" or (split == "test" and data.test is data.train)
        if not heard:
            on_test = _sampled(data, model, data.test, tested, name, functions, metric)
            on_validation = _sampled(data, model, data.validation, validated, name, functions, metric)
            judged = on_test if split == "test" else on_validation
            if judged is not None and math.isclose(
                float(judged.gains.mean()), _better(metric, own, other), rel_tol=1e-4, abs_tol=1e-6
            ):
                gain = gain_of(judged, len(data.train), on_validation if split == "test" else None)
        if gain is None:
            gain, why = _from_figures(metric, own, other, split, sizes, heard)
        found.append(asdict(_verdict(name, split, metric, own, other, gain, why)))
    return found


def verdicts_of_fits(
    results: Sequence[RunResult], baseline: dict[str, Any], shared: bool, variant: str = ""
) -> list[dict[str, Any]]:
    """What several fits say together.

    Args:
        results: The fits.
        baseline: Name and mean metrics of their baselines.
        shared: Whether they are tested on the same samples (seeds); else each has its own (folds).
        variant: Variant of the experiment that they are fits of.
    """
    found = []
    for name in baselines_of(baseline):
        pairs = [(result.metrics, baselines_of(result.baseline).get(name, {})) for result in results]
        split, metric = _judged(*pairs[0])
        key = f"{split}/{metric}"
        if metric is None or not all(_known(own, key) and _known(other, key) for own, other in pairs):
            continue
        own, other = (float(np.mean([pair[side][key] for pair in pairs])) for side in (0, 1))
        single = [entry for result in results for entry in result.verdicts if entry["against"] == name]
        if len(results) == 1:
            found += [{**entry, "variant": variant} for entry in single]
            continue
        gains = [_better(metric, model[key], sense[key]) for model, sense in pairs]
        errors = [entry["error"] for entry in single] if shared else []
        samples, learnt = results[0].data.get(_SIZES[split], 0), results[0].data.get("train", 0)
        why = ""
        if split == "train":
            gain, why = Gain(_better(metric, own, other), math.nan, math.nan), _HEARD
        elif shared and not (len(errors) == len(results) and all(map(math.isfinite, errors))):
            gain, why = _from_figures(metric, own, other, split, results[0].data, False)
        else:
            gain = gain_of_fits(gains, 0.0 if shared else samples / max(1, learnt), errors)
            why = "" if math.isfinite(gain.low) else _FEW
        said = _verdict(name, split, metric, own, other, gain, why)
        said.variant = variant
        unfinished = [
            entry["why"] for entry in single if not entry["verdict"] and entry["why"] not in (_FEW,)
        ]
        found.append(asdict(said))
        if unfinished:
            found[-1:] = unless_unfinished(found[-1:], unfinished[0])
    return found


def unless_unfinished(verdicts: list[dict[str, Any]], unfinished: str) -> list[dict[str, Any]]:
    """The verdicts on a model that may not have learnt all it can: what stands whatever more training brings.

    More training would not make "beats" false; anything else is taken back.

    Args:
        verdicts: What its answers say of it.
        unfinished: In words, why it may not have learnt all it can; empty where it has.
    """
    if not unfinished:
        return verdicts
    return [
        entry
        if entry["verdict"] in ("beats", "") and not (entry["verdict"] == "" and entry["why"] == _FEW)
        else {**entry, "verdict": "", "why": unfinished}
        for entry in verdicts
    ]


_HEARD = "that is measured on what it has learnt from, and says nothing of new samples"
_FEW = "there are too few samples to tell"
_APART = "the two were not compared sample by sample"


def baselines_of(baseline: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Each baseline's metrics by the baseline's name, the common-sense one first."""
    values = {name: value for name, value in baseline.items() if name not in ("name", "others")}
    own = {str(baseline.get("name") or "common-sense"): values} if values else {}
    return own | dict(baseline.get("others") or {})


def _judged(metrics: dict[str, float], values: dict[str, float]) -> tuple[str, str | None]:
    """The split and the metric that a model and a baseline are compared by, of those that both have."""
    for split in ("test", "val", "train"):
        both = {
            name.partition("/")[2]
            for name in without_deviations(metrics)
            if name.startswith(f"{split}/") and _known(metrics, name) and _known(values, name)
        }
        if metric := judged_by(both):
            return split, metric
    return "", None


def _known(values: dict[str, float], name: str) -> bool:
    value = values.get(name)
    return value is not None and not math.isnan(value)


def _sampled(
    data: DataModule,
    model: BaseModule,
    split: Rows | None,
    answers: Answers | None,
    baseline: str,
    functions: dict[str, Any],
    metric: str,
) -> Sampled | None:
    """Gains of the model over a baseline on single samples, where both are known."""
    from pipeline.data.core.baselines import values_of
    from pipeline.training.judging import judged_of, known_of

    if split is None or answers is None or not len(split):
        return None
    name, own = judged_of(model, *answers)
    first = next(iter(functions), None)
    other = (
        data.baseline_values(split)
        if baseline == first
        else values_of(functions[baseline], data.train, split, data.spec)
        if baseline in functions
        else None
    )
    if name != metric or other is None or other.numel() != len(own):
        return None
    gains = _better(metric, own.astype(np.float64), other.double().reshape(-1).numpy())
    strata = None
    if data.spec.task in ("binary", "multiclass"):
        strata = known_of(model, *answers)[1].reshape(-1).numpy()
    return Sampled(gains, strata)


def _better(metric: str, own: Any, other: Any) -> Any:
    return own - other if higher_is_better(metric) else other - own


def _from_figures(
    metric: str, own: float, other: float, split: str, sizes: dict[str, Any], heard: bool
) -> tuple[Gain, str]:
    """What the two figures alone say: of shares the widest interval, of anything else nothing."""
    unknown = Gain(_better(metric, own, other), math.nan, math.nan)
    if heard:
        return unknown, _HEARD
    known, samples = find(metric), int(sizes.get(_SIZES[split]) or 0)
    if known is None or not (known.kind == "share" and known.per_prediction) or samples < 2:
        return unknown, _FEW if samples == 1 else _APART
    return gain_of_shares(own, other, samples, int(sizes.get("train") or samples)), ""


def _verdict(name: str, split: str, metric: str, own: float, other: float, gain: Gain, why: str) -> Verdict:
    told = math.isfinite(gain.low)
    return Verdict(
        name,
        split,
        metric,
        own,
        other,
        gain.says if told else "",
        gain.value,
        gain.low,
        gain.high,
        gain.confidence,
        why or ("" if told else _FEW),
        error=gain.error,
    )
