"""Fits at the same time come to what they come to one after the other; what goes wrong in one is said."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial

import pytest
import torch

from pipeline.data.core.encoder import VectorEncoder
from pipeline.data.core.spec import Spec
from pipeline.errors import Diverged, UserError
from pipeline.models.linear import Linear
from pipeline.runs.beside import Lost, fitted_beside

SPEC = Spec("regression", "vector", (4,), 1)
ENCODER = VectorEncoder(list("abcd"))
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are not forked here")


def fitted(seed: int) -> Linear:
    """As a fit does it: from a seed, with gradients."""
    torch.manual_seed(seed)
    model = Linear(SPEC)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(64, 4)
    for _ in range(5):
        optimizer.zero_grad()
        model.objective.loss(model(x), x.sum(1, keepdim=True)).backward()
        optimizer.step()
    return model


def test_models_come_back_in_order_with_the_same_bits() -> None:
    # Gradients have been computed here before, as in a ladder.
    alone = [fitted(seed) for seed in range(5)]
    beside = fitted_beside([partial(fitted, seed) for seed in range(5)], ENCODER, 3)
    for one, other in zip(alone, beside, strict=True):
        assert isinstance(other, Linear)
        assert all(torch.equal(other.state_dict()[name], value) for name, value in one.state_dict().items())


def test_each_has_a_process_of_its_own_with_one_thread() -> None:
    def about() -> Linear:
        model = fitted(0)
        model.output.weight.data[0, :2] = torch.tensor([float(os.getpid()), float(torch.get_num_threads())])
        return model

    found = [
        model.state_dict()["output.weight"][0, :2].tolist()
        for model in fitted_beside([about] * 2, ENCODER, 2)
    ]
    assert len({process for process, _ in found} - {float(os.getpid())}) == 2
    assert [threads for _, threads in found] == [1.0, 1.0]


def test_what_goes_wrong_is_said_and_the_others_are_ended() -> None:
    def diverges() -> Linear:
        raise Diverged("the loss became NaN in step 3")

    with pytest.raises(Diverged, match="the loss became NaN in step 3"):
        fitted_beside([partial(fitted, 0), diverges, partial(fitted, 1)], ENCODER, 2)

    class Unreadable(UserError):
        def __init__(self, path: str, line: int) -> None:
            super().__init__(f"{path}, line {line}: not a number")

    def refuses() -> Linear:
        raise Unreadable("t.csv", 3)

    with pytest.raises(UserError, match=r"t\.csv, line 3: not a number"):
        fitted_beside([partial(fitted, 0), refuses], ENCODER, 2)

    def killed() -> Linear:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def waits() -> Linear:
        signal.pause()
        raise AssertionError

    # The one that would wait for ever is ended as well.
    with pytest.raises(Lost, match="ended with code -9"):
        fitted_beside([waits, killed], ENCODER, 2)


def test_one_worker_needs_no_process() -> None:
    assert [type(model) for model in fitted_beside([partial(fitted, 0)] * 2, ENCODER, 1)] == [Linear, Linear]
