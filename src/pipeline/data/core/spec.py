"""What a model may know of the data."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from pipeline.config.nearest import suggest
from pipeline.errors import UserError

Task = Literal["regression", "binary", "multiclass", "multilabel"]
Input = Literal["image", "vector", "bag", "tokens", "series"]

_REFERENCE = re.compile(r"\$\{spec:(\w+)\}")


def asks_for_spec(settings: Any) -> bool:
    """Whether ``${spec:NAME}`` stands anywhere in ``settings``."""
    if isinstance(settings, Mapping):
        return any(map(asks_for_spec, settings.values()))
    if isinstance(settings, list):
        return any(map(asks_for_spec, settings))
    return isinstance(settings, str) and _REFERENCE.fullmatch(settings) is not None


@dataclass(frozen=True)
class Spec:
    """The description of a data set that its models are built from.

    Args:
        task: ``regression`` (real targets), ``binary`` (one logit, targets 0 or 1), ``multiclass``
            (one logit a class, integer targets) or ``multilabel`` (one logit a label, targets 0 or 1 for each: a sample
            has any number of them).
        input: ``image`` (uint8, channels × height × width), ``vector`` (float features), ``bag`` (multi-hot
            floats of a sparse set), ``tokens`` (integer ids, 0 is padding) or ``series`` (float, steps × features).
        input_shape: Shape of one sample without the batch axis; a step axis of any length is 0.
        outputs: Number of logits or regression targets (per step if ``per_step``).
        classes: Class names in the order of the logits (two names for ``binary``), empty for regression.
        target_name: Name of what is predicted.
        target_unit: Unit of a regression target (``thousand dollars``), empty if it has none.
        per_step: Whether there is a target for every step of a sequence (many-to-many) instead of one a sample.
        stateful: Whether consecutive batches continue each other, so that recurrent state is carried between them.
        vocabulary: Number of token ids, padding included (``tokens`` only).
        pixel_mean: Mean of each image channel over the training split, in pixel units (0–255).
        pixel_std: Standard deviation of each image channel, likewise.
        class_weights: Weight of each class in the loss, empty for equal weights.
        top_k: Number of most likely classes among which the true one counts as found, beside the accuracy; 0 counts
            nothing.
        target_mean: Mean of a regression target over the training split, where models work with a standardised one.
        target_std: Its standard deviation, likewise; the loss is in its units, metrics and outputs are not.
        unordered: Whether the order of a sample's tokens says nothing: each is in it once (``tokens`` only).
        horizon: Number of steps ahead that are forecast, 0 for anything else. The input's last steps then hold what the
            target was a season before, which the model's answers are added to, see :meth:`beside_last_season`.
    """

    task: Task
    input: Input
    input_shape: tuple[int, ...]
    outputs: int
    classes: tuple[str, ...] = ()
    target_name: str = "target"
    target_unit: str = ""
    per_step: bool = False
    stateful: bool = False
    vocabulary: int = 0
    pixel_mean: tuple[float, ...] = ()
    pixel_std: tuple[float, ...] = ()
    class_weights: tuple[float, ...] = ()
    top_k: int = 0
    target_mean: float = 0.0
    target_std: float = 1.0
    unordered: bool = False
    horizon: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for checkpoints and saved models."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Spec:
        """The inverse of :meth:`to_dict`."""
        fields: dict[str, Any] = {}
        for key, value in state.items():
            fields[key] = tuple(value) if isinstance(value, list) else value
        return cls(**fields)

    def value(self, name: str) -> int:
        """A number that models are built from, as ``${spec:NAME}`` names it.

        Args:
            name: ``outputs`` (logits or regression targets), ``classes`` (2 for a binary task), ``channels``,
                ``height`` and ``width`` of images, ``features`` (numbers in a flat sample, or in a step of a series) or
                ``vocabulary`` (token ids, padding included).

        Raises:
            UserError: This data has no such number.
        """
        shape, image = self.input_shape, self.input == "image"
        found = {
            "outputs": self.outputs,
            "classes": len(self.classes) or None,
            "channels": shape[0] if image else None,
            "height": shape[1] if image else None,
            "width": shape[2] if image else None,
            "features": shape[-1] if self.input == "series" else math.prod(shape) or None,
            "vocabulary": self.vocabulary or None,
        }
        if name not in found:
            raise UserError(f"${{spec:{name}}}: there is no such number. {suggest(name, found)}")
        value = found[name]
        if value is None:
            there = ", ".join(f"{key} ({number})" for key, number in found.items() if number is not None)
            raise UserError(
                f"${{spec:{name}}}: this data ({self.task}, {self.input}) has none; it has {there}"
            )
        return value

    def filled_in(self, settings: Any) -> Any:
        """``settings`` with a number in the place of each ``${spec:NAME}``.

        Raises:
            UserError: This data has no such number.
        """
        if isinstance(settings, Mapping):
            return {key: self.filled_in(value) for key, value in settings.items()}
        if isinstance(settings, list):
            return [self.filled_in(value) for value in settings]
        if isinstance(settings, str) and (reference := _REFERENCE.fullmatch(settings)):
            return self.value(reference[1])
        return settings

    def named(self, target: Tensor) -> str:
        """The class of a sample in words, of several labels with ``|`` between them (empty for none).

        Args:
            target: Number of the class, or a zero or one for each label.
        """
        if self.task != "multilabel":
            return self.classes[int(target)]
        return "|".join(name for name, one in zip(self.classes, target.tolist(), strict=True) if one)

    def normalised(self, x: Tensor) -> Tensor:
        """Raw images (samples, channels, …) scaled by the training split to mean 0, deviation 1; other input as is."""
        if not self.pixel_mean:
            return x
        mean, std = (
            torch.tensor(values, device=x.device).view(1, -1, 1, 1)
            for values in (self.pixel_mean, self.pixel_std)
        )
        return (x - mean) / std

    def beside_last_season(self, x: Tensor, answers: Tensor) -> Tensor:
        """Forecasts in the target's units, from how far they are from last season's values.

        Args:
            x: Inputs, (samples, steps, features): the first feature of the last ``horizon`` steps is the target a
                season before, the last two are the level and the scale of the series in ``target_std``.
            answers: What the model gives, (samples, horizon), in the scale of the series.
        """
        ahead = x[:, -self.horizon :]
        return ((ahead[..., 0] + answers) * ahead[..., -1] + ahead[..., -2]) * self.target_std

    @property
    def monitor(self) -> tuple[str, Literal["max", "min"]]:
        """The validation metric that chooses the best epoch, and whether up or down is better."""
        if self.task == "regression":
            return "val/mae", "min"
        if self.per_step:
            return "val/loss", "min"
        if self.top_k:
            return f"val/hit_rate_at_{self.top_k}", "max"
        return "val/accuracy", "max"
