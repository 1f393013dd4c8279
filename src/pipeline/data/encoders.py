"""Reading a fitted encoder's state: importing this module registers every kind that the package has."""

from __future__ import annotations

from typing import Any

import pipeline.data.images.encoders
import pipeline.data.orders.encoder
import pipeline.data.series.encoder
import pipeline.data.tables.encoder
import pipeline.data.tables.memmap
import pipeline.data.text.encoders
import pipeline.data.text.pieces  # noqa: F401
from pipeline.data.core.encoder import Encoder
from pipeline.errors import UserError


def restored(state: dict[str, Any]) -> Encoder:
    """The fitted encoder whose :meth:`~pipeline.data.core.encoder.Encoder.to_state` was ``state``.

    Raises:
        UserError: No encoder class of that kind is loaded.
    """
    state = dict(state)
    kind = state.pop("kind")
    if kind not in Encoder.kinds:
        raise UserError(f"unknown encoder kind {kind!r}; expected one of {sorted(Encoder.kinds)}")
    return Encoder.kinds[kind](**state)
