"""Image files as arrays: the one place that opens an image, for training and for prediction."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm"}
FORMATS = ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"]
"""Decoders that are used: no others, whatever a file claims to be (some of them start programs)."""
MAX_PIXELS = 50_000_000
MAX_FILE_BYTES = 200_000_000
_PASSING = {
    getattr(errno, name, None)
    for name in ("EMFILE", "ENFILE", "EIO", "ENOMEM", "EAGAIN", "ESTALE", "ETIMEDOUT", "ENOTCONN")
}
"""Errors that say more of the machine, at the moment, than of the file."""


@dataclass(frozen=True)
class Resizing:
    """How images of any size become images of one size.

    Args:
        crop: Share of the shorter side that is kept, around the middle, so that nothing is stretched; None keeps the
            whole image and stretches it.
        interpolation: ``bilinear`` or ``bicubic``.
        always: Whether images that have the size already are scaled and cropped like all others, as those were that
            published weights learnt from. Models of earlier versions took them as they are.
    """

    crop: float | None = None
    interpolation: str = "bilinear"
    always: bool = False

    @classmethod
    def to(cls, crop: float | None, interpolation: str | None = None) -> Resizing:
        """What new models are trained with."""
        return cls(crop, interpolation or "bilinear", always=crop is not None)

    def settings(self) -> dict[str, Any]:
        """What a saved model holds of it."""
        return {name: value for name, value in asdict(self).items() if name != "always" or value}


AS_A_WHOLE = Resizing()


def read_images(
    files: Sequence[Path],
    shape: Sequence[int],
    resize: bool = True,
    how: Resizing = AS_A_WHOLE,
    threads: int | None = None,
) -> tuple[np.ndarray, list[str]]:
    """Image files as one array, on several threads.

    Args:
        files: Paths of the images.
        shape: Channels (1 or 3), height and width of every image.
        resize: Whether images of another size are resized; otherwise they count as unreadable.
        how: How they are resized.
        threads: Number of threads; None for one a core.

    Returns:
        ``uint8`` (files, channels, height, width), and for each file why it cannot be read; empty where it can.

    Raises:
        UserError: A file cannot be read at the moment.
    """
    images = np.zeros((len(files), *shape), dtype=np.uint8)

    def decode(number: int) -> str:
        try:
            images[number] = read_image(files[number], shape, resize, how)
        except Exception as error:
            refuse_passing(error, files[number])
            # Decoders raise all kinds of things for damaged files.
            return (str(error) or type(error).__name__).splitlines()[0][:200]
        return ""

    with warnings.catch_warnings():
        # Decoders warn of what is damaged without saying where; the caller names the file.
        warnings.simplefilter("ignore")
        if threads == 1:
            return images, [decode(number) for number in range(len(files))]
        with ThreadPoolExecutor(threads or min(16, os.cpu_count() or 1)) as pool:
            return images, list(pool.map(decode, range(len(files))))


def refuse_passing(error: Exception, path: Path) -> None:
    """Refuse to take for damaged a file that a later start may well read: too many are open, a disk does not answer.

    Args:
        error: What was raised when it was read.
        path: The file.

    Raises:
        UserError: It is such an error.
    """
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _PASSING - {None}):
        reason = (isinstance(error, OSError) and error.strerror) or "there is too little memory"
        raise UserError(
            f"{path} cannot be read at the moment ({reason}): try again, or leave the file out"
        ) from error


def sizes_of(files: Sequence[Path]) -> tuple[np.ndarray, bool]:
    """Width and height of image files by their headers, (files, 2), and whether any of them has colours.

    Files that cannot be read are left out.
    """
    from PIL import Image

    sizes, colour = [], False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in files:
            try:
                with Image.open(path, formats=FORMATS) as image:
                    sizes.append(image.size)
                    colour = colour or not image.mode.startswith(("1", "L", "I", "F"))
            except Exception:
                # Decoders raise all kinds of things; what cannot be read is named elsewhere.
                continue
    return np.array(sizes, dtype=np.int64).reshape(-1, 2), colour


def read_image(
    path: Path, shape: Sequence[int], resize: bool = True, how: Resizing = AS_A_WHOLE
) -> np.ndarray:
    """One image file as (channels, height, width).

    Raises:
        ValueError: There are too many pixels or bytes, or the size is another one. A decoder may raise anything for a
            damaged file.
    """
    from PIL import Image

    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"the file is larger than {MAX_FILE_BYTES // 1_000_000} MB")
    with Image.open(path, formats=FORMATS) as image:
        # Before anything is decoded: a file of some kilobytes may claim billions of pixels.
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width}×{image.height} pixels, more than {MAX_PIXELS:,}")
        return to_array(image, shape, resize, how)


def to_array(
    image: Image.Image, shape: Sequence[int], resize: bool = True, how: Resizing = AS_A_WHOLE
) -> np.ndarray:
    """An image as ``uint8`` (channels, height, width): turned upright, transparent parts white, resized.

    Raises:
        ValueError: The image has another size and is not to be resized.
    """
    from PIL import Image, ImageOps

    channels, height, width = shape
    image = ImageOps.exif_transpose(image)
    if image.size != (width, height) and not resize:
        raise ValueError(
            f"{image.width}×{image.height} pixels, but this model takes {width}×{height}; resize it first"
        )
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_to_bytes(np.asarray(image)))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    image = image.convert("L" if channels == 1 else "RGB")
    if how.crop is not None:
        image = _cropped(image, height, width, how)
    if image.size != (width, height):
        # Averages over what becomes one pixel; dropping pixels would leave noise.
        image = image.resize((width, height), Image.Resampling[how.interpolation.upper()], reducing_gap=3.0)
    values: np.ndarray = np.asarray(image)
    return values[None] if channels == 1 else values.transpose(2, 0, 1)


def _cropped(image: Image.Image, height: int, width: int, how: Resizing) -> Image.Image:
    """The middle of an image, scaled to cover the size asked for, as torchvision's Resize and CenterCrop do."""
    from PIL import Image

    if image.size == (width, height) and not how.always:
        return image
    # The side that is the shorter one, beside what is asked for, becomes as long as the part of it that is cut away.
    wide, tall = width / (how.crop or 1.0), height / (how.crop or 1.0)
    if image.width * tall <= image.height * wide:
        size = (round(wide), int(round(wide) * image.height / image.width))
    else:
        size = (int(round(tall) * image.width / image.height), round(tall))
    size = (max(size[0], width), max(size[1], height))
    # Without the quicker first reduction: weights were trained on exactly these pixels.
    image = image.resize(size, Image.Resampling[how.interpolation.upper()])
    left, top = round((size[0] - width) / 2.0), round((size[1] - height) / 2.0)
    return image.crop((left, top, left + width, top + height))


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """Numbers of 16 bits or more, or fractions, as 0–255."""
    numbers = np.nan_to_num(values.astype(np.float64))
    top = 65_535.0 if numbers.max(initial=0) > 255 else 255.0 if numbers.max(initial=0) > 1 else 1.0
    return np.asarray(np.clip(numbers * (255.0 / max(top, numbers.max(initial=0))), 0, 255).astype(np.uint8))
