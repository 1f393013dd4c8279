"""A torch Dataset for each split: everything that our own data can do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipeline.config.loading import compose
from pipeline.data.datasets import Datasets
from pipeline.errors import UserError
from pipeline.models.saved import load
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.train import train

CODE = """
import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset


class Points(Dataset):
    def __init__(self, samples: int = 90, seed: int = 0):
        self.samples, self.seed = samples, seed
        generator = torch.Generator().manual_seed(seed)
        self.targets = torch.arange(samples) % 3
        self.x = torch.randn(samples, 4, generator=generator) + self.targets[:, None].float() * 2

    def __len__(self):
        return self.samples

    def __getitem__(self, number):
        return self.x[number], int(self.targets[number])


class Pictures(Dataset):
    classes = ["dark", "light"]

    def __init__(self, samples: int = 40):
        self.samples = samples

    def __len__(self):
        return self.samples

    def __getitem__(self, number):
        return Image.new("L", (8, 8), 10 + number if number % 2 == 0 else 200 + number), number % 2


class Prices(Dataset):
    def __len__(self):
        return 30

    def __getitem__(self, number):
        return np.array([number / 10, 1.0]), float(number)


class Stream(IterableDataset):
    def __iter__(self):
        yield torch.zeros(2), 0


class Named(Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, number):
        return {"image": torch.zeros(2), "label": 0}
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_sets.py").write_text(CODE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PIPELINE_ALLOW", "own_sets")
    yield
    sys.modules.pop("own_sets", None)


def run(tmp_path: Path, place: str, *words: str, **hooks: object) -> RunResult:
    always = [f"paths.experiments_dir={tmp_path}", "logger=none", "trainer=cpu", "callbacks.progress=null"]
    cfg = compose([*always, "data=datasets", *words])
    return train(cfg, Hooks(directory=tmp_path / "runs" / place, **hooks))  # type: ignore[arg-type]


POINTS = [
    "+data.train={_target_: own_sets.Points}",
    "+data.validation={_target_: own_sets.Points, samples: 30, seed: 1}",
    "+data.test={_target_: own_sets.Points, samples: 45, seed: 2}",
]


def test_our_models_train_on_data_sets_of_ones_own(tmp_path: Path) -> None:
    result = run(tmp_path, "points", *POINTS, "model=mlp", "trainer.max_epochs=15", "data.batch_size=16")
    assert (result.data["train"], result.data["validation"], result.data["test"]) == (90, 30, 45)
    assert result.baseline["test/accuracy"] == pytest.approx(1 / 3)
    assert result.metrics["test/accuracy"] > 0.8
    answers = load(result.directory / "model").predict(torch.full((2, 4), 4.0).numpy())
    assert answers.label.tolist() == ["2", "2"]


def test_a_run_on_them_resumes_with_the_same_bits(tmp_path: Path) -> None:
    words = [*POINTS, "model=mlp", "trainer.max_epochs=4", "data.batch_size=16", "checkpoint.every_n_steps=2"]
    whole = run(tmp_path, "whole", *words)

    def cut(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == 3:
            raise RuntimeError("cut off")

    with pytest.raises(RuntimeError, match="cut off"):
        run(tmp_path, "cut", *words, on_epoch=cut)
    resumed = run(tmp_path, "cut", *words, "resume=auto")
    assert resumed.history["train/loss"] == whole.history["train/loss"]


def test_a_part_is_held_out_where_there_is_no_validation_and_folds_work(tmp_path: Path) -> None:
    words = ["+data.train={_target_: own_sets.Points}", "model=linear", "trainer.max_epochs=1"]
    assert run(tmp_path, "part", *words, "data.validation_fraction=0.2").data["validation"] == 18
    assert len(run(tmp_path, "folds", *words, "data.folds=3").nested) == 3


def test_pictures_are_bytes_that_the_model_normalises(tmp_path: Path) -> None:
    words = [
        "+data.train={_target_: own_sets.Pictures}",
        "model=linear",
        "trainer.max_epochs=8",
        "optimizer.lr=0.01",
    ]
    result = run(tmp_path, "pictures", *words, "data.batch_size=8")
    assert result.metrics["val/accuracy"] == 1.0
    raw = torch.full((1, 8, 8), 210, dtype=torch.uint8).numpy()
    assert load(result.directory / "model").predict(raw).label.tolist() == ["light"]


def test_real_targets_are_to_be_predicted_and_fields_of_the_spec_may_be_said(tmp_path: Path) -> None:
    words = ["+data.train={_target_: own_sets.Prices}", "+data.spec={target_unit: euros}", "model=linear"]
    result = run(tmp_path, "prices", *words, "trainer.max_epochs=1")
    assert result.data["unit"] == "euros" and "val/mae" in result.metrics


@pytest.mark.parametrize(
    ("train_set", "said"),
    [
        ("own_sets.Stream", "an iterable data set"),
        ("own_sets.Named", r"item 0 of Named is a dict; expected a pair"),
    ],
)
def test_what_is_no_pair_or_has_no_order_is_refused(tmp_path: Path, train_set: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        run(tmp_path, "wrong", f"+data.train={{_target_: {train_set}}}", "model=linear")


def test_what_is_missing_is_named() -> None:
    with pytest.raises(UserError, match=r"data\.train is None; expected a torch Dataset"):
        Datasets(train=None)
