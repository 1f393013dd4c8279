"""A torch ``Dataset`` for each split, with a Spec beside it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from pipeline.data.core.encoder import TensorEncoder
from pipeline.data.core.inference import class_names, spec_of
from pipeline.data.core.module import DataModule
from pipeline.data.core.splits import Batch, Rows
from pipeline.data.images.encoders import ImageEncoder
from pipeline.errors import UserError

log = logging.getLogger(__name__)


class DatasetRows(Rows):
    """Samples of a map-style data set, fetched one by one when they are needed.

    Args:
        dataset: The data set; an item is a pair of input and target.
        y: Targets of ``rows``, in that order.
        rows: Numbers of the samples that belong to this split, None for all.
    """

    def __init__(self, dataset: Dataset[Any], y: Tensor, rows: Tensor | None = None) -> None:
        self.dataset, self.y = dataset, y
        self.numbers = torch.arange(len(y)) if rows is None else rows

    def take(self, rows: Tensor) -> Batch:
        return self._inputs(rows), self.y[rows.cpu()]

    def _inputs(self, rows: Tensor) -> Tensor:
        inputs = [as_tensor(item(self.dataset, number)[0]) for number in self.numbers[rows.cpu()].tolist()]
        try:
            return torch.stack(inputs)
        except RuntimeError as error:
            raise UserError(
                f"data: samples of different shapes cannot be put into one batch: {error}"
            ) from None

    def subset(self, rows: Tensor) -> DatasetRows:
        return DatasetRows(self.dataset, self.y[rows], self.numbers[rows])

    def to(self, device: torch.device) -> DatasetRows:
        return self

    @property
    def nbytes(self) -> int:
        return self.y.nbytes


class Datasets(DataModule):
    """Map-style data sets of one's own, one a split.

    Args:
        train: Data set of the training samples.
        validation: Data set of the validation samples; None holds out ``validation_fraction`` of the training samples.
        test: Data set of the test samples, None for no test.
        spec: Fields of the Spec; what is missing is read from the samples.
        name: Name of the data.
        **shared: Settings that every data set takes, see :class:`DataModule`.

    Raises:
        UserError: A split is no map-style data set, or its items are no pairs.
    """

    def __init__(
        self,
        train: Any,
        validation: Any = None,
        test: Any = None,
        spec: Mapping[str, Any] | None = None,
        name: str = "datasets",
        **shared: Any,
    ) -> None:
        super().__init__(name, **shared)
        for split, dataset in (("train", train), ("validation", validation), ("test", test)):
            _check(dataset, split, needed=split == "train")
        self._datasets = {"train": train, "validation": validation, "test": test}
        self._said = dict(spec or {})

    def setup(self, stage: str | None = None) -> None:
        train = self._datasets["train"]
        y = targets_of(train)
        x, _ = item(train, 0)
        first = as_tensor(x)
        known = (train,)
        self.spec = spec_of(first[None], y, self._said, lambda: class_names(known, lambda: y), str(self.name))
        y = self._fitting(y)
        pool = DatasetRows(train, y)
        if self._datasets["validation"] is not None:
            self.train: Rows = pool
            held_out = self._datasets["validation"]
            self.validation: Rows | None = DatasetRows(held_out, self._fitting(targets_of(held_out)))
        else:
            rows, held = self.split_rows(y, stratify=self.spec.task in ("binary", "multiclass"))
            self.train = pool if self.train_on_all else pool.subset(rows)
            self.validation = pool.subset(held) if len(held) else None
        tested = self._datasets["test"]
        self.test: Rows | None = (
            None if tested is None else DatasetRows(tested, self._fitting(targets_of(tested)))
        )
        if first.dtype == torch.uint8 and self.spec.input == "image" and not self.spec.pixel_mean:
            sample = self.train.take(torch.arange(len(self.train))[:2000])[0]
            fitted = ImageEncoder.fit(sample)
            self.encoder: Any = fitted
            self.spec = type(self.spec).from_dict(
                {**self.spec.to_dict(), "pixel_mean": fitted.mean, "pixel_std": fitted.std}
            )
        else:
            self.encoder = TensorEncoder(list(self.spec.input_shape), whole=self.spec.input == "tokens")
        if self.spec.task in ("binary", "multiclass"):
            weights = self.class_weights(self.train.y, max(2, self.spec.outputs))
            self.spec = type(self.spec).from_dict({**self.spec.to_dict(), "class_weights": list(weights)})
            self.train = self.oversampled(self.train)

    def _fitting(self, y: Tensor) -> Tensor:
        """Targets as the task takes them: class numbers as whole numbers, everything else as float."""
        if self.spec.task == "multiclass":
            return y.long()
        return y.float() if self.spec.outputs > 1 or y.dim() == 1 else y.float().reshape(len(y))


def item(dataset: Any, number: int) -> tuple[Any, Any]:
    """One sample: its input and its target.

    Raises:
        UserError: The sample is no pair.
    """
    found = dataset[number]
    if not isinstance(found, tuple | list) or len(found) != 2:
        kind = type(found).__name__
        raise UserError(
            f"data: item {number} of {type(dataset).__name__} is a {kind}; expected a pair (input, target)"
        )
    return found[0], found[1]


def as_tensor(x: Any) -> Tensor:
    """An input as a tensor: tensors as they are, pictures as ``uint8`` (channels, height, width), arrays and numbers.

    Raises:
        UserError: The input is none of these.
    """
    if isinstance(x, Tensor):
        return x
    if hasattr(x, "mode") and hasattr(x, "getbands"):
        pixels = np.array(x)
        return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())
    try:
        array = np.asarray(x)
        return torch.from_numpy(array.astype(np.float32) if array.dtype == np.float64 else array)
    except (TypeError, ValueError):
        raise UserError(
            f"data: an input is a {type(x).__name__}; expected a tensor, an array, a picture or numbers"
        ) from None


def targets_of(dataset: Any) -> Tensor:
    """All targets, from where the data set keeps them, else by going through it once."""
    for name in ("targets", "labels", "y"):
        found = getattr(dataset, name, None)
        if found is not None and not callable(found) and len(found) == len(dataset):
            return torch.as_tensor(np.asarray(found))
    if (tensors := getattr(dataset, "tensors", None)) and len(tensors) == 2:
        targets: Tensor = tensors[1]
        return targets
    return torch.as_tensor(
        np.asarray([np.asarray(item(dataset, number)[1]) for number in range(len(dataset))])
    )


def _check(dataset: Any, split: str, needed: bool) -> None:
    if dataset is None and not needed:
        return
    if isinstance(dataset, IterableDataset):
        raise UserError(
            f"data.{split} is {type(dataset).__name__}, an iterable data set, which has no order to shuffle or resume; "
            "give a map-style Dataset (with __len__ and __getitem__), or a LightningDataModule as data._target_"
        )
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise UserError(
            f"data.{split} is {dataset!r}; expected a torch Dataset: +data.{split}._target_=my_package.MyDataset"
        )
    if len(dataset) == 0:
        raise UserError(f"data.{split}: {type(dataset).__name__} holds no samples")
