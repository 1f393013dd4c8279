"""Encoders of text: raw strings to multi-hot words, to padded word ids, to character ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipeline.data.core.encoder import Encoder
from pipeline.data.tables.formats import TableFormat
from pipeline.data.text.reading import read_text
from pipeline.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

PADDING, UNKNOWN = 0, 1
"""Ids of padding and of a word outside the vocabulary; words follow."""


class TextEncoder(Encoder):
    """What encoders of text share: the raw input is strings, alone or as a column of a table.

    Args:
        column: Name of the column of texts that training read, or of several whose texts are joined; ``text`` is
            understood as well.
        written: How the training file is written (arguments of :class:`TableFormat` that differ from the defaults):
            files to predict are read in the same way.
        characters: Whether each character of a script that is written without blanks is a word.
    """

    def __init__(
        self,
        column: str | list[str] = "text",
        written: dict[str, Any] | None = None,
        characters: bool = False,
    ) -> None:
        self.column, self.written = column, TableFormat(**(written or {}))
        self.by_characters = characters

    def _texts(self, raw: Any) -> list[str]:
        """The texts of a batch of raw input, with blanks between their words."""
        from pipeline.data.text.words import spaced

        texts = strings(raw, self.column)
        return list(map(spaced, texts)) if self.by_characters else texts

    def example(self) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(
            {"text": ["A film that I would see again.", "Two hours that nobody gives back to me."]}
        )

    def takes(self, path: Path) -> bool:
        # Whatever its name ends in, as in a folder of texts to train on.
        return not path.name.startswith(".")

    def read(self, paths: Sequence[Path]) -> list[str]:
        return [read_text(path, self.written.encoding) for path in paths]

    def _written(self) -> dict[str, Any]:
        """How the training file is written and what a word is, for the saved state; nothing where it is as usual."""
        written = self.written.differences()
        state: dict[str, Any] = {"written": written} if written else {}
        return state | ({"characters": True} if self.by_characters else {})

    def signature(self) -> dict[str, Any]:
        if isinstance(self.column, str):
            return {"type": "text", "column": self.column}
        # A table with these columns is understood, and a text that is joined already.
        columns = [{"name": name, "dtype": "string", "required": False} for name in (*self.column, "text")]
        return {"type": "text", "column": "text", "columns": columns}


class BagEncoder(TextEncoder):
    """Which words of a vocabulary occur in a text: 0 or 1 for each (float32), or the ids of those that do.

    Args:
        words: The vocabulary, in the order of the columns. Other words count for nothing.
        ngrams: Longest run of words that the vocabulary may hold.
        column: Name of the column of texts, see :class:`TextEncoder`.
        written: How the training file is written, see :class:`TextEncoder`.
        weights: What stands for each word that occurs, in the place of 1; where ids are given, the model's own weights
            hold it.
        characters: Whether characters are words, see :class:`TextEncoder`.
        wide: Whether a text becomes the ids of its words, ascending, instead of a row as wide as the vocabulary: 0 is
            padding at the end, the vocabulary's first word has id 2.
    """

    kind = "bag_of_words"

    def __init__(
        self,
        words: list[str],
        ngrams: int = 1,
        column: str | list[str] = "text",
        written: dict[str, Any] | None = None,
        weights: list[float] | None = None,
        characters: bool = False,
        wide: bool = False,
    ) -> None:
        super().__init__(column, written, characters)
        self.words, self.ngrams = list(words), ngrams
        self.weights, self.wide = weights, wide
        self._columns = {word: column for column, word in enumerate(self.words)}

    def encode(self, raw: Any) -> torch.Tensor:
        from pipeline.data.text.words import tokenise

        found = [
            sorted({self._columns[word] for word in tokenise(text, self.ngrams) if word in self._columns})
            for text in self._texts(raw)
        ]
        if self.wide:
            return padded([[column + UNKNOWN + 1 for column in row] for row in found])
        x = torch.zeros(len(found), len(self.words))
        weights = None if self.weights is None else torch.tensor(self.weights)
        for row, columns in enumerate(found):
            x[row, columns] = 1.0 if weights is None else weights[columns]
        return x

    def input_names(self) -> list[str]:
        return self.words

    def state(self) -> dict[str, Any]:
        state = {"words": self.words, "ngrams": self.ngrams, "column": self.column, **self._written()}
        state |= {} if self.weights is None else {"weights": self.weights}
        return state | ({"wide": True} if self.wide else {})


class TokensEncoder(TextEncoder):
    """Word ids in the order of the text: 0 is padding (at the end), 1 a word outside the vocabulary.

    Args:
        words: The vocabulary; its first word has id 2.
        max_length: Number of words kept of a text, None for all.
        keep: Which words are kept of a longer text: the ``first`` or the ``last``.
        column: Name of the column of texts, see :class:`TextEncoder`.
        written: How the training file is written, see :class:`TextEncoder`.
        characters: Whether characters are words, see :class:`TextEncoder`.
    """

    kind = "tokens"

    def __init__(
        self,
        words: list[str],
        max_length: int | None = None,
        keep: str = "last",
        column: str | list[str] = "text",
        written: dict[str, Any] | None = None,
        characters: bool = False,
    ) -> None:
        super().__init__(column, written, characters)
        self.words, self.max_length, self.keep = list(words), max_length, keep
        self._ids = {word: number for number, word in enumerate(self.words, start=UNKNOWN + 1)}

    def encode(self, raw: Any) -> torch.Tensor:
        from pipeline.data.text.words import tokenise

        rows = [[self._ids.get(word, UNKNOWN) for word in tokenise(text)] for text in self._texts(raw)]
        return padded([self._cut(row) for row in rows])

    def _cut(self, row: list[int]) -> list[int]:
        if self.max_length is None or len(row) <= self.max_length:
            return row
        return row[-self.max_length :] if self.keep == "last" else row[: self.max_length]

    def state(self) -> dict[str, Any]:
        return {
            "words": self.words,
            "max_length": self.max_length,
            "keep": self.keep,
            "column": self.column,
            **self._written(),
        }


class CharacterEncoder(TextEncoder):
    """Ids of the characters of a text; 0 is padding and any character that training did not hold.

    Args:
        characters: The vocabulary; its first character has id 1.
    """

    kind = "characters"

    def __init__(self, characters: list[str]) -> None:
        super().__init__()
        self.characters = list(characters)
        self._ids = {character: number for number, character in enumerate(self.characters, start=1)}

    @classmethod
    def fit(cls, text: str) -> CharacterEncoder:
        """The characters of ``text``, in code point order."""
        return cls(sorted(set(text)))

    @property
    def classes(self) -> tuple[str, ...]:
        """What each id stands for; the sign for an unknown character is U+FFFD."""
        return ("\N{REPLACEMENT CHARACTER}", *self.characters)

    def ids(self, text: str) -> torch.Tensor:
        """The ids of one text, (characters,)."""
        # A table over code points: a hundred times faster than a lookup a character.
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        table = np.zeros(max((ord(c) for c in self.characters), default=0) + 2, dtype=np.int64)
        table[[ord(character) for character in self.characters]] = np.arange(1, len(self.characters) + 1)
        return torch.from_numpy(table[np.minimum(points, len(table) - 1)])

    def encode(self, raw: Any) -> torch.Tensor:
        return padded([self.ids(text).tolist() for text in strings(raw, self.column)])

    def decode(self, ids: torch.Tensor) -> str:
        """The text of some ids, (characters,)."""
        classes = self.classes
        return "".join(classes[i] for i in ids.tolist())

    def state(self) -> dict[str, Any]:
        return {"characters": self.characters}

    def example(self) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame({"text": ["One morning", "The door"]})


def named(column: str | list[str]) -> list[str]:
    """The names of one or several columns."""
    return [column] if isinstance(column, str) else column


def joined_texts(texts: Sequence[Any]) -> str:
    """The texts of several columns of a row as one; what is missing counts for nothing."""
    return " ".join(text for text in texts if isinstance(text, str) and text)


def strings(raw: Any, column: str | list[str] = "text") -> list[str]:
    """The texts of a batch of raw input: a list, array or column of strings, rows by column, or a table.

    Args:
        raw: The input.
        column: Name of a table's column of texts, or of several; one that is named ``text`` or is the only one is taken
            as well.

    Raises:
        UserError: The input is something else; a single string is refused too, since a batch holds several.
    """
    if hasattr(raw, "columns"):
        names = list(raw.columns)
        wanted = named(column)
        if set(wanted) <= set(names) and len(wanted) > 1:
            return [joined_texts(row) for row in zip(*(raw[name] for name in wanted), strict=True)]
        found = next(
            (name for name in (*wanted[: len(wanted) == 1], "text") if name in names),
            names[0] if len(names) == len(wanted) == 1 else None,
        )
        if found is None:
            lacks = ", ".join(repr(name) for name in wanted if name not in names)
            raise UserError(f"the input lacks the column {lacks}; it has {names}")
        raw = raw[found]
    if isinstance(raw, (str, bytes)) or not hasattr(raw, "__iter__"):
        raise UserError(f"got a single {type(raw).__name__}, expected a list of texts; pass [text]")
    if isinstance(raw, np.ndarray):
        raw = raw.reshape(-1)
    texts = list(raw)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"row {row} of the input is {type(text).__name__} ({text!r}), expected a text")
    return texts


def padded(rows: list[list[int]]) -> torch.Tensor:
    """Rows of ids as one integer tensor, filled up with 0 at the end; at least one step wide."""
    x = torch.zeros(len(rows), max(1, max(map(len, rows), default=1)), dtype=torch.long)
    for row, ids in enumerate(rows):
        x[row, : len(ids)] = torch.tensor(ids, dtype=torch.long)
    return x
