"""Boston housing: 506 districts, 13 numbers each, the median price of a house."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch

from pipeline.data.core.encoder import VectorEncoder
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Rows
from pipeline.data.core.splitting import drawn
from pipeline.data.sources import catalogue
from pipeline.data.sources import finding as sources
from pipeline.data.tables.refolding import Refoldable
from pipeline.settings import BELOW_ONE

if TYPE_CHECKING:
    from pipeline.data.core.baselines import Baseline

COLUMNS = ["CRIM", "ZN", "INDUS", "CHAS", "NOX", "RM", "AGE", "DIS", "RAD", "TAX", "PTRATIO", "B", "LSTAT"]


class Housing(Refoldable):
    """Boston housing, or scikit-learn's embedded diabetes data in its place.

    Args:
        name: Name of the data set, shown and tagged.
        test_fraction: Share of the rows that only the test sees.
        **shared: Settings that every data set takes, see :class:`~pipeline.data.core.module.DataModule`.
    """

    encoder: VectorEncoder

    stand_ins = ("diabetes",)

    def __init__(
        self, name: str = "boston_housing", test_fraction: Annotated[float, BELOW_ONE] = 0.2, **shared: Any
    ) -> None:
        super().__init__(name=name, **shared)
        self.test_fraction = test_fraction

    def prepare_data(self) -> None:
        """Find or download the file; fall back to the stand-in where there is none and one is named."""
        try:
            self._file()
        except sources.DataUnavailable as error:
            self.stand_in(error)

    def setup(self, stage: str | None = None) -> None:
        x, y, columns, target, unit = self._table()
        test = drawn(len(y), self.test_fraction, self.seed)
        pool = np.delete(np.arange(len(y)), test)
        train, validation = (
            pool[rows.numpy()] for rows in self.split_rows(torch.from_numpy(y[pool]), stratify=False)
        )
        if self.train_on_all:
            train = pool
        self.encoder = VectorEncoder.fit(x[train], columns)

        def rows(numbers: np.ndarray) -> Rows:
            return Rows(self.encoder.encode(x[numbers]), torch.from_numpy(y[numbers].astype(np.float32)))

        self.train = rows(train)
        self.validation = rows(validation) if len(validation) else None
        self.test = rows(test) if len(test) else None
        self.spec = Spec(
            task="regression",
            input="vector",
            input_shape=(len(columns),),
            outputs=1,
            target_name=target,
            target_unit=unit,
            target_mean=float(y[train].mean()),
            target_std=float(y[train].std()),
        )

    def baselines(self) -> dict[str, Baseline]:
        """The mean of the training prices, and ordinary least squares."""
        from pipeline.data.core.baselines import linear_regression

        return super().baselines() | {"linear": linear_regression}

    def _file(self, download: bool = True) -> Path:
        return sources.locate(catalogue.BOSTON_HOUSING, self.data_dir, sources.search_path(), download)

    def _table(self) -> tuple[np.ndarray, np.ndarray, list[str], str, str]:
        """Features (rows, columns), targets, names of the columns, of the target, and its unit."""
        try:
            path = self._file(download=False)
        except sources.DataUnavailable as error:
            self.stand_in(error)
            return _diabetes()
        self.source = str(path)
        # Fourteen numbers a record; in some copies a record takes two lines.
        values = np.loadtxt(StringIO(" ".join(path.read_text().split()))).reshape(-1, len(COLUMNS) + 1)
        return values[:, :-1], values[:, -1], COLUMNS, "MEDV", "thousand dollars"


def _diabetes() -> tuple[np.ndarray, np.ndarray, list[str], str, str]:
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(scaled=False)
    return bunch.data, bunch.target, list(bunch.feature_names), "progression", ""
