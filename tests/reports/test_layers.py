"""A network's layers at the start of a run, in TensorBoard, and that looking at them changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.config.loading import compose
from pipeline.models.saved import load
from pipeline.reports.layers import MOST_ROWS, layers_of, table_of
from pipeline.runs.hooks import Hooks
from pipeline.runs.train import train


class Shared(nn.Module):
    """Two layers, one of which is used twice, and a parameter beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.normal = nn.BatchNorm1d(4)
        self.scale = nn.Parameter(torch.ones(3))
        self.unused = nn.Linear(2, 2)
        self.first.bias.requires_grad = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.normal(self.first(self.first(x)))
        return y * self.scale.mean()


def test_shapes_and_parameters_are_those_of_each_layer() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 6 * 6, 10))
    rows = layers_of(network, torch.zeros(2, 1, 8, 8))
    assert [(row.kind, row.shape, row.parameters) for row in rows] == [
        ("Conv2d", (3, 6, 6), 3 * 9 + 3),
        ("ReLU", (3, 6, 6), 0),
        ("Flatten", (108,), 0),
        ("Linear", (10,), 1090),
    ]


def test_every_parameter_is_counted_once_and_nothing_changes() -> None:
    network = Shared()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    rows = layers_of(network, torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))
    assert [(row.name, row.parameters) for row in rows] == [
        ("first", 20),
        ("normal", 8),
        ("unused", 6),
        ("(beside them)", 3),
    ]
    assert network.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert "37 parameters, of which 4 are fixed" in table_of(network, torch.zeros(2, 4))


def test_a_deep_network_is_shown_by_its_blocks() -> None:
    blocks = nn.Sequential(*(nn.Sequential(nn.Linear(3, 3), nn.ReLU()) for _ in range(20)))
    rows = layers_of(blocks, torch.zeros(1, 3))
    assert len(rows) == 20 <= MOST_ROWS
    assert {(row.kind, row.shape, row.parameters) for row in rows} == {("Sequential", (3,), 12)}


def run(directory: Path, *words: str) -> None:
    cfg = compose(["+experiment=digits_cnn", "model.channels=[4,4]", "model.hidden_units=8", *words])
    train(cfg, Hooks(directory=directory))


def test_a_run_begins_with_its_layers_and_comes_to_the_same_bits(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "shown", "trainer.max_epochs=2", "logger=tensorboard")
    said = capfd.readouterr().err
    assert said.index("Conv2d") < said.index("epoch 2/2")
    assert "n × 4 × 8 × 8" in said
    parameters = (25 * 4 + 4) + (25 * 16 + 4) + (16 * 8 + 8) + (8 * 10 + 10)
    assert f"{parameters:,} parameters" in said
    run(tmp_path / "quiet", "trainer.max_epochs=2", "logger=none", "callbacks.progress=null")
    assert "Conv2d" not in capfd.readouterr().err
    shown, quiet = (load(tmp_path / name / "model").module.state_dict() for name in ("shown", "quiet"))
    assert all(torch.equal(value, quiet[name]) for name, value in shown.items())


def test_tensorboard_gets_the_graph_and_a_histogram_of_every_parameter_an_epoch(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, "trainer.max_epochs=2", "logger=tensorboard", "callbacks.progress=null")
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"histograms": 0})
    events.Reload()
    assert events.Tags()["graph"]
    names = [name for name, _ in load(tmp_path / "model").module.named_parameters()]
    assert sorted(events.Tags()["histograms"]) == sorted(names)
    for name in names:
        assert [event.step for event in events.Histograms(name)] == [0, 1, 2]
