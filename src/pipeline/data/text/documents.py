"""Labelled texts: what the data sets for text classification share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.core.cache import cached
from pipeline.data.core.module import DataModule
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import RaggedRows, Rows, SparseRows
from pipeline.data.core.splitting import drawn
from pipeline.data.sources.finding import DataUnavailable
from pipeline.data.tables.formats import TableFormat
from pipeline.data.text.corpus import TEST, TRAIN, Corpus
from pipeline.data.text.encoders import UNKNOWN, BagEncoder, TokensEncoder
from pipeline.data.text.generated import generated_reviews
from pipeline.errors import UserError

STAND_INS: dict[str, Callable[[], Corpus]] = {"generated_reviews": lambda: Corpus.build(generated_reviews())}

LAYOUT = 1
"""Version of the cached arrays, for :class:`Corpus` and the tokeniser: entries of another one are left alone."""


class Documents(DataModule):
    """Texts with a class each, as bags of words or as sequences of word ids.

    Args:
        name: Name of the data set.
        input: ``bag`` (which of the vocabulary's words occur: multi-hot) or ``tokens`` (word ids in order).
        vocabulary_size: Number of words in the vocabulary: the most frequent ones of the training split.
        ngrams: Longest run of words that counts as a word (``bag`` only; 2 takes several times the memory).
        max_length: Number of words kept of each text, None for all (``tokens`` only).
        keep: Which words of a longer text are kept: the ``first`` or the ``last``.
        test_fraction: Share of the texts that becomes the test split, where the data set has none of its own.
        target_name: What the classes are, in a word.
        **shared: Settings that every data set takes, see :class:`DataModule`.
    """

    stand_ins = tuple(STAND_INS)

    column: str | list[str] = "text"
    """Name of the column of texts, or of several whose texts are joined, where they come from a table."""

    format = TableFormat()
    """How the files of texts are written."""

    def __init__(
        self,
        name: str,
        input: str = "bag",
        vocabulary_size: int = 10_000,
        ngrams: int = 1,
        max_length: int | None = 256,
        keep: str = "last",
        test_fraction: float = 0.2,
        target_name: str = "class",
        **shared: Any,
    ) -> None:
        super().__init__(name=name, **shared)
        for key, value, allowed in (("input", input, ("bag", "tokens")), ("keep", keep, ("first", "last"))):
            if value not in allowed:
                raise UserError(f"data.{key}={value!r}; expected {allowed[0]} or {allowed[1]}")
        if ngrams > 1 and input == "tokens":
            raise UserError(f"data.ngrams={ngrams} needs data.input=bag: runs of words have no order")
        self.input, self.vocabulary_size, self.ngrams = input, vocabulary_size, ngrams
        self.max_length, self.keep = max_length, keep
        self.test_fraction, self.target_name = test_fraction, target_name
        self._corpus: Corpus | None = None
        self._built_for: tuple[Any, ...] | None = None

    @abstractmethod
    def read(self, download: bool) -> Corpus:
        """The tokenised texts, from the cache or from their source.

        Raises:
            DataUnavailable: The source is nowhere to be had.
        """

    def prepare_data(self) -> None:
        """Find, read and tokenise the texts once."""
        self._corpus = self._read_or_stand_in(download=True)

    def setup(self, stage: str | None = None) -> None:
        settings = (self.seed, self.folds, self.fold, self.train_on_all)
        if self._built_for == settings:
            return
        corpus = self._corpus if self._corpus is not None else self._read_or_stand_in(download=False)
        # Arrays of the whole corpus are not needed once the splits are there; another setup reads the cache.
        self._corpus = None
        self._build(corpus)
        self._built_for = settings

    def _read_or_stand_in(self, download: bool) -> Corpus:
        try:
            return self.read(download)
        except DataUnavailable as error:
            return STAND_INS[self.stand_in(error)]()

    def cached(self, key: str, build: Callable[[], Corpus]) -> Corpus:
        """``build()``, from the cache if its texts were tokenised before.

        Args:
            key: Name of the texts, made from their content.
            build: Function that reads and tokenises them.
        """
        arrays, names = cached(
            self.data_dir,
            f"text-{key}-{LAYOUT}-{self.ngrams}",
            lambda: ((corpus := build()).arrays(), corpus.names()),
        )
        return Corpus(**{**arrays, **names})

    def _build(self, corpus: Corpus) -> None:
        rows, held_out, test = self._split(corpus)
        vocabulary = self._vocabulary(corpus, rows)
        words = [corpus.words[i] for i in vocabulary]
        self.encoder = (
            BagEncoder(words, self.ngrams, self.column, self.format.differences())
            if self.input == "bag"
            else TokensEncoder(words, self.max_length, self.keep, self.column, self.format.differences())
        )
        train, self.validation, self.test = (
            self._rows(corpus, vocabulary, part) if len(part) else None for part in (rows, held_out, test)
        )
        assert train is not None
        self.spec = self._spec(corpus.classes, len(words), train.y)
        self.train = self.oversampled(train)

    def _rows(self, corpus: Corpus, vocabulary: np.ndarray, rows: np.ndarray) -> Rows:
        """The texts ``rows`` as the model's input."""
        y = torch.from_numpy(corpus.labels[rows])
        y = y.float() if len(corpus.classes) == 2 else y
        if self.input == "bag":
            columns = np.full(len(corpus.words), -1, dtype=np.int32)
            columns[vocabulary] = np.arange(len(vocabulary))
            starts, values = corpus.bags(rows, columns)
            return SparseRows(torch.from_numpy(starts), torch.from_numpy(values), len(vocabulary), y)
        ids = np.full(len(corpus.words), UNKNOWN, dtype=np.int32)
        ids[vocabulary] = np.arange(len(vocabulary)) + UNKNOWN + 1
        starts, values = corpus.sequences(rows, ids, self.max_length, self.keep)
        return RaggedRows(torch.from_numpy(starts), torch.from_numpy(values), y)

    def _split(self, corpus: Corpus) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers of the texts for training, validation and test."""
        learn, test = np.flatnonzero(corpus.parts == TRAIN), np.flatnonzero(corpus.parts == TEST)
        if not len(test) and self.test_fraction:
            # Not the order that the validation split starts from: the two must not depend on each other.
            chosen = drawn(len(learn), self.test_fraction, [self.seed, 1], corpus.labels[learn])
            test, learn = learn[chosen], np.delete(learn, chosen)
        rows, held_out = (
            part.numpy() for part in self.split_rows(torch.from_numpy(corpus.labels[learn]), stratify=True)
        )
        return learn if self.train_on_all else learn[rows], learn[held_out], test

    def _vocabulary(self, corpus: Corpus, rows: np.ndarray) -> np.ndarray:
        from pipeline.data.text.words import vocabulary

        chosen = vocabulary(corpus.words, corpus.counts(rows), self.vocabulary_size)
        if not len(chosen):
            raise UserError(
                f"the {len(rows)} training texts of {self.name} hold no word; is the right column or file named?"
            )
        return chosen

    def _spec(self, classes: list[str], words: int, y: Tensor) -> Spec:
        binary = len(classes) == 2
        return Spec(
            task="binary" if binary else "multiclass",
            input="bag" if self.input == "bag" else "tokens",
            input_shape=(words,) if self.input == "bag" else (0,),
            outputs=1 if binary else len(classes),
            classes=tuple(classes),
            target_name=self.target_name,
            vocabulary=0 if self.input == "bag" else words + UNKNOWN + 1,
            class_weights=self.class_weights(y, len(classes)),
        )
