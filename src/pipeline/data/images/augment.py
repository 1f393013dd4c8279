"""Random changes of training images, made on whole batches of ``uint8``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

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


def augmentation(level: str) -> Callable[[Tensor], Tensor]:
    """Changes for training images, drawn from torch's random state.

    ``light`` shifts by up to 8 % of the side, turns by up to 7° and changes size and contrast a little; ``strong``
    doubles that and erases a patch of every fourth group. ``trivial`` is TrivialAugment (Müller and Hutter 2021: one
    change of any strength), ``rand`` RandAugment (Cubuk et al. 2020: two of middling strength), with patches erased.
    Colour images are mirrored half of the time; grey ones are not, since most of those are signs that must not be.

    Args:
        level: ``light``, ``strong``, ``trivial`` or ``rand``.

    Returns:
        A function of a batch (samples, channels, height, width), ``uint8`` in and out.

    Example:
        >>> augmentation("light")(torch.zeros(4, 1, 8, 8, dtype=torch.uint8)).shape
        torch.Size([4, 1, 8, 8])
    """
    if level not in (*_LEVELS, *_POLICIES):
        raise UserError(f"data.augment={level}; expected none, light, strong, trivial or rand")
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
        if images.dim() != 4:
            raise UserError(f"data.augment={level} is for images; this data gives {tuple(images.shape[1:])}")
        channels = images.shape[1]
        # What is neither grey nor colour (noise channels, say) has no brightness to change.
        turn: Any = change if channels in (1, 3) else steps[-1] if level in _POLICIES else steps[0]
        groups = images.chunk(min(GROUPS, len(images)))
        changed = shifted(torch.cat([turn(group) for group in groups]), chosen.shift)
        return mirrored(changed) if channels == 3 else changed

    return augment


def shifted(images: Tensor, share: float) -> Tensor:
    """Each image moved by its own random number of pixels, up to ``share`` of its sides; what is bared is 0."""
    samples, channels, height, width = images.shape
    down, right = max(1, round(height * share)), max(1, round(width * share))
    padded = torch.nn.functional.pad(images, (right, right, down, down))
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
