"""The mean of the weights over the last steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.config.loading import compose
from pipeline.data.core.spec import Spec
from pipeline.errors import UserError
from pipeline.models.mlp import MLP
from pipeline.runs.hooks import Hooks
from pipeline.runs.train import train
from pipeline.training.averaging import Average

SPEC = Spec("multiclass", "vector", (5,), 3, ("a", "b", "c"))


def test_the_mean_is_that_of_the_recursion_by_hand() -> None:
    torch.manual_seed(0)
    model = MLP(SPEC, hidden_units=[4], batch_norm=True)
    average = Average(model, 0.3)
    expected: dict[str, Tensor] = {}
    for step in range(5):
        with torch.no_grad():
            for tensor in model.state_dict().values():
                tensor.add_(torch.randn_like(tensor) if tensor.is_floating_point() else 1)
        average.update(model)
        # The first step is copied; then at most 0.3 is kept, less at the beginning: 2/11, 3/12, 0.3, 0.3.
        kept = [0.0, 2 / 11, 3 / 12, 0.3, 0.3][step]
        for name, tensor in model.state_dict().items():
            before = expected.get(name, tensor)
            mean = kept * before + (1 - kept) * tensor if tensor.is_floating_point() else tensor
            expected[name] = mean.clone()
    found = average.model.state_dict()
    assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in expected.items())
    assert average.steps == 5 and not average.model.training


def test_the_mean_is_what_is_judged_and_kept(tmp_path: Path) -> None:
    results = {}
    common = ["experiment=digits_mlp", "logger=none", "callbacks.progress=null", "trainer=cpu"]
    common += ["trainer.max_epochs=2", "optimizer.lr=0.02", "data.batch_size=64", "model.hidden_units=[16]"]
    for name, words in {"last": [], "mean": ["trainer.ema=0.98"]}.items():
        cfg = compose([*common, f"paths.experiments_dir={tmp_path}", *words])
        results[name] = train(cfg, Hooks(directory=tmp_path / name))
    weights = {
        name: torch.load(tmp_path / name / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
        for name in results
    }
    assert any(not torch.equal(weights["last"][name], weights["mean"][name]) for name in weights["last"])
    last = torch.load(tmp_path / "mean/checkpoints/last.ckpt", weights_only=True)
    # Training itself is the same: the mean is taken beside it.
    other = torch.load(tmp_path / "last/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(last["pipeline"]["last_weights"][name], value) for name, value in other.items())
    assert results["mean"].history["train/loss"] == results["last"].history["train/loss"]
    assert results["mean"].history["val/loss"] != results["last"].history["val/loss"]


@pytest.mark.parametrize("value", ["0", "1", "-0.5", "2"])
def test_a_share_outside_its_range_is_refused(value: str) -> None:
    with pytest.raises(UserError, match=r"trainer\.ema="):
        compose(["experiment=digits_mlp", f"trainer.ema={value}"])
