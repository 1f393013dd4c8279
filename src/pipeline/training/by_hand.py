"""The loop around what is learnt by hand: epochs, the record of them, and what is shown on the way."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pytorch_lightning as pl
from torch import Tensor

from pipeline.data.core.sums import Sums
from pipeline.errors import Diverged, UserError
from pipeline.models.by_hand.neurons import Neuron
from pipeline.models.by_hand.twins import ByHand, RNNByHand
from pipeline.training.fit import Fit
from pipeline.training.grown import Grown
from pipeline.training.module import batches_of
from pipeline.training.plan import Node
from pipeline.training.stopping import Stop
from pipeline.training.watching import Predictions, Samples, SmoothedLoss, Weights, show

Watching = TypeVar("Watching", bound=pl.Callback)


def learn_by_hand(fit: Fit, model: ByHand, stop: Stop) -> Grown:
    """Train a model that is written out by hand, in the order that the data has for any other.

    ``optimizer.lr``, ``trainer.max_epochs``, ``max_steps``, ``max_time``, ``limit_train_batches``,
    ``record_every_n_steps`` and, for the RNN, ``gradient_clip_val`` mean what they mean elsewhere; the callbacks that
    look at weights, answers and written text say what is shown and how often. The RNN minimises the sum over a piece of
    text, as such demonstrations do, not its mean: that is what is clipped, and whose gradient the curve shows.

    Raises:
        UserError: A setting is not written out by hand.
        Diverged: The loss became NaN or infinite.
    """
    rate = _rate(fit.plan.optimizer, "Adagrad" if isinstance(model, RNNByHand) else "SGD")
    _check_plan(fit)
    learner = _Characters(fit, model, rate) if isinstance(model, RNNByHand) else _Points(fit, model, rate)
    trainer = fit.trainer
    epochs, most_steps, step, epoch = trainer.max_epochs, trainer.max_steps, 0, 0
    curve, sums = fit.module.curve, Sums(model.spec)
    if curve is not None:
        per_epoch = _batches_in_epoch(fit)
        lengths = [most_steps, per_epoch * (epochs or -1)]
        curve.begin(0, min((length for length in lengths if length > 0), default=None), per_epoch)
    note = ""
    while not note:
        sums.reset()
        learner.begin()
        if curve is not None:
            curve.epoch_begins(step)
        for x, y in _batches(fit, epoch):
            due = curve is not None and step + 1 >= curve.next
            done = learner.step(x, y, due)
            step, loss = step + 1, done.loss
            sums.loss, sums.first, sums.count = (
                sums.loss + loss,
                sums.first + done.first,
                sums.count + y.numel(),
            )
            if curve is not None and due:
                curve.note(step, sums, rate, done.norm)
            if not np.isfinite(loss):
                raise Diverged(
                    f"the loss became {loss} in step {step} (epoch {epoch + 1}): lower optimizer.lr"
                )
            learner.show_step(step)
            if stop():
                note = f"its time was over after {step:,} steps"
            elif step == most_steps:
                note = f"{step:,} steps by hand"
            if note:
                break
        epoch += 1
        if epoch == epochs:
            note = note or f"{epoch:,} epochs by hand"
        if curve is not None:
            curve.epoch_ends(sums)
        metrics = {"train/loss": sums.loss / max(sums.count, 1), "train/lr": rate}
        fit.recorder.note(
            epoch, metrics | learner.epoch_metrics(epoch, metrics["train/loss"], last=bool(note))
        )
    learner.done(step)
    return Grown(epoch, note, fit.recorder.history, cut=stop.out_of_time)


class Done(NamedTuple):
    """What a step came to.

    Args:
        loss: The loss before it, summed over its targets.
        first: Sum of the absolute errors, or number of characters that were right.
        norm: Length of the gradient of that sum, before it is clipped; None where nobody asked.
    """

    loss: float
    first: float
    norm: float | None


class _Points:
    """A neuron (or several) that sees one point after the other."""

    def __init__(self, fit: Fit, model: Any, rate: float) -> None:
        self.fit, self.model, self.rate, self.reference = fit, model, rate, model.reference()
        self.weights, self.predictions = _asked(fit, Weights), _asked(fit, Predictions)
        self.inputs = [float(np.ravel(x)[0]) for x in self.predictions.inputs] if self.predictions else []

    def begin(self) -> None:
        """Nothing is carried from epoch to epoch."""

    def step(self, x: Tensor, y: Tensor, due: bool) -> Done:
        if y.numel() != 1:
            raise UserError(
                f"data.batch_size: got a step of {y.numel()} points; by hand each is a step of its own: expected 1"
            )
        one, target = float(x), float(y)
        norm = float(np.linalg.norm(_flat(self.reference.gradient(one, target)))) if due else None
        loss: float = self.reference.learn(one, target, self.rate)
        return Done(loss, math.sqrt(loss), norm)

    def show_step(self, step: int) -> None:
        """Steps are too many to be shown."""

    def epoch_metrics(self, epoch: int, loss: float, last: bool) -> dict[str, float]:
        """Weights and answers, where they are due, which are shown as well."""
        metrics: dict[str, float] = {}
        words = []
        if self.weights and (last or epoch % self.weights.every_n_epochs == 0):
            named = self._named()
            metrics |= {f"weights/{name}": value for name, value in named.items()}
            words.append(", ".join(f"{name} {value:.6f}" for name, value in named.items()))
            words.append(f"loss {loss:.8g}")
        if self.predictions and (last or epoch % self.predictions.every_n_epochs == 0):
            answers = {x: self.reference.forward(x) for x in self.inputs}
            metrics |= {f"prediction/{x:g}": answer for x, answer in answers.items()}
            words += [f"f({x:g}) = {answer!r}" for x, answer in answers.items()]
        if words:
            show(self.fit.trainer, f"epoch {epoch}", "\n".join(words))
        return metrics

    def _named(self) -> dict[str, float]:
        """Every value under the name that the network of the same kind gives it."""
        r = self.reference
        if isinstance(r, Neuron):
            return {"output.weight/0/0": r.weight, "output.bias/0": r.bias}
        hidden = {f"hidden.0.weight/{i}/0": value for i, value in enumerate(r.weights)}
        hidden |= {f"hidden.0.bias/{i}": value for i, value in enumerate(r.biases)}
        outputs = {f"output.weight/0/{i}": value for i, value in enumerate(r.outputs)}
        return {**hidden, **outputs, "output.bias/0": r.bias}

    def done(self, step: int) -> None:
        """Give the network what was learnt."""
        self.model.hold(self.reference)


class _Characters:
    """The character RNN, piece after piece of the text."""

    def __init__(self, fit: Fit, model: RNNByHand, rate: float) -> None:
        self.fit, self.model, self.rate, self.reference = fit, model, rate, model.reference()
        self.clip = fit.plan.trainer.get("gradient_clip_val")
        self.samples, self.smoothed = _asked(fit, Samples), _asked(fit, SmoothedLoss)
        self.smooth: float | None = None
        self.state = self.reference.start()

    def begin(self) -> None:
        """The text begins again."""
        self.state = self.reference.start()

    def step(self, x: Tensor, y: Tensor, due: bool) -> Done:
        if x.shape[0] != 1:
            raise UserError(
                f"data.batch_size={x.shape[0]}: by hand the text is read at one place: expected 1"
            )
        if not self.model.spec.stateful:
            self.begin()
        r, inputs, targets = self.reference, x[0].numpy(), y[0].numpy()
        # What r.learn does, of which the curve wants a look at the gradient and at what was right.
        states, probabilities = r.forward(inputs, self.state)
        gradients = r.backward(inputs, targets, states, probabilities)
        r.update(gradients, self.rate, self.clip)
        loss, self.state = r.loss(probabilities, targets), states[-1]
        norm = float(np.linalg.norm([np.linalg.norm(part) for part in gradients.values()])) if due else None
        mean = loss / y.numel()
        kept = self.smoothed.factor if self.smoothed else 0.0
        self.smooth = mean if self.smooth is None else kept * self.smooth + (1 - kept) * mean
        return Done(loss, float((probabilities.argmax(1) == targets).sum()), norm)

    def show_step(self, step: int) -> None:
        if self.samples and step % self.samples.every_n_steps == 0:
            self._write(step)

    def epoch_metrics(self, epoch: int, loss: float, last: bool) -> dict[str, float]:
        """The smoothed loss, and the loss in bits."""
        metrics = {"train/bits_per_char": float(loss / np.log(2))}
        if self.smoothed and self.smooth is not None:
            metrics["train/smooth_loss"] = self.smooth
        return metrics

    def _write(self, step: int) -> None:
        asked, classes = self.samples, self.model.spec.classes
        assert asked is not None
        draw = np.random.default_rng(asked.seed)
        first = classes.index(asked.prompt[-1]) if asked.prompt else int(draw.integers(1, len(classes)))
        written = self.reference.sample(asked.length, first, draw, asked.temperature)
        text = asked.prompt + "".join(classes[i] for i in written)
        show(self.fit.trainer, f"step {step}, loss {self.smooth or 0.0:.4f}", text)

    def done(self, step: int) -> None:
        """Give the network what was learnt, and write a last text."""
        if self.samples and step % self.samples.every_n_steps:
            self._write(step)
        self.model.hold(self.reference)


def _batches(fit: Fit, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of an epoch (from 0), as any other model gets them."""
    loader = fit.data.training_loader(fit.plan.seed)
    loader.go_to(epoch)
    most = _batches_in_epoch(fit)
    for number, chunk in enumerate(loader):
        if number >= most:
            return
        yield from batches_of(chunk)


def _batches_in_epoch(fit: Fit) -> int:
    limit, batches = fit.trainer.limit_train_batches, fit.data.train.batches(fit.data.batch_size)
    return limit if isinstance(limit, int) else int(limit * batches)


def _flat(parts: Any) -> list[float]:
    """The numbers in lists of lists."""
    return (
        [number for part in parts for number in _flat(part)] if isinstance(parts, tuple | list) else [parts]
    )


def _asked(fit: Fit, kind: type[Watching]) -> Watching | None:
    """The callback of a kind, where there is one: it says what is to be shown, and how often."""
    found: list[Any] = list(getattr(fit.trainer, "callbacks", ()))
    return next((callback for callback in found if isinstance(callback, kind)), None)


def _rate(optimizer: Node, kind: str) -> float:
    """The learning rate, of an optimiser that is written out by hand."""
    name = str(optimizer.get("_target_", "")).rpartition(".")[2]
    if name != kind:
        raise UserError(
            f"optimizer={name.lower()}: by hand {kind} is written out alone: expected optimizer={kind.lower()}"
        )
    more = {key: value for key, value in optimizer.items() if key not in ("_target_", "lr", "eps") and value}
    if more:
        shown = ", ".join(f"optimizer.{key}={value}" for key, value in more.items())
        raise UserError(f"{shown}: by hand {kind} has optimizer.lr alone: expected 0")
    return float(optimizer["lr"])


def _check_plan(fit: Fit) -> None:
    """Refuse what the loop by hand does not do."""
    trainer, plan = fit.plan.trainer, fit.plan
    wrong = {
        "scheduler": plan.scheduler,
        "trainer.ema": trainer.get("ema") is not None,
        "trainer.accumulate_grad_batches": int(trainer.get("accumulate_grad_batches") or 1) > 1,
        "trainer.gradient_clip_algorithm": trainer.get("gradient_clip_val") is not None
        and (trainer.get("gradient_clip_algorithm") != "value" or not isinstance(fit.model, RNNByHand)),
    }
    for key, is_wrong in wrong.items():
        if is_wrong:
            raise UserError(
                f"{key}: the loop by hand has a constant rate, a step for each batch, its last weights, and for the "
                "RNN alone gradients cut by value (trainer.gradient_clip_algorithm=value); leave it out"
            )
