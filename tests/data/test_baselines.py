"""Common-sense baselines against scikit-learn's dummies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LinearRegression
from sklearn.metrics import (
    balanced_accuracy_score,
    f1_score,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    median_absolute_error,
    r2_score,
)

from pipeline.data.core import baselines
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Rows

X, OTHER = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.randn(20, 3)


def test_majority_is_the_most_frequent_class_of_training() -> None:
    spec = Spec("multiclass", "vector", (3,), 4, ("a", "b", "c", "d"))
    train, test = torch.tensor([2] * 20 + [0] * 15 + [1] * 5), torch.tensor([0] * 12 + [2] * 5 + [3] * 3)
    found = baselines.majority(Rows(X, train), Rows(OTHER, test), spec)
    dummy = DummyClassifier(strategy="most_frequent").fit(X, train)
    assert found["accuracy"] == dummy.score(OTHER, test) == 0.25
    assert found["f1"] == pytest.approx(f1_score(test, dummy.predict(OTHER), average="macro"))
    p = (np.array([15, 5, 20, 0]) + 1) / 44
    assert [found["loss"], found["log_loss"]] == pytest.approx([-np.log(p[test]).mean()] * 2)
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(test, dummy.predict(OTHER)))
    # Whoever says the same of every row ranks none above another.
    assert found["roc_auc"] == 0.5
    assert found["average_precision"] == pytest.approx(np.mean([12 / 20, 5 / 20, 3 / 20]))


def test_majority_of_yes_and_no() -> None:
    spec = Spec("binary", "vector", (3,), 1, ("no", "yes"))
    train, test = torch.tensor([1.0] * 25 + [0.0] * 15), torch.tensor([1.0] * 5 + [0.0] * 15)
    assert baselines.majority(Rows(X, train), Rows(OTHER, test), spec)["accuracy"] == 0.25


def test_mean_is_that_of_training() -> None:
    spec = Spec("regression", "vector", (3,), 1, target_std=2.0)
    train, test = X[:, :1] * 3 + 1, OTHER[:, :1]
    found = baselines.mean(Rows(X, train), Rows(OTHER, test), spec)
    predicted = DummyRegressor().fit(X, train).predict(OTHER)
    assert found["mae"] == pytest.approx(mean_absolute_error(test, predicted))
    assert found["mse"] == pytest.approx(mean_squared_error(test, predicted))
    assert found["loss"] == pytest.approx(found["mse"] / 4)
    assert found["r2"] == pytest.approx(r2_score(test, predicted))
    assert found["median_absolute_error"] == pytest.approx(median_absolute_error(test, predicted))
    assert found["mape"] == pytest.approx(mean_absolute_percentage_error(test, predicted))


def test_linear_regression_is_least_squares() -> None:
    spec = Spec("regression", "vector", (3,), 1)
    train, test = (X @ torch.tensor([[1.0], [-2.0], [0.5]])).square(), OTHER[:, :1]
    found = baselines.linear_regression(Rows(X, train), Rows(OTHER, test), spec)
    predicted = LinearRegression().fit(X, train).predict(OTHER)
    assert found["mae"] == pytest.approx(mean_absolute_error(test, predicted), rel=1e-5)
    assert found["r2"] == pytest.approx(r2_score(test, predicted), rel=1e-5)
    assert baselines.defaults(spec) == {"mean": baselines.mean}
