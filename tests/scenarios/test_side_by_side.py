"""Experiments that put settings side by side: each variant is the one that its name says, and all are one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config.loading import compose
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.train import train


def run(directory: Path, experiment: str) -> tuple[RunResult, list[Any]]:
    """The experiment on the embedded digits, cut short; with the model of each variant."""
    models: list[Any] = []
    words = [f"+experiment={experiment}", "logger=none", "callbacks.progress=null", "trainer.max_epochs=1"]
    cfg = compose([*words, f"paths.data_dir={directory / 'data'}"])
    hooks = Hooks(directory=directory / "run", on_model=lambda data, model: models.append(model))
    return train(cfg, hooks), models


def test_initialisers(tmp_path: Path) -> None:
    starts: dict[int, float] = {}

    def keep(_: Any, model: Any) -> None:
        starts[len(starts)] = float(
            torch.cat([p.detach().flatten() for p in model.parameters() if p.dim() > 1]).std()
        )

    words = [
        "+experiment=mnist_initializers",
        "logger=none",
        "callbacks.progress=null",
        "trainer.max_epochs=1",
    ]
    cfg = compose([*words, f"paths.data_dir={tmp_path / 'data'}"])
    result = train(cfg, Hooks(directory=tmp_path / "run", reports=False, on_model=keep))
    assert [row["variant"] for row in result.nested] == [
        "zeros",
        "normal_0_01",
        "normal_0_1",
        "glorot_uniform",
        "he_normal",
    ]
    zeros, small, large, glorot, he = starts.values()
    assert zeros == 0
    assert small == pytest.approx(0.01, rel=0.05)
    assert large == pytest.approx(0.1, rel=0.05)
    # Each layer of the stand-in's network has 64 inputs, all but the last as many outputs.
    assert he == pytest.approx((2 / 64) ** 0.5, rel=0.05)
    assert glorot == pytest.approx((2 / (64 + 64)) ** 0.5, rel=0.05)


def test_optimisers_and_capacity_are_compared_in_one_run_with_one_plot(tmp_path: Path) -> None:
    optimisers, models = run(tmp_path / "optimisers", "mnist_optimizers")
    assert [row["variant"] for row in optimisers.nested] == ["sgd", "momentum", "adagrad", "rmsprop", "adam"]
    losses = [row["metrics"]["train/loss"] for row in optimisers.nested]
    assert len(set(losses)) == 5
    assert len({sum(p.numel() for p in model.parameters()) for model in models}) == 1
    assert list((tmp_path / "optimisers/run/plots").glob("*.png"))
    capacity, models = run(tmp_path / "capacity", "mnist_capacity")
    assert [model.hidden[0].out_features for model in models] == [2, 8, 32, 128, 512]
    assert [row["variant"] for row in capacity.nested] == [f"{n}_units" for n in (2, 8, 32, 128, 512)]
