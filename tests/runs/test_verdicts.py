"""What a run says of its model and the baselines, and of whom it says nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config.loading import compose
from pipeline.runs.hooks import Hooks
from pipeline.runs.length import still_improving
from pipeline.runs.result import RunResult
from pipeline.runs.train import train
from pipeline.runs.verdicts import unless_unfinished

Run = Callable[..., RunResult]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with a result.json; its verdicts are those in the file."""

    def once(*words: str) -> RunResult:
        cfg = compose([*words, "callbacks.progress=null", "logger=none", f"paths.experiments_dir={tmp_path}"])
        result = train(cfg, Hooks(directory=tmp_path / "run"))
        result.verdicts = json.loads((tmp_path / "run/result.json").read_text())["verdicts"]
        return result

    return once


def table(folder: Path, signal: float, rows: int = 300) -> list[str]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(rows, 3))
    y = signal * x[:, 0] + generator.normal(size=rows)
    path = folder / "table.csv"
    lines = [",".join(f"{value:.6f}" for value in row) for row in np.column_stack([x, y])]
    path.write_text("\n".join(["a,b,c,y", *lines]) + "\n")
    return ["data=csv", f"data.path={path}", "data.target=y"]


@pytest.mark.parametrize(("signal", "said"), [(3.0, "beats"), (0.0, "cannot be told apart from")])
def test_a_solved_linear_model_is_judged_by_its_paired_gain(
    run: Run, tmp_path: Path, signal: float, said: str
) -> None:
    result = run(*table(tmp_path, signal), "model=linear", "model.solver=exact")
    mean, linear = result.verdicts
    assert (mean["against"], linear["against"], mean["verdict"]) == ("mean", "linear", said)
    assert mean["gain"] == pytest.approx(result.baseline["test/mae"] - result.metrics["test/mae"], rel=1e-4)
    assert mean["low"] < mean["gain"] < mean["high"]
    # It is the same model, but for its regularisation.
    assert linear["verdict"] != "beats"


def test_a_fit_that_ends_too_early_is_not_said_to_be_no_better(run: Run, tmp_path: Path) -> None:
    words = [*table(tmp_path, 1.0), "model=linear", "optimizer=sgd", "optimizer.lr=1e-6"]
    (mean, _) = run(*words, "trainer.max_epochs=8").verdicts
    assert mean["verdict"] == ""
    assert "still improving when it ended" in mean["why"] and "trainer.max_epochs=16 goes on" in mean["why"]


def test_folds_are_judged_together(run: Run, tmp_path: Path) -> None:
    result = run(*table(tmp_path, 3.0, 100), "data.folds=4", "model=linear", "model.solver=exact")
    assert result.verdicts[0]["verdict"] == "beats"
    assert result.verdicts[0]["split"] == "val"


def test_undefined_metrics_are_left_out_everywhere(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    generator = np.random.default_rng(0)
    rows = [
        f"{a:.4f},{b:.4f},{'test' if n == 39 else 'train'}"
        for n, (a, b) in enumerate(generator.normal(size=(40, 2)))
    ]
    path.write_text("\n".join(["x,y,part", *rows]) + "\n")
    result = run(
        *("data=csv", f"data.path={path}", "data.target=y", "data.split=column", "data.split_column=part"),
        *("model=linear", "model.solver=exact"),
    )
    assert result.data["test"] == 1 and "test/mae" in result.metrics
    assert "r2" not in {name.partition("/")[2] for name in result.metrics if name.startswith("test/")}
    assert not any(isinstance(value, float) and math.isnan(value) for value in result.metrics.values())
    (mean, _) = result.verdicts
    assert mean["verdict"] == "" and mean["why"] == "there are too few samples to tell"


def curve(*values: float) -> dict[str, list[tuple[int, float]]]:
    return {"val/loss": list(enumerate(values, 1))}


@pytest.mark.parametrize(
    ("values", "improving"),
    [
        (np.linspace(2.0, 1.0, 20), True),
        (1 + np.exp(-np.arange(40) / 4), False),
        (1 + 0.01 * np.random.default_rng(0).normal(size=40), False),
        (np.linspace(2.0, 1.0, 20) + 0.02 * np.random.default_rng(0).normal(size=20), True),
        ([1.0, 0.8, 0.9, 1.0, 1.1, 1.2], False),
        ([3.0, 2.0], True),
        ([2.0, 3.0], False),
        ([2.0], False),
        ([2.0, 1.5, 1.0, math.nan], False),
    ],
)
def test_a_curve_that_still_falls_at_its_end_is_told_from_one_that_has_settled(
    values: Any, improving: bool
) -> None:
    assert still_improving(curve(*values)) is improving
    rising = {"val/accuracy": [(epoch, -value) for epoch, value in curve(*values)["val/loss"]]}
    assert still_improving(rising) is improving


def test_training_figures_count_where_there_are_no_others() -> None:
    falling = [(epoch, 10.0 - epoch) for epoch in range(1, 9)]
    settled = [(epoch, 1.0) for epoch in range(1, 9)]
    assert still_improving({"train/loss": falling})
    assert not still_improving({"train/loss": falling, "val/loss": settled})
    assert not still_improving({})


@pytest.mark.parametrize(
    ("said", "kept"), [("beats", True), ("is worse than", False), ("cannot be told apart from", False)]
)
def test_more_training_would_not_make_beats_false(said: str, kept: bool) -> None:
    (entry,) = unless_unfinished([{"verdict": said, "why": ""}], "it was still improving")
    assert entry == (
        {"verdict": said, "why": ""} if kept else {"verdict": "", "why": "it was still improving"}
    )
    assert unless_unfinished([{"verdict": said, "why": ""}], "") == [{"verdict": said, "why": ""}]
