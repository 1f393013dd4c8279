"""Generated daily sales: a trend, a week, a year, holidays and promotions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data.series.series import Series
from pipeline.data.tables.frames import table_of_frame
from pipeline.data.tables.values import Table

if TYPE_CHECKING:
    import pandas as pd

HOLIDAYS = ("01-01", "05-01", "10-03", "12-24", "12-25", "12-26", "12-31")


class Sales(Series):
    """Units sold each day in some shops; holidays and promotions are known ahead, the temperature is not.

    Args:
        days: Number of days.
        shops: Number of shops, each with a level and a trend of its own.
        noise: Standard deviation of a day's chance, as a share of what is expected.
        world_seed: Seed of the numbers.
        **shared: Settings of a series, see :class:`Series`.
    """

    def __init__(
        self, days: int = 1095, shops: int = 3, noise: float = 0.06, world_seed: int = 0, **shared: Any
    ) -> None:
        columns = {"target": "units", "time": "date", "key": "shop"}
        super().__init__(**{**columns, "known": ["holiday", "promotion"], "past": ["temperature"], **shared})
        self.days, self.shops, self.noise, self.world_seed = days, shops, noise, world_seed

    def table(self) -> Table:
        self.source = f"generated: {self.days} days, {self.shops} shops"
        frame = sales(self.days, self.shops, self.noise, self.world_seed)
        return Table(table_of_frame(frame), self.source)


def sales(days: int = 1095, shops: int = 3, noise: float = 0.06, seed: int = 0) -> pd.DataFrame:
    """A row a day and shop: ``date, shop, units, holiday, promotion, temperature``."""
    import pandas as pd

    random = np.random.default_rng(seed)
    dates = pd.date_range("2023-01-01", periods=days, freq="D")
    week = np.array([0.9, 0.85, 0.9, 1.0, 1.25, 1.5, 0.6])[dates.dayofweek]
    year = 1 + 0.15 * np.sin(2 * np.pi * (dates.dayofyear.to_numpy() - 80) / 365.25)
    holiday = np.isin(dates.strftime("%m-%d"), HOLIDAYS).astype(int)
    temperature = (
        11 - 10 * np.cos(2 * np.pi * dates.dayofyear.to_numpy() / 365.25) + random.normal(0, 3, days)
    )
    parts = []
    for shop in range(shops):
        level, trend = random.uniform(80, 320), random.uniform(0.0001, 0.0006)
        promotion = np.zeros(days, dtype=int)
        for start in random.choice(days, days // 40, replace=False):
            promotion[start : start + 5] = 1
        expected = level * (1 + trend * np.arange(days)) * week * year
        expected = expected * (1 - 0.65 * holiday) * (1 + 0.4 * promotion) * (1 + 0.004 * (temperature - 11))
        units = np.round(expected * random.normal(1, noise, days)).clip(0)
        parts.append(
            pd.DataFrame(
                {
                    "date": dates.strftime("%Y-%m-%d"),
                    "shop": f"shop {shop + 1}",
                    "units": units.astype(int),
                    "holiday": holiday,
                    "promotion": promotion,
                    "temperature": temperature.round(1),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)
