"""A person's own images: one folder a class."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.core.cache import cached
from pipeline.data.core.memory import check_memory
from pipeline.data.core.module import DataModule
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Rows
from pipeline.data.core.splitting import drawn_but_the_first
from pipeline.data.images.decoding import SUFFIXES, read_images
from pipeline.data.images.encoders import ResizingImageEncoder
from pipeline.errors import UserError

log = logging.getLogger(__name__)


class ImageFolder(DataModule):
    """Images in one folder a class, of any size and mode, resized to one size.

    Unreadable images are named and skipped, up to a limit. Prepared images are cached by the files' content.

    Args:
        name: Name of the data set, shown and tagged.
        path: Directory with a folder a class.
        test_path: Directory of the same layout for the test; without one, a share of the images is held out.
        image_size: Height and width that images are resized to, or one number for both.
        channels: 3 for colour, 1 for grey.
        max_unreadable: Share of the images that may be unreadable.
        test_fraction: Share of the images for the test, where there is no ``test_path``.
        **shared: Settings that every data set takes, see :class:`DataModule`.
    """

    encoder: ResizingImageEncoder

    def __init__(
        self,
        name: str = "image_folder",
        path: str | Path | None = None,
        test_path: str | Path | None = None,
        image_size: int | Sequence[int] = 32,
        channels: int = 3,
        max_unreadable: float = 0.05,
        test_fraction: float = 0.15,
        **shared: Any,
    ) -> None:
        super().__init__(name=name, **shared)
        if path is None:
            raise UserError(f"data={name} needs a directory with one folder a class: data.path=DIRECTORY")
        size = [image_size, image_size] if isinstance(image_size, int) else [int(side) for side in image_size]
        if len(size) != 2 or not all(1 <= side <= 4096 for side in size):
            raise UserError(f"data.image_size={image_size}; expected one or two whole numbers from 1 to 4096")
        if channels not in (1, 3):
            raise UserError(f"data.channels={channels}; expected 3 (colour) or 1 (grey)")
        self.path, self.test_path = Path(path), None if test_path is None else Path(test_path)
        self.shape = [channels, *size]
        self.max_unreadable, self.test_fraction = max_unreadable, test_fraction
        self.source = str(path)

    def setup(self, stage: str | None = None) -> None:
        classes = class_folders(self.path)
        x, y = self._read(self.path, classes)
        pool, test = np.arange(len(y)), np.arange(0)
        if self.test_path is None:
            test = drawn_but_the_first(len(y), self.test_fraction, self.seed, y.numpy())
            pool = np.setdiff1d(pool, test)
        train, validation = self._split(y[pool], pool)
        if self.train_on_all:
            train = pool
        everything = Rows(x, y)
        training = everything.subset(torch.from_numpy(train))
        if len(torch.unique(training.y)) < 2:
            raise UserError(f"{self.path}: the training images are all of one class: nothing to learn")
        self.validation = everything.subset(torch.from_numpy(validation)) if len(validation) else None
        self.test = everything.subset(torch.from_numpy(test)) if len(test) else None
        if self.test_path is not None:
            self.test = Rows(*self._read(self.test_path, classes))
        assert isinstance(training.x, Tensor)
        self.encoder = ResizingImageEncoder.fit(training.x)
        binary = len(classes) == 2
        self.spec = Spec(
            task="binary" if binary else "multiclass",
            input="image",
            input_shape=tuple(self.shape),
            outputs=1 if binary else len(classes),
            classes=tuple(classes),
            target_name="class",
            pixel_mean=tuple(self.encoder.mean),
            pixel_std=tuple(self.encoder.std),
            class_weights=self.class_weights(training.y, len(classes)),
        )
        self.train = self.oversampled(training)

    def _split(self, labels: Tensor, pool: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.folds:
            train, validation = self.split_rows(labels.long(), stratify=True)
            return pool[train.numpy()], pool[validation.numpy()]
        chosen = drawn_but_the_first(len(labels), self.validation_fraction, self.seed + 1, labels.numpy())
        return np.delete(pool, chosen), pool[chosen]

    def _read(self, root: Path, classes: list[str]) -> tuple[Tensor, Tensor]:
        """All images of a directory (samples, channels, height, width) and their labels."""
        if unknown := [name for name in class_folders(root) if name not in classes]:
            raise UserError(
                f"{root} has folders for classes that {self.path} lacks: {', '.join(unknown[:10])}"
            )
        files = [(path, label) for label, name in enumerate(classes) for path in image_files(root, name)]
        if not files:
            raise UserError(f"{root}: no images in its folders (looked for {', '.join(sorted(SUFFIXES))})")
        check_memory(
            # They are in memory twice while they are prepared.
            2 * len(files) * math.prod(self.shape),
            f"{len(files):,} images of {'×'.join(map(str, self.shape))}",
            "lower data.image_size",
        )
        key = content_digest(root, [path for path, _ in files], [self.shape, classes])
        arrays, unreadable = cached(self.data_dir, f"image_folder-{key}", lambda: self._decode(root, files))
        if unreadable:
            self._name_unreadable(root, unreadable, len(files))
        labels = torch.from_numpy(arrays["labels"])
        return torch.from_numpy(arrays["images"]), labels.float() if len(classes) == 2 else labels

    def _decode(
        self, root: Path, files: list[tuple[Path, int]]
    ) -> tuple[dict[str, np.ndarray], list[list[str]]]:
        images, reasons = read_images([path for path, _ in files], self.shape)
        good = np.array([not reason for reason in reasons])
        labels = np.array([label for _, label in files], dtype=np.int64)
        unreadable = [
            [str(path.relative_to(root)), reason]
            for (path, _), reason in zip(files, reasons, strict=True)
            if reason
        ]
        # Raised before anything is cached: above the limit nothing is worth it.
        if len(unreadable) > self.max_unreadable * len(files):
            self._name_unreadable(root, unreadable, len(files))
        return {"images": images if good.all() else images[good], "labels": labels[good]}, unreadable

    def _name_unreadable(self, root: Path, unreadable: list[list[str]], total: int) -> None:
        named = "; ".join(f"{path} ({reason})" for path, reason in unreadable[:10])
        more = f" and {len(unreadable) - 10} more" if len(unreadable) > 10 else ""
        text = f"{root}: {len(unreadable)} of {total} images cannot be read: {named}{more}"
        if len(unreadable) > self.max_unreadable * total:
            raise UserError(f"{text}. That is more than data.max_unreadable={self.max_unreadable:g} of them")
        log.warning("%s. They are skipped", text)


def class_folders(root: Path) -> list[str]:
    """The names of the class folders, in order.

    Raises:
        UserError: There is no such directory, or fewer than two folders in it.
    """
    if not root.is_dir():
        raise UserError(f"{root}: there is no such directory; expected one folder a class in it")
    names = sorted(
        entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    if len(names) < 2:
        raise UserError(f"{root} has {len(names)} folders; expected one folder a class, two at least")
    return names


def image_files(root: Path, name: str) -> list[Path]:
    """The image files of one class, in order.

    Raises:
        UserError: A link leads out of the directory.
    """
    found = []
    inside = root.resolve()
    folder = root / name
    _refuse_leaving(folder, inside)
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for entry in (*folders, *files):
            path = Path(parent) / entry
            if path.is_symlink():
                _refuse_leaving(path, inside)
        found += [Path(parent) / file for file in sorted(files) if Path(file).suffix.lower() in SUFFIXES]
    return found


def _refuse_leaving(path: Path, inside: Path) -> None:
    if path.is_symlink() and not path.resolve().is_relative_to(inside):
        raise UserError(f"{path} is a link out of {inside}; copy what it leads to into the directory")


def content_digest(root: Path, files: Sequence[Path], settings: Any) -> str:
    """A hash of the files' names and contents and of the settings that shape what is made from them."""
    state = hashlib.blake2b(repr(settings).encode(), digest_size=12)

    def one(path: Path) -> bytes:
        own = hashlib.blake2b(str(path.relative_to(root)).encode() + b"\0", digest_size=16)
        try:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    own.update(block)
        except OSError as error:
            own.update(str(error).encode())
        return own.digest()

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for part in pool.map(one, files):
            state.update(part)
    return state.hexdigest()
