"""How sure a model is, settled on validation data: probabilities, intervals, thresholds, costs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss
from torch import Tensor

from pipeline.data.core.encoder import VectorEncoder
from pipeline.data.core.spec import Spec
from pipeline.errors import UserError
from pipeline.evaluation.statistics import calibration_error
from pipeline.models.base import BaseModule
from pipeline.models.linear import Linear
from pipeline.models.saved import Predictor
from pipeline.models.settled import Settled
from pipeline.training.scoring import scores
from pipeline.training.sureness import Wanted, cost_matrix, fit_temperature, least_cost_threshold, settle

NUMBERS = Spec("regression", "vector", (2,), 1, target_unit="MPa")
YES_OR_NO = Spec("binary", "vector", (2,), 1, ("no", "yes"))
THREE = Spec("multiclass", "vector", (2,), 3, ("a", "b", "c"))


def overconfident(samples: int, seed: int, factor: float = 3.0) -> tuple[Tensor, Tensor]:
    """Labels drawn by the softmax of logits, of which a model says that they are three times as large."""
    draw = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(samples, 3, generator=draw)
    labels = torch.multinomial(logits.softmax(1), 1, generator=draw)[:, 0]
    return factor * logits, labels


def error_of(model: BaseModule, logits: Tensor, labels: Tensor) -> float:
    p = model.objective.probabilities(logits).numpy()
    return calibration_error(p.max(1), p.argmax(1) == labels.numpy())


def test_an_overconfident_model_is_put_right_on_test_data_without_another_decision() -> None:
    model, (logits, labels) = Linear(THREE), overconfident(4000, seed=1)
    loss, error = scores(model, logits, labels), error_of(model, logits, labels)
    found = settle(model, *overconfident(1000, seed=2), Wanted(calibrate=True))
    model.settle(found.settled)
    after = scores(model, logits, labels)
    assert found.settled.temperature == pytest.approx(3.0, rel=0.1)
    assert after["log_loss"] < 0.8 * loss["log_loss"]
    assert after["log_loss"] == pytest.approx(
        log_loss(labels, (logits.double() / found.settled.temperature).softmax(1)), rel=1e-5
    )
    assert error_of(model, logits, labels) < error / 2
    assert after["accuracy"] == loss["accuracy"] and after["loss"] == loss["loss"]
    assert "temperature" in found.notes[0] and "1,000 validation rows" in found.notes[0]


def test_few_rows_help_a_model_that_is_too_sure_and_do_no_harm_to_one_that_is_right() -> None:
    ratios: dict[float, list[float]] = {1.0: [], 3.0: []}
    for factor, found in ratios.items():
        logits, labels = overconfident(4000, seed=1000, factor=factor)
        plain = log_loss(labels, logits.double().softmax(1))
        for seed in range(40):
            model = Linear(THREE)
            model.settle(settle(model, *overconfident(36, seed, factor), Wanted(calibrate=True)).settled)
            found.append(log_loss(labels, model.objective.probabilities(logits.double())) / plain)
    assert np.mean(ratios[1.0]) < 1.01 and max(ratios[1.0]) < 1.08
    assert np.mean(ratios[3.0]) < 0.8 and max(ratios[3.0]) < 1
    few = settle(Linear(THREE), *overconfident(19, 0), Wanted(calibrate=True))
    assert few.settled == Settled() and "19 validation rows are too few" in few.notes[0]


def test_validation_rows_that_are_all_right_do_not_make_a_model_certain() -> None:
    # Each with a probability of 0.73: 100 of 100 rows say that more is true, but not that nothing can go wrong.
    logits, labels = torch.ones(100, 1), torch.ones(100)
    model = Linear(YES_OR_NO)
    model.settle(settle(model, logits, labels, Wanted(calibrate=True)).settled)
    said = float(model.objective.probabilities(logits)[0, 1])
    assert 0.9 < said < 0.99
    # Without what is expected of temperatures it would be as certain as the bounds allow.
    assert fit_temperature(logits.numpy(), labels.numpy()) == pytest.approx(0.05, rel=0.01)


def test_intervals_hold_as_often_as_they_say() -> None:
    draw = np.random.default_rng(0)
    held = []
    for _ in range(200):
        # Errors with heavy tails: nothing is said of their distribution.
        error = draw.standard_t(3, size=60 + 1000).astype(np.float32)
        true = draw.normal(size=len(error)).astype(np.float32)
        said = torch.from_numpy(true + error)
        model = Linear(NUMBERS)
        targets = torch.from_numpy(true)
        model.settle(settle(model, said[:60, None], targets[:60], Wanted(interval=0.9)).settled)
        held.append(scores(model, said[60:, None], targets[60:])["coverage"])
    assert 0.87 < np.mean(held) < 0.93


@pytest.mark.parametrize("rows", [100, 400])
@pytest.mark.parametrize("sign", [1, -1])
def test_intervals_are_wide_where_errors_are_large(rows: int, sign: int) -> None:
    draw = np.random.default_rng(rows)
    held, equal, wider = [], [], 0
    for _ in range(100):
        said = draw.uniform(1, 10, size=rows + 1000)
        # Errors of a tenth of the number, as those of prices are; and the same upside down.
        true = said + 0.1 * said * draw.normal(size=len(said))
        said, true = sign * said, sign * true
        model = Linear(NUMBERS)
        outputs, targets = torch.tensor(said)[:, None], torch.tensor(true)
        found = settle(model, outputs[:rows], targets[:rows], Wanted(interval=0.9))
        model.settle(found.settled)
        frame = Predictor(model, VectorEncoder(["x"])).frame(outputs[rows:])
        inside = ((frame["low"] <= true[rows:]) & (true[rows:] <= frame["high"])).to_numpy()
        assert scores(model, outputs[rows:], targets[rows:])["coverage"] == pytest.approx(inside.mean())
        large = np.abs(said[rows:]) > 7
        held.append([inside.mean(), inside[large].mean(), inside[~large].mean()])
        half = np.sort(np.abs(said - true)[:rows])[math.ceil(0.9 * (rows + 1)) - 1]
        equal.append((np.abs(said - true)[rows:] <= half)[large].mean())
        wider += f"wider where the prediction is {'larger' if sign > 0 else 'smaller'}" in found.notes[0]
    # As often as they say, on the whole and for each third, where equally wide ones fail the large numbers.
    assert all(0.87 < share < 0.93 for share in np.mean(held, 0))
    assert np.mean(equal) < 0.85 and wider >= 95


def test_the_half_width_is_the_residual_in_its_place_among_one_more() -> None:
    residuals = torch.tensor([3.0, -1, 4, -1.5, 9, 2, -6, 5, 3.5])
    found = settle(Linear(NUMBERS), residuals[:, None], torch.zeros(9), Wanted(interval=0.9))
    assert found.settled == Settled(level=0.9, half_width=9.0)
    # (9 + 1) · 0.8 = 8: the second largest.
    found = settle(Linear(NUMBERS), residuals[:, None], torch.zeros(9), Wanted(interval=0.8))
    assert found.settled.half_width == 6.0 and found.notes == ["80 % intervals: ± 6 MPa"]
    found = settle(Linear(NUMBERS), residuals[:8, None], torch.zeros(8), Wanted(interval=0.9))
    assert found.settled == Settled()
    assert found.notes == ["no 90 % intervals: 8 validation rows are too few (at least 9)"]


def imbalanced(samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(samples, 3))
    return x, (x @ [1.2, -0.8, 0.5] + draw.logistic(size=samples) > 3.5).astype(int)


@pytest.mark.parametrize("metric", ["f1", "balanced_accuracy"])
def test_a_threshold_for_a_metric_beats_one_half_where_a_class_is_rare(metric: str) -> None:
    fitted = LogisticRegression().fit(*imbalanced(2000, 0))
    logits, labels = {}, {}
    for seed in (1, 2):
        x, y = imbalanced(2000, seed)
        logits[seed] = torch.from_numpy(fitted.decision_function(x)[:, None]).float()
        labels[seed] = torch.from_numpy(y).float()
    model = Linear(YES_OR_NO)
    before = scores(model, logits[2], labels[2])[metric]
    found = settle(model, logits[1], labels[1], Wanted(metric=metric))
    model.settle(found.settled)
    decided = model.objective.decided(logits[2])
    assert torch.equal(decided, (logits[2][:, 0].sigmoid() > found.settled.threshold).long())
    by_hand = balanced_accuracy_score(labels[2], decided)
    if metric == "f1":
        by_hand = f1_score(labels[2], decided, average="macro")
    assert scores(model, logits[2], labels[2])[metric] == pytest.approx(by_hand)
    assert by_hand > before + 0.03
    assert f"{found.settled.threshold:.3g}, which is best for {metric}" in found.notes[0]


def test_too_few_of_a_class_leave_the_threshold_at_one_half() -> None:
    y = torch.tensor([1.0] * 9 + [0.0] * 91)
    found = settle(Linear(YES_OR_NO), torch.randn(100, 1), y, Wanted(metric="f1"))
    assert found.settled.threshold == 0.5 and "9 validation rows of one class are too few" in found.notes[0]


def test_costs_change_the_decision_as_computed_by_hand() -> None:
    costs = cost_matrix({"false_positive": 1, "false_negative": 5}, YES_OR_NO.classes)
    assert costs == ((0, 1), (5, 0)) == cost_matrix({"yes": {"no": 5}}, YES_OR_NO.classes)
    # Saying yes costs 1 - p, saying no 5 p: yes from a sixth on.
    assert least_cost_threshold(costs) == pytest.approx(1 / 6)
    model = Linear(YES_OR_NO)
    model.settle(Wanted(costs=costs).decision())
    p = torch.tensor([0.1, 0.16, 0.17, 0.4, 0.9])
    assert model.objective.decided(p.logit()[:, None]).tolist() == [0, 0, 1, 1, 1]

    costs = cost_matrix({"c": {"a": 10, "b": 10}}, THREE.classes)
    model = Linear(THREE)
    model.settle(Wanted(costs=costs).decision())
    p = torch.tensor([[0.6, 0.35, 0.05], [0.6, 0.3, 0.1], [0.2, 0.75, 0.05]])
    # a costs p(b) + 10 p(c), b costs p(a) + 10 p(c), c costs p(a) + p(b):
    # 0.85, 1.1, 0.95 -> a; 1.3, 1.6, 0.9 -> c; 1.25, 0.7, 0.95 -> b.
    assert model.objective.decided(p.log()).tolist() == [0, 2, 1]
    found = scores(model, p.log(), torch.tensor([0, 2, 2]))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["balanced_accuracy"] == pytest.approx(0.75)


def test_costs_that_do_not_fit_are_refused() -> None:
    for costs, said in (
        ({"maybe": {"no": 2}}, "data.costs.maybe"),
        ({"no": {"no": 2}}, "data.costs.no.no"),
        ({"false_positive": 0}, "expected a cost above 0"),
    ):
        with pytest.raises(UserError, match=said):
            cost_matrix(costs, YES_OR_NO.classes)


def test_what_is_settled_survives_as_json() -> None:
    for settled in (
        Settled(),
        Settled(1.5, 0.3),
        Settled(0.7, costs=((0.0, 1.0), (2.0, 0.0))),
        Settled(level=0.9, half_width=2.5),
        Settled(level=0.9, half_width=2.5, widths=((-1.0, 1.5), (4.0, 6.0))),
    ):
        assert Settled.from_dict(settled.to_dict()) == settled
    assert Settled.from_dict(None) == Settled() and Settled().to_dict() == {}
    assert Settled(2.0, 0.25).logit == pytest.approx(2 * math.log(1 / 3))
