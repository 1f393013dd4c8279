"""A split of a data set in memory, fetched a batch at a time.

Every split answers three questions: how many samples it has, in which batches an epoch goes through them
(``order``), and what the tensors of one batch are (``take``). A batch is taken with one gather, never put together
from samples: collating 128 samples one by one costs more than a small model's training step. A loader deals in row
numbers alone; a ``Chunk`` takes the batches of one Lightning step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]
Augment = Callable[[Tensor], Tensor]


class Rows:
    """Samples as rows of one array.

    Args:
        x: Model input, (samples, ...): a tensor, or a NumPy memory map for data larger than memory.
        y: Targets, (samples, ...).
    """

    def __init__(self, x: Tensor | np.ndarray, y: Tensor) -> None:
        if len(x) != len(y):
            raise ValueError(f"{len(x)} inputs but {len(y)} targets")
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def order(self, batch_size: int, generator: torch.Generator | None = None) -> list[Tensor]:
        """The row numbers of every batch of one epoch: shuffled by ``generator``, in order without one."""
        n = len(self)
        rows = torch.arange(n) if generator is None else torch.randperm(n, generator=generator)
        return list(rows.split(batch_size))

    streams = False
    """Whether batches are better taken ahead, all of an epoch's one after the other."""
    decodes = False
    """Whether samples are decoded from their files whenever they are taken."""

    def batches(self, batch_size: int) -> int:
        """How many batches :meth:`order` gives."""
        return -(-len(self) // batch_size)

    @property
    def raw(self) -> Rows:
        """The samples as the data set has them, whatever a model that learns from features of them sees."""
        return self

    @property
    def samples(self) -> int:
        """How many samples an epoch trains on (throughput is counted in them)."""
        return len(self)

    def take(self, rows: Tensor) -> Batch:
        """Inputs and targets of ``rows``, in that order."""
        return self._inputs(rows), chosen(self.y, rows)

    def stream(self, batches: Sequence[Tensor]) -> Iterator[Batch]:
        """The batches of these row numbers one after the other, each taken when it is asked for, or ahead.

        Args:
            batches: Row numbers of each batch.
        """
        yield from (self.take(rows) for rows in batches)

    def _inputs(self, rows: Tensor) -> Tensor:
        if isinstance(self.x, Tensor):
            return chosen(self.x, rows)
        # A memory map is read in file order (one pass of the disk), then put into the batch's order.
        numbers = rows.numpy()
        ascending = np.argsort(numbers)
        values = np.empty((len(numbers), *self.x.shape[1:]), dtype=self.x.dtype)
        values[ascending] = self.x[numbers[ascending]]
        return torch.from_numpy(values)

    def subset(self, rows: Tensor) -> Rows:
        """A split of some of the samples."""
        return Rows(self._inputs(rows), self.y[rows])

    def joined(self, other: Rows) -> Rows:
        """These samples, and then the other ones."""
        pairs = ((self.x, other.x), (self.y, other.y))
        return Rows(*(torch.cat([torch.as_tensor(one), torch.as_tensor(two)]) for one, two in pairs))

    def to(self, device: torch.device) -> Rows:
        """The same split on ``device`` (a memory map stays where it is)."""
        if not isinstance(self.x, Tensor):
            return self
        return Rows(self.x.to(device), self.y.to(device))

    def work(self, rows: Tensor) -> int:
        """How much there is to compute for a batch of ``rows``: samples, or steps where these differ in length."""
        return len(rows)

    @property
    def nbytes(self) -> int:
        """Bytes that the split takes in memory (0 for a memory map's input)."""
        inputs = self.x.nbytes if isinstance(self.x, Tensor) else 0
        return inputs + self.y.nbytes


class SparseRows(Rows):
    """Samples as sets of column numbers, expanded to multi-hot float32 rows a batch at a time.

    Args:
        indptr: Where each sample's columns begin in ``indices``, (samples + 1,).
        indices: Column numbers of all samples, one after the other.
        columns: Width of the expanded rows.
        y: Targets.
        weights: What stands in a row for each column of its set, (columns,); None is 1 everywhere.
    """

    def __init__(
        self, indptr: Tensor, indices: Tensor, columns: int, y: Tensor, weights: Tensor | None = None
    ) -> None:
        self.indptr, self.indices, self.columns, self.y = indptr, indices, columns, y
        self.weights = weights

    @classmethod
    def from_sets(cls, sets: list[Any], columns: int, y: Tensor) -> SparseRows:
        """Make a split from one array of column numbers for each sample."""
        lengths = torch.tensor([0, *(len(s) for s in sets)])
        flat = (
            np.concatenate([np.asarray(s, dtype=np.int32) for s in sets]) if sets else np.zeros(0, np.int32)
        )
        return cls(lengths.cumsum(0), torch.from_numpy(flat), columns, y)

    def _inputs(self, rows: Tensor) -> Tensor:
        row_of_value, values = gather_ragged(self.indptr, self.indices, rows)
        x = torch.zeros(len(rows), self.columns, device=self.indices.device)
        x[row_of_value, values.long()] = 1.0 if self.weights is None else self.weights[values.long()]
        return x

    def subset(self, rows: Tensor) -> SparseRows:
        _, values = gather_ragged(self.indptr, self.indices, rows)
        lengths = self.indptr[rows + 1] - self.indptr[rows]
        indptr = torch.cat([torch.zeros(1, dtype=lengths.dtype), lengths.cumsum(0)])
        return SparseRows(indptr, values, self.columns, self.y[rows], self.weights)

    def to(self, device: torch.device) -> SparseRows:
        weights = None if self.weights is None else self.weights.to(device)
        return SparseRows(
            self.indptr.to(device), self.indices.to(device), self.columns, self.y.to(device), weights
        )

    @property
    def nbytes(self) -> int:
        return self.indptr.nbytes + self.indices.nbytes + self.y.nbytes


class RaggedRows(Rows):
    """Token sequences of different lengths, padded with 0 a batch at a time; batches hold similar lengths.

    Args:
        indptr: Where each sample's tokens begin in ``tokens``, (samples + 1,).
        tokens: Token ids of all samples, one after the other (0 is padding and does not occur).
        y: Targets, one a sample.
    """

    def __init__(self, indptr: Tensor, tokens: Tensor, y: Tensor) -> None:
        self.indptr, self.tokens, self.y = indptr, tokens, y

    def lengths(self) -> Tensor:
        """Number of tokens of each sample."""
        return self.indptr[1:] - self.indptr[:-1]

    def order(self, batch_size: int, generator: torch.Generator | None = None) -> list[Tensor]:
        lengths = self.lengths().cpu()
        if generator is None:
            return list(lengths.argsort(stable=True).split(batch_size))
        # Sorted within pools of 50 batches: little padding, yet the batches differ from epoch to epoch.
        batches: list[Tensor] = []
        for pool in torch.randperm(len(self), generator=generator).split(50 * batch_size):
            batches += pool[lengths[pool].argsort(stable=True)].split(batch_size)
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]

    def work(self, rows: Tensor) -> int:
        return len(rows) * int((self.indptr[rows + 1] - self.indptr[rows]).max())

    def _inputs(self, rows: Tensor) -> Tensor:
        row_of_value, values = gather_ragged(self.indptr, self.tokens, rows)
        lengths = self.indptr[rows + 1] - self.indptr[rows]
        starts = lengths.cumsum(0) - lengths
        x = torch.zeros(len(rows), max(1, int(lengths.max())), dtype=torch.long, device=self.tokens.device)
        x[row_of_value, torch.arange(len(values), device=x.device) - starts[row_of_value]] = values.long()
        return x

    def subset(self, rows: Tensor) -> RaggedRows:
        _, values = gather_ragged(self.indptr, self.tokens, rows)
        lengths = self.indptr[rows + 1] - self.indptr[rows]
        return RaggedRows(
            torch.cat([torch.zeros(1, dtype=lengths.dtype), lengths.cumsum(0)]), values, self.y[rows]
        )

    def to(self, device: torch.device) -> RaggedRows:
        return RaggedRows(self.indptr.to(device), self.tokens.to(device), self.y.to(device))

    @property
    def nbytes(self) -> int:
        return self.indptr.nbytes + self.tokens.nbytes + self.y.nbytes


class Streams(Rows):
    """Long sequences side by side, read in pieces of some steps that continue each other.

    A batch is one piece of every stream, so that recurrent state can be carried from batch to batch
    (truncated backpropagation through time).

    Args:
        x: Model input of every step, (streams, length, ...).
        y: Target of every step, (streams, length, ...).
        steps: Number of steps in a piece.
    """

    def __init__(self, x: Tensor, y: Tensor, steps: int) -> None:
        super().__init__(x, y)
        self.steps = steps

    @classmethod
    def from_series(cls, x: Tensor, y: Tensor, streams: int, steps: int) -> Streams:
        """Cut one long series into ``streams`` equal parts; what is left at the end is dropped."""
        length = len(x) // streams
        return cls(
            x[: streams * length].view(streams, length, *x.shape[1:]),
            y[: streams * length].view(streams, length, *y.shape[1:]),
            steps,
        )

    def __len__(self) -> int:
        return -(-self.y.shape[1] // self.steps)

    def order(self, batch_size: int, generator: torch.Generator | None = None) -> list[Tensor]:
        return list(torch.arange(len(self)).split(1))

    def batches(self, batch_size: int) -> int:
        return len(self)

    @property
    def samples(self) -> int:
        return self.y.shape[0] * self.y.shape[1]

    def take(self, rows: Tensor) -> Batch:
        start = int(rows[0]) * self.steps
        assert isinstance(self.x, Tensor)
        return self.x[:, start : start + self.steps], self.y[:, start : start + self.steps]

    def to(self, device: torch.device) -> Streams:
        assert isinstance(self.x, Tensor)
        return Streams(self.x.to(device), self.y.to(device), self.steps)


class Chunk:
    """The batches of one Lightning step, taken from the split one by one when they are needed.

    Args:
        split: Split that the batches come from.
        rows: Row numbers of each batch.
        device: Device that the batches go to, None for that of the split.
        augment: Function that is applied to the inputs of each batch.
        batches: Batches of an epoch that are taken ahead, of which these are the next; None takes them one by one.
    """

    def __init__(
        self,
        split: Rows,
        rows: list[Tensor],
        device: torch.device | None = None,
        augment: Augment | None = None,
        batches: Iterator[Batch] | None = None,
    ) -> None:
        self.split, self.rows, self.device, self.augment = split, rows, device, augment
        self.batches = batches

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Batch]:
        # Gone through a second time, what was taken ahead is no longer there.
        ahead, self.batches = self.batches, None
        taken = self.split.stream(self.rows) if ahead is None else islice(ahead, len(self.rows))
        for x, y in taken:
            if self.device is not None:
                x, y = x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)
            yield (self.augment(x) if self.augment else x), y


def chosen(values: Tensor, rows: Tensor) -> Tensor:
    """``values[rows]``, which copies whole rows: for images in bytes fifteen times as fast as indexing is."""
    return values.index_select(0, rows.to(values.device))


def gather_ragged(indptr: Tensor, values: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """For each value of ``rows``, one after the other: the position of its row in ``rows``, and the value."""
    starts = indptr[rows]
    lengths = indptr[rows + 1] - starts
    row_of_value = torch.repeat_interleave(torch.arange(len(rows), device=indptr.device), lengths)
    offsets = (
        torch.arange(len(row_of_value), device=indptr.device) - (lengths.cumsum(0) - lengths)[row_of_value]
    )
    return row_of_value, values[starts[row_of_value] + offsets]
