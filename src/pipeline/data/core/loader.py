"""The loader that a trainer reads: whole batches from a split in memory, several to a Lightning step."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Augment, Batch, Chunk, Rows


class Loader:
    """An epoch of a split as chunks of batches.

    The order of an epoch depends on ``seed`` and the epoch's number alone, so that a run that was interrupted in the
    middle of one goes on with the batches that an uninterrupted run would have seen.

    Args:
        split: Split with the samples.
        batch_size: Number of samples in a batch (of this process).
        shuffle: Whether each epoch has a new order.
        seed: Seed of the order.
        chunk: Number of batches in a Lightning step.
        rank: Number of this process among ``world_size`` that share the samples.
        world_size: Number of processes.
        augment: Function that is applied to the inputs of each batch.
    """

    def __init__(
        self,
        split: Rows,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        chunk: int = 1,
        rank: int = 0,
        world_size: int = 1,
        augment: Augment | None = None,
    ) -> None:
        self.split, self.batch_size, self.shuffle, self.seed = split, batch_size, shuffle, seed
        self.chunk, self.rank, self.world_size, self.augment = chunk, rank, world_size, augment
        self._epoch = 0
        self._first_chunk = 0
        self.device: torch.device | None = None
        self._in_order: list[Tensor] | None = None

    def go_to(self, epoch: int, batch: int = 0) -> None:
        """Begin the next time at a batch (counted from 0, the first of its chunk) of an epoch (counted from 0)."""
        self._epoch, self._first_chunk = epoch, batch // self.chunk

    def move(self, device: torch.device) -> None:
        """Put the whole split on ``device`` if it fits in a third of its free memory, else move each batch."""
        if device.type == "cpu" or self.device == device:
            return
        if device.type == "cuda" and self.split.nbytes < torch.cuda.mem_get_info(device)[0] / 3:
            self.split = self.split.to(device)
        self.device = device

    @property
    def batches(self) -> int:
        """Batches in an epoch."""
        return self.split.batches(self.batch_size * self.world_size)

    def __len__(self) -> int:
        return -(-self.batches // self.chunk)

    def rows(self, epoch: int) -> list[Tensor]:
        """The row numbers of each batch of ``epoch``, for this process."""
        if self.shuffle:
            return self._rows(torch.Generator().manual_seed(self.seed * 1_000_003 + epoch))
        if self._in_order is None:
            # The same in every epoch: where a batch is the whole split, making it takes as long as taking it.
            self._in_order = self._rows(None)
        return self._in_order

    def _rows(self, generator: torch.Generator | None) -> list[Tensor]:
        batches = self.split.order(self.batch_size * self.world_size, generator)
        if self.world_size == 1:
            return batches
        # Every process needs the same number of samples, or the last gradient exchange would wait for ever:
        # the last batch is filled up from the beginning of the epoch.
        batches = list(batches)
        last, missing = batches[-1], -len(batches[-1]) % self.world_size
        batches[-1] = torch.cat([last, torch.cat(batches)[:missing]])
        return [batch[self.rank :: self.world_size] for batch in batches]

    def __iter__(self) -> Iterator[Chunk]:
        # Read when the first batch is asked for: Lightning creates the iterator before it says which epoch it is.
        first, self._first_chunk = self._first_chunk, 0
        rows = self.rows(self._epoch)
        ahead = self.split.stream(rows[first * self.chunk :]) if self.split.streams else None
        for start in range(first * self.chunk, len(rows), self.chunk):
            yield Chunk(self.split, rows[start : start + self.chunk], self.device, self.augment, ahead)


class Batches:
    """A loader's batches one by one, as any LightningModule takes them: pairs of inputs and targets.

    Images come as float with the training split's mean 0 and deviation 1.

    Args:
        loader: The loader.
        spec: Description of the data.
    """

    def __init__(self, loader: Loader, spec: Spec) -> None:
        self.loader, self.spec = loader, spec
        # Lightning tells samplers, not loaders, which epoch it is.
        self.sampler = self
        self.batch_sampler = None
        self.batch_size = loader.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Begin the next time with this epoch (from 0)."""
        self.loader.go_to(epoch)

    def __len__(self) -> int:
        return self.loader.batches

    def __iter__(self) -> Iterator[Batch]:
        for chunk in self.loader:
            for x, y in chunk:
                yield self.spec.normalised(x), y
