"""Curves within epochs: each point is what a plain loop over the same batches measures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config.loading import compose
from pipeline.errors import Interrupted
from pipeline.runs.hooks import Hooks
from pipeline.runs.train import train
from pipeline.training.step_curve import MOST_POINTS, StepCurve


def run(directory: Path, *words: str, **hooks: Any) -> Any:
    cfg = compose(
        [
            *("logger=none", "callbacks.progress=null", f"paths.data_dir={directory / 'data'}", "test=false"),
            *words,
        ]
    )
    return train(cfg, Hooks(directory=directory / "run", **{"reports": False, **hooks}))


LINEAR = (
    "data=digits",
    "model=linear",
    "model.initializer=zeros",
    "optimizer=sgd",
    "optimizer.lr=0.1",
    "data.shuffle=false",
)


@pytest.mark.parametrize("chunk", [1, 16])
def test_points_are_what_a_plain_loop_measures(tmp_path: Path, chunk: int) -> None:
    kept: list[Any] = []
    result = run(
        tmp_path,
        *LINEAR,
        *("data.batch_size=50", "trainer.max_epochs=2", "trainer.record_every_n_steps=7"),
        *("trainer.gradient_clip_val=0.05", f"trainer.steps_per_call={chunk}"),
        on_data=kept.append,
    )
    data = kept[0]
    x, y = data.train.take(torch.arange(len(data.train)))
    scaled = data.spec.normalised(x).double().flatten(1).numpy()
    w, b = np.zeros((10, 64)), np.zeros(10)
    losses, hits, norms = [], [], []
    batches = [slice(i, i + 50) for i in range(0, len(y), 50)]
    for rows in batches * 2:
        p = np.exp(scaled[rows] @ w.T + b)
        p /= p.sum(1, keepdims=True)
        one_hot = np.eye(10)[y[rows]]
        n = len(one_hot)
        losses.append((-np.log(p[range(n), y[rows]]).sum(), n))
        hits.append((p.argmax(1) == y[rows].numpy()).sum())
        dw, db = (p - one_hot).T @ scaled[rows] / n, (p - one_hot).mean(0)
        norms.append(float(np.sqrt((dw**2).sum() + (db**2).sum())))
        shrink = min(1.0, 0.05 / (norms[-1] + 1e-6))
        w, b = w - 0.1 * shrink * dw, b - 0.1 * shrink * db
    # The first step of each epoch, then every seventh, and the last.
    per_epoch, total = len(batches), 2 * len(batches)
    first = [*range(1, per_epoch + 1, 7)]
    second = [*range(per_epoch + 1, total + 1, 7)]
    at = [*first, *second, *([total] if second[-1] != total else [])]
    assert [step for step, _ in result.steps["step/loss"]] == at
    for i, step in enumerate(at):
        part = slice(at[i - 1] if i else 0, step)
        n = sum(count for _, count in losses[part])
        assert result.steps["step/loss"][i][1] == pytest.approx(
            sum(loss for loss, _ in losses[part]) / n, abs=1e-5
        )
        assert result.steps["step/accuracy"][i][1] == pytest.approx(sum(hits[part]) / n)
        assert result.steps["step/grad_norm"][i] == (step, pytest.approx(norms[step - 1], rel=1e-4))
        assert result.steps["step/lr"][i][1] == 0.1


@pytest.mark.parametrize(
    ("total", "per_epoch"), [(10_000, 5_800), (100, 1), (4_300, 430), (199, 7), (1_000_000, 400)]
)
def test_auto_keeps_at_most_200_points_the_last_step_among_them(total: int, per_epoch: int) -> None:
    steps = _steps_of(StepCurve("auto"), total, per_epoch, known=total)
    assert 2 <= len(steps) <= MOST_POINTS
    assert steps[-1] == total


def test_a_fit_of_unknown_length_has_points_further_and_further_apart() -> None:
    steps = _steps_of(StepCurve("auto"), 1_000_000, 400, known=None)
    assert 50 <= len(steps) <= MOST_POINTS
    assert steps == sorted(set(steps))


def _steps_of(curve: StepCurve, total: int, per_epoch: int, known: int | None) -> list[int]:
    """The steps at which points are kept, going from one due step to the next."""

    class Some:
        loss, first, count = 1.0, 1, 1

        class spec:
            task = "multiclass"

    curve.begin(0, known, per_epoch)
    step = 0
    for epoch_end in range(per_epoch, total + per_epoch, per_epoch):
        curve.epoch_begins(step)
        while curve.next <= min(epoch_end, total):
            Some.count += 1
            curve.note(curve.next, Some, 0.1, None)  # type: ignore[arg-type]
            step = curve.points["step/lr"][-1][0]
        step = min(epoch_end, total)
        curve.epoch_ends(Some)  # type: ignore[arg-type]
        Some.count = 1
    return [step for step, _ in curve.points["step/lr"]]


def test_a_resumed_fit_has_the_points_of_a_whole_one(tmp_path: Path) -> None:
    words = (
        *(
            "data=digits",
            "model=mlp",
            "data.batch_size=16",
            "trainer.max_epochs=3",
            "trainer.record_every_n_steps=9",
        ),
        *("checkpoint.every_n_steps=20", "trainer.steps_per_call=4"),
    )
    whole = run(tmp_path / "whole", *words)
    seen: list[int] = []

    def stop(epoch: int, _: dict[str, float]) -> None:
        seen.append(epoch)
        if epoch == 2:
            raise Interrupted(130)

    with pytest.raises(Interrupted):
        run(tmp_path / "cut", *words, "resume=auto", on_epoch=stop)
    resumed = run(tmp_path / "cut", *words, "resume=auto")
    assert resumed.steps == whole.steps
    assert len(whole.steps["step/loss"]) > 20


def test_null_keeps_none(tmp_path: Path) -> None:
    assert run(tmp_path, *LINEAR, "trainer.max_epochs=1", "trainer.record_every_n_steps=null").steps == {}


@pytest.mark.delivered
@pytest.mark.drawn
def test_points_are_in_mlflow_the_plot_the_csv_and_the_result(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    cfg = compose(
        [
            *LINEAR,
            *(
                "logger=[mlflow,csv]",
                f"logger.tracking_uri={uri}",
                "trainer.max_epochs=1",
                "data.batch_size=16",
            ),
            *(
                f"paths.experiments_dir={tmp_path}",
                f"paths.data_dir={tmp_path / 'data'}",
                "callbacks.progress=null",
            ),
        ]
    )
    result = train(cfg, Hooks(directory=tmp_path / "runs/one"))
    client = MlflowClient(uri)
    sent = client.get_metric_history(str(result.run_id), "step/loss")
    assert [(point.step, point.value) for point in sent] == result.steps["step/loss"]
    written = json.loads((result.directory / "result.json").read_text(encoding="utf-8"))
    assert [tuple(pair) for pair in written["steps"]["step/grad_norm"]] == result.steps["step/grad_norm"]
    assert (result.directory / "plots/training_steps.png").stat().st_size > 5000
    header = next(iter((result.directory / "csv").glob("*.csv"))).read_text(encoding="utf-8").splitlines()[0]
    assert {"step/loss", "step/grad_norm", "train/loss"} <= set(header.split(","))
