"""Mixed pictures, smoothed labels, warm-up and the network that is strong from scratch: against formulas."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.config.loading import compose
from pipeline.data.core.spec import Spec
from pipeline.errors import UserError
from pipeline.models.objective import Objective
from pipeline.models.resnet9 import ResNet9
from pipeline.runs.hooks import Hooks
from pipeline.runs.train import train
from pipeline.training.schedules import WarmupCosine
from pipeline.training.softening import Softening

MANY = Spec("multiclass", "image", (3, 16, 12), 5, tuple("abcde"))


@pytest.mark.parametrize("mix", ["mixup", "cutmix", "both", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_targets_as_probabilities(mix: str, smoothing: float) -> None:
    """Cross-entropy against the mixture of the two targets and of all classes, which torch computes itself."""
    torch.manual_seed(0)
    x, y = torch.randint(0, 256, (32, 3, 16, 12), dtype=torch.uint8), torch.randint(0, 5, (32,))
    for _ in range(8):
        soft = Softening(mix, smoothing)(x, y)
        logits = torch.randn(32, 5)
        p = soft.share * F.one_hot(soft.y, 5) + (1 - soft.share) * F.one_hot(soft.other, 5)
        p = (1 - smoothing) * p + smoothing / 5
        assert torch.allclose(soft.loss(Objective(MANY), logits), F.cross_entropy(logits, p), atol=1e-6)
        assert soft.x.dtype == torch.uint8 and soft.x.shape == x.shape
    weighted = Objective(replace(MANY, class_weights=(0.5, 1.0, 2.0, 1.0, 0.7)))
    whole = Softening("none", smoothing)(x, y).loss(weighted, logits)
    weights = torch.tensor(weighted.spec.class_weights)
    q = (1 - smoothing) * F.one_hot(y, 5) + smoothing / 5
    by_hand = -(q * weights * logits.log_softmax(-1)).sum() / weights[y].sum()
    assert torch.allclose(whole, by_hand, atol=1e-6)
    two = Spec("binary", "image", (3, 16, 12), 1, ("a", "b"))
    y = torch.randint(0, 2, (32,)).float()
    soft, logits = Softening(mix, smoothing)(x, y), torch.randn(32, 1)
    p = soft.share * soft.y + (1 - soft.share) * soft.other
    expected = F.binary_cross_entropy_with_logits(logits[:, 0], (1 - smoothing) * p + smoothing / 2)
    assert torch.allclose(soft.loss(Objective(two), logits), expected, atol=1e-6)


def test_the_share_of_a_picture_is_the_share_of_its_pixels() -> None:
    torch.manual_seed(1)
    # Every picture is of one shade: what is mixed in can be counted, and its target is that shade.
    y = torch.arange(50)
    x = (y * 5).to(torch.uint8)[:, None, None, None].expand(50, 3, 16, 12).clone()
    shares = []
    for _ in range(80):
        soft = Softening("cutmix")(x, y)
        own = (soft.x[:, 0].long() == 5 * y[:, None, None]).float().mean((1, 2))
        others = soft.other != y
        assert torch.allclose(own[others], torch.full_like(own[others], soft.share))
        shares.append(soft.share)
        soft = Softening("mixup")(x, y)
        expected = soft.share * 5 * y + (1 - soft.share) * 5 * soft.other
        assert ((soft.x[:, 0, 0, 0].float() - expected).abs() <= 0.5 + 1e-4).all()
    floats = torch.rand(8, 1, 4, 4)
    torch.manual_seed(2)
    soft = Softening("mixup")(floats, torch.arange(8))
    assert torch.allclose(soft.x, soft.share * floats + (1 - soft.share) * floats[soft.other])
    assert min(shares) < 0.4 and max(shares) > 0.9
    torch.manual_seed(3)
    first = Softening("both")(x, y)
    torch.manual_seed(3)
    assert torch.equal(Softening("both")(x, y).x, first.x)


def test_what_has_no_classes_or_no_pixels_is_refused(tmp_path: Path) -> None:
    for settings in (
        ["data=line", "data.label_smoothing=0.1"],
        ["data=clusters", "data.mix=cutmix"],
        ["data=digits", "data.label_smoothing=0.1", "model.loss=focal"],
    ):
        more = ["model=linear", "logger=none", "trainer=cpu", f"paths.experiments_dir={tmp_path}"]
        with pytest.raises(UserError, match=r"data\.(mix|label_smoothing)"):
            train(compose([*settings, *more]), Hooks(directory=tmp_path / "run"))


def test_a_model_that_takes_no_steps_says_that_nothing_is_softened(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = ["data=digits", "model=linear", "model.solver=exact", "debug=fast", "data.label_smoothing=0.1"]
    more = ["logger=none", "trainer=cpu", f"paths.experiments_dir={tmp_path}"]
    with caplog.at_level("WARNING"):
        train(compose([*settings, *more]), Hooks(directory=tmp_path / "run", reports=False))
    assert "Linear learns from samples as they are" in caplog.text


def test_the_rate_rises_and_falls_by_its_formula_in_every_group() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    groups = [{"params": first.parameters(), "lr": 0.4}, {"params": second.parameters(), "lr": 0.1}]
    optimizer = torch.optim.SGD(groups)
    schedule = WarmupCosine(optimizer, total_steps=50, warmup=0.2, final=0.05)
    rates = []
    for _ in range(50):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    expected = [(step + 1) / 11 for step in range(10)]
    expected += [0.05 + 0.95 * (1 + math.cos(math.pi * step / 40)) / 2 for step in range(40)]
    assert [rate for rate, _ in rates] == pytest.approx([0.4 * share for share in expected])
    assert [rate for _, rate in rates] == pytest.approx([0.1 * share for share in expected])


@pytest.mark.parametrize("shape", [(1, 5, 5), (1, 8, 8), (3, 28, 28), (3, 33, 40)])
def test_resnet9_takes_pictures_of_any_size(shape: tuple[int, int, int]) -> None:
    spec = Spec("multiclass", "image", shape, 5, tuple("abcde"))
    model = ResNet9(spec, width=4)
    assert model(torch.randint(0, 256, (3, *shape), dtype=torch.uint8)).shape == (3, 5)
    # 3x3 convolutions without bias, a scale and a shift for each channel, and the last layer.
    channels = [(shape[0], 4), (4, 8), (8, 8), (8, 8), (8, 16), (16, 32), (32, 32), (32, 32)]
    counted = sum(9 * a * b + 2 * b for a, b in channels) + 32 * 5 + 5
    assert sum(parameter.numel() for parameter in model.parameters()) == counted


def test_all_of_it_together_learns_and_does_the_same_again(tmp_path: Path) -> None:
    settings = [
        "data=digits",
        "data.augment=trivial",
        "data.mix=both",
        "data.label_smoothing=0.1",
        "data.eval_batch_size=500",
        "model=resnet9",
        "model.width=8",
        "scheduler=warmup_cosine",
        "optimizer=adamw",
        "optimizer.lr=0.01",
        "trainer=cpu",
        "trainer.max_epochs=3",
        "trainer.precision=32-true",
        "logger=none",
        f"paths.experiments_dir={tmp_path}",
    ]
    first, again = (train(compose(settings), Hooks(directory=tmp_path / name)) for name in ("a", "b"))
    assert first.metrics["val/accuracy"] > 0.5
    assert first.history["train/loss"] == again.history["train/loss"]
