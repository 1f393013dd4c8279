"""Runs of words (n-grams) as numbers: counted, chosen and found without making a string of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.data.text.corpus import Corpus, gathered, joined, portions, spans

MOST_RUNS = 20_000_000
"""Different runs of one length that are counted at once (16 bytes each); above that, those seen once are forgotten."""


@dataclass(frozen=True)
class Level:
    """The runs of one length that are told apart.

    A run of n words is the number of its first n − 1 words in the level below, times the number of different words,
    plus the number of its last word.

    Args:
        codes: The runs, ascending (int64).
        counts: How often each occurs in the training texts.
    """

    codes: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class Runs:
    """A vocabulary of words and runs of words.

    Args:
        words: The vocabulary, most frequent first; the words of a run are joined by blanks.
        singles: Column of each word of the corpus, −1 for a word without one.
        codes: The runs of two words, of three …, that are told apart, see :class:`Level`.
        columns: Column of each of them, −1 for what is only the beginning of another.
    """

    words: list[str]
    singles: np.ndarray
    codes: list[np.ndarray]
    columns: list[np.ndarray]

    @classmethod
    def chosen(cls, corpus: Corpus, rows: np.ndarray, ngrams: int, size: int) -> Runs:
        """The ``size`` most frequent words and runs of up to ``ngrams`` words of the texts ``rows``.

        Args:
            corpus: The texts.
            rows: Numbers of the training texts.
            ngrams: Longest run of words.
            size: Largest number of words and runs to keep.
        """
        from pipeline.data.text.words import vocabulary

        singles = corpus.counts(rows)
        levels: list[Level] = []
        for _ in range(1, ngrams):
            levels.append(_counted(corpus, rows, [level.codes for level in levels]))
        counts = np.concatenate([singles, *(level.counts for level in levels)])
        least = max(1, int(np.partition(counts, -size)[-size])) if len(counts) > size else 1
        # What is not frequent enough itself begins nothing that is.
        names, numbers, kept = list(corpus.words), [singles], []
        before = np.arange(len(corpus.words))
        texts: Sequence[str] = corpus.words
        for level in levels:
            frequent = np.flatnonzero(level.counts >= least)
            first, last = np.divmod(level.codes[frequent], len(corpus.words))
            kept.append(before[first] * len(corpus.words) + last)
            texts = [
                f"{texts[one]} {corpus.words[two]}"
                for one, two in zip(before[first].tolist(), last.tolist(), strict=True)
            ]
            names += texts
            numbers.append(level.counts[frequent])
            before = np.full(len(level.codes), -1)
            before[frequent] = np.arange(len(frequent))
        picked = vocabulary(names, np.concatenate(numbers), size)
        columns = np.full(len(names), -1, dtype=np.int32)
        columns[picked] = np.arange(len(picked))
        places = np.split(columns, np.cumsum([len(part) for part in numbers])[:-1])
        return cls([names[place] for place in picked.tolist()], places[0], kept, places[1:])

    def bags(self, corpus: Corpus, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The texts ``rows`` as sets of column numbers, see :meth:`Corpus.bags`."""
        if not self.codes:
            return corpus.bags(rows, self.singles)
        values, lengths = [], []
        width = len(self.words)
        for part in portions(rows):
            found, text = [], []
            tokens, row = gathered(corpus.tokens, *spans(corpus.starts, part))
            found.append(self.singles[tokens])
            text.append(row)
            for columns, (places, at) in zip(
                self.columns, _places(tokens, row, self.codes, corpus), strict=True
            ):
                found.append(columns[places])
                text.append(row[at])
            column, row = np.concatenate(found), np.concatenate(text)
            known = column >= 0
            pairs = np.unique(row[known] * width + column[known])
            values.append((pairs % width).astype(np.int32))
            lengths.append(np.bincount(pairs // width, minlength=len(part)))
        return joined(lengths, values)


def _places(
    tokens: np.ndarray, row: np.ndarray, known: Sequence[np.ndarray], corpus: Corpus
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each length from two words on: which of the known runs occur, and where in ``tokens`` each begins."""
    found = []
    before, at = tokens.astype(np.int64), np.arange(len(tokens))
    for length, codes in enumerate(known, start=2):
        before, at = _longer(before, at, tokens, row, length, len(corpus.words))
        place = np.minimum(np.searchsorted(codes, before), max(0, len(codes) - 1))
        there = codes[place] == before if len(codes) else np.zeros(len(before), dtype=bool)
        before, at = place[there], at[there]
        found.append((before, at))
    return found


def _longer(
    before: np.ndarray, at: np.ndarray, tokens: np.ndarray, row: np.ndarray, length: int, words: int
) -> tuple[np.ndarray, np.ndarray]:
    """Runs with the word that follows each, where one does in the same text."""
    end = at + length - 1
    inside = end < len(tokens)
    inside[inside] = row[end[inside]] == row[at[inside]]
    return before[inside] * words + tokens[end[inside]], at[inside]


def _counted(corpus: Corpus, rows: np.ndarray, known: Sequence[np.ndarray]) -> Level:
    """All runs of one word more than those that are known, in the texts ``rows``."""
    total = Level(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    waiting: list[np.ndarray] = []
    size = 0
    for part in portions(rows):
        tokens, row = gathered(corpus.tokens, *spans(corpus.starts, part))
        before, at = tokens.astype(np.int64), np.arange(len(tokens))
        if known:
            before, at = _places(tokens, row, known, corpus)[-1]
        waiting.append(_longer(before, at, tokens, row, len(known) + 2, len(corpus.words))[0])
        size += len(waiting[-1])
        if size > MOST_RUNS // 2:
            total, waiting, size = _merged(total, waiting), [], 0
    return _merged(total, waiting)


def _merged(total: Level, waiting: Sequence[np.ndarray]) -> Level:
    """Counts with those of more texts."""
    codes, counts = np.unique(np.concatenate(waiting or [total.codes[:0]]), return_counts=True)
    both, place = np.unique(np.concatenate([total.codes, codes]), return_inverse=True)
    summed = np.bincount(place, weights=np.concatenate([total.counts, counts]), minlength=len(both))
    summed = summed.astype(np.int64)
    if len(both) > MOST_RUNS:
        both, summed = both[summed > 1], summed[summed > 1]
    return Level(both, summed)


def log_count_ratios(starts: np.ndarray, columns: np.ndarray, width: int, labels: np.ndarray) -> np.ndarray:
    """How much each word speaks for a class: the size of its log-count ratio (Wang & Manning 2012).

    With p the share of the class's words that are this one (each word counted once more, and once a text), and q that
    of all other classes, it is |log p / q|. Of several classes it is the root of the mean square, each class counting
    by its share of the texts: a word of a rare class must not drown the others. Its sign is left to the weight that is
    learnt on it.

    Args:
        starts: Where each training text begins in ``columns``, (texts + 1,).
        columns: Column numbers of all texts, one after the other.
        width: Number of columns.
        labels: Class number of each text.

    Returns:
        A number of at least 0 for each column (float32).
    """
    label = np.repeat(labels.astype(np.int64), np.diff(starts))
    classes = int(labels.max()) + 1
    counts = np.stack([np.bincount(columns[label == one], minlength=width) for one in range(classes)]) + 1.0
    others = counts.sum(0) - counts + (2 - classes)
    share = counts / counts.sum(1, keepdims=True)
    rest = others / others.sum(1, keepdims=True)
    of_texts = np.bincount(labels, minlength=classes) / len(labels)
    return np.asarray(np.sqrt(of_texts @ np.log(share / rest) ** 2), dtype=np.float32)
