"""Lightning's side of a training: its hooks, and what a checkpoint must hold, around a model that knows nothing of it.

Optimisation is manual, in Lightning's sense: :mod:`pipeline.training.step` clips, accumulates, schedules and counts
itself. Two things stand on that. A Lightning step can run several optimiser steps, so that a small model does not wait
on machinery (a Lightning step costs about as much as a training step of a small MLP). And a checkpoint written between
two steps holds the place in the epoch with its sums and the random state, so that a resumed run is the same run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from pipeline.data.core.loader import Loader
from pipeline.data.core.splits import Chunk
from pipeline.data.core.sums import Sums
from pipeline.errors import Diverged
from pipeline.models.base import BaseModule
from pipeline.training.agreeing import of_the_first, raise_together
from pipeline.training.averaging import Average, refuse_sharded
from pipeline.training.carried import moved
from pipeline.training.clock import PARTS, ByTheClock, by_the_clock
from pipeline.training.divergence import LossWatch
from pipeline.training.lightning_inside import (
    QuickAttributes,
    begin_epoch_again,
    count_steps,
    is_single_device,
    known_signature,
)
from pipeline.training.parts import is_sharded, parted_like, whole
from pipeline.training.randomness import random_state, set_random_state
from pipeline.training.scoring import scores
from pipeline.training.step import Loop, Machine, Optimisation, after_step, learning_rate, train_on
from pipeline.training.step_curve import StepCurve


class TrainingModule(QuickAttributes, pl.LightningModule):
    """Trains, validates and tests a model in Lightning's loop.

    Its checkpoints hold the model's weights under the model's own names.

    Args:
        model: The network.
        plan: Plan of its training; None for a module that only tests.
        compiled: Whether the forward pass of the training is compiled by ``torch.compile``.
        in_full: Whether each validation computes the metrics that need every output at once.
        curve: Points of the curves within epochs, None where none are kept.
    """

    def __init__(
        self,
        model: BaseModule,
        plan: Optimisation | None = None,
        compiled: bool = False,
        in_full: bool = False,
        curve: StepCurve | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(model.hyperparameters)
        self.automatic_optimization = False
        self.model = model
        forward = cast(Any, torch.compile(model)) if compiled else model
        # In a list: a module in an attribute would be a part of this one, with its weights a second time.
        self._plan, self._forward = plan, [forward]
        self.curve = curve
        self.loop = self._new_loop()
        self.machine: Machine | None = None
        self.clock: ByTheClock | None = None
        self.epoch_metrics: dict[str, float] = {}
        self.epoch_rate = 0.0
        self._rate_factor = 1.0
        self._resumed: dict[str, Any] | None = None
        self._outputs: list[tuple[Tensor, Tensor]] | None = None
        self._in_full = in_full

    def _new_loop(self) -> Loop:
        plan = self._plan or Optimisation(optimizer=torch.optim.SGD)
        return Loop(self.model, plan, self._forward[0], Sums(self.model.spec))

    def forward(self, x: Tensor) -> Tensor:
        """What the model answers."""
        logits: Tensor = self.model(x)
        return logits

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The model's own weights; where their mean over the last steps is what counts, that."""
        return self.judged.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Give the model its weights."""
        if self.loop.average is not None:
            self.loop.average.model.load_state_dict(state_dict, strict=strict)
        return self.model.load_state_dict(state_dict, strict=strict, assign=assign)

    @property
    def judged(self) -> BaseModule:
        """The model with the weights that are judged and kept: the last ones, or their mean over the last steps."""
        return self.model if self.loop.average is None else self.loop.average.model

    # What others may ask of a training that goes on.

    def go_slower(self, factor: float) -> None:
        """Begin the next fit with every learning rate multiplied by ``factor``."""
        self._rate_factor = factor

    def take_smaller_parts(self) -> None:
        """From now on, put a batch through the model in parts of half the size."""
        self.loop.pieces *= 2

    def keep_outputs(self) -> None:
        """From the next test on, keep logits and targets for :meth:`kept_outputs`."""
        self._outputs = []

    def kept_outputs(self) -> list[tuple[Tensor, Tensor]]:
        """Logits and targets of each batch of the test, which are forgotten here."""
        kept, self._outputs = self._outputs or [], None
        return kept

    def check_losses(self) -> None:
        """Look at the losses that are still on their device.

        Raises:
            Diverged: One of them is not finite, in this process or in another one of the training, all of which ask.
        """
        self.loop.losses.check()
        raise_together(self.trainer, self.loop.losses.found)

    def bad_loss(self) -> Diverged | None:
        """The error of a loss that this one of several processes has seen, for all of them to raise."""
        losses = self.loop.losses
        if self.device.type == "cpu":
            losses.check()
        return losses.found

    def diverged(self, what: str) -> Diverged:
        """The error that ends the fit after the step that was just made."""
        machine = cast(Machine, self.machine)
        return after_step(what, self.loop, machine.optimizer, machine.on_host)

    # Lightning's hooks, in the order of a fit.

    def configure_optimizers(self) -> Any:
        plan = self.loop.plan
        groups = [group for group in self.model.parameter_groups() if group.parameters]
        if not groups:
            return None
        optimizer = plan.optimizer(groups)
        if plan.scheduler is None:
            return optimizer
        scheduler = plan.scheduler(optimizer, self._total_steps())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": plan.interval}}

    def _total_steps(self) -> int:
        """Optimiser steps in the whole fit (schedules such as one-cycle are made for a known number)."""
        if self.trainer.max_steps != -1:
            return self.trainer.max_steps
        epochs = self.trainer.max_epochs or 1
        of_a_step = self.loop.plan.accumulate
        return PARTS if epochs < 0 else max(1, math.ceil(self._batches_per_epoch() / of_a_step) * epochs)

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
        loop = self.loop
        loop.batches = self._batches_per_epoch()
        loop.losses = LossWatch(holds=self.trainer.world_size > 1)
        if loop.plan.ema is not None:
            refuse_sharded(self.trainer.strategy)
            loop.average = Average(self.model, loop.plan.ema)
        if (loader := self._loader()) is not None:
            loader.move(self.device)

    def on_train_start(self) -> None:
        loop = self.loop
        since = (self._resumed or {}).get("clock")
        self.clock = by_the_clock(self.trainer, loop.plan, self.lr_schedulers(), self._total_steps, since)
        # What differs between strategies is looked up once: these checks would cost as much as a tiny step.
        self.machine = self._machine()
        loop.step, loop.epoch = self.trainer.global_step, self.trainer.current_epoch
        self.model.begin_epoch(loop.epoch)
        if self._rate_factor != 1.0:
            # Back at the last good checkpoint after a divergence: go on more slowly than it did.
            self._scale_rates(self._rate_factor)
            self._rate_factor = 1.0
        if self._resumed is not None:
            loop.sums.load(self._resumed["sums"])
            loop.batches_done = self._resumed["batches_done"]
            self.epoch_metrics = dict(self._resumed.get("metrics") or {})
            self._set_callback_metrics(self.epoch_metrics)
            loop.state = moved(self._resumed["state"], self.device)
            if loop.average is not None and (last := self._resumed.get("last_weights")) is not None:
                # What the checkpoint keeps under the model's own names is their mean.
                self.model.load_state_dict(last)
                loop.average.steps = int(self._resumed["averaged"])
            self._take_up_gradients(self._resumed.get("gradients") or {}, self._resumed.get("waiting", 0))
            if (loader := self._loader()) is not None:
                loader.go_to(self.trainer.current_epoch, loop.batches_done)
        self._begin_curve()

    def _begin_curve(self) -> None:
        """Only now is it known how many steps there will be."""
        loop, trainer = self.loop, self.trainer
        # The first of several processes records, with the loss of its own share of the samples.
        loop.curve = self.curve if trainer.is_global_zero else None
        if self.curve is None:
            return
        per_epoch = -(-loop.batches // loop.plan.accumulate)
        lengths = [trainer.max_steps if trainer.max_steps != -1 else None]
        lengths.append(per_epoch * trainer.max_epochs if trainer.max_epochs not in (None, -1) else None)
        self.curve.begin(loop.step, min((n for n in lengths if n is not None), default=None), per_epoch)
        if self._resumed is not None and (state := self._resumed.get("curve")):
            self.curve.load(state)

    def _machine(self) -> Machine:
        """How this trainer's strategy, precision and hardware make a step."""
        trainer, plan = self.trainer, self.loop.plan
        plain = is_single_device(trainer)

        def clip() -> None:
            self.clip_gradients(
                cast(Any, self.optimizers(use_pl_optimizer=not plain)),
                gradient_clip_val=plan.clip_value,
                gradient_clip_algorithm=plan.clip_algorithm,
            )

        each_step = plan.scheduler is not None and plan.interval == "step"
        scheduled = cast(Any, self.lr_schedulers()).step if each_step else None
        return Machine(
            optimizer=self.optimizers(use_pl_optimizer=not plain),
            backward=torch.Tensor.backward if plain else self.manual_backward,
            clip=None if plan.clip_value is None else clip,
            # Lightning counts the steps of its own wrapper, whose machinery a small model would wait for.
            counted=count_steps(trainer) if plain else None,
            schedule=self._move_by_the_clock if self.clock is not None else scheduled,
            # Of several processes none may stop alone: a bad loss is noted, and told after the step.
            on_host=self.device.type == "cpu" and trainer.world_size == 1,
            autocast=trainer.precision in ("bf16-mixed", "16-mixed"),
            whole_gradient=not is_sharded(trainer),
            scale=getattr(getattr(trainer.precision_plugin, "scaler", None), "get_scale", None),
        )

    def _move_by_the_clock(self, epochs: int = 0) -> None:
        cast(ByTheClock, self.clock).move(self.trainer, self.loop.step, self.loop.epoch + epochs)

    def _take_up_gradients(self, gradients: dict[str, Tensor], waiting: int) -> None:
        """What was accumulated towards a step when the checkpoint was written."""
        self.loop.waiting = waiting
        for name, parameter in self.model.named_parameters():
            known = gradients[name].to(self.device) if name in gradients else None
            parameter.grad = None if known is None else parted_like(known, parameter)

    def _scale_rates(self, factor: float) -> None:
        for group in cast(torch.optim.Optimizer, self.optimizers(use_pl_optimizer=False)).param_groups:
            for name in ("lr", "initial_lr", "max_lr", "min_lr"):
                if name in group:
                    group[name] *= factor
        scheduler = cast(Any, self.lr_schedulers())
        if scheduler is not None and hasattr(scheduler, "base_lrs"):
            scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]

    def on_train_epoch_start(self) -> None:
        # Lightning keeps the last validation's values, which an epoch without one would pass for its own.
        for name in [name for name in self.trainer.callback_metrics if name.startswith("val/")]:
            del self.trainer.callback_metrics[name]
        self.epoch_metrics.clear()
        loop = self.loop
        loop.sums.reset()
        loop.batches_done, loop.state, loop.epoch = 0, None, self.trainer.current_epoch
        if loop.curve is not None:
            loop.curve.epoch_begins(loop.step)
        self.model.begin_epoch(loop.epoch)
        if (loader := self._loader()) is not None:
            loader.go_to(self.trainer.current_epoch)
        elif self._resumed is not None:
            # Another's loader draws its order when the epoch's iterator is made.
            set_random_state(self._resumed["random"])
            self._resumed = None
            begin_epoch_again(self.trainer)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leave a chunk alone: it moves its batches itself, where Lightning would look through it for tensors."""
        if isinstance(batch, Chunk):
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Train on every batch of a chunk: see :class:`pipeline.data.core.splits.Chunk`."""
        if self._resumed is not None:
            # Only now: whatever Lightning drew while it started up is forgotten.
            set_random_state(self._resumed["random"])
            self._resumed = None
        loop, machine, last = self.loop, cast(Machine, self.machine), self.trainer.max_steps
        for x, y in batches_of(batch):
            train_on(loop, machine, x, y)
            if last != -1 and loop.step >= last:
                break

    known_signature(training_step)

    def on_train_epoch_end(self) -> None:
        loop, plan = self.loop, self.loop.plan
        self.check_losses()
        if loop.curve is not None:
            loop.curve.epoch_ends(loop.sums)
        if self.trainer.world_size > 1:
            loop.sums.reduce(self.trainer.strategy)
        self._log_metrics("train", loop.sums)
        self.epoch_rate = learning_rate(self.optimizers(use_pl_optimizer=False))
        if plan.scheduler is not None and plan.interval == "epoch":
            scheduler = cast(Any, self.lr_schedulers())
            if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                watched = self.trainer.callback_metrics.get(plan.monitor or "val/loss")
                if watched is not None:
                    scheduler.step(float(watched))
            elif self.clock is not None:
                self._move_by_the_clock(epochs=1)
            else:
                scheduler.step()
        # The step keeps the training sums until here: validation has sums of its own.
        loop.sums.reset()

    def on_validation_model_zero_grad(self) -> None:
        """Keep the gradients that wait for more of their step, which Lightning would free before a validation."""
        if not self.loop.waiting:
            super().on_validation_model_zero_grad()

    def on_validation_epoch_start(self) -> None:
        self._start_evaluation()
        if self._in_full:
            self.keep_outputs()

    def on_test_epoch_start(self) -> None:
        self._start_evaluation()

    def _start_evaluation(self) -> None:
        self._evaluated = Sums(self.model.spec, confusion=True)
        self._carried: Any = None
        if self._outputs is not None:
            self._outputs = []

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Sum up the validation metrics, in float32 whatever the training precision."""
        self._evaluate(batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Sum up the test metrics, and keep the outputs where :meth:`keep_outputs` asked for it."""
        self._evaluate(batch)

    def _evaluate(self, batch: Any) -> None:
        model, objective = self.judged, self.model.objective
        # What is measured is what is served: float32, so that serving elsewhere gives the same answers.
        with torch.autocast(self.device.type, enabled=False):
            for x, y in batches_of(batch):
                x, y = x.to(self.device), y.to(self.device)
                if model.spec.stateful:
                    logits, self._carried = model.forward_state(x, self._carried)
                else:
                    logits = model(x)
                self._evaluated.add(objective.loss(logits, y), logits, y, objective.threshold())
                if self._outputs is not None:
                    self._outputs.append((logits.float().cpu(), y.cpu()))

    def on_validation_epoch_end(self) -> None:
        metrics = self._evaluated.metrics()
        if self._in_full and (kept := self.kept_outputs()):
            logits, targets = (torch.cat(parts) for parts in zip(*kept, strict=True))
            # Outputs that are no numbers are the loss's affair, which says in which step it was.
            metrics = (
                {**scores(self.model, logits, targets), **metrics} if logits.isfinite().all() else metrics
            )
        # Several processes round differently: what they are to judge epochs by is what the first one found.
        self._log_values("val", of_the_first(self.trainer, metrics))

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test", self._evaluated)

    def _log_metrics(self, prefix: str, sums: Sums) -> None:
        self._log_values(prefix, sums.metrics())

    def _log_values(self, prefix: str, values: dict[str, float]) -> None:
        metrics = {f"{prefix}/{name}": value for name, value in values.items()}
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
        loop = self.loop
        loop.losses.check()
        finished = loop.batches_done == loop.batches
        gradients = {
            name: whole(parameter.grad).cpu()
            for name, parameter in self.model.named_parameters()
            if loop.waiting and parameter.grad is not None
        }
        checkpoint["pipeline"] = {
            "class": f"{type(self.model).__module__}.{type(self.model).__qualname__}",
            "sums": loop.sums.dump(),
            "batches_done": 0 if finished else loop.batches_done,
            "metrics": dict(self.epoch_metrics),
            "state": None if finished else moved(loop.state, torch.device("cpu")),
            "waiting": loop.waiting,
            "gradients": gradients,
            **({} if loop.curve is None else {"curve": loop.curve.dump()}),
            **(
                {}
                if loop.average is None
                else {"last_weights": self.model.state_dict(), "averaged": loop.average.steps}
            ),
            "clock": None if self.clock is None else self.clock.since,
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
