"""What all processes of one training must decide alike: one that saves or stops alone waits for the others for ever."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import distributed

from pipeline.errors import Diverged


def largest(trainer: Any, *numbers: int) -> list[int]:
    """The largest of each number over all processes; every one has to ask, at the same place.

    Args:
        trainer: Trainer of the training.
        *numbers: Numbers of this process; a flag is 0 or 1.
    """
    if trainer.world_size == 1:
        return list(numbers)
    values = torch.tensor(numbers, dtype=torch.int64)
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(
            values, distributed.ReduceOp.MAX, group=_on_processors(distributed.group.WORLD)
        )
        return [int(value) for value in values]
    # Another library carries what TPUs tell each other.
    strategy = trainer.strategy
    return [int(strategy.reduce(value.to(strategy.root_device), reduce_op="max")) for value in values]


def of_the_first(trainer: Any, value: Any) -> Any:
    """What the process of rank 0 has: a plain value."""
    return value if trainer.world_size == 1 else trainer.strategy.broadcast(value, src=0)


def raise_together(trainer: Any, error: Diverged | None) -> None:
    """Raise in every process where one has an error: the error of the first that has one.

    Raises:
        Diverged: A process has one.
    """
    if not largest(trainer, error is not None)[0]:
        return
    if trainer.world_size > 1 and distributed.is_available() and distributed.is_initialized():
        told: list[str | None] = [None] * trainer.world_size
        group = _on_processors(distributed.group.WORLD)
        distributed.all_gather_object(told, None if error is None else str(error), group=group)
        error = Diverged(next(text for text in told if text is not None))
    raise error or Diverged("the loss or the weights of another process became NaN or infinite")


@functools.lru_cache(maxsize=1)
def _on_processors(world: Any) -> Any:
    """A group of all processes that talk without their accelerators, which would have to be waited for every step."""
    return world if distributed.get_backend(world) == "gloo" else distributed.new_group(backend="gloo")
