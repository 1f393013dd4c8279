"""Boston housing and its stand-in."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.tables.housing import COLUMNS, Housing
from pipeline.errors import UserError


def test_without_the_file_the_embedded_data_takes_its_place_loudly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = Housing(data_dir=tmp_path, fallback="diabetes")
    with caplog.at_level(logging.WARNING):
        data.prepare_data()
    assert "embedded stand-in 'diabetes'" in caplog.text
    data.setup()
    assert (data.requested, data.used) == ("boston_housing", "diabetes")
    assert sum(len(split or ()) for split in (data.train, data.validation, data.test)) == 442
    with pytest.raises(UserError, match=r"housing\.data"):
        Housing(data_dir=tmp_path).prepare_data()
    with pytest.raises(UserError, match="expected diabetes or null"):
        Housing(data_dir=tmp_path, fallback="digits").prepare_data()


def test_linear_regression_as_scikit_learn_does_it(tmp_path: Path) -> None:
    from sklearn.linear_model import LinearRegression

    data = Housing(data_dir=tmp_path, fallback="diabetes")
    data.setup()
    assert data.test is not None
    (x, y), (test_x, test_y) = (split.take(torch.arange(len(split))) for split in (data.train, data.test))
    model = LinearRegression().fit(x.double().numpy(), y.numpy())
    error = model.predict(test_x.double().numpy()) - test_y.numpy()
    found = data.baselines()["linear"](data.train, data.test, data.spec)
    assert found["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-4)
    assert found["loss"] == pytest.approx((error**2).mean() / y.numpy().var(), rel=1e-4)


@pytest.mark.real_data
def test_boston_housing_is_standardised_by_each_fold_s_training_rows(real_data: Path, tmp_path: Path) -> None:
    table = np.array((real_data / "housing.data").read_text().split(), dtype=float).reshape(506, 14)
    prices: list[float] = []
    for fold in range(4):
        data = Housing(data_dir=tmp_path, folds=4, fold=fold, test_fraction=0.0)
        data.prepare_data()
        data.setup()
        assert data.used == "boston_housing" and data.encoder.columns == COLUMNS
        x, y = data.train.take(torch.arange(len(data.train)))
        np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(x.std(0, correction=0), 1, atol=1e-4)
        assert data.validation is not None
        prices += data.validation.y.tolist()
        assert data.spec.target_mean == pytest.approx(float(y.double().mean()))
    np.testing.assert_allclose(sorted(prices), sorted(table[:, 13]), rtol=1e-6)
