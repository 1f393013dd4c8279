"""Rules for the arguments of your own classes, which say what a configuration may give them.

Example:
    >>> from typing import Annotated
    >>> class Wide:
    ...     def __init__(self, width: Annotated[int, Number(1, whole=True), "Width of the layer."] = 64): ...
    >>> Number(1, whole=True).expected()
    'a whole number of at least 1'

``model.width=0`` is then refused: ``model.width=0: expected a whole number of at least 1``.
"""

from pipeline.config.rules import (
    BELOW_ONE,
    COLUMN,
    COLUMNS,
    COLUMNS_OR_NULL,
    COUNT,
    COUNT_OR_NULL,
    LOSS,
    NOT_NEGATIVE,
    PATH_OR_NULL,
    POSITIVE,
    SEED,
    Flag,
    FlagOrNull,
    Layers,
    Number,
    Rule,
    Text,
    Texts,
    Word,
)

__all__ = [
    "BELOW_ONE",
    "COLUMN",
    "COLUMNS",
    "COLUMNS_OR_NULL",
    "COUNT",
    "COUNT_OR_NULL",
    "LOSS",
    "NOT_NEGATIVE",
    "PATH_OR_NULL",
    "POSITIVE",
    "SEED",
    "Flag",
    "FlagOrNull",
    "Layers",
    "Number",
    "Rule",
    "Text",
    "Texts",
    "Word",
]
