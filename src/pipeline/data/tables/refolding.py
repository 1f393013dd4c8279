"""Rows that are dealt out to folds once more, for models that are fitted to different parts of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator

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

    def refolded(self, folds: int, seed: int | None = None) -> Iterator[tuple[DataModule, Tensor]]:
        """This data with its training and validation rows dealt out anew, each of them held out once.

        Args:
            folds: Number of folds.
            seed: By which they are drawn; None is the data's own.

        Yields:
            The data with another part held out, and which of :attr:`pooled_targets` that is.
        """
        pool = self._pool()
        labels = pool.y.numpy() if self.spec.classes else None
        for fold in range(folds):
            held_out = torch.from_numpy(
                fold_of(len(pool), folds, fold, self.seed if seed is None else seed, labels)
            )
            others = torch.ones(len(pool), dtype=torch.bool)
            others[held_out] = False
            view = copy.copy(self)
            view.train, view.validation = pool.subset(torch.nonzero(others)[:, 0]), pool.subset(held_out)
            yield view, held_out

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
