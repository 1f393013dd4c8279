"""A person's own images: one folder a class."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.core.cache import cached
from pipeline.data.core.encoder import ImageEncoder
from pipeline.data.core.memory import check_memory
from pipeline.data.core.module import DataModule
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Rows
from pipeline.data.tables.splits import held_out
from pipeline.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger(__name__)

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm"}
FORMATS = ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"]
"""Decoders that are used: no others, whatever a file claims to be (some of them start programs)."""
MAX_PIXELS = 50_000_000
MAX_FILE_BYTES = 200_000_000


class ImageFolder(DataModule):
    """Images in one folder a class, of any size and mode, resized to one size.

    Unreadable images are named and skipped, up to a limit. Prepared images are cached by the files' content.

    Args:
        name: shown and tagged.
        path: the directory with a folder a class.
        test_path: a directory of the same layout for the test; without one, a share of the images.
        image_size: height and width that images are resized to, or one number for both.
        channels: 3 for colour, 1 for grey.
        max_unreadable: share of the images that may be unreadable.
        test_fraction: share of the images for the test, where there is no ``test_path``.
        **shared: see :class:`DataModule`.
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
            test = held_out(y.numpy(), len(y), self.test_fraction, self.seed)
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
        chosen = held_out(labels.numpy(), len(labels), self.validation_fraction, self.seed + 1)
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
            # Twice while they are prepared.
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
        images = np.zeros((len(files), *self.shape), dtype=np.uint8)

        def decode(number: int) -> str:
            try:
                images[number] = read_image(files[number][0], self.shape)
            except Exception as error:
                # Decoders raise all kinds of things for damaged files.
                return (str(error) or type(error).__name__).splitlines()[0][:200]
            return ""

        with warnings.catch_warnings(), ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
            # Decoders warn of what is damaged without saying where; it is named below.
            warnings.simplefilter("ignore")
            reasons = list(pool.map(decode, range(len(files))))
        good = np.array([not reason for reason in reasons])
        labels = np.array([label for _, label in files], dtype=np.int64)
        unreadable = [
            [str(path.relative_to(root)), reason]
            for (path, _), reason in zip(files, reasons, strict=True)
            if reason
        ]
        # Above the limit nothing is worth caching: raised here, nothing is written.
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


class ResizingImageEncoder(ImageEncoder):
    """Images of any size and mode to ``uint8`` images of one size.

    Takes a list of images, or an array (samples, height, width) or (samples, height, width, channels): values 0–255.
    """

    kind = "resizing_image"

    def encode(self, raw: Any) -> Tensor:
        from PIL import Image

        prepared = np.asarray(raw) if not isinstance(raw, (list, tuple)) else None
        if prepared is not None and prepared.dtype == np.uint8 and list(prepared.shape[1:]) == self.shape:
            return torch.from_numpy(np.array(prepared))
        images = np.empty((len(raw), *self.shape), dtype=np.uint8)
        for number, one in enumerate(raw):
            if not isinstance(one, Image.Image):
                one = Image.fromarray(_pixels(one))
            images[number] = to_array(one, self.shape)
        return torch.from_numpy(images)

    @classmethod
    def fit(cls, images: Tensor) -> ResizingImageEncoder:
        fitted = ImageEncoder.fit(images)
        return cls(fitted.shape, fitted.mean, fitted.std)

    def example(self) -> np.ndarray:
        channels, height, width = self.shape
        images = np.zeros(
            (2, height, width) if channels == 1 else (2, height, width, channels), dtype=np.uint8
        )
        images[1] = 255
        return images

    def signature(self) -> dict[str, Any]:
        shape = [-1, -1, -1] if self.shape[0] == 1 else [-1, -1, -1, self.shape[0]]
        return {"type": "tensor", "dtype": "uint8", "shape": shape}


def _pixels(raw: Any) -> np.ndarray:
    """One image as an array that PIL takes.

    Raises:
        UserError: not an image, or values outside 0–255.
    """
    try:
        values = np.asarray(raw)
        if values.ndim == 3 and values.shape[2] not in (1, 3, 4) and values.shape[0] in (1, 3):
            values = values.transpose(1, 2, 0)
        if values.ndim == 3 and values.shape[2] == 1:
            values = values[:, :, 0]
        grey, colour = values.ndim == 2, values.ndim == 3 and values.shape[2] in (3, 4)
        if not (grey or colour) or not values.size or values.min() < 0 or values.max() > 255:
            raise ValueError
        return np.ascontiguousarray(values.astype(np.uint8))
    except (TypeError, ValueError):
        raise UserError(
            f"got {type(raw).__name__} of shape {getattr(raw, 'shape', '?')}; expected images (height, width) or "
            "(height, width, 3) with values 0–255"
        ) from None


def class_folders(root: Path) -> list[str]:
    """The names of the class folders, in order.

    Raises:
        UserError: no such directory, or fewer than two folders in it.
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
        UserError: a link leads out of the directory.
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


def read_image(path: Path, shape: Sequence[int]) -> np.ndarray:
    """One image file as (channels, height, width).

    Raises:
        ValueError: too many pixels or bytes; and whatever its decoder raises for a damaged file.
    """
    from PIL import Image

    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"the file is larger than {MAX_FILE_BYTES // 1_000_000} MB")
    with Image.open(path, formats=FORMATS) as image:
        # Before anything is decoded: a file of some kilobytes may claim billions of pixels.
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width}×{image.height} pixels, more than {MAX_PIXELS:,}")
        return to_array(image, shape)


def to_array(image: Image.Image, shape: Sequence[int]) -> np.ndarray:
    """An image as ``uint8`` (channels, height, width): turned upright, transparent parts white, resized."""
    from PIL import Image, ImageOps

    channels, height, width = shape
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_to_bytes(np.asarray(image)))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        # Averages over what becomes one pixel; dropping pixels would leave noise.
        image = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0)
    values: np.ndarray = np.asarray(image)
    return values[None] if channels == 1 else values.transpose(2, 0, 1)


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """Numbers of 16 bits or more, or fractions, as 0–255."""
    numbers = np.nan_to_num(values.astype(np.float64))
    top = 65_535.0 if numbers.max(initial=0) > 255 else 255.0 if numbers.max(initial=0) > 1 else 1.0
    return np.asarray(np.clip(numbers * (255.0 / max(top, numbers.max(initial=0))), 0, 255).astype(np.uint8))
