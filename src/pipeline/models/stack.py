"""Models that learn from the inputs and from what other models answer for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.data.core.spec import Spec
from pipeline.errors import UserError
from pipeline.models.base import BaseModule
from pipeline.models.blend import as_logits
from pipeline.models.saved import model_class

Members = Sequence[Sequence[dict[str, Any]]]


class Stack(BaseModule):
    """Two levels of models and the weighted mean of both (stacked generalisation, Wolpert 1992).

    A group is one kind of model, fitted to several parts of the data; it answers with their mean. The groups of the
    second level take the inputs and, beside them, the answers of the first level's groups.

    Args:
        spec: What the data looks like.
        first: Class (dotted name) and hyperparameters of each model of each group of the first level.
        second: The same for the second level.
        weights: Weight of each group's answers, the first level's before the second's; they are divided by their sum.
        **shared: See :class:`BaseModule`.

    Raises:
        UserError: A level has no group, a weight is negative, or a class is not one of this project's models.
    """

    knows_validation = True

    def __init__(
        self,
        spec: Spec | dict[str, Any],
        first: Members,
        second: Members,
        weights: Sequence[float],
        **shared: Any,
    ) -> None:
        super().__init__(spec, **shared)
        groups = [*first, *second]
        fits = first and second and all(groups) and len(groups) == len(weights)
        if not fits or min(weights) < 0 or sum(weights) <= 0:
            raise UserError(
                f"a stack of {len(first)} and {len(second)} groups needs a model in each and a weight of at least 0 "
                f"for each: {list(weights)}"
            )
        self.first, self.second = _built(first), _built(second)
        self.differentiable = all(member.differentiable for member in self.members)
        self.shares = [weight / sum(weights) for weight in weights]

    @classmethod
    def of(
        cls,
        first: Sequence[Sequence[BaseModule]],
        second: Sequence[Sequence[BaseModule]],
        weights: Sequence[float],
    ) -> Stack:
        """Of trained models, which stay as they are."""
        below, over = (
            [[_described(model) for model in group] for group in level] for level in (first, second)
        )
        stack = cls(first[0][0].spec.to_dict(), below, over, list(weights))
        trained = [model for level in (first, second) for group in level for model in group]
        for member, model in zip(stack.members, trained, strict=True):
            member.load_state_dict(model.state_dict())
        return stack.eval()

    @property
    def members(self) -> list[BaseModule]:
        """All models of both levels."""
        groups: list[Any] = [*self.first, *self.second]
        return [model for group in groups for model in group]

    def forward(self, x: Tensor) -> Tensor:
        below = [_answers(group, x) for group in self.first]
        beside = torch.cat([x.float().flatten(1), *(told(answers, self.spec) for answers in below)], 1)
        above = [_answers(group, beside) for group in self.second]
        mixed = torch.stack(
            [share * part for share, part in zip(self.shares, [*below, *above], strict=True)]
        ).sum(0)
        return as_logits(mixed, self.spec)


def told(answers: Tensor, spec: Spec) -> Tensor:
    """What of a model's answers are inputs of the next level: of two classes the second one's probability."""
    return answers[:, 1:] if spec.task == "binary" else answers


def above(spec: Spec, groups: int) -> Spec:
    """What the data looks like to the second level.

    Args:
        spec: What it looks like to the first.
        groups: Number of groups of the first level.
    """
    outputs = max(1, len(spec.classes)) - (spec.task == "binary")
    (width,) = spec.input_shape
    return replace(spec, input_shape=(width + groups * outputs,))


def _answers(group: Any, x: Tensor) -> Tensor:
    each = [model.objective.probabilities(model(x)).float().reshape(x.shape[0], -1) for model in group]
    return torch.stack(each).mean(0)


def _described(model: BaseModule) -> dict[str, Any]:
    cls = type(model)
    return {"class": f"{cls.__module__}.{cls.__qualname__}", "hyperparameters": model.hyperparameters}


def _built(level: Members) -> nn.ModuleList:
    return nn.ModuleList(
        nn.ModuleList(model_class(member["class"])(**member["hyperparameters"]) for member in group)
        for group in level
    )
