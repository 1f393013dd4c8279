"""Rows that are dealt out to folds once more, for models that are fitted to different parts of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pipeline.data.core.module import DataModule
from pipeline.data.core.splits import Rows
from pipeline.data.core.splitting import fold_of


class Refoldable(DataModule):
    """Data whose training and validation rows can be dealt out anew; the encoder stays that of the training rows.

    What was fitted on different folds takes the same inputs then.
    """

    @property
    def can_be_refolded(self) -> bool:
        """Whether rows were dealt out at random, so that :meth:`refolded` may deal them out again."""
        return True

    def refolded(self, folds: int, seed: int | None = None) -> Folds:
        """This data with its training and validation rows dealt out anew, each of them held out once.

        Args:
            folds: Number of folds.
            seed: By which they are drawn; None is the data's own.
        """
        pool = self._pool()
        labels = pool.y.numpy() if self.spec.classes else None
        seed = self.seed if seed is None else seed
        parts = (fold_of(len(pool), folds, fold, seed, labels) for fold in range(folds))
        return Folds(self, pool, [torch.from_numpy(part) for part in parts])

    def pooled(self) -> DataModule:
        """This data with the validation rows among the training rows, by the encoder as it is."""
        view = copy.copy(self)
        view.train, view.validation = self._pool(), None
        return view

    def _pool(self) -> Rows:
        return self.train if self.validation is None else self.train.joined(self.validation)

    @property
    def pooled_targets(self) -> Tensor:
        """Targets of the training rows, then of the validation rows, as :meth:`refolded` numbers them."""
        return self.train.y if self.validation is None else torch.cat([self.train.y, self.validation.y])


class Folds:
    """Data whose rows are dealt out to folds: for each, the data with it held out, and which rows that is.

    A view's rows are copied when it is taken, and not kept: of a large table one view at a time is in memory.

    Args:
        data: The data.
        pool: Its rows, as :attr:`Refoldable.pooled_targets` numbers them.
        parts: The rows of each fold.
    """

    def __init__(self, data: Refoldable, pool: Rows, parts: Sequence[Tensor]) -> None:
        self.data, self.pool, self.parts = data, pool, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[tuple[DataModule, Tensor]]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, fold: int) -> tuple[DataModule, Tensor]:
        held_out = self.parts[fold]
        others = torch.ones(len(self.pool), dtype=torch.bool)
        others[held_out] = False
        view = copy.copy(self.data)
        view.train, view.validation = self.pool.subset(torch.nonzero(others)[:, 0]), self.held_out(fold)
        return view, held_out

    def held_out(self, fold: int) -> Rows:
        """The rows of a fold."""
        return self.pool.subset(self.parts[fold])
