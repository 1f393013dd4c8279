"""Every classification network of torchvision is built, takes small pictures and learns from a batch."""

from __future__ import annotations

import torch
from torchvision import models

from pipeline.config.loading import compose
from pipeline.data.core.spec import Spec
from pipeline.models.foreign import TorchvisionModel

SPEC = Spec(
    "multiclass", "image", (3, 64, 64), 3, ("a", "b", "c"), pixel_mean=(128.0,) * 3, pixel_std=(60.0,) * 3
)
USUAL = ("googlenet", "mnasnet0_5", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1")
LARGEST = 100_000_000
"""Parameters; what is larger is built without its numbers alone."""


def test_networks_learn_from_a_batch(long_form: bool) -> None:
    torch.manual_seed(0)
    for name in models.list_models(models) if long_form else USUAL:
        assert compose(["model=torchvision", f"model.name={name}", "data=digits"]).model.name == name
        if models.get_model_weights(name).DEFAULT.meta["num_params"] > LARGEST:  # type: ignore[attr-defined]
            continue
        model = TorchvisionModel(SPEC, name).train()
        x, y = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8), torch.tensor([0, 1, 2, 0])
        model.objective.loss(model(x), y).backward()
        learnt = [parameter for parameter in model.parameters() if parameter.grad is not None]
        assert all(parameter.grad.isfinite().all() for parameter in learnt if parameter.grad is not None), (
            name
        )
        assert any(bool(parameter.grad.any()) for parameter in learnt if parameter.grad is not None), name
        assert model.head is not None, name
