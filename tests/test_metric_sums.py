"""Metrics summed over batches equal scikit-learn's over the whole."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from pipeline.data.core.measures import ranking
from pipeline.data.core.spec import Spec
from pipeline.data.core.sums import Sums

CLASSES = Spec("multiclass", "vector", (4,), 4, ("a", "b", "c", "d"), top_k=2)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_classes() -> None:
    logits, y = random(101, 4), torch.randint(0, 4, (101,), generator=torch.Generator().manual_seed(1))
    sums = Sums(CLASSES, confusion=True)
    for start in (0, 40, 100):
        rows = slice(start, start + (40 if start == 0 else 60 if start == 40 else 1))
        loss = torch.nn.functional.cross_entropy(logits[rows], y[rows])
        sums.add(loss, logits[rows], y[rows], 0.0)
    p = logits.double().softmax(1).numpy()
    found = sums.metrics()
    assert found["accuracy"] == sk.accuracy_score(y, p.argmax(1))
    assert found["f1"] == pytest.approx(sk.f1_score(y, p.argmax(1), average="macro"))
    assert found["loss"] == pytest.approx(sk.log_loss(y, p), rel=1e-6)
    assert found["hit_rate_at_2"] == pytest.approx(sk.top_k_accuracy_score(y, p, k=2))


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_yes_and_no(threshold: float) -> None:
    spec = Spec("binary", "vector", (4,), 1, ("no", "yes"))
    logits, y = random(60, 1), (random(60, seed=1) > 0.3).float()
    sums = Sums(spec, confusion=True)
    for rows in torch.arange(60).split(25):
        sums.add(torch.tensor(0.0), logits[rows], y[rows], threshold)
    predicted = logits[:, 0] > threshold
    assert sums.metrics()["accuracy"] == pytest.approx(sk.accuracy_score(y, predicted))
    assert sums.metrics()["f1"] == pytest.approx(sk.f1_score(y, predicted, average="macro"))


def test_numbers() -> None:
    predicted, y = random(30, 1), random(30, 1, seed=1)
    sums = Sums(Spec("regression", "vector", (4,), 1))
    for rows in torch.arange(30).split(8):
        sums.add(torch.tensor(1.0), predicted[rows], y[rows], 0.0)
    found = sums.metrics()
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(y, predicted), rel=1e-6)
    assert found["mse"] == pytest.approx(sk.mean_squared_error(y, predicted), rel=1e-6)
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(y, predicted), rel=1e-6)


def test_steps_of_a_sequence_without_a_target_do_not_count() -> None:
    spec = Spec("multiclass", "tokens", (0,), 3, ("", "a", "b"), per_step=True, vocabulary=3)
    logits, y = random(2, 5, 3), torch.tensor([[0, 1, 2, -1, -1], [2, 2, -1, -1, -1]])
    sums = Sums(spec, confusion=True)
    sums.add(torch.tensor(1.5), logits, y, 0.0)
    known = y >= 0
    assert sums.count == 5
    assert sums.metrics()["accuracy"] == pytest.approx(sk.accuracy_score(y[known], logits[known].argmax(1)))
    assert sums.metrics()["bits_per_char"] == pytest.approx(1.5 / math.log(2))


def test_nothing_counted_gives_no_metrics() -> None:
    sums = Sums(CLASSES)
    assert sums.metrics() == {}
    assert math.isnan(sums.mean_loss())


def test_a_dump_goes_on_where_it_was() -> None:
    logits, y = random(20, 4), torch.arange(20) % 4
    whole, half, other = Sums(CLASSES), Sums(CLASSES), Sums(CLASSES)
    for sums in (whole, half):
        sums.add(torch.tensor(0.7), logits[:10], y[:10], 0.0)
    other.load(half.dump())
    for sums in (whole, other):
        sums.add(torch.tensor(0.3), logits[10:], y[10:], 0.0)
    assert other.metrics() == whole.metrics()


def test_ranking_equals_scikit_learn() -> None:
    p, y = random(80, 3).softmax(1), torch.arange(80) % 3
    found = ranking(p, y)
    areas = [sk.roc_auc_score(y == c, p[:, c]) for c in range(3)]
    precisions = [sk.average_precision_score(y == c, p[:, c]) for c in range(3)]
    assert found["roc_auc"] == pytest.approx(np.mean(areas))
    assert found["average_precision"] == pytest.approx(np.mean(precisions))
    two = ranking(p[:, :2], y.clamp(max=1))
    assert two["roc_auc"] == pytest.approx(sk.roc_auc_score(y.clamp(max=1), p[:, 1]))
    assert ranking(p, torch.zeros(80)) == {}


def test_one_sample_at_a_time_sums_up_as_tensors_do() -> None:
    spec = Spec("regression", "vector", (4,), 1)
    logits, y = random(200, 1) * 10, random(200, 1, seed=1)
    alone, first, second = Sums(spec), 0.0, 0.0
    for row in range(200):
        alone.add(torch.zeros(()), logits[row : row + 1], y[row : row + 1], 0.0)
        error = logits[row] - y[row]
        first, second = first + float(error.abs().sum()), second + float(error.square().sum())
    assert (alone.first, alone.second, alone.count) == (first, second, 200)
