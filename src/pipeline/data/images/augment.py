"""Random changes of training images, made on whole batches of ``uint8``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.errors import UserError

GROUPS = 8
"""Parts of a batch that are turned and scaled alike: a turn of its own for every image would take longer than the
training step. Shifts and mirroring are every image's own."""


@dataclass(frozen=True)
class _Level:
    shift: float
    degrees: float
    scale: tuple[float, float]
    contrast: float
    erase: float


_LEVELS = {
    "light": _Level(shift=0.08, degrees=7, scale=(0.95, 1.05), contrast=0.1, erase=0.0),
    "strong": _Level(shift=0.14, degrees=15, scale=(0.85, 1.15), contrast=0.3, erase=0.25),
}


_POLICIES = ("trivial", "rand")
_CROPPED = ("crop", "crop_small")
_SMALL, _HALVED = 0.8, 16
"""Sides of small training images beside those that a network is judged by; of what they are multiples where they are at
least as long as four of it, since networks halve them several times."""
_LEAST_AREA, _RATIO = 0.35, 4 / 3
"""Of the part of an image that is cut out: its least share of the whole, and how far from its shape it may be."""


def augmentation(level: str) -> Callable[[Tensor], Tensor]:
    """Changes for training images, drawn from torch's random state.

    ``light`` shifts by up to 8 % of the side, turns by up to 7° and changes size and contrast a little; ``strong``
    doubles that and erases a patch of every fourth group. ``trivial`` is TrivialAugment (Müller and Hutter 2021: one
    change of any strength), ``rand`` RandAugment (Cubuk et al. 2020: two of middling strength), with patches erased.
    ``crop`` cuts a part of its own out of each image and scales it (Szegedy et al. 2015), ``crop_small`` to a smaller
    size, see :func:`cropped` and :func:`small`.
    Colour images are mirrored half of the time; grey ones are not, since most of those are signs that must not be.

    Args:
        level: ``light``, ``strong``, ``trivial``, ``rand``, ``crop`` or ``crop_small``.

    Returns:
        A function of a batch (samples, channels, height, width), ``uint8`` in and out.

    Raises:
        UserError: There is no such level; the function: a batch is no images.

    Example:
        >>> augmentation("light")(torch.zeros(4, 1, 8, 8, dtype=torch.uint8)).shape
        torch.Size([4, 1, 8, 8])
    """
    if level not in (*_LEVELS, *_POLICIES, *_CROPPED):
        raise UserError(
            f"data.augment={level}; expected none, light, strong, trivial, rand, crop or crop_small"
        )
    if level in _CROPPED:
        return partial(cropped, level=level)
    from torchvision.transforms import v2

    chosen = _LEVELS.get(level, _LEVELS["light"])
    steps: list[Any] = [
        v2.RandomAffine(chosen.degrees, scale=chosen.scale, interpolation=v2.InterpolationMode.BILINEAR),
        v2.ColorJitter(brightness=chosen.contrast, contrast=chosen.contrast),
    ]
    if chosen.erase:
        steps.append(v2.RandomErasing(chosen.erase, scale=(0.02, 0.1)))
    if level in _POLICIES:
        # One policy draws for all that it is given at once; a turn and a shear are among what it draws.
        policy = v2.TrivialAugmentWide() if level == "trivial" else v2.RandAugment()
        steps = [policy, v2.RandomErasing(0.1, scale=(0.02, 0.2))]
    change = v2.Compose(steps)

    def augment(images: Tensor) -> Tensor:
        _check_images(images, level)
        channels = images.shape[1]
        # What is neither grey nor colour (noise channels, say) has no brightness to change.
        turn: Any = change if channels in (1, 3) else steps[-1] if level in _POLICIES else steps[0]
        groups = images.chunk(min(GROUPS, len(images)))
        changed = shifted(torch.cat([turn(group) for group in groups]), chosen.shift)
        return mirrored(changed) if channels == 3 else changed

    return augment


def _check_images(images: Tensor, level: str) -> None:
    if images.dim() != 4:
        raise UserError(f"data.augment={level} is for images; this data gives {tuple(images.shape[1:])}")


def small(height: int, width: int) -> tuple[int, int]:
    """Height and width of training images with ``crop_small``: about 0.8 of those that a network is judged by.

    Example:
        >>> small(128, 160), small(28, 28)
        ((96, 128), (22, 22))
    """
    down, right = (
        _HALVED * round(_SMALL * side / _HALVED) if side >= 4 * _HALVED else round(_SMALL * side)
        for side in (height, width)
    )
    return max(1, down), max(1, right)


def cropped(images: Tensor, level: str = "crop") -> Tensor:
    """A part of each image, of 35 to 100 % of its area and of about its shape, at a size that all have.

    What is in it looks larger than in the whole image. With ``crop_small`` what comes out is smaller by about as much:
    things look as large as in evaluation, and training takes less time (Touvron et al. 2019, arXiv:1906.06423).

    Args:
        images: (samples, channels, height, width), ``uint8``.
        level: ``crop`` or ``crop_small``.

    Returns:
        As many images, ``uint8``; those in colour are mirrored half of the time.

    Raises:
        UserError: These are no images.
    """
    _check_images(images, level)
    samples, channels, height, width = images.shape
    area = torch.empty(samples).uniform_(_LEAST_AREA, 1)
    shape = torch.empty(samples).uniform_(-math.log(_RATIO), math.log(_RATIO)).exp()
    high, wide = (area / shape).sqrt().clamp(max=1), (area * shape).sqrt().clamp(max=1)
    down, right = ((2 * torch.rand(samples) - 1) * (1 - side) for side in (high, wide))
    if channels == 3:
        wide = torch.where(torch.rand(samples) < 0.5, -wide, wide)
    # From places in what comes out to places in the image, both from -1 to 1.
    places = torch.zeros(samples, 2, 3)
    places[:, 0, 0], places[:, 0, 2], places[:, 1, 1], places[:, 1, 2] = wide, right, high, down
    size = (height, width) if level == "crop" else small(height, width)
    grid = functional.affine_grid(places, [samples, channels, *size], align_corners=False)
    found = functional.grid_sample(
        images.float(), grid.to(images.device), padding_mode="border", align_corners=False
    )
    return found.round().to(torch.uint8)


def shifted(images: Tensor, share: float) -> Tensor:
    """Each image moved by its own random number of pixels, up to ``share`` of its sides; what is bared is 0."""
    samples, channels, height, width = images.shape
    down, right = max(1, round(height * share)), max(1, round(width * share))
    padded = functional.pad(images, (right, right, down, down))
    tops = torch.randint(2 * down + 1, (samples, 1)).to(images.device)
    lefts = torch.randint(2 * right + 1, (samples, 1)).to(images.device)
    rows = (tops + torch.arange(height, device=images.device))[:, None, :, None]
    columns = (lefts + torch.arange(width, device=images.device))[:, None, None, :]
    sample = torch.arange(samples, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    return padded[sample, channel, rows, columns]


def mirrored(images: Tensor) -> Tensor:
    """Each image with its left and right exchanged, or not, with equal chance."""
    chosen = (torch.rand(len(images)) < 0.5).to(images.device)
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)
