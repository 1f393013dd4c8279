"""Figures of a whole split equal scikit-learn's on the same predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from pipeline.api import train
from pipeline.data.core.spec import Spec
from pipeline.models.linear import Linear
from pipeline.training.scoring import scores

SEEDS = st.integers(0, 2**31)


@settings(max_examples=25, deadline=None)
@example(seed=182, samples=182, classes=3)
@given(seed=SEEDS, samples=st.integers(30, 200), classes=st.integers(3, 6))
def test_several_classes(seed: int, samples: int, classes: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(samples, classes, generator=draw)
    y = torch.cat([torch.arange(classes), torch.randint(classes, (samples - classes,), generator=draw)])
    spec = Spec("multiclass", "vector", (2,), classes, tuple("abcdef"[:classes]))
    found = scores(Linear(spec), logits, y)
    p = logits.double().softmax(1).numpy()
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, p.argmax(1)))
    assert found["log_loss"] == pytest.approx(sk.log_loss(y, p), rel=1e-9)
    assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(y, p, multi_class="ovr"), abs=1e-6)
    binary = np.eye(classes)[y.numpy()]
    assert found["average_precision"] == pytest.approx(sk.average_precision_score(binary, p), abs=1e-6)
    assert found["f1"] == pytest.approx(sk.f1_score(y, p.argmax(1), average="macro"))


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, samples=st.integers(10, 200), scale=st.floats(0.1, 300))
def test_two_classes(seed: int, samples: int, scale: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(samples, 1, generator=draw)
    y = torch.cat([torch.tensor([0.0, 1.0]), (torch.rand(samples - 2, generator=draw) < 0.3).float()])
    found = scores(Linear(Spec("binary", "vector", (2,), 1, ("no", "yes"))), logits, y)
    p = logits[:, 0].double().sigmoid().numpy()
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, p > 0.5))
    # Where a probability is 0 both count it as the smallest difference near 1.
    assert found["log_loss"] == pytest.approx(sk.log_loss(y, p), rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, samples=st.integers(3, 200))
def test_numbers(seed: int, samples: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    said, y = torch.randn(samples, 1, generator=draw), torch.randn(samples, generator=draw) + 1
    found = scores(Linear(Spec("regression", "vector", (2,), 1)), said, y)
    true, predicted = y.double().numpy(), said[:, 0].double().numpy()
    assert found["r2"] == pytest.approx(sk.r2_score(true, predicted))
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(true, predicted), rel=1e-6)
    assert found["median_absolute_error"] == pytest.approx(sk.median_absolute_error(true, predicted))
    assert found["mape"] == pytest.approx(sk.mean_absolute_percentage_error(true, predicted))


def test_an_error_as_a_share_of_zero_is_left_out() -> None:
    found = scores(Linear(Spec("regression", "vector", (2,), 1)), torch.ones(3, 1), torch.tensor([0.0, 1, 2]))
    assert "mape" not in found and found["median_absolute_error"] == 1


def test_the_best_epoch_goes_by_a_metric_that_needs_every_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    x = draw.normal(size=(300, 2))
    y = np.where(x[:, 0] + draw.normal(size=300) > 1, "yes", "no")
    rows = "\n".join(f"{a},{b},{c}" for (a, b), c in zip(x, y, strict=True))
    (tmp_path / "t.csv").write_text(f"a,b,y\n{rows}\n")
    result = train(
        *(
            "data=csv",
            "data.path=t.csv",
            "data.target=y",
            "model=linear",
            "trainer.max_epochs=5",
            "logger=none",
        ),
        *("objective.metric=val/balanced_accuracy", "trainer.accelerator=cpu"),
    )
    curve = dict(result.history["val/balanced_accuracy"])
    assert len(curve) == 5 and result.best_epoch is not None
    assert curve[result.best_epoch] == max(curve.values()) == result.metrics["val/balanced_accuracy"]
    assert {"val/log_loss", "val/roc_auc", "test/balanced_accuracy"} <= set(result.metrics)
