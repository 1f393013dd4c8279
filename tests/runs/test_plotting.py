"""The plots of a run are drawn from what its model computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pipeline.config.loading import compose
from pipeline.reports import plots
from pipeline.runs.hooks import Hooks
from pipeline.runs.plotting import confused_pairs, nearest
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
    assert (tmp_path / "run/plots/confused_pairs.png").stat().st_size > 0


def test_the_classes_mistaken_most_often_come_first_and_the_surest_picture_of_each() -> None:
    true = np.array([0, 0, 0, 1, 1, 2, 2])
    predicted = np.array([1, 1, 0, 0, 1, 1, 1])
    confidence = np.array([0.6, 0.9, 1.0, 0.5, 0.9, 0.7, 0.8])
    found = [(was, said, rows.tolist()) for was, said, rows in confused_pairs(true, predicted, confidence)]
    assert found == [(0, 1, [1, 0]), (2, 1, [6, 5]), (1, 0, [3])]
    assert confused_pairs(true, true, confidence) == []


def test_nearest_neighbours_are_those_of_the_smallest_angle_from_the_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    known, asked = torch.randn(40, 6, generator=generator) + 5, torch.randn(3, 6, generator=generator) + 5
    middle = known.mean(0)
    for row, found in zip(asked, nearest(known, asked, 4), strict=True):
        cosines = [float(F.cosine_similarity(row - middle, other - middle, dim=0)) for other in known]
        assert found.tolist() == sorted(range(40), key=lambda place: -cosines[place])[:4]


@pytest.mark.drawn
def test_rows_of_pictures_are_drawn_and_none_too(tmp_path: Path) -> None:
    pictures = [[np.full((3, 8, 8), 200, np.uint8)] * 3, [np.zeros((1, 8, 8), np.uint8)]]
    titles = [["a", "b", "c"], ["d"]]
    some = plots.rows_of_images(pictures, ["first", "second"], titles, tmp_path / "some.png", "what")
    none = plots.rows_of_images([], [], [], tmp_path / "none.png", "what")
    assert some.stat().st_size > 1000 and none.stat().st_size > 1000


def test_pictures_beside_each_other_keep_their_pixels() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (3, 4, 5), dtype=np.uint8)
    grey = colour[:1]
    row = plots.beside_each_other([colour, grey])
    assert row.shape == (4, 12, 3)
    assert np.array_equal(row[:, :5], colour.transpose(1, 2, 0)) and (row[:, [5, 11]] == 255).all()
    # What is 255 is ink.
    assert np.array_equal(row[:, 6:11, 2], 255 - grey[0])
