"""A tokenised collection of labelled texts as a few arrays: what the cache holds and splits are cut from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.data.text.pieces import Pieces

TRAIN, TEST = 0, 1
LOOKED_AT = 1000
"""Texts that decide whether their words stand between blanks."""


class Document(NamedTuple):
    """One labelled text: its label, and whether it is for ``TRAIN`` or for ``TEST``."""

    text: str
    label: str
    part: int = TRAIN


@dataclass
class Corpus:
    """Tokenised texts.

    Args:
        tokens: Word numbers of all texts, one after the other (int32).
        starts: Where each text begins in ``tokens``, (texts + 1,).
        members: The different word numbers of each text, one text after the other (int32).
        member_starts: Where each text begins in ``members``, (texts + 1,).
        labels: Class number of each text, (texts,).
        parts: ``TRAIN`` or ``TEST`` for each text, (texts,).
        words: The words by number; none where the numbers are those of a tokenizer's pieces.
        classes: The class names by number.
        characters: Whether the characters of scripts without blanks count as words, see
            :func:`~pipeline.data.text.words.spaced`.
    """

    tokens: np.ndarray
    starts: np.ndarray
    members: np.ndarray
    member_starts: np.ndarray
    labels: np.ndarray
    parts: np.ndarray
    words: list[str]
    classes: list[str]
    characters: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def build(
        cls, documents: Iterable[Document], words: str = "auto", pieces: Pieces | None = None
    ) -> Corpus:
        """Tokenise documents in one pass that keeps no text.

        Args:
            documents: The texts.
            words: What a word is: ``blanks``, ``characters`` or ``auto``, see :class:`Documents`.
            pieces: Tokenizer that splits texts into pieces of words; None splits them into words.

        Raises:
            UserError: There are no documents, or all have the same label.
        """
        from pipeline.data.text.words import needs_characters, number_words

        labels: list[str] = []
        parts: list[int] = []

        def texts() -> Iterator[str]:
            for document in documents:
                labels.append(document.label)
                parts.append(document.part)
                yield document.text

        stream, characters = texts(), False
        known: list[str] = []
        if pieces is not None:
            tokens, starts = _split(pieces, stream)
        else:
            first = list(islice(stream, LOOKED_AT))
            characters = words == "characters" or (words == "auto" and needs_characters(first))
            tokens, starts, known = number_words(chain(first, stream), characters)
        classes = sorted(set(labels))
        if len(classes) < 2:
            found = f"only the class {classes[0]!r}" if classes else "no text"
            raise UserError(f"the data holds {found}; classification needs texts of two classes at least")
        if len(classes) == len(labels) > 10:
            raise UserError(
                f"every text has another class ({', '.join(map(repr, classes[:3]))} …): nothing to learn; expected "
                "classes with several texts each (numbers are not learnt from texts)"
            )
        numbers = {label: number for number, label in enumerate(classes)}
        # Pieces have no bags: nobody asks which of them are different.
        members, member_starts = (
            different_words(tokens, starts, len(known)) if pieces is None else (tokens[:0], 0 * starts)
        )
        return cls(
            tokens,
            starts,
            members,
            member_starts,
            np.array([numbers[label] for label in labels], dtype=np.int64),
            np.array(parts, dtype=np.uint8),
            known,
            classes,
            characters,
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, for the cache."""
        names = ("tokens", "starts", "members", "member_starts", "labels", "parts")
        return {name: getattr(self, name) for name in names}

    def names(self) -> dict[str, Any]:
        """The rest, as JSON values."""
        return {"words": self.words, "classes": self.classes, "characters": self.characters}

    def counts(self, rows: np.ndarray) -> np.ndarray:
        """How often each word occurs in the texts ``rows``."""
        counts = np.zeros(len(self.words), dtype=np.int64)
        for part in portions(rows):
            counts += np.bincount(
                gathered(self.tokens, *spans(self.starts, part))[0], minlength=len(self.words)
            )
        return counts

    def bags(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The texts ``rows`` as sets of column numbers.

        Args:
            rows: Numbers of the texts.
            columns: Column of each word, −1 for a word without one.

        Returns:
            Where each set begins (rows + 1), and the column numbers of all sets, one after the other (int32).
        """
        values, lengths = [], []
        for part in portions(rows):
            members, row = gathered(self.members, *spans(self.member_starts, part))
            found = columns[members]
            values.append(found[found >= 0])
            lengths.append(np.bincount(row[found >= 0], minlength=len(part)))
        return joined(lengths, values)

    def sequences(
        self, rows: np.ndarray, ids: np.ndarray, max_length: int | None, keep: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """The texts ``rows`` as sequences of ids.

        Args:
            rows: Numbers of the texts.
            ids: Id of each word.
            max_length: Largest number of words in a sequence, None for no limit; longer texts are cut.
            keep: Which words of a longer text are kept: the ``first`` or the ``last``.

        Returns:
            Where each sequence begins (rows + 1), and the ids of all sequences, one after the other (int32).
        """
        values, lengths = [], []
        for part in portions(rows):
            first, length = spans(self.starts, part)
            kept = length if max_length is None else np.minimum(length, max_length)
            values.append(
                ids[gathered(self.tokens, first + (length - kept if keep == "last" else 0), kept)[0]]
            )
            lengths.append(kept)
        return joined(lengths, values)


def _split(pieces: Pieces, texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """The pieces of all texts, one after the other (int32), and where each text begins."""
    found = [np.array(row, dtype=np.int32) for row in pieces.split(texts)]
    starts, tokens = joined([np.array([len(row)]) for row in found], found)
    return tokens, starts


def portions(rows: np.ndarray) -> Iterator[np.ndarray]:
    """``rows`` in pieces: working on all at once would take several times the corpus in memory."""
    size = 2048
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def spans(starts: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each of ``rows`` begins, and its length."""
    return starts[rows], starts[rows + 1] - starts[rows]


def gathered(values: np.ndarray, first: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The spans of ``values`` one after the other, and which span each value comes from."""
    span = np.repeat(np.arange(len(lengths)), lengths)
    before = np.cumsum(lengths) - lengths
    return values[np.arange(len(span)) + (first - before)[span]], span


def joined(lengths: list[np.ndarray], values: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Where each piece begins, and all pieces one after the other."""
    starts = np.cumsum(np.concatenate([[0], *lengths]))
    return starts, np.concatenate(values) if values else np.zeros(0, dtype=np.int32)


def different_words(tokens: np.ndarray, starts: np.ndarray, words: int) -> tuple[np.ndarray, np.ndarray]:
    """The different word numbers of each text, ascending, and where each text begins in them.

    Args:
        tokens: Word numbers of all texts.
        starts: Where each text begins, (texts + 1,).
        words: Number of different words.
    """
    bits = max(1, int(words - 1).bit_length())
    size = 128
    # (text, word) pairs as one number each: small ones sort twice as fast.
    kind = np.int32 if size << bits < 2**31 else np.int64
    members, lengths = [], []
    for first_row in range(0, len(starts) - 1, size):
        bounds = starts[first_row : first_row + size + 1]
        rows = len(bounds) - 1
        pairs = np.repeat(np.left_shift(np.arange(rows, dtype=kind), bits), np.diff(bounds))
        pairs |= tokens[bounds[0] : bounds[-1]]
        pairs.sort()
        first = np.ones(len(pairs), dtype=bool)
        np.not_equal(pairs[1:], pairs[:-1], out=first[1:])
        pairs = pairs[first]
        members.append((pairs & ((1 << bits) - 1)).astype(np.int32))
        lengths.append(np.bincount(pairs >> bits, minlength=rows))
    member_starts, flat = joined(lengths, members)
    return flat, member_starts
