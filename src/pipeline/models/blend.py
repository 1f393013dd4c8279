"""Several models that answer together: the weighted mean of their probabilities, or of their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.data.core.spec import Spec
from pipeline.errors import UserError
from pipeline.models.base import BaseModule
from pipeline.models.saved import model_class

_LEAST_PROBABILITY = 1e-6
"""A logarithm needs more than 0."""


class Blend(BaseModule):
    """A weighted mean of models that were trained on the same inputs (ensemble selection, Caruana et al. 2004).

    Args:
        spec: What the data looks like.
        members: Class (dotted name) and hyperparameters of each model.
        weights: Weight of each model's answers; they are divided by their sum.
        **shared: See :class:`BaseModule`.

    Raises:
        UserError: There is no member, a weight is negative, or a class is not one of this project's models.
    """

    knows_validation = True

    def __init__(
        self,
        spec: Spec | dict[str, Any],
        members: Sequence[dict[str, Any]],
        weights: Sequence[float],
        **shared: Any,
    ) -> None:
        super().__init__(spec, **shared)
        if not members or len(members) != len(weights) or min(weights) < 0 or sum(weights) <= 0:
            raise UserError(
                f"a blend of {len(members)} models needs a weight of at least 0 for each: {list(weights)}"
            )
        self.members = nn.ModuleList(
            model_class(member["class"])(**member["hyperparameters"]) for member in members
        )
        self.differentiable = all(member.differentiable for member in self.members)
        self.shares = [weight / sum(weights) for weight in weights]

    @classmethod
    def of(cls, models: Sequence[BaseModule], weights: Sequence[float], **shared: Any) -> Blend:
        """Of trained models, which stay as they are.

        Args:
            models: The models.
            weights: Weight of each model's answers.
            **shared: See :class:`BaseModule`.
        """
        members = [
            {
                "class": f"{type(model).__module__}.{type(model).__qualname__}",
                "hyperparameters": model.hyperparameters,
            }
            for model in models
        ]
        blend = cls(models[0].spec.to_dict(), members, list(weights), **shared)
        for member, model in zip(blend.members, models, strict=True):
            member.load_state_dict(model.state_dict())
        return blend.eval()

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor | None = None
        for member, share in zip(self.members, self.shares, strict=True):
            assert isinstance(member, BaseModule)
            part = share * member.objective.probabilities(member(x))
            mixed = part if mixed is None else mixed + part
        assert mixed is not None
        return as_logits(mixed, self.spec)


def as_logits(answers: Tensor, spec: Spec) -> Tensor:
    """Outputs of a model that gives these probabilities (samples, classes); numbers stay as they are."""
    if spec.task == "regression":
        return answers
    if spec.task == "multilabel":
        return answers.logit(_LEAST_PROBABILITY)
    logs = answers.clamp_min(_LEAST_PROBABILITY).log()
    return logs[:, 1:] - logs[:, :1] if spec.task == "binary" else logs


def greedy_weights(answers: Sequence[Tensor], loss: Any, most: int = 10) -> list[int]:
    """How often each of several models is taken into the mean, one at a time, so that the loss falls most.

    Models may be taken more than once. The number of members is the one with the least loss on the way (Caruana et
    al. 2004, section 2.2).

    Args:
        answers: Probabilities or numbers of each model for the same samples.
        loss: Gives the loss of mean answers.
        most: Members at most.

    Returns:
        Number of times for each model.
    """
    total = torch.zeros_like(answers[0])
    taken: list[int] = []
    best, kept = float("inf"), 1
    for number in range(1, most + 1):
        losses = [float(loss((total + answer) / number)) for answer in answers]
        choice = min(range(len(answers)), key=losses.__getitem__)
        total = total + answers[choice]
        taken.append(choice)
        if losses[choice] < best - 1e-12:
            best, kept = losses[choice], number
    return [taken[:kept].count(place) for place in range(len(answers))]
