"""Encoders of images: of one size as they stand, and of any size and mode resized to one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pipeline.data.core.encoder import Encoder
from pipeline.data.images.decoding import AS_A_WHOLE, SUFFIXES, Resizing, read_images, to_array
from pipeline.errors import UserError

_COUNTED = 1000
"""Images whose pixels are counted at once: each pixel takes eight bytes for it."""


class ImageEncoder(Encoder):
    """Raw pixels 0–255 to ``uint8`` images; the model itself normalises them on its device.

    Args:
        shape: Channels, height and width.
        mean: Mean of each channel over the training split, in pixel units.
        std: Standard deviation of each channel, likewise.
    """

    kind = "image"
    resizes: ClassVar[bool] = False
    """Whether files of another size are resized, as they were for training."""
    how = AS_A_WHOLE
    """How they are."""

    def __init__(self, shape: list[int], mean: list[float], std: list[float]) -> None:
        self.shape, self.mean, self.std = list(shape), list(mean), list(std)

    @classmethod
    def fit(cls, images: Tensor) -> ImageEncoder:
        """Channel statistics of ``uint8`` images of shape (samples, channels, height, width)."""
        mean, std = [], []
        for channel in range(images.shape[1]):
            # A histogram of 256 bins is exact, and needs no float copy of the whole split.
            counts = torch.zeros(256, dtype=torch.float64)
            for some in images[:, channel].split(_COUNTED):
                counts += torch.bincount(some.reshape(-1), minlength=256)
            values = torch.arange(256, dtype=torch.float64)
            average = float((counts * values).sum() / counts.sum())
            variance = float((counts * (values - average) ** 2).sum() / counts.sum())
            mean.append(average)
            std.append(max(variance**0.5, 1.0))
        return cls(list(images.shape[1:]), mean, std)

    def encode(self, raw: Any) -> Tensor:
        channels, height, width = self.shape
        try:
            values = np.asarray(raw)
            if values.dtype == object:
                values = np.stack([np.asarray(image) for image in values])
        except ValueError as error:
            raise UserError(f"images of different sizes; expected {height}×{width} each: {error}") from None
        if values.ndim == 2 and values.shape[1] == channels * height * width:
            values = values.reshape(-1, channels, height, width)
        elif values.ndim == 3 and channels == 1:
            values = values[:, None]
        elif values.ndim == 4 and values.shape[-1] == channels and values.shape[1] != channels:
            values = values.transpose(0, 3, 1, 2)
        if values.ndim != 4 or list(values.shape[1:]) != self.shape:
            raise UserError(
                f"got images of shape {tuple(np.shape(raw))}, expected (samples, {height}, {width})"
                f"{'' if channels == 1 else f' with {channels} channels'} and pixel values 0–255"
            )
        if not np.issubdtype(values.dtype, np.number) or (
            values.size and (values.min() < 0 or values.max() > 255)
        ):
            raise UserError("pixel values must be numbers from 0 to 255")
        return torch.from_numpy(np.ascontiguousarray(values.astype(np.uint8)))

    def takes(self, path: Path) -> bool:
        return path.suffix.lower() in SUFFIXES

    def read(self, paths: Sequence[Path]) -> np.ndarray:
        channels = self.shape[0]
        if channels not in (1, 3):
            raise UserError(f"this model takes images of {channels} channels; pass them as a .npy file")
        images, reasons = read_images(paths, self.shape, self.resizes, self.how)
        for path, reason in zip(paths, reasons, strict=True):
            if reason:
                raise UserError(f"{path} is no image that can be read: {reason}")
        return images

    def state(self) -> dict[str, Any]:
        return {"shape": self.shape, "mean": self.mean, "std": self.std}

    def example(self) -> np.ndarray:
        channels, height, width = self.shape
        images = np.zeros(
            (2, height, width) if channels == 1 else (2, channels, height, width), dtype=np.uint8
        )
        images[1] = 255
        return images

    def signature(self) -> dict[str, Any]:
        shape = self.shape[1:] if self.shape[0] == 1 else self.shape
        return {"type": "tensor", "dtype": "uint8", "shape": [-1, *shape]}


class ResizingImageEncoder(ImageEncoder):
    """Images of any size and mode to ``uint8`` images of one size.

    Takes a list of images, or an array (samples, height, width) or (samples, height, width, channels): values 0–255.

    Args:
        shape: Channels, height and width.
        mean: Mean of each channel over the training split, in pixel units.
        std: Standard deviation of each channel, likewise.
        crop: Share of the shorter side that is kept, see :class:`Resizing`.
        interpolation: ``bilinear`` or ``bicubic``.
        always: Whether images that have the size already are cropped too.
    """

    kind = "resizing_image"
    resizes = True

    def __init__(
        self,
        shape: list[int],
        mean: list[float],
        std: list[float],
        crop: float | None = None,
        interpolation: str = "bilinear",
        always: bool = False,
    ) -> None:
        super().__init__(shape, mean, std)
        self.how = Resizing(crop, interpolation, always)

    def state(self) -> dict[str, Any]:
        return super().state() | (self.how.settings() if self.how != AS_A_WHOLE else {})

    def encode(self, raw: Any) -> Tensor:
        from PIL import Image

        prepared = np.asarray(raw) if not isinstance(raw, (list, tuple)) else None
        if prepared is not None and prepared.dtype == np.uint8 and list(prepared.shape[1:]) == self.shape:
            return torch.from_numpy(np.array(prepared))
        if prepared is not None and prepared.ndim == 3 and prepared.shape[2] in (3, 4):
            raise UserError(
                f"got one image of shape {prepared.shape}; expected several: (samples, height, width, 3)"
            )
        images = np.empty((len(raw), *self.shape), dtype=np.uint8)
        for number, one in enumerate(raw):
            if not isinstance(one, Image.Image):
                one = Image.fromarray(_pixels(one))
            images[number] = to_array(one, self.shape, how=self.how)
        return torch.from_numpy(images)

    @classmethod
    def fit(cls, images: Tensor, how: Resizing = AS_A_WHOLE) -> ResizingImageEncoder:
        fitted = ImageEncoder.fit(images)
        return cls(fitted.shape, fitted.mean, fitted.std, **asdict(how))

    @classmethod
    def of_sums(
        cls, shape: Sequence[int], sums: np.ndarray, how: Resizing = AS_A_WHOLE
    ) -> ResizingImageEncoder:
        """The encoder of images of which sums are known.

        Args:
            shape: Channels, height and width.
            sums: Sum and sum of squares of each training image's channels, (images, channels, 2), whole numbers.
            how: How images are resized.
        """
        pixels = len(sums) * shape[1] * shape[2]
        mean, square = sums.sum(0).T / pixels
        std = np.maximum(np.sqrt(np.maximum(square - mean**2, 0)), 1.0)
        return cls(list(shape), mean.tolist(), std.tolist(), **asdict(how))

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
        UserError: It is not an image, or has values outside 0–255.
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
