"""Fitted preprocessing: raw input in, model input out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from pipeline.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


class Encoder(ABC):
    """What was learnt from the training split to turn raw input into what the model takes.

    A subclass is registered under its ``kind``; its state is JSON, so that it can be logged with the model and
    read again without running anything.
    """

    kind: ClassVar[str]
    kinds: ClassVar[dict[str, type[Encoder]]] = {}
    """Every encoder class that is loaded, by its kind."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" in cls.__dict__:
            Encoder.kinds[cls.kind] = cls

    @abstractmethod
    def encode(self, raw: Any) -> torch.Tensor:
        """A batch of raw samples as one tensor of model input.

        Raises:
            UserError: The raw input does not have the form that this encoder was fitted on.
        """

    def takes(self, path: Path) -> bool:
        """Whether a file's name says that it holds one raw sample (an image, say); no file does otherwise."""
        return False

    def read(self, paths: Sequence[Path]) -> Any:
        """The raw samples of files that :meth:`takes` says yes to, as :meth:`encode` takes them.

        They are read as the training data was.

        Raises:
            UserError: One of them cannot be read; the message names it.
        """
        raise NotImplementedError

    takes_whole: ClassVar[bool] = False
    """Whether a table is one raw input as a whole, rather than a sample a row."""

    takes_tables: ClassVar[bool] = False
    """Whether it reads the values of a table itself, and is given them as they are written."""

    def unfolded(self, raw: Any, frame: pd.DataFrame) -> pd.DataFrame:
        """The table of answers to some raw input, as it is given out.

        Args:
            raw: The raw input.
            frame: A row for each encoded sample.
        """
        return frame

    @property
    def tells_unusual(self) -> bool:
        """Whether :meth:`unusual` can tell."""
        return False

    def unusual(self, inputs: torch.Tensor) -> np.ndarray | None:
        """Which of some encoded samples are unlike those of the training, (samples,); None where it cannot tell."""
        return None

    def input_names(self) -> list[str]:
        """What each input of a bag is, for a search for drift; empty texts for those that move by themselves.

        None at all where inputs have no names.
        """
        return []

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Everything that was fitted, as JSON values."""

    @abstractmethod
    def example(self) -> Any:
        """Two raw samples of the form that :meth:`encode` takes (logged as the model's input example)."""

    def signature(self) -> dict[str, Any]:
        """The raw input in words that MLflow's model signature is made from.

        ``{"type": "tensor", "dtype": ..., "shape": [-1, ...]}``, ``{"type": "text", "column": ...}`` or
        ``{"type": "columns", "columns": [{"name": ..., "dtype": ..., "required": ...}, ...]}``.
        """
        raise NotImplementedError

    def to_state(self) -> dict[str, Any]:
        """:meth:`state` with the kind that :func:`pipeline.data.encoders.restored` looks up."""
        return {"kind": self.kind, **self.state()}


class VectorEncoder(Encoder):
    """Numeric features as float32, shifted and scaled by the training split's statistics where asked for.

    Args:
        columns: Names of the features.
        shift: Number that is subtracted from each feature.
        scale: Number that each feature is divided by.
    """

    kind = "vector"

    def __init__(
        self, columns: list[str], shift: list[float] | None = None, scale: list[float] | None = None
    ) -> None:
        self.columns = list(columns)
        self.shift = list(shift) if shift else [0.0] * len(self.columns)
        self.scale = list(scale) if scale else [1.0] * len(self.columns)

    @classmethod
    def fit(cls, values: np.ndarray, columns: list[str], standardise: bool = True) -> VectorEncoder:
        """The encoder of ``values`` (samples, features), by their mean and deviation where ``standardise``."""
        if not standardise:
            return cls(columns)
        std = values.std(axis=0)
        std[std == 0] = 1.0
        return cls(columns, values.mean(axis=0).tolist(), std.tolist())

    def encode(self, raw: Any) -> torch.Tensor:
        values = self._columns(raw)
        if values.ndim != 2 or values.shape[1] != len(self.columns):
            raise UserError(
                f"got input of shape {values.shape}, expected rows of {len(self.columns)}: {self.columns}"
            )
        return torch.from_numpy(((values - np.array(self.shift)) / np.array(self.scale)).astype(np.float32))

    def _columns(self, raw: Any) -> np.ndarray:
        if hasattr(raw, "columns"):
            frame: pd.DataFrame = raw
            if missing := [column for column in self.columns if column not in frame.columns]:
                raise UserError(f"the input lacks the columns {missing}; expected {self.columns}")
            raw = frame[self.columns]
        try:
            return np.asarray(raw, dtype=np.float64)
        except (TypeError, ValueError):
            raise UserError(f"the columns {self.columns} must be numbers") from None

    def state(self) -> dict[str, Any]:
        return {"columns": self.columns, "shift": self.shift, "scale": self.scale}

    def example(self) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(
            [self.shift, [a + b for a, b in zip(self.shift, self.scale, strict=True)]], columns=self.columns
        )

    def signature(self) -> dict[str, Any]:
        # "any" takes whole numbers too, which MLflow would refuse for a "double".
        columns = [{"name": name, "dtype": "any", "required": True} for name in self.columns]
        return {"type": "columns", "columns": columns}


class SeriesEncoder(Encoder):
    """A numeric series as it stands: (samples, steps) or (samples, steps, features) to float32.

    Args:
        features: Number of values at each step.
    """

    kind = "series"

    def __init__(self, features: int = 1) -> None:
        self.features = features

    def encode(self, raw: Any) -> torch.Tensor:
        try:
            values = np.asarray(raw, dtype=np.float32)
        except (TypeError, ValueError):
            raise UserError("a series must be numbers, every row with the same number of steps") from None
        if values.ndim == 2 and self.features == 1:
            values = values[:, :, None]
        if values.ndim != 3 or values.shape[2] != self.features:
            raise UserError(
                f"got a series of shape {values.shape}, expected (samples, steps, {self.features})"
            )
        return torch.from_numpy(np.ascontiguousarray(values))

    def state(self) -> dict[str, Any]:
        return {"features": self.features}

    def example(self) -> np.ndarray:
        return np.zeros((2, 8, self.features), dtype=np.float32)

    def signature(self) -> dict[str, Any]:
        return {"type": "tensor", "dtype": "float32", "shape": [-1, -1, self.features]}


class TensorEncoder(Encoder):
    """Arrays that already are what the model takes.

    Args:
        shape: Shape of one sample; an axis of any length is 0.
        whole: Whether they are whole numbers (token ids), not real ones.
    """

    kind = "tensor"

    def __init__(self, shape: list[int], whole: bool = False) -> None:
        self.shape, self.whole = list(shape), whole

    def encode(self, raw: Any) -> torch.Tensor:
        try:
            values = np.asarray(raw, dtype=np.int64 if self.whole else np.float32)
        except (TypeError, ValueError):
            raise UserError(f"the input must be numbers of the shape (samples, {self._shown()})") from None
        fits = values.ndim == len(self.shape) + 1 and all(
            size in (0, given) for size, given in zip(self.shape, values.shape[1:], strict=True)
        )
        if not fits:
            raise UserError(f"got input of the shape {values.shape}, expected (samples, {self._shown()})")
        return torch.from_numpy(np.ascontiguousarray(values))

    def _shown(self) -> str:
        return ", ".join(str(size or "any") for size in self.shape)

    def state(self) -> dict[str, Any]:
        return {"shape": self.shape, "whole": self.whole}

    def example(self) -> np.ndarray:
        kind: Any = np.int64 if self.whole else np.float32
        return np.zeros((2, *(size or 4 for size in self.shape)), dtype=kind)

    def signature(self) -> dict[str, Any]:
        shape = [-1, *(size or -1 for size in self.shape)]
        return {"type": "tensor", "dtype": "int64" if self.whole else "float32", "shape": shape}
