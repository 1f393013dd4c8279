"""Rows that are unlike the training rows: a cheap test, column by column, on what the model sees of them.

How surprising a value is, is minus the logarithm of how often training rows have one like it: for a number the share
of them that lie as far out on its side, for a category the share that has it. A number beyond all of them is the more
surprising the farther away it is. A row is as surprising as its most surprising value. It is unusual where it is more
so than 99 of 100 training rows, each of them seen as if it were new: an outermost value is measured by the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SHARE = 0.01
"""Share of the training rows that would be called unusual."""
LEAST_ROWS = 50
"""Training rows below which nothing can be said."""
_MOST_ROWS = 50_000
_TAIL = (0.0, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.35)
_PLACES = np.array([*_TAIL, 0.5, *(1 - place for place in reversed(_TAIL))])


@dataclass(frozen=True)
class Usual:
    """What training rows look like.

    Args:
        rows: Number of training rows.
        knots: Quantiles of each dense input, (inputs, places).
        shares: Share of the training rows that has each category, for each category column.
        limit: Surprise above which a row is unusual.
    """

    rows: int
    knots: np.ndarray
    shares: list[np.ndarray]
    limit: float

    @classmethod
    def fit(cls, dense: np.ndarray, codes: np.ndarray, blocks: Sequence[range]) -> Usual | None:
        """From the training rows; None where they are too few.

        Args:
            dense: Dense inputs, (rows, inputs).
            codes: Which inputs are 1, (rows, category columns).
            blocks: Inputs of each category column.
        """
        if len(dense) < LEAST_ROWS:
            return None
        if len(dense) > _MOST_ROWS:
            some = np.random.default_rng(0).permutation(len(dense))[:_MOST_ROWS]
            dense, codes = dense[some], codes[some]
        rows = len(dense)
        # As they are written, so that a saved model says the same.
        knots = np.quantile(dense, _PLACES, axis=0).T.astype(np.float32).astype(np.float64)
        shares = [
            np.bincount(codes[:, column] - block.start, minlength=len(block)) / rows
            for column, block in enumerate(blocks)
        ]
        found = cls(rows, knots, shares, np.inf)
        surprises = found._surprises(found._as_new(dense), codes)
        limit = float(np.quantile(surprises, 1 - SHARE, method="higher"))
        return cls(rows, knots, shares, limit)

    def flags(self, dense: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Whether each row is unusual, (rows,); see :meth:`fit` for the arguments."""
        # Float32 inputs of another batch differ in their last bits.
        return np.asarray(self._surprises(dense, codes) > self.limit * (1 + 1e-6))

    def state(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "rows": self.rows,
            "limit": self.limit,
            "knots": [[float(f"{knot:.9g}") for knot in row] for row in self.knots.tolist()],
            "shares": [share.tolist() for share in self.shares],
        }

    @classmethod
    def of(cls, state: dict[str, Any]) -> Usual:
        """The inverse of :meth:`state`."""
        knots = np.array(state["knots"], dtype=np.float32).astype(np.float64)
        shares = [np.array(share) for share in state["shares"]]
        return cls(int(state["rows"]), knots.reshape(-1, len(_PLACES)), shares, float(state["limit"]))

    def _as_new(self, dense: np.ndarray) -> np.ndarray:
        """The training rows as far beyond the others as if they had been none of them.

        A column's single largest value lies beyond the second largest by their distance; it is put as far beyond the
        largest, which is what it is measured by.
        """
        shifted = dense.astype(np.float64)
        if not shifted.shape[1]:
            return shifted
        columns = np.arange(shifted.shape[1])
        for sign in (1.0, -1.0):
            order = np.argpartition(sign * dense, -2, axis=0)[-2:]
            ends = sign * dense[order, columns].astype(np.float64)
            largest = order[ends.argmax(0), columns]
            shifted[largest, columns] += sign * np.abs(ends[1] - ends[0])
        return shifted

    def _surprises(self, dense: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """How surprising the most surprising value of each row is."""
        most = np.zeros(len(dense))
        unseen = np.log10(self.rows + 1)
        for column, knots in enumerate(self.knots):
            values = dense[:, column].astype(np.float64)
            below = np.interp(values, knots, _PLACES)
            above = np.interp(-values, -knots[::-1], 1 - _PLACES[::-1])
            share = np.clip(2 * np.minimum(below, above), 1 / (self.rows + 1), 1)
            beyond = np.maximum(np.maximum(values - knots[-1], knots[0] - values), 0)
            # In units of what lies between the outer tenths; of a column that is nearly always the same, of its range.
            spread = (knots[-10] - knots[9]) or (knots[-1] - knots[0]) or 1e-3
            most = np.maximum(most, np.where(beyond > 0, unseen + beyond / spread, -np.log10(share)))
        start = self.knots.shape[0]
        for column, shares in enumerate(self.shares):
            # A category that no training row has: less than one in so many.
            surprise = np.where(shares > 0, -np.log10(np.maximum(shares, 1e-12)), unseen + 1)
            most = np.maximum(most, surprise[codes[:, column] - start])
            start += len(shares)
        return most
