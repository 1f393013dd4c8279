"""Texts as pieces of words, split as a published network knows them. The only module that knows tokenizers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipeline.data.text.encoders import TextEncoder, padded
from pipeline.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_AT_ONCE = 1000
"""Texts that are split beside each other, on all cores."""


class Pieces:
    """A tokenizer: which pieces of words there are, and how a text is split into them.

    A piece is known here by its number in the tokenizer and one more: 0 is padding, whatever the tokenizer's own is.

    Args:
        definition: The tokenizer as the library tokenizers writes it (``tokenizer.json``).

    Attributes:
        definition: The same.
        begin: Pieces that every text begins with (``[CLS]``).
        end: Pieces that every text ends with (``[SEP]``).
        count: Number of pieces there are.

    Raises:
        UserError: The library is not installed, or does not understand the definition.
    """

    def __init__(self, definition: str) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise UserError(
                "splitting texts into pieces of words needs the package tokenizers: "
                "pip install 'hydra-lightning-pipeline[texts]'"
            ) from None
        try:
            self._tokenizer: Tokenizer = Tokenizer.from_str(definition)
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f"this is no tokenizer that can be read: {reason}") from None
        self.definition = definition
        # Texts are cut and padded here, whatever was set when the file was written.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.count = self._tokenizer.get_vocab_size()
        framed = self._tokenizer.encode("a").ids
        inner = self._tokenizer.encode("a", add_special_tokens=False).ids
        start = next(
            (place for place in range(len(framed)) if framed[place : place + len(inner)] == inner), 0
        )
        self.begin = [number + 1 for number in framed[:start]]
        self.end = [number + 1 for number in framed[start + len(inner) :]]

    @classmethod
    def of(cls, path: Path) -> Pieces:
        """The tokenizer of a file.

        Raises:
            UserError: There is no such file, or it holds something else.
        """
        try:
            return cls(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"data.tokenizer={path} cannot be read: {error}") from None

    @property
    def digest(self) -> str:
        """A hash of the definition."""
        return hashlib.sha256(self.definition.encode()).hexdigest()[:16]

    def split(self, texts: Iterable[str]) -> Iterator[list[int]]:
        """The pieces of each text, without those that every text begins and ends with."""
        waiting = iter(texts)
        while some := list(islice(waiting, _AT_ONCE)):
            for found in self._tokenizer.encode_batch(some, add_special_tokens=False):
                yield [number + 1 for number in found.ids]

    def kept(self, max_length: int | None) -> int | None:
        """Number of pieces of a text's own where ``max_length`` are kept with those around them; None for all."""
        return None if max_length is None else max(0, max_length - len(self.begin) - len(self.end))

    def framed(self, starts: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Texts with what each begins and ends with.

        Args:
            starts: Where each text begins in ``values``, (texts + 1,).
            values: Pieces of all texts, one after the other.

        Returns:
            The same two with the pieces around each text.
        """
        around = len(self.begin) + len(self.end)
        moved = starts + around * np.arange(len(starts))
        found = np.empty(len(values) + around * (len(starts) - 1), dtype=np.int32)
        inside = np.ones(len(found), dtype=bool)
        for place, piece in enumerate(self.begin):
            found[moved[:-1] + place], inside[moved[:-1] + place] = piece, False
        for place, piece in enumerate(reversed(self.end), start=1):
            found[moved[1:] - place], inside[moved[1:] - place] = piece, False
        found[inside] = values
        return moved, found


class PiecesEncoder(TextEncoder):
    """Numbers of the pieces of a text in their order; 0 is padding at the end.

    Args:
        tokenizer: The tokenizer's definition, as JSON values.
        max_length: Number of pieces kept of a text, those around it included; None for all.
        keep: Which are kept of a longer text: the ``first`` or the ``last``.
        column: Name of the column of texts, see :class:`TextEncoder`.
        written: How the training file is written, see :class:`TextEncoder`.
    """

    kind = "pieces"

    def __init__(
        self,
        tokenizer: dict[str, Any],
        max_length: int | None = None,
        keep: str = "last",
        column: str | list[str] = "text",
        written: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(column, written)
        self.tokenizer, self.max_length, self.keep = tokenizer, max_length, keep
        self.pieces = _pieces_of(json.dumps(tokenizer, ensure_ascii=False))

    def encode(self, raw: Any) -> torch.Tensor:
        most, pieces = self.pieces.kept(self.max_length), self.pieces
        rows = []
        for row in pieces.split(self._texts(raw)):
            if most is not None and len(row) > most:
                row = row[len(row) - most :] if self.keep == "last" else row[:most]
            rows.append([*pieces.begin, *row, *pieces.end])
        return padded(rows)

    def state(self) -> dict[str, Any]:
        return {
            "tokenizer": self.tokenizer,
            "max_length": self.max_length,
            "keep": self.keep,
            "column": self.column,
            **self._written(),
        }


@lru_cache(maxsize=2)
def _pieces_of(definition: str) -> Pieces:
    return Pieces(definition)
