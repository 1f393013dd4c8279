"""Encoded rows of a table as a split."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.data.core.splits import Rows


class TableRows(Rows):
    """Table rows whose one-hot blocks are expanded a batch at a time: in memory a category takes 4 bytes a row.

    Args:
        x: the dense part, (samples, dense width).
        indices: (samples, category columns), which inputs are 1.
        width: number of model inputs.
        y: targets.
    """

    def __init__(self, x: Tensor, indices: Tensor, width: int, y: Tensor) -> None:
        super().__init__(x, y)
        self.indices, self.width = indices, width

    def _inputs(self, rows: Tensor) -> Tensor:
        assert isinstance(self.x, Tensor)
        if not self.indices.shape[1]:
            return self.x[rows]
        return expand(self.x[rows], self.indices[rows], self.width)

    def subset(self, rows: Tensor) -> TableRows:
        assert isinstance(self.x, Tensor)
        return TableRows(self.x[rows], self.indices[rows], self.width, self.y[rows])

    def joined(self, other: Rows) -> TableRows:
        assert isinstance(other, TableRows)
        pairs = ((self.x, other.x), (self.indices, other.indices), (self.y, other.y))
        x, indices, y = (torch.cat([torch.as_tensor(one), torch.as_tensor(two)]) for one, two in pairs)
        return TableRows(x, indices, self.width, y)

    def to(self, device: torch.device) -> TableRows:
        assert isinstance(self.x, Tensor)
        return TableRows(self.x.to(device), self.indices.to(device), self.width, self.y.to(device))

    def mostly_zeros(self, times: float) -> tuple[Tensor, Tensor] | None:
        """The inputs that are not 0 for being another category, as values and places, (samples, that many) each.

        Args:
            times: So many times as many inputs there are at least; None where there are fewer.
        """
        assert isinstance(self.x, Tensor)
        dense, categories = self.x.shape[1], self.indices.shape[1]
        if not categories or self.width < times * (dense + categories):
            return None
        places = torch.arange(dense, dtype=torch.int32).expand(len(self), -1)
        values = torch.cat([self.x, torch.ones(len(self), categories)], 1)
        return values, torch.cat([places, self.indices.int()], 1)

    @property
    def nbytes(self) -> int:
        return super().nbytes + self.indices.nbytes


def expand(dense: Tensor, codes: Tensor, width: int) -> Tensor:
    """Dense inputs followed by zeros, with 1 at each row's codes."""
    if not codes.shape[1]:
        return dense
    x = torch.zeros(len(dense), width, device=dense.device)
    x[:, : dense.shape[1]] = dense
    return x.scatter_(1, codes.long(), 1.0)
