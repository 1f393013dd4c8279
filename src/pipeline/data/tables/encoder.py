"""Rows of a table as model input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.core.encoder import Encoder
from pipeline.data.tables.features import DateFeature, Feature, NumberFeature, TextFeature
from pipeline.data.tables.formats import TableFormat
from pipeline.data.tables.frames import table_of
from pipeline.data.tables.reading import Reading, column_of, state_of
from pipeline.data.tables.rows import expand
from pipeline.data.tables.threads import for_each
from pipeline.data.tables.unusual import Usual
from pipeline.data.tables.values import Column, Table
from pipeline.data.tables.words import numbers_of
from pipeline.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


class TableEncoder(Encoder):
    """Rows of a table as float32 vectors: numbers and dates first, then a one-hot block for each category column.

    Takes a data frame, a list of dictionaries or a dictionary of lists with the columns it was fitted on; others are
    ignored. Missing values and unseen categories are handled; a missing column is an error.

    Args:
        features: The state of each feature, with its ``kind``.
        written: How the file is written that it was fitted on (arguments of :class:`TableFormat` that differ from the
            defaults): files to predict are read in the same way.
        usual: What training rows look like, as :meth:`Usual.state` says it; None where that is not known.
        target: How the column that is predicted is understood (arguments of :class:`Reading`).
    """

    kind = "table"
    takes_tables = True

    def __init__(
        self,
        features: Sequence[dict[str, Any]],
        written: dict[str, Any] | None = None,
        target: dict[str, Any] | None = None,
        usual: dict[str, Any] | None = None,
    ) -> None:
        self.usual = None if usual is None else Usual.of(usual)
        self.written = TableFormat(**(written or {}))
        self.target = None if target is None else Reading.of(target)
        kinds: dict[str, type[Feature]] = {"number": NumberFeature, "date": DateFeature, "text": TextFeature}
        built: list[Feature] = []
        for state in features:
            state = dict(state)
            reading = state.pop("reading", None)
            feature = kinds[state.pop("kind")](**state)
            # Earlier versions saved the decimal mark of the file alone.
            known = replace(feature.understood, decimal=self.written.decimal)
            built.append(replace(feature, reading=known if reading is None else Reading.of(reading)))
        self._set(built)

    @classmethod
    def of(
        cls, features: Sequence[Feature], written: TableFormat, target: Reading | None = None
    ) -> TableEncoder:
        """From fitted features, and how their file and the column that is predicted are written."""
        encoder = cls([])
        encoder.written, encoder.target = written, target
        encoder._set(features)
        return encoder

    def _set(self, features: Sequence[Feature]) -> None:
        self.dense = [feature for feature in features if not isinstance(feature, TextFeature)]
        self.texts = [feature for feature in features if isinstance(feature, TextFeature)]
        self.features: list[Feature] = list(features)
        self.dense_width = sum(feature.width for feature in self.dense)
        self.width = self.dense_width + sum(feature.width for feature in self.texts)

    @property
    def columns(self) -> list[str]:
        """The columns that rows must have."""
        return [feature.name for feature in self.features]

    def inputs(self) -> list[str]:
        """What each of the model's inputs is."""
        return [name for feature in (*self.dense, *self.texts) for name in feature.inputs()]

    def blocks(self) -> list[range]:
        """The inputs of each category column, one of which is 1."""
        ends = np.cumsum([self.dense_width, *(feature.width for feature in self.texts)]).tolist()
        return [range(start, end) for start, end in pairwise(ends)]

    def encode(self, raw: Any) -> Tensor:
        table = table_of(raw, self.columns)
        dense, codes = self.compact(table, np.arange(len(table)), strict=True)
        return expand(dense, codes, self.width)

    def compact(self, table: Table, rows: np.ndarray, strict: bool = False) -> tuple[Tensor, Tensor]:
        """Some rows: the dense part (rows, dense width), and which inputs are 1 (rows, category columns).

        Args:
            table: The table.
            rows: Numbers of the rows.
            strict: Whether a value that is not understood is an error; otherwise it counts as missing.
        """
        # A column at a time into memory that lies together, turned into rows at the end: ten times as fast as
        # writing every 30th number.
        dense = np.empty((self.dense_width, len(rows)), dtype=np.float32)
        codes = np.empty((len(self.texts), len(rows)), dtype=np.int32)

        def write(place: int, start: int, feature: Feature) -> None:
            column = _column(table, feature, strict).rows(rows)
            if isinstance(feature, TextFeature):
                codes[place] = feature.codes(column) + start
            else:
                feature.write(column, dense[start : start + feature.width])

        starts = np.cumsum([0, *(feature.width for feature in (*self.dense, *self.texts))]).tolist()
        places = [*range(len(self.dense)), *range(len(self.texts))]
        for_each(write, list(zip(places, starts, (*self.dense, *self.texts), strict=False)), len(rows))
        return torch.from_numpy(np.ascontiguousarray(dense.T)), torch.from_numpy(
            np.ascontiguousarray(codes.T)
        )

    def state(self) -> dict[str, Any]:
        written = self.written.differences()
        features = [
            {"kind": feature.kind, **asdict(feature), "reading": state_of(feature.understood)}
            for feature in self.features
        ]
        target = {} if self.target is None else {"target": state_of(self.target)}
        usual = {} if self.usual is None else {"usual": self.usual.state()}
        return {"features": features, **({"written": written} if written else {}), **target, **usual}

    def learn_usual(self, dense: Tensor, codes: Tensor) -> None:
        """Learn from the training rows, as :meth:`compact` gives them, which others are unlike them."""
        self.usual = Usual.fit(dense.numpy(), codes.numpy(), self.blocks())

    @property
    def tells_unusual(self) -> bool:
        return self.usual is not None

    def unusual(self, inputs: Tensor) -> np.ndarray | None:
        if self.usual is None:
            return None
        codes = [
            inputs[:, block.start : block.stop].argmax(1).numpy() + block.start for block in self.blocks()
        ]
        rows = np.stack(codes, axis=1) if codes else np.zeros((len(inputs), 0), dtype=np.int64)
        return self.usual.flags(inputs[:, : self.dense_width].numpy(), rows)

    def example(self) -> pd.DataFrame:
        import pandas as pd

        columns: dict[str, Any] = {}
        for feature in self.features:
            if isinstance(feature, TextFeature):
                known = [*feature.categories, "(other)"]
                columns[feature.name] = [known[0], known[min(1, len(known) - 1)]]
            elif isinstance(feature, DateFeature):
                columns[feature.name] = pd.to_datetime([feature.fill, feature.fill + 1], unit="D").round("s")
            elif feature.truth:
                columns[feature.name] = [True, False]
            else:
                columns[feature.name] = [feature.fill, feature.fill + feature.scale]
        return pd.DataFrame(columns)

    def signature(self) -> dict[str, Any]:
        # "any" is checked here, not by MLflow: it refuses whole numbers for "double" and dates that are text.
        columns = []
        for feature in self.features:
            words = feature.categories if isinstance(feature, TextFeature) else []
            text = bool(np.isnan(numbers_of(words)).any())
            columns.append({"name": feature.name, "dtype": "string" if text else "any", "required": True})
        return {"type": "columns", "columns": columns}


def _column(table: Table, feature: Feature, strict: bool) -> Column:
    try:
        return column_of(table, feature.name, feature.understood, strict)
    except TypeError as error:
        raise UserError(f"the column {feature.name!r} cannot be used: {error}") from None
