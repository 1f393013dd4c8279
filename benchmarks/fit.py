"""Training throughput of an experiment against a hand-written PyTorch loop over the same layers.

Both sides see the same samples, batch size, optimiser, schedule, clipping, precision and number of threads, validate
once an epoch, and are measured in turn in one process. The hand-written side keeps normalised tensors (batches of
padded tokens, pieces of the streams) in memory and does nothing but train and validate; the pipeline's side is a whole
fit with its progress, metrics, checkpoints and tracking on.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.rows import Row, alternate

EXPERIMENTS: dict[str, tuple[str, list[str]]] = {
    "mnist_mlp": (">= 0.90", ["trainer.max_epochs=5"]),
    "mnist_cnn": (">= 0.97", ["trainer.max_epochs=1", "data.train_samples=16000"]),
    "mnist_lstm": (">= 0.95", ["trainer.max_epochs=1", "data.train_samples=20000"]),
    "imdb_lstm": (">= 0.95", ["trainer.max_epochs=2"]),
    "kafka_char_lstm": (">= 0.95", ["trainer.max_epochs=4", "callbacks.samples=null"]),
    "line_linear": (">= 0.50", ["trainer.max_epochs=1000"]),
    "line_mlp": (">= 0.50", ["trainer.max_epochs=1000"]),
    "clusters_linear": (">= 0.50", ["trainer.max_epochs=1000"]),
    "help_lstm": (">= 0.50", ["trainer.max_epochs=400"]),
}
"""Goal and settings of one slice by experiment."""


def measure(experiment: str, repetitions: int, precision: str = "32-true") -> Row:
    """Both sides in turn, ``repetitions`` times."""
    from pipeline.config import compose

    goal, settings = EXPERIMENTS[experiment]
    cfg = compose([f"+experiment={experiment}", f"trainer.precision={precision}", "test=false", *settings])
    with tempfile.TemporaryDirectory() as folder:
        cfg.paths.experiments_dir = folder
        cfg.logger.tracking_uri = f"sqlite:///{folder}/mlflow.db"
        ours, theirs = alternate(lambda: with_pipeline(cfg), by_hand(cfg), repetitions)
    name = experiment if precision == "32-true" else f"{experiment}, {precision}"
    return Row(name, f"{ours:,.0f} samples/s", f"loop: {theirs:,.0f} samples/s", ours / theirs, goal)


def with_pipeline(cfg: Any) -> float:
    """Samples a second of a tracked fit, everything between its start and its end counted."""
    from pipeline.runs.hooks import Hooks
    from pipeline.runs.train import train

    with tempfile.TemporaryDirectory(dir=cfg.paths.experiments_dir) as folder:
        result = train(cfg, Hooks(directory=Path(folder), reports=False, baseline=False))
    return float(cfg.trainer.max_epochs * result.data["train"] / result.seconds["fit"])


def by_hand(cfg: Any) -> Callable[[], float]:
    """A plain loop over the experiment's layers; each call gives samples a second of a whole fit."""
    import torch
    from torch import nn

    from pipeline.models.base import ParameterGroup
    from pipeline.runs.plan import plan_of
    from pipeline.training.building import build_data, build_model, optimisation
    from pipeline.training.threads import Threads

    torch.manual_seed(0)
    run_plan = plan_of(cfg)
    data = build_data(run_plan.data)
    model = build_model(run_plan.model, data, run_plan.fit)
    plan = optimisation(run_plan.fit)
    training, validation = batches(data, model, True), batches(data, model, False)
    # The inputs are normalised once, as people do by hand.
    model.normalised = lambda x: x  # type: ignore[method-assign]
    loss_of, epochs, stateful = loss_function(data.spec), int(cfg.trainer.max_epochs), data.spec.stateful
    bfloat16, size = cfg.trainer.precision == "bf16-mixed", int(cfg.data.batch_size)
    steps = epochs * data.train.batches(size)

    def run() -> float:
        with Threads(cfg.trainer, model, size):
            return loop()

    def loop() -> float:
        optimizer = plan.optimizer([ParameterGroup(list(model.parameters()))])
        scheduler = plan.scheduler(optimizer, steps) if plan.scheduler else None
        began = time.perf_counter()
        for _ in range(epochs):
            model.train()
            state: Any = None
            for x, y in training():
                with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                    if stateful:
                        logits, state = model.forward_state(x, state)
                        state = (
                            tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
                        )
                    else:
                        logits = model(x)
                    loss = loss_of(logits, y)
                loss.backward()
                if plan.clip_value is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), plan.clip_value)
                optimizer.step()
                optimizer.zero_grad()
                if scheduler is not None and plan.interval == "step":
                    scheduler.step()
            model.eval()
            state, total = None, 0.0
            with torch.no_grad():
                for x, y in validation():
                    logits, state = model.forward_state(x, state) if stateful else (model(x), None)
                    total += float(loss_of(logits, y)) * len(y)
        return epochs * data.train.samples / (time.perf_counter() - began)

    return run


def batches(data: Any, model: Any, training: bool) -> Callable[[], Iterator[tuple[Any, Any]]]:
    """Ready tensors of one epoch, in a new order each time it is called for training."""
    import torch

    from pipeline.data.core.splits import Rows

    split = data.train if training else data.validation
    size = data.batch_size if training else data.eval_batch_size
    if split is None or not len(split):
        return lambda: iter(())
    if type(split) is not Rows:
        ready = [split.take(rows) for rows in split.order(size)]
        mixed = training and not data.spec.stateful
        return lambda: (
            ready[i] for i in (torch.randperm(len(ready)).tolist() if mixed else range(len(ready)))
        )
    x, y = split.take(torch.arange(len(split)))
    if data.spec.input != "tokens":
        x = model.normalised(x)

    def epoch() -> Iterator[tuple[Any, Any]]:
        order = torch.randperm(len(x)) if training and data.shuffle else torch.arange(len(x))
        for rows in order.split(size):
            yield x[rows], y[rows]

    return epoch


def loss_function(spec: Any) -> Callable[[Any, Any], Any]:
    """What the task minimises."""
    from torch.nn import functional as F

    if spec.task == "multiclass":
        return lambda logits, y: F.cross_entropy(logits.flatten(0, -2), y.flatten())
    if spec.task == "binary":
        return lambda logits, y: F.binary_cross_entropy_with_logits(logits.view_as(y), y)
    return lambda logits, y: F.mse_loss(logits.view_as(y), y)
