"""What a model's outputs mean: their loss, the probabilities they stand for, the penalty on the weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.nearest import suggest
from pipeline.data.core.spec import Spec
from pipeline.errors import UserError
from pipeline.models.losses import LossOfClass
from pipeline.models.settled import Settled

LOSSES = ("auto", "squared", "absolute", "huber", "focal", "judged")


class Objective:
    """What a model is trained for, and how its outputs are read.

    Args:
        spec: The task, the classes' weights and the scale of a regression target.
        loss: Name of the loss: ``auto`` (cross-entropy, or squared error for regression), ``squared``, ``absolute``,
            ``huber``, ``focal`` (Lin et al. 2017, gamma 2), or ``judged``: what such models are compared by, the
            absolute error of numbers and the cross-entropy of classes. Or a loss of torch.nn as a mapping with
            ``_target_``, see :class:`pipeline.models.losses.LossOfClass`.
        l1: Weight of the sum of absolute weights that is added to the training loss.
        l2: Weight of the sum of squared weights that is added to the training loss.

    Attributes:
        settled: How sure the model is, settled after its fit; the loss knows nothing of it.

    Raises:
        UserError: There is no such loss, or it does not fit the task.
    """

    def __init__(
        self, spec: Spec, loss: str | Mapping[str, Any] = "auto", l1: float = 0.0, l2: float = 0.0
    ) -> None:
        self._own = LossOfClass(loss, spec) if isinstance(loss, Mapping) else None
        if isinstance(loss, Mapping):
            loss = str(loss["_target_"])
        elif loss not in LOSSES:
            raise UserError(f"model.loss={loss}: there is no such loss. {suggest(loss, LOSSES)}")
        if loss == "judged":
            loss = "absolute" if spec.task == "regression" else "auto"
        self.spec, self.loss_name, self.l1, self.l2 = spec, loss, l1, l2
        self.settled = Settled()
        self._costs: Tensor | None = None
        self._weights: Tensor | None = None

    @property
    def gives_probabilities(self) -> bool:
        """Whether outputs of classes are probabilities as they stand, since the loss held them against 0 and 1."""
        return self.loss_name == "squared" or (self._own is not None and self._own.elementwise)

    def settle(self, settled: Settled) -> None:
        """Read outputs in this way from now on."""
        self.settled = settled
        self._costs = torch.tensor(settled.costs, dtype=torch.float64) if settled.costs else None

    def loss(self, logits: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
        """Mean loss over the targets; targets below 0 of a task with a target per step are left out.

        Args:
            logits: (samples, outputs), with steps before the outputs where there is a target per step; or
                (samples, members, outputs): each member is judged for itself.
            y: Targets, (samples, …).
            smoothing: Share of certainty that is given to all classes alike (Szegedy et al. 2016), for the
                cross-entropy alone.
        """
        if self.spec.per_step:
            logits, y = self.known(logits, y)
            if not len(y):
                # A piece before the first target: there is nothing to learn from it.
                return logits.sum() * 0.0
        elif logits.dim() == 3:
            y = y.repeat_interleave(logits.shape[1], 0)
            logits = logits.flatten(0, 1)
        if self._own is not None:
            return self._own(logits, y)
        if self.spec.task == "multiclass":
            weights = self._class_weights(logits.device)
            if self.loss_name == "squared":
                return F.mse_loss(logits, F.one_hot(y, self.spec.outputs).to(logits.dtype))
            if self.loss_name == "focal":
                log_p = -F.cross_entropy(logits, y, reduction="none")
                return -((1 - log_p.exp()) ** 2 * log_p * (1 if weights is None else weights[y])).mean()
            return F.cross_entropy(logits, y, weight=weights, label_smoothing=smoothing)
        logits = logits.view_as(y)
        if self.spec.task in ("binary", "multilabel"):
            if self.loss_name == "squared":
                return F.mse_loss(logits, y)
            weights = self._class_weights(logits.device)
            sample_weights = None if weights is None else weights[y.long()]
            if self.loss_name == "focal":
                log_p = -F.binary_cross_entropy_with_logits(logits, y, reduction="none")
                weighted = (1 - log_p.exp()) ** 2 * log_p
                return -(weighted if sample_weights is None else weighted * sample_weights).mean()
            if smoothing:
                y = (1 - smoothing) * y + smoothing / 2
            return F.binary_cross_entropy_with_logits(logits, y, weight=sample_weights)
        if self.spec.target_std != 1.0:
            logits, y = logits / self.spec.target_std, y / self.spec.target_std
        if self.loss_name == "absolute":
            return F.l1_loss(logits, y)
        if self.loss_name == "huber":
            return F.huber_loss(logits, y)
        return F.mse_loss(logits, y)

    def penalty(self, parameters: Iterable[Tensor]) -> Tensor | None:
        """What ``l1`` and ``l2`` add to the training loss; None where both are 0."""
        if not (self.l1 or self.l2):
            return None
        weights = [parameter for parameter in parameters if parameter.dim() > 1]
        penalty = torch.zeros((), device=weights[0].device if weights else None)
        for weight in weights:
            if self.l1:
                penalty = penalty + self.l1 * weight.abs().sum()
            if self.l2:
                penalty = penalty + self.l2 * weight.square().sum()
        return penalty

    def known(self, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (targets, outputs) and targets of the steps whose target is known (not negative)."""
        logits, y = logits.reshape(-1, logits.shape[-1]), y.reshape(-1)
        if self.spec.task != "regression" and bool((y < 0).any()):
            keep = y >= 0
            logits, y = logits[keep], y[keep]
        return logits, y

    def cooled(self, logits: Tensor) -> Tensor:
        """Logits as they become probabilities: divided by the temperature; regression outputs stay as they are."""
        return logits if self.settled.temperature == 1.0 else logits / self.settled.temperature

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probability of each class (two columns for a binary task, of several labels each one's own).

        Regression outputs stay as they are.
        """
        if self.spec.task == "regression":
            return logits
        logits = self.cooled(logits)
        if self.spec.task == "binary":
            logits = logits.reshape(*logits.shape[: 2 if self.spec.per_step else 1])
            p = logits.clamp(0, 1) if self.gives_probabilities else logits.sigmoid()
            return torch.stack([1 - p, p], dim=-1)
        if self.spec.task == "multilabel":
            return logits.clamp(0, 1) if self.gives_probabilities else logits.sigmoid()
        return logits.softmax(-1)

    def threshold(self) -> float:
        """The logit above which a binary task, or a label, says yes."""
        return self.settled.threshold if self.gives_probabilities else self.settled.logit

    def decided(self, logits: Tensor) -> Tensor:
        """The class that is predicted for each sample (or step): a number from 0; of labels a 0 or 1 for each."""
        if self.spec.task == "multilabel":
            return (logits > self.threshold()).long()
        if self.spec.task == "binary":
            logits = logits.reshape(*logits.shape[: 2 if self.spec.per_step else 1])
            return (logits > self.threshold()).long()
        if self._costs is not None:
            expected = self.probabilities(logits).double().cpu() @ self._costs
            return expected.argmin(-1).to(logits.device)
        return logits.argmax(-1)

    def _class_weights(self, device: torch.device) -> Tensor | None:
        if not self.spec.class_weights:
            return None
        if self._weights is None or self._weights.device != device:
            self._weights = torch.tensor(self.spec.class_weights, device=device)
        return self._weights
