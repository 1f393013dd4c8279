"""What every data set shares: splits by seed, folds, a fitted encoder, loaders over memory."""

from __future__ import annotations

import copy
import hashlib
import logging
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from pipeline.data.core.encoder import Encoder
from pipeline.data.core.loader import Loader
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Augment, Rows
from pipeline.data.core.splitting import at_least, drawn, fold_of
from pipeline.errors import UserError
from pipeline.settings import BELOW_ONE, COUNT, COUNT_OR_NULL, SEED, Flag, Number, Text, Word

if TYPE_CHECKING:
    from pipeline.data.core.baselines import Baseline

log = logging.getLogger(__name__)

READING = ("batch_size", "eval_batch_size", "shuffle", "augment", "mix", "label_smoothing", "stand_in_steps")
"""Settings of how and how long a data set is gone through, which leave what was prepared as it is."""


class DataModule(pl.LightningDataModule):
    """A data set in memory.

    A subclass reads its source in :meth:`prepare_data` (which may touch the network) and builds ``spec``, ``encoder``,
    ``train``, ``validation`` and ``test`` in :meth:`setup` (which may not). Splits depend on ``seed`` alone.

    Args:
        name: Name of the data set, shown and tagged.
        batch_size: Number of samples in a training batch.
        eval_batch_size: Number of samples in a batch of validation or test.
        seed: Seed of the split into training and validation, and of the folds.
        shuffle: Whether the training order changes every epoch.
        validation_fraction: Share of the training data that is held out for validation.
        folds: Number of folds of a cross-validation, None for a single split.
        fold: Number of the fold that is held out (0 … folds − 1).
        fallback: Name of the embedded stand-in used where the data is not to be had; None makes that an error.
        augment: ``none``, ``light``, ``strong``, ``trivial``, ``rand``, ``crop`` or ``crop_small`` (images, training
            batches alone), see :func:`augmentation`.
        mix: ``none``, ``mixup``, ``cutmix`` or ``both``: images of a training batch mixed two by two.
        label_smoothing: Share of certainty that training targets give to all classes alike.
        balance: ``none``, ``oversample`` or ``class_weights`` (statistics of the training split).
        data_dir: The user's data directory.
        train_on_all: Whether to train on the validation samples too (for a last fit whose settings are final).
        stand_in_steps: Least number of optimiser steps that a stand-in is trained for, None for as long as the data.
        calibrate: Whether probabilities are calibrated on the validation split after the fit.
        interval: Share of true values that the intervals around predicted numbers are to hold, None for no intervals.
        costs: Cost of each mistake by which the predicted class is chosen, None for the most probable class.
    """

    spec: Spec
    encoder: Encoder
    train: Rows
    validation: Rows | None
    test: Rows | None

    stand_ins: ClassVar[tuple[str, ...]] = ()
    """Names of the embedded data sets that may take the place of this one (``fallback``)."""

    batch_size_shapes_splits = False
    """Whether ``batch_size`` decides how the splits are laid out (parallel streams), not only how they are read."""

    def __init__(
        self,
        name: str,
        batch_size: Annotated[int, COUNT] = 128,
        eval_batch_size: Annotated[int, COUNT] = 1024,
        seed: Annotated[int, SEED] = 0,
        shuffle: Annotated[bool, Flag()] = True,
        validation_fraction: Annotated[float, BELOW_ONE] = 0.1,
        folds: Annotated[int | None, Number(2, whole=True, null=True)] = None,
        fold: Annotated[int | None, Number(0, whole=True, null=True)] = None,
        fallback: Annotated[str | None, Text("the name of a stand-in", null=True)] = None,
        augment: Annotated[
            str, Word(("none", "light", "strong", "trivial", "rand", "crop", "crop_small"))
        ] = "none",
        mix: Annotated[str, Word(("none", "mixup", "cutmix", "both"))] = "none",
        label_smoothing: Annotated[float, BELOW_ONE] = 0.0,
        balance: Annotated[str, Word(("none", "oversample", "class_weights"))] = "none",
        data_dir: str | Path = "data",
        train_on_all: Annotated[bool, Flag()] = False,
        stand_in_steps: Annotated[int | None, COUNT_OR_NULL] = None,
        calibrate: Annotated[bool, Flag()] = False,
        interval: Annotated[float | None, Number(0, 1, above=True, below=True, null=True)] = None,
        costs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.name, self.batch_size, self.eval_batch_size = name, batch_size, eval_batch_size
        self.seed, self.shuffle, self.validation_fraction = seed, shuffle, validation_fraction
        self.folds, self.fold, self.fallback = folds, fold, fallback
        self.augment, self.balance, self.data_dir = augment, balance, Path(data_dir)
        self.mix, self.label_smoothing = mix, label_smoothing
        self.train_on_all, self.stand_in_steps = train_on_all, stand_in_steps
        self.calibrate, self.interval, self.costs = calibrate, interval, costs
        self.requested = self.used = name
        self.source = ""
        if fallback is not None and fallback not in self.stand_ins:
            there = " or ".join([*self.stand_ins, "null"])
            raise UserError(f"data.fallback={fallback}: {name} has no such stand-in; expected {there}")

    @property
    def known_spec(self) -> Spec | None:
        """The spec, None where the data is a person's own and nothing has asked for it yet."""
        return self.spec

    @abstractmethod
    def setup(self, stage: str | None = None) -> None:
        """Build the spec, the encoder and the splits from what :meth:`prepare_data` left on disk."""

    def stand_in(self, error: Exception) -> str:
        """Have the embedded stand-in take the place of data that is not to be had, and say so loudly, once.

        Args:
            error: Error that says that the data is not to be had.

        Returns:
            The name of the stand-in.

        Raises:
            Exception: ``error`` itself, where no stand-in is wanted.
        """
        if self.fallback is None:
            raise error
        if self.used != self.fallback:
            log.warning(
                "%s\nTraining on the embedded stand-in %r instead of %s.", error, self.fallback, self.name
            )
        self.used, self.source = self.fallback, f"embedded: {self.fallback}"
        return self.fallback

    def split_rows(self, targets: Tensor, stratify: bool) -> tuple[Tensor, Tensor]:
        """Row numbers for training and for validation, by ``seed`` alone.

        With ``folds`` the fold number ``fold`` is the validation part. Each class keeps its share where ``stratify``.

        Raises:
            UserError: There are fewer samples than parts.
        """
        n, labels = len(targets), targets.numpy() if stratify else None
        if self.folds:
            held_out = fold_of(n, self.folds, self.fold, self.seed, labels)
        else:
            at_least(n, 2)
            held_out = drawn(n, self.validation_fraction, self.seed, labels)
        return torch.from_numpy(np.delete(np.arange(n), held_out)), torch.from_numpy(held_out)

    def class_weights(self, targets: Tensor, classes: int) -> tuple[float, ...]:
        """Weights inverse to the classes' frequencies, with mean 1 over the samples; none where not asked for."""
        if self.balance != "class_weights":
            return ()
        counts = torch.bincount(targets.long(), minlength=classes).double().clamp(min=1)
        return tuple((len(targets) / (classes * counts)).tolist())

    def oversampled(self, split: Rows) -> Rows:
        """``split`` with samples of rarer classes repeated until all are as large, where ``balance`` asks for it."""
        if self.balance != "oversample":
            return split
        labels = split.y.long()
        counts = torch.bincount(labels)
        generator = torch.Generator().manual_seed(self.seed)
        rows = [torch.arange(len(labels))]
        for label in range(len(counts)):
            members = torch.nonzero(labels == label)[:, 0]
            missing = int(counts.max()) - len(members)
            if len(members) and missing:
                rows.append(members[torch.randint(len(members), (missing,), generator=generator)])
        return split.subset(torch.cat(rows))

    def baselines(self) -> dict[str, Baseline]:
        """What a model has to beat, by name; the first is the common-sense baseline."""
        from pipeline.data.core.baselines import defaults

        return defaults(self.spec)

    def baseline_values(self, split: Rows) -> Tensor:
        """What the common-sense baseline scores on each prediction of ``split``."""
        from pipeline.data.core.baselines import values

        return values(self.train, split, self.spec)

    def groups(self, split: Rows) -> tuple[str, np.ndarray] | None:
        """Groups whose figures are shown one by one beside those of all: what they are, and each sample's group.

        None where there are none.
        """
        return None

    def whose(self, split: Rows) -> np.ndarray | None:
        """Whom each sample is of, (samples,), where several are of one and so alike; None where each is its own."""
        return None

    def plots(self, model: Any, folder: Path) -> list[Path]:
        """Plots of this data set's own for a trained model, drawn into ``folder``."""
        return []

    @property
    def digest(self) -> str:
        """A short hash of the training and validation samples and of how they were split."""
        state = hashlib.sha256()
        for split in (self.train, self.validation):
            if split is not None:
                for tensor in self._tensors(split):
                    array = np.ascontiguousarray(
                        tensor if isinstance(tensor, np.ndarray) else tensor.cpu().numpy()
                    )
                    state.update(str((array.shape, array.dtype)).encode())
                    # A memory map of many gigabytes is identified by its ends: reading it all would cost a pass.
                    whole = array.nbytes < 1 << 30
                    state.update(array.data if whole else np.concatenate([array[:1000], array[-1000:]]).data)
        return state.hexdigest()[:16]

    def _tensors(self, split: Rows) -> list[Any]:
        split = split.raw
        names = ("x", "indptr", "indices", "tokens", "y")
        return [getattr(split, name) for name in names if hasattr(split, name)]

    def with_reading(self, **settings: Any) -> DataModule:
        """The same prepared data, gone through in another way.

        Args:
            **settings: New values of some of ``READING``.
        """
        if unknown := set(settings) - set(READING):
            raise ValueError(f"{sorted(unknown)} say more than how data is read; expected some of {READING}")
        other = copy.copy(self)
        other.__dict__.update(settings)
        return other

    def training_loader(self, seed: int, chunk: int = 1, rank: int = 0, world_size: int = 1) -> Loader:
        """Training batches, shuffled if the data is, several to a step.

        Args:
            seed: Seed of the order.
            chunk: Number of batches in a step of Lightning's.
            rank: Number of this process among those that share the samples.
            world_size: Number of those processes.
        """
        return Loader(
            self.train,
            self.batch_size,
            shuffle=self.shuffle,
            seed=seed,
            chunk=chunk,
            rank=rank,
            world_size=world_size,
            augment=self._augmentation(),
        )

    def loader_of(self, split: Rows, batch_size: int | None = None) -> Loader:
        """A split in order, in batches of ``eval_batch_size`` samples or of another size."""
        return Loader(split, batch_size or self.eval_batch_size)

    def _augmentation(self) -> Augment | None:
        if self.augment == "none":
            return None
        from pipeline.data.images.augment import augmentation

        made: Augment = augmentation(self.augment)
        return made

    def train_dataloader(self) -> Loader:
        """Training batches for a trainer that asks for them itself."""
        trainer = self.trainer
        rank, world_size = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        return self.training_loader(self.seed, rank=rank, world_size=world_size)

    def val_dataloader(self) -> Loader | list[Any]:
        """Validation batches in order; none if nothing was held out."""
        held_out = self.validation
        return [] if held_out is None or len(held_out) == 0 else self.loader_of(held_out)

    def test_dataloader(self) -> Loader | list[Any]:
        """Test batches in order. Nothing but the test at the end and an evaluation asks for them."""
        return [] if self.test is None else self.loader_of(self.test)
