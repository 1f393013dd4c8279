"""Two spirals that wind around each other."""

import math

import torch
from torch.utils.data import Dataset


class Spirals(Dataset):
    """Points of two spirals in the plane.

    Args:
        samples: Number of points.
        noise: Standard deviation of each coordinate.
        seed: Seed of the points.
    """

    classes = ("left", "right")

    def __init__(self, samples: int = 1000, noise: float = 0.05, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.targets = torch.arange(samples) % 2
        along = 1.5 * math.pi * torch.rand(samples, generator=generator).sqrt() + 0.5
        angle = along + math.pi * self.targets
        self.points = torch.stack([along * angle.cos(), along * angle.sin()], dim=1) / 5
        self.points += noise * torch.randn(samples, 2, generator=generator)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        return self.points[number], int(self.targets[number])
