"""The state that a recurrent model carries from batch to batch: a tensor or a tuple of them, samples second."""

from __future__ import annotations

import torch

from pipeline.models.base import State


def of_samples(state: State, part: slice) -> State:
    """The state of some of a batch's samples."""
    if state is None:
        return None
    if isinstance(state, tuple):
        return tuple(half[:, part].contiguous() for half in state)
    return state[:, part].contiguous()


def joined(states: list[State]) -> State:
    """The inverse of :func:`of_samples`."""
    if any(state is None for state in states):
        return None
    if isinstance(states[0], tuple):
        return tuple(torch.cat(halves, dim=1) for halves in zip(*states, strict=True))
    return torch.cat(states, dim=1)


def detached(state: State) -> State:
    """The state without the computation that led to it."""
    if state is None:
        return None
    return tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()


def moved(state: State, device: torch.device) -> State:
    """The state on ``device``."""
    if state is None:
        return None
    return tuple(part.to(device) for part in state) if isinstance(state, (tuple, list)) else state.to(device)
