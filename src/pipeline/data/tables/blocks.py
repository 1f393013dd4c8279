"""Rows of memory-mapped arrays in blocks, which are shuffled and read without holding the table in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from pipeline.data.core.splits import Batch, Rows, chosen

BLOCK = 8192
"""Rows that stay together on disk and in a split: at 30 columns, one megabyte."""
WINDOW = 64
"""Blocks whose rows are shuffled among each other."""
IN_ORDER_ROWS = 10_000_000
"""Largest number of row numbers that are simply listed where nothing is shuffled."""


class BlockRows(Rows):
    """Some blocks of rows of memory-mapped arrays.

    An epoch goes through the blocks in a random order, ``WINDOW`` of them at a time, whose rows are shuffled among each
    other: nearly as random as a permutation of all rows, which would take 8 bytes a row and read the disk at random.

    Args:
        x: Inputs of the whole table, (rows, columns), mapped.
        y: Targets of the whole table, mapped.
        blocks: Numbers of the blocks of ``block`` rows that belong to this split, ascending.
        shift: Number that is subtracted from each column, (columns,).
        scale: Number that each column is divided by, (columns,); a missing value becomes 0, the mean.
        block: Number of rows in a block.
    """

    def __init__(
        self, x: Tensor, y: Tensor, blocks: np.ndarray, shift: Tensor, scale: Tensor, block: int = BLOCK
    ) -> None:
        self.whole_x, self.whole_y = x, y
        self.blocks, self.block = torch.from_numpy(blocks.astype(np.int64)), block
        self.shift, self.scale = shift, scale
        full = len(blocks) * block
        # The table's last block, which may be shorter, is the last of the split that has it.
        self.rows = full - max(0, (int(blocks[-1]) + 1) * block - len(y)) if len(blocks) else 0

    def __len__(self) -> int:
        return self.rows

    @property
    def y(self) -> Tensor:  # type: ignore[override]
        """All targets of the split (made anew: they may take much memory)."""
        return torch.cat([self.whole_y[start:stop] for start, stop in self._spans()])

    @property
    def x(self) -> np.ndarray:  # type: ignore[override]
        """The first rows as they are on disk, by which the table is recognised."""
        start, stop = next(self._spans())
        return self.whole_x[start:stop].numpy()

    def _spans(self) -> Iterator[tuple[int, int]]:
        for number in self.blocks.tolist():
            yield number * self.block, min((number + 1) * self.block, len(self.whole_y))

    def order(self, batch_size: int, generator: torch.Generator | None = None) -> Any:
        if generator is None and len(self) < IN_ORDER_ROWS:
            return super().order(batch_size)
        return BlockOrder(self, batch_size, generator)

    def take(self, rows: Tensor) -> Batch:
        place = self.blocks[rows // self.block] * self.block + rows % self.block
        values = (chosen(self.whole_x, place) - self.shift) / self.scale
        return values.nan_to_num_(0.0), chosen(self.whole_y, place)

    def _inputs(self, rows: Tensor) -> Tensor:
        return self.take(rows)[0]

    def subset(self, rows: Tensor) -> Rows:
        return Rows(*self.take(rows))

    def to(self, device: torch.device) -> BlockRows:
        return self

    @property
    def nbytes(self) -> int:
        return len(self) * self.whole_x.shape[1] * self.whole_x.element_size()


class BlockOrder(Sequence[Tensor]):
    """The batches of an epoch, each made when it is asked for.

    Args:
        split: Split whose rows are put into batches.
        batch_size: Number of rows in a batch.
        generator: Generator that shuffles; None leaves everything in order.
    """

    def __init__(self, split: BlockRows, batch_size: int, generator: torch.Generator | None) -> None:
        self.split, self.batch_size = split, batch_size
        count = len(split.blocks)
        self.seed: int | None = None
        self.sequence = torch.arange(count)
        if generator is not None:
            self.seed = int(torch.randint(2**62, (1,), generator=generator))
            # The shorter last block stays at the end, so that a row's place follows from its number.
            short = len(split) % split.block != 0
            self.sequence[: count - short] = torch.randperm(count - short, generator=generator)
        self._window: tuple[int, Tensor] = (-1, torch.empty(0))

    def __len__(self) -> int:
        return math.ceil(len(self.split) / self.batch_size)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...

    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        if isinstance(index, slice):
            return [self._batch(number) for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._batch(index % len(self))

    def _batch(self, number: int) -> Tensor:
        start = number * self.batch_size
        stop = min(start + self.batch_size, len(self.split))
        if self.seed is None:
            return torch.arange(start, stop)
        per_window = WINDOW * self.split.block
        parts = []
        while start < stop:
            window, offset = divmod(start, per_window)
            end = min(stop - window * per_window, per_window)
            parts.append(self._rows_of(window)[offset:end])
            start = window * per_window + end
        return torch.cat(parts)

    def _rows_of(self, window: int) -> Tensor:
        """The rows of one window, shuffled; the last one asked for is kept."""
        if self._window[0] != window:
            blocks = self.sequence[window * WINDOW : (window + 1) * WINDOW]
            rows = (blocks[:, None] * self.split.block + torch.arange(self.split.block)).flatten()
            rows = rows[rows < len(self.split)]
            assert self.seed is not None
            generator = torch.Generator().manual_seed(self.seed ^ window)
            self._window = (window, rows[torch.randperm(len(rows), generator=generator)])
        return self._window[1]
