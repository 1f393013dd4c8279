"""Image data sets: MNIST, and scikit-learn's embedded digits."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.data.core.cache import cached
from pipeline.data.core.module import DataModule
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Rows
from pipeline.data.images.encoders import ImageEncoder
from pipeline.data.sources import catalogue
from pipeline.data.sources import finding as sources
from pipeline.errors import UserError
from pipeline.settings import Word

Channels = Literal["none", "noise", "zeros"]


class Images(DataModule):
    """Labelled images of one size, kept as ``uint8``.

    Args:
        name: ``mnist`` or ``digits``.
        labels: ``true``, or ``random``: the training and validation labels shuffled, to see a model learn by heart.
        extra_channels: ``none``, or as many channels again of white ``noise`` or of ``zeros``.
        train_samples: Number of training images to use, None for all.
        **shared: Settings that every data set takes, see :class:`DataModule`.
    """

    stand_ins = ("digits",)

    def __init__(
        self,
        name: str = "mnist",
        labels: Annotated[str, Word(("true", "random"))] = "true",
        extra_channels: Channels = "none",
        train_samples: int | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(name=name, **shared)
        if labels not in ("true", "random"):
            raise UserError(f"data.labels={labels!r}; expected true or random")
        if extra_channels not in ("none", "noise", "zeros"):
            raise UserError(f"data.extra_channels={extra_channels!r}; expected none, noise or zeros")
        self.labels, self.extra_channels, self.train_samples = labels, extra_channels, train_samples

    def prepare_data(self) -> None:
        """Find or download the files; fall back to the stand-in where there are none and one is named."""
        if self.name == "digits":
            return
        try:
            self._mnist_files()
        except sources.DataUnavailable as error:
            self.stand_in(error)

    def setup(self, stage: str | None = None) -> None:
        (x, y), (test_x, test_y) = self._arrays()
        if self.labels == "random":
            y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(self.seed))]
        if self.train_samples is not None:
            x, y = x[: self.train_samples], y[: self.train_samples]
        if self.extra_channels != "none":
            x, test_x = self._with_channels(x, 0), self._with_channels(test_x, 1)
        rows, held_out = self.split_rows(y, stratify=True)
        if self.train_on_all:
            rows = torch.arange(len(y))
        pool = Rows(x, y)
        train = pool.subset(rows)
        self.validation = pool.subset(held_out) if len(held_out) else None
        self.test = Rows(test_x, test_y)
        assert isinstance(train.x, Tensor)
        self.encoder = ImageEncoder.fit(train.x)
        self.spec = Spec(
            task="multiclass",
            input="image",
            input_shape=tuple(x.shape[1:]),
            outputs=10,
            classes=tuple(str(digit) for digit in range(10)),
            target_name="digit",
            pixel_mean=tuple(self.encoder.mean),
            pixel_std=tuple(self.encoder.std),
            class_weights=self.class_weights(train.y, 10),
        )
        self.train = self.oversampled(train)

    def _arrays(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        if self.name == "mnist":
            try:
                return self._mnist()
            except sources.DataUnavailable as error:
                self.stand_in(error)
        return _digits()

    def _mnist_files(self, download: bool = True) -> dict[str, Path]:
        path = sources.search_path()
        return {
            part: sources.locate(source, self.data_dir, path, download)
            for part, source in catalogue.MNIST.items()
        }

    def _mnist(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        files = self._mnist_files(download=False)
        self.source = str(next(iter(files.values())).parent)
        # The files were verified against the published checksums, so one name serves for every copy of them.
        arrays, _ = cached(self.data_dir, "mnist-1", lambda: (_read_idx(files), None))
        tensors = {part: torch.from_numpy(array) for part, array in arrays.items()}
        return (
            (tensors["train_images"][:, None], tensors["train_labels"].long()),
            (tensors["test_images"][:, None], tensors["test_labels"].long()),
        )

    def _with_channels(self, images: Tensor, stream: int) -> Tensor:
        if self.extra_channels == "zeros":
            extra = torch.zeros_like(images)
        else:
            generator = torch.Generator().manual_seed(2 * self.seed + stream)
            extra = torch.randint(0, 256, images.shape, dtype=torch.uint8, generator=generator)
        return torch.cat([images, extra], dim=1)


def _read_idx(files: dict[str, Path]) -> dict[str, np.ndarray]:
    """MNIST's files as torchvision reads them; it takes only uncompressed ones."""
    from torchvision.datasets.mnist import read_image_file, read_label_file

    arrays = {}
    with tempfile.TemporaryDirectory() as folder:
        for part, path in files.items():
            plain = path
            if path.suffix == ".gz":
                plain = Path(folder) / path.stem
                plain.write_bytes(gzip.decompress(path.read_bytes()))
            read = read_image_file if part.endswith("images") else read_label_file
            arrays[part] = read(str(plain)).to(torch.uint8).numpy()
    return arrays


def _digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """scikit-learn's 1,797 digits of 8×8 pixels, scaled from 0–16 to 0–255; every class gives a fifth to test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(bunch.target).long()
    train, test = train_test_split(
        np.arange(len(labels)), test_size=0.2, random_state=0, stratify=bunch.target
    )
    train, test = torch.from_numpy(np.sort(train)), torch.from_numpy(np.sort(test))
    return (images[train], labels[train]), (images[test], labels[test])
