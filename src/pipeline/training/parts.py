"""Tensors of which each process keeps a part (`trainer.strategy=fsdp`), and those that are whole, in the same words."""

from __future__ import annotations

import sys
from typing import Any

import pytorch_lightning as pl
from torch import Tensor


def whole(value: Any) -> Any:
    """A tensor as a whole, gathered from all processes where each has a part of it; anything else as it is.

    Every process has to ask, in the same order.
    """
    return value.full_tensor() if _is_part(value) else value


def local(value: Tensor) -> Tensor:
    """What this process has of a tensor."""
    found: Tensor = value.to_local() if _is_part(value) else value  # type: ignore[attr-defined]
    return found


def parted_like(value: Tensor, other: Tensor) -> Tensor:
    """This process's part of a whole tensor, parted as ``other`` is; the tensor itself where that one is whole."""
    if not _is_part(other) or value.shape != other.shape:
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(other, DTensor)
    return distribute_tensor(value.to(other.device), other.device_mesh, other.placements)


def is_sharded(trainer: pl.Trainer) -> bool:
    """Whether this process has a part of the model alone."""
    return bool(getattr(trainer.strategy, "parts_the_model", False))


def _is_part(value: Any) -> bool:
    # Who parts a tensor has imported them; for the rest of us that would take a third as long as torch itself.
    tensors = sys.modules.get("torch.distributed.tensor")
    return tensors is not None and isinstance(value, tensors.DTensor)
