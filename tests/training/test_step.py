"""The training step is a plain PyTorch loop: the same bits, whatever is clipped, accumulated or scheduled."""

from __future__ import annotations

import copy
import csv
import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau, StepLR

import pipeline
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Chunk
from pipeline.models.layers import BatchNorm1d, BatchNorm2d
from pipeline.models.mlp import MLP
from pipeline.training.step import Optimisation

SPEC = Spec("multiclass", "vector", (5,), 3, ("a", "b", "c"))
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
    "fused": lambda parameters: torch.optim.Adam(parameters, lr=0.01, fused=True),
}
Vectors = tuple[Tensor, Tensor]
Fit = Callable[..., Any]


def make(**options: Any) -> MLP:
    torch.manual_seed(3)
    return MLP(SPEC, hidden_units=[8], **options)


def layers(module: MLP) -> nn.Sequential:
    """The module's layers without the module: what a plain loop trains."""
    return nn.Sequential(copy.deepcopy(module.hidden), copy.deepcopy(module.output))


def plain_loop(
    model: nn.Module,
    vectors: Vectors,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int = 3,
    scheduler: Any = None,
    interval: str = "epoch",
    accumulate: int = 1,
    clip: Callable[[Any], Any] = lambda parameters: None,
    penalty: Callable[[nn.Module], Any] | None = None,
    autocast: bool = False,
) -> list[float]:
    """What anyone would write by hand; gives the rate of each epoch's end before the schedule moves."""
    x, y = vectors
    rates = []
    for _ in range(epochs):
        model.train()
        batches = list(zip(x[:50].split(8), y[:50].split(8), strict=True))
        for number, (xb, yb) in enumerate(batches, start=1):
            with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
                loss = F.cross_entropy(model(xb), yb)
            if penalty is not None:
                loss = loss + penalty(model)
            (loss / accumulate if accumulate > 1 else loss).backward()
            if number % accumulate == 0 or number == len(batches):
                clip(model.parameters())
                optimizer.step()
                optimizer.zero_grad()
                if scheduler is not None and interval == "step":
                    scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
        if isinstance(scheduler, ReduceLROnPlateau):
            model.eval()
            with torch.no_grad():
                scheduler.step(float(F.cross_entropy(model(x[50:80]), y[50:80])))
        elif scheduler is not None and interval == "epoch":
            scheduler.step()
    return rates


def assert_same(module: MLP, plain: nn.Module) -> None:
    for own, other in zip(module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=0)


@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("name", ["sgd", "adam", "fused"])
def test_equals_a_plain_loop(vectors: Vectors, fit: Fit, name: str, chunk: int) -> None:
    module = make()
    plain = layers(module)
    plain_loop(plain, vectors, OPTIMIZERS[name](plain.parameters()))
    fit(module, *vectors, plan=Optimisation(OPTIMIZERS[name]), chunk=chunk)
    assert_same(module, plain)


@pytest.mark.parametrize("chunk", [1, 16])
def test_steps_on_single_samples_equal_a_plain_loop(vectors: Vectors, fit: Fit, chunk: int) -> None:
    x, y = vectors[0], vectors[0].sum(1, keepdim=True)
    torch.manual_seed(3)
    module = MLP(Spec("regression", "vector", (5,), 1), hidden_units=[8])
    plain = layers(module)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.01)
    errors = torch.zeros(50, dtype=torch.float64)
    for epoch in range(3):
        for row in range(50):
            logits = plain(x[row : row + 1])
            if epoch == 2:
                errors[row] = (logits - y[row]).item()
            F.mse_loss(logits, y[row : row + 1]).backward()
            optimizer.step()
            optimizer.zero_grad()
    trainer = fit(
        module,
        x,
        y,
        plan=Optimisation(lambda p: torch.optim.SGD(p, lr=0.01)),
        chunk=chunk,
        batch_size=1,
    )
    assert_same(module, plain)
    found = trainer.callback_metrics
    assert float(found["train/mae"]) == pytest.approx(float(errors.abs().mean()), rel=1e-6)
    assert float(found["train/mse"]) == pytest.approx(float(errors.square().mean()), rel=1e-6)


def test_loggers_of_lightning_get_the_metrics_that_callbacks_see(
    vectors: Vectors, fit: Fit, tmp_path: Path
) -> None:
    seen = []
    for logger in (False, CSVLogger(tmp_path / "csv", name="", version="")):
        torch.manual_seed(3)
        module = MLP(SPEC.to_dict(), hidden_units=[8])
        trainer = fit(module, *vectors, plan=Optimisation(OPTIMIZERS["adam"]), logger=logger)
        seen.append({name: float(value) for name, value in trainer.callback_metrics.items()})
    assert seen[0] == seen[1]
    with (tmp_path / "csv" / "metrics.csv").open(newline="") as file:
        logged = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]
    assert len(logged) == 3
    assert logged[-1] == pytest.approx(seen[0]["val/loss"])


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_accumulated_gradients_make_one_step(vectors: Vectors, fit: Fit, chunk: int) -> None:
    module = make()
    plain = layers(module)
    plain_loop(plain, vectors, OPTIMIZERS["adam"](plain.parameters()), accumulate=3)
    trainer = fit(module, *vectors, plan=Optimisation(OPTIMIZERS["adam"], accumulate=3), chunk=chunk)
    assert_same(module, plain)
    # Seven batches an epoch are three steps: 3 + 3 + 1.
    assert trainer.global_step == 9


@pytest.mark.parametrize(
    ("algorithm", "clip"),
    [
        ("norm", lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.2)),
        ("value", lambda parameters: nn.utils.clip_grad_value_(parameters, 0.2)),
    ],
)
def test_clipping_is_that_of_torch(vectors: Vectors, fit: Fit, algorithm: str, clip: Any) -> None:
    module = make()
    plain, free = layers(module), layers(module)
    plain_loop(plain, vectors, OPTIMIZERS["sgd"](plain.parameters()), clip=clip)
    plain_loop(free, vectors, OPTIMIZERS["sgd"](free.parameters()))
    fit(module, *vectors, plan=Optimisation(OPTIMIZERS["sgd"], clip_value=0.2, clip_algorithm=algorithm))
    assert_same(module, plain)
    assert not torch.equal(plain[1].weight, free[1].weight)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("interval", "scheduler"),
    [
        ("epoch", lambda optimizer, steps: StepLR(optimizer, 2, gamma=0.1)),
        ("epoch", lambda optimizer, steps: CosineAnnealingLR(optimizer, 5)),
        ("step", lambda optimizer, steps: OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)),
        ("epoch", lambda optimizer, steps: ReduceLROnPlateau(optimizer, patience=0, threshold=0.5)),
    ],
    ids=["step", "cosine", "one_cycle", "plateau"],
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_schedules_move_as_torch_moves_them(
    vectors: Vectors, fit: Fit, interval: str, scheduler: Any, accumulate: int
) -> None:
    module = make()
    plain = layers(module)
    optimizer = OPTIMIZERS["sgd"](plain.parameters())
    steps = 5 * (7 if accumulate == 1 else 4)
    rates = plain_loop(
        plain,
        vectors,
        optimizer,
        epochs=5,
        scheduler=scheduler(optimizer, steps),
        interval=interval,
        accumulate=accumulate,
    )
    seen: list[float] = []

    class Watch(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    plan = Optimisation(OPTIMIZERS["sgd"], scheduler, interval=interval, accumulate=accumulate)
    fit(module, *vectors, plan=plan, epochs=5, chunk=3, callbacks=[Watch()])
    assert_same(module, plain)
    assert seen == rates
    assert len(set(rates)) > 1


def test_penalties_are_on_weights_and_not_on_biases(vectors: Vectors, fit: Fit) -> None:
    def penalty(model: nn.Module) -> Any:
        weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
        return sum(0.01 * w.abs().sum() + 0.02 * w.square().sum() for w in weights)

    module = make(l1=0.01, l2=0.02)
    plain = layers(module)
    plain_loop(plain, vectors, OPTIMIZERS["sgd"](plain.parameters()), penalty=penalty)
    fit(module, *vectors, plan=Optimisation(OPTIMIZERS["sgd"]))
    for own, other in zip(module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 4])
def test_several_steps_under_autocast_see_the_new_weights_each_time(
    vectors: Vectors, fit: Fit, chunk: int
) -> None:
    module = make()
    plain = layers(module)
    plain_loop(plain, vectors, OPTIMIZERS["sgd"](plain.parameters()), autocast=True)
    fit(module, *vectors, plan=Optimisation(OPTIMIZERS["sgd"]), chunk=chunk, precision="bf16-mixed")
    assert_same(module, plain)


def test_dropout_is_on_in_training_and_off_in_validation(vectors: Vectors, fit: Fit) -> None:
    module = make(dropout=0.5, batch_norm=True)
    modes: list[tuple[str, bool]] = []
    module.hidden.register_forward_hook(lambda *_: modes.append((torch.is_grad_enabled(), module.training)))
    trainer = fit(module, *vectors, plan=Optimisation(OPTIMIZERS["sgd"]), epochs=1)
    # (gradients wanted, training): seven training batches, then one of validation.
    assert modes == [(True, True)] * 7 + [(False, False)]
    x, y = vectors
    module.eval()
    with torch.no_grad():
        expected = float(F.cross_entropy(module(x[50:80]), y[50:80]))
    assert float(trainer.callback_metrics["val/loss"]) == pytest.approx(expected, rel=1e-6)


def test_training_metrics_are_means_over_samples_not_over_batches(vectors: Vectors, fit: Fit) -> None:
    module = make()
    x, y = vectors
    with torch.no_grad():
        logits = module(x[:50])
    frozen = Optimisation(lambda parameters: torch.optim.SGD(parameters, lr=0.0))
    trainer = fit(module, x, y, plan=frozen, epochs=1, chunk=3)
    found = trainer.callback_metrics
    # The last batch has two samples only.
    assert float(found["train/loss"]) == pytest.approx(float(F.cross_entropy(logits, y[:50])), rel=1e-6)
    assert float(found["train/accuracy"]) == pytest.approx(float((logits.argmax(1) == y[:50]).float().mean()))


@pytest.mark.parametrize("shape", [(1, 5), (1, 5, 1, 1)])
def test_a_single_sample_goes_through_batch_normalisation_as_in_evaluation(shape: tuple[int, ...]) -> None:
    """A last batch of one sample has no statistics of its own; PyTorch's layer ends the run."""
    ours, plain = (
        (BatchNorm1d(5), nn.BatchNorm1d(5)) if len(shape) == 2 else (BatchNorm2d(5), nn.BatchNorm2d(5))
    )
    for x in torch.randn(40, *shape[1:], generator=torch.Generator().manual_seed(0)).split(8):
        assert torch.equal(ours(x), plain(x))
    one, before = torch.randn(shape), ours.state_dict()
    assert torch.equal(ours(one), plain.eval()(one))
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in before.items())
    with pytest.raises(ValueError, match="more than 1 value"):
        plain.train()(one)


def test_a_batch_passes_the_files_that_the_design_counts(vectors: Vectors, fit: Fit) -> None:
    """Every file with a function that holds a tensor of the batch, or the chunk that it comes in."""
    package = Path(pipeline.__file__).parent
    passed: set[str] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(package) and any(
            isinstance(value, Tensor | Chunk) for value in frame.f_locals.values()
        ):
            passed.add(path.relative_to(package).as_posix())

    class Watch(pl.Callback):
        def on_train_batch_start(self, *arguments: Any) -> None:
            sys.setprofile(note)

        def on_train_batch_end(self, *arguments: Any) -> None:
            sys.setprofile(None)

    fit(make(), *vectors, plan=Optimisation(OPTIMIZERS["sgd"]), epochs=1, callbacks=[Watch()])
    design = (Path(__file__).parents[2] / "docs" / "design.md").read_text(encoding="utf-8")
    counted = design.partition("- A batch passes seven files:")[2].partition("\n- ")[0]
    assert passed == {*re.findall(r"`(\S+\.py)`", counted), "models/mlp.py"}
    assert len(passed) == 7
