"""The settings that are there for speed: the optimiser's fused form and the number of threads."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.config import compose
from pipeline.data.core.spec import Spec
from pipeline.models.base import ParameterGroup
from pipeline.models.cnn import CNN
from pipeline.models.foreign import TorchvisionModel
from pipeline.models.linear import Linear
from pipeline.models.mlp import MLP
from pipeline.models.recurrent import Recurrent
from pipeline.models.resnet9 import ResNet9
from pipeline.training import trainer
from pipeline.training.building import optimisation
from pipeline.training.threads import Threads

WIDE = Spec("regression", "vector", (1000,), 1)


@pytest.mark.parametrize(
    ("words", "fused"),
    [
        ([], True),
        (["optimizer=adamw"], True),
        (["optimizer=sgd"], False),
        (["optimizer=rmsprop"], False),
        (["+optimizer.fused=false"], False),
        (["+optimizer.foreach=true"], False),
        # Lightning's mixed precision refuses to clip for the fused form.
        (["trainer.gradient_clip_val=1.0"], False),
    ],
)
def test_adam_is_fused_unless_something_speaks_against_it(words: list[str], fused: bool) -> None:
    optimizer = optimisation(compose(words)).optimizer([ParameterGroup(list(nn.Linear(2, 1).parameters()))])
    assert bool(optimizer.param_groups[0].get("fused")) is fused


def test_fused_and_plain_adam_go_the_same_way() -> None:
    weights = []
    for word in ("+optimizer.fused=true", "+optimizer.fused=false"):
        torch.manual_seed(0)
        layer = nn.Linear(20, 5)
        optimizer = optimisation(compose([word])).optimizer([ParameterGroup(list(layer.parameters()))])
        for x in torch.randn(30, 8, 20):
            optimizer.zero_grad()
            layer(x).square().mean().backward()
            optimizer.step()
        weights.append(layer.weight.detach().clone())
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)


@pytest.fixture
def four_threads() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("asked", "model", "batch_size", "expected"),
    [
        ("auto", Linear(WIDE), 32, 1),
        ("auto", MLP(WIDE, hidden_units=[300, 300]), 32, 1),
        # A step worth sharing out.
        ("auto", MLP(WIDE, hidden_units=[300, 300]), 512, 4),
        # Recurrent weights are used at every step of a sequence.
        ("auto", Recurrent(Spec("regression", "series", (10, 1), 1)), 1, 4),
        # Every word of the vocabulary becomes a number.
        ("auto", Linear(Spec("regression", "bag", (1000,), 1)), 32, 4),
        (2, Linear(WIDE), 32, 2),
        (3, MLP(WIDE, hidden_units=[300, 300]), 512, 3),
    ],
)
@pytest.mark.usefixtures("four_threads")
def test_small_steps_run_on_one_thread(asked: Any, model: Any, batch_size: int, expected: int) -> None:
    with Threads({"threads": asked}, model, batch_size):
        assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four_threads")
def test_an_error_gives_the_threads_back() -> None:
    with pytest.raises(RuntimeError, match="stop"), Threads({}, Linear(WIDE), 1):
        raise RuntimeError("stop")
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize(
    ("flags", "depthwise", "expected"),
    [
        ("avx512_bf16 amx_bf16", True, "bf16-mixed"),
        ("avx512_bf16 amx_bf16", False, "bf16-mixed"),
        ("avx512_bf16", False, "bf16-mixed"),
        # Convolutions of single channels are slower in it there.
        ("avx512_bf16", True, "32-true"),
        ("avx2", False, "32-true"),
    ],
)
def test_bfloat16_is_chosen_where_it_pays(
    flags: str, depthwise: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = CNN(Spec("multiclass", "image", (4, 8, 8), 3, ("a", "b", "c")), channels=[4], hidden_units=4)
    if depthwise:
        model.convolutions.append(nn.Conv2d(4, 4, 3, groups=4))
    monkeypatch.setattr(
        trainer, "Path", lambda name: SimpleNamespace(exists=lambda: True, read_text=lambda **_: flags)
    )
    assert trainer.precision("auto", model, "cpu") == expected
    assert trainer.precision("16-mixed", model, "cpu") == "16-mixed"


def test_networks_of_images_have_their_channels_beside_each_other() -> None:
    spec = Spec(
        "multiclass", "image", (3, 32, 32), 2, ("a", "b"), pixel_mean=(0.0,) * 3, pixel_std=(1.0,) * 3
    )
    for model in (ResNet9(spec, width=4), TorchvisionModel(spec, "squeezenet1_1")):
        weights = [weight for weight in model.parameters() if weight.dim() == 4 and weight[0].numel() > 9]
        assert weights
        assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
