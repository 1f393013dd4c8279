"""What all models share: the training step, the sums that become metrics, what a checkpoint must hold.

Optimisation is manual, in Lightning's sense: the step below clips, accumulates, schedules and counts itself. Two
things stand on that. A Lightning step can run several optimiser steps, so that a small model does not wait on
machinery (a Lightning step costs about as much as a training step of a small MLP). And a checkpoint written between
two steps holds the place in the epoch with its sums and the random state, so that a resumed run is the same run.
"""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.data.core.loader import Chunk, Loader
from pipeline.data.core.spec import Spec
from pipeline.data.core.sums import Sums
from pipeline.errors import Diverged, UserError
from pipeline.models.divergence import LossWatch, diverged

State = Any

_BOOKKEEPING = frozenset(("_current_fx_name", "batches_done", "_waiting", "state", "epoch_rate"))
"""Attributes that change with every step or epoch and hold neither parameters nor modules."""


@dataclass
class Optimisation:
    """How a module is trained; built from the ``optimizer``, ``scheduler`` and ``trainer`` configs.

    Args:
        optimizer: makes the optimiser from the parameters.
        scheduler: makes the learning-rate schedule from the optimiser and the total number of optimiser steps.
        interval: the schedule moves every ``step`` or every ``epoch``.
        monitor: metric that a schedule which waits for a plateau watches.
        accumulate: batches whose gradients are added up for one optimiser step.
        clip_value: largest norm (or value) of the gradient, None for no clipping.
        clip_algorithm: ``norm`` or ``value``.
    """

    optimizer: Callable[[Any], torch.optim.Optimizer]
    scheduler: Callable[[torch.optim.Optimizer, int], Any] | None = None
    interval: str = "epoch"
    monitor: str | None = None
    accumulate: int = 1
    clip_value: float | None = None
    clip_algorithm: str = "norm"


class BaseModule(pl.LightningModule):
    """A model whose task, loss and metrics follow from the data's :class:`Spec`.

    A subclass builds its layers and defines ``forward(x) -> logits``.

    Args:
        spec: what the data looks like (or the dictionary of it that checkpoints hold).
        loss: ``auto`` (cross-entropy, or squared error for regression), ``squared``, ``absolute``, ``huber`` or
            ``focal``.
        l1: weight of the sum of absolute weights added to the training loss.
        l2: weight of the sum of squared weights added to the training loss.
        initializer: ``default`` (PyTorch's own), ``he_normal``, ``he_uniform``, ``glorot_normal``,
            ``glorot_uniform``, ``normal`` (standard deviation ``initializer_std``) or ``zeros``; biases become 0.
        initializer_std: standard deviation for ``normal``.
        start: parameters' starting values by name, as nested lists; they win over ``initializer``.
    """

    prefers_bfloat16 = False
    """Whether bfloat16 arithmetic pays for this architecture where the hardware is fast at it."""

    uses_weights_once = False
    """Whether a sample meets every weight once, so that a step's work follows from parameters and batch size."""

    def __init__(
        self,
        spec: Spec | dict[str, Any],
        loss: str = "auto",
        l1: float = 0.0,
        l2: float = 0.0,
        initializer: str = "default",
        initializer_std: float = 0.05,
        start: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.spec = spec if isinstance(spec, Spec) else Spec.from_dict(spec)
        self.hparams["spec"] = self.spec.to_dict()
        self.loss_name, self.l1, self.l2 = loss, l1, l2
        self.initializer, self.initializer_std, self.start = initializer, initializer_std, start
        self.automatic_optimization = False
        self.optimisation: Optimisation | None = None
        if self.spec.class_weights:
            self.register_buffer("class_weights", torch.tensor(self.spec.class_weights), persistent=False)
        if self.spec.pixel_mean:
            shape = (1, -1, 1, 1)
            self.register_buffer(
                "pixel_mean", torch.tensor(self.spec.pixel_mean).view(shape), persistent=False
            )
            self.register_buffer(
                "pixel_scale", 1 / torch.tensor(self.spec.pixel_std).view(shape), persistent=False
            )
        self.sums = Sums(self.spec)
        self.state: State = None
        self.batches_done = 0
        self._waiting = 0
        self.epoch_rate = 0.0
        self._resumed: dict[str, Any] | None = None
        self.outputs: list[tuple[Tensor, Tensor]] = []
        self.keep_outputs = False
        self.epoch_metrics: dict[str, float] = {}
        self.rate_factor = 1.0
        self.losses = LossWatch()
        self.pieces = 1
        """Parts in which a batch goes through the model where it is too large for memory as a whole."""

    def __setattr__(self, name: str, value: Any) -> None:
        # The way through nn.Module takes 3 µs, some forty times for each call of Lightning's loop.
        if name in _BOOKKEEPING:
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def initialise(self) -> None:
        """Give the weights their starting values; a subclass calls this once its layers are there."""
        makers: dict[str, Callable[[Tensor], Any]] = {
            "he_normal": lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"),
            "he_uniform": lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu"),
            "glorot_normal": nn.init.xavier_normal_,
            "glorot_uniform": nn.init.xavier_uniform_,
            "normal": lambda w: nn.init.normal_(w, std=self.initializer_std),
            "zeros": nn.init.zeros_,
        }
        if self.initializer != "default":
            if self.initializer not in makers:
                raise UserError(
                    f"unknown initializer {self.initializer!r}; expected default or one of {sorted(makers)}"
                )
            for name, parameter in self.named_parameters():
                if parameter.dim() > 1:
                    makers[self.initializer](parameter)
                elif "bias" in name:
                    nn.init.zeros_(parameter)
        for name, values in (self.start or {}).items():
            parameters = dict(self.named_parameters())
            if name not in parameters:
                raise UserError(f"model.start names {name!r}; the parameters are {sorted(parameters)}")
            value = torch.tensor(values, dtype=torch.float32)
            if value.shape != parameters[name].shape:
                raise UserError(
                    f"model.start.{name} has shape {tuple(value.shape)}, not {tuple(parameters[name].shape)}"
                )
            parameters[name].data.copy_(value)

    def normalised(self, x: Tensor) -> Tensor:
        """Raw ``uint8`` images with the training split's mean 0 and deviation 1; other input as float."""
        if self.spec.pixel_mean:
            return (x - cast(Tensor, self.pixel_mean)) * cast(Tensor, self.pixel_scale)
        return x.float()

    def forward_state(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits, and the state to carry into the next batch; models without one ignore it."""
        return self(x), None

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mean loss over the targets; targets below 0 of a per-step task are left out."""
        if self.spec.per_step:
            logits, y = self.known(logits, y)
        if self.spec.task == "multiclass":
            weights = cast("Tensor | None", getattr(self, "class_weights", None))
            if self.loss_name == "squared":
                return F.mse_loss(logits, F.one_hot(y, self.spec.outputs).to(logits.dtype))
            if self.loss_name == "focal":
                log_p = -F.cross_entropy(logits, y, reduction="none")
                return -((1 - log_p.exp()) ** 2 * log_p * (1 if weights is None else weights[y])).mean()
            return F.cross_entropy(logits, y, weight=weights)
        logits = logits.view_as(y)
        if self.spec.task == "binary":
            if self.loss_name == "squared":
                return F.mse_loss(logits, y)
            sample_weights = None
            if self.spec.class_weights:
                sample_weights = cast(Tensor, self.class_weights)[y.long()]
            if self.loss_name == "focal":
                log_p = -F.binary_cross_entropy_with_logits(logits, y, reduction="none")
                weighted = (1 - log_p.exp()) ** 2 * log_p
                return -(weighted if sample_weights is None else weighted * sample_weights).mean()
            return F.binary_cross_entropy_with_logits(logits, y, weight=sample_weights)
        if self.spec.target_std != 1.0:
            logits, y = logits / self.spec.target_std, y / self.spec.target_std
        if self.loss_name == "absolute":
            return F.l1_loss(logits, y)
        if self.loss_name == "huber":
            return F.huber_loss(logits, y)
        return F.mse_loss(logits, y)

    def known(self, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (targets, outputs) and targets of the steps whose target is known (not negative)."""
        logits, y = logits.reshape(-1, logits.shape[-1]), y.reshape(-1)
        if self.spec.task != "regression" and bool((y < 0).any()):
            keep = y >= 0
            logits, y = logits[keep], y[keep]
        return logits, y

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probability of each class (two columns for a binary task); regression outputs stay as they are."""
        if self.spec.task == "regression":
            return logits
        if self.spec.task == "binary":
            logits = logits.reshape(*logits.shape[: 2 if self.spec.per_step else 1])
            p = logits.clamp(0, 1) if self.loss_name == "squared" else logits.sigmoid()
            return torch.stack([1 - p, p], dim=-1)
        return logits.softmax(-1)

    def threshold(self) -> float:
        """The logit above which a binary task says yes."""
        return 0.5 if self.loss_name == "squared" else 0.0

    def configure_optimizers(self) -> Any:
        plan = self._plan()
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if not parameters:
            return None
        optimizer = plan.optimizer(parameters)
        if plan.scheduler is None:
            return optimizer
        scheduler = plan.scheduler(optimizer, self._total_steps())
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": plan.interval},
        }

    def _plan(self) -> Optimisation:
        if self.optimisation is None:
            raise RuntimeError("set module.optimisation before fitting it")
        return self.optimisation

    def _total_steps(self) -> int:
        """Optimiser steps in the whole fit (schedules such as one-cycle are made for a known number)."""
        if self.trainer.max_steps != -1:
            return self.trainer.max_steps
        epochs = self.trainer.max_epochs or 1
        return max(1, math.ceil(self._batches_per_epoch() / self._plan().accumulate) * epochs)

    def _batches_per_epoch(self) -> int:
        self.trainer.fit_loop.setup_data()
        loader = self._loader()
        limit = self.trainer.limit_train_batches
        if loader is None or (loader.chunk == 1 and (isinstance(limit, int) or limit != 1.0)):
            return int(self.trainer.num_training_batches)
        return loader.batches

    def _loader(self) -> Loader | None:
        loader = self.trainer.train_dataloader
        return loader if isinstance(loader, Loader) else None

    def on_fit_start(self) -> None:
        # What differs between strategies is looked up once: these checks would cost as much as a tiny step.
        from pytorch_lightning.strategies import SingleDeviceStrategy

        self._batches = self._batches_per_epoch()
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        self._plain_step = type(self.trainer.strategy) is SingleDeviceStrategy and scaler is None
        self._on_host = self.device.type == "cpu"
        self.losses = LossWatch()
        self._progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        self._autocast = self.trainer.precision in ("bf16-mixed", "16-mixed")
        if (loader := self._loader()) is not None:
            loader.move(self.device)

    def on_train_start(self) -> None:
        if self.rate_factor != 1.0:
            # Back at the last good checkpoint after a divergence: go on more slowly than it did.
            self._scale_rates(self.rate_factor)
            self.rate_factor = 1.0
        if self._resumed is not None:
            self.sums.load(self._resumed["sums"])
            self.batches_done = self._resumed["batches_done"]
            self.epoch_metrics = dict(self._resumed.get("metrics") or {})
            self._set_callback_metrics(self.epoch_metrics)
            self.state = _to(self._resumed["state"], self.device)
            self._take_up_gradients(self._resumed.get("gradients") or {}, self._resumed.get("waiting", 0))
            if (loader := self._loader()) is not None:
                loader.epoch = self.trainer.current_epoch
                loader.first_chunk = self.batches_done // loader.chunk

    def _take_up_gradients(self, gradients: dict[str, Tensor], waiting: int) -> None:
        """What was accumulated towards a step when the checkpoint was written."""
        self._waiting = waiting
        for name, parameter in self.named_parameters():
            parameter.grad = gradients[name].to(self.device) if name in gradients else None

    def _scale_rates(self, factor: float) -> None:
        for group in cast(torch.optim.Optimizer, self.optimizers(use_pl_optimizer=False)).param_groups:
            for name in ("lr", "initial_lr", "max_lr", "min_lr"):
                if name in group:
                    group[name] *= factor
        scheduler = cast(Any, self.lr_schedulers())
        if scheduler is not None and hasattr(scheduler, "base_lrs"):
            scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """A chunk moves its batches itself, one by one; Lightning would look through it for tensors."""
        return (
            batch
            if isinstance(batch, Chunk)
            else super().transfer_batch_to_device(batch, device, dataloader_idx)
        )

    def on_train_epoch_start(self) -> None:
        # Lightning keeps the last validation's values, which an epoch without one would pass for its own.
        for name in [name for name in self.trainer.callback_metrics if name.startswith("val/")]:
            del self.trainer.callback_metrics[name]
        self.epoch_metrics.clear()
        self.sums.reset()
        self.batches_done = 0
        self.state = None
        if (loader := self._loader()) is not None:
            loader.epoch = self.trainer.current_epoch

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Train on every batch of a chunk: see :class:`pipeline.data.core.loader.Chunk`."""
        if self._resumed is not None:
            # Only now: whatever Lightning drew while it started up is forgotten.
            set_random_state(self._resumed["random"])
            self._resumed = None
        optimizer = cast(torch.optim.Optimizer, self.optimizers(use_pl_optimizer=not self._plain_step))
        for x, y in batches_of(batch):
            self._train_on(x, y, optimizer)
            if self.trainer.max_steps != -1 and self.trainer.global_step >= self.trainer.max_steps:
                break

    # Lightning asks for the signature in every step: 10 µs to find, 3 µs to read where it is written down.
    cast(Any, training_step).__signature__ = inspect.signature(training_step)

    def _train_on(self, x: Tensor, y: Tensor, optimizer: torch.optim.Optimizer) -> None:
        plan = self._plan()
        if self.pieces == 1:
            self._add_gradients(x, y, optimizer, plan)
        else:
            self._add_gradients_in_pieces(x, y, optimizer, plan)
        self._waiting += 1
        self.batches_done += 1
        if self._waiting == plan.accumulate or self.batches_done == self._batches:
            self._optimise(optimizer, plan)

    def _add_gradients(
        self, x: Tensor, y: Tensor, optimizer: torch.optim.Optimizer, plan: Optimisation, share: float = 1.0
    ) -> None:
        """Forward and backward; the gradients count with ``share``."""
        if self.spec.stateful:
            logits, state = self.forward_state(x, self.state)
            self.state = _detached(state)
        else:
            logits = self(x)
        loss = self.loss(logits, y)
        if not self._on_host:
            self._note_on_device(loss.detach(), optimizer)
        elif not math.isfinite(value := loss.item()):
            self._diverged(value, optimizer)
        self.sums.add(loss.detach(), logits.detach(), y, self.threshold())
        objective = loss + self._penalty() if self.l1 or self.l2 else loss
        if plan.accumulate > 1:
            objective = objective / plan.accumulate
        if share != 1.0:
            objective = objective * share
        if self._plain_step:
            objective.backward()
        else:
            self.manual_backward(objective)

    def _add_gradients_in_pieces(
        self, x: Tensor, y: Tensor, optimizer: torch.optim.Optimizer, plan: Optimisation
    ) -> None:
        """The gradients of a batch, a part of its samples at a time: each counts with its share of the targets."""
        whole, states = self.state, []
        known = (y >= 0) if self.spec.per_step and self.spec.task != "regression" else torch.ones_like(y)
        total = int(known.sum())
        for rows in torch.arange(len(y)).split(-(-len(y) // self.pieces)):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            self.state = _of_samples(whole, part)
            if count := int(known[part].sum()):
                self._add_gradients(x[part], y[part], optimizer, plan, count / total)
            states.append(self.state)
        self.state = _joined(states)

    def _optimise(self, optimizer: torch.optim.Optimizer, plan: Optimisation) -> None:
        if plan.clip_value is not None:
            self.clip_gradients(
                cast(Any, optimizer),
                gradient_clip_val=plan.clip_value,
                gradient_clip_algorithm=plan.clip_algorithm,
            )
        optimizer.step()
        self._waiting = 0
        if self._plain_step:
            # What zero_grad does, without its entry in torch's profiler.
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None
            # Lightning counts the steps of its own wrapper, whose machinery a small model would wait for.
            self._progress.increment_ready()
            self._progress.increment_completed()
        else:
            optimizer.zero_grad()
        if self._autocast:
            # Autocast keeps its copies of the weights until its context ends, which is later than this step.
            torch.clear_autocast_cache()
        if plan.scheduler is not None and plan.interval == "step":
            cast(Any, self.lr_schedulers()).step()

    def _penalty(self) -> Tensor:
        weights = [parameter for parameter in self.parameters() if parameter.dim() > 1]
        penalty = torch.zeros((), device=self.device)
        for weight in weights:
            if self.l1:
                penalty = penalty + self.l1 * weight.abs().sum()
            if self.l2:
                penalty = penalty + self.l2 * weight.square().sum()
        return penalty

    def _diverged(self, loss: float, optimizer: torch.optim.Optimizer) -> None:
        raise diverged(
            f"the loss became {loss}",
            self.trainer.global_step + 1,
            self.trainer.current_epoch + 1,
            _rate(optimizer),
            self.sums.last_loss,
        )

    def _note_on_device(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        self.losses.add(loss, self.trainer.global_step + 1, self.trainer.current_epoch + 1, _rate(optimizer))

    def diverged(self, what: str) -> Diverged:
        """The error that ends the fit after the step that was just made."""
        last = self.sums.last_loss if self._on_host else self.losses.last
        rate = _rate(self.optimizers(use_pl_optimizer=False))
        return diverged(what, self.trainer.global_step, self.trainer.current_epoch + 1, rate, last)

    def on_train_epoch_end(self) -> None:
        self.losses.check()
        if self.trainer.world_size > 1:
            self.sums.reduce(self.trainer.strategy)
        self._log_metrics("train", self.sums)
        plan = self._plan()
        self.epoch_rate = _rate(self.optimizers(use_pl_optimizer=False))
        if plan.scheduler is not None and plan.interval == "epoch":
            scheduler = cast(Any, self.lr_schedulers())
            if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                watched = self.trainer.callback_metrics.get(plan.monitor or "val/loss")
                if watched is not None:
                    scheduler.step(float(watched))
            else:
                scheduler.step()
        # The step keeps the training sums until here: validation has sums of its own.
        self.sums.reset()

    def on_validation_model_zero_grad(self) -> None:
        """Lightning frees the gradients before a validation: not those that wait for more of their step."""
        if not self._waiting:
            super().on_validation_model_zero_grad()

    def on_validation_epoch_start(self) -> None:
        self._start_evaluation()

    def on_test_epoch_start(self) -> None:
        self._start_evaluation()

    def _start_evaluation(self) -> None:
        self.eval_sums = Sums(self.spec, confusion=True)
        self.outputs = []
        self._train_state, self.state = self.state, None

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Sum up the validation metrics, in float32 whatever the training precision."""
        self._evaluate(batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Sum up the test metrics and keep the outputs for the reports."""
        self._evaluate(batch)

    def _evaluate(self, batch: Any) -> None:
        # What is measured is what is served: float32, so that serving elsewhere gives the same answers.
        with torch.autocast(self.device.type, enabled=False):
            for x, y in batches_of(batch):
                x, y = x.to(self.device), y.to(self.device)
                if self.spec.stateful:
                    logits, self.state = self.forward_state(x, self.state)
                else:
                    logits = self(x)
                self.eval_sums.add(self.loss(logits, y), logits, y, self.threshold())
                if self.keep_outputs:
                    self.outputs.append((logits.float().cpu(), y.cpu()))

    def on_validation_epoch_end(self) -> None:
        self._end_evaluation("val")

    def on_test_epoch_end(self) -> None:
        self._end_evaluation("test")

    def _end_evaluation(self, prefix: str) -> None:
        self.state = self._train_state
        self._log_metrics(prefix, self.eval_sums)

    def _log_metrics(self, prefix: str, sums: Sums) -> None:
        metrics = {f"{prefix}/{name}": value for name, value in sums.metrics().items()}
        # Lightning rounds what is logged to float32; the record of the run takes the exact values.
        self.epoch_metrics.update(metrics)
        if self.trainer.loggers:
            self.log_dict(metrics)
            return
        # Where log_dict leads without loggers. Its way there takes 0.4 ms a metric, several times as long as all
        # of a tiny epoch's other machinery.
        self._set_callback_metrics(metrics)

    def _set_callback_metrics(self, metrics: dict[str, float]) -> None:
        # By way of NumPy, since torch.tensor takes three times as long for a number.
        self.trainer.callback_metrics.update(
            {name: torch.from_numpy(np.asarray(value, np.float32)) for name, value in metrics.items()}
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.losses.check()
        finished = self.batches_done == getattr(self, "_batches", None)
        waiting = {
            name: p.grad.cpu() for name, p in self.named_parameters() if self._waiting and p.grad is not None
        }
        checkpoint["pipeline"] = {
            "class": f"{type(self).__module__}.{type(self).__qualname__}",
            "sums": self.sums.dump(),
            "batches_done": 0 if finished else self.batches_done,
            "metrics": dict(self.epoch_metrics),
            "state": None if finished else _to(self.state, torch.device("cpu")),
            "waiting": self._waiting,
            "gradients": waiting,
            "random": random_state(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._resumed = checkpoint.get("pipeline")


def batches_of(batch: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of a chunk, or the one batch that any other loader gives."""
    if isinstance(batch, Chunk):
        yield from batch
    else:
        yield batch[0], batch[1]


def random_state() -> dict[str, Any]:
    """The state of every random generator that training may draw from, as values that load without pickle."""
    # NumPy's global generator is the one that users' augmentations draw from.
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": list(random.getstate()[1]),
        "python_gauss": random.getstate()[2],
        "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "numpy_rest": [int(position), int(has_gauss), float(cached)],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """The inverse of :func:`random_state`."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([values.cpu() for values in state["cuda"]])
    random.setstate((3, tuple(state["python"]), state["python_gauss"]))
    numpy_state = ("MT19937", state["numpy"].numpy().astype(np.uint32), *state["numpy_rest"])
    np.random.set_state(numpy_state)  # noqa: NPY002


def _rate(optimizer: Any) -> float:
    """The learning rate of the first group; 0 where nothing is trained."""
    return float(optimizer.param_groups[0]["lr"]) if optimizer else 0.0


def _of_samples(state: State, part: slice) -> State:
    """The state of some of a batch's samples, which are its second dimension."""
    if state is None:
        return None
    return (
        tuple(half[:, part].contiguous() for half in state)
        if isinstance(state, tuple)
        else state[:, part].contiguous()
    )


def _joined(states: list[State]) -> State:
    """The inverse of :func:`_of_samples`."""
    if any(state is None for state in states):
        return None
    if isinstance(states[0], tuple):
        return tuple(torch.cat(halves, dim=1) for halves in zip(*states, strict=True))
    return torch.cat(states, dim=1)


def _detached(state: State) -> State:
    if state is None:
        return None
    return tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()


def _to(state: State, device: torch.device) -> State:
    if state is None:
        return None
    return tuple(part.to(device) for part in state) if isinstance(state, (tuple, list)) else state.to(device)
