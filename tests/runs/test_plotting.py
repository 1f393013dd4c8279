"""The plots of a run are drawn from what its model computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pipeline.config.loading import compose
from pipeline.runs.hooks import Hooks
from pipeline.runs.train import train


def test_convolutions_are_those_of_the_model_on_the_first_test_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    seen: list[Any] = []

    def keep(image: Any, layers: Any, path: Path) -> Path:
        drawn.append((image, layers))
        path.write_bytes(b"")
        return path

    monkeypatch.setattr("pipeline.reports.convolutions.convolutions", keep)
    words = [
        "data=digits",
        "model=cnn",
        "model.channels=[3,4]",
        "model.kernel_size=3",
        "model.hidden_units=8",
    ]
    cfg = compose([*words, "trainer.max_epochs=1", "logger=none", "callbacks.progress=null"])
    train(cfg, Hooks(directory=tmp_path / "run", on_model=lambda data, model: seen.append((data, model))))
    data, model = seen[0]
    ((image, layers),) = drawn
    raw = data.test.take(torch.arange(1))[0]
    assert np.array_equal(image, raw[0].numpy())
    assert [name for name, _, _ in layers] == ["convolutions.0", "convolutions.3"]
    first = model.convolutions[0]
    expected = F.conv2d(data.spec.normalised(raw.float()), first.weight, first.bias, padding=1)[0]
    assert layers[0][2] == pytest.approx(expected.detach().numpy(), abs=1e-5)
    assert layers[1][1].shape == (4, 3, 3, 3)
